"""Whether the server's answers wait for its detectors: `python -m benchmarks.unmoved`.

Grants of one agent, a few at a time, in turn with the process of the detectors at work and with it stopped (SIGSTOP);
at work, it looks at every entry. Printed are medians over rounds of the 50th and 99th percentile, and their ratio.

On two cores the detectors share one with the load generator and hold up what it sends and when it looks at its clock,
which is no answer of the server that came late: so the generator goes before both, where this user may decide that.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load.agents import settle
from benchmarks.load.client import drive
from benchmarks.load.server_under_load import ServerUnderLoad, Wrong, server_under_load

ROUNDS, GRANTS, CONNECTIONS = 24, 2000, 8


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "server"
        party = settle(folder, agents=1)
        with server_under_load(folder) as station:
            nonce = station.nonce(party.turn(0).ask_token(nonce=None), status=400)
            child = _child(station)
            os.sched_setaffinity(child, range(os.cpu_count() or 1))  # the server has a core of its own here
            seen: defaultdict[bool, list[tuple[float, float]]] = defaultdict(list)
            for number in range(2 * ROUNDS + 2):
                is_stopped = bool(number % 2)
                os.kill(child, signal.SIGSTOP if is_stopped else signal.SIGCONT)
                requests = [party.turn(0).ask_token(nonce=nonce) for _ in range(GRANTS)]
                with _first() as is_first:
                    ran = drive(station.port, requests, connections=CONNECTIONS)
                if set(ran.statuses) != {200}:
                    raise Wrong(str(set(ran.statuses)))
                if number > 1:  # the first two warm up
                    seen[is_stopped].append((ran.quantile(0.5) * 1000, ran.quantile(0.99) * 1000))
            os.kill(child, signal.SIGCONT)
    p50, p99 = (
        {stopped: statistics.median(one[at] for one in rounds) for stopped, rounds in seen.items()} for at in (0, 1)
    )
    before = "goes before the server and the detectors" if is_first else "may not go first: its own delays count too"
    print(
        f"load average {os.getloadavg()[0]:.1f}; {CONNECTIONS} grants in flight, {ROUNDS} rounds of {GRANTS} each; "
        f"the load generator {before}"
    )
    for what, of in (("p50", p50), ("p99", p99)):
        print(
            f"{what}   detectors at work {of[False]:6.2f} ms   stopped {of[True]:6.2f} ms   {of[False] / of[True]:5.2f}"
        )
    return 0


@contextmanager
def _first() -> Iterator[bool]:
    """This process gets a core whenever it wants one; False where that is not for this user to say."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _child(station: ServerUnderLoad) -> int:
    """The process of the detectors: the server's only child that is at work for it."""
    children = Path(f"/proc/{station.pid}/task/{station.pid}/children").read_text().split()
    found = [int(pid) for pid in children if b"watch" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    if len(found) != 1:
        raise Wrong(f"there are {len(found)} processes of detectors")
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
