"""Processes whose threads start agents and guards at the same moment, many times over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.server import running
from tests.faults.tally import Tally

PROGRAM = """
import sys, threading
sys.setswitchinterval(float(sys.argv[4]))
from ostiary.agent import Agent
from ostiary.guard import Guard
AGENTS, GUARDS = 8, 2
barrier, done = threading.Barrier(AGENTS + GUARDS), []
def agent():
    barrier.wait()
    done.append(Agent.from_credential(sys.argv[1]).token(resource="https://files.example.org"))
def guard(number):
    barrier.wait()
    Guard(sys.argv[2], spool_dir=f"{sys.argv[3]}/{number}").start(wait=60).close()
    done.append(number)
threads = [threading.Thread(target=agent) for _ in range(AGENTS)]
threads += [threading.Thread(target=guard, args=(number,)) for number in range(GUARDS)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(0 if len(done) == AGENTS + GUARDS else 1)
"""
SWITCH_INTERVALS_S = (1e-6, 5e-3)
STARTS = 10
"""with each interval, in a round"""


@pytest.mark.slow
def test_agents_and_guards_can_start_in_concurrent_threads(tmp_path: Path, rounds: int, tally: Tally) -> None:
    crashed = 0
    with running(tmp_path / "server") as server:
        server.ostiary("person", "create", "ada", "--generate-key", str(tmp_path / "ada.json"))
        key, guard = tmp_path / "agent.json", tmp_path / "guard.json"
        server.ostiary(
            "resource", "create", "files", "--uri", "https://files.example.org", "--generate-key", str(guard)
        )
        server.ostiary(
            "agent",
            "create",
            "bot",
            "--owner",
            "ada",
            "--purpose",
            "tests",
            "--scope",
            "files:read",
            "--generate-key",
            str(key),
        )
        for number in range(rounds * STARTS):
            for interval in SWITCH_INTERVALS_S:
                spool = tmp_path / f"spool-{number}-{interval}"
                run = subprocess.run(
                    [sys.executable, "-c", PROGRAM, key, guard, spool, str(interval)],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if run.returncode != 0:
                    crashed += 1
                    print(run.returncode, run.stderr)
    tally(
        "A process whose threads start agents and guards at once does not crash",
        broken=crashed,
        of=rounds * STARTS * len(SWITCH_INTERVALS_S),
    )
