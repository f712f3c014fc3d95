"""The machine: cores, the CPU time of a process, and what its disk and its cryptography can do at most."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ostiary.core import jose

_TICK = os.sysconf("SC_CLK_TCK")
_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = _CORES[0], _CORES[-1]


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


def fsync_rate(folder: Path, *, count: int = 200) -> float:
    """Appends of 4 KiB, each synced, per second: what one commit after another could do at most."""
    with (folder / "probe").open("wb", buffering=0) as file:
        started = time.perf_counter()
        for _ in range(count):
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
        return count / (time.perf_counter() - started)


def signature_rates(alg: str = "ES256") -> tuple[float, float]:
    """Signatures made and verified per second of one core."""
    key = jose.generate(alg)
    text = b"x" * 500
    signature = key.sign(text)
    return _rate(lambda: key.sign(text)), _rate(lambda: key.public.verify(signature, text))


def _rate(work: Callable[[], object], *, seconds: float = 0.3) -> float:
    count, started = 0, time.process_time()
    while (spent := time.process_time() - started) < seconds:
        for _ in range(50):
            work()
        count += 50
    return count / spent
