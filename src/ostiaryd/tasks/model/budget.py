"""Budgets at the server: the holders of budgets, and the spent units."""

from __future__ import annotations

import msgspec

from ostiary.authorization.budget import Budget, Limit


class Allotment(msgspec.Struct, frozen=True, kw_only=True):
    """A budget, its holder (a task, or an agent for each day), and the budget from which it was taken at first."""

    budget: Budget
    holder: str
    parent: str | None = None
    ended_at: int | None = None


class Account(msgspec.Struct, frozen=True):
    """The state of an account, in units of its budget: `drawn` by calls, guards and child tasks, and `spent`, the part
    of it that is known to be used.
    """

    ceiling: int
    drawn: int
    spent: int

    @property
    def left(self) -> int:
        """Return the units that are left; 0 if a ceiling was lowered below the units that are drawn."""
        return max(0, self.ceiling - self.drawn)


class Slice(msgspec.Struct, frozen=True):
    """The slice that the guard of a spool drew from an account, and the part that it reported as spent."""

    account: str
    amount: int
    spent: int


class Balance(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of a budget for people, in the units of its limit. Units that are neither left nor spent are at
    guards, or with tasks under this one.
    """

    id: str
    limit: Limit
    left: str
    spent: str
    daily: bool = False
