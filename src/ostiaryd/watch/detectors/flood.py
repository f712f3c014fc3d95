"""Flood: an agent keeps sending far more telemetry than the limit.

A flood may hide other events. The server refuses the excess, and while the flood lasts it records an entry at
intervals. The detector has no learned state: it reports each of these entries, independently of the budget of
statistical detectors.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import Batch, word
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept
from ostiaryd.watch.model.telemetry import FLOOD

AGENT = PEERS = ALL = NOTHING
THRESHOLD = 1.0
CERTAIN = True
POINTS = 30


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each entry of a lasting flood."""
    rows = np.flatnonzero(batch.action == np.uint64(word(FLOOD))).tolist()
    return [
        Anomaly(row, 2 * THRESHOLD, POINTS, "continues to send far more telemetry than the server accepts")
        for row in rows
    ]
