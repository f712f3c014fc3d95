"""Ledger appends per second, fsynced, in batches of 512, with search indexes; beside the disk's own fsync rate."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable

from ostiaryd.ground.config import load_config
from ostiaryd.ground.database import Tx
from ostiaryd.ground.world import open_world
from ostiaryd.ledger import store
from ostiaryd.ledger.model import Entry, Reason, encode_entry

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
        at=now,
        action="tool.call",
        outcome="allow",
        agent=f"ag_{number % 1000:032x}",
        owner="pe_" + "0" * 32,
        task=f"tk_{number % 5000:032x}",
        resource="files",
        tool="files/read_file",
        token=f"tok_{number:032x}",
        digest="b3c4d5e6f7a8b9c0d1e2f3a4b5c6d7e8b3c4d5e6f7a",
        reasons=[Reason("permitted")],
        policy="p" * 43,
    )


def append(batch: list[Entry]) -> Callable[[Tx], None]:
    def job(tx: Tx) -> None:
        for one in batch:
            tx.defer(store.append, one)

    return job


def sqlite_rate(folder: str) -> float:
    """Rows a CPU second that SQLite itself takes: rows of the same length, three indexes, the same batches."""
    database = sqlite3.connect(os.path.join(folder, "alone.db"), isolation_level=None)
    for statement in (
        "pragma journal_mode=wal",
        "pragma synchronous=full",
        "create table entry (idx integer primary key, leaf blob, body blob, at integer, agent text, task text) strict",
        "create index entry_at on entry (at, idx)",
        "create index entry_agent on entry (agent, idx)",
        "create index entry_task on entry (task, idx)",
    ):
        database.execute(statement)
    rates = []
    for round_ in range(ROUNDS):
        numbers = range(round_ * BATCH, (round_ + 1) * BATCH)
        made = [(number, entry(number, number)) for number in numbers]
        rows = [(number, bytes(32), encode_entry(one), one.at, one.agent, one.task) for number, one in made]
        started = time.process_time()
        database.execute("begin immediate")
        database.executemany("insert into entry values (?, ?, ?, ?, ?, ?)", rows)
        database.execute("commit")
        rates.append(BATCH / (time.process_time() - started))
    database.close()
    return statistics.median(rates)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(f"fsync                     {fsync_rate(folder):10.0f} /s")
        alone = sqlite_rate(folder)
        print(f"SQLite itself, 3 indexes  {alone:10.0f} /cpu-s")
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
            print(f"{statistics.median(cpu):10.0f} /cpu-s   {statistics.median(cpu) / alone:.2f} of SQLite itself")


asyncio.run(main())
