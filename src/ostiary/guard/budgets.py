"""Budgets at a guard: the slices that the guard has drawn from the server, and the spent part of each slice.

The guard and the server both count the total units since the guard started. An account is therefore deleted here only
after the server has deleted the account. The payment for a call is a part of the call's record: even if the guard is
killed, all spent units are on record, and a call without a record has spent nothing. A call that cannot draw units in
time is refused (`Unavailable`) and spends nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
import msgspec

from ostiary import client
from ostiary.authorization.budget import Budget, exhausted
from ostiary.decision.slices import Draw, Drawn, GiveBack, GivenBack, Settled
from ostiary.guard.server_rpc import Connect
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Refused, Unavailable

IDLE_US = 5_000_000
"""Microseconds without a call after which the guard returns the unused units of an account to the server."""
DRAW_S = 2.0
"""Maximum time in seconds for which a call waits until it may ask for units, and then for each answer of the server."""
MAX_GIVEN = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BudgetDraw:
    """The need to draw units of budgets from the server, so that a call can be charged. The answer is a dict: for each
    account that still has too few units after the draw, its remaining units.
    """

    costs: Mapping[str, int]


@dataclass(slots=True)
class _Part:
    left: int = 0
    spent: int = 0
    running: int = 0
    """number of running calls that may still give units back to this account"""
    is_touched: bool = True
    """true if a call has used the account since `BudgetCache.part_with` last looked at it"""
    since: int = 0
    """time since which the account counts as idle: the last time that `part_with` found `is_touched`; microseconds of
    the boot clock
    """


_NOTHING = _Part()


class BudgetCache:
    """The slices of budgets (units that this guard has drawn from the server in advance), and the spent part of each
    slice. Thread-safe.
    """

    def __init__(self, *, tick: Callable[[], int]) -> None:
        self._tick = tick
        self._parts: dict[str, _Part] = {}
        self._mutex = threading.Lock()
        self._is_closed = False
        self.last = 0
        """number of the last record in the spool that spent units of a budget"""

    def pay(self, costs: Mapping[str, int], record: Callable[[], int], *, ahead: Iterable[str] = ()) -> int | None:
        """Charge a call: subtract `costs` (units by account) from the drawn slices, store the record of the call with
        `record`, and return the number of the record. If an account has too few units, return None and change nothing.
        For the accounts in `ahead`, the cost is a maximum, whose unused part `take_back` returns. Raises Unavailable if
        the guard is closed, and the errors of `record`.
        """
        with self._mutex:
            if self._is_closed:
                raise Unavailable("the guard is closed", hint="create and start another guard")
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
        """Store the record of the outcome of a call with `record`, and add the `unused` units (by account) to the
        slices again. `ahead`: the accounts that were charged the maximum. Raises the errors of `record`; then no units
        are added.
        """
        with self._mutex:
            for account in ahead:
                self._parts[account].running -= 1
                # an account in use is not emptied by `part_with` before the record is reported
                self._parts[account].is_touched = True
            record()
            for account, units in unused.items():
                self._parts[account].left += units
                self._parts[account].spent -= units

    def need(self, costs: Mapping[str, int]) -> dict[str, int]:
        """Return, for each account with fewer units than its cost, the total that the guard must have drawn since its
        start to pay the cost.
        """
        need = {}
        with self._mutex:
            for account, units in costs.items():
                part = self._parts.get(account, _NOTHING)
                if part.left < units:
                    need[account] = part.spent + units
        return need

    def check(self, costs: Mapping[str, int], budgets: Iterable[Budget], left: Mapping[str, int], *, now: int) -> None:
        """Check that the drawn units suffice for `costs`, or that a further draw may help. `left`: remaining units of
        each account for which the last draw brought too few. Raises Exhausted if the budget of such an account is used
        up.
        """
        short = self.need(costs)
        for budget in budgets:
            if (account := budget.account(now)) in short and account in left:
                raise exhausted(budget, left[account])

    def expect(self, accounts: Iterable[str]) -> None:
        """Record that a draw from these accounts begins. Even if the answer is lost, the units that the server may have
        counted as drawn are returned later.
        """
        with self._mutex:
            for account in accounts:
                self._parts.setdefault(account, _Part()).is_touched = True

    def grant(self, totals: Mapping[str, int]) -> None:
        """Add drawn units to the slices. `totals`: units drawn since the start of the guard, by account."""
        with self._mutex:
            for account, total in totals.items():
                part = self._parts[account]
                part.left, part.is_touched = total - part.spent, True

    def drawn(self, account: str) -> int:
        """Return the number of units of an account that this guard has drawn from the server and not spent."""
        with self._mutex:
            return self._parts.get(account, _NOTHING).left

    def part_with(self, *, idle: int, count: int) -> dict[str, int]:
        """Give up the unspent units of at most `count` accounts that no call has used for `idle` microseconds. Return
        the spent units of each of these accounts, from which the server computes the units that it gets back.
        """
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
        """Delete the guard's copies of these accounts of budgets, because the server has deleted the accounts."""
        with self._mutex:
            for account in accounts:
                self._parts.pop(account, None)

    def close(self) -> None:
        """Refuse to charge further calls. For each call that was charged before, the spool has a record."""
        with self._mutex:
            self._is_closed = True

    @property
    def is_empty(self) -> bool:
        """Return whether the guard has no account of a budget: every slice that it drew is returned."""
        return not self._parts


