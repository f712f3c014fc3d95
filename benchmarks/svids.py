"""A rotation storm: the X509-SVIDs of all agents are renewed at once: `python -m benchmarks.svids [AGENTS]`.

Each agent has a workload and a certificate in force all the time. Each renewal is an act of its own: a key, a
certificate, a holding, an entry, durable before it is given out. Prints renewals for each second of the processor and
of the clock; the target is 10,000 within a minute of one processor. Exits with 1 if an agent was without a valid
certificate, or a serial number was given twice.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time

from harness.registry_fixtures import register_agent
from ostiaryd.certs.flows import workloads
from ostiaryd.certs.flows.svid_cache import SvidCache
from ostiaryd.certs.model.workload import Selectors, Workload
from ostiaryd.ground.config import load_config
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows as policies

AGENTS, TARGET_S, AT_ONCE = 10_000, 60.0, 256


async def register(world: World, number: int) -> Workload:
    """Register an agent with a key and a workload."""

    agent = await register_agent(world, f"agent-{number}", owner="owner")
    selectors = Selectors(uid=100_000 + number)
    return await act(
        world,
        "workload.add",
        lambda act: workloads.add_workload(act, agent.agent_id, selectors, config=world.config),
    )


async def renew_all(world: World, registered: list[Workload]) -> set[str]:
    """Get the X509-SVID of every agent; the serial numbers."""
    cache, turns, serials = world.get_singleton(SvidCache), asyncio.Semaphore(AT_ONCE), set[str]()

    async def renew(workload: Workload) -> None:
        async with turns:
            kept, _ = await cache.get(workload)
        assert kept.certificate.is_in_force(world.now())
        serials.add(kept.certificate.serial)

    await asyncio.gather(*map(renew, registered))
    return serials


async def main(count: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        async with open_world(load_config(environ={}, data_dir=folder)) as world:
            await act(world, "policy.activate", policies.activate_starter)
            registered = [await register(world, 0)]
            for start in range(1, count, AT_ONCE):
                numbers = range(start, min(start + AT_ONCE, count))
                registered += await asyncio.gather(*(register(world, number) for number in numbers))
            first = await renew_all(world, registered)
            cache = world.get_singleton(SvidCache)
            cache._kept = {agent: (kept, 0) for agent, (kept, _) in cache._kept.items()}  # all are due now
            cpu, began = time.process_time(), time.monotonic()
            second = await renew_all(world, registered)
            cpu, wall = time.process_time() - cpu, time.monotonic() - began
    print(f"{count} X509-SVIDs renewed in {wall:.1f} s, {cpu:.1f} s of the processor")
    print(f"  {count / cpu:,.0f} per second of the processor, {count / wall:,.0f} per second")
    print(f"  10,000 take {10_000 * cpu / count:.1f} s of one processor; the target is {TARGET_S:g} s")
    return int(len(first) != count or len(second) != count or not first.isdisjoint(second))


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else AGENTS)))
