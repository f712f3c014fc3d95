"""Canary: an agent called a decoy, a tool that the catalogue marks as intended for no agent.

Nothing is learned: a single call, denied or not, is evidence.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept

AGENT = PEERS = ALL = NOTHING
THRESHOLD = 1.0
CERTAIN = True
SURE = 2 * THRESHOLD
"""the score, whatever the budget of alarms"""


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each call of a decoy."""
    rows = np.flatnonzero(batch.is_canary & (batch.agent != NOBODY)).tolist()
    return [Anomaly(row, SURE, 80, f"called {batch.events[row].tool[:128]}, which is a decoy") for row in rows]
