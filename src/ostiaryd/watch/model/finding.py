"""A finding: what was noticed of whom, and the entries on which it rests."""

from __future__ import annotations

from typing import NewType

import msgspec

FindingId = NewType("FindingId", str)
MAX_ENTRIES = 16


class Finding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Times in microseconds; `entries` are indices of the ledger, the newest last; `incident` is the case it is in."""

    finding_id: FindingId
    at: int
    detector: str
    points: int
    says: str
    agent: str
    task: str | None
    owner: str | None
    entries: tuple[int, ...]
    incident: str | None = None
