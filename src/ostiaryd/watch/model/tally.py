"""Tallies: the amount of an agent's work within ten minutes, in relation to its usual level and that of its peers.

The usual level is learned from the windows with any activity, as the mean and the spread of the logarithm; the bar is
some spreads above. A new agent has the bar of its peers. An agent cannot move its own bar far: an amount above the bar
counts as the bar, and after `SETTLED` windows the bar never exceeds twice its value at that time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ostiaryd.watch.model.batch import NOBODY, Batch, Ints
from ostiaryd.watch.model.crowd import Crowd, learn, new_day, usual
from ostiaryd.watch.model.detector import Record, Records
from ostiaryd.watch.model.runs import Floats, Runs, rounds

WINDOW = 600_000_000
"""length of a window, in microseconds"""
YOUNG, SETTLED = 20.0, 100.0
"""windows after which an agent's own level counts, and after which the level is settled"""
SLOWEST = 1 / 300
"""minimum weight of a new window in the mean"""
ENOUGH = 60.0
"""minimum number of windows of peers before their level counts"""
SPREADS = 4.0


class Limits(NamedTuple):
    """The limits of a bar for each counted value: its least value, its value while neither the agent nor its peers are
    known, and its greatest value.
    """

    least: Sequence[float]
    unknown: Sequence[float]
    most: Sequence[float]


class Tally(NamedTuple):
    """The tallies of each row: the sums of its window up to the row, the bar of each sum, and the first entry
    of the window.
    """

    sums: Floats
    bars: Floats
    usual: Floats
    """the mean logarithm of (1 + sum) in earlier windows"""
    windows: Floats
    """the number of earlier windows"""
    since: Ints
    over: list[tuple[int, int, float]]
    """rows that raised a sum to its bar or above: (row, column, ratio to the bar)"""


def tally_record(count: int) -> Record:
    """Return the record type of an agent with `count` counted values; the record of its peers is a `crowd_record`."""
    some = (np.float32, (count,))
    return np.dtype(
        [
            ("window", np.int32),
            ("windows", np.float32),
            ("since", np.int64),
            ("sum", *some),
            ("mean", *some),
            ("spread", *some),
            ("settled", *some),
        ]
    )  # `window` plus one; `spread` squared; `settled`: the bar when the agent became known


def tally(batch: Batch, values: Floats, limits: Limits, agents: Records, peers: Records) -> Tally:
    """Count the values of these rows (one column per counted value), and learn from completed windows.

    A late report belongs to another window, and is not counted in this one.
    """
    values = values * ~batch.is_late[:, None]
    window = batch.at // WINDOW + 1
    runs = Runs(batch.agent, window)
    agent, group, number = batch.agent[runs.first], batch.peers[runs.first], window[runs.first]
    inside, ends = runs.sums(values), np.log2(1 + np.array(limits))
    base, bars = np.zeros((len(runs), values.shape[1])), np.full((len(runs), values.shape[1]), np.inf)
    means, windows, since = np.zeros_like(base), np.zeros(len(runs)), np.zeros(len(runs), np.int64)
    new_day(peers, group, batch.now)
    for turn in rounds(agent):
        turn = turn[agent[turn] != NOBODY]
        state, others = agents[agent[turn]], usual(peers, group[turn])
        is_over = (state["window"] != 0) & (state["window"] != number[turn])
        state[is_over] = _after_window(state[is_over], _bar(state, others, ends)[is_over], peers, group[turn][is_over])
        fresh = is_over | (state["window"] == 0)
        state["since"][fresh] = batch.number[runs.first[turn]][fresh]
        state["window"] = number[turn]
        base[turn], means[turn] = state["sum"], state["mean"]
        windows[turn], since[turn] = state["windows"], state["since"]
        bars[turn] = np.round(np.exp2(_bar(state, others, ends)) - 1, 3)
        state["sum"] += inside[runs.last[turn]]
        agents[agent[turn]] = state
    sums, bars = base[runs.of] + inside, bars[runs.of]
    times = sums / bars
    rows, which = np.nonzero((times >= 1) & (values > 0))
    over = zip(rows.tolist(), which.tolist(), times[rows, which].tolist(), strict=True)
    return Tally(sums, bars, means[runs.of], windows[runs.of], since[runs.of], list(over))


def _bar(state: Records, others: Crowd, ends: Floats) -> Floats:
    """Return the logarithms of the bars."""
    windows = state["windows"][:, None]
    own, theirs = _above(state["mean"], np.sqrt(state["spread"])), _above(others.mean, others.spread)
    part = np.where(windows >= YOUNG, np.clip(windows / (2 * YOUNG), 0, 1), 0)
    part = np.where((others.n < ENOUGH) & (windows >= YOUNG), 1, part)
    bar = np.where((others.n < ENOUGH) & (windows < YOUNG), ends[1], part * own + (1 - part) * theirs)
    bar = np.where(state["settled"] > 0, np.minimum(bar, state["settled"] + 1), bar)
    clipped: Floats = np.clip(bar, ends[0], ends[2])
    return clipped


def _above(mean: Floats, spread: Floats) -> Floats:
    """Return the logarithm of the bar: the mean plus `SPREADS` spreads, and at least twice the mean value."""
    return mean + np.maximum(SPREADS * spread, 1)


def _after_window(state: Records, bar: Floats, peers: Records, group: Ints) -> Records:
    """Return the records of agents after the end of a window. Each sum of the window is learned, up to its bar."""
    value = np.minimum(np.log2(1 + state["sum"]), bar)
    learn(peers, group, value)
    state["sum"] = 0
    state["windows"] += 1
    share = np.maximum(1 / state["windows"], SLOWEST)[:, None]
    off = value - state["mean"]
    state["mean"] += share * off
    state["spread"] = (1 - share) * (state["spread"] + share * off**2)
    now = state["windows"] == SETTLED
    state["settled"][now] = _above(state["mean"][now], np.sqrt(state["spread"][now]))
    return state
