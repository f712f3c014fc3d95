"""Rate and volume: far more calls, bytes or records within ten minutes than this agent and its peers ever need, or
answers many times as large as the same tool gives to peers.

Whoever empties a system asks often, or takes much at once. A haul can hide in the busiest hours of an agent whose tools
differ much in what they return, so each answer is also held against what its tool returns to all of its kind: what is
over eight times that is summed up in powers of two. What is usual, and how far it may move: `watch.model.tally`.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model import NOTHING, Batch, Found, Kept
from ostiaryd.watch.model.detector import Records
from ostiaryd.watch.model.runs import Floats
from ostiaryd.watch.model.tally import DAY, KEEP, agent_record, peers_record, tally

SAYS = (
    "{much} calls within ten minutes, where at most {bar} are to be expected",
    "{much} bytes within ten minutes, where at most {bar} are to be expected",
    "{much} records within ten minutes, where at most {bar} are to be expected",
    "answers that are many times as large as the same tools give to its peers",
)
FLOORS = (40.0, 256_000.0, 200.0, 5.0)
"""so much in ten minutes is never worth a word"""
LOUD = 4.0
SLOTS = 64
SLACK, MOST = 3.0, 6.0
"""how many powers of two an answer may be over the usual and be nothing, and how many more count at most"""
ENOUGH = 30.0
"""answers of a tool from which it is known"""
LEARNED = 8
"""of an agent's answers within ten minutes: nobody floods his peers with what he wants to be usual"""

AGENT, ALL = agent_record(len(SAYS)), NOTHING
PEERS = np.dtype(
    [*peers_record(len(SAYS)).descr, ("today", np.int32), ("tool", np.uint64, (SLOTS,)),
     ("answers", np.float32, (2, SLOTS)), ("size", np.float32, (2, SLOTS)), ("start", np.float32, (SLOTS,))]
)  # fmt: skip  # by tool: of the days before `today`, and of that day; what was usual when it became known
THRESHOLD = 1.0


def notice(batch: Batch, kept: Kept) -> list[Found]:
    is_own = batch.agent != 0
    slot, size = (batch.tool % np.uint64(SLOTS)).astype(np.int64), np.log2(1.0 + batch.bytes)
    counts = np.column_stack((batch.is_call, batch.bytes, batch.records, _over(batch, kept.peers, slot, size)))
    counted = tally(batch, counts * is_own[:, None], FLOORS, kept.agents, kept.peers)
    _learn(batch, kept.peers, slot, size, is_own & (batch.bytes > 0) & (counted.sums[:, 0] <= LEARNED))
    found = []
    for row, which, times in counted.crossed:
        much, bar = int(counted.sums[row, which]), int(counted.bars[row, which])
        says = SAYS[which].format(much=much, bar=bar)
        found.append(Found(row, times, 45 if times >= LOUD else 25, says, (int(counted.since[row]),)))
    return found


def _over(batch: Batch, peers: Records, slot: np.ndarray, size: Floats) -> Floats:
    """By how many powers of two each answer is larger than its tool's answers to peers were until yesterday."""
    groups = np.unique(batch.peers)
    state = peers[groups]
    stale = state["today"] != batch.now // DAY
    for name in ("answers", "size"):
        state[name][stale, 0] = KEEP * state[name][stale, 0] + state[name][stale, 1]
        state[name][stale, 1] = 0
    state["today"] = batch.now // DAY
    begins = (state["start"] == 0) & (state["answers"][:, 0] >= ENOUGH)
    state["start"][begins] = state["size"][:, 0][begins] / state["answers"][:, 0][begins]
    peers[groups] = state
    answers = peers["answers"][batch.peers, 0, slot]
    is_known = (answers >= ENOUGH) & (peers["tool"][batch.peers, slot] == batch.tool)
    usual = peers["size"][batch.peers, 0, slot] / np.maximum(answers, 1)
    usual = np.minimum(usual, peers["start"][batch.peers, slot] + 1)  # however long it grows
    return np.where(is_known, np.clip(size - usual - SLACK, 0, MOST), 0)


def _learn(batch: Batch, peers: Records, slot: np.ndarray, size: Floats, some: np.ndarray) -> None:
    """A slot is the tool's that came first; one that shares it is not held against anything."""
    rows = batch.order[some[batch.order]]
    group, slot, tool = batch.peers[rows], slot[rows], batch.tool[rows]
    free = peers["tool"][group, slot] == 0
    peers["tool"][group[free][::-1], slot[free][::-1]] = tool[free][::-1]  # the first one written last
    own = peers["tool"][group, slot] == tool
    np.add.at(peers["answers"], (group[own], 1, slot[own]), 1)
    np.add.at(peers["size"], (group[own], 1, slot[own]), size[rows][own])
