"""Stored secrets and tokens."""
