"""The search for used secrets, for guards that have none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import create_holding, newest_entry, register_agent, run_act
from ostiary.protocol.errors import Refused
from ostiary.protocol.secret_forms import MAX_SEARCHED
from ostiaryd.feed import wire_feed
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Caller, Resource
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec

FILES, VALUE = "https://files.example/mcp", "sk-c4n4ry/+Zz=4711"


@pytest.fixture
async def files(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="files", uri=FILES))


@pytest.fixture
async def bot(world: World, files: Resource) -> Agent:
    """An agent whose proxy has used a secret, with a token for the files."""
    bot = await register_agent(world)
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to read")))
    await create_holding(world, bot, "tok_files", audience=FILES, task=task.task_id, seconds=60)
    await run_act(world, lambda a: registry.know_secret(a, bot.agent_id, VALUE))
    return bot


async def search(world: World, resource: Resource, token: str, text: str, **more: Any) -> str:
    """The code of the refusal."""
    body = json.dumps({"token": token, "text": text} | more).encode()
    by = Caller(kind="guard", id=resource.resource_id, name="x", owner=None, scopes=frozenset({"ostiary:feed"}))
    call = Call(world, "POST", "/feed/v1/find-secret", {}, "", [(b"content-type", b"application/json")], body, "rq", by)
    try:
        assert (await wire_feed.find_secret(call)).status == 200
    except Refused as refusal:
        return refusal.code
    return ""


async def test_a_call_with_a_secret_is_refused_with_an_entry(world: World, files: Resource, bot: Agent) -> None:
    before = newest_entry(world)
    assert await search(world, files, "tok_files", "x" * MAX_SEARCHED) == ""
    assert newest_entry(world) == before
    assert await search(world, files, "tok_files", f"the key is {VALUE}") == "secret_sent"
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.agent, entry.owner) == (
        "secret.find",
        "refused",
        bot.agent_id,
        bot.owner,
    )
    assert (entry.resource, entry.reporter, entry.token) == (FILES, files.resource_id, "tok_files")
    assert (entry.reasons[0].code, VALUE in repr(entry)) == ("secret_sent", False)
    assert await search(world, files, "tok_files", "é" * (MAX_SEARCHED // 2) + "x") == "too_long_to_search"


@pytest.mark.parametrize("way", ["a part of its task", "a token that was exchanged", "alone"])
async def test_calls_made_through_an_agent_are_searched_for_its_secrets(
    world: World, files: Resource, bot: Agent, way: str
) -> None:
    helper = await register_agent(world, "helper")
    top = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to read")))
    parent = top.task_id if way == "a part of its task" else None
    part = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="helper", purpose="p", parent=parent)))
    more: dict[str, Any] = {"parent": "tok_files"} if way == "a token that was exchanged" else {}
    await create_holding(world, helper, "tok_helper", audience=FILES, task=part.task_id, **more)
    assert await search(world, files, "tok_helper", VALUE) == ("" if way == "alone" else "secret_sent")


async def test_a_guard_can_search_secrets_only_for_live_tokens_of_its_own_resource(
    world: World, files: Resource, bot: Agent, clock: Clock
) -> None:
    """Else a tool server that lies could find out secrets of agents that never called it."""
    bank = await run_act(world, lambda a: registry.create_resource(a, name="bank", uri="https://bank.example/mcp"))
    for resource, token in ((bank, "tok_files"), (files, "tok_none"), (files, "")):
        assert await search(world, resource, token, VALUE) == "foreign_token"
    assert await search(world, files, "tok_files", VALUE, more=1) not in ("", "secret_sent")
    assert await search(world, files, "tok_files", VALUE) == "secret_sent"
    clock.advance(us=60 * 1_000_000)
    assert await search(world, files, "tok_files", VALUE) == "foreign_token"
