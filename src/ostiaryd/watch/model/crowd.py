"""What a group of peers does: mean and spread of some figures, of all days until yesterday.

What is learned today counts from tomorrow on, so what is found does not depend on who of them is looked at first. What
was learned before is worth less with each day.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ostiaryd.watch.model.batch import Ints
from ostiaryd.watch.model.detector import Record, Records
from ostiaryd.watch.model.runs import Floats

DAY = 86_400_000_000
KEEP = 0.9
"""what is left of what was learned, after a day"""
SUMS = ("n", "sum", "squares")


def crowd_record(count: int) -> Record:
    """Of so many figures: in all days before `day`, and in that day."""
    some = (np.float32, (2, count))
    return np.dtype([("day", np.int32), ("n", np.float32, (2, 1)), ("sum", *some), ("squares", *some)])


class Crowd(NamedTuple):
    """A row for each group: how often something was learned, and a column for each figure."""

    n: Floats
    mean: Floats
    spread: Floats


def new_day(crowds: Records, groups: Ints, now: int, names: tuple[str, ...] = SUMS) -> None:
    """From the first of a day on, what these groups did before counts. `now` in microseconds; fields with these names
    have what was before today first, and what is of today second.
    """
    who = np.unique(groups)
    who = who[crowds["day"][who] != now // DAY]
    state = crowds[who]
    for name in names:
        state[name][:, 0] = KEEP * state[name][:, 0] + state[name][:, 1]
        state[name][:, 1] = 0
    state["day"] = now // DAY
    crowds[who] = state


def usual(crowds: Records, groups: Ints) -> Crowd:
    state = crowds[groups]
    n = state["n"][:, 0].astype(np.float64)
    some = np.maximum(n, 1)
    mean = state["sum"][:, 0] / some
    return Crowd(n, mean, np.sqrt(np.maximum(state["squares"][:, 0] / some - mean**2, 0)))


def learn(crowds: Records, groups: Ints, figures: Floats) -> None:
    np.add.at(crowds["n"][:, 1], groups, 1)
    np.add.at(crowds["sum"][:, 1], groups, figures)
    np.add.at(crowds["squares"][:, 1], groups, figures**2)
