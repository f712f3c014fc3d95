"""A finding: a detector's statement about an agent, the entries that support it, and a person's judgement of it."""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

import msgspec

FindingId = NewType("FindingId", str)
MAX_ENTRIES = 16
MAX_WHY = 500


class Verdict(StrEnum):
    """A person's judgement of a finding. A real one returns its alarm to the budget of statistical detectors."""

    REAL = "real"
    FALSE_ALARM = "false_alarm"


class Judgement(msgspec.Struct, frozen=True, gc=False):
    verdict: Verdict
    by: str
    """an administrator, or a person"""
    at: int
    why: str


class Finding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Times in microseconds; `entries` are indices of the ledger, the newest last; `incident` is the case it is in.

    `agent` is empty if no agent caused the event; then `resource` names its place.
    """

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
    resource: str | None = None
    score: float = 0.0
    """the multiple of the usual; 0: a guard reported it"""
    judgement: Judgement | None = None
    is_proved: bool = True
    """False: one guard says so, and has not shown the agent's own proof of the call"""
    may_narrow: bool = True
    """False: a statistical detector outside of its budget; playbooks may tell people, and take no work away"""


class Progress(msgspec.Struct, frozen=True):
    """The progress of the detectors.

    `stored` and `stored_by`: the entry and the detector up to which findings are stored; -1: the detectors never ran.
    """

    stored: int
    stored_by: str
    generation: int
    snapshot: bytes | None

    def is_stored(self, number: int, detector: str) -> bool:
        """Return whether the finding of this detector about this entry is stored."""
        return (number, detector) <= (self.stored, self.stored_by)
