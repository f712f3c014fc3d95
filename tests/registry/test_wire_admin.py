"""Persons, agents and resources by the admin API: requests, responses and refusals."""

from __future__ import annotations

from typing import Any

from harness.registry_fixtures import ADMIN, ROUTES, SECOND, call_admin_api, new_jwk, newest_entry
from ostiary.protocol import jose
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.registry.model import SELF
from ostiaryd.registry.wire_admin.agents import NewAgent

BOT = {"name": "bot", "owner": "alice", "purpose": "to be tried on"}


async def test_a_person_an_agent_with_its_key_and_a_resource_are_created_and_shown(world: World) -> None:
    status, alice = await call_admin_api(world, "POST", "/persons", {"name": "alice", "email": "alice@example.org"})
    assert (status, alice["name"], alice["state"]) == (201, "alice", "active")
    jwk = new_jwk()
    more = {"scopes": ["files:write", "files:read"], "undeclared": True}
    more |= {"kind": "autonomous", "expires_in": 60, "jwk": jwk}
    status, bot = await call_admin_api(world, "POST", "/agents", BOT | more)
    start = world.now() // SECOND
    assert (status, bot["state"], bot["epoch"]) == (201, "active", 0)
    assert (bot["owner"], bot["owner_id"]) == ("alice", alice["person_id"])
    assert (bot["scopes"], bot["segment"]) == (["files:read", "files:write"], "default")
    assert bot["spiffe_id"] == "spiffe://example.org/agent/bot"
    assert (bot["created_at"], bot["expires_at"]) == (start, start + 60)
    assert [key["kid"] for key in bot["keys"]] == [jose.parse_public_jwk(jwk).thumbprint]
    assert (
        (await call_admin_api(world, "GET", "/agents/bot"))
        == (200, bot)
        == (await call_admin_api(world, "GET", f"/agents/{bot['agent_id']}"))
    )
    status, files = await call_admin_api(
        world,
        "POST",
        "/resources",
        {"name": "files", "uri": "https://files.example", "jwk": new_jwk(), "catalogue": {"tools": [{"name": "read"}]}},
    )
    assert (status, files["mode"], files["catalogue_version"]) == (201, "enforce", 1)
    status, shown = await call_admin_api(world, "GET", "/resources/files")
    [tool] = shown["catalogue"]["tools"]
    assert len(tool.pop("definition")) == 43
    assert shown == files | {"catalogue": {"resource": "files", "tools": [{"effect": "destroy", "name": "read"}]}}


async def test_each_property_of_a_new_agent_is_in_the_response(world: World) -> None:
    for person in ("alice", "bob"):
        await call_admin_api(world, "POST", "/persons", {"name": person})
    chosen: dict[str, Any] = BOT | {"kind": "service", "deputy": "bob", "provider": "acme", "model": "m-1"}
    chosen |= {"risk_tier": "high", "segment": "blue", "scopes": ["files:read"], "max_depth": 5}
    assert set(chosen) == set(NewAgent.__struct_fields__) - {"expires_in", "jwk", "undeclared"}
    status, made = await call_admin_api(world, "POST", "/agents", chosen | {"undeclared": True})
    assert (status, {name: made[name] for name in chosen}) == (201, chosen)


async def test_the_ledger_entry_names_the_caller_and_the_request(world: World) -> None:
    await call_admin_api(world, "POST", "/persons", {"name": "alice"})
    entry = newest_entry(world)
    assert (entry.action, entry.agent, entry.owner, entry.request) == ("person.create", ADMIN.id, ADMIN.owner, "rq_1")
    assert (entry.task, entry.token, entry.key) == (ADMIN.task, ADMIN.token, ADMIN.jkt)
    await call_admin_api(world, "POST", "/persons", {"name": "alice"})
    entry = newest_entry(world)
    assert (entry.outcome, entry.agent, entry.reasons[0].code) == ("refused", ADMIN.id, "name_taken")


