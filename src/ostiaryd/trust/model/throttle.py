"""Throttling of logins: after a few failures for one account or network, each further failure doubles the wait.

Failures are counted in slots, of which there are a fixed number: the slot of an account follows from a keyed digest of
the name that was typed. An unknown name therefore waits like a known one, and strangers cannot make the table grow.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.trust.model import SECOND

SLOTS = 1 << 16
FREE_OF_ACCOUNT = 5
"""Failures for one account that cost no wait."""
FREE_OF_NETWORK = 30
"""Failures from one network that cost no wait: a company may be behind one address."""
LONGEST_WAIT = 900 * SECOND
FORGET_AFTER = 86_400 * SECOND
"""Failures are forgotten when none was added for this long."""


class Failures(NamedTuple):
    """Failures of one slot: their number, and the time of the last, in microseconds."""

    number: int
    at: int


NONE = Failures(0, 0)


def wait_until(failures: Failures, *, free: int) -> int:
    """Return the instant before which no further attempt is looked at; 0 if there is none.

    The first failure after `free` costs one second, and each further one twice as much, up to a quarter of an hour.
    """
    over = failures.number - free
    if over <= 0:
        return 0
    return failures.at + min(SECOND << min(over - 1, 20), LONGEST_WAIT)


def count_failure(failures: Failures, *, now: int) -> Failures:
    """Return the failures with one more."""
    return Failures((0 if now - failures.at >= FORGET_AFTER else failures.number) + 1, now)
