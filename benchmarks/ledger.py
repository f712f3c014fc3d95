"""Ledger appends per second, fsynced, in batches of 512, with search indexes; beside the disk's own fsync rate."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable

from ostiaryd.ground.config import load_config
from ostiaryd.ground.database import Tx
from ostiaryd.ground.world import open_world
from ostiaryd.ledger import store
from ostiaryd.ledger.model import Entry, Reason

BATCH, ROUNDS = 512, 40


def fsync_rate(folder: str) -> float:
    with open(os.path.join(folder, "probe"), "wb", buffering=0) as file:
        started = time.perf_counter()
        for _ in range(200):
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
        return 200 / (time.perf_counter() - started)


def entry(number: int, now: int) -> Entry:
    return Entry(
        at=now, action="tool.call", outcome="allow", agent=f"ag_{number % 1000:032x}", owner="pe_" + "0" * 32,
        task=f"tk_{number % 5000:032x}", resource="files", tool="files/read_file", token=f"tok_{number:032x}",
        digest="b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8b3c4d5e6f7a", reasons=[Reason("permitted")], policy="p" * 43,
    )  # fmt: skip


def append(batch: list[Entry]) -> Callable[[Tx], None]:
    def job(tx: Tx) -> None:
        for one in batch:
            tx.defer(store.append, one)

    return job


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(f"fsync                     {fsync_rate(folder):10.0f} /s")
        config = load_config(environ={}, data_dir=folder)
        async with open_world(config) as world:
            wall, cpu = [], []
            for round_ in range(ROUNDS):
                batch = [entry(round_ * BATCH + i, world.now()) for i in range(BATCH)]
                c, w = time.process_time(), time.perf_counter()
                await world.writer.submit(append(batch))
                wall.append(BATCH / (time.perf_counter() - w))
                cpu.append(BATCH / (time.process_time() - c))
            print(f"appends, batches of {BATCH}   {statistics.median(wall):10.0f} /s wall", end="   ")
            print(f"{statistics.median(cpu):10.0f} /cpu-s")


asyncio.run(main())
