"""Throttling of logins: after a few failures for an account, browser, network or code, each one more doubles the wait.

Failures are counted in slots, of which there are a fixed number: the slot of an account follows from a keyed digest of
the name that was typed. An unknown name therefore waits like a known one, and strangers cannot make the table grow.
Failures wear off one by one.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.trust.model import SECOND

SLOTS = 1 << 16
LONGEST_WAIT = 900 * SECOND
MOST_FAILURES = 1000
FORGET_AFTER = 86_400 * SECOND
"""A slot whose last failure is this old is deleted: nothing of it is left."""


class Limit(NamedTuple):
    """The number of failures without a wait, and the time after which one failure wears off, in microseconds."""

    name: str
    free: int
    wears_off: int


ACCOUNT = Limit("account", 5, 900 * SECOND)
CODE = Limit("code", 5, 900 * SECOND)
BROWSER = Limit("browser", 5, 900 * SECOND)
"""An account in a browser in which its person has signed in."""
NETWORK = Limit("network", 30, 20 * SECOND)
"""A company may be behind one network."""


class Failures(NamedTuple):
    """Failures of one slot: their number, and the time of the last, in microseconds."""

    number: int
    at: int


NONE = Failures(0, 0)


def wait_until(failures: Failures, limit: Limit) -> int:
    """Return the instant before which no further attempt is looked at; 0 if there is none.

    The first failure beyond `free` costs one second, and each further one twice as much, up to a quarter of an hour.
    """
    over = failures.number - limit.free
    if over <= 0:
        return 0
    return failures.at + min(SECOND << min(over - 1, 20), LONGEST_WAIT)


def count_failure(failures: Failures, limit: Limit, *, now: int) -> Failures:
    """Return the failures that have not worn off, with one more."""
    left = failures.number - max(0, now - failures.at) // limit.wears_off
    return Failures(min(max(left, 0) + 1, MOST_FAILURES), now)
