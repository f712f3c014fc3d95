"""Restrictions of agents, as a guard gets them: at once, and with a snapshot while they are in force."""

from __future__ import annotations

import pytest

from harness.clock import Clock
from harness.registry_fixtures import SECOND, new_jwk, register_agent, run_act
from ostiary.decision.access import Restriction
from ostiary.decision.feed import RestrictionFact
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource
from tests.support.feed_streams import URI, listening


@pytest.fixture
async def resource(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI, jwk=new_jwk()))


async def test_a_restriction_reaches_the_guard_when_it_is_put_and_when_it_is_lifted(
    world: World, resource: Resource, clock: Clock
) -> None:
    bot = await register_agent(world)
    until = clock() + 60 * SECOND
    async with listening(world, resource) as guard:
        await guard.hear()
        await run_act(world, lambda a: registry.put_restriction(a, "bot", "throttle", until=until, limit=3))
        assert await guard.facts() == [RestrictionFact(bot.agent_id, "throttle", 3, clock(), until)]
        await run_act(world, lambda a: registry.lift_restrictions(a, "bot"))
        assert await guard.facts() == [RestrictionFact(bot.agent_id, "throttle", 3, clock(), clock())]


async def test_a_snapshot_has_only_restrictions_in_force(world: World, resource: Resource, clock: Clock) -> None:
    bot = await register_agent(world)
    until = clock() + 60 * SECOND
    await run_act(world, lambda a: registry.put_restriction(a, "bot", "narrow", until=until))
    await run_act(world, lambda a: registry.put_restriction(a, "bot", "step_up", until=until + 1))
    since = clock()
    clock.advance(us=until - since)
    async with listening(world, resource) as late:
        await late.hear()
        assert late.feed.current().facts.restrictions == {bot.agent_id: (Restriction("step_up", 0, since, until + 1),)}
