"""A threat list, and where it comes from; what is on it is in `ostiary.provenance.noticing.threats`."""

from __future__ import annotations

from typing import Literal, NewType

import msgspec

ListId = NewType("ListId", str)
Form = Literal["stix", "plain"]


class ThreatSource(msgspec.Struct, frozen=True, kw_only=True):
    """Times in microseconds. Without `url` it was handed in."""

    list_id: ListId
    name: str
    url: str
    form: Form
    points: int
    """that a finding by it is worth"""
    created_at: int
    due_at: int
    """when it is fetched again"""
    refreshed_at: int | None = None
    failed: str = ""
    """why it could not be taken the last time"""
    skipped: int = 0
    """what it names besides, of which we know the pattern has no value"""
    count: int = 0
