"""First seen: an agent uses a tool that neither it nor its peers have used before.

A first use alone means little: a new agent, a new tool or a new model version causes many. A first use weighs more if
the effect of the tool is more serious. A first use weighs little if peers use the tool, if the agent is new, or if no
agent has used the tool before (a new tool starts that way). The weights add up with a half-life of an hour.

Without history every call is new. An agent is therefore reported only if the agent, or its peers together, made `GROWN`
calls and were first seen at least `BASE` ago.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch, Flags, Ints, word
from ostiaryd.watch.model.detector import Anomaly, Kept
from ostiaryd.watch.model.runs import Runs

WORDS = 8
"""Number of 64-bit words in the bit set of an agent's tools. Each tool sets two bits."""
PEERS_SLOTS, ALL_SLOTS = 256, 4096
SPAN = 3600e6
"""Half-life of the sum of an agent's first uses, in microseconds."""
WEIGHT = {word("read"): 0.4, word("write"): 0.6, word("change"): 0.7}
"""Weight of a first use by the effect of the tool. Every other effect has the weight 1."""
BY_PEERS = (1.0, 0.5, 0.1)
"""Factor of the weight if no peer, one peer, or several peers have used the tool."""
GROWN = 50
"""Number of calls from which an agent is no longer new, and from which a group of peers has a usual behaviour."""
BASE = 86_400_000_000
"""Minimum age of an agent, or of its group of peers, before the agent can be reported, in microseconds."""
ROLLED_OUT, YOUNG = 0.4, 0.4
BAR = 0.9
LOUD = 2.0

AGENT = np.dtype(
    [("seen", np.uint64, (WORDS,)), ("calls", np.uint32), ("sum", np.float32), ("at", np.int64), ("since", np.int64)]
)
PEERS = np.dtype([("users", np.uint16, (PEERS_SLOTS,)), ("calls", np.uint32), ("since", np.int64)])
ALL = np.dtype([("users", np.uint16, (ALL_SLOTS,))])
THRESHOLD = 1.0
CERTAIN = False


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each agent that uses several tools for the first time: the weights of its first uses, higher for tools
    with serious effects, add up to the threshold.
    """
    some = batch.is_call & ~batch.is_denied & (batch.agent != NOBODY)
    calls = kept.agents["calls"][batch.agent] + Runs(batch.agent).running_sums(some.astype(np.float64)) - 1
    kept.agents["calls"][batch.agent[batch.last]] += np.add.reduceat(some, batch.first, dtype=np.uint32)
    _remember_since(batch, kept, np.flatnonzero(some))
    findings = []
    for row in batch.order[(some & ~_has_used(batch, kept))[batch.order]].tolist():
        state, tool = kept.agents[batch.agent[row]], int(batch.tool[row])
        if all(int(state["seen"][at]) & bit for at, bit in _bits(tool)):
            continue  # an earlier event of this batch used the tool
        for at, bit in _bits(tool):
            state["seen"][at] |= np.uint64(bit)
        kind = kept.peers[batch.peers[row]]
        peers, everybody = kind["users"], kept.all["users"][0]
        weight = WEIGHT.get(int(batch.effect[row]), 1.0) * BY_PEERS[min(2, int(peers[tool % PEERS_SLOTS]))]
        if everybody[tool % ALL_SLOTS] == 0:
            weight *= ROLLED_OUT
        if calls[row] < GROWN:
            weight *= YOUNG
        for users, slots in ((peers, PEERS_SLOTS), (everybody, ALL_SLOTS)):
            users[tool % slots] = min(int(users[tool % slots]) + 1, 65_535)
        at = int(batch.at[row])
        histories = ((calls[row], state["since"]), (int(kind["calls"]) - 1, kind["since"]))
        if not any(made >= GROWN and at - int(since) >= BASE for made, since in histories):
            continue
        state["sum"] = weight + state["sum"] * 0.5 ** (max(0, at - int(state["at"])) / SPAN)
        state["at"] = at
        score = float(state["sum"]) / BAR
        if score >= THRESHOLD:
            says = f"first call of {batch.events[row].tool}, which peers rarely or never call"
            findings.append(Anomaly(row, score, 50 if score >= LOUD else 30, says[:300]))
    return findings


def _remember_since(batch: Batch, kept: Kept, rows: Ints) -> None:
    """Record, in the states of agents and groups of peers, the time of the first call; count the calls of
    the groups.
    """
    for records, groups in ((kept.agents, batch.agent[rows]), (kept.peers, batch.peers[rows])):
        is_first = records["since"][groups] == 0
        # if several rows are assigned, the first row is written last and stays
        records["since"][groups[is_first][::-1]] = batch.at[rows][is_first][::-1]
    np.add.at(kept.peers["calls"], batch.peers[rows], 1)


def _has_used(batch: Batch, kept: Kept) -> Flags:
    """Return, for each event, true if the agent had used the tool before the batch: both bits of the tool are set."""
    is_used = np.ones(len(batch), np.bool_)
    for shift in (0, 9):
        bit = (batch.tool >> np.uint64(shift)) & np.uint64(64 * WORDS - 1)
        words = kept.agents["seen"][batch.agent, (bit >> np.uint64(6)).astype(np.int64)]
        is_used &= (words >> (bit & np.uint64(63))) & np.uint64(1) == 1
    return is_used


def _bits(tool: int) -> list[tuple[int, int]]:
    """Return the two bits of a tool in an agent's bit set, each as index of the word and bit mask."""
    return [(bit >> 6, 1 << (bit & 63)) for bit in (tool & (64 * WORDS - 1), (tool >> 9) & (64 * WORDS - 1))]
