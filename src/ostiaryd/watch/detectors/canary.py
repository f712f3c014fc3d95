"""Canary: an agent called a decoy, a tool that the catalogue marks as intended for no agent, or read a canary secret.

The detector has no learned state: a single call of a decoy, allowed or denied, or a single read of a canary secret
raises an anomaly.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept

AGENT = PEERS = ALL = NOTHING
THRESHOLD = 1.0
CERTAIN = True
SURE = 2 * THRESHOLD
"""Score of each anomaly of this detector."""


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each call of a decoy (a tool that no honest agent calls), and each read of a canary secret (that no honest
    agent reads).
    """
    rows = np.flatnonzero(batch.is_canary & (batch.agent != NOBODY)).tolist()
    tools = [batch.events[row].tool[:128] for row in rows]
    says = [f"called {tool}, which is a decoy" if tool else "read a canary secret" for tool in tools]
    return [Anomaly(row, SURE, 80, text) for row, text in zip(rows, says, strict=True)]
