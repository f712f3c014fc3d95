"""Restrictions on an agent that is not stopped. A restriction only reduces access, and ends at a stated time.

    throttle   at most `limit` calls in each minute of the clock
    narrow     only tools that read
    step_up    only tokens whose holder authenticated at `since` or later, at least at the level STEPS[limit]

A restriction also applies to calls of other agents to which the agent has delegated. A step-up is proved by the token
of the call, and not by earlier tokens of the holder: a token from an exchange has the weakest level and the oldest
authentication time among all agents of its chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

RestrictionKind = Literal["throttle", "narrow", "step_up"]
MINUTE = 60_000_000


class Restriction(NamedTuple):
    """A restriction of an agent, in force before the time `until`. Times are in microseconds since the epoch."""

    kind: RestrictionKind
    limit: int
    since: int
    until: int


def throttled(
    agents: Iterable[tuple[str, int | None]], restrictions: Mapping[str, tuple[Restriction, ...]], now: int
) -> dict[str, int]:
    """Return the throttled agents among `agents`, each with its maximum number of calls in a minute. `agents`: (agent
    id, epoch); `now` in microseconds.
    """
    return {
        agent: restriction.limit
        for agent, _ in agents
        for restriction in restrictions.get(agent, ())
        if restriction.kind == "throttle" and now < restriction.until
    }
