"""A threat list and its source; `ostiary.provenance.noticing.threats` has its content."""

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
    """points of a finding by this list"""
    created_at: int
    due_at: int
    """time of the next fetch"""
    refreshed_at: int | None = None
    failed: str = ""
    """reason why the last fetch failed; empty after a success"""
    skipped: int = 0
    """number of entries of a kind that cannot be checked"""
    count: int = 0
