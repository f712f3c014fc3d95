"""What a doubted agent is held to, though it is not stopped. A hold only takes away, and ends by itself.

    throttle   at most `limit` calls in each minute of the clock
    narrow     only tools that read
    step_up    only tokens whose holder proved itself at `since` or later, at least as well as ACRS[limit] says

It holds for what comes through the agent, too. A proof of step-up is the token's, whoever holds it: one that came by
exchange says the weaker of all proofs, and the oldest.
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
    """Those of these agents that are held to so many calls in this minute."""
    return {
        agent: hold.limit
        for agent, _ in agents
        for hold in holds.get(agent, ())
        if hold.kind == "throttle" and now < hold.until
    }
