"""What a call takes from which budget, and how much of what is left a guard draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ostiary.authorization.budget.limits import Budget, Volume, account_of
from ostiary.protocol.errors import Forbidden

SLICES = 16
"""A guard gets this part of what is left."""


class Exhausted(Forbidden):
    """There is not so much left."""

    code = "budget_exhausted"


class Price(NamedTuple):
    """How a budget counts a call of one tool, made ready once so that each call is cheap."""

    id: str
    daily: bool
    cost: Callable[[Mapping[str, object]], int]
    volume: Volume | None = None


def prices(budgets: Iterable[Budget], tool: str, classes: frozenset[str] = frozenset()) -> tuple[Price, ...]:
    """Of those against which a call of `tool` (`bank/pay`), which handles these data classes, is counted."""
    return tuple(
        Price(budget.id, budget.daily, limit.cost, limit if isinstance(limit, Volume) else None)
        for budget in budgets
        if (limit := budget.limit).counts(tool, classes)
    )


def volumes(prices: Iterable[Price], *, now: int) -> dict[str, Volume]:
    """The accounts of volumes, from which a call takes more than it may need."""
    return {account_of(id, now) if daily else id: volume for id, daily, _, volume in prices if volume is not None}


def costs(prices: Iterable[Price], arguments: Mapping[str, object], *, now: int) -> dict[str, int]:
    """What a call with these arguments takes from each account. Raises BadAmount."""
    taken = {}
    for id, daily, cost, _ in prices:
        taken[account_of(id, now) if daily else id] = cost(arguments)
    return taken


def slice_of(left: int, need: int) -> int:
    """How much of what is left a guard gets that needs so much; nothing where that is not there."""
    return 0 if need > left else max(need, left // SLICES)


def exhausted(budget: Budget, left: int) -> Exhausted:
    """What is said where `left` units are not enough."""
    limit = budget.limit
    what = limit.meter.what if isinstance(limit, Volume) else limit.meter.kind
    whose = f"{what} of {' '.join(limit.tools) or 'all tools'}"[:200]
    message = f"the budget for {whose} has {limit.render(left)} of {limit.render(limit.units)} left"
    if isinstance(limit, Volume):
        message = f"{message}, and a call may return {limit.per_call}"
    if budget.daily:
        return Exhausted(f"{message} today", hint="it begins anew at midnight UTC: `ostiary agent budget` sets it")
    return Exhausted(message, hint="`ostiary task start --budget FILE` begins a task with a larger one")
