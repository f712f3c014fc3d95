"""The cost of the pin in a commit: the write of a head to two slots, beside an fsync and an act on this machine.

Run: python -m benchmarks.pin
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ostiaryd.ground.config import load_config
from ostiaryd.ground.database.pin import Head, Pin
from ostiaryd.ground.world import open_world
from ostiaryd.ledger.flows import act

WRITES, SYNCS, ACTS = 20_000, 200, 300


def _median_us(run: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        started = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1000


def _sync(file: int) -> None:
    os.pwrite(file, b"x" * 256, 0)
    os.fsync(file)


async def _act_us(folder: Path) -> float:
    """The median time of an act that is alone in its batch, from request to answer."""
    async with open_world(load_config(environ={}, data_dir=str(folder))) as world:
        times = []
        for _ in range(ACTS):
            started = time.perf_counter_ns()
            await act(world, "bench.pin", lambda act: None)
            times.append(time.perf_counter_ns() - started)
    return statistics.median(times) / 1000


def main() -> int:
    """Print the figures; that the pin adds no statement is a test (tests/ledger/test_pin.py)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pin, head = Pin(folder), Head(b"k" * 32, "ab" * 16, 1, b"r" * 32)
        write = _median_us(lambda: pin.write(head), WRITES)
        pin.close()
        file = os.open(folder / "sync", os.O_RDWR | os.O_CREAT)
        sync = _median_us(lambda: _sync(file), SYNCS)
        os.close(file)
        whole = asyncio.run(_act_us(folder / "data"))
    print(f"pin of one commit    {write:10.1f} us")
    print(f"an act, alone        {whole:10.1f} us, pin included: the pin is {100 * write / whole:.1f} % of it")
    print(f"fsync of this disk   {sync:10.1f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main())
