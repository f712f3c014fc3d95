"""The statistics of a group of peers: mean and spread of several figures over all earlier days.

Figures that are learned on one day have an effect from the next day on, so findings do not depend on the order of
agents within a day. The weight of earlier days decays daily.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ostiaryd.watch.model.batch import Ints
from ostiaryd.watch.model.detector import Record, Records
from ostiaryd.watch.model.runs import Floats

DAY = 86_400_000_000
KEEP = 0.9
"""Factor by which the weight of all earlier days is reduced each day."""
SUMS = ("n", "sum", "squares")


def crowd_record(count: int) -> Record:
    """Return the record type for the statistics of `count` figures of a group of peers. The number of values, their sum
    and the sum of their squares are each stored twice: for all days before `day`, and for `day` itself.
    """
    some = (np.float32, (2, count))
    return np.dtype([("day", np.int32), ("n", np.float32, (2, 1)), ("sum", *some), ("squares", *some)])


class Crowd(NamedTuple):
    """Statistics of several groups of peers, one row per group: the number of learned values, and the mean and the
    standard deviation (`spread`), with one column per figure.
    """

    n: Floats
    mean: Floats
    spread: Floats


def new_day(crowds: Records, groups: Ints, now: int, names: tuple[str, ...] = SUMS) -> None:
    """Begin a new day for each group whose stored day is not that of `now` (microseconds): add the figures of the
    stored day to those of the earlier days, and start the new day at zero.

    In each field of `names`, the earlier days come first, and the present day second.
    """
    groups_of_new_day = np.unique(groups)
    groups_of_new_day = groups_of_new_day[crowds["day"][groups_of_new_day] != now // DAY]
    state = crowds[groups_of_new_day]
    for name in names:
        state[name][:, 0] = KEEP * state[name][:, 0] + state[name][:, 1]
        state[name][:, 1] = 0
    state["day"] = now // DAY
    crowds[groups_of_new_day] = state


def usual(crowds: Records, groups: Ints) -> Crowd:
    """Return the statistics of these groups over the days before the present one."""
    state = crowds[groups]
    n = state["n"][:, 0].astype(np.float64)
    some = np.maximum(n, 1)
    mean = state["sum"][:, 0] / some
    return Crowd(n, mean, np.sqrt(np.maximum(state["squares"][:, 0] / some - mean**2, 0)))


def learn(crowds: Records, groups: Ints, figures: Floats) -> None:
    """Add to the present day of each group in `groups` the row of `figures` at the same index."""
    np.add.at(crowds["n"][:, 1], groups, 1)
    np.add.at(crowds["sum"][:, 1], groups, figures)
    np.add.at(crowds["squares"][:, 1], groups, figures**2)
