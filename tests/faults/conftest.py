"""Fixtures of the fault suite: rounds of an experiment, and the table of counts at the end of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.prepared import PreparedServer
from tests.faults.tally import LONG_FORM, Tally

_PROPERTY = "fault"


@pytest.fixture
def data_folder() -> None:
    """No folder in memory: faults are injected into a data folder on a disk."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PreparedServer]:
    """A server that is killed and starts again."""
    with PreparedServer(tmp_path / "server") as server:
        yield server


@pytest.fixture
def rounds() -> int:
    """Number of times to repeat an experiment with other seeds: 1 in `make test`, more in `make faults`."""
    return int(os.environ.get(LONG_FORM, "1"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with the argument `seed` once for each round, each with a world of its own."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(int(os.environ.get(LONG_FORM, "1"))))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Function that counts how often a promise was broken: `tally(promise, broken=0, of=12)`.

    Adds one row to the table at the end of the run. The test fails if the promise was broken, or never tried.
    """

    def count(promise: str, *, broken: int, of: int) -> None:
        request.node.user_properties.append((_PROPERTY, [promise, broken, of]))
        assert of > 0, f"{promise}: never tried"
        assert broken == 0, f"{promise}: broken {broken} times of {of}"

    return count


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print one row for each promise that was tried: times broken, times tried."""
    counts: dict[str, tuple[int, int]] = {}
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        if report.when != "call":
            continue
        for name, value in report.user_properties:
            if name == _PROPERTY:
                promise, broken, of = value
                before = counts.get(promise, (0, 0))
                counts[promise] = before[0] + broken, before[1] + of
    if counts:
        terminalreporter.section("promises under fault")
        terminalreporter.write_line(f"{'broken':>8} {'tried':>8}  promise")
        for promise, (broken, of) in sorted(counts.items()):
            terminalreporter.write_line(f"{broken:>8} {of:>8}  {promise}")
