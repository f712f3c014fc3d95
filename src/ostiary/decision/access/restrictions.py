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

RestrictionKind = Literal["throttle", "narrow", "step_up"]
MINUTE = 60_000_000


class Restriction(NamedTuple):
    """A restriction of an agent, in force before `until`. Times in microseconds."""

    kind: RestrictionKind
    limit: int
    since: int
    until: int


def throttled(
    agents: Iterable[tuple[str, int | None]], restrictions: Mapping[str, tuple[Restriction, ...]], now: int
) -> dict[str, int]:
    """Return the agents with a limit of calls in this minute, and their limits."""
    return {
        agent: restriction.limit
        for agent, _ in agents
        for restriction in restrictions.get(agent, ())
        if restriction.kind == "throttle" and now < restriction.until
    }
