"""What is true of findings: what they say, what detectors see, keep and promise, and how they come to be told."""

from ostiaryd.watch.model.batch import NOBODY, Batch, Flags, Ints, Words, word
from ostiaryd.watch.model.detector import NOTHING, Detector, Found, Kept, Record, detectors, zeros
from ostiaryd.watch.model.finding import (
    MAX_ENTRIES,
    MAX_WHY,
    Finding,
    FindingId,
    Judgement,
    Progress,
    Verdict,
)
from ostiaryd.watch.model.memory import Memory, Piece
from ostiaryd.watch.model.reading import JUDGE, Judged, Reading, ToolSeen
from ostiaryd.watch.model.waiting import Waiting
from ostiaryd.watch.model.watcher import Sighting, Snapshot, Watcher

__all__ = [
    "JUDGE",
    "MAX_ENTRIES",
    "MAX_WHY",
    "NOBODY",
    "NOTHING",
    "Batch",
    "Detector",
    "Finding",
    "FindingId",
    "Flags",
    "Found",
    "Ints",
    "Judged",
    "Judgement",
    "Kept",
    "Memory",
    "Piece",
    "Progress",
    "Reading",
    "Record",
    "Sighting",
    "Snapshot",
    "ToolSeen",
    "Verdict",
    "Waiting",
    "Watcher",
    "Words",
    "detectors",
    "word",
    "zeros",
]
