"""Rate limits in memory, one bucket per sender: a burst, and a rate per second.

A refused message costs nothing, not even an entry. A sender that keeps exceeding its limit is recorded at intervals.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import ClassVar

from ostiary.protocol.errors import Refused
from ostiaryd.ground.world import World

SECOND = 1_000_000
MAX_KNOWN = 100_000
FLOODING = 100
"""number of refusals within a minute that count as a flood"""
WINDOW_S = 60
QUIET_S = 300
"""minimum time between two records of a flood, in seconds"""


class TooMuch(Refused):
    """The caller exceeds a rate limit; try again after `after_s` seconds."""

    code = "too_much"

    def __init__(self, message: str, *, after_s: int = 1, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.after_s = after_s


@dataclass(slots=True)
class Bucket:
    """The bucket of a sender. `left`: millionths of messages as of `at`; `refused`: the number of refusals
    since `since`; `told_at`: when a flood was recorded.
    """

    burst: int
    per_second: int
    at: int
    left: int = field(init=False)
    refused: int = 0
    since: int = 0
    told_at: int = 0

    def __post_init__(self) -> None:
        self.left = self.burst * SECOND

    def fill(self, now: int) -> None:
        """Refill the bucket up to `now` (microseconds)."""
        self.left = min(self.burst * SECOND, self.left + max(0, now - self.at) * self.per_second)
        self.at = now

    def has(self, count: int) -> bool:
        """Return whether `count` messages are left."""
        return self.left >= count * SECOND

    def take(self, count: int) -> None:
        """Take `count` messages from the present or the future content."""
        self.left -= count * SECOND

    def after_s(self, count: int) -> int:
        """Return the seconds until `count` messages are left."""
        return max(1, math.ceil((count * SECOND - self.left) / self.per_second / SECOND))

    def refuse(self) -> bool:
        """Count a refusal at `at`; return whether a flood is to be recorded."""
        if self.at - self.since > WINDOW_S * SECOND:
            self.since, self.refused = self.at, 0
        self.refused += 1
        if self.refused < FLOODING or self.at - self.told_at <= QUIET_S * SECOND:
            return False
        self.told_at = self.at
        return True


class Buckets:
    """Buckets of the latest senders; lives on the event loop. Subclasses set burst and rate."""

    burst: ClassVar[int]
    per_second: ClassVar[int]

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: OrderedDict[str, Bucket] = OrderedDict()

    def of(self, sender: str) -> Bucket:
        """Return the bucket of a sender, refilled."""
        now = self._world.now()
        bucket = self._known.setdefault(sender, Bucket(self.burst, self.per_second, now))
        self._known.move_to_end(sender)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        bucket.fill(now)
        return bucket
