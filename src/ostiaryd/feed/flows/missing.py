"""Guards that have reported and are not connected."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from ostiaryd.feed import store
from ostiaryd.feed.flows.guards import Guard
from ostiaryd.ground.database import Reader

WITHIN = 7 * 86_400_000_000
"""microseconds: who has not reported for longer is not missed any more"""


def missing(reader: Reader, connected: Iterable[Guard], *, now: int) -> list[str]:
    """Each resource of which a guard has reported lately, and none is connected, with the last time."""
    present = {guard.resource_id for guard in connected}
    return [
        f"{name} (its last report is of {datetime.fromtimestamp(at // 1_000_000, UTC):%Y-%m-%d %H:%M:%SZ})"
        for id, name, at in store.last_reports(reader, since=now - WITHIN)
        if id not in present
    ]
