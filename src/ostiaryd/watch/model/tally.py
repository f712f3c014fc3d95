"""Tallies: how much an agent does in ten minutes, against what is usual for it and for its peers.

What is usual is learned from the ten-minute windows in which it did anything, as the mean and the spread of the
logarithm; the bar lies some spreads above. A new agent has the bar of its peers. Nobody moves his own bar far: what is
above it counts as much as the bar, and after `SETTLED` windows it never rises over twice what it was then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ostiaryd.watch.model.batch import Batch, Ints
from ostiaryd.watch.model.detector import Record, Records
from ostiaryd.watch.model.runs import Floats, Runs, crossed, rounds

WINDOW = 600_000_000
"""microseconds"""
DAY = 86_400_000_000
SETTLED = 100.0
"""windows after which an agent is known"""
YOUNG = 20.0
"""windows after which it counts for itself as much as its peers do"""
SLOWEST = 1 / 300
"""how much of a window is learned at least"""
ENOUGH = 60.0
"""windows of peers from which they say anything"""
SPREADS = 4.0
KEEP = 0.9
"""what is left of what was learned of peers, after a day"""


def agent_record(count: int) -> Record:
    """Of so many things that are counted."""
    some = (np.float32, (count,))
    return np.dtype(
        [("window", np.int32), ("windows", np.float32), ("since", np.int64), ("sum", *some), ("mean", *some),
         ("spread", *some), ("settled", *some)]
    )  # fmt: skip


def peers_record(count: int) -> Record:
    """`n`, `sum`, `squares` of all days before `day`, and of that day."""
    some = (np.float32, (2, count))
    return np.dtype([("day", np.int32), ("n", np.float32, (2,)), ("sum", *some), ("squares", *some)])


class Tally(NamedTuple):
    """For each row: the sums of its window so far, the bar that each must not pass, and the window's first entry."""

    sums: Floats
    bars: Floats
    since: Ints
    crossed: list[tuple[int, int, float]]
    """where a sum came over its bar, or over twice, four times, ... of it: (row, which, how many times the bar)"""


def tally(batch: Batch, values: Floats, floors: Sequence[float], agents: Records, peers: Records) -> Tally:
    """Count the values of these rows (a column for each thing that is counted), and learn from windows that are over.
    `floors`: what is never a bar, however little is usual.
    """
    window = batch.at // WINDOW
    runs = Runs(batch.agent, window)
    first, last = runs.first, runs.last
    who, group, number = batch.agent[first], batch.peers[first], window[first]
    inside = runs.sums(values)
    base, bars = np.zeros((len(runs), values.shape[1])), np.zeros((len(runs), values.shape[1]))
    since = np.zeros(len(runs), np.int64)
    low = np.log2(1 + np.array(floors))
    _roll(peers, np.unique(batch.peers), int(batch.now // DAY))
    for turn in rounds(who):
        mine, state = who[turn], agents[who[turn]]
        usual = _usual(peers[group[turn]])
        bar = _bar(state, usual, low)
        over = (state["window"] != 0) & (state["window"] != number[turn])
        _learn(state, over, bar, peers, group[turn])
        state["sum"][over] = 0
        fresh = over | (state["window"] == 0)
        state["since"][fresh] = batch.number[first[turn]][fresh]
        state["window"] = number[turn]
        bars[turn] = np.exp2(_bar(state, usual, low)) - 1
        base[turn], since[turn] = state["sum"], state["since"]
        state["sum"] += inside[last[turn]]
        agents[mine] = state
    sums = base[runs.of] + inside
    bars = bars[runs.of]
    return Tally(sums, bars, since[runs.of], _crossed(sums, values, bars))


def _crossed(sums: Floats, values: Floats, bars: Floats) -> list[tuple[int, int, float]]:
    ratio = sums / bars
    rows, which = np.nonzero(crossed(ratio, (sums - values) / bars))
    return list(zip(rows.tolist(), which.tolist(), ratio[rows, which].tolist(), strict=True))


def _usual(peers: Records) -> tuple[Floats, Floats, Floats]:
    """How many windows of peers there were until today, the mean of the logarithm, and its spread."""
    n = peers["n"][:, :1].astype(np.float64)
    some = np.maximum(n, 1)
    mean = peers["sum"][:, 0] / some
    return n, mean, np.sqrt(np.maximum(peers["squares"][:, 0] / some - mean**2, 0))


def _bar(state: Records, usual: tuple[Floats, Floats, Floats], low: Floats) -> Floats:
    """The logarithm of it."""
    n, mean, spread = usual
    windows = state["windows"][:, None]
    theirs = np.where(n >= ENOUGH, mean + np.maximum(SPREADS * spread, 1), np.inf)
    own = np.where(windows >= YOUNG, state["mean"] + np.maximum(SPREADS * np.sqrt(state["spread"]), 1), np.inf)
    part = np.clip(windows / (2 * YOUNG), 0, 1)
    both = np.isfinite(theirs) & np.isfinite(own)
    between = np.where(both, own, 0) * part + np.where(both, theirs, 0) * (1 - part)
    mixed = np.where(both, between, np.minimum(own, theirs))
    settled = np.where(state["settled"] > 0, state["settled"] + 1, np.inf)
    return np.maximum(low, np.minimum(mixed, settled))


def _learn(state: Records, over: np.ndarray, bar: Floats, peers: Records, group: Ints) -> None:
    """From the windows that are over; what was above the bar counts as the bar."""
    if not over.any():
        return
    some = state[over]
    value = np.minimum(np.log2(1 + some["sum"]), bar[over])
    some["windows"] += 1
    share = np.maximum(1 / some["windows"], SLOWEST)[:, None]
    off = value - some["mean"]
    some["mean"] += share * off
    some["spread"] = (1 - share) * (some["spread"] + share * off**2)
    now = (some["windows"] == SETTLED)[:, None]
    state[over] = some
    settled = state["settled"]
    reached = np.zeros_like(over)
    reached[over] = now[:, 0]
    if reached.any():
        settled[reached] = np.maximum(
            state["mean"][reached] + np.maximum(SPREADS * np.sqrt(state["spread"][reached]), 1), 1e-6
        )
    np.add.at(peers["n"][:, 1], group[over], 1)
    np.add.at(peers["sum"][:, 1], group[over], value)
    np.add.at(peers["squares"][:, 1], group[over], value**2)


def _roll(peers: Records, groups: Ints, day: int) -> None:
    """What was learned of peers until yesterday counts from today on."""
    state = peers[groups]
    stale = state["day"] != day
    for name in ("n", "sum", "squares"):
        column = state[name]
        column[stale, 0] = KEEP * column[stale, 0] + column[stale, 1]
        column[stale, 1] = 0
    state["day"] = day
    peers[groups] = state
