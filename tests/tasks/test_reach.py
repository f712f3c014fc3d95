"""Bounds of a task name only what its agent can reach."""

from __future__ import annotations

from typing import Any

import pytest

from harness.registry_fixtures import register_agent, run_act
from ostiary.authorization.bounds import InvalidDetails, parse_details
from ostiary.protocol.errors import Forbidden
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import parse_catalogue
from ostiaryd.tasks import flows
from ostiaryd.tasks.model import Task, TaskSpec

FILES, MAIL = "https://files.example/mcp", "http://localhost:9000/mail"
TOOLS = {
    "resource": "files",
    "tools": [{"name": "read_file", "effect": "read"}, {"name": "put_file", "effect": "write"}],
}


async def build(world: World) -> None:
    """Two resources, one with a catalogue, and an agent that may read the one and send by the other."""
    catalogue = parse_catalogue("files", TOOLS)
    await run_act(world, lambda a: registry.create_resource(a, name="files", uri=FILES))
    await run_act(world, lambda a: registry.set_catalogue(a, "files", catalogue))
    await run_act(world, lambda a: registry.create_resource(a, name="mail", uri=MAIL))
    await register_agent(world, scopes=["files:read", "mail:send"])


async def start(world: World, *details: dict[str, Any], unregistered: bool = True, **more: Any) -> Task:
    bounds = parse_details([{"type": "tool"} | detail for detail in details])
    return await run_act(
        world,
        lambda a: flows.start(a, TaskSpec(agent="bot", purpose="p", bounds=bounds, unregistered=unregistered, **more)),
    )


async def test_bounds_that_the_agent_can_reach_are_recorded_exactly(world: World) -> None:
    await build(world)
    cases: list[dict[str, Any]] = [
        {"locations": [FILES]},
        {"locations": [FILES], "actions": ["read_file"], "arguments": {"path": {"prefix": "/srv/"}}},
        {"locations": [MAIL], "actions": ["whatever"]},
        {"locations": ["https://elsewhere.example/"], "actions": ["whatever"]},
        {"locations": [FILES, MAIL, "https://elsewhere.example/"]},
    ]
    for detail in cases:
        task = await start(world, detail)
        assert task.bounds == parse_details([{"type": "tool"} | detail]), detail
        assert flows.live(world.db.read(), task.task_id, now=world.now()) == task, detail


async def test_bounds_that_the_agent_cannot_reach_are_refused_with_the_reason(world: World) -> None:
    await build(world)
    cases: list[tuple[dict[str, Any], list[str] | None, type[Exception] | None, str]] = [
        ({"locations": [FILES], "actions": ["put_file"]}, None, Forbidden, "the task lacks the scope files:write"),
        ({"locations": [FILES], "actions": ["read_file", "put_file"]}, None, Forbidden, "files:write"),
        ({"locations": [FILES], "actions": ["no_tool"]}, None, InvalidDetails, "has no tool 'no_tool'"),
        ({"locations": [MAIL]}, ["files:read"], Forbidden, "no scope of `mail`"),
        ({"locations": [FILES]}, [], Forbidden, "no scope of `files`"),
        ({"locations": [FILES + "/"]}, None, None, ""),
        ({"locations": ["http://elsewhere.example/"]}, None, InvalidDetails, "not a registered resource"),
        ({"locations": ["urn:files"]}, None, InvalidDetails, "not a registered resource"),
        ({"locations": [FILES, "http://elsewhere.example/"]}, None, InvalidDetails, "not a registered resource"),
    ]
    for detail, scopes, refusal, why in cases:
        if refusal is None:
            assert await start(world, detail, scopes=scopes), detail
            continue
        with pytest.raises(refusal, match=why):
            await start(world, detail, scopes=scopes)


async def test_the_hint_for_an_unknown_tool_names_only_tools_that_the_agent_can_call(world: World) -> None:
    await build(world)
    for wrong, hint in (("red_file", "did you mean `read_file`?"), ("put", "known: read_file")):
        with pytest.raises(InvalidDetails) as refusal:
            await start(world, {"locations": [FILES], "actions": [wrong]})
        assert refusal.value.hint == hint
        assert "put_file" not in refusal.value.hint


async def test_unregistered_resources_can_be_forbidden(world: World) -> None:
    await build(world)
    with pytest.raises(InvalidDetails, match="not a registered resource"):
        await start(world, {"locations": ["https://elsewhere.example/"]}, unregistered=False)
    assert await start(world, {"locations": [FILES]}, unregistered=False)


async def test_one_unreachable_bound_refuses_the_whole_task(world: World) -> None:
    await build(world)
    with pytest.raises(Forbidden):
        await start(world, {"locations": [FILES]}, {"locations": [FILES], "actions": ["put_file"]})
