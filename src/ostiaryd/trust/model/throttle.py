"""Throttling of logins: after a few failures for an account, browser, network or code, further attempts must wait, and
each further failure doubles the wait.

Failures are counted in a fixed number of slots. The slot of an account is derived from a keyed digest of the typed
name. An unknown name is therefore throttled like a known name, and strangers cannot make the table grow. Failures
expire one by one.
"""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.trust.model import SECOND

SLOTS = 1 << 16
LONGEST_WAIT = 900 * SECOND
MOST_FAILURES = 1000
FORGET_AFTER = 86_400 * SECOND
"""Time after its last failure at which a throttle slot is deleted, in microseconds."""


class Limit(NamedTuple):
    """A limit for failed logins: the number of failures without a wait (`free`), and the time after which one failure
    expires, in microseconds.
    """

    name: str
    free: int
    wears_off: int


ACCOUNT = Limit("account", 5, 900 * SECOND)
CODE = Limit("code", 5, 900 * SECOND)
BROWSER = Limit("browser", 5, 900 * SECOND)
"""Limit for one person in a known browser."""
NETWORK = Limit("network", 30, 20 * SECOND)
"""Limit for a network, which is higher because many people may share a network."""


class Failures(NamedTuple):
    """The failures of one throttle slot: their number, and the time of the last failure in microseconds."""

    number: int
    at: int


NONE = Failures(0, 0)


def wait_until(failures: Failures, limit: Limit) -> int:
    """Return the time until which further attempts have to wait, in microseconds; 0 without a wait.

    The first failure beyond `free` causes a wait of one second, and each further failure doubles the wait, up to a
    quarter of an hour.
    """
    over = failures.number - limit.free
    if over <= 0:
        return 0
    return failures.at + min(SECOND << min(over - 1, 20), LONGEST_WAIT)


def count_failure(failures: Failures, limit: Limit, *, now: int) -> Failures:
    """Return the failures of a slot with one added, without the failures that expired by `now` (microseconds)."""
    left = failures.number - max(0, now - failures.at) // limit.wears_off
    return Failures(min(max(left, 0) + 1, MOST_FAILURES), now)
