"""Rate and volume: far more calls, bytes or records within ten minutes than this agent and its peers ever need, or
answers many times as large as the same tool gives to peers.

Whoever empties a system asks often, or takes much at once. A haul can hide in the busiest hours of an agent whose tools
differ much in what they return, so each answer is also held against what its tool returns to all of its kind: what is
over eight times that is summed up in powers of two. What is usual, and how far it may move: `watch.model.tally`.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model import NOBODY, NOTHING, Batch, Found, Kept
from ostiaryd.watch.model.batch import Flags, Ints
from ostiaryd.watch.model.crowd import SUMS, crowd_record, new_day
from ostiaryd.watch.model.detector import Records
from ostiaryd.watch.model.runs import Floats
from ostiaryd.watch.model.tally import Limits, tally, tally_record

SAYS = (
    "{much} calls within ten minutes, where at most {bar} are to be expected",
    "{much} bytes within ten minutes, where at most {bar} are to be expected",
    "{much} records within ten minutes, where at most {bar} are to be expected",
    "answers that are many times as large as the same tools give to its peers",
)
LIMITS = Limits(least=(40.0, 256_000.0, 200.0, 5.0), unknown=(600.0, 50e6, 50_000.0, 20.0), most=(1e5, 1e10, 1e8, 60.0))
LOUD = 4.0
SLOTS = 64
SLACK, MOST = 3.0, 6.0
"""how many powers of two an answer may be over the usual and be nothing, and how many more count at most"""
ENOUGH = 30.0
"""answers of a tool from which it is known"""
LEARNED = 8
"""of an agent's answers within ten minutes: nobody floods his peers with what he wants to be usual"""

AGENT, ALL = tally_record(len(SAYS)), NOTHING
PEERS = np.dtype(
    [*crowd_record(len(SAYS)).descr, ("tool", np.uint64, (SLOTS,)), ("answers", np.float32, (2, SLOTS)),
     ("size", np.float32, (2, SLOTS)), ("start", np.float32, (SLOTS,))]
)  # fmt: skip  # by tool: how many answers and the logarithm of their sizes, and what was usual when that became known
THRESHOLD = 1.0


def notice(batch: Batch, kept: Kept) -> list[Found]:
    new_day(kept.peers, batch.peers, batch.now, (*SUMS, "answers", "size"))
    is_own = batch.agent != NOBODY
    slot, size = (batch.tool % np.uint64(SLOTS)).astype(np.int64), np.log2(1.0 + batch.bytes)
    counts = np.column_stack((batch.is_call, batch.bytes, batch.records, _over(batch, kept.peers, slot, size)))
    counted = tally(batch, counts * is_own[:, None], LIMITS, kept.agents, kept.peers)
    _learn(batch, kept.peers, slot, size, is_own & (batch.bytes > 0) & (counted.sums[:, 0] <= LEARNED))
    found = []
    for row, which, times in counted.over:
        much, bar = int(counted.sums[row, which]), int(counted.bars[row, which])
        says = SAYS[which].format(much=much, bar=bar)
        found.append(Found(row, times, 45 if times >= LOUD else 25, says, (int(counted.since[row]),)))
    return found


def _over(batch: Batch, peers: Records, slot: Ints, size: Floats) -> Floats:
    """By how many powers of two each answer is larger than its tool's answers to peers were until yesterday."""
    answers, sizes = peers["answers"][:, 0], peers["size"][:, 0]
    groups = np.unique(batch.peers)
    group, some = np.nonzero((peers["start"][groups] == 0) & (answers[groups] >= ENOUGH))
    group = groups[group]
    peers["start"][group, some] = sizes[group, some] / answers[group, some]
    known = answers[batch.peers, slot]
    usual = np.minimum(sizes[batch.peers, slot] / np.maximum(known, 1), peers["start"][batch.peers, slot] + 1)
    is_known = (known >= ENOUGH) & (peers["tool"][batch.peers, slot] == batch.tool)
    return np.where(is_known, np.clip(size - usual - SLACK, 0, MOST), 0)


def _learn(batch: Batch, peers: Records, slot: Ints, size: Floats, some: Flags) -> None:
    """A slot is the tool's that came first; one that shares it is held against nothing."""
    rows = batch.order[some[batch.order]]
    group, slot, tool = batch.peers[rows], slot[rows], batch.tool[rows]
    free = np.flatnonzero(peers["tool"][group, slot] == 0)[::-1]  # so that the first is written last
    peers["tool"][group[free], slot[free]] = tool[free]
    own = peers["tool"][group, slot] == tool
    np.add.at(peers["answers"][:, 1], (group[own], slot[own]), 1)
    np.add.at(peers["size"][:, 1], (group[own], slot[own]), size[rows][own])
