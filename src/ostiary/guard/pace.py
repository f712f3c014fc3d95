"""Calls of agents that are held to a pace: the server counts them, for all guards and for itself together.

    POST /feed/v1/pace    {"token": jti}    200; or 403 `throttled`: it was one too many, and nothing was counted

Each such call waits for the server, and is refused where that cannot be asked. Who has just had one too many is refused
without asking for a moment, so that who goes on all the same reaches nobody but this guard.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import httpx2
import msgspec

from ostiary.decision import access
from ostiary.decision.access.holds import throttled
from ostiary.guard.asker import ASK_S, Answered, Asker
from ostiary.protocol.errors import Refused, Unavailable

QUIET_US = 5_000_000
"""That moment. Minutes begin by the server's clock, not by ours."""


class Paced(tuple[tuple[str, int], ...]):
    """Agents that are held to a pace, with their limits, through which a call comes: it must be counted first."""

    __slots__ = ()


class Pace:
    """Thread-safe. It knows who has had one too many a moment ago."""

    def __init__(self, asker: Asker, *, now: Callable[[], int]) -> None:
        self._asker, self._now = asker, now
        self._mutex = threading.Lock()
        self._over: dict[Paced, tuple[int, access.Reason]] = {}

    def check(
        self, decision: access.Decision, principal: access.Principal, facts: access.Facts, *, now: int
    ) -> access.Decision | Paced:
        """The decision on a call that is to be let through, or that a person is to be asked about: no, where it is one
        too many for somebody through whom it comes; or whose call is to be counted.
        """
        if not (decision.allowed or decision.asks):
            return decision
        paced = Paced(throttled(principal.agents, facts.holds, now).items())
        until, reason = self._over.get(paced, (0, None))
        if reason is not None and now < until:
            return access.Decision(False, False, decision.policy_hash, (reason,))
        return paced or decision

    def count(self, paced: Paced, token: str) -> bool:
        """Have a call under that token (its `jti`) counted; False where it is one too many. Raises Unavailable."""
        body = msgspec.json.encode({"token": token})
        try:
            self._asker.submit(partial(self._asker.post, "pace", body)).result(ASK_S)
        except Answered as answered:
            if (own := answered.own) is None or own.code != "throttled":
                raise _uncounted(answered.message) from None
            with self._mutex:
                now = self._now()
                self._over = {one: said for one, said in self._over.items() if now < said[0]}
                self._over[paced] = (now + QUIET_US, access.Reason(own.code, own.message, own.hint))
            return False
        except (Refused, httpx2.HTTPError, OSError, TimeoutError) as error:
            raise _uncounted(error.message if isinstance(error, Refused) else type(error).__name__) from None
        return True


def _uncounted(why: str) -> Unavailable:
    return Unavailable(f"a throttled call cannot be counted: {why}", hint="try again", code="pace_unavailable")
