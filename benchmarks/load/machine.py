"""The machine: its cores, the CPU time of a process, and what disk, signatures and HTTP alone could do at most."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load.client import drive, render
from harness.live_server import free_port
from ostiary.protocol import jose

_TICK = os.sysconf("SC_CLK_TCK")
_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = _CORES[0], _CORES[-1]
BARE_REQUESTS, BARE_RUNS = 10_000, 3
SETTLE_S, SETTLE_ROUNDS = 0.4, 25


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """This process, and what it starts meanwhile, on that core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """CPU time that all threads of a process have used, in user and in system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def children_cpu_seconds(pid: int) -> float:
    """CPU time of the processes that a process has started: of a server, of its detectors above all."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    return sum(cpu_seconds(int(child)) for threads in children for child in threads.read_text("ascii").split())


def settled_cpu_seconds(pid: int) -> float:
    """CPU time of the started processes (`children_cpu_seconds`) once they are idle, or after some seconds."""
    spent = children_cpu_seconds(pid)
    for _ in range(SETTLE_ROUNDS):
        time.sleep(SETTLE_S)
        before, spent = spent, children_cpu_seconds(pid)
        if spent - before <= SETTLE_S / 20:  # they look for work now and then
            break
    return spent


def print_ceilings(folder: Path) -> None:
    """Print the ceilings of this machine at this time."""
    load = " ".join(f"{part:.1f}" for part in os.getloadavg())
    print(f"{len(_CORES)} cores; server on core {SERVER_CORE}, client on core {CLIENT_CORE}; load average {load}")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"fsync after appending 4 KiB           {_fsync_rate(folder):9,.0f} /s")
    key, text = jose.generate("ES256"), b"x" * 500
    signature = key.sign(text)
    print(f"ES256 signatures                      {_rate(lambda: key.sign(text)):9,.0f} /cpu-s")
    print(f"ES256 verifications                   {_rate(lambda: key.public.verify(signature, text)):9,.0f} /cpu-s")
    for kind, name in (("raw", "bare ASGI"), ("starlette", "bare Starlette"), ("straight", "bare straight way")):
        wall, cpu = _bare(kind)
        print(f"{name:38}{wall:9,.0f} /s wall{cpu:10,.0f} /cpu-s", flush=True)


def _fsync_rate(folder: Path, *, count: int = 200) -> float:
    """Measure the rate of fsyncs: commits one after another are no faster."""
    with (folder / "probe").open("wb", buffering=0) as file:
        started = time.perf_counter()
        for _ in range(count):
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
        return count / (time.perf_counter() - started)


def _rate(work: Callable[[], object], *, seconds: float = 0.3) -> float:
    count, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        for _ in range(50):
            work()
        count += 50
    return count / spent


BARE_REQUEST = render(
    "POST",
    "/token",
    headers={"dpop": "x" * 500},
    body=b"a=" + b"x" * 700,
    media_type="application/x-www-form-urlencoded",
)
"""A request like those for tokens."""


@contextmanager
def bare_server(kind: str) -> Iterator[tuple[int, int]]:
    """Run the same HTTP stack with nothing behind it, on the server's core; its port and its process."""
    port = free_port()
    with on_core(SERVER_CORE):
        server = subprocess.Popen([sys.executable, "-m", "benchmarks.load.bare", kind, str(port)])
    try:
        _wait_for(port)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait()


def _bare(kind: str) -> tuple[float, float]:
    """Answers of a bare server per second, and per CPU second."""
    with bare_server(kind) as (port, pid), on_core(CLIENT_CORE):
        wall, cpu = [], []
        for _ in range(BARE_RUNS):
            began = cpu_seconds(pid)
            ran = drive(port, [BARE_REQUEST] * BARE_REQUESTS, connections=64)
            cpu.append(BARE_REQUESTS / (cpu_seconds(pid) - began))
            wall.append(BARE_REQUESTS / ran.seconds)
        return statistics.median(wall), statistics.median(cpu)


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the server does not listen")
