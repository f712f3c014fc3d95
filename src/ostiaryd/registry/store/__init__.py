"""Stored data of the registry: one module per noun, SQL only."""
