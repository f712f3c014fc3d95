"""Existing stores of secrets: one module for each kind, which implements `Backend` of `model/backend.py`."""
