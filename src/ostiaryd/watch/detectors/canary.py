"""Canary: somebody called a tool that is there for nobody, as its owner has said in the catalogue.

Nothing is learned and nothing is usual: that it was called is all there is to know, refused or not.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch
from ostiaryd.watch.model.detector import NOTHING, Found, Kept

AGENT = PEERS = ALL = NOTHING
THRESHOLD = 1.0
CERTAIN = True
SURE = 2 * THRESHOLD
"""whatever the operator's budget"""


def notice(batch: Batch, kept: Kept) -> list[Found]:
    rows = np.flatnonzero(batch.is_canary & (batch.agent != NOBODY)).tolist()
    return [Found(row, SURE, 80, f"it called {batch.events[row].tool[:128]}, which is a decoy") for row in rows]
