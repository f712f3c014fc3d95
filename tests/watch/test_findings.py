"""A finding is kept with what it rests on, and raises the risk of an agent and its task for everybody who decides."""

from __future__ import annotations

import pytest

from ostiary.core.errors import NotFound
from ostiary.core.feed import RiskFact
from ostiary.core.watch import HALF_LIFE, Noticed
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource
from ostiaryd.registry.store import risks
from ostiaryd.watch import flows, store
from ostiaryd.watch.model import MAX_ENTRIES
from tests.clock import Clock
from tests.feed.test_streams import URI, listening
from tests.registry.stage import do, enrol, new_jwk

SEEN = Noticed(detector="canary", points=60, says="it touched what nobody should")


@pytest.fixture
async def resource(world: World) -> Resource:
    return await do(world, lambda a: registry.create_resource(a, name="files", uri=URI, jwk=new_jwk()))


async def test_a_finding_is_kept_and_raises_the_risk_of_agent_and_task(world: World, clock: Clock) -> None:
    bot = await enrol(world)
    made = await do(world, lambda a: flows.find(a, SEEN, agent=bot.agent_id, task="tk_1", entries=tuple(range(20))))
    reader = world.db.read()
    assert store.get(reader, made.finding_id) == made
    assert store.of_agent(reader, bot.agent_id) == store.latest(reader) == [made]
    assert store.of_agent(reader, bot.agent_id, since=made.at) == []
    assert made.entries == tuple(range(20 - MAX_ENTRIES, 20)), "the newest"
    assert made.owner == bot.owner
    for subject in (bot.agent_id, "tk_1"):
        assert risks.get(reader, subject).points(clock()) == 60
    assert risks.worst(reader, ["ag_nobody", "tk_1"], now=clock()) == 60
    assert risks.worst(reader, ["ag_nobody"], now=clock()) == 0


async def test_of_an_agent_that_is_not_there_nothing_is_found(world: World) -> None:
    with pytest.raises(NotFound):
        await do(world, lambda a: flows.find(a, SEEN, agent="ag_nobody", task=None, entries=()))
    assert store.latest(world.db.read()) == []


async def test_guards_hear_of_it_at_once_and_with_their_snapshot(
    world: World, resource: Resource, clock: Clock
) -> None:
    bot = await enrol(world)
    async with listening(world, resource) as guard:
        await guard.hear()
        await do(world, lambda a: flows.find(a, SEEN, agent=bot.agent_id, task=None, entries=()))
        assert await guard.facts() == [RiskFact(bot.agent_id, 60_000, clock())]
    clock.advance(us=HALF_LIFE)
    async with listening(world, resource) as late:
        await late.hear()
        assert late.feed.current().facts.risks[bot.agent_id].points(clock()) == 30


async def test_what_has_passed_is_forgotten(world: World, clock: Clock) -> None:
    bot = await enrol(world)
    await do(world, lambda a: flows.find(a, SEEN, agent=bot.agent_id, task=None, entries=()))
    at = clock()
    assert await do(world, lambda a: risks.forget(a.tx, before=at - 1)) == 0
    assert await do(world, lambda a: risks.forget(a.tx, before=at)) == 1
