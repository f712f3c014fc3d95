"""Eight processes, sixteen in the long form, spend a thousand times each from one budget, and guards are killed in
between: never one too many, and in the end nothing is missing either.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.live_server import ServerFixture
from harness.patience import PATIENCE_S, eventually
from harness.prepared import PreparedServer
from tests.support.world import Kind

SIZE = 2 if "OSTIARY_FAULT_ROUNDS" in os.environ else 1
"""2 in the long form, which docs/how-to/budgets.md measures."""
PROCESSES, TIMES, KILLS, LIMIT = 8 * SIZE, 1000, 12 * SIZE, 6000 * SIZE
URI = "https://bank.example/mcp"
TOOLS: list[dict[str, Any]] = [{"name": "pay", "effect": "pay"}]


@contextmanager
def bank(folder: Path, *options: str) -> Iterator[tuple[ServerFixture, Callable[..., subprocess.Popen[str]], str]]:
    """A server, what starts a spender, and the task that all spend under."""
    with PreparedServer(folder / "server", *options) as server, ServerFixture(server, folder) as live_server:
        resource, guard_key = live_server.resource(URI, TOOLS)
        agent, agent_key = live_server.agent(f"{resource}:write")
        budget = [
            {"kind": "calls", "limit": LIMIT},
            {"kind": "amount", "limit": f"{LIMIT}.00", "tools": [f"{resource}/pay"], "argument": "amount"},
        ]
        task = live_server.api("POST", "/tasks", {"agent": agent, "purpose": "to pay", "budget": budget})["task_id"]

        def start(count: int = TIMES) -> subprocess.Popen[str]:
            words = [guard_key, agent_key, folder / "spool", URI, task, folder / "effects", count]
            command = [sys.executable, "-m", "tests.e2e.spender", *map(str, words)]
            return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # why it fails is shown with the test

        yield live_server, start, task


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process as `kill -9` does, unless it has ended."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def balances(live_server: ServerFixture, task: str) -> dict[str, tuple[str, str]]:
    """Return the remaining and the spent units of each budget, by kind."""
    budgets = live_server.api("GET", f"/tasks/{task}")["budgets"]
    return {one["limit"]["kind"]: (one["left"], one["spent"]) for one in budgets}


@pytest.mark.slow
def test_a_budget_is_never_exceeded_while_guards_are_killed(
    database: Kind, database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, effects, config = random.Random(7), tmp_path / "effects", tmp_path / "config.toml"
    config.write_text("respond_percent = 0")  # an agent that pays so often is odd, and would be held to reading
    with bank(tmp_path, "--database", database_url, "--config", str(config)) as (live_server, start, task):
        alive = [start() for _ in range(PROCESSES)]
        try:
            for process in alive:
                assert process.stdout is not None
                assert process.stdout.readline() == "spending\n"
            for _ in range(KILLS):
                time.sleep(rng.uniform(0.05, 0.4))
                number = rng.randrange(PROCESSES)
                kill(alive[number])
                alive[number] = start()
                assert effects.stat().st_size <= LIMIT
            for process in alive:
                assert process.wait(PATIENCE_S) == 0
        finally:
            for process in alive:
                kill(process)
        size = effects.stat().st_size
        assert size <= LIMIT

        def is_spent_to_the_end() -> bool:
            """Run one more spender, whose guard reports what dead guards have left behind; return whether all is spent.

            Units of dead guards may still come back after the spender was told that the budget is exhausted.
            """
            last = start(LIMIT)
            try:
                assert last.wait(PATIENCE_S) == 0
            finally:
                kill(last)
            return balances(live_server, task)["calls"] == ("0", str(LIMIT))

        eventually(is_spent_to_the_end)
        found = balances(live_server, task)
        size = effects.stat().st_size
    with capsys.disabled():
        print(f"\n{database}: limit {LIMIT}, kills {KILLS}: let through {size}, of record {found['calls'][1]}")
    assert LIMIT - KILLS <= size <= LIMIT, "a call that was killed between its record and its effect was paid for"
    assert found["amount"][1] == f"{LIMIT // 100}.00"
