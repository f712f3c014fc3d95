"""Ending a tree of 10,000 tasks in which each has a token, and then one in which each has a budget out of the one above
and somebody who holds it too: `python -m benchmarks.budget_tree`.

Measured is the whole act, from the call until it is on disk and in the tree of the ledger: the best of rounds, by the
clock and in processor time. It fails if that is more than 100 ms by both, if something has not ended, or if a unit of a
budget has not come back.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.load.agents import FILES, SECOND, config, enter
from benchmarks.load.server_under_load import Wrong
from ostiary.authorization.budget import parse_limits
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller, Holding, HoldingId
from ostiaryd.registry.store import holdings
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec, TaskState

BRANCHES, LEAVES, ROUNDS = 100, 99, 3
UNITS = 1_000_000
LIMIT_MS = 100.0


def main() -> int:
    failed = False
    for with_budgets in (False, True):
        with tempfile.TemporaryDirectory() as name:
            found = [asyncio.run(_round(Path(name) / str(number), with_budgets)) for number in range(ROUNDS)]
        wall, cpu = (min(times) for times in zip(*found, strict=True))
        what = "tokens, budgets and holders" if with_budgets else "tokens"
        count = 1 + BRANCHES + BRANCHES * LEAVES
        print(
            f"a tree of {count:,} tasks with {what} ends in {wall:.0f} ms, {cpu:.0f} ms of processor time", flush=True
        )
        failed |= min(wall, cpu) > LIMIT_MS
    return int(failed)


async def _round(folder: Path, with_budgets: bool) -> tuple[float, float]:
    """Milliseconds: by the clock, of the processor."""
    async with open_world(config(folder)) as world:
        party = await enter(world, agents=1)
        agent = registry.find_agent(world.db.read(), party.agents[0].id)
        by = Caller(kind="agent", id=agent.agent_id, name=agent.name, owner=agent.owner, scopes=agent.scopes)

        def begin(parent: str | None, units: int) -> Callable[[Act], Task]:
            return _begin(by, parent, units if with_budgets else 0)

        top = await act(world, "task.start", begin(None, UNITS))
        root = await act(world, "task.start", begin(top.task_id, UNITS // 2))
        branches = await _all(world, [begin(root.task_id, LEAVES + 1) for _ in range(BRANCHES)])
        await _all(world, [begin(branch.task_id, 1) for branch in branches for _ in range(LEAVES)])
        began, worked = time.perf_counter(), time.process_time()
        await act(world, "task.end", lambda a: tasks.end(a, root.task_id, TaskState.DONE))
        wall, cpu = time.perf_counter() - began, time.process_time() - worked
        reader = world.db.read()
        found = tasks.tree(reader, root, Page(LEAVES * BRANCHES * 2, ""))
        if {one.state for one in found} != {TaskState.DONE, TaskState.CANCELLED}:
            raise Wrong("a task lives on")
        if [one.left for one in tasks.balances_of(reader, top, now=world.now())] != [str(UNITS)] * with_budgets:
            raise Wrong("units are missing")
        return wall * 1000, cpu * 1000


def _begin(by: Caller, parent: str | None, units: int) -> Callable[[Act], Task]:
    limits = parse_limits([{"kind": "calls", "limit": units}] if units else [])
    heartbeat = 3600 if units else None

    def flow(act: Act) -> Task:
        task = tasks.start(
            act, TaskSpec(agent=by.id, purpose="is ended", parent=parent, budget=limits, heartbeat_s=heartbeat, by=by)
        )
        if units:
            tasks.add_holder(act, task.task_id, f"ho_{task.task_id[3:]}", by=by)
        token = Holding(
            id=HoldingId(act.new_id("tok")),
            kind="token",
            agent=task.agent,
            task=task.task_id,
            parent=None,
            jkt=None,
            client_jkt=None,
            audience=FILES,
            expires_at=act.now + 3600 * SECOND,
        )
        holdings.insert_holding(act.tx, token)
        return task

    return flow


async def _all(world: World, flows: list[Callable[[Act], Task]]) -> list[Task]:
    made: list[Task] = []
    for first in range(0, len(flows), 256):
        made += await asyncio.gather(*(act(world, "task.start", flow) for flow in flows[first : first + 256]))
    return made


if __name__ == "__main__":
    sys.exit(main())
