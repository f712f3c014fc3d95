"""The usual size of each tool's answers to a group of peers, as a binary logarithm, over all earlier days."""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import Batch, Flags
from ostiaryd.watch.model.crowd import SUMS, new_day
from ostiaryd.watch.model.detector import Records
from ostiaryd.watch.model.runs import Floats

SLOTS = 64
ENOUGH = 30.0
"""Minimum number of learned answers of a tool before its usual size is known."""
SIZE_FIELDS = [
    ("tool", np.uint64, (SLOTS,)),
    ("answers", np.float32, (2, SLOTS)),
    ("size", np.float32, (2, SLOTS)),
    ("start", np.float32, (SLOTS,)),
]
"""Fields of a group of peers beside its `crowd_record`, by slot: the tool, the number of answers and the sum of the
binary logarithms of their sizes (earlier days, then the present day), and the usual size when it was first known.
"""


def new_day_of_sizes(batch: Batch, peers: Records) -> None:
    """Begin a new day in the `crowd_record` and in `SIZE_FIELDS` of the peers in the batch. Call this function instead
    of `new_day`, and before the other functions of this module.
    """
    new_day(peers, batch.peers, batch.now, (*SUMS, "answers", "size"))
    groups = np.unique(batch.peers)
    group, slot = np.nonzero((peers["start"][groups] == 0) & (peers["answers"][groups, 0] >= ENOUGH))
    group = groups[group]
    peers["start"][group, slot] = peers["size"][group, 0, slot] / peers["answers"][group, 0, slot]


def compare_with_usual(batch: Batch, peers: Records) -> tuple[Floats, Flags]:
    """Return two values for each event: the binary logarithm of (size of the call's answer / usual size for the tool),
    and whether the usual size is known.

    The usual size never counts as more than twice the size when it was first known, so that an agent cannot raise it
    without limit.
    """
    slot = (batch.tool % np.uint64(SLOTS)).astype(np.int64)
    answers = peers["answers"][batch.peers, 0, slot]
    usual = peers["size"][batch.peers, 0, slot] / np.maximum(answers, 1)
    usual = np.minimum(usual, peers["start"][batch.peers, slot] + 1)
    is_known = (answers >= ENOUGH) & (peers["tool"][batch.peers, slot] == batch.tool) & (batch.bytes > 0)
    return np.log2(1.0 + batch.bytes) - usual, is_known


def learn_sizes(batch: Batch, peers: Records, some: Flags) -> None:
    """Add the sizes of the answers in these events to the statistics of the present day. A slot of the statistics
    belongs to the first tool whose hash leads to it; another tool with the same slot has no usual size.
    """
    rows = batch.order[(some & (batch.bytes > 0))[batch.order]]
    group, tool = batch.peers[rows], batch.tool[rows]
    slot = (tool % np.uint64(SLOTS)).astype(np.int64)
    # in reverse, so that the first tool is assigned last and stays
    free = np.flatnonzero(peers["tool"][group, slot] == 0)[::-1]
    peers["tool"][group[free], slot[free]] = tool[free]
    own = peers["tool"][group, slot] == tool
    np.add.at(peers["answers"][:, 1], (group[own], slot[own]), 1)
    np.add.at(peers["size"][:, 1], (group[own], slot[own]), np.log2(1.0 + batch.bytes[rows][own]))
