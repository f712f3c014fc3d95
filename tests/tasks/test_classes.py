"""Data classes from the catalogue to the token: stated at registration, stored, and only narrowed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.registry_fixtures import call_admin_api, register_agent
from ostiary.authorization import bounds
from ostiary.authorization.bounds import InvalidDetails, ToolDetail, parse_details
from ostiary.authorization.classes import STANDARD
from ostiaryd.ground.world import World
from ostiaryd.registry.model import AgentId
from ostiaryd.tasks.model import Task, TaskId, TaskState, put_under
from ostiaryd.tokens.model import InvalidTarget, Target, narrow_details

FILES, MAIL = "https://files.example/mcp", "https://mail.example/mcp"
READ: dict[str, Any] = {"name": "read", "effect": "read"}
WRITE: dict[str, Any] = {"name": "write", "effect": "write"}


async def register(world: World, *tools: dict[str, Any], **more: Any) -> tuple[int, dict[str, Any]]:
    body = {"name": "files", "uri": FILES, "catalogue": {"resource": "files", "tools": list(tools)}}
    return await call_admin_api(world, "POST", "/resources", body | more)


async def catalogue(world: World) -> dict[str, Any]:
    _, shown = await call_admin_api(world, "GET", "/resources/files")
    return dict(shown["catalogue"])


# --- resources -------------------------------------------------------------------------------------------------------


async def test_the_data_classes_of_a_new_resource_are_kept_when_its_tools_are_listed_again(world: World) -> None:
    status, _ = await register(world, READ | {"data_classes": ["health"]}, data_classes=["personal"])
    assert status == 201
    listed = {"tools": [{"name": "read", "inputSchema": {}}, {"name": "write", "inputSchema": {}}]}
    assert (await call_admin_api(world, "PUT", "/resources/files/catalogue", {"catalogue": listed}))[0] == 200
    kept = await catalogue(world)
    assert kept["data_classes"] == ["personal"]
    assert {tool["name"]: tool.get("data_classes") for tool in kept["tools"]} == {"read": ["health"], "write": None}


async def test_the_data_classes_of_a_resource_apply_to_a_catalogue_that_is_added_later(world: World) -> None:
    assert (await register(world, catalogue=None, data_classes=["secret"]))[0] == 201
    own = {"resource": "files", "tools": [READ]}
    await call_admin_api(world, "PUT", "/resources/files/catalogue", {"catalogue": own})
    assert (await catalogue(world))["data_classes"] == ["secret"]
    status, changed = await call_admin_api(world, "PUT", "/resources/files/data-classes", {"data_classes": []})
    assert (status, changed["data_classes"]) == (200, [])
    assert (await catalogue(world))["data_classes"] == []


@pytest.mark.parametrize("name", ["helth", "Health", "he\u0430lth", "health ", ""])
async def test_an_unknown_data_class_is_refused_with_the_list_of_data_classes(world: World, name: str) -> None:
    for body in (
        {"data_classes": ["public", name]},
        {"catalogue": {"resource": "files", "tools": [], "data_classes": [name]}},
    ):
        status, refusal = await register(world, **body)
        assert status in (400, 422)
        assert "files" not in str(await call_admin_api(world, "GET", "/resources"))
    await register(world, READ)
    status, refusal = await call_admin_api(world, "PUT", "/resources/files/data-classes", {"data_classes": [name]})
    assert (status, refusal["hint"]) == (
        422,
        "use one of public, internal, confidential, personal, health, payment, secret",
    )
    status, _ = await call_admin_api(world, "PUT", "/resources/files/data-classes", {"data_classes": ["public"] * 33})
    assert status == 400
    assert "data_classes" not in await catalogue(world)


async def test_an_agent_is_shown_with_the_data_classes_that_its_scopes_reach(world: World) -> None:
    await register(
        world, READ | {"data_classes": ["health"]}, WRITE | {"data_classes": ["secret"]}, data_classes=["internal"]
    )
    await register_agent(world, scopes=["files:read", "nowhere:read"])
    assert (await call_admin_api(world, "GET", "/agents/bot"))[1]["data_classes"] == ["health", "internal"]


# --- tasks -----------------------------------------------------------------------------------------------------------


async def start(world: World, **more: Any) -> tuple[int, dict[str, Any]]:
    return await call_admin_api(world, "POST", "/tasks", {"agent": "bot", "purpose": "p"} | more)


async def test_the_data_classes_of_a_new_task_limit_all_its_bounds(world: World) -> None:
    await register(world, READ)
    await call_admin_api(world, "POST", "/resources", {"name": "mail", "uri": MAIL})
    await register_agent(world, scopes=["files:read", "mail:send", "ostiary:read"])
    status, task = await start(world, data_classes=["health", "internal"])
    assert (status, task["data_classes"]) == (201, ["health", "internal"])
    assert task["bounds"] == [{"type": "tool", "locations": [FILES, MAIL], "datatypes": ["health", "internal"]}]
    told = [
        {"type": "tool", "locations": [FILES], "datatypes": ["health", "secret"]},
        {"type": "tool", "locations": [FILES], "actions": ["read"]},
        {"type": "tool", "locations": [FILES], "datatypes": ["secret"]},
    ]
    status, task = await start(world, bounds=told, data_classes=["health"])
    assert (status, task["bounds"]) == (201, [told[0] | {"datatypes": ["health"]}, told[1] | {"datatypes": ["health"]}])


@pytest.mark.parametrize("classes", [[], ["helth"], ["Health"], ["public"] * 33, ["public"]])
async def test_a_task_with_invalid_or_unreachable_data_classes_is_refused(world: World, classes: list[str]) -> None:
    await register(world, READ)
    await register_agent(world, scopes=["files:read"])
    told = [{"type": "tool", "locations": [FILES], "datatypes": ["secret"]}]
    status, _ = await start(world, bounds=told, data_classes=classes)
    assert status == 422
    assert (await call_admin_api(world, "GET", "/tasks"))[1]["tasks"] == []


async def test_data_classes_for_a_task_that_reaches_no_resource_are_refused(world: World) -> None:
    """A task without bounds would allow everything that its scopes allow."""
    await register_agent(world, scopes=["nowhere:read"])
    status, refusal = await start(world, data_classes=["health"])
    assert (status, refusal["error"]) == (422, "invalid_authorization_details")


async def test_a_child_task_has_no_data_class_beyond_those_of_its_parent(world: World) -> None:
    await register(world, READ)
    await register_agent(world, scopes=["files:read"])
    _, whole = await start(world, data_classes=["health", "internal"])
    for wider in (["public"], ["health", "public"]):
        told = [{"type": "tool", "locations": [FILES], "datatypes": wider}]
        assert (await start(world, parent=whole["task_id"], bounds=told))[0] == 422
    assert (await start(world, parent=whole["task_id"], bounds=[{"type": "tool", "locations": [FILES]}]))[0] == 422
    _, part = await start(world, parent=whole["task_id"], data_classes=["health", "public"])
    assert part["data_classes"] == ["health"]
    assert (await start(world, parent=whole["task_id"], data_classes=["public"]))[0] == 422
    _, same = await start(world, parent=whole["task_id"])
    assert same["bounds"] == whole["bounds"]


# --- from task to child to token to exchange, whatever is asked -------------------------------------------------------


def task(*details: ToolDetail) -> Task:
    return Task(
        task_id=TaskId("tk_1"),
        agent=AgentId("ag_1"),
        person=None,
        purpose="p",
        scopes=frozenset(),
        bounds=details,
        state=TaskState.LIVE,
        created_at=0,
        expires_at=None,
    )


some_classes = st.none() | st.lists(st.sampled_from(STANDARD[:4]), min_size=1, max_size=3).map(tuple)
some_details = st.lists(
    st.builds(ToolDetail, locations=st.sampled_from([(FILES,), (MAIL,), (FILES, MAIL)]), datatypes=some_classes),
    max_size=3,
).map(tuple)
handled = st.frozensets(st.sampled_from(STANDARD[:4]))


@given(some_details.filter(bool), some_details, st.lists(some_details, max_size=3), handled)
def test_data_classes_only_narrow_from_task_to_child_task_to_token_to_exchange(
    whole: tuple[ToolDetail, ...],
    part: tuple[ToolDetail, ...],
    asked: list[tuple[ToolDetail, ...]],
    classes: frozenset[str],
) -> None:
    had, target = whole, Target(FILES)
    try:
        held = put_under(task(*part), task(*whole)).bounds
        for more in ((), *asked):
            held, had = narrow_details(more, task=held, target=target), held
            assert held
            assert bounds.is_within(held, had)
    except (InvalidDetails, InvalidTarget):
        held = had
    call: dict[str, Any] = {"resource_uri": FILES, "tool": "read", "arguments": {}, "classes": classes}
    assert not bounds.permits(held, **call) or bounds.permits(whole, **call)


def test_bounds_that_are_narrowed_to_a_resource_keep_their_data_classes() -> None:
    """A token without the data classes would be wider than its task."""
    both = parse_details([{"type": "tool", "locations": [FILES, MAIL], "datatypes": ["health"]}])
    [cut] = narrow_details((), task=both, target=Target(FILES))
    assert (cut.locations, cut.datatypes) == ((FILES,), ("health",))
