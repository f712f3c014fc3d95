"""Peer outlier: an agent that has behaved unlike all of its peers for hours.

An agent that misbehaves from its first day has no other usual behaviour of its own, so only a comparison with peers
reveals it. Once in each hour of activity, the agent's past (with a half-life of twelve hours) is compared with the past
of its peers. The figures are the size of its answers, the share of calls that write, send or destroy, the share of
denials, and the number of calls. Each outlier is reported at most once a day.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch, Ints, word
from ostiaryd.watch.model.crowd import Crowd, crowd_record, learn, usual
from ostiaryd.watch.model.detector import NOTHING, Anomaly, Kept, Records
from ostiaryd.watch.model.runs import Floats, Runs
from ostiaryd.watch.model.sizes import SIZE_FIELDS, compare_with_usual, learn_sizes, new_day_of_sizes

HOUR = 3_600_000_000
HALF = 12.0
"""Half-life of an agent's past, in hours."""
SAYS = (
    "larger answers",
    "more calls that write or change",
    "more calls that send or share",
    "more calls that destroy, pay or administer",
    "more refusals",
    "more calls in an hour",
)
WRITES, SENDS = (
    np.array([word(name) for name in some], np.uint64) for some in (("write", "change"), ("send", "share"))
)
FATAL = np.array([word(name) for name in ("destroy", "pay", "administer")], np.uint64)
LEAST = np.array([0.4, 0.08, 0.06, 0.05, 0.05, 1.0])
"""Minimum spread of each figure among peers that the comparison assumes: in powers of two for size and rate, as a share
for the others.
"""
FAR = 4.5
"""Distance from the mean of the peers, in spreads, from which an agent is an outlier."""
SIZED_AT, CALLS_AT = 5, 6
CALLS = 40.0
"""Minimum number of recent calls before an agent is compared with its peers."""
PEERS_LEAST = 6
"""Minimum number of agents in a group of peers before its members are compared."""
REPORTS = 30.0
LEARNED = 16
"""Maximum number of an agent's answers per hour whose size is learned, so that one agent cannot change
the usual size.
"""
AGAIN = 24
"""Minimum time between two reports about an agent, in hours."""

AGENT = np.dtype(
    [
        ("hour", np.int32),
        ("hours", np.float32),
        ("sums", np.float32, (len(SAYS) + 1,)),
        ("is_one", np.bool_),
        ("calls", np.uint16),
        ("told", np.int32),
    ]
)
"""State of an agent: the hours with activity (fading), sums over its calls (fading), the last two being the number of
answers with a size and the number of calls; whether the peers' count includes the agent (`is_one`); and the hour of the
last report (`told`).
"""
PEERS = np.dtype([*crowd_record(len(SAYS)).descr, *SIZE_FIELDS, ("agents", np.uint32)])
ALL = NOTHING
THRESHOLD = 1.0
CERTAIN = False


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each agent that differs strongly from its peers: agents of the same kind with access to the same
    resources. An agent is compared once in each hour in which it is active.
    """
    new_day_of_sizes(batch, kept.peers)
    rows = batch.first[batch.agent[batch.first] != NOBODY]
    agents, group, hour = batch.agent[rows], batch.peers[rows], batch.now // HOUR + 1
    begins = kept.agents["hour"][agents] != hour
    findings = _report(rows[begins], agents[begins], group[begins], kept, int(hour))
    state = kept.agents[agents[begins]]
    fading = 0.5 ** (np.minimum(hour - state["hour"], 1000) / HALF)
    state["hours"] = state["hours"] * fading + 1
    state["sums"] *= fading[:, None]
    state["hour"], state["calls"] = hour, 0
    kept.agents[agents[begins]] = state
    _add(batch, kept)
    return findings


def _report(rows: Ints, agents: Ints, group: Ints, kept: Kept, now: int) -> list[Anomaly]:
    """Return an anomaly for each outlier among these agents, and add the figures of all these agents to the statistics
    of their peers.

    `rows` are their first events, `group` the rows of their peers, and `now` is the hour since the epoch, plus one.
    """
    some = kept.agents["sums"][agents, CALLS_AT] >= CALLS
    rows, agents, group = rows[some], agents[some], group[some]
    figures = _figures(kept.agents[agents])
    others = _without(usual(kept.peers, group), figures, kept.peers["agents"][group][:, None])
    far = (figures - others.mean) / np.maximum(others.spread, LEAST)
    far[(kept.peers["agents"][group] < PEERS_LEAST) | (others.n[:, 0] < REPORTS)] = 0
    far = np.round(far / FAR, 3)
    new = ~kept.agents["is_one"][agents]
    np.add.at(kept.peers["agents"], group[new], 1)
    kept.agents["is_one"][agents] = True
    learn(kept.peers, group, np.where(far > 1, others.mean + FAR * np.maximum(others.spread, LEAST), figures))
    hour = kept.agents["told"][agents]
    far[now - hour < AGAIN] = 0
    kept.agents["told"][agents[far.max(axis=1, initial=0) >= 1]] = now
    return [
        Anomaly(int(rows[at]), float(far[at].max()), 35, f"{SAYS[far[at].argmax()]} than all agents of its kind")
        for at in np.flatnonzero(far.max(axis=1, initial=0) >= 1).tolist()
    ]


def _figures(state: Records) -> Floats:
    sums = state["sums"].astype(np.float64)
    calls = sums[:, CALLS_AT]
    size = sums[:, 0] / np.maximum(sums[:, SIZED_AT], 1)
    rate = np.log2(calls / np.maximum(state["hours"], 1))
    return np.column_stack((size, *(sums[:, at] / calls for at in range(1, 5)), rate))


def _without(crowd: Crowd, figures: Floats, agents: Ints) -> Crowd:
    """Return the statistics of each group of peers without the given agent, assuming that each agent of the group
    contributed equally. `agents` is the size of each group.
    """
    rest = np.maximum(agents.astype(np.float64) - 1, 1)
    mean = ((rest + 1) * crowd.mean - figures) / rest
    square = ((rest + 1) * (crowd.spread**2 + crowd.mean**2) - figures**2) / rest
    return Crowd(crowd.n, mean, np.sqrt(np.maximum(square - mean**2, 0)))


def _add(batch: Batch, kept: Kept) -> None:
    """Add the calls and answers of the batch to the sums of their agents. Learn the usual sizes of answers from each
    agent's first answers in the hour.
    """
    rows = np.flatnonzero(batch.is_used & (batch.agent != NOBODY))
    effect, call = batch.effect[rows], batch.is_call[rows]
    off, is_known = compare_with_usual(batch, kept.peers)
    columns = (
        np.where(is_known, off, 0)[rows],
        *(call & np.isin(effect, kind) for kind in (WRITES, SENDS, FATAL)),
        batch.is_refused[rows],
        is_known[rows],
        call,
    )
    runs = Runs(batch.agent[rows])
    sums = runs.running_sums(np.column_stack(columns).astype(np.float64))
    learned = np.zeros(len(batch), np.bool_)
    learned[rows] = kept.agents["calls"][batch.agent[rows]] + sums[:, CALLS_AT] <= LEARNED
    learn_sizes(batch, kept.peers, learned)
    agent = batch.agent[rows[runs.first]]
    kept.agents["sums"][agent] += sums[runs.last]
    kept.agents["calls"][agent] = np.minimum(kept.agents["calls"][agent] + sums[runs.last, CALLS_AT], 65_535)
