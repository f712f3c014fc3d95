"""What a doubted agent is held to, though it is not stopped. A hold only takes away, and ends by itself.

    throttle   at most `limit` calls in each minute of the clock
    narrow     only tools that read
    step_up    only tokens whose holder proved itself at `since` or later, at least as well as ACRS[limit] says

It holds for what comes through the agent, too. A proof of step-up is the token's, whoever holds it: one that came by
exchange says the weaker of all proofs, and the oldest.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

HoldKind = Literal["throttle", "narrow", "step_up"]
MINUTE = 60_000_000


class Hold(NamedTuple):
    """Times in microseconds; it is in force before `until`."""

    kind: HoldKind
    limit: int
    since: int
    until: int
