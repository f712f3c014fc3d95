"""How many calls of agents that are held to a pace were let through in this minute. Each guard counts its own."""

from __future__ import annotations

import threading

from ostiary.core import access
from ostiary.core.access.decide import too_many
from ostiary.core.access.holds import MINUTE, throttled


class Pace:
    """Thread-safe. It knows whoever is held to a pace, for as long as that is so and a minute more."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._minute = 0
        self._calls: dict[str, int] = {}

    def check(
        self, decision: access.Decision, principal: access.Principal, facts: access.Facts, *, now: int
    ) -> access.Decision:
        """The decision on a call that is to be let through; no, where it would be one too many for somebody through
        whom it comes. Then nothing is counted.
        """
        limits = throttled(principal.agents, facts.holds, now)
        if not limits:
            return decision
        with self._mutex:
            if now // MINUTE != self._minute:
                self._minute, self._calls = now // MINUTE, {}
            for agent, limit in limits.items():
                if self._calls.get(agent, 0) >= limit:
                    return access.Decision(False, False, decision.policy_hash, (too_many(agent, limit),))
            for agent in limits:
                self._calls[agent] = self._calls.get(agent, 0) + 1
        return decision
