"""Restrictions on an agent that is not stopped. A restriction only takes access away, and ends at its date.

    throttle   at most `limit` calls in each minute of the clock
    narrow     only tools that read
    step_up    only tokens whose holder authenticated at `since` or later, at least at the level STEPS[limit]

A restriction also applies to calls through the agent. A proof of step-up belongs to the token, not to its holder: a
token from an exchange has the weakest level and the oldest time of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

HoldKind = Literal["throttle", "narrow", "step_up"]
MINUTE = 60_000_000


class Hold(NamedTuple):
    """Times in microseconds; it is in force before `until`."""

    kind: HoldKind
    limit: int
    since: int
    until: int


def throttled(
    agents: Iterable[tuple[str, int | None]], holds: Mapping[str, tuple[Hold, ...]], now: int
) -> dict[str, int]:
    """Return the agents with a limit of calls in this minute, and their limits."""
    return {
        agent: hold.limit
        for agent, _ in agents
        for hold in holds.get(agent, ())
        if hold.kind == "throttle" and now < hold.until
    }