class BudgetClient:
    """Requests for slices of budgets, one at a time. Thread-safe.

    `spool` is the id under which the server counts the slices of this guard.
    """

    def __init__(self, cache: BudgetCache, *, spool: str, url: str, connect: Connect) -> None:
        self._cache, self._spool, self._url, self._connect = cache, spool, url, connect
        self._mutex = threading.Lock()
        self._open = ExitStack()
        self._connection: tuple[httpx2.Client, client.Auth] | None = None
        self._asked = 0
        """Number of the last request to the server about slices. The next request has the next number, so that the
        server counts a repeated request once.
        """
        self._unconfirmed: dict[str, int] = {}
        """Spent units by account, as stated in a return of slices, until the server has confirmed this return."""
        self.has_drawn = False
        """True if the server may have counted units of a budget as drawn by this guard, so that the guard must settle
        at its end.
        """

    def draw(self, token: str, costs: Mapping[str, int]) -> dict[str, int]:
        """Draw the units that `costs` need, for a call with the token whose `jti` is `token`. Return the remaining
        units, at the guard and at the server together, of each account that still has too few.

        Raises Unavailable if the server refuses the request or does not answer.
        """
        with self._alone():
            need = self._cache.need(costs)  # another thread may have drawn meanwhile
            if not need:
                return {}
            if self._unconfirmed:
                self._keep(self._unconfirmed)  # without a confirmed return, the server's total is unknown
                need = self._cache.need(costs)
            self.has_drawn = True
            self._cache.expect(need)
            drawn = self._post("draw", Draw(spool=self._spool, turn=self._turn(), token=token, need=need), Drawn)
            self._cache.grant({account: drawn.total[account] for account in need})
            short = [account for account in need if drawn.total[account] < need[account]]
            return {account: drawn.left[account] + self._cache.drawn(account) for account in short}

    def give_back(self) -> None:
        """Return the unspent units of all accounts that no call has used for IDLE_US to the server. Raises Unavailable
        if the server refuses the request or does not answer.
        """
        with self._alone():
            while keep := self._unconfirmed or self._cache.part_with(idle=IDLE_US, count=MAX_GIVEN):
                if self._keep(keep) < len(keep):
                    return  # the server has not yet received all records of the other accounts

    def _keep(self, keep: dict[str, int]) -> int:
        """Return to the server all units of these accounts except the spent units, `keep`. Return the number of
        accounts that the server has closed. Raises Unavailable if the server refuses the request or does not answer.
        """
        self._unconfirmed = keep
        returned = self._post("give-back", GiveBack(spool=self._spool, turn=self._turn(), keep=keep), GivenBack)
        self._unconfirmed = {}
        self._cache.forget(returned.closed)
        return len(returned.closed)

    def settle(self) -> None:
        """Return all unspent units to the server. Call this after all records are reported. Raises Unavailable if the
        server refuses the request or does not answer.
        """
        with self._alone():
            self._post("settle", Settled(spool=self._spool, last_record=self._cache.last), dict)
            self.has_drawn = False

    def close(self) -> None:
        """Close the connection."""
        with self._mutex:
            self._disconnect()

    def _turn(self) -> int:
        self._asked += 1
        return self._asked

    @contextmanager
    def _alone(self) -> Any:
        if not self._mutex.acquire(timeout=DRAW_S):
            raise Unavailable(
                f"other requests of this guard for budgets have waited for the server for {DRAW_S:g} s",
                hint="try again",
                code="budget_unavailable",
            )
        try:
            yield
        finally:
            self._mutex.release()

    def _post(self, verb: str, body: msgspec.Struct, kind: type[T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._open.enter_context(self._connect())[:2]
            http, auth = self._connection
            headers = {"content-type": "application/json"}
            response = http.post(
                f"{self._url}/feed/v1/{verb}", content=msgspec.json.encode(body), headers=headers, auth=auth
            )
            if response.status_code != 200:
                raise Unavailable(f"/feed/v1/{verb} answers {response.status_code}: {response.text[:200]}")
            return json_decoder(kind)(response.content)
        except (Refused, httpx2.HTTPError, OSError, msgspec.DecodeError) as error:
            self._disconnect()
            why = str(error) or type(error).__name__
            raise Unavailable(
                f"the request for a budget failed: {why}", hint="try again", code="budget_unavailable"
            ) from None

    def _disconnect(self) -> None:
        self._connection = None
        self._open.close()
