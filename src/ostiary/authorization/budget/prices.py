"""Prices: the cost of a call for each budget, and the slice of the remaining units that a guard receives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ostiary.authorization.budget.limits import Budget, Volume, account_of
from ostiary.protocol.errors import Forbidden

SLICES = 16
"""A guard receives the remaining units divided by this number, or more if one call needs more."""


class Exhausted(Forbidden):
    """The remaining units of a budget are not enough for the call."""

    code = "budget_exhausted"


class Price(NamedTuple):
    """The rule by which calls of one tool are charged to one budget, with the function that returns the cost of a call.
    Made once for a token and a tool, so that each call is cheap.
    """

    id: str
    daily: bool
    cost: Callable[[Mapping[str, object]], int]
    volume: Volume | None = None


def prices(budgets: Iterable[Budget], tool: str, classes: frozenset[str] = frozenset()) -> tuple[Price, ...]:
    """Return the prices of the tool `tool` (`bank/pay`), which handles the data classes `classes`, for all
    budgets that count it.
    """
    return tuple(
        Price(budget.id, budget.daily, limit.cost, limit if isinstance(limit, Volume) else None)
        for budget in budgets
        if (limit := budget.limit).counts(tool, classes)
    )


def volumes(prices: Iterable[Price], *, now: int) -> dict[str, Volume]:
    """Return the volume limits among `prices`, by account. A call reserves the maximum of such a limit in advance, and
    gives the unused part back.
    """
    return {account_of(id, now) if daily else id: volume for id, daily, _, volume in prices if volume is not None}


def costs(prices: Iterable[Price], arguments: Mapping[str, object], *, now: int) -> dict[str, int]:
    """Return the cost of a call with these arguments, in units by account. Raises BadAmount if an argument that the
    cost depends on is not a valid amount.
    """
    costs_by_account = {}
    for id, daily, cost, _ in prices:
        costs_by_account[account_of(id, now) if daily else id] = cost(arguments)
    return costs_by_account


def slice_of(left: int, need: int) -> int:
    """Return the number of units (the slice) that the server hands to a guard that needs `need` units of a budget with
    `left` units; 0 if fewer than `need` are left.
    """
    return 0 if need > left else max(need, left // SLICES)


def exhausted(budget: Budget, left: int) -> Exhausted:
    """Return the error for a budget of which only `left` units remain."""
    limit = budget.limit
    counted = limit.meter.counted if isinstance(limit, Volume) else limit.meter.kind
    subject = f"{counted} of {' '.join(limit.tools) or 'all tools'}"[:200]
    message = f"the budget for {subject} has {limit.render(left)} of {limit.render(limit.units)} left"
    if isinstance(limit, Volume):
        message = f"{message}, and a call may return {limit.per_call}"
    if budget.daily:
        return Exhausted(
            f"{message} today",
            hint="the budget starts again at midnight UTC; to set it: `ostiary agent budget AGENT --limits FILE`",
        )
    return Exhausted(
        message,
        hint="start a task with a larger budget: ostiary task start --agent AGENT --purpose WORDS --budget FILE",
    )
