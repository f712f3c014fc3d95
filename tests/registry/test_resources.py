"""Resources: identifiers compared letter by letter, modes, guards' keys, and catalogues from hostile hands."""

from __future__ import annotations

from typing import Any

import pytest

from harness.registry_fixtures import (
    call_admin_api,
    create_holding,
    end_holdings,
    feed_messages,
    is_live,
    new_jwk,
    run_act,
)
from ostiary.authorization.catalogue import Catalogue
from ostiary.protocol.errors import Conflict, Invalid, Malformed, NotFound, Refused
from ostiaryd.ground.world import World
from ostiaryd.registry import flows
from ostiaryd.registry.model import Mode, Resource, Root, parse_catalogue
from ostiaryd.registry.store import resources

URI = "https://files.example/mcp"
TOOLS = {
    "tools": [
        {
            "name": "read_file",
            "inputSchema": {"type": "object", "properties": {"path": {"type": "string"}, "part": {"multipleOf": 0.5}}},
            "annotations": {"readOnlyHint": True},
        },
        {"name": "delete_file", "inputSchema": {"type": "object"}},
    ]
}


async def describe(world: World, unverified: object) -> Resource:
    catalogue = parse_catalogue("files", unverified)
    return await run_act(world, lambda a: flows.set_catalogue(a, "files", catalogue))


async def files(world: World, **more: Any) -> Resource:
    return await run_act(world, lambda a: flows.create_resource(a, **({"name": "files", "uri": URI} | more)))


async def test_a_resource_is_found_by_name_id_and_uri(world: World) -> None:
    made = await files(world, jwk=new_jwk(), mode=Mode.WATCH, segment="back")
    reader = world.db.read()
    assert made.jkt is not None
    assert resources.get_resource(reader, "files") == resources.get_resource(reader, made.resource_id) == made
    assert resources.get_resource_by_uri(reader, URI) == made
    assert resources.get_resource_by_uri(reader, URI + "/") is None
    assert feed_messages(world) == [{"kind": "resource", "resource": "files"}]


async def test_a_name_a_uri_and_a_key_belong_to_one_resource(world: World) -> None:
    jwk = new_jwk()
    await files(world, jwk=jwk)
    for taken, message in (
        ({"name": "files", "uri": "https://other.example"}, "the name `files` is taken"),
        ({"name": "other", "uri": URI}, "this URI is already registered"),
    ):
        with pytest.raises(Conflict, match=message):
            await files(world, **taken)
    with pytest.raises(Conflict, match="this key is already registered"):
        await files(world, name="other", uri="https://other.example", jwk=jwk)
    assert (await files(world, name="other", uri=URI + "/")).name == "other"


async def test_a_mode_change_of_a_resource_is_stored_and_sent_to_the_feed(world: World) -> None:
    await files(world)
    assert (await run_act(world, lambda a: flows.set_mode(a, "files", Mode.WATCH))).mode is Mode.WATCH
    assert flows.find_resource(world.db.read(), "files").mode is Mode.WATCH
    assert len(feed_messages(world)) == 2
    with pytest.raises(NotFound):
        await run_act(world, lambda a: flows.set_mode(a, "nothing", Mode.WATCH))


async def test_a_new_key_of_a_guard_ends_the_tokens_of_the_guard(world: World) -> None:
    made = await files(world, jwk=new_jwk())
    await create_holding(world, made.resource_id, "tok_guard", jkt=made.jkt)
    changed = await run_act(world, lambda a: flows.set_resource_key(a, "files", new_jwk()))
    assert changed == flows.find_resource(world.db.read(), "files")
    assert changed.jkt != made.jkt
    assert not is_live(world, "tok_guard")


async def test_an_unknown_resource_gets_no_holding(world: World) -> None:
    with pytest.raises(NotFound):
        await create_holding(world, "rs_" + "0" * 32, "tok_guard")
    assert await end_holdings(world, Root.HOLDING, "tok_guard") == {}


async def test_the_result_of_tools_list_becomes_the_catalogue_with_or_without_its_envelope(world: World) -> None:
    made = await files(world)
    first = await describe(world, TOOLS)
    again = await describe(world, {"jsonrpc": "2.0", "id": 1, "result": TOOLS})
    assert (first.catalogue_version, again.catalogue_version) == (1, 1)
    text = resources.get_catalogue(world.db.read(), made.resource_id)
    assert text is not None
    catalogue = Catalogue.parse(text)
    assert catalogue.digest == first.catalogue_hash
    assert catalogue.scopes == {"files:read", "files:write"}
    assert len(feed_messages(world)) == 2


async def test_a_changed_catalogue_gets_the_next_version(world: World) -> None:
    await files(world)
    await describe(world, TOOLS)
    own = {"resource": "files", "tools": [{"name": "pay", "effect": "pay"}]}
    changed = await describe(world, own)
    assert changed == flows.find_resource(world.db.read(), "files")
    assert changed.catalogue_version == 2


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def listing(*tools: dict[str, Any]) -> dict[str, Any]:
    return {"tools": list(tools)}


