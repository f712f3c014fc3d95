"""Calls of throttled agents: the server counts them, for all guards and for itself together.

    POST /feed/v1/pace    {"token": jti}    200; or 403 `throttled`: the limit is reached, and nothing was counted

Each such call waits for the server, and is refused if the server cannot be asked. After a refusal, the guard denies
without asking for some seconds, so that an agent that keeps calling reaches only this guard.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import httpx2
import msgspec

from ostiary.decision import access
from ostiary.decision.access.restrictions import throttled
from ostiary.guard.drivers import Wait, Waits
from ostiary.guard.server_rpc import ASK_S, RpcRefused, ServerRpc
from ostiary.protocol.errors import Refused, Unavailable

QUIET_US = 5_000_000
"""time for which the guard denies an agent without asking the server, after the server has refused a call of the
agent, in microseconds
"""

Limits = tuple[tuple[str, int], ...]
"""Throttled agents, each with its maximum number of calls in a minute."""


@dataclass(frozen=True, slots=True)
class RateCheck:
    """The need to count a call at the server, because agents of its delegation chain are throttled (limited to a number
    of calls in each minute). The answer is true if the call is within the limits of all these agents.
    """

    limits: Limits


class RateLimiter:
    """The requests that count calls of throttled agents at the server, and the agents that this guard denies for
    QUIET_US after the server has refused a call of them. Thread-safe.
    """

    def __init__(self, rpc: ServerRpc, *, now: Callable[[], int]) -> None:
        self._rpc, self._now = rpc, now
        self._mutex = threading.Lock()
        self._denied: dict[Limits, tuple[int, access.Reason]] = {}

    def check(self, call: access.ResolvedCall, decision: access.Decision) -> access.Decision | RateCheck:
        """Return `decision` if no agent of the call is throttled; a denial if the server has just refused a call of
        these agents; or else the need to count the call.

        A call that is denied anyway is not counted, unless a person is asked about it.
        """
        if not (decision.allowed or decision.asks):
            return decision
        limits = tuple(throttled(call.principal.agents, call.facts.restrictions, call.now).items())
        until, reason = self._denied.get(limits, (0, None))
        if reason is not None and call.now < until:
            return access.Decision(False, False, decision.policy_hash, (reason,))
        return RateCheck(limits) if limits else decision

    def count(self, need: RateCheck, token: str) -> Waits[bool]:
        """Let the server count a call with the token whose `jti` is `token`. Return whether the call is within the
        limits. Raises Unavailable if the server does not count the call.
        """
        body = msgspec.json.encode({"token": token})
        try:
            yield Wait(self._rpc.submit(partial(self._rpc.post, "pace", body)), ASK_S)
        except RpcRefused as refused:
            if (own := refused.own) is None or own.code != "throttled":
                raise _uncounted(refused.message) from None
            with self._mutex:
                now = self._now()
                self._denied = {limits: denied for limits, denied in self._denied.items() if now < denied[0]}
                self._denied[need.limits] = (now + QUIET_US, access.Reason(own.code, own.message, own.hint))
            return False
        except (Refused, httpx2.HTTPError, OSError, TimeoutError) as error:
            raise _uncounted(error.message if isinstance(error, Refused) else type(error).__name__) from None
        return True


def _uncounted(why: str) -> Unavailable:
    return Unavailable(f"a throttled call cannot be counted: {why}", hint="try again", code="pace_unavailable")
