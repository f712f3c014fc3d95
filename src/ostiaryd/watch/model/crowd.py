"""The statistics of a group of peers: mean and spread of some figures over all earlier days.

Values learned today count from the next day on, so findings do not depend on the order of agents within a day. The
weight of earlier days decays daily.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ostiaryd.watch.model.batch import Ints
from ostiaryd.watch.model.detector import Record, Records
from ostiaryd.watch.model.runs import Floats

DAY = 86_400_000_000
KEEP = 0.9
"""the weight of earlier days that remains after a day"""
SUMS = ("n", "sum", "squares")


def crowd_record(count: int) -> Record:
    """Return the record type of `count` figures: sums over all days before `day`, and sums of that day."""
    some = (np.float32, (2, count))
    return np.dtype([("day", np.int32), ("n", np.float32, (2, 1)), ("sum", *some), ("squares", *some)])


class Crowd(NamedTuple):
    """Statistics of groups: a row for each group with the number of learned values, and mean and spread in a
    column for each figure.
    """

    n: Floats
    mean: Floats
    spread: Floats


def new_day(crowds: Records, groups: Ints, now: int, names: tuple[str, ...] = SUMS) -> None:
    """Begin a new day for these groups: the values of earlier days count from now on.

    `now` is in microseconds. Each field in `names` has the earlier days first, and the present day second.
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
    """Return the mean and the spread of the figures of these groups on earlier days."""
    state = crowds[groups]
    n = state["n"][:, 0].astype(np.float64)
    some = np.maximum(n, 1)
    mean = state["sum"][:, 0] / some
    return Crowd(n, mean, np.sqrt(np.maximum(state["squares"][:, 0] / some - mean**2, 0)))


def learn(crowds: Records, groups: Ints, figures: Floats) -> None:
    """Add figures to the present day of these groups."""
    np.add.at(crowds["n"][:, 1], groups, 1)
    np.add.at(crowds["sum"][:, 1], groups, figures)
    np.add.at(crowds["squares"][:, 1], groups, figures**2)
