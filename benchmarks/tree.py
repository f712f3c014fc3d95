"""A tree of 10,000 tasks with 10,000 tokens is revoked at its root: one act, from the request to its durable commit.

Beside it stand as many tasks and tokens that are not under that root. Enforced: everything under the root is ended and
nothing else, guards are told in one message, the ledger gets one entry; the number of statements does not grow with the
tree.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from benchmarks.load.agents import SECOND, config, enter
from benchmarks.load.server_under_load import Wrong
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry.model import Holding, HoldingId
from ostiaryd.registry.store import holdings
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskId, TaskSpec
from ostiaryd.tasks.store import tasks as store

TASKS, RUNS, TARGET_MS = 10_000, 5, 100
SHAPES = {"wide: 100 under the root, 99 under each": (100, 99), "deep: five levels": (6, 6, 6, 6, 7)}


def main() -> int:
    load = os.getloadavg()[0]
    print(f"load average {load:.1f}; target {TARGET_MS} ms")
    for size in (TASKS // 100, TASKS):
        for name, shape in SHAPES.items():
            with tempfile.TemporaryDirectory() as folder:
                asyncio.run(_measure(Path(folder), name, shape, size))
    return 0


async def _measure(folder: Path, name: str, shape: tuple[int, ...], size: int) -> None:
    wall, cpu, counts = [], [], set()
    async with open_world(config(folder)) as world:
        party = await enter(world, agents=1)
        for number in range(RUNS):
            root, beside = [await _plant(world, party.agents[0].id, shape, size) for _ in range(2)]
            statements: list[str] = []
            if number == RUNS - 1:  # apart from the clock
                world.writer._connection._raw.set_trace_callback(statements.append)  # type: ignore[attr-defined]
            seq = outbox.highest_number(world.db.read())
            began, spent = time.perf_counter(), time.process_time()
            ended = await act(world, "task.revoke", lambda a, id=root: tasks.revoke(a, tasks.RevokedKind.TASK, id))  # type: ignore[misc]
            if number == RUNS - 1:
                counts.add(len(statements))
            else:
                wall.append((time.perf_counter() - began) * 1000)
                cpu.append((time.process_time() - spent) * 1000)
            _check(world, ended, beside, size=size, told=outbox.highest_number(world.db.read()) - seq)
            await act(world, "task.revoke", lambda a, id=beside: tasks.revoke(a, tasks.RevokedKind.TASK, id))  # type: ignore[misc]
    print(
        f"{size:6,} tasks, {size:6,} tokens, {name:42} {statistics.median(wall):6.1f} ms, best {min(wall):6.1f}, "
        f"cpu {statistics.median(cpu):6.1f} ms, {counts.pop()} statements",
        flush=True,
    )


def _check(world: World, ended: dict[str, int], beside: str, *, size: int, told: int) -> None:
    if ended != {"task": size, "token": size} or told != 1:
        raise Wrong(f"{ended} ended of {size}, guards were told {told} times")
    left = store.tree(world.db.read(), TaskId(beside), of_standing=False, depth=-1, after="", limit=size + 1)
    if sum(task.is_live(world.now()) for task in left) != size:
        raise Wrong("something beside it ended too")


async def _plant(world: World, agent: str, shape: tuple[int, ...], size: int) -> str:
    """A tree of that many tasks, each with a token of 32 bytes of id; its root."""

    def plant(act: Act) -> str:
        root = tasks.start(act, TaskSpec(agent=agent, purpose="is measured"))
        grown = [root]
        for task in _under(act, root, shape):
            if len(grown) == size:
                break
            store.insert(act.tx, task)
            grown.append(task)
        if len(grown) != size:
            raise Wrong(f"the shape has only {len(grown)} tasks")
        for task in grown:
            holdings.insert_holding(act.tx, _token(act, task))
        return root.task_id

    return await act(world, "bench.plant", plant)


def _under(act: Act, root: Task, shape: tuple[int, ...]) -> Iterator[Task]:
    """Level by level."""
    level = [root]
    for width in (*shape, 1, 1, 1):
        following = []
        for parent in level:
            for _ in range(width):
                task = replace(root, task_id=TaskId(act.new_id("tk")), parent=parent.task_id, depth=parent.depth + 1)
                following.append(task)
                yield task
        level = following


def _token(act: Act, task: Task) -> Holding:
    return Holding(
        id=HoldingId(act.new_id("tok")),
        kind="token",
        agent=task.agent,
        task=task.task_id,
        parent=None,
        jkt="a key",
        client_jkt="a key",
        audience="https://files.example.org/mcp",
        expires_at=act.now + 300 * SECOND,
    )


if __name__ == "__main__":
    sys.exit(main())
