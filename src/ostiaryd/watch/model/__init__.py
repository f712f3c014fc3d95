"""The data types and rules of findings, and the interface of detectors. Pure functions.

The exports of this package work without numpy. The detectors' own modules (`batch`, `detector`, `memory`, `watcher`,
...) need numpy; import these modules directly, and only in the detectors' process.
"""

from ostiaryd.watch.model.finding import (
    MAX_ENTRIES,
    MAX_WHY,
    OPEN_DAYS,
    Finding,
    FindingId,
    Judgement,
    Progress,
    Verdict,
)
from ostiaryd.watch.model.installed import (
    BY_SERVER,
    INSTALL,
    NEGLECTED_CERTIFICATE,
    SIGNAL,
    can_detect,
    describe_detector,
    detector_names,
)
from ostiaryd.watch.model.reading import JUDGE, FindingJudgement, Reading, ToolSeen
from ostiaryd.watch.model.sighting import Piece, Sighting, Snapshot
from ostiaryd.watch.model.waiting import Waiting

__all__ = [
    "BY_SERVER",
    "INSTALL",
    "JUDGE",
    "MAX_ENTRIES",
    "MAX_WHY",
    "NEGLECTED_CERTIFICATE",
    "OPEN_DAYS",
    "SIGNAL",
    "Finding",
    "FindingId",
    "FindingJudgement",
    "Judgement",
    "Piece",
    "Progress",
    "Reading",
    "Sighting",
    "Snapshot",
    "ToolSeen",
    "Verdict",
    "Waiting",
    "can_detect",
    "describe_detector",
    "detector_names",
]
