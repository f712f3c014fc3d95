"""Denied burst: far more denials within ten minutes than this agent and its peers usually meet.

An attacker who controls an agent probes for access. If a resource denies at least half of the agents that call it in
the window, and at least five of them, the resource has changed, and its denials do not count. `watch.model.tally`
defines the usual level and how fast the level may change.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch, Flags, Ints
from ostiaryd.watch.model.crowd import crowd_record
from ostiaryd.watch.model.detector import Anomaly, Kept, Records
from ostiaryd.watch.model.runs import Floats, Runs
from ostiaryd.watch.model.tally import WINDOW, Limits, tally, tally_record

LIMITS = Limits(least=(12.0,), unknown=(12.0,), most=(24.0,))
EVERYBODY = 5
ENTRIES = 4
LOUD = 3.0
BITS, RESOURCES = 32, 512

AGENT = np.dtype([*tally_record(1).descr, ("entries", np.int64, (ENTRIES,)), ("now", np.int32), ("marks", np.uint64)])
"""State of an agent beside its tally. `entries`: the entries of its newest denials, each number plus one, the newest
last, 0 for an empty place. `marks`: in the window `now`, one bit for each resource that the agent called and one for
each resource that denied it.
"""
PEERS = crowd_record(1)
ALL = np.dtype([("now", np.int32, (RESOURCES,)), ("agents", np.uint16, (2, RESOURCES))])
"""State of the server. In the window `now` of each resource: the number of agents that called the resource, and the
number of agents that it denied.
"""
THRESHOLD = 1.0
CERTAIN = False


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each agent that is denied unusually often: more often in the window than the agent's own bar
    (`watch.model.tally`).
    """
    counts = (batch.is_refused & (batch.agent != NOBODY)).astype(np.float64)
    _leave_out_what_refuses_everybody(batch, kept, counts)
    counted = tally(batch, counts[:, None], LIMITS, kept.agents, kept.peers)
    findings = []
    rows = np.flatnonzero(counts)
    for row, _, times in counted.over:
        much, bar = int(counted.sums[row, 0]), int(counted.bars[row, 0])
        says = f"denied {much} times within ten minutes; fewer than {bar} denials are expected"
        findings.append(Anomaly(row, times, 50 if times >= LOUD else 30, says, _before(batch, kept.agents, rows, row)))
    _keep_entries(batch, kept.agents, rows)
    return findings


def _leave_out_what_refuses_everybody(batch: Batch, kept: Kept, counts: Floats) -> None:
    """Set to zero, in `counts`, each denial by a resource that denied at least half of the agents that called it in the
    window. Each agent counts once per resource and window.
    """
    is_call = batch.is_call & (batch.resource != 0) & (batch.agent != NOBODY)
    window = batch.at // WINDOW
    is_first = _marked(batch, kept.agents, is_call, window)
    slots, every = (batch.resource % np.uint64(RESOURCES)).astype(np.int64), kept.all[0]
    matters = is_first.any(axis=0) | (is_call & batch.is_refused)
    for row in batch.order[matters[batch.order]].tolist():
        slot = slots[row]
        if every["now"][slot] != window[row]:
            every["now"][slot], every["agents"][:, slot] = window[row], 0
        every["agents"][:, slot] += is_first[:, row]
        called, refused = every["agents"][:, slot].tolist()
        if refused >= EVERYBODY and 2 * refused >= called:
            counts[row] = 0


def _marked(batch: Batch, agents: Records, is_call: Flags, window: Ints) -> Flags:
    """Return an array of two rows of flags, with a column for each event: true for an agent's first call of a resource
    in this window, and true for the first denied call.
    """
    rows = np.concatenate((np.flatnonzero(is_call), np.flatnonzero(is_call & batch.is_refused)))
    is_first = np.zeros((2, len(batch)), np.bool_)
    if len(rows) == 0:
        return is_first
    turn = np.zeros(len(rows), np.int64)
    turn[np.count_nonzero(is_call) :] = 1
    bit = (batch.resource[rows] % np.uint64(BITS)).astype(np.int64) + BITS * turn
    agent, when = batch.agent[rows], window[rows]
    key = (agent * (int(when.max() - when.min()) + 1) + when - when.min()) * 2 * BITS + bit
    first = np.unique(key, return_index=True)[1]
    mark = np.uint64(1) << bit.astype(np.uint64)
    is_marked = (agents["now"][agent] == when) & (agents["marks"][agent] & mark != 0)
    first = first[~is_marked[first]]
    is_first[turn[first], rows[first]] = True
    last = np.zeros(len(agents), np.int64)
    np.maximum.at(last, agent, when)
    stale = agent[agents["now"][agent] != last[agent]]
    agents["marks"][stale] = 0
    agents["now"][agent] = last[agent]
    newest = when == last[agent]
    np.bitwise_or.at(agents["marks"], agent[newest], mark[newest])
    return is_first


def _before(batch: Batch, agents: Records, rows: Ints, row: int) -> tuple[int, ...]:
    """Return the entries of the agent's denials before the event in `row`, at most the newest `ENTRIES`, the newest
    last.
    """
    mine = rows[(rows < row) & (batch.agent[rows] == batch.agent[row])]
    kept = [int(entry) - 1 for entry in agents["entries"][batch.agent[row]] if entry]
    return (*kept, *batch.number[mine].tolist())[-ENTRIES:]


def _keep_entries(batch: Batch, agents: Records, rows: Ints) -> None:
    runs = Runs(batch.agent[rows])
    for first, last in zip(runs.first.tolist(), runs.last.tolist(), strict=True):
        state = agents["entries"][batch.agent[rows[first]]]
        newest = batch.number[rows[first : last + 1]][-ENTRIES:] + 1
        state[:] = np.append(state, newest)[-ENTRIES:]
