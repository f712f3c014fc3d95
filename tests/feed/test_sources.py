"""Kinds of arguments are counted from reports by tasks and agents, and sent to guards after enough reports."""

from __future__ import annotations

import msgspec
import pytest

from harness.registry_fixtures import create_holding, new_jwk, register_agent, run_act
from ostiary.authorization.catalogue import Catalogue, Kind
from ostiary.decision.feed import ResourceFact
from ostiary.decision.report import CallRecord
from ostiary.provenance.sources import Source
from ostiaryd.feed.flows import argument_sources, sources
from ostiaryd.feed.flows.sources import LEARNED, MAX_COUNTED
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Resource
from tests.support.feed_reports import URI, call, report
from tests.support.feed_streams import listening

CATALOGUE = {
    "resource": "files",
    "tools": [{"name": "list", "effect": "read", "outside": False}, {"name": "cancel", "effect": "change"}],
}
OF_ID = Source("n", "list", "id")
ROW = {"tool": "cancel", "argument": "n", "source_tool": "list", "source_field": "id"}


@pytest.fixture
async def resource(world: World) -> Resource:
    made = await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI, jwk=new_jwk()))
    await run_act(world, lambda a: registry.set_catalogue(a, "files", Catalogue.parse(msgspec.json.encode(CATALOGUE))))
    return made


@pytest.fixture
async def agent(world: World) -> Agent:
    return await _agent(world, "agent", LEARNED)


async def _agent(world: World, name: str, tasks: int) -> Agent:
    """An agent with a token for each of its tasks."""
    agent = await register_agent(world, name)
    for number in range(tasks):
        await create_holding(world, agent, f"{name}_{number}", audience=URI, task=f"tk_{name}_{number}", seconds=3600)
    return agent


def flowed(agent: Agent, task: int, *found: Source, tool: str = "cancel", name: str = "agent") -> CallRecord:
    return call(agent, token=f"{name}_{task}", tool=tool, sources=list(found or [OF_ID]))


async def test_sources_are_counted_by_tasks_and_by_agents(world: World, resource: Resource, agent: Agent) -> None:
    other = await _agent(world, "other", 1)
    await report(world, resource, 1, flowed(agent, 0), flowed(agent, 0), flowed(agent, 1))
    await report(world, resource, 4, flowed(other, 0, name="other"), flowed(agent, 1))
    id = resource.resource_id
    assert argument_sources(world.db.read(), id) == [ROW | {"tasks": 3, "agents": 2}]
    await report(world, resource, 4, flowed(agent, 2), flowed(agent, 3))
    assert argument_sources(world.db.read(), id) == [ROW | {"tasks": 3, "agents": 2}], "a record counts once"


async def test_guards_receive_a_learned_argument_kind_once_enough_tasks_have_shown_it(
    world: World, resource: Resource, agent: Agent
) -> None:
    async with listening(world, resource) as guard:
        await guard.hear()
        await report(world, resource, 1, *(flowed(agent, number) for number in range(LEARNED - 1)))
        tool = guard.feed.current().facts.resource.tools["cancel"].tool
        assert tool.argument_kinds == {}
        await report(world, resource, LEARNED, flowed(agent, LEARNED - 1))
        facts = await guard.facts()
        while not any(isinstance(fact, ResourceFact) for fact in facts):  # profiles come in messages of their own
            facts = await guard.facts()
        assert guard.feed.current().facts.resource.tools["cancel"].tool.argument_kinds == {"n": Kind.OBJECT}
    async with listening(world, resource, id="another number thrown") as later:
        await later.hear()
        assert later.feed.current().facts.resource.tools["cancel"].tool.argument_kinds == {"n": Kind.OBJECT}


async def test_sources_outside_the_catalogue_or_beyond_the_maximum_are_not_counted(
    world: World, resource: Resource, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_ROWS", 2)
    gone = Source("n", "gone", "id")
    more = [Source("n", "list", f"f{number}") for number in range(3)]
    await report(world, resource, 1, flowed(agent, 0, gone), flowed(agent, 0, tool="gone"), flowed(agent, 0, *more))
    assert [row["source_field"] for row in argument_sources(world.db.read(), resource.resource_id)] == ["f0", "f1"]
    await report(world, resource, 4, flowed(agent, 1, *more))
    found = argument_sources(world.db.read(), resource.resource_id)
    assert [(row["source_field"], row["tasks"]) for row in found] == [("f0", 2), ("f1", 2)]


async def test_a_source_is_counted_up_to_the_maximum(world: World, resource: Resource) -> None:
    many = await _agent(world, "many", MAX_COUNTED + 1)
    calls = [flowed(many, number, name="many") for number in range(MAX_COUNTED + 1)]
    await report(world, resource, 1, *calls)
    assert argument_sources(world.db.read(), resource.resource_id) == [ROW | {"tasks": MAX_COUNTED, "agents": 1}]


async def test_sources_of_denied_calls_and_of_calls_of_another_agent_are_not_counted(
    world: World, resource: Resource, agent: Agent
) -> None:
    other = await _agent(world, "other", 1)
    denied = msgspec.structs.replace(flowed(agent, 0), outcome="deny", verdict="deny")
    await report(world, resource, 1, denied, flowed(other, 0))
    assert argument_sources(world.db.read(), resource.resource_id) == []
