"""Half-space forest: each figure of an agent's work is ordinary, but the combination of the figures is unusual.

The model describes an agent's work within ten minutes by several figures together: how rarely the agent works at this
hour, how often it calls and how much it reads in relation to its usual level, how large its answers are, and how many
calls change something. Fixed random trees repeatedly halve the space of these figures. A point in a region with few
other points is unusual. Unusual points of an agent are added up, with a half-life of two hours.

After S. C. Tan, K. M. Ting, T. F. Liu: Fast Anomaly Detection for Streaming Data (IJCAI 2011). An agent adds at most
one point to the model in ten minutes.
"""

from __future__ import annotations

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch, Flags, Ints, word
from ostiaryd.watch.model.crowd import DAY, crowd_record, new_day
from ostiaryd.watch.model.detector import Anomaly, Kept, Records
from ostiaryd.watch.model.runs import Floats
from ostiaryd.watch.model.tally import Limits, Tally, tally, tally_record

COUNTED = 3
"""Number of counted values: calls, bytes, and calls that do not only read. Denied calls do not count."""
FIGURES = 5
TREES, DEPTH = 25, 6
LEAVES = 1 << DEPTH
ENOUGH, DAYS_LEARNED = 1000.0, 2
"""Minimum number of learned points, and minimum number of days on which they were learned, before a point can be
unusual.
"""
FIRST_LOOK = 8
"""Number of calls within ten minutes at which an agent's work is examined first. The examination is repeated each time
the number has doubled.
"""
KNOWN = 30.0
"""Minimum number of earlier windows with activity before an agent can be reported."""
DAYS_LEAST, DAYS = 4, 40
"""Days on which an agent worked in the same hour of the day: the minimum before the rarity of its hours is known, and
the number at which its counts are halved.
"""
SLACK, BAR = 2.8, 2.5
"""Surprise of a point that is ignored, and the sum of the remaining surprise at which an agent is reported, both in
bits.
"""
SPAN = 7200
"""Half-life of an agent's sum of surprise, in seconds."""
SECOND = 1_000_000
HOUR = 3_600_000_000
LIMITS = Limits(least=(1e12,) * COUNTED, unknown=(1e12,) * COUNTED, most=(1e12,) * COUNTED)


def _grown() -> tuple[Ints, Floats]:
    """Return two arrays by tree and inner node: the index of the figure at which the node divides, and the dividing
    value. The result is the same at each start.
    """
    dice = np.random.default_rng(2011)
    which, where = np.zeros((TREES, LEAVES), np.int64), np.zeros((TREES, LEAVES))
    for tree in range(TREES):
        middle = dice.random(FIGURES)
        reach = 2 * np.maximum(middle, 1 - middle)
        low, high = {1: middle - reach}, {1: middle + reach}
        for node in range(1, LEAVES):
            figure = int(dice.integers(FIGURES))
            cut = (low[node][figure] + high[node][figure]) / 2
            which[tree, node], where[tree, node] = figure, cut
            left, right = high[node].copy(), low[node].copy()
            left[figure] = right[figure] = cut
            low[2 * node], high[2 * node], low[2 * node + 1], high[2 * node + 1] = low[node], left, right, high[node]
    return which, where


READS = np.array([0, word("read")], np.uint64)
WHICH, WHERE = _grown()
AGENT = np.dtype(
    [
        *tally_record(COUNTED).descr,
        ("hours", np.uint8, (24,)),
        ("hour", np.int32),
        ("odd", np.float32),
        ("at", np.uint32),
    ]
)
PEERS = crowd_record(COUNTED)
ALL = np.dtype(
    [("day", np.int32), ("days", np.int32), ("points", np.float32, (2, 1)), ("leaves", np.float32, (2, TREES, LEAVES))]
)
"""State of the server: the learned points and the points per leaf, first of all days before `day`, then of `day`.
`days` is the number of days with learned points.
"""
THRESHOLD = 1.0
CERTAIN = False


