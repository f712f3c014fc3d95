"""Transition surprise: an agent uses its own tools in an order that neither it nor its peers usually have.

A step is a pair of consecutive tools of a task. The probability of the second tool after the first is learned from this
agent and, while it has few steps, from its peers. The surprise of a step is the negative binary logarithm of its
probability. Surprise above the agent's average adds up over an hour (a CUSUM), surprise below it subtracts: one unusual
step has no effect, an unusual sequence is reported. Peers learn a limited number of steps of an agent per day, and the
average surprise of an agent counts as at most one bit more than when it was first known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ostiaryd.watch.model.batch import NOBODY, Batch, Flags, Ints
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept, Records
from ostiaryd.watch.model.runs import Floats, Runs

TASKS = 4
"""Number of tasks of an agent for which the last tool is stored. A further task overwrites another task."""
STEPS, TOOLS = 96, 32
"""Number of an agent's counters for steps, and of its counters for the first tools of steps. Steps with the same hash
share a counter.
"""
PEER_STEPS, PEER_TOOLS = 1024, 64
FULL = 250
"""Maximum number of steps after the same tool that an agent's counters learn. The counters are halved each day."""
TAUGHT = 200
"""Maximum number of steps of one agent per day that its peers learn."""
PRIOR = 20.0
"""Weight of the peers' estimate of a probability, as a number of the agent's own steps."""
RARE, OTHERS = 0.1, 5.0
"""Count with which each step of the peers starts, and count with which the first tool of each step starts."""
MOST = 9.0
"""Maximum surprise of one step, in bits."""
SLACK = 1.5
BAR = 20.0
GROWN, PEERS_GROWN = 100.0, 300.0
"""Minimum number of steps of an agent, and of its group of peers, before their average surprise is known."""
KEEP = 0.9
HOUR, DAY = 3_600_000_000, 86_400_000_000

AGENT = np.dtype(
    [
        ("task", np.uint32, (TASKS,)),
        ("tool", np.uint32, (TASKS,)),
        ("steps", np.uint8, (STEPS,)),
        ("tools", np.uint8, (TOOLS,)),
        ("hour", np.int32),
        ("sum", np.float32),
        ("n", np.float32, (2,)),
        ("bits", np.float32, (2,)),
        ("start", np.float32),
    ]
)
"""State of an agent. `n` and `bits` are the number of steps and the sum of their surprise, first of the days before the
day of `hour`, then of that day. `start` is the average surprise when it was first known.
"""
PEERS = np.dtype(
    [
        ("steps", np.uint32, (PEER_STEPS,)),
        ("tools", np.uint32, (PEER_TOOLS,)),
        ("day", np.int32),
        ("n", np.float32, (2,)),
        ("bits", np.float32, (2,)),
    ]
)
ALL = NOTHING
THRESHOLD = 1.0
CERTAIN = False


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each agent whose order of tools is unusual: the surprise of its steps from one tool to the next, above the
    agent's average, adds up to the threshold.
    """
    rows = np.flatnonzero(batch.is_call & ~batch.is_denied & (batch.agent != NOBODY))
    if len(rows) == 0:
        return []
    agent, peers = batch.agent[rows], batch.peers[rows]
    _new_day(kept, np.unique(agent), np.unique(peers), int(batch.now // DAY))
    tool = (batch.tool[rows] >> np.uint64(32)).astype(np.uint32)
    before = _before(kept.agents, agent, (batch.task[rows] >> np.uint64(32)).astype(np.uint32), tool)
    rows, agent, peers, before, tool = (one[before != 0] for one in (rows, agent, peers, before, tool))
    taught = kept.agents["n"][agent, 1] + Runs(agent).rank < TAUGHT
    bits = _surprise(kept, Steps(agent, peers, before, tool, taught, np.argsort(batch.number[rows], kind="stable")))
    usual = _usual(kept, agent, peers)
    for records, of, learned in ((kept.agents, agent, bits), (kept.peers, peers[taught], bits[taught])):
        np.add.at(records["n"][:, 1], of, 1)
        np.add.at(records["bits"][:, 1], of, learned)
    sums = _cusum(kept.agents, agent, batch.at[rows] // HOUR, bits - usual - SLACK)
    anomalies, events = list[Anomaly](), [batch.events[row] for row in rows.tolist()]
    for one in np.flatnonzero((sums >= BAR) & (bits > usual + SLACK)).tolist():
        says = f"unusual order of calls for the agent and its peers: now {events[one].tool}"
        anomalies.append(Anomaly(int(rows[one]), float(sums[one]) / BAR, 40, says[:300]))
    return anomalies


def _before(agents: Records, agent: Ints, task: NDArray[np.uint32], tool: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return, for each call, the hash of the tool that the agent called before in the same task, or 0 if none is
    stored. Store the newest tool of each task.
    """
    slot = (task % TASKS).astype(np.int64)
    order = np.argsort(agent * TASKS + slot, kind="stable")
    agents_of, where, task, used = agent[order], slot[order], task[order], tool[order]
    runs = Runs(agents_of, where)
    last_task, last_tool = np.roll(task, 1), np.roll(used, 1)
    first = runs.first
    last_task[first] = agents["task"][agents_of[first], where[first]]
    last_tool[first] = agents["tool"][agents_of[first], where[first]]
    last = runs.last
    agents["task"][agents_of[last], where[last]], agents["tool"][agents_of[last], where[last]] = task[last], used[last]
    before = np.empty_like(tool)
    before[order] = np.where(last_task == task, last_tool, 0)
    return before


