"""What is true of findings: what they say, what detectors see, and what they promise."""

from ostiaryd.watch.model.batch import NOBODY, Batch, word
from ostiaryd.watch.model.detector import NOTHING, Detector, Found, Kept, detectors, zeros
from ostiaryd.watch.model.finding import MAX_ENTRIES, Finding, FindingId

__all__ = [
    "MAX_ENTRIES",
    "NOBODY",
    "NOTHING",
    "Batch",
    "Detector",
    "Finding",
    "FindingId",
    "Found",
    "Kept",
    "detectors",
    "word",
    "zeros",
]
