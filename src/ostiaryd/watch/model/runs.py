"""Runs of rows: a run is a sequence of adjacent rows with equal keys. Detectors compute sums and ranks within each run,
so that the division of events into batches has no effect.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ostiaryd.watch.model.batch import Flags, Ints

Floats = NDArray[np.float64]


class Runs:
    """The runs of an array: maximal sequences of adjacent rows with equal keys."""

    def __init__(self, *keys: NDArray[Any]) -> None:
        self.rows = len(keys[0])
        is_first = np.ones(self.rows, np.bool_)
        if self.rows > 1:
            is_first[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
        self.is_first: Flags = is_first
        self.first: Ints = np.flatnonzero(is_first)
        self.of: Ints = np.cumsum(is_first) - 1
        """Index of the run of each row."""

    def __len__(self) -> int:
        return len(self.first)

    @property
    def last(self) -> Ints:
        """Return the index of the last row of each run."""
        return np.append(self.first[1:], self.rows)[: len(self)] - 1

    @property
    def rank(self) -> Ints:
        """Return, for each row, its position in its run, from 0."""
        return np.arange(self.rows) - self.first[self.of]

    def running_sums(self, values: Floats) -> Floats:
        """Return, for each row, the sum of the values in its run up to and including the row. `values` may have several
        columns.
        """
        total: Floats = np.cumsum(values, axis=0)
        inside: Floats = total - (total - values)[self.first][self.of]
        return inside

    def running_minima(self, values: Floats) -> Floats:
        """Return, for each row, the smallest of the values in its run up to and including the row."""
        step = 2 * float(np.abs(values).max(initial=0)) + 1
        least: Floats = np.minimum.accumulate(values - self.of * step) + self.of * step
        return least


def rounds(keys: Ints) -> list[Ints]:
    """Return lists of row indices, in which no list contains a key twice: the first row of each key, then the second
    row of each key, and so on. Rows with equal keys must be adjacent.
    """
    rank = Runs(keys).rank
    return [np.flatnonzero(rank == turn) for turn in range(int(rank.max()) + 1)] if len(keys) else []
