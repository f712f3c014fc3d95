"""A finding: a detector's statement about an agent, the entries that support it, and a person's judgement of it."""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

import msgspec

FindingId = NewType("FindingId", str)
MAX_ENTRIES = 16
MAX_WHY = 500
OPEN_DAYS = 7
"""Days for which a finding without a judgement counts as open."""


class Verdict(StrEnum):
    """A person's judgement of a finding. If it is real, its alarm returns to the budget of statistical detectors."""

    REAL = "real"
    FALSE_ALARM = "false_alarm"


class Judgement(msgspec.Struct, frozen=True, gc=False):
    verdict: Verdict
    by: str
    """the administrator or person who judged"""
    at: int
    why: str


class Finding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A finding. Times are in microseconds; `entries` are indices of the ledger, newest last; `incident` is the
    incident of the finding.

    `agent` is empty if no agent caused the event; then `resource` is the place of the event.
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
    """ratio to the usual value; 0 if a guard reported the finding"""
    judgement: Judgement | None = None
    is_proved: bool = True
    """false if only a guard reported the call, without the agent's own proof"""
    may_narrow: bool = True
    """false if a statistical detector is beyond its budget; then playbooks may notify people, but not restrict
    the agent
    """


class Progress(msgspec.Struct, frozen=True):
    """The progress of the detectors.

    `stored` and `stored_by`: the entry and the detector up to which findings are stored; -1 if the detectors never ran.
    """

    stored: int
    stored_by: str
    generation: int
    snapshot: bytes | None

    def is_stored(self, number: int, detector: str) -> bool:
        """Return whether the finding of this detector about this entry is stored."""
        return (number, detector) <= (self.stored, self.stored_by)
