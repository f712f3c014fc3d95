"""Budgets at the server: which task or agent has a budget, and how many units are spent."""

from __future__ import annotations

import msgspec

from ostiary.authorization.budget import Budget, Limit


class Allotment(msgspec.Struct, frozen=True, kw_only=True):
    """A budget in the database: the limit, its holder (a task, or an agent for daily budgets), and the budget of a task
    above from which its units were taken (None for none).
    """

    budget: Budget
    holder: str
    parent: str | None = None
    ended_at: int | None = None


class Account(msgspec.Struct, frozen=True):
    """The state of an account, in units of its budget: `drawn` are all units that calls, guards and child tasks took;
    `spent` is the part of them that is known to be used.
    """

    ceiling: int
    drawn: int
    spent: int

    @property
    def left(self) -> int:
        """Return the number of units that the account can still give; 0 if the limit was lowered below the number of
        drawn units.
        """
        return max(0, self.ceiling - self.drawn)


class Slice(msgspec.Struct, frozen=True):
    """The units that the guard with one spool drew in advance from an account of a budget, and the part that the guard
    reported as spent.
    """

    account: str
    amount: int
    spent: int


class Balance(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a budget for people, in the units of its limit. Units that are neither left nor spent were drawn by
    guards or by tasks under this one.
    """

    id: str
    limit: Limit
    left: str
    spent: str
    daily: bool = False