@pytest.mark.parametrize(
    "hostile",
    [
        {},
        {"tools": "none"},
        {"jsonrpc": "2.0", "result": "none"},
        {"jsonrpc": "2.0", "result": None},
        listing({"inputSchema": {}}),
        listing({"name": ""}),
        listing({"name": "x" * 129}),
        listing({"name": "read\nfile"}),
        listing({"name": "réad"}),
        listing({"name": "a"}, {"name": "a"}),
        listing(*[{"name": f"t{n}"} for n in range(1001)]),
        listing({"name": "a", "inputSchema": {"type": "string"}}),
        listing({"name": "a", "inputSchema": {"type": "object", "description": "x" * 65_536}}),
        listing({"name": "a", "inputSchema": nested(20)}),
        [],
        "tools",
        {"resource": "files", "tools": [{"name": "a", "effect": "explode"}]},
        {"resource": "files", "tools": [{"name": "a", "effect": "read", "unknown": 1}]},
    ],
    ids=range(18),
)
def test_a_hostile_catalogue_is_refused(hostile: object) -> None:
    with pytest.raises((Malformed, Invalid)):
        parse_catalogue("files", hostile)


def test_an_ostiary_catalogue_without_its_resource_is_not_read_as_a_list_of_tools() -> None:
    """If it were read as a list of tools, the statements of its owner would be lost, for example its canary tools."""
    ours = {"tools": [{"name": "trap", "effect": "read", "canary": True}]}
    with pytest.raises(Invalid) as refused:
        parse_catalogue("files", ours)
    assert '"resource": "files"' in refused.value.hint
    assert parse_catalogue("files", ours | {"resource": "files"}).tools["trap"].canary is True


async def test_the_catalogue_of_another_resource_is_refused(world: World) -> None:
    before = await files(world)
    with pytest.raises(Invalid, match="not of `files`"):
        await describe(world, {"resource": "mail", "tools": []})
    assert flows.find_resource(world.db.read(), "files") == before


async def test_a_catalogue_of_a_thousand_tools_is_accepted(world: World) -> None:
    await files(world)
    tools = listing(*[{"name": f"t{n}"} for n in range(1000)])
    assert (await describe(world, tools)).catalogue_version == 1


async def test_bootstrap_creates_the_administrator_once(world: World) -> None:
    jwk = new_jwk()
    agent_id = "ag_" + "1" * 32
    admin = await run_act(world, lambda a: flows.bootstrap_admin(a, public_jwk=jwk, agent_id=agent_id))
    assert (admin.agent_id, admin.name, admin.is_active(world.now())) == (agent_id, "admin", True)
    assert admin.scopes == {"ostiary:admin", "ostiary:decide", "ostiary:read"}
    assert flows.find_resource(world.db.read(), "ostiary").uri == world.config.api
    with pytest.raises(Refused):
        await run_act(world, lambda a: flows.bootstrap_admin(a, public_jwk=new_jwk()))


async def test_a_proposed_catalogue_is_confirmed_when_the_same_catalogue_is_put(world: World) -> None:
    await files(world)
    catalogue = parse_catalogue("files", TOOLS)
    proposed = await run_act(world, lambda a: flows.set_catalogue(a, "files", catalogue, is_proposed=True))
    assert (proposed.is_proposed, proposed.catalogue_version) == (True, 1)
    assert resources.get_resource(world.db.read(), "files") == proposed
    confirmed = await describe(world, TOOLS)
    assert (confirmed.is_proposed, confirmed.catalogue_version) == (False, 1)
    assert resources.get_resource(world.db.read(), "files") == confirmed


async def test_a_catalogue_update_that_is_based_on_a_replaced_catalogue_is_refused(world: World) -> None:
    first: dict[str, Any] = {"resource": "files", "tools": [{"name": "read_file", "effect": "read"}]}
    second: dict[str, Any] = {"resource": "files", "tools": [{"name": "read_file", "effect": "send"}]}
    await call_admin_api(
        world, "POST", "/resources", {"name": "files", "uri": "https://files.example/", "catalogue": first}
    )
    was = (await call_admin_api(world, "GET", "/resources/files"))[1]["catalogue_hash"]
    path = "/resources/files/catalogue"
    assert (await call_admin_api(world, "PUT", path, {"catalogue": second, "was": was}))[0] == 200
    status, refusal = await call_admin_api(world, "PUT", path, {"catalogue": first, "was": was})
    assert (status, refusal["error"]) == (409, "changed_meanwhile")
    assert (await call_admin_api(world, "GET", "/resources/files"))[1]["catalogue"]["tools"] == second["tools"]
    assert (await call_admin_api(world, "PUT", path, {"catalogue": first}))[0] == 200
