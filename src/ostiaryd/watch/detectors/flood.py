"""Flood: it goes on sending far more about itself than is taken.

Whoever floods may want that something else is not seen. The server refuses what is too much, and leaves one entry in a
while of who goes on; there is nothing to learn, so it is told whatever the budget of alarms.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import Batch, word
from ostiaryd.watch.model.detector import NOTHING, Found, Kept
from ostiaryd.watch.model.telemetry import FLOOD

AGENT = PEERS = ALL = NOTHING
THRESHOLD = 1.0
CERTAIN = True
POINTS = 30


def notice(batch: Batch, kept: Kept) -> list[Found]:
    rows = np.flatnonzero(batch.action == np.uint64(word(FLOOD))).tolist()
    return [Found(row, 2 * THRESHOLD, POINTS, "it goes on sending far more telemetry than is taken") for row in rows]
