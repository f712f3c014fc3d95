"""From a harmful entry to the last call that any guard let through: `python -m benchmarks.isolate [ROUNDS]`.

As `benchmarks.revoke`: one real server, 100 guards in ten processes that decide and record without pause. Each round
another agent calls a decoy at a guard that reports it. The detectors notice it, the starter set's playbook isolates the
agent, and the guards hear of that. Measured from the instant of the entry of the call.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.revoke import GUARDS_EACH, PROCESSES, hear_all, report
from harness.live_server import TOOLS, ServerFixture, authenticate
from harness.patience import eventually
from harness.server import running
from ostiary.guard import Guard

ROUNDS = 20
TARGET_MS = 250.0
ALL: list[dict[str, Any]] = [*TOOLS, {"name": "read_vault", "effect": "read", "canary": True}]


def main(rounds: int) -> int:
    for limit in ("RESPOND", "HALT"):  # one after the other, all of them are stopped
        os.environ[f"OSTIARY_{limit}_PERCENT"] = "100"
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "server") as server:
        folder = Path(name)
        live_server = ServerFixture(server, folder)
        count = PROCESSES * GUARDS_EACH
        made = [live_server.resource(f"https://files-{number}.example.org/mcp", ALL) for number in range(1, count + 1)]
        agents = [live_server.agent(*(f"{resource}:read" for resource, _ in made)) for _ in range(rounds)]
        eventually(lambda: live_server.api("GET", "/watch")["phase"] == "working")
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.revoke", "process", folder, str(1 + number * GUARDS_EACH)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(PROCESSES)
        ]
        try:
            hear_all(processes)
            with Guard(made[0][1], spool_dir=folder / "decoy.spool", max_age=30, max_skew=30) as guard:
                return report([one_round(live_server, guard, processes, *agent) for agent in agents], TARGET_MS)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def one_round(
    live_server: ServerFixture, guard: Guard, processes: list[subprocess.Popen[str]], agent: str, key: Path
) -> list[float]:
    """Milliseconds at each guard."""
    who = authenticate(guard, key, guard.resource.uri)
    for process in processes:
        assert process.stdin is not None
        print(key, file=process.stdin, flush=True)
    hear_all(processes)
    guard.decide(who, "read_vault", {})
    last = [at for line in hear_all(processes) for at in json.loads(line)]
    id = live_server.api("GET", f"/agents/{agent}")["agent_id"]
    entries = live_server.entries(agent=id, action="tool.call", limit=1000)
    [harmful] = [one["at"] for one in entries if one["tool"].endswith("/read_vault")]
    return [max(0.0, (at - harmful) / 1000) for at in last]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
