"""Ostiary's server: one room per capability, each room built alike (see ARCHITECTURE.md)."""
