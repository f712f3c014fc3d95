"""Ostiary, the doorkeeper for AI agents: what agents, tools and people use."""
