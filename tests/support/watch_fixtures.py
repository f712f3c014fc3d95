"""The detectors in their process, and acts of an agent that they read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from harness.patience import eventually_async
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import reason
from ostiaryd.watch import flows, store
from ostiaryd.watch.flows import Response, Watch
from ostiaryd.watch.model import Finding


@asynccontextmanager
async def watching(world: World, then: Response = flows.no_response) -> AsyncIterator[Watch]:
    """Run the detectors for this world until the block ends, as the loop of the server does."""
    watch = world.get_singleton(Watch)
    task = asyncio.create_task(flows.watch(world, then=then))
    try:
        await eventually_async(lambda: watch.state.phase == "working" or task.done())
        yield watch
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def calls(world: World, agent: str, count: int, *, outcome: str = "allow", tool: str = "files/read") -> int:
    """Write the entries of `count` calls of an agent, and return the index of the last entry."""

    def flow(a: Act) -> None:
        a.entry.agent, a.entry.task, a.entry.tool, a.entry.outcome = agent, f"tk_{agent[3:]}", tool, outcome
        a.entry.reasons = [reason("outside_task")] if outcome == "deny" else []

    for _ in range(count):
        await act(world, "decide", flow)
    return size(world) - 1


def size(world: World) -> int:
    return ledger.get_head(world.db.read())[0].size


async def looked_at(world: World, watch: Watch) -> None:
    """Wait until the detectors have read all entries, except the entries that they cause themselves."""
    last = size(world) - 1
    await eventually_async(lambda: watch.state.position > last)


def found(world: World) -> list[Finding]:
    """Return the stored findings, the newest last."""
    return store.findings.latest(world.db.read(), limit=1000)[::-1]
