"""From sessions to figures: rates with 95 % intervals by bootstrap over user tasks, whose sessions go together."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.contain.columns import Row

RESAMPLES = 2_000
SEED = 20261125


@dataclass(frozen=True, slots=True)
class Figure:
    value: float
    low: float
    high: float
    sessions: int


def figure(rows: Sequence[Row], of: Callable[[Row], float]) -> Figure:
    """The mean over all sessions, and between which values it stays for other tasks like these."""
    by_task = defaultdict[tuple[str, str], list[float]](list)
    for row in rows:
        by_task[row.suite, row.task].append(of(row))
    tasks = [(sum(values), len(values)) for values in by_task.values()]
    dice = random.Random(SEED)
    means = sorted(_mean(dice.choices(tasks, k=len(tasks))) for _ in range(RESAMPLES))
    low, high = means[round(0.025 * (RESAMPLES - 1))], means[round(0.975 * (RESAMPLES - 1))]
    return Figure(_mean(tasks), low, high, len(rows))


def _mean(tasks: Sequence[tuple[float, int]]) -> float:
    return sum(total for total, _ in tasks) / sum(count for _, count in tasks)
