"""The count of broken promises, and the long form of the experiments that count them."""

from __future__ import annotations

from collections.abc import Callable

Tally = Callable[..., None]
LONG_FORM = "OSTIARY_FAULT_ROUNDS"
"""Environment variable that `make faults` sets: rounds of each experiment."""
