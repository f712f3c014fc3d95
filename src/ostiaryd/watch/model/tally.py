"""Tallies: sums of an agent's work within ten minutes, compared with a bar that follows the usual level of the agent
and its peers.

The usual level of a sum is learned from the windows with activity, as mean and spread of its logarithm. The bar is
`SPREADS` spreads above the mean. A new agent has the bar of its peers. An agent cannot raise its own bar far: a sum
above the bar is learned as if it were equal to the bar, and after `SETTLED` windows the bar stays below twice its value
at that time.
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
"""Length of a window, in microseconds."""
YOUNG, SETTLED = 20.0, 100.0
"""Number of windows after which an agent's own level is used, and after which its bar is limited to twice its present
value.
"""
SLOWEST = 1 / 300
"""Minimum weight of a new window in an agent's mean."""
ENOUGH = 60.0
"""Minimum number of learned windows of the peers before their level is used."""
SPREADS = 4.0


class Limits(NamedTuple):
    """Limits of the bar (the sum from which a window is unusual) for each counted value: the minimum, the bar while
    neither the agent nor its peers have a known level, and the maximum.
    """

    least: Sequence[float]
    unknown: Sequence[float]
    most: Sequence[float]


class Tally(NamedTuple):
    """The tallies at each event: `sums`, the sum of each counted value in the agent's window up to the event; `bars`,
    the sums from which the window is unusual; `since`, the number of the first entry of the window.
    """

    sums: Floats
    bars: Floats
    usual: Floats
    """Mean of the binary logarithm of (1 + sum) over earlier windows."""
    windows: Floats
    """Number of earlier windows with activity."""
    since: Ints
    over: list[tuple[int, int, float]]
    """Events that raised a sum to its bar or above: index of the event, column of the sum, and ratio of the sum to the
    bar.
    """


def tally_record(count: int) -> Record:
    """Return the record type of an agent's state for `count` counted values. For a group of peers the record type is a
    `crowd_record`.
    """
    # `window` is the number of the present window plus one; 0 stands for no window yet. `mean` is the mean of the
    # binary logarithm of (1 + sum), and `spread` is the square of its spread. `settled` is the binary logarithm of
    # (1 + bar) after `SETTLED` windows, and 0 before
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
    )


def tally(batch: Batch, values: Floats, limits: Limits, agents: Records, peers: Records) -> Tally:
    """Add the values of these events (one column per counted value) to the windows of their agents, and return the
    tallies at each event. Windows that have ended teach the agent's and its peers' usual level.

    Events that a guard reported late are not counted.
    """
    values = values * ~batch.is_late[:, None]
    window = batch.at // WINDOW + 1
    runs = Runs(batch.agent, window)
    agent, group, number = batch.agent[runs.first], batch.peers[runs.first], window[runs.first]
    inside, log_limits = runs.running_sums(values), np.log2(1 + np.array(limits))
    base, bars = np.zeros((len(runs), values.shape[1])), np.full((len(runs), values.shape[1]), np.inf)
    means, windows, since = np.zeros_like(base), np.zeros(len(runs)), np.zeros(len(runs), np.int64)
    new_day(peers, group, batch.now)
    for turn in rounds(agent):
        turn = turn[agent[turn] != NOBODY]
        state, others = agents[agent[turn]], usual(peers, group[turn])
        is_over = (state["window"] != 0) & (state["window"] != number[turn])
        log_bar = _log_bar(state, others, log_limits)
        state[is_over] = _after_window(state[is_over], log_bar[is_over], peers, group[turn][is_over])
        fresh = is_over | (state["window"] == 0)
        state["since"][fresh] = batch.number[runs.first[turn]][fresh]
        state["window"] = number[turn]
        base[turn], means[turn] = state["sum"], state["mean"]
        windows[turn], since[turn] = state["windows"], state["since"]
        bars[turn] = np.round(np.exp2(_log_bar(state, others, log_limits)) - 1, 3)
        state["sum"] += inside[runs.last[turn]]
        agents[agent[turn]] = state
    sums, bars = base[runs.of] + inside, bars[runs.of]
    times = sums / bars
    rows, which = np.nonzero((times >= 1) & (values > 0))
    over = zip(rows.tolist(), which.tolist(), times[rows, which].tolist(), strict=True)
    return Tally(sums, bars, means[runs.of], windows[runs.of], since[runs.of], list(over))


def _log_bar(state: Records, others: Crowd, log_limits: Floats) -> Floats:
    """Return the binary logarithm of (1 + bar) for each of these agents. `others` are the statistics of their peers;
    `log_limits` are the binary logarithms of (1 + limit), in the order of `Limits`.

    Before `YOUNG` windows, an agent has the bar of its peers. From then on its own bar counts, with a weight that grows
    from one half to one after twice as many windows. If the peers have fewer than `ENOUGH` windows, an agent has its
    own bar, and before `YOUNG` windows the limit `unknown`.
    """
    windows = state["windows"][:, None]
    own_bar, peers_bar = _log_bar_of(state["mean"], np.sqrt(state["spread"])), _log_bar_of(others.mean, others.spread)
    own_weight = np.where(windows >= YOUNG, np.clip(windows / (2 * YOUNG), 0, 1), 0)
    own_weight = np.where((others.n < ENOUGH) & (windows >= YOUNG), 1, own_weight)
    bar = own_weight * own_bar + (1 - own_weight) * peers_bar
    bar = np.where((others.n < ENOUGH) & (windows < YOUNG), log_limits[1], bar)
    bar = np.where(state["settled"] > 0, np.minimum(bar, state["settled"] + 1), bar)
    clipped: Floats = np.clip(bar, log_limits[0], log_limits[2])
    return clipped


def _log_bar_of(mean: Floats, spread: Floats) -> Floats:
    """Return the binary logarithm of (1 + bar) for a mean and a spread of the logarithm: `SPREADS` spreads above the
    mean, and at least twice the mean value.
    """
    return mean + np.maximum(SPREADS * spread, 1)


def _after_window(state: Records, log_bar: Floats, peers: Records, group: Ints) -> Records:
    """Return the states of agents after the end of their window: each sum is learned, at most up to its bar, and set to
    0. `log_bar` is the binary logarithm of (1 + bar).
    """
    value = np.minimum(np.log2(1 + state["sum"]), log_bar)
    learn(peers, group, value)
    state["sum"] = 0
    state["windows"] += 1
    share = np.maximum(1 / state["windows"], SLOWEST)[:, None]
    off = value - state["mean"]
    state["mean"] += share * off
    state["spread"] = (1 - share) * (state["spread"] + share * off**2)
    now = state["windows"] == SETTLED
    state["settled"][now] = _log_bar_of(state["mean"][now], np.sqrt(state["spread"][now]))
    return state
