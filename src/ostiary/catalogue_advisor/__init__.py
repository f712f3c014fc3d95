"""Advice: the probable catalogue of a resource, and suggestions for scopes, bounds and plans of tasks. No
decision imports this package.
"""