def notice(batch: Batch, kept: Kept) -> list[Anomaly]:
    """Report each agent whose recent calls are together unusual: the sum of their surprise reaches the threshold."""
    is_own = batch.is_call & ~batch.is_denied & (batch.agent != NOBODY)
    counts = np.column_stack(
        (is_own, batch.bytes * (batch.is_used & (batch.agent != NOBODY)), is_own & ~np.isin(batch.effect, READS))
    )
    counted = tally(batch, counts.astype(np.float64), LIMITS, kept.agents, kept.peers)
    rarity = _rarity(batch, kept.agents)
    calls = counted.sums[:, 0].astype(np.int64)
    looked = is_own & (calls >= FIRST_LOOK) & (calls & (calls - 1) == 0) & (counted.windows >= KNOWN)
    looked &= ~np.isnan(rarity)
    rows = batch.order[looked[batch.order]]
    if len(rows) == 0:
        return []
    leaves = _leaves(_figures(counted, rarity, rows))
    bits = _surprise(kept.all, leaves, calls[rows] == FIRST_LOOK, batch.now)
    findings = []
    for row, over in zip(rows[bits > SLACK].tolist(), (bits[bits > SLACK] - SLACK).tolist(), strict=True):
        state, at = kept.agents[batch.agent[row]], int(batch.at[row]) // SECOND
        state["odd"] = state["odd"] * 0.5 ** (max(0, at - int(state["at"])) / SPAN) + over
        state["at"] = at
        if state["odd"] >= BAR:
            findings.append(Anomaly(row, float(state["odd"]) / BAR, 30, _says(counted, row, float(rarity[row]))))
    return findings


def _rarity(batch: Batch, agents: Records) -> Floats:
    """Return, for each event, how rarely its agent works at the present hour of the day: 0 for always, 1 for never, NaN
    if the agent is not known long enough. Also count the present hour for each agent.
    """
    hour = int(batch.now // HOUR)
    agent, of = np.unique(batch.agent, return_inverse=True)
    hours, is_counted = agents["hours"][agent], agents["hour"][agent] == hour
    days, most = hours[:, hour % 24] - is_counted.astype(np.int64), hours.max(axis=1)
    rare = np.where(most >= DAYS_LEAST, 1 - days / np.maximum(most, 1), np.nan)
    fresh = agent[~is_counted & (agent != NOBODY)]
    agents["hours"][fresh] >>= (agents["hours"][fresh].max(axis=1, initial=0) >= DAYS)[:, None].astype(np.uint8)
    agents["hours"][fresh, hour % 24] += 1
    agents["hour"][fresh] = hour
    rarity: Floats = rare[of]
    return rarity


def _figures(counted: Tally, rarity: Floats, rows: Ints) -> Floats:
    """Return, for each of `rows`, its five figures scaled to the range 0 to 1."""
    sums, usual = counted.sums[rows], counted.usual[rows]
    often, much, changes = (np.log2(1 + sums[:, at]) - usual[:, at] for at in range(3))
    columns = (rarity[rows], 0.5 + often / 8, 0.5 + much / 16, 0.5 + (much - often) / 16, 0.5 + changes / 8)
    return np.clip(np.column_stack(columns), 0, 1)


def _leaves(points: Floats) -> Ints:
    """Return the index of the leaf in which each point lies, for each tree."""
    node = np.ones((len(points), TREES), np.int64)
    trees = np.arange(TREES)
    for _ in range(DEPTH):
        figure = points[np.arange(len(points))[:, None], WHICH[trees, node]]
        node = 2 * node + (figure >= WHERE[trees, node])
    return node - LEAVES


def _surprise(forest: Records, leaves: Ints, learned: Flags, now: int) -> Floats:
    """Return the surprise of each point in bits, the mean over the trees; 0 until enough points are learned. Add the
    points in `learned` to the model; they have an effect from the next day on.
    """
    if forest["day"][0] != now // DAY:
        forest["days"] += forest["points"][:, 1, 0] > 0
    new_day(forest, np.zeros(1, np.int64), now, ("points", "leaves"))
    trees, points = np.arange(TREES), float(forest["points"][0, 0, 0])
    bits: Floats = -np.log2((forest["leaves"][0, 0][trees, leaves] + 0.5) / (points + 0.5)).mean(axis=1)
    forest["points"][0, 1] += np.count_nonzero(learned)
    np.add.at(forest["leaves"][0, 1], (trees, leaves[learned]), 1)
    return bits if points >= ENOUGH and forest["days"][0] >= DAYS_LEARNED else np.zeros(len(leaves))


def _says(counted: Tally, row: int, rarity: float) -> str:
    calls, size = (2.0 ** float(np.log2(1 + counted.sums[row, at]) - counted.usual[row, at]) for at in (0, 1))
    when = f"at an hour at which the agent works on {100 - 100 * rarity:.0f} % of its days, "
    return f"unusual combination: {when}{calls:.1f} times its usual calls, {size:.1f} times its usual bytes"
