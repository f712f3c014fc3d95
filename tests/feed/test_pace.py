"""A throttled agent has one count, however many guards, tools and tokens it goes through."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import create_holding, register_agent, run_act
from ostiary.decision.access.restrictions import MINUTE
from ostiary.protocol.errors import Refused
from ostiaryd.feed import wire_feed
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller, Resource
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec

FILES, BANK = "https://files.example/mcp", "https://bank.example/mcp"


@pytest.fixture
async def guarded(world: World, clock: Clock) -> tuple[Resource, Resource]:
    """Two tool servers, an agent with a token for each, at the beginning of a minute."""
    files = await run_act(world, lambda a: registry.create_resource(a, name="files", uri=FILES))
    bank = await run_act(world, lambda a: registry.create_resource(a, name="bank", uri=BANK))
    bot = await register_agent(world)
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to read")))
    await create_holding(world, bot, "tok_files", audience=FILES, task=task.task_id, seconds=3600)
    await create_holding(world, bot, "tok_bank", audience=BANK, task=task.task_id, seconds=3600)
    clock.advance(us=MINUTE - clock() % MINUTE)
    return files, bank


async def throttle(world: World, agent: str, limit: int) -> None:
    until = world.now() + 60 * MINUTE
    await run_act(world, lambda a: registry.put_restriction(a, agent, "throttle", until=until, limit=limit))


async def count(world: World, resource: Resource, token: str, **more: Any) -> str:
    """The answer to a guard of that resource: the code of the refusal."""
    body = json.dumps({"token": token} | more).encode()
    by = Caller(kind="guard", id=resource.resource_id, name="x", owner=None, scopes=frozenset({"ostiary:feed"}))
    call = Call(world, "POST", "/feed/v1/pace", {}, "", [(b"content-type", b"application/json")], body, "rq_1", by)
    try:
        assert (await wire_feed.pace(call)).status == 200
    except Refused as refusal:
        return refusal.code
    return ""


@pytest.mark.parametrize("limit", [0, 1, 2])
async def test_all_guards_together_allow_at_most_the_limit_of_calls_in_a_minute(
    world: World, clock: Clock, guarded: tuple[Resource, Resource], limit: int
) -> None:
    files, bank = guarded
    await throttle(world, "bot", limit)
    for _ in range(2):
        said = [await count(world, *one) for one in ((files, "tok_files"), (bank, "tok_bank"), (files, "tok_files"))]
        assert said == [""] * limit + ["throttled"] * (3 - limit)
        clock.advance(us=MINUTE - 1)
        assert await count(world, bank, "tok_bank") == "throttled"
        clock.advance(us=1)


async def test_calls_of_an_agent_without_a_throttle_are_not_counted(
    world: World, guarded: tuple[Resource, Resource], clock: Clock
) -> None:
    assert [await count(world, guarded[0], "tok_files") for _ in range(3)] == [""] * 3
    await throttle(world, "bot", 1)
    assert await count(world, guarded[0], "tok_files") == ""
    clock.advance(us=60 * MINUTE)
    assert await count(world, guarded[0], "tok_files") != "throttled", "it has ended"


@pytest.mark.parametrize("way", ["a part of its task", "a token that was exchanged"])
async def test_calls_made_through_a_throttled_agent_count_for_it(
    world: World, guarded: tuple[Resource, Resource], way: str
) -> None:
    files, _ = guarded
    helper = await register_agent(world, "helper")
    top = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to read")))
    more: dict[str, Any] = {"task": top.task_id, "parent": "tok_files"}
    if way == "a part of its task":
        part = await run_act(
            world, lambda a: tasks.start(a, TaskSpec(agent="helper", purpose="to help", parent=top.task_id))
        )
        more = {"task": part.task_id}
    await create_holding(world, helper, "tok_helper", audience=FILES, **more)
    await throttle(world, "bot", 1)
    assert [await count(world, files, "tok_helper") for _ in range(2)] == ["", "throttled"]


async def test_a_call_refused_for_one_agent_of_the_chain_is_counted_for_no_other(
    world: World, guarded: tuple[Resource, Resource]
) -> None:
    files, _ = guarded
    helper = await register_agent(world, "helper")
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="helper", purpose="alone")))
    await create_holding(world, helper, "tok_alone", audience=FILES, task=task.task_id)
    await create_holding(world, helper, "tok_through", audience=FILES, task=task.task_id, parent="tok_files")
    await throttle(world, "helper", 1)
    await throttle(world, "bot", 0)
    assert await count(world, files, "tok_through") == "throttled"
    assert await count(world, files, "tok_alone") == ""


async def test_a_guard_counts_calls_for_live_tokens_of_its_own_resource_alone(
    world: World, guarded: tuple[Resource, Resource], clock: Clock
) -> None:
    """Otherwise a lying tool server could use up the calls that an agent has at other resources."""
    files, bank = guarded
    await throttle(world, "bot", 1)
    for resource, token in ((bank, "tok_files"), (files, "tok_bank"), (files, "tok_none"), (files, "")):
        assert await count(world, resource, token) == "foreign_token"
    assert await count(world, files, "tok_files", more=1) not in ("", "throttled")
    assert await count(world, files, "tok_files") == "", "none of it was counted"
    clock.advance(us=3600 * 1_000_000)
    assert await count(world, files, "tok_files") == "foreign_token"
