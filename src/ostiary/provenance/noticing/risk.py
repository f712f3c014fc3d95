"""The risk score of an agent or a task: 0 to 100 points, halved every HALF_LIFE."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MOST = 100
HALF_LIFE = 1_800_000_000
"""time in microseconds after which half of the points remain"""
SCALE = 1000
OVER_AFTER = 18 * HALF_LIFE
"""age in microseconds from which on a risk counts as zero: 18 half-lives"""


class Risk(msgspec.Struct, frozen=True, gc=False):
    """A risk score. `millis`: thousandths of a point at the time `at` (microseconds since the epoch)."""

    millis: Annotated[int, Meta(ge=0, le=MOST * SCALE)]
    at: Annotated[int, Meta(ge=0, le=1 << 53)]

    def points(self, now: int) -> int:
        """Return the remaining points at `now` (microseconds), rounded to the nearest whole: a new risk of 60 points
        reaches a limit of 60.

        If `now` is before `at`, the points are those of `at`, so that a wrong clock never lowers a risk.
        """
        return (self._left(now) + SCALE // 2) // SCALE

    def raised(self, points: int, now: int, *, counted: int = 0) -> Risk:
        """Return the risk after one more finding with `points` at `now` (microseconds). The finding counts as
        independent of earlier findings, and the score never exceeds 100 points.

        `counted`: points that an earlier finding from the same evidence added. The part of them that the score still
        has is subtracted from `points`, so that the same evidence does not count twice.
        """
        left = self._left(now)
        same = min(left, counted * SCALE)
        more = max(0, points * SCALE - same)
        return Risk(left + (MOST * SCALE - left) * more // max(1, MOST * SCALE - same), max(now, self.at))

    @property
    def until(self) -> int:
        """Return the time, in microseconds, from which on the risk counts as zero."""
        return self.at + OVER_AFTER

    def _left(self, now: int) -> int:
        age = max(0, now - self.at)
        return int(self.millis * 0.5 ** (age / HALF_LIFE)) if age < OVER_AFTER else 0


CALM = Risk(0, 0)
