"""Guards that have sent reports and are not connected now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ostiaryd.feed import store
from ostiaryd.feed.flows.guards import Guard
from ostiaryd.ground.database import Reader

WITHIN = 7 * 86_400_000_000
"""Microseconds. A resource whose guards sent no report for this time does not count as missing."""


class MissingGuard(NamedTuple):
    """A resource that has no connected guard, and the time of the last report of its guards (microseconds since the
    epoch).
    """

    resource: str
    reported_at: int


def find_missing_guards(reader: Reader, connected: Iterable[Guard], *, now: int) -> list[MissingGuard]:
    """Return each resource whose guards have sent a report within `WITHIN` and of which no guard is in `connected`."""
    present = {guard.resource_id for guard in connected}
    return [
        MissingGuard(name, at) for id, name, at in store.last_reports(reader, since=now - WITHIN) if id not in present
    ]
