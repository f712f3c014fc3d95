"""A threat list and its source; the content of the list is in `ostiary.provenance.noticing.threats`."""

from __future__ import annotations

from typing import Literal, NewType

import msgspec

ListId = NewType("ListId", str)
Form = Literal["stix", "plain"]


class ThreatSource(msgspec.Struct, frozen=True, kw_only=True):
    """A threat list without its values: its name, its URL, and the state of its fetches. Times are in microseconds. A
    list that was added as text has an empty `url`.
    """

    list_id: ListId
    name: str
    url: str
    form: Form
    points: int
    """Points of a finding that this list causes."""
    created_at: int
    due_at: int
    """Time at which the list is fetched next, in microseconds."""
    refreshed_at: int | None = None
    failed: str = ""
    """Reason why the last fetch failed; empty if it succeeded."""
    skipped: int = 0
    """Number of items in the list that the server cannot check."""
    count: int = 0
