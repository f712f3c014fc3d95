"""Rate and volume: far more calls, bytes or records within ten minutes than this agent and its peers ever need, or
answers many times as large as the same tool gives to peers.

Whoever empties a system asks often, or takes much at once. A haul can hide in the busiest hours of an agent whose tools
differ much in what they return, so each answer is also held against what its tool returns to all of its kind: what is
over eight times that is summed up in powers of two. What is usual, and how far it may move: `watch.model.tally`.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch
from ostiaryd.watch.model.crowd import crowd_record
from ostiaryd.watch.model.detector import NOTHING, Found, Kept
from ostiaryd.watch.model.sizes import SIZE_FIELDS, learn_sizes, new_day_of_sizes, off_usual
from ostiaryd.watch.model.tally import Limits, tally, tally_record

SAYS = (
    "{much} calls within ten minutes, where at most {bar} are to be expected",
    "{much} bytes within ten minutes, where at most {bar} are to be expected",
    "{much} records within ten minutes, where at most {bar} are to be expected",
    "answers that are many times as large as the same tools give to its peers",
)
LIMITS = Limits(least=(40.0, 256_000.0, 200.0, 5.0), unknown=(600.0, 50e6, 50_000.0, 20.0), most=(1e5, 1e10, 1e8, 60.0))
LOUD = 4.0
SLACK, MOST = 3.0, 6.0
"""how many powers of two an answer may be over the usual and be nothing, and how many more count at most"""
LEARNED = 8
"""of an agent's answers within ten minutes: nobody floods his peers with what he wants to be usual"""

AGENT, ALL = tally_record(len(SAYS)), NOTHING
PEERS = np.dtype([*crowd_record(len(SAYS)).descr, *SIZE_FIELDS])
THRESHOLD = 1.0
CERTAIN = False


def notice(batch: Batch, kept: Kept) -> list[Found]:
    new_day_of_sizes(batch, kept.peers)
    is_own = batch.is_used & (batch.agent != NOBODY)
    off, is_known = off_usual(batch, kept.peers)
    large = np.where(is_known, np.clip(off - SLACK, 0, MOST), 0)
    counts = np.column_stack((batch.is_call, batch.bytes, batch.records, large)) * is_own[:, None]
    counted = tally(batch, counts, LIMITS, kept.agents, kept.peers)
    learn_sizes(batch, kept.peers, is_own & (counted.sums[:, 0] <= LEARNED))
    found = []
    for row, which, times in counted.over:
        much, bar = int(counted.sums[row, which]), int(counted.bars[row, which])
        says = SAYS[which].format(much=much, bar=bar)
        found.append(Found(row, times, 45 if times >= LOUD else 25, says, (int(counted.since[row]),)))
    return found
