"""What a guard has drawn of budgets, and what of that it has spent. Thread-safe.

Numbers are totals since the guard began, as the server counts them too, so an account is forgotten only when both do. A
call is paid in the same instant in which its record is kept: what is spent is on record, even if the guard is killed
right then, and from what is not on record nothing is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from ostiary.core.budget import Budget, exhausted
from ostiary.core.errors import Unavailable

IDLE_US = 5_000_000
"""What nobody has touched for so long is given back."""


@dataclass(slots=True)
class _Part:
    total: int = 0
    spent: int = 0
    touched: int = 0


class Purse:
    def __init__(self, *, tick: Callable[[], int]) -> None:
        self._tick = tick
        self._parts: dict[str, _Part] = {}
        self._mutex = threading.Lock()
        self._is_closed = False
        self.last = 0
        """number of the last record that spent anything"""

    def pay(self, costs: Mapping[str, int], record: Callable[[], int]) -> int | None:
        """Spend that, and keep the record that says so: its number. None, and nothing is done, where there is too
        little. Raises Unavailable, and what `record` raises.
        """
        with self._mutex:
            if self._is_closed:
                raise Unavailable("the guard is closed")
            if self._need(costs):
                return None
            self.last = record()
            now = self._tick()
            for account, units in costs.items():
                if (part := self._parts.get(account)) is None:  # a call of nothing needs none
                    continue
                part.spent += units
                part.touched = now
            return self.last

    def need(self, costs: Mapping[str, int]) -> dict[str, int]:
        """How much must have been drawn in all from each account that has too little for these costs."""
        with self._mutex:
            return self._need(costs)

    def _need(self, costs: Mapping[str, int]) -> dict[str, int]:
        parts = self._parts
        need = {}
        for account, units in costs.items():
            part = parts.get(account)
            if units and (part is None or part.total - part.spent < units):
                need[account] = units if part is None else part.spent + units
        return need

    def check(self, costs: Mapping[str, int], budgets: Iterable[Budget], left: Mapping[str, int], *, now: int) -> None:
        """Raises Exhausted where too little is here, and the server has said that no more is to be had (`left`)."""
        short = self.need(costs) if left else {}
        for budget in budgets:
            if (account := budget.account(now)) in short and account in left:
                raise exhausted(budget, left[account])

    def grant(self, totals: Mapping[str, int]) -> None:
        """So much was drawn in all."""
        with self._mutex:
            for account, total in totals.items():
                part = self._parts.setdefault(account, _Part())
                part.total, part.touched = total, self._tick()

    def here(self, account: str) -> int:
        """What is left of what was drawn."""
        with self._mutex:
            part = self._parts.get(account)
            return 0 if part is None else part.total - part.spent

    def part_with(self, *, idle: int, count: int) -> dict[str, int]:
        """Never spend again what is left in accounts that were not touched for so long: how much of each was kept."""
        before = self._tick() - idle
        with self._mutex:
            parts = [(account, part) for account, part in self._parts.items() if part.touched <= before][:count]
            for _, part in parts:
                part.total = part.spent
            return {account: part.spent for account, part in parts}

    def forget(self, accounts: Collection[str]) -> None:
        """The server has forgotten them too."""
        with self._mutex:
            for account in accounts:
                self._parts.pop(account, None)

    def close(self) -> None:
        """Nothing is paid any more; what was paid has its record."""
        with self._mutex:
            self._is_closed = True

    @property
    def is_empty(self) -> bool:
        return not self._parts
