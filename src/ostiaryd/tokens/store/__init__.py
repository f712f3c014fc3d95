"""Stored data of tokens: one module per noun, SQL only."""
