"""The guard's third conversation with the server: slices of budgets, for whoever needs one, one at a time.

Whoever cannot be answered in time is refused: `Unavailable`, and nothing was spent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import httpx2
import msgspec

from ostiary import client
from ostiary.decision.slices import Draw, Drawn, GiveBack, GivenBack, Settled
from ostiary.guard.purse import IDLE_US, Purse
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Refused, Unavailable

DRAW_S = 2.0
"""How long a call waits for its turn, and for each answer."""
MAX_GIVEN = 1000

T = TypeVar("T")
Connect = Callable[[], Any]
"""A context: the conversation's own client, what shows who we are, and the issuer."""


class Drawer:
    """Thread-safe. `spool` is the id under which the server counts what this guard has drawn."""

    def __init__(self, purse: Purse, *, spool: str, url: str, connect: Connect) -> None:
        self._purse, self._spool, self._url, self._connect = purse, spool, url, connect
        self._mutex = threading.Lock()
        self._open = ExitStack()
        self._talk: tuple[httpx2.Client, client.Auth] | None = None
        self._asked = 0
        """how many requests there were: each has its turn"""
        self._unheard: dict[str, int] = {}
        """what we said that we keep, where no answer came"""
        self.has_drawn = False
        """whether the server may count anything as drawn by this guard"""

    def draw(self, token: str, costs: Mapping[str, int]) -> dict[str, int]:
        """See that these costs can be paid for a call under that token (its `jti`): what is left where they cannot.

        Raises Unavailable.
        """
        with self._alone():
            need = self._purse.need(costs)  # somebody else may have drawn meanwhile
            if not need:
                return {}
            if self._unheard:
                self._keep(self._unheard)  # else we would not know from where the server counts
                need = self._purse.need(costs)
            self.has_drawn = True
            self._purse.expect(need)
            drawn = self._post("draw", Draw(spool=self._spool, turn=self._turn(), token=token, need=need), Drawn)
            self._purse.grant({account: drawn.total[account] for account in need})
            short = [account for account in need if drawn.total[account] < need[account]]
            return {account: drawn.left[account] + self._purse.here(account) for account in short}

    def give_back(self) -> None:
        """Return what nobody has touched for a while. Raises Unavailable."""
        with self._alone():
            while keep := self._unheard or self._purse.part_with(idle=IDLE_US, count=MAX_GIVEN):
                if self._keep(keep) < len(keep):
                    return  # reports of the others are still on their way

    def _keep(self, keep: dict[str, int]) -> int:
        """Return all but that: how many accounts are closed. Raises Unavailable."""
        self._unheard = keep
        given = self._post("give-back", GiveBack(spool=self._spool, turn=self._turn(), keep=keep), GivenBack)
        self._unheard = {}
        self._purse.forget(given.closed)
        return len(given.closed)

    def settle(self) -> None:
        """Return everything; all records are reported. Raises Unavailable."""
        with self._alone():
            self._post("settle", Settled(spool=self._spool, told=self._purse.last), dict)
            self.has_drawn = False

    def close(self) -> None:
        with self._mutex:
            self._hang_up()

    def _turn(self) -> int:
        self._asked += 1
        return self._asked

    @contextmanager
    def _alone(self) -> Any:
        if not self._mutex.acquire(timeout=DRAW_S):
            raise Unavailable("the server is too slow in answering for budgets", code="budget_unavailable")
        try:
            yield
        finally:
            self._mutex.release()

    def _post(self, verb: str, body: msgspec.Struct, kind: type[T]) -> T:
        try:
            if self._talk is None:
                self._talk = self._open.enter_context(self._connect())[:2]
            http, auth = self._talk
            headers = {"content-type": "application/json"}
            response = http.post(
                f"{self._url}/feed/v1/{verb}", content=msgspec.json.encode(body), headers=headers, auth=auth
            )
            if response.status_code != 200:
                raise Unavailable(f"/feed/v1/{verb} answers {response.status_code}: {response.text[:200]}")
            return json_decoder(kind)(response.content)
        except (Refused, httpx2.HTTPError, OSError, msgspec.DecodeError) as error:
            self._hang_up()
            why = str(error) or type(error).__name__
            raise Unavailable(f"the budget cannot be asked for: {why}", code="budget_unavailable") from None

    def _hang_up(self) -> None:
        self._talk = None
        self._open.close()
