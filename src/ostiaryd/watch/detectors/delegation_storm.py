"""Delegation storm: an agent hands on far more parts of its tasks within ten minutes than it and its peers ever do.

Each part is one more agent, or one more copy, that works on its word: what it could not do alone, or would be noticed
at, it spreads. What is usual, and how far it may move: `watch.model.tally`.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch, word
from ostiaryd.watch.model.crowd import crowd_record
from ostiaryd.watch.model.detector import NOTHING, Found, Kept
from ostiaryd.watch.model.tally import Limits, tally, tally_record

HANDED_ON = np.array([word("task.start"), word("token.exchange")], np.uint64)
LIMITS = Limits(least=(12.0,), unknown=(24.0,), most=(1000.0,))

AGENT, PEERS, ALL = tally_record(1), crowd_record(1), NOTHING
THRESHOLD = 1.0
CERTAIN = False


def notice(batch: Batch, kept: Kept) -> list[Found]:
    parts = np.isin(batch.action, HANDED_ON) & (batch.agent != NOBODY) & ~batch.is_denied
    counted = tally(batch, parts.astype(np.float64)[:, None], LIMITS, kept.agents, kept.peers)
    found = []
    for row, _, times in counted.over:
        much, bar = int(counted.sums[row, 0]), int(counted.bars[row, 0])
        says = f"it handed on {much} parts of its tasks within ten minutes, where at most {bar} are to be expected"
        found.append(Found(row, times, 40, says, (int(counted.since[row]),)))
    return found
