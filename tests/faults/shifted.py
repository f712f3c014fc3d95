"""A program of this project under a wall clock that is wrong: `python -m tests.faults.shifted FILE serve ...`.

FILE holds the seconds by which the wall clock is ahead; it is read at each look at the clock. CLOCK_BOOTTIME and
CLOCK_MONOTONIC are as they are, as after `settimeofday`.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import pairwise
from pathlib import Path


def shift(file: Path) -> None:
    """Let the wall clock of this process be off by what `file` says."""
    wall_ns = time.time_ns
    time.time_ns = lambda: wall_ns() + round(float(file.read_text()) * 1e9)
    time.time = lambda: time.time_ns() / 1e9


def set_clock(file: Path, seconds: float) -> None:
    """Set the wall clock of the processes that look at `file`."""
    partial = file.with_suffix(".partial")
    partial.write_text(str(seconds))
    os.replace(partial, file)


def steps_back(times: list[int]) -> int:
    """Return the number of times that are less than the time before."""
    return sum(later < earlier for earlier, later in pairwise(times))


if __name__ == "__main__":
    shift(Path(sys.argv.pop(1)))
    from ostiary.cli import main

    main()