class Steps(NamedTuple):
    """Steps of agents from one tool to the next, one per row. `before` and `tool` are the hashes of the two tools.
    `taught` is true if the statistics of the agent's peers include the step. `order` is the order of the rows by time.
    """

    agent: Ints
    peers: Ints
    before: NDArray[np.uint32]
    tool: NDArray[np.uint32]
    taught: Flags
    order: Ints


def _surprise(kept: Kept, of: Steps) -> Floats:
    """Return the surprise of each step in bits. Also add the step to the counters of the agent and, if `taught`, of its
    peers.
    """
    agent, peers, before, tool, taught, order = of
    step = (before.astype(np.uint64) * np.uint64(0x9E3779B1) + tool) % np.uint64(0xFFFFFFFB)
    own_step, own_tool = (step % np.uint64(STEPS)).astype(np.int64), (before % TOOLS).astype(np.int64)
    their_step, their_tool = (step % np.uint64(PEER_STEPS)).astype(np.int64), (before % PEER_TOOLS).astype(np.int64)
    every = np.ones(len(agent))
    tools = kept.agents["tools"][agent, own_tool] + _earlier(agent * TOOLS + own_tool, every)
    learned = (tools < FULL).astype(np.float64)
    steps = kept.agents["steps"][agent, own_step] + _earlier(agent * STEPS + own_step, learned)
    others = (taught & (learned > 0)).astype(np.float64)
    n = kept.peers["tools"][peers, their_tool] + _earlier(peers * PEER_TOOLS + their_tool, others, order)
    count = kept.peers["steps"][peers, their_step] + _earlier(peers * PEER_STEPS + their_step, others, order)
    by_peers = np.minimum((count + RARE) / (n + OTHERS), 1)
    likely = (np.minimum(steps, tools) + PRIOR * by_peers) / (np.minimum(tools, FULL) + PRIOR)
    for name, own, their in (("tools", own_tool, their_tool), ("steps", own_step, their_step)):
        np.add.at(kept.agents[name], (agent[learned > 0], own[learned > 0]), 1)
        np.add.at(kept.peers[name], (peers[others > 0], their[others > 0]), 1)
    bits: Floats = np.minimum(-np.log2(likely), MOST)
    return bits


def _earlier(keys: Ints, values: Floats, order: Ints | None = None) -> Floats:
    """Return, for each row, the sum of the values of earlier rows with the same key. `order` is the time order of the
    rows; None if the rows are in time order.
    """
    turn = np.arange(len(keys)) if order is None else order
    turn = turn[np.argsort(keys[turn], kind="stable")]
    sums = np.empty(len(keys))
    sums[turn] = Runs(keys[turn]).running_sums(values[turn]) - values[turn]
    return sums


def _usual(kept: Kept, agent: Ints, peers: Ints) -> Floats:
    """Return the average surprise of the agent's steps in bits, or that of its peers while the agent has few steps;
    infinite while neither is known.
    """
    n, theirs = kept.agents["n"][agent, 0], kept.peers["n"][peers, 0]
    own = np.minimum(kept.agents["bits"][agent, 0] / np.maximum(n, 1), kept.agents["start"][agent] + 1)
    shared = np.where(theirs >= PEERS_GROWN, kept.peers["bits"][peers, 0] / np.maximum(theirs, 1), np.inf)
    usual: Floats = np.where(n >= GROWN, own, shared)
    return usual


def _cusum(agents: Records, agent: Ints, hour: Ints, over: Floats) -> Floats:
    """Return, for each step, the sum of the surprise above the average in this hour up to the step, never below 0.
    Store the last sum of each agent.
    """
    runs = Runs(agent, hour)
    first = runs.first
    start = np.where(agents["hour"][agent[first]] == hour[first], agents["sum"][agent[first]], 0)
    finite = np.maximum(over, -BAR)
    total = runs.running_sums(finite)
    sums = total - np.minimum(runs.running_minima(total), -start[runs.of])
    agents["hour"][agent[runs.last]], agents["sum"][agent[runs.last]] = hour[runs.last], sums[runs.last]
    return sums


def _new_day(kept: Kept, agent: Ints, peers: Ints, day: int) -> None:
    """Begin a new day for these agents and groups: reduce the weight of earlier days, and add the previous day to the
    averages.
    """
    agents_of_new_day = agent[kept.agents["hour"][agent] // (DAY // HOUR) != day]
    state = kept.agents[agents_of_new_day]
    for name in ("steps", "tools"):
        state[name] >>= 1
    for name in ("n", "bits"):
        state[name][:, 0] = KEEP * state[name][:, 0] + state[name][:, 1]
        state[name][:, 1] = 0
    begins = (state["start"] == 0) & (state["n"][:, 0] >= GROWN)
    state["start"][begins] = state["bits"][begins, 0] / state["n"][begins, 0]
    # set to `day` here, so that this function begins the same day only once
    state["hour"], state["sum"] = day * (DAY // HOUR), 0
    kept.agents[agents_of_new_day] = state
    groups = peers[kept.peers["day"][peers] != day]
    theirs = kept.peers[groups]
    for name in ("steps", "tools"):
        theirs[name] = theirs[name] * KEEP
    for name in ("n", "bits"):
        theirs[name][:, 0] = KEEP * theirs[name][:, 0] + theirs[name][:, 1]
        theirs[name][:, 1] = 0
    theirs["day"] = day
    kept.peers[groups] = theirs
