"""Guards that have reported and are not connected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ostiaryd.feed import store
from ostiaryd.feed.flows.guards import Guard
from ostiaryd.ground.database import Reader

WITHIN = 7 * 86_400_000_000
"""microseconds: who has not reported for longer is not missed any more"""


class MissingGuard(NamedTuple):
    """A resource without a connected guard, and when one last reported (microseconds)."""

    resource: str
    reported_at: int


def missing(reader: Reader, connected: Iterable[Guard], *, now: int) -> list[MissingGuard]:
    """Return each resource of which a guard has reported lately, and none is connected."""
    present = {guard.resource_id for guard in connected}
    return [
        MissingGuard(name, at) for id, name, at in store.last_reports(reader, since=now - WITHIN) if id not in present
    ]
