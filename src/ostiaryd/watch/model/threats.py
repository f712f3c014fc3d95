"""A threat list and its source; the content of the list is in `ostiary.provenance.noticing.threats`."""

from __future__ import annotations

from typing import Literal, NewType

import msgspec

ListId = NewType("ListId", str)
Form = Literal["stix", "plain"]


class ThreatSource(msgspec.Struct, frozen=True, kw_only=True):
    """A threat list without its content. Times are in microseconds. A list that was added as text has no `url`."""

    list_id: ListId
    name: str
    url: str
    form: Form
    points: int
    """points of a finding by the list"""
    created_at: int
    due_at: int
    """time of the next fetch"""
    refreshed_at: int | None = None
    failed: str = ""
    """reason why the last fetch failed; empty after a success"""
    skipped: int = 0
    """number of items of the list that cannot be checked"""
    count: int = 0
