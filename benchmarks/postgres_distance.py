"""Round trips and throughput of acts on PostgreSQL, near the server and 10 ms away, through a delaying proxy.

Counts are of the writer's connection. A batch of one act has its fixed cost; a batch of many shares it.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from harness.postgres_cluster import cluster
from harness.tcp_proxy import Proxy
from ostiaryd.ground.config import load_config
from ostiaryd.ground.database.postgres import PostgresConnection
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import Act, act

DELAY_S = 0.005
"""Seconds that the proxy holds back what it forwards, in each direction."""
ACTS, SECONDS = 64, 4.0


def note(act: Act) -> None:
    act.entry.object = "benchmark"


async def measure(world: World, label: str) -> float:
    connection = world.writer._connection
    assert isinstance(connection, PostgresConnection)
    await act(world, "benchmark.note", note)
    counts = []
    for acts in (1, ACTS):
        before = connection.round_trips
        await asyncio.gather(*(act(world, "benchmark.note", note) for _ in range(acts)))
        counts.append(connection.round_trips - before)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        await asyncio.gather(*(act(world, "benchmark.note", note) for _ in range(ACTS)))
        done += ACTS
    rate = done / (time.perf_counter() - started)
    print(f"{label:<22} {counts[0]:>4} round trips for 1 act, {counts[1]:>4} for {ACTS}   {rate:8.0f} acts/s")
    return rate


async def main() -> None:
    with cluster() as postgresql, tempfile.TemporaryDirectory() as folder:
        rates = []
        for name, delay_s in (("near", 0.0), ("far", DELAY_S)):
            proxy = Proxy(postgresql.create(name), delay_s=delay_s)
            config = load_config(environ={}, data_dir=str(Path(folder) / name), database=proxy.url)
            async with open_world(config) as world:
                rates.append(await measure(world, f"{2000 * delay_s:.0f} ms round trip"))
            proxy.close()
        print(f"throughput at 10 ms is {rates[1] / rates[0]:.2f} of that through a proxy without delay")


asyncio.run(main())
