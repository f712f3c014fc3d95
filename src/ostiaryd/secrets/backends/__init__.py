"""Existing stores of secrets: one module for each kind. Each module implements `Backend` of `model/backend.py`."""
