"""A server under load: on a core of its own, its CPU time measured, what it answers and records checked."""

from __future__ import annotations

import json
import re
import sqlite3
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.agents import API, Agent
from benchmarks.load.client import Ran, drive
from benchmarks.load.machine import CLIENT_CORE, SERVER_CORE, cpu_seconds, on_core, settled_cpu_seconds
from harness.server import running

_NONCE = re.compile(rb"(?i)\r\ndpop-nonce: *([^\r]+)")


class Wrong(Exception):
    """The server did not do what is measured."""


@dataclass(frozen=True, slots=True)
class ServerUnderLoad:
    folder: Path
    port: int
    pid: int

    def ask(self, request: bytes, *, status: int) -> Ran:
        """Send a request. Raises Wrong for another status."""
        ran = drive(self.port, [request], connections=1)
        if ran.statuses != [status]:
            raise Wrong(f"{ran.statuses[0]} instead of {status}: {ran.bodies[0][:500]!r}")
        return ran

    def nonce(self, request: bytes, *, status: int) -> str:
        """The DPoP nonce that the server names when it misses one."""
        found = _NONCE.search(self.ask(request, status=status).heads[0])
        assert found is not None
        return found[1].decode()

    def tokens(self, agents: list[Agent], *, scope: str, bound: bool = True) -> None:
        """Get every agent a token for the API."""
        nonce = self.nonce(agents[0].ask_token(nonce=None), status=400) if bound else None
        for agent in agents:
            answer = self.ask(agent.ask_token(nonce=nonce, bound=bound, resource=API, scope=scope), status=200)
            agent.token = json.loads(answer.bodies[0])["access_token"]

    def entries(self) -> int:
        """How many entries the ledger has of what is asked of the server."""
        with closing(sqlite3.connect(self.folder / "ostiary.db")) as database:
            (size,) = (
                database.execute(  # what detectors notice of so much work, and what is done about it, is beside it
                    "select count(*) from entry where action not glob 'watch.*' and action not glob 'incident.*'"
                ).fetchone()
            )
        return int(size)


@contextmanager
def server_under_load(folder: Path) -> Iterator[ServerUnderLoad]:
    """`ostiary serve` on that data folder."""
    server = running(folder)
    with on_core(SERVER_CORE):
        url = server.__enter__().url
    try:
        pid = int(json.loads((folder / "server.json").read_text("utf-8"))["pid"])
        yield ServerUnderLoad(folder, int(url.rpartition(":")[2]), pid)
    finally:
        server.__exit__(None, None, None)


def measure(
    name: str,
    station: ServerUnderLoad,
    make: Callable[[], list[bytes]],
    *,
    connections: int,
    target: int = 0,
    each: int = 1,
    entries: int | None = None,
    runs: int = 5,
    accept: Callable[[bytes], bool] = bool,
) -> None:
    """Print medians of runs. `each`: how many of what is counted a request is; `entries`: how many it must leave.

    The rate per CPU second is that of the server's own process, to which the target applies. Beside it: what its other
    processes (the detectors) use for each, once they have looked at everything, and the rate of all together.

    Raises Wrong when an answer is not 200 or not accepted, or when the ledger has another number of new entries.
    """
    wall, cpu, middle, late, used, beside, total = [], [], [], [], [], [], []
    for number in range(runs + 1):
        requests, before = make(), station.entries()
        with on_core(CLIENT_CORE):
            others, began = settled_cpu_seconds(station.pid), cpu_seconds(station.pid)
            ran = drive(station.port, requests, connections=connections)
            spent = cpu_seconds(station.pid) - began
            others = settled_cpu_seconds(station.pid) - others
        _check(ran, accept)
        if entries is not None and (left := station.entries() - before) != entries * len(requests):
            raise Wrong(f"{len(requests)} requests left {left} entries, not {entries} each")
        if number:  # the first one warms up
            wall.append(each * len(requests) / ran.seconds)
            cpu.append(each * len(requests) / spent)
            used.append(spent / ran.seconds)
            beside.append(others / (each * len(requests)) * 1e6)
            total.append(each * len(requests) / (spent + others))
            middle.append(ran.quantile(0.5) * 1000)
            late.append(ran.quantile(0.99) * 1000)
    m = statistics.median
    goal = f"target {target:9,}" if target else ""
    print(
        f"{name:38}{m(wall):9,.0f} /s wall{m(cpu):10,.0f} /cpu-s   best {max(wall):9,.0f}{max(cpu):10,.0f}   "
        f"core {m(used):4.0%}   p50 {m(middle):6.1f} ms   p99 {m(late):6.1f} ms   {connections:3} in flight   {goal}\n"
        f"{'  beside it, in other processes':38}{m(beside):9.1f} us each{'':2}all together{m(total):10,.0f} /cpu-s",
        flush=True,
    )


def _check(ran: Ran, accept: Callable[[bytes], bool]) -> None:
    for status, body in zip(ran.statuses, ran.bodies, strict=True):
        if status != 200 or not accept(body):
            raise Wrong(f"{status}: {body[:500]!r}")
