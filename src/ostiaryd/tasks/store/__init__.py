"""Stored data of tasks: one module per noun, SQL only."""