async def test_each_verb_of_the_admin_api_changes_the_state_and_the_epoch_of_an_agent(world: World) -> None:
    await call_admin_api(world, "POST", "/persons", {"name": "alice"})
    await call_admin_api(world, "POST", "/agents", BOT | {"jwk": new_jwk()})
    seen = []
    for verb in ("suspend", "resume", "quarantine", "release", "decommission"):
        status, bot = await call_admin_api(world, "POST", f"/agents/bot/{verb}", {"why": "a drill"})
        seen.append((status, bot["state"], bot["epoch"]))
        assert (bot["seq"], bot["committed_at"]) == (outbox.highest_number(world.db.read()), world.now())
        assert newest_entry(world).action == f"agent.{verb}"
    assert seen == [
        (200, "suspended", 1),
        (200, "active", 1),
        (200, "quarantined", 2),
        (200, "active", 2),
        (200, "decommissioned", 3),
    ]
    status, refusal = await call_admin_api(world, "POST", "/agents/bot/resume", {})
    assert (status, refusal["error"]) == (409, "wrong_state")
    assert "decommissioning is final" in refusal["hint"]


async def test_keys_are_added_rotated_revoked_and_listed(world: World) -> None:
    await call_admin_api(world, "POST", "/persons", {"name": "alice"})
    _, bot = await call_admin_api(world, "POST", "/agents", BOT)
    assert bot["state"] == "pending"
    status, first = await call_admin_api(world, "POST", "/agents/bot/keys", {"jwk": new_jwk(), "expires_in": 3600})
    assert (status, first["agent_id"], first["not_after"] - first["added_at"]) == (201, bot["agent_id"], 3600)
    status, second = await call_admin_api(world, "POST", "/agents/bot/keys/rotate", {"jwk": new_jwk(), "overlap_s": 60})
    assert status == 201
    _, listed = await call_admin_api(world, "GET", "/agents/bot/keys")
    ends = {key["kid"]: key["not_after"] for key in listed["keys"]}
    assert ends == {first["kid"]: first["added_at"] + 60, second["kid"]: None}
    assert await call_admin_api(world, "DELETE", f"/agents/bot/keys/{second['kid']}") == (200, {"revoked": {}})
    _, listed = await call_admin_api(world, "GET", "/agents/bot/keys")
    assert [key["revoked_at"] is None for key in listed["keys"] if key["kid"] == second["kid"]] == [False]
    assert (await call_admin_api(world, "DELETE", "/agents/bot/keys/unknown"))[0] == 404


async def test_a_change_of_several_properties_of_an_agent_is_applied_completely_or_not_at_all(world: World) -> None:
    for name in ("alice", "bob"):
        await call_admin_api(world, "POST", "/persons", {"name": name})
    await call_admin_api(world, "POST", "/agents", BOT | {"jwk": new_jwk(), "expires_in": 60})
    change = {"owner": "bob", "deputy": "alice", "scopes": ["files:read"], "undeclared": True, "expires_in": None}
    status, bot = await call_admin_api(world, "PATCH", "/agents/bot", change)
    assert (status, bot["owner"], bot["deputy"]) == (200, "bob", "alice")
    assert (bot["scopes"], bot["expires_at"]) == (["files:read"], None)
    status, refusal = await call_admin_api(world, "PATCH", "/agents/bot", {"owner": "alice", "scopes": ["nonsense"]})
    assert (status, refusal["error"]) == (422, "invalid")
    assert (await call_admin_api(world, "GET", "/agents/bot"))[1] == bot
    assert await call_admin_api(world, "PATCH", "/agents/bot", {}) == (200, bot)


async def test_team_members_and_deputies_are_changed_and_shown(world: World) -> None:
    for name in ("alice", "bob"):
        await call_admin_api(world, "POST", "/persons", {"name": name})
    status, team = await call_admin_api(
        world, "POST", "/teams", {"name": "team", "members": ["alice"], "deputy": "bob"}
    )
    assert (status, team["members"], team["deputy"]) == (201, ["alice"], "bob")
    assert sorted((await call_admin_api(world, "PUT", "/teams/team/members/bob"))[1]["members"]) == ["alice", "bob"]
    assert (await call_admin_api(world, "DELETE", "/teams/team/members/alice"))[1]["members"] == ["bob"]
    assert (await call_admin_api(world, "PUT", "/teams/team/deputy", {"deputy": None}))[1]["deputy"] is None
    assert (await call_admin_api(world, "PUT", "/persons/alice/deputy", {"deputy": "bob"}))[1]["deputy"] == "bob"
    assert (await call_admin_api(world, "PUT", "/persons/team/deputy", {"deputy": "bob"}))[0] == 404
    assert (await call_admin_api(world, "GET", "/teams"))[1]["teams"] == [
        (await call_admin_api(world, "GET", "/teams/team"))[1]
    ]
    await call_admin_api(world, "POST", "/revoke", {"kind": "owner", "id": "alice"})
    assert (await call_admin_api(world, "GET", "/persons/alice"))[1]["state"] == "left"
    assert (await call_admin_api(world, "POST", "/persons/alice/return", {}))[1]["state"] == "active"


