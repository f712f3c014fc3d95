"""The private values of tokens: what reads them, their limits, and what ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.registry_fixtures import newest_entry
from ostiaryd.ground.database import sql
from ostiaryd.ground.http.edge import SMALL_BODY
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import act
from ostiaryd.secrets import flows
from ostiaryd.secrets.flows.cubbyhole import MAX_VALUES
from tests.secrets.role_fixtures import child_of
from tests.secrets.transit_fixtures import done, refused
from tests.secrets.vault_fixtures import POLICIES, VaultAgent, enter_agent, permit_all, seal_all, unseal
from tests.support.certificate_fixtures import put_policies

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from harness.clock import Clock
    from ostiaryd.ground.world import World

CANARY = "cubby-c4n4ry"
ROWS = sql("select path, sealed from cubbyhole_value")


async def test_a_token_stores_reads_lists_and_deletes_private_values(world: World, bot: VaultAgent) -> None:
    """The policy that permits an agent its own secrets permits its tokens their private values."""
    await done(bot, "POST", "cubbyhole/a", {"password": CANARY})
    await done(bot, "PUT", "cubbyhole/folder/b", {"n": 1, "deep": {"l": [None]}})
    assert await done(bot, "GET", "cubbyhole/a") == {"password": CANARY}
    entry = newest_entry(world)
    assert (entry.action, entry.object, entry.detail) == ("vault.read", "cubbyhole/a", {"operation": "read"})
    assert await done(bot, "GET", "cubbyhole/folder/b") == {"n": 1, "deep": {"l": [None]}}
    assert await done(bot, "LIST", "cubbyhole") == {"keys": ["a", "folder/"]}
    for path in ("cubbyhole/?list=true", "cubbyhole?list=true"):
        assert await done(bot, "GET", path) == {"keys": ["a", "folder/"]}
    assert await done(bot, "LIST", "cubbyhole/folder") == {"keys": ["b"]}
    await done(bot, "POST", "cubbyhole/a", {"other": 1})
    assert await done(bot, "GET", "cubbyhole/a") == {"other": 1}, "a write replaces the whole value"
    for _ in range(2):
        await done(bot, "DELETE", "cubbyhole/a")
    assert await bot.status("GET", "cubbyhole/a") == 404
    assert await done(bot, "LIST", "cubbyhole/") == {"keys": ["folder/"]}
    shown = (await done(bot, "GET", "sys/internal/ui/mounts"))["secret"]["cubbyhole/"]
    assert shown["type"] == "cubbyhole"
    entries = b"".join(body for _, body in ledger.search_entries(world.db.read(), {}, limit=500))
    stored = b"".join(bytes(part) for row in world.db.read().all(ROWS) for part in row)
    assert CANARY.encode() not in entries + stored


async def test_private_values_are_readable_only_by_their_token(world: World, app: ASGIApp, bot: VaultAgent) -> None:
    await permit_all(world)
    child = await child_of(bot)
    other = await (await enter_agent(world, app, "other")).login()
    await done(bot, "POST", "cubbyhole/a", {"who": "bot"})
    for one in (child, other):
        await refused(world, one, 404, "GET", "cubbyhole/a")
        await refused(world, one, 404, "LIST", "cubbyhole")
        await done(one, "DELETE", "cubbyhole/a")
        await done(one, "POST", "cubbyhole/a", {"who": one.name, "kind": "other"})
    assert await done(bot, "GET", "cubbyhole/a") == {"who": "bot"}
    bearer = [("authorization", f"Bearer {await bot.bearer()}")]
    assert await bot.status("GET", "cubbyhole/a", token="", headers=bearer) == 403, "an access token has no values"
    assert await bot.status("GET", "cubbyhole/a", token="") == 403


async def test_private_values_are_deleted_with_their_token(world: World, bot: VaultAgent, clock: Clock) -> None:
    await permit_all(world)
    child = await child_of(bot, ttl="60s")
    await done(child, "POST", "cubbyhole/a", {"n": 1})
    await done(bot, "POST", "cubbyhole/a", {"n": 2})
    await done(bot, "POST", "auth/token/revoke", {"token": child.token})
    assert await child.status("GET", "cubbyhole/a") == 403
    await flows.forget_private_values(world)
    assert await done(bot, "GET", "cubbyhole/a") == {"n": 2}
    await bot.login()
    assert await bot.status("GET", "cubbyhole/a") == 404, "another login is another token"
    clock.advance(86_401)
    await flows.forget_private_values(world)
    assert world.db.read().all(ROWS) == []


async def test_private_values_are_limited_in_number_and_size(world: World, bot: VaultAgent) -> None:
    for number in range(MAX_VALUES):
        await done(bot, "POST", f"cubbyhole/{number}", {"n": number})
    await done(bot, "POST", "cubbyhole/0", {"n": "again"})
    assert "100 private values" in await refused(world, bot, 400, "POST", "cubbyhole/one-more", {"n": 1})
    await done(bot, "DELETE", "cubbyhole/1")
    await done(bot, "POST", "cubbyhole/one-more", {"n": 1})
    content = b'{"a":"%s"}' % (b"x" * (SMALL_BODY - 8))
    await done(bot, "POST", "cubbyhole/0", content)
    assert await bot.status("POST", "cubbyhole/0", content + b" ") == 413
    for status, method, path, body in (
        (400, "POST", "a", {}),
        (405, "POST", "", {"a": 1}),
        (405, "POST", "a/", {"a": 1}),
        (405, "GET", "", None),
        (405, "PATCH", "a", {"a": 1}),
        (400, "GET", "a//b", None),
        (400, "GET", "%252e%252e/a", None),
        (404, "GET", "\u00fc", None),
    ):
        assert await bot.status(method, f"cubbyhole/{path}", body) == status, path


async def test_policies_decide_about_private_values(world: World, bot: VaultAgent) -> None:
    forbid = (
        '@id("no-cubbyhole") forbid (principal, action, resource is Secret) when { resource.mount == "cubbyhole" };'
    )
    await permit_all(world)
    rules = 'path "cubbyhole/own" { capabilities = ["create", "read"] }'
    await done(bot, "POST", "sys/policies/acl/own", {"policy": rules})
    own = await child_of(bot, policies=["own"], no_default_policy=True)
    by_default = await child_of(bot, policies=["default"])
    await done(own, "POST", "cubbyhole/own", {"n": 1})
    await refused(world, own, 403, "POST", "cubbyhole/own", {"n": 2})  # an update
    await refused(world, own, 403, "POST", "cubbyhole/other", {"n": 1})
    await done(by_default, "POST", "cubbyhole/any", {"n": 1})
    shown = await done(by_default, "POST", "sys/capabilities-self", {"paths": ["cubbyhole/any", "secret/data/any"]})
    assert shown["cubbyhole/any"] == ["create", "delete", "list", "read", "update"]
    assert shown["secret/data/any"] == ["deny"]
    await put_policies(world, POLICIES + forbid)
    for method in ("GET", "DELETE"):
        await refused(world, bot, 403, method, "cubbyhole/any")


async def test_private_values_are_sealed_and_re_encrypted_after_a_key_rotation(world: World, bot: VaultAgent) -> None:
    await done(bot, "POST", "cubbyhole/a", {"n": 1})
    before = world.db.read().all(ROWS)
    await act(world, "vault.rotate", flows.rotate_keys)
    assert await flows.renew_envelopes(world) >= 1
    assert world.db.read().all(ROWS) != before
    assert await done(bot, "GET", "cubbyhole/a") == {"n": 1}
    await seal_all(world)
    assert await bot.status("GET", "cubbyhole/a") == 503
    await unseal(world)
    assert await done(bot, "GET", "cubbyhole/a") == {"n": 1}
