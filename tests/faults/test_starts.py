"""Starts of a server that are killed at any of their steps: the next start works by itself."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import pytest

from harness.server import running
from tests.faults.killed_steps import count_steps, start_until
from tests.faults.tally import Tally

LISTEN = ("--listen", "127.0.0.1:0")


@pytest.mark.slow
def test_the_start_after_a_killed_first_start_shows_a_setup_link(tmp_path: Path, rounds: int, tally: Tally) -> None:
    steps = count_steps(tmp_path / "whole", *LISTEN)
    points = [*random.Random(rounds).sample(range(1, steps), 2 * rounds), steps - 1]
    broken = list[str]()
    for step in points:
        folder = tmp_path / str(step)
        assert start_until(folder, step, *LISTEN) == -9
        said = folder.with_suffix(".out").read_text()  # a start that is killed after its last step has shown a link
        assert start_until(folder, sys.maxsize, *LISTEN) == 0
        said += folder.with_suffix(".out").read_text()
        link = re.search(r"sign in +http://localhost:([0-9]+)/setup", said)
        with running(folder) as server:
            is_usable = [agent["name"] for agent in server.ostiary("agent", "list")] == ["admin"]
            if link is None or not server.url.endswith(f":{link[1]}") or not is_usable:
                broken.append(f"step {step} of {steps}: {said}")
    assert not broken, broken
    tally("the start after a killed first start shows a setup link", broken=len(broken), of=len(points))
