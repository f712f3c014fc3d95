"""Canary: somebody called a tool that is there for nobody, as its owner has said in the catalogue.

Nothing is learned and nothing is usual: that it was called is all there is to know, refused or not. Told once in ten
minutes for an agent.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model import NOBODY, NOTHING, Batch, Found, Kept

AGAIN = 600_000_000
"""microseconds"""
SURE = 4.0
"""whatever the operator's budget"""

AGENT, PEERS, ALL = np.dtype([("at", np.int64)]), NOTHING, NOTHING
THRESHOLD = 1.0


def notice(batch: Batch, kept: Kept) -> list[Found]:
    found = []
    for row in np.flatnonzero(batch.is_canary & (batch.agent != NOBODY)).tolist():
        last, at = kept.agents["at"], int(batch.at[row])
        if at - int(last[batch.agent[row]]) >= AGAIN or last[batch.agent[row]] == 0:
            last[batch.agent[row]] = at
            found.append(Found(row, SURE, 80, f"it called {batch.events[row].tool[:128]}, which is a decoy"))
    return found
