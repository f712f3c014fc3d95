"""Usual behaviour: learned from reports of guards about their own resource, and sent to those guards alone."""

from __future__ import annotations

import pytest

from harness.clock import Clock
from harness.registry_fixtures import create_holding, new_jwk, register_agent, run_act
from ostiary.decision.feed import ProfileFact
from ostiary.decision.report import CallFacts, CallRecord
from ostiary.protocol.jose import unb64u
from ostiary.provenance.noticing import MAX_PROFILE, NEW, Noticed, Profile, unpack
from ostiaryd.feed import store
from ostiaryd.feed.flows import forget_profiles, profiles
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Resource
from tests.support.feed_reports import SPOOL, URI, call, report
from tests.support.feed_streams import listening

OTHER = "https://mail.example.org/mcp"


@pytest.fixture
async def resource(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI, jwk=new_jwk()))


@pytest.fixture
async def other(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="mail", uri=OTHER, jwk=new_jwk()))


@pytest.fixture
async def agent(world: World) -> Agent:
    """An agent with tokens of four tasks."""
    agent = await register_agent(world)
    for number in range(4):
        await create_holding(world, agent, f"tok_{number}", audience=URI, task=f"tk_{number}", seconds=3600)
    return agent


def known(world: World, agent: Agent, resource: Resource) -> Profile:
    found = store.profile(world.db.read(), agent.agent_id, resource.resource_id)
    return NEW if found is None else unpack(found[0])


def paid(agent: Agent, number: int, **more: object) -> CallRecord:
    """Return the record of a call in that task with a value of unknown origin."""
    facts = CallFacts(
        owner="pe_1",
        segment="s",
        resource_segment="s",
        catalogue="c",
        context={},
        arguments={},
        call_context={"origin_worst": "nowhere"},
    )
    return call(agent, token=f"tok_{number}", tool="pay", facts=facts, **more)


async def test_a_profile_learns_allowed_calls_by_task_and_no_denied_calls(
    world: World, resource: Resource, agent: Agent
) -> None:
    await report(world, resource, 1, paid(agent, 0), paid(agent, 0), paid(agent, 1))
    await report(world, resource, 4, paid(agent, 2, outcome="deny", verdict="deny"), call(agent, token="tok_3"))
    habit = known(world, agent, resource).habit("files/pay")
    assert (habit.tasks, habit.nowhere, habit.outside) == (2, 2, 0)
    assert known(world, agent, resource).habit("files/read_file").tasks == 1
    assert known(world, agent, resource).tasks == 3


async def test_a_profile_learns_the_findings_of_a_call(world: World, resource: Resource, agent: Agent) -> None:
    seen = [Noticed(detector="instructed", points=30, says="a value of one text")]
    await report(world, resource, 1, paid(agent, 0, noticed=seen), paid(agent, 1))
    habit = known(world, agent, resource).habit("files/pay")
    assert (habit.tasks, habit.instructed, habit.flowed) == (2, 1, 0)


async def test_a_profile_learns_nothing_from_reports_about_another_resource_or_agent(
    world: World, resource: Resource, other: Resource, agent: Agent
) -> None:
    await report(world, other, 1, paid(agent, 0), spool="1" * 32)
    somebody = await register_agent(world, "somebody")
    await report(world, resource, 1, paid(somebody, 0))
    for one in (agent, somebody):
        assert known(world, one, other) == known(world, one, resource) == NEW


async def test_a_profile_is_sent_to_the_guards_of_its_resource_once_in_an_interval(
    world: World, resource: Resource, other: Resource, agent: Agent, clock: Clock
) -> None:
    async with listening(world, resource) as guard, listening(world, other, id="another number thrown") as stranger:
        await guard.hear()
        await stranger.hear()
        await report(world, resource, 1, paid(agent, 0))
        [fact] = await guard.facts()
        assert isinstance(fact, ProfileFact)
        assert unpack(unb64u(fact.profile)) == known(world, agent, resource)
        assert guard.feed.current().facts.profiles == {agent.agent_id: known(world, agent, resource)}
        clock.advance(us=profiles.TELL_EVERY - 1)
        await report(world, resource, 2, paid(agent, 1))
        clock.advance(us=1)
        await report(world, resource, 3, paid(agent, 2))
        [again] = await guard.facts()
        assert isinstance(again, ProfileFact)
        assert unpack(unb64u(again.profile)).tasks == 3, "in between nothing was said"
        await run_act(world, lambda a: registry.set_segment(a, agent.agent_id, "moved"))
        assert all(not isinstance(one, ProfileFact) for one in await stranger.facts())
        assert stranger.feed.current().facts.profiles == {}


async def test_a_snapshot_has_the_newest_profiles_of_the_resource(
    world: World, resource: Resource, other: Resource, agent: Agent, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.advance(1)  # so that the later agent has the higher id
    late = await register_agent(world, "late")
    assert late.agent_id > agent.agent_id
    await create_holding(world, late, "tok_late", audience=URI, task="tk_9")
    await report(world, resource, 1, paid(agent, 0))
    clock.advance(1)
    await report(world, resource, 2, call(late, token="tok_late"))
    monkeypatch.setattr(profiles, "MAX_TOLD", 1)
    for one, told in ((resource, {late.agent_id}), (other, set[str]())):
        async with listening(world, one) as guard:
            await guard.hear()
            assert set(guard.feed.current().facts.profiles) == told


async def test_a_profile_of_another_version_is_learned_anew(world: World, resource: Resource, agent: Agent) -> None:
    id = resource.resource_id
    await run_act(world, lambda a: store.put_profile(a.tx, agent.agent_id, id, b"of tomorrow", told_at=0))
    await report(world, resource, 1, paid(agent, 0))
    assert known(world, agent, resource).tasks == 1


async def test_the_profile_of_an_agent_without_recent_calls_is_deleted(
    world: World, resource: Resource, agent: Agent, clock: Clock
) -> None:
    await report(world, resource, 1, paid(agent, 0))
    clock.advance(us=profiles.KEPT)
    assert await forget_profiles(world) == 0
    clock.advance(us=1)
    assert await forget_profiles(world) == 1


async def test_a_flood_of_calls_does_not_exceed_the_maximum_size_of_a_profile(
    world: World, resource: Resource, agent: Agent
) -> None:
    calls = [call(agent, token=f"tok_{n % 4}", tool=f"tool_{n}") for n in range(500)]
    await report(world, resource, 1, *calls, spool=SPOOL)
    found = store.profile(world.db.read(), agent.agent_id, resource.resource_id)
    assert found is not None
    assert len(found[0]) <= MAX_PROFILE
