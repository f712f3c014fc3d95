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
    """A person's verdict on a finding. The verdict `real` returns the cost of the finding to the budget of statistical
    detectors (see `Narrowing`).
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
    """A finding: the observation of a detector, of a guard or of the server itself that an agent's acts are unusual or
    dangerous. Times are in microseconds; `entries` are indices of ledger entries, the newest last. `incident` is the id
    of the incident to which the finding belongs.

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
    """Ratio to the usual value; 0 if a guard or the server itself made the observation."""
    judgement: Judgement | None = None
    is_proved: bool = True
    """False if only a guard reported the call, without the agent's own proof."""
    may_narrow: bool = True
    """False if the finding exceeds the budget of its statistical detector; playbooks may then notify people, but not
    restrict the agent.
    """


class Progress(msgspec.Struct, frozen=True):
    """The progress of the detectors in the ledger.

    All findings about entries before the entry `stored` are stored, and for the entry `stored` itself those of the
    detectors up to `stored_by` in alphabetical order. `stored` is -1 if the detectors never ran. `snapshot`: the last
    saved state of the detectors, `generation` its number.
    """

    stored: int
    stored_by: str
    generation: int
    snapshot: bytes | None

    def is_stored(self, number: int, detector: str) -> bool:
        """Return whether a finding of `detector` about the ledger entry `number` would already be stored."""
        return (number, detector) <= (self.stored, self.stored_by)
