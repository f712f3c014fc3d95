"""A revoke ends everything derived, whichever kind it begins at."""

from __future__ import annotations

import pytest

from harness.registry_fixtures import (
    agent_caller,
    create_holding,
    create_person,
    get_agent,
    is_live,
    newest_entry,
    person_caller,
    register_agent,
    run_act,
)
from ostiary.protocol.errors import Forbidden, NotFound
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentState, Caller
from ostiaryd.registry.store import keys
from ostiaryd.tasks import flows
from ostiaryd.tasks.flows import RevokedKind
from ostiaryd.tasks.model import Task, TaskSpec, TaskState

LIVE = {"tok_task", "tok_standing", "tok_child", "tok_other"}


async def build(world: World) -> tuple[Agent, Task, str]:
    """Register an agent with a task, a token for the task, a token without one, and another agent with two tokens."""
    agent, other = await register_agent(world), await register_agent(world, "other", owner="bob")
    task = await run_act(world, lambda a: flows.start(a, TaskSpec(agent="bot", purpose="p")))
    [key] = keys.of_agent(world.db.read(), agent.agent_id)
    await create_holding(world, agent, "tok_task", task=task.task_id, client_jkt=key.jkt)
    await create_holding(world, agent, "tok_standing", client_jkt="another")
    await create_holding(world, other, "tok_child", parent="tok_task")
    await create_holding(world, other, "tok_other")
    return agent, task, key.jkt


async def revoke(world: World, kind: RevokedKind, id: str, by: Caller | None = None) -> dict[str, int]:
    return dict(await run_act(world, lambda a: flows.revoke(a, kind, id, by=by)))


def left(world: World) -> set[str]:
    return {id for id in LIVE if is_live(world, id)}


def is_over(world: World, task: Task) -> bool:
    return flows.find_task(world.db.read(), task.task_id).state is TaskState.CANCELLED


@pytest.mark.parametrize("kind", list(RevokedKind))
async def test_a_revocation_ends_all_derived_objects_and_counts_them_by_kind(world: World, kind: RevokedKind) -> None:
    agent, task, jkt = await build(world)
    id, counts, survivors, ends_task = {
        RevokedKind.AGENT: ("bot", {"token": 3, "task": 1}, {"tok_other"}, True),
        RevokedKind.TASK: (task.task_id, {"token": 2, "task": 1}, {"tok_standing", "tok_other"}, True),
        RevokedKind.TOKEN: ("tok_task", {"token": 2}, {"tok_standing", "tok_other"}, False),
        RevokedKind.KEY: (jkt, {"token": 2}, {"tok_standing", "tok_other"}, False),
        RevokedKind.OWNER: ("alice", {"token": 3, "task": 1}, {"tok_other"}, True),
    }[kind]
    assert await revoke(world, kind, id) == counts
    assert left(world) == survivors
    assert is_over(world, task) is ends_task
    stops = kind in (RevokedKind.AGENT, RevokedKind.OWNER)
    assert get_agent(world, "bot").state is (AgentState.SUSPENDED if stops else AgentState.ACTIVE)
    assert get_agent(world, "bot").epoch == int(stops)
    again = await revoke(world, kind, id)
    assert again == {}
    assert left(world) == survivors
    assert agent.agent_id


async def test_a_task_on_behalf_of_a_revoked_person_ends_and_its_agent_stays_active(world: World) -> None:
    _, other_task, _ = await build(world)
    await create_person(world, "carol")
    task = await run_act(world, lambda a: flows.start(a, TaskSpec(agent="bot", purpose="p", on_behalf_of="carol")))
    await create_holding(world, get_agent(world, "bot"), "tok_carol", task=task.task_id)
    assert await revoke(world, RevokedKind.OWNER, "carol") == {"token": 1, "task": 1}
    assert is_over(world, task)
    assert not is_over(world, other_task)
    assert left(world) == LIVE
    assert get_agent(world, "bot").state is AgentState.ACTIVE


async def test_the_revocation_of_an_unknown_object_is_refused(world: World) -> None:
    for kind in list(RevokedKind):
        with pytest.raises(NotFound):
            await revoke(world, kind, "nothing")


@pytest.mark.parametrize("kind", list(RevokedKind))
async def test_only_the_owner_of_an_agent_or_an_administrator_can_revoke(world: World, kind: RevokedKind) -> None:
    agent, task, jkt = await build(world)
    id = {
        RevokedKind.AGENT: "bot",
        RevokedKind.TASK: task.task_id,
        RevokedKind.TOKEN: "tok_task",
        RevokedKind.KEY: jkt,
        RevokedKind.OWNER: "alice",
    }[kind]
    bob = get_agent(world, "other").owner
    for stranger in (
        person_caller(bob),
        agent_caller(get_agent(world, "other")),
        agent_caller(agent),
        agent_caller(agent, "ostiary:read"),
    ):
        with pytest.raises(Forbidden):
            await revoke(world, kind, id, stranger)
    assert left(world) == LIVE
    owner = person_caller(agent.owner)
    if kind is RevokedKind.OWNER:
        with pytest.raises(Forbidden):
            await revoke(world, kind, id, owner)
        owner = person_caller(bob, "ostiary:admin")
    assert await revoke(world, kind, id, owner)
    assert "tok_task" not in left(world)


async def test_only_an_administrator_can_revoke_the_token_of_a_guard(world: World) -> None:
    agent = await register_agent(world)
    made = await run_act(world, lambda a: registry.create_resource(a, name="files", uri="https://files.example/"))
    await create_holding(world, made.resource_id, "tok_guard")
    with pytest.raises(Forbidden):
        await revoke(world, RevokedKind.TOKEN, "tok_guard", person_caller(agent.owner))
    assert await revoke(world, RevokedKind.TOKEN, "tok_guard", agent_caller(agent, "ostiary:admin")) == {"token": 1}


async def test_the_tasks_of_a_team_end_when_its_only_member_is_revoked(world: World) -> None:
    await create_person(world, "alice")
    await create_person(world, "dora")
    await run_act(world, lambda a: registry.create_team(a, name="single", members=["alice"], deputy="dora"))
    await register_agent(world, owner="single")
    task = await run_act(world, lambda a: flows.start(a, TaskSpec(agent="bot", purpose="p")))
    await create_holding(world, get_agent(world, "bot"), "tok_1", task=task.task_id)
    assert await revoke(world, RevokedKind.OWNER, "alice") == {"token": 1, "task": 1}
    assert is_over(world, task)
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    entry = newest_entry(world)
    assert entry.detail is not None
    assert entry.detail["ended"] == {"token": 1, "task": 1}
