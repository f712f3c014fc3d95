"""What a guard has drawn of budgets, and what of that it has spent. Thread-safe.

Numbers are totals since the guard began, as the server counts them too, so an account is forgotten only when both do. A
call is paid in the same instant in which its record is kept: what is spent is on record, even if the guard is killed
right then, and from what is not on record nothing is missing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from ostiary.authorization.budget import Budget, exhausted
from ostiary.protocol.errors import Unavailable

IDLE_US = 5_000_000
"""What nobody has touched for so long is given back."""


@dataclass(slots=True)
class _Part:
    left: int = 0
    spent: int = 0
    running: int = 0
    """calls of which something may come back"""
    is_touched: bool = True
    """since it was last looked at"""
    since: int = 0
    """when it was last found touched"""


_NOTHING = _Part()


class Purse:
    def __init__(self, *, tick: Callable[[], int]) -> None:
        self._tick = tick
        self._parts: dict[str, _Part] = {}
        self._mutex = threading.Lock()
        self._is_closed = False
        self.last = 0
        """number of the last record that spent anything"""

    def pay(self, costs: Mapping[str, int], record: Callable[[], int], *, ahead: Iterable[str] = ()) -> int | None:
        """Spend that, and keep the record that says so: its number. None, and nothing is done, where there is too
        little. From the accounts `ahead` it takes more than may be needed, until `take_back`. Raises Unavailable, and
        what `record` raises.
        """
        with self._mutex:
            if self._is_closed:
                raise Unavailable("the guard is closed")
            parts = self._parts
            for account, units in costs.items():
                if units and parts.get(account, _NOTHING).left < units:
                    return None
            self.last = record()
            for account, units in costs.items():
                if units:
                    part = parts[account]
                    part.left -= units
                    part.spent += units
                    part.is_touched = True
            for account in ahead:
                parts[account].running += 1
            return self.last

    def take_back(self, ahead: Iterable[str], unused: Mapping[str, int], record: Callable[[], int]) -> None:
        """A call is over that took from the accounts `ahead`: keep the record that says what it did not use, and have
        that again. Raises what `record` raises, and then nothing comes back.
        """
        with self._mutex:
            for account in ahead:
                self._parts[account].running -= 1
                self._parts[account].is_touched = True  # so that the server hears the record before we part with it
            record()
            for account, units in unused.items():
                self._parts[account].left += units
                self._parts[account].spent -= units

    def need(self, costs: Mapping[str, int]) -> dict[str, int]:
        """How much must have been drawn in all from each account that has too little for these costs."""
        need = {}
        with self._mutex:
            for account, units in costs.items():
                part = self._parts.get(account, _NOTHING)
                if part.left < units:
                    need[account] = part.spent + units
        return need

    def check(self, costs: Mapping[str, int], budgets: Iterable[Budget], left: Mapping[str, int], *, now: int) -> None:
        """Raises Exhausted where too little is here, and the server has said that no more is to be had (`left`)."""
        short = self.need(costs)
        for budget in budgets:
            if (account := budget.account(now)) in short and account in left:
                raise exhausted(budget, left[account])

    def expect(self, accounts: Iterable[str]) -> None:
        """We are about to draw from these: whatever comes of it, what is left there must be given back one day."""
        with self._mutex:
            for account in accounts:
                self._parts.setdefault(account, _Part()).is_touched = True

    def grant(self, totals: Mapping[str, int]) -> None:
        """So much was drawn in all, as expected."""
        with self._mutex:
            for account, total in totals.items():
                part = self._parts[account]
                part.left, part.is_touched = total - part.spent, True

    def here(self, account: str) -> int:
        """What is left of what was drawn."""
        with self._mutex:
            return self._parts.get(account, _NOTHING).left

    def part_with(self, *, idle: int, count: int) -> dict[str, int]:
        """Never spend again what is left in accounts that were not touched for so long: how much of each was kept."""
        now = self._tick()
        kept: dict[str, int] = {}
        with self._mutex:
            for account, part in self._parts.items():
                if part.is_touched:
                    part.is_touched, part.since = False, now
                elif part.since <= now - idle and not part.running and len(kept) < count:
                    part.left = 0
                    kept[account] = part.spent
        return kept

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