async def test_the_catalogue_the_mode_and_the_key_of_a_resource_are_changed(world: World) -> None:
    await call_admin_api(world, "POST", "/resources", {"name": "files", "uri": "https://files.example"})
    listing = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "read", "inputSchema": {"maximum": 0.5}}]}}
    status, files = await call_admin_api(world, "PUT", "/resources/files/catalogue", {"catalogue": listing})
    assert (status, files["catalogue_version"], len(files["catalogue_hash"])) == (200, 1, 43)
    assert (await call_admin_api(world, "PUT", "/resources/files/mode", {"mode": "watch"}))[1]["mode"] == "watch"
    jwk = new_jwk()
    assert (await call_admin_api(world, "PUT", "/resources/files/key", {"jwk": jwk}))[1][
        "kid"
    ] == jose.parse_public_jwk(jwk).thumbprint
    assert (await call_admin_api(world, "GET", "/resources"))[1]["resources"][0]["mode"] == "watch"


async def test_a_wrong_registry_request_is_refused_with_an_error_and_a_message(world: World) -> None:
    await call_admin_api(world, "POST", "/persons", {"name": "admin"})
    cases: list[tuple[str, str, Any, int]] = [
        ("POST", "/persons", {"name": "alice", "emial": "a@b"}, 400),
        ("POST", "/persons", {"name": 1}, 400),
        ("POST", "/persons", ["alice"], 400),
        ("POST", "/persons", {"name": "Alice"}, 422),
        ("POST", "/agents", {"name": "bot"}, 400),
        ("POST", "/agents", BOT, 404),
        ("POST", "/agents", BOT | {"kind": "robot"}, 400),
        ("POST", "/agents", BOT | {"owner": "admin", "expires_in": 0}, 422),
        ("POST", "/agents", BOT | {"owner": "admin", "expires_in": 10**30}, 422),
        ("POST", "/agents", BOT | {"owner": "admin", "jwk": {"kty": "oct", "k": "AAAA"}}, 422),
        ("GET", "/agents/nobody", None, 404),
        ("GET", "/agents?limit=0", None, 422),
        ("GET", "/agents?limit=1001", None, 422),
        ("GET", "/agents?limit=ten", None, 422),
        ("GET", "/agents?limit=1&limit=2", None, 400),
        ("GET", "/agents?owner=nobody", None, 404),
        ("POST", "/agents/nobody/suspend", {}, 404),
        ("POST", "/resources", {"name": "files", "uri": "http://files.example"}, 422),
        ("POST", "/resources", {"name": "files", "uri": "https://files.example", "mode": "off"}, 400),
        ("PUT", "/resources/nothing/catalogue", {"catalogue": {"tools": []}}, 404),
    ]
    for method, path, body, status in cases:
        answered, refusal = await call_admin_api(world, method, path, body)
        assert answered == status, (method, path, body, status)
        assert refusal["error"], (method, path, body, status)
        assert refusal["message"], (method, path, body, status)


async def test_a_filtered_list_of_agents_is_read_in_pages_until_its_end(world: World) -> None:
    await call_admin_api(world, "POST", "/persons", {"name": "alice"})
    await call_admin_api(world, "POST", "/persons", {"name": "bob"})
    made = [
        (await call_admin_api(world, "POST", "/agents", BOT | {"name": f"bot-{n}"}))[1]["agent_id"] for n in range(5)
    ]
    await call_admin_api(world, "POST", "/agents", BOT | {"name": "else", "owner": "bob"})
    found: list[str] = []
    after = ""
    for _ in range(3):
        _, page = await call_admin_api(world, "GET", f"/agents?owner=alice&limit=2{after}")
        found += [agent["agent_id"] for agent in page["agents"]]
        after = f"&after={page['next']}"
    assert page["next"] is None
    assert found == sorted(made)
    assert len((await call_admin_api(world, "GET", "/agents"))[1]["agents"]) == 6


def test_every_api_route_requires_a_scope_or_leaves_the_decision_to_its_flow() -> None:
    assert {route.scope for route in ROUTES if route.path.startswith("/api/")} == {
        "ostiary:admin",
        "ostiary:read",
        SELF,
    }
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)
    assert all(route.scope != "ostiary:read" for route in ROUTES if route.method != "GET")
