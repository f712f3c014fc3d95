"""The cost of 24 hostile anonymous connections for others: `python -m benchmarks.strangers [SECONDS]`.

One real server, one guard that decides without pause, and one process of 24 connections that send forged credentials,
bodies that are large, deep or wide, trailers and slow heads. Prints, without them and beside them: the age of the feed
at the guard, the time of an administrator's request, and the bytes of the ledger that a day of it would cause.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.load.machine import cpu_seconds, print_ceilings
from harness import hostile
from harness.live_server import ServerFixture, authenticate
from harness.server import running
from ostiary.guard import Guard
from ostiaryd.ledger.model.sampling import MAX_ENTRIES_A_DAY

CONNECTIONS, SECONDS = 24, 20.0
TARGET_AGE_S = 2.0
DAY_S = 86_400
URI = "https://files.example.org/mcp"


class Seen(NamedTuple):
    ages: list[float]
    """of the feed at the guard, in seconds"""
    requests: list[float]
    """times of an administrator's requests, in seconds"""


def observe(live_server: ServerFixture, guard: Guard, who: Any, name: str, seconds: float) -> Seen:
    """Decide, and ask the server, for that long."""
    seen, until = Seen([], []), time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(20):
            guard.decide(who, "read_file", {"path": "/a"})
            seen.ages.append(guard.feed.age / 1e6)
            time.sleep(0.005)
        started = time.perf_counter()
        live_server.api("GET", f"/agents/{name}")
        seen.requests.append(time.perf_counter() - started)
    return seen


def show(name: str, seen: Seen) -> None:
    ages, requests = sorted(seen.ages), sorted(seen.requests)
    print(
        f"  {name:<22} feed age p50 {statistics.median(ages):6.3f} s, worst {ages[-1]:6.3f} s;  a request p50"
        f" {statistics.median(requests) * 1000:7.1f} ms, worst {requests[-1] * 1000:7.1f} ms"
    )


def refused_bytes(live_server: ServerFixture) -> tuple[int, int]:
    """Entries of refusals that are there, and their bytes."""
    entries = live_server.api("GET", "/audit", outcome="refused", limit=1000)["entries"]
    return len(entries), sum(len(json.dumps(one)) for one in entries)


def main(seconds: float) -> int:
    with tempfile.TemporaryDirectory() as name, running(Path(name) / "server") as server:
        folder = Path(name)
        print_ceilings(folder / "probe")
        live_server = ServerFixture(server, folder)
        pid = json.loads((server.folder / "server.json").read_text())["pid"]
        resource, guard_key = live_server.resource(URI)
        agent, key = live_server.agent(f"{resource}:read")
        with Guard(guard_key, spool_dir=folder / "spool", max_age=30, max_skew=30) as guard:
            who = authenticate(guard, key, URI)
            show("alone", observe(live_server, guard, who, agent, 5))
            entries, size = refused_bytes(live_server)
            spent, started = cpu_seconds(pid), time.monotonic()
            process = hostile.start(server.url, connections=CONNECTIONS, seconds=seconds)
            beside = observe(live_server, guard, who, agent, seconds)
            out, _ = process.communicate(timeout=120)
            took, spent = time.monotonic() - started, cpu_seconds(pid) - spent
            show(f"beside {CONNECTIONS} strangers", beside)
            told = json.loads(out)
            made = sum(told["made"].values())
            new, grown = (
                after - before for after, before in zip(refused_bytes(live_server), (entries, size), strict=True)
            )
        each = grown / max(new, 1)
        rate, cost = made / took, spent / max(made, 1) * 1000
        print(f"  they made {made:,} requests ({rate:,.0f} /s, {cost:.2f} ms of CPU each); answers: {told['statuses']}")
        print(
            f"  they left {new} entries of {each:,.0f} bytes; at most {MAX_ENTRIES_A_DAY:,} a day,"
            f" so {MAX_ENTRIES_A_DAY * each / 1e6:,.0f} MB a day whatever they send"
        )
        worst = max(beside.ages)
        verdict = "met" if worst <= TARGET_AGE_S else "NOT met"
        print(f"  target: feed age at most {TARGET_AGE_S} s: {verdict} ({worst:.2f} s)")
        return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
