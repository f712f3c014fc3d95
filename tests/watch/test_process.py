"""From an entry to a finding through the detectors' own process, which may die at any time: none lost, none twice."""

from __future__ import annotations

import os
import signal

from ostiaryd.ground.world import World
from ostiaryd.registry.store import risks
from ostiaryd.watch.flows import Watch
from ostiaryd.watch.model import Finding
from tests.clock import Clock
from tests.registry.stage import enrol
from tests.watch.stage import calls, eventually, found, looked_at, watching


async def test_what_an_agent_does_becomes_a_finding_that_names_its_entries(world: World, clock: Clock) -> None:
    bot = await enrol(world)
    answered: list[Finding] = []
    async with watching(world, lambda act, finding: answered.append(finding)) as watch:
        last = await calls(world, bot.agent_id, 12, outcome="deny")
        [one] = await eventually(lambda: found(world))
        assert (one.detector, one.agent, one.task, one.owner) == (
            "denied_burst",
            bot.agent_id,
            f"tk_{bot.agent_id[3:]}",
            bot.owner,
        )
        assert one.entries == tuple(range(last - 4, last + 1))
        assert one.score == 1.0
        assert answered == [one]
        for subject in (bot.agent_id, one.task):
            assert risks.get(world.db.read(), subject).points(clock()) == one.points
        await calls(world, bot.agent_id, 5, outcome="deny")
        await looked_at(world, watch)
        assert found(world) == [one], "it is told once"


async def test_a_process_that_dies_goes_on_where_it_was_and_tells_nothing_twice(world: World) -> None:
    bot, other = await enrol(world), await enrol(world, "other")
    async with watching(world) as watch:
        watch.snapshot_s = 0.0
        await calls(world, bot.agent_id, 8, outcome="deny")
        await looked_at(world, watch)
        await kill(watch)
        await calls(world, bot.agent_id, 4, outcome="deny")
        [one] = await eventually(lambda: found(world))
        await calls(world, other.agent_id, 3, outcome="deny")
        await looked_at(world, watch)
        await kill(watch)
        await calls(world, other.agent_id, 9, outcome="deny")
        await eventually(lambda: len(found(world)) == 2)
        assert {finding.agent for finding in found(world)} == {one.agent, other.agent_id}
        assert watch.state.starts == 3


async def kill(watch: Watch) -> None:
    starts = watch.state.starts
    os.kill(watch.state.pid, signal.SIGKILL)
    await eventually(lambda: watch.state.starts > starts and watch.state.phase == "working")
