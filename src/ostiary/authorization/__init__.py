"""The terms of a decision: bounds, budgets, arguments, catalogues, claims, and the Cedar representation and
compiler. Pure.
"""
