"""The issuer's time, as its answers state it.

The issuer checks assertions and proofs by its own clock, even if the clock of this machine is wrong. A refusal states
the issuer's time in `Date`, in seconds (RFC 9110 section 6.6.1).
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime

import httpx2

SECOND = 1_000_000
MAX_DIFFERENCE_US = 3 * SECOND
"""Difference in microseconds from which on the issuer's time is used instead of this machine's time."""


class IssuerClock:
    """The issuer's clock. `clock()` is the time of this machine plus the known difference, in microseconds
    since the epoch.
    """

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._behind = 0

    def __call__(self) -> int:
        return self._now() + self._behind

    def learn(self, response: httpx2.Response) -> bool:
        """Correct this clock by the `Date` of a refusal, if the difference is more than MAX_DIFFERENCE_US. Return
        whether the clock was corrected: then a repeated request may succeed.
        """
        try:
            date = round(parsedate_to_datetime(response.headers.get("date", "")).timestamp()) * SECOND
        except ValueError:
            return False
        difference = date - self()
        if abs(difference) <= MAX_DIFFERENCE_US:
            return False
        self._behind += difference
        return True
