"""Guards that have reported before and are not connected now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ostiaryd.feed import store
from ostiaryd.feed.flows.guards import Guard
from ostiaryd.ground.database import Reader

WITHIN = 7 * 86_400_000_000
"""Microseconds. A guard that has not reported for longer no longer counts as missing."""


class MissingGuard(NamedTuple):
    """A resource without a connected guard, and the time of its last report (microseconds)."""

    resource: str
    reported_at: int


def missing(reader: Reader, connected: Iterable[Guard], *, now: int) -> list[MissingGuard]:
    """Return each resource whose guards have reported lately and of which none is connected."""
    present = {guard.resource_id for guard in connected}
    return [
        MissingGuard(name, at) for id, name, at in store.last_reports(reader, since=now - WITHIN) if id not in present
    ]
