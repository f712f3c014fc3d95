"""From the commit of a revocation to the last call that any guard let through: `python -m benchmarks.revoke [ROUNDS]`.

One real server; 100 guards, each with a feed of its own, in ten processes that decide and record without pause, so that
every processor is busy all the time and no thread waits for work. Each round revokes another agent that has a token at
all 100 resources. Clocks: one machine, one wall clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.live_server import ServerFixture, authenticate
from harness.server import running
from ostiary import ambient
from ostiary.guard import Guard
from ostiary.guard.spool import Spool

PROCESSES, GUARDS_EACH, ROUNDS = 10, 10, 20
TARGET_MS = 50.0


def decide_until_denied(folder: Path, first: int) -> None:
    """A process: for each agent that is named on stdin, decide for it at every guard until all deny."""
    names = [f"files-{number}" for number in range(first, first + GUARDS_EACH)]
    guards = [
        Guard(folder / f"{name}.json", spool_dir=folder / f"{name}.spool", max_age=30, max_skew=30).start()
        for name in names
    ]
    for guard in guards:
        guard._link.wake_reporter = lambda: None  # type: ignore[method-assign]  # to report all of this would measure something else
    print("ready", flush=True)
    for line in sys.stdin:
        agent = Path(line.strip())
        who = [authenticate(guard, agent, guard.resource.uri) for guard in guards]
        print("deciding", flush=True)
        last, open_ = [0] * len(guards), set(range(len(guards)))
        while open_:
            for number in tuple(open_):
                started = ambient.now()
                if guards[number].decide(who[number], "read_file", {"path": "/a"}).decision.allowed:
                    last[number] = started
                else:
                    open_.discard(number)
        print(json.dumps(last), flush=True)
        for guard in guards:
            forget(guard._spool)


def forget(spool: Spool) -> None:
    """As if it had been reported."""
    newest = next(reversed(spool._sizes))
    spool.confirm((newest, spool._sizes[newest]))


def main(rounds: int) -> int:
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "server") as server:
        folder = Path(name)
        live_server = ServerFixture(server, folder)
        count = PROCESSES * GUARDS_EACH
        resources = [
            live_server.resource(f"https://files-{number}.example.org/mcp")[0] for number in range(1, count + 1)
        ]
        agents = [live_server.agent(*(f"{resource}:read" for resource in resources)) for _ in range(rounds)]
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
            return report([one_round(live_server, processes, *agent) for agent in agents])
        finally:
            for process in processes:
                process.kill()
                process.wait()


def hear_all(processes: list[subprocess.Popen[str]]) -> list[str]:
    return [process.stdout.readline() for process in processes if process.stdout is not None]


def one_round(live_server: ServerFixture, processes: list[subprocess.Popen[str]], agent: str, key: Path) -> list[float]:
    """Milliseconds at each guard."""
    for process in processes:
        assert process.stdin is not None
        print(key, file=process.stdin, flush=True)
    hear_all(processes)
    revoked = live_server.api("POST", "/revoke", {"kind": "agent", "id": agent})
    last = [at for line in hear_all(processes) for at in json.loads(line)]
    return [max(0.0, (at - revoked["committed_at"]) / 1000) for at in last]


def report(rounds: list[list[float]], target_ms: float = TARGET_MS) -> int:
    every = sorted(ms for one in rounds for ms in one)
    slowest = sorted(max(one) for one in rounds)
    print(f"  guards {len(rounds[0])}, processes {PROCESSES}, rounds {len(rounds)}")
    for name, values in (("a guard", every), ("the last of them", slowest)):
        p50, p99 = values[len(values) // 2], values[min(len(values) - 1, len(values) * 99 // 100)]
        print(f"  until {name:<17} denies: p50 {p50:7.2f} ms, p99 {p99:7.2f} ms, worst {values[-1]:7.2f} ms")
    p99 = every[len(every) * 99 // 100]
    print(f"  target: p99 of all guards at most {target_ms} ms: {'met' if p99 <= target_ms else 'NOT met'}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["process"]:
        decide_until_denied(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
