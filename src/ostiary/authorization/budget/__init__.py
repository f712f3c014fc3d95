"""Budgets: how much may be done at all. A limit says what is counted, and how much of it there is.

    {"kind": "calls", "limit": 100}                                             calls, of whatever tool
    {"kind": "calls", "limit": 5, "tools": ["bank/pay"]}                        calls of these tools
    {"kind": "amount", "limit": "250.00", "tools": ["bank/pay"], "argument": "amount"}    what that argument says
    {"kind": "volume", "limit": 1000, "data_class": "health", "per_call": 50}   records of that class that come back

A kind is a class with these members in the union `Limit`: a new one is one more class there. Everything is counted in
whole units: the decimal places of an amount's limit say which (`"250.00"` is 25,000), and no amount may have more.
An amount is an integer or a string of plain digits, so that there is one reading: no sign, no exponent, no other
script's digits, no NaN, and no JSON number with a fraction, whose digits each reader rounds for himself.
How much a call returns nobody knows ahead of it. So each takes the most that one call may return, and gives back what
it did not; what is more is not handed out.
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
    SLICES,
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
    "SLICES",
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
