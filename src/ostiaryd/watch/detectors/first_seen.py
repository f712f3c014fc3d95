"""First seen: an agent uses a tool that neither it nor its peers have used before.

A first use alone means little: a new agent, a new tool or a new model version causes many. A first use counts more, the
more the tool can do. It counts little if peers use the tool, if the agent is new, or if no agent has used the tool
before, since a rollout begins that way. The points add up with a half-life of an hour: one new tool that pays counts as
much as two that write.

Without history every call is new. Nothing is therefore reported until the agent, or its peers together, made GROWN
calls and were first seen at least BASE ago. Tools used before that count as known.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch, Flags, Ints, word
from ostiaryd.watch.model.detector import Anomaly, Kept
from ostiaryd.watch.model.runs import Runs

WORDS = 8
"""number of 64-bit words in which an agent's tools are marked; a tool sets two bits"""
PEERS_SLOTS, ALL_SLOTS = 256, 4096
SPAN = 3600e6
"""half-life of novelty, in microseconds"""
WEIGHT = {word("read"): 0.4, word("write"): 0.6, word("change"): 0.7}
"""weights by effect; all other effects weigh 1"""
BY_PEERS = (1.0, 0.5, 0.1)
"""the factor if no peer, one peer, or several peers use the tool"""
GROWN = 50
"""number of calls after which an agent is not new, and its peers have a history"""
BASE = 86_400_000_000
"""minimum time since the first call of the agent or of its peers before anything is reported, in microseconds"""
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
    """Report agents whose first uses add up to the threshold."""
    some = batch.is_call & ~batch.is_denied & (batch.agent != NOBODY)
    calls = kept.agents["calls"][batch.agent] + Runs(batch.agent).sums(some.astype(np.float64)) - 1
    kept.agents["calls"][batch.agent[batch.last]] += np.add.reduceat(some, batch.first, dtype=np.uint32)
    _remember_since(batch, kept, np.flatnonzero(some))
    findings = []
    for row in batch.order[(some & ~_has_used(batch, kept))[batch.order]].tolist():
        state, tool = kept.agents[batch.agent[row]], int(batch.tool[row])
        if all(int(state["seen"][at]) & bit for at, bit in _bits(tool)):
            continue  # since the beginning of the batch
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
            says = f"first call of {batch.events[row].tool}, which peers hardly call"
            findings.append(Anomaly(row, score, 50 if score >= LOUD else 30, says[:300]))
    return findings


def _remember_since(batch: Batch, kept: Kept, rows: Ints) -> None:
    """Record the first call of each agent and of its peers, and the number of their calls."""
    for records, groups in ((kept.agents, batch.agent[rows]), (kept.peers, batch.peers[rows])):
        is_first = records["since"][groups] == 0
        records["since"][groups[is_first][::-1]] = batch.at[rows][is_first][::-1]  # of several rows the first one stays
    np.add.at(kept.peers["calls"], batch.peers[rows], 1)


def _has_used(batch: Batch, kept: Kept) -> Flags:
    """Return, for each row, true if both bits of the tool were set when the batch began."""
    is_used = np.ones(len(batch), np.bool_)
    for shift in (0, 9):
        bit = (batch.tool >> np.uint64(shift)) & np.uint64(64 * WORDS - 1)
        words = kept.agents["seen"][batch.agent, (bit >> np.uint64(6)).astype(np.int64)]
        is_used &= (words >> (bit & np.uint64(63))) & np.uint64(1) == 1
    return is_used


def _bits(tool: int) -> list[tuple[int, int]]:
    """Return the two bits of a tool, each with the index of its word."""
    return [(bit >> 6, 1 << (bit & 63)) for bit in (tool & (64 * WORDS - 1), (tool >> 9) & (64 * WORDS - 1))]
