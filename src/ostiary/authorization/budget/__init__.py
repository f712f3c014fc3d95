"""Budgets: limits on the total amount of work. A limit states the counted unit, and the maximum number of units.

    {"kind": "calls", "limit": 100}                                             calls of all tools
    {"kind": "calls", "limit": 5, "tools": ["bank/pay"]}                        calls of these tools
    {"kind": "amount", "limit": "250.00", "tools": ["bank/pay"], "argument": "amount"}    the sum of that argument
    {"kind": "volume", "limit": 1000, "data_class": "health", "per_call": 50}   returned records of that class

Each kind is a class in the union `Limit`; to add a kind, add a class there. All limits count whole units: the decimal
places of an amount's limit define the unit (`"250.00"` is 25,000 units), and an amount must not have more places. An
amount is an integer or a string of plain digits, so that all readers agree on its value: no sign, no exponent, no
digits of other scripts, no NaN, and no JSON number with a fraction, which readers may round differently. The size of a
result is unknown before the call. Each call therefore reserves the maximum that one call may return, and returns the
unused units afterwards; a larger result is withheld.
"""

from ostiary.authorization.budget.limits import (
    DAY_US,
    MAX_BUDGETS,
    MAX_LIMITS,
    Amount,
    BadAmount,
    Budget,
    Calls,
    InvalidBudget,
    Limit,
    Volume,
    account_of,
    parse_limits,
)
from ostiary.authorization.budget.prices import (
    Exhausted,
    Price,
    costs,
    exhausted,
    prices,
    slice_of,
    volumes,
)

__all__ = [
    "DAY_US",
    "MAX_BUDGETS",
    "MAX_LIMITS",
    "Amount",
    "BadAmount",
    "Budget",
    "Calls",
    "Exhausted",
    "InvalidBudget",
    "Limit",
    "Price",
    "Volume",
    "account_of",
    "costs",
    "exhausted",
    "parse_limits",
    "prices",
    "slice_of",
    "volumes",
]
