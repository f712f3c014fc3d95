"""A finding: a detector's statement about an agent, the entries that support the statement, and a person's verdict on
it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

import msgspec

FindingId = NewType("FindingId", str)
MAX_ENTRIES = 16
MAX_WHY = 500
OPEN_DAYS = 7
"""Days during which a finding without a person's verdict counts as open."""


class Verdict(StrEnum):
    """A person's verdict on a finding. If the verdict is that the finding is real, the budget of statistical detectors
    gets back the alarm that it spent.
    """

    REAL = "real"
    FALSE_ALARM = "false_alarm"


class Judgement(msgspec.Struct, frozen=True, gc=False):
    verdict: Verdict
    by: str
    """Id of the administrator or person who gave the verdict."""
    at: int
    why: str


class Finding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A finding. Times are in microseconds; `entries` are indices of entries in the ledger, the newest last. `incident`
    is the id of the incident to which the finding belongs.

    If no agent caused the event, `agent` is empty, and `resource` is the URI of the resource at which the event
    happened.
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
    """Ratio to the usual value; 0 if a guard made the observation."""
    judgement: Judgement | None = None
    is_proved: bool = True
    """False if only a guard reported the call, without the agent's own proof."""
    may_narrow: bool = True
    """False if the finding exceeds the budget of its statistical detector; playbooks may then notify people, but not
    restrict the agent.
    """


class Progress(msgspec.Struct, frozen=True):
    """The progress of the detectors.

    All findings are stored up to the entry `stored`, and for that entry up to the detector `stored_by` in alphabetical
    order. `stored` is -1 if the detectors never ran.
    """

    stored: int
    stored_by: str
    generation: int
    snapshot: bytes | None

    def is_stored(self, number: int, detector: str) -> bool:
        """Return whether the finding of `detector` about the entry `number` is already stored."""
        return (number, detector) <= (self.stored, self.stored_by)
