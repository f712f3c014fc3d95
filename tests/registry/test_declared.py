"""A scope that no resource declares is refused where it is given to an agent, with the nearest that is declared."""

from __future__ import annotations

from typing import Any

import pytest

from harness.registry_fixtures import call_admin_api
from ostiaryd.ground.world import World

BOT = {"name": "bot", "owner": "alice", "purpose": "to be tried on"}

TOOLS = [{"name": "read_file", "effect": "read"}, {"name": "move", "effect": "change", "scope": "move"}]


@pytest.fixture
async def files(world: World) -> World:
    assert (await call_admin_api(world, "POST", "/persons", {"name": "alice"}))[0] == 201
    catalogue = {"resource": "files", "tools": TOOLS}
    made = {"name": "files", "uri": "https://files.example/mcp", "catalogue": catalogue}
    assert (await call_admin_api(world, "POST", "/resources", made))[0] == 201
    assert (await call_admin_api(world, "POST", "/resources", {"name": "mail", "uri": "https://mail.example/mcp"}))[
        0
    ] == 201
    return world


async def refused(world: World, *scopes: str) -> dict[str, Any]:
    status, refusal = await call_admin_api(world, "POST", "/agents", BOT | {"scopes": list(scopes)})
    assert (status, refusal["error"]) == (422, "undeclared_scope")
    return dict(refusal)


async def test_an_undeclared_scope_is_refused_with_the_nearest_declared_scope(files: World) -> None:
    for scope, near in (
        ("flies:read", "files:read"),
        ("files:raed", "files:read"),
        ("files:write", "files:move"),  # none of its tools writes
        ("ostiary:raed", "ostiary:read"),
        ("mial:read", "mail:read"),
    ):
        refusal = await refused(files, "files:read", scope)
        assert f"`{scope}`" in refusal["message"]
        assert scope == "files:write" or f"did you mean `{near}`?" in refusal["hint"], refusal
    assert (await call_admin_api(files, "GET", "/agents/bot"))[0] == 404  # nothing was registered


async def test_declared_scopes_and_any_scope_of_a_resource_without_a_catalogue_are_accepted(files: World) -> None:
    scopes = ["files:move", "files:read", "mail:anything", "ostiary:read"]
    status, made = await call_admin_api(files, "POST", "/agents", BOT | {"scopes": scopes})
    assert (status, made["scopes"]) == (201, scopes)


async def test_an_added_scope_must_be_declared_and_an_earlier_undeclared_scope_may_stay(files: World) -> None:
    given = BOT | {"scopes": ["later:read"]}
    assert (await call_admin_api(files, "POST", "/agents", given | {"undeclared": True}))[0] == 201
    status, refusal = await call_admin_api(files, "PATCH", "/agents/bot", {"scopes": ["later:read", "files:reed"]})
    assert (status, refusal["error"]) == (422, "undeclared_scope")
    status, changed = await call_admin_api(files, "PATCH", "/agents/bot", {"scopes": ["later:read", "files:read"]})
    assert (status, changed["scopes"]) == (200, ["files:read", "later:read"])
    status, changed = await call_admin_api(
        files, "PATCH", "/agents/bot", {"scopes": ["later:write"], "undeclared": True}
    )
    assert (status, changed["scopes"]) == (200, ["later:write"])
