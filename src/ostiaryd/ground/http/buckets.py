"""Rate limits in memory, with one bucket per sender: a number of messages at once, and a rate per second.

A refused message is not recorded in the ledger. If a sender keeps exceeding its limit, this is recorded at intervals.
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
"""Number of refusals within a minute from which they count as a flood."""
WINDOW_S = 60
QUIET_S = 300
"""Minimum time between two records of a flood of the same sender, in seconds."""


class TooMuch(Refused):
    """The caller exceeds a rate limit. `after_s` is the time until the caller may try again, in seconds."""

    code = "too_much"

    def __init__(self, message: str, *, after_s: int = 1, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.after_s = after_s


@dataclass(slots=True)
class Bucket:
    """The token bucket that limits the rate of one sender. `left` is the remaining content at the time `at`, in
    millionths of a message. `refused` is the number of refusals since `since`. `told_at` is the time at which a flood
    was last recorded. Times are in microseconds.
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
        """Refill the bucket for the time up to `now` (microseconds)."""
        self.left = min(self.burst * SECOND, self.left + max(0, now - self.at) * self.per_second)
        self.at = now

    def has(self, count: int) -> bool:
        """Return whether the bucket contains at least `count` messages."""
        return self.left >= count * SECOND

    def take(self, count: int) -> None:
        """Remove `count` messages. The content may become negative; it must then refill before the sender may send
        again.
        """
        self.left -= count * SECOND

    def after_s(self, count: int) -> int:
        """Return after how many seconds the bucket will contain `count` messages; at least 1."""
        return max(1, math.ceil((count * SECOND - self.left) / self.per_second / SECOND))

    def refuse(self) -> bool:
        """Count a refusal; return true if a flood must be recorded now: `FLOODING` refusals within a minute, and no
        record of this sender within the last `QUIET_S`.
        """
        if self.at - self.since > WINDOW_S * SECOND:
            self.since, self.refused = self.at, 0
        self.refused += 1
        if self.refused < FLOODING or self.at - self.told_at <= QUIET_S * SECOND:
            return False
        self.told_at = self.at
        return True


class Buckets:
    """The token buckets (rate limits) of the most recent senders. Use it only on the event loop. Subclasses set `burst`
    and `per_second`.
    """

    burst: ClassVar[int]
    per_second: ClassVar[int]

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: OrderedDict[str, Bucket] = OrderedDict()

    def of(self, sender: str) -> Bucket:
        """Return the bucket of a sender, with its content up to date."""
        now = self._world.now()
        bucket = self._known.setdefault(sender, Bucket(self.burst, self.per_second, now))
        self._known.move_to_end(sender)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        bucket.fill(now)
        return bucket
