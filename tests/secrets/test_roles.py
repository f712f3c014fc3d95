"""Mounts that agents enable, roles and secret IDs, and child tokens: what they give, and what ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.registry_fixtures import newest_entry
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.secrets.model.mount import MAX_TTL_S
from ostiaryd.trust import flows as trust
from tests.secrets.role_fixtures import child_of, done, enter, role_of
from tests.secrets.vault_fixtures import HOME, POLICIES, VaultAgent, enter_agent, permit_all
from tests.support.certificate_fixtures import put_policies

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from harness.clock import Clock
    from ostiaryd.ground.world import World


async def test_a_mount_has_a_separate_store_until_the_mount_is_disabled(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await done(bot, "POST", "sys/mounts/team/shop", {"type": "kv", "options": {"version": "2"}})
    await done(bot, "POST", "team/shop/data/db", {"data": {"a": "b"}})
    assert newest_entry(world).object == "team/shop/db"
    assert (await done(bot, "GET", "team/shop/data/db"))["data"]["data"] == {"a": "b"}
    assert await bot.status("GET", "secret/data/db") == 404
    shown = await done(bot, "GET", "sys/internal/ui/mounts/team/shop/db")
    assert (shown["data"]["path"], shown["data"]["options"]) == ("team/shop/", {"version": "2"})
    for path in ("team", "team/shop", "team/shop/more", "secret", "transit/x", "backend/x", "auth/approle"):
        assert await bot.status("POST", f"sys/mounts/{path}", {"type": "kv"}) == 400, path
    for path in ("sys/x", "auth", "cubbyhole", "a/b/c/d/e", "-x", "a b", "x" * 64):
        assert await bot.status("POST", f"sys/mounts/{path}", {"type": "kv"}) == 400, path
    assert await bot.status("POST", "sys/mounts/new", {"type": "database"}) == 400
    assert await bot.status("POST", "sys/mounts/new", {"type": "kv", "options": {"version": "3"}}) == 400
    assert await bot.status("POST", "sys/remount", {"from": "team/shop", "to": "moved"}) == 400, "it holds a value"
    await done(bot, "DELETE", "sys/mounts/team/shop")
    assert await bot.status("GET", "team/shop/data/db") == 404
    await done(bot, "POST", "sys/mounts/team/shop", {"type": "kv", "options": {"version": "2"}})
    assert await bot.status("GET", "team/shop/data/db") == 404, "nothing of the first mount is left"
    await done(bot, "POST", "sys/remount", {"from": "team/shop", "to": "moved"})
    await done(bot, "POST", "moved/data/db", {"data": {"a": "c"}})
    for path in ("secret", "transit", "kv"):
        assert await bot.status("DELETE", f"sys/mounts/{path}") == 400
    assert await bot.status("DELETE", "sys/auth/approle") == 400


async def test_a_mount_setting_takes_effect_or_is_refused(world: World, bot: VaultAgent, clock: Clock) -> None:
    await permit_all(world)
    for path, kind in (("sys/mounts/shop", "kv"), ("sys/auth/workers", "approle")):
        wrong: dict[str, Any]
        for wrong in (
            {"listing_visibility": "unauth"},
            {"token_type": "batch"},
            {"audit_non_hmac_request_keys": ["x"]},
            {"passthrough_request_headers": ["x"]},
            {"plugin_version": "v1"},
        ):
            assert await bot.status("POST", path, {"type": kind, "config": wrong}) == 400, wrong
        assert await bot.status("POST", path, {"type": kind, "local": True}) == 400
        answer = await bot.ask("GET", path)
        assert (answer.status, "engine mount at" in answer.json["errors"][0]) == (400, True)
        harmless = {"listing_visibility": "hidden", "token_type": "default-service", "audit_non_hmac_request_keys": []}
        await done(bot, "POST", path, {"type": kind, "local": False, "config": harmless})
        for wrong in ({"listing_visibility": "unauth"}, {"token_type": "batch"}, {"allowed_response_headers": "x"}):
            assert await bot.status("POST", f"{path}/tune", wrong) == 400, wrong
        await done(bot, "POST", f"{path}/tune", {**harmless, "description": "x"})
        assert await bot.status("POST", f"{path}/tune", {"default_lease_ttl": "3h", "max_lease_ttl": "2h"}) == 400
    assert await bot.status("POST", "sys/mounts/shop/tune", {"options": {"version": "2"}}) == 400
    await done(bot, "POST", "sys/mounts/shop/tune", {"options": {"version": "1"}})
    await done(bot, "POST", "sys/mounts/secret/tune", {"options": {"version": "2"}})  # it has this version
    assert await bot.status("POST", "sys/mounts/secret/tune", {"description": "x"}) == 400, "a fixed mount"
    for ttl, shown in (("90s", 90), ("", 90), ("system", MAX_TTL_S)):
        await done(bot, "POST", "sys/mounts/shop/tune", {"max_lease_ttl": ttl})
        assert (await done(bot, "GET", "sys/mounts/shop/tune"))["data"]["max_lease_ttl"] == shown, ttl
    assert await bot.status("POST", "sys/mounts/shop/tune", {"max_lease_ttl": "Systems"}) == 400
    assert (await done(bot, "GET", "sys/auth/workers/tune"))["data"]["token_type"] == "default-service"
    worker = await enter(bot, await role_of(bot))
    assert (await done(worker, "GET", "auth/token/lookup-self"))["data"]["creation_ttl"] == 3600
    await done(bot, "POST", "sys/auth/workers/tune", {"default_lease_ttl": "90s", "max_lease_ttl": "2m"})
    worker = await enter(bot, await role_of(bot))
    assert (await done(worker, "GET", "auth/token/lookup-self"))["data"]["creation_ttl"] == 90
    renewed = await done(worker, "POST", "auth/token/renew-self", {"increment": 3600})
    assert renewed["auth"]["lease_duration"] == 120
    clock.advance(119)
    await done(worker, "GET", "auth/token/lookup-self")
    clock.advance(1)
    assert await worker.status("GET", "auth/token/lookup-self") == 403


async def test_a_caller_can_follow_the_hints_of_refused_settings(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await done(bot, "POST", "sys/auth/workers", {"type": "approle"})
    for path in ("auth/token/roles/r", "auth/workers/role/r"):
        answer = await bot.ask("POST", path, {"token_type": "batch"})
        assert (answer.status, "`token_type`" in answer.json["errors"][1]) == (400, True), answer.body
        await done(bot, "POST", path, {"token_type": "service"})
    for path in ("mounts/secret", "mounts/cubbyhole", "mounts/database", "auth/token"):
        answer = await bot.ask("POST", f"sys/{path}/tune", {"description": "x"})
        refusal = ["a fixed mount cannot be tuned", "tune a mount that an agent has enabled"]
        assert (answer.status, answer.json["errors"]) == (400, refusal), "most fixed mounts have a type of their own"


async def test_keys_of_two_transit_mounts_are_separate(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    for mount in ("t1", "t1x"):
        await done(bot, "POST", f"sys/mounts/{mount}", {"type": "transit"})
        await done(bot, "POST", f"{mount}/keys/k", {})
    sealed = (await done(bot, "POST", "t1/encrypt/k", {"plaintext": "YWJj"}))["data"]["ciphertext"]
    assert newest_entry(world).object == "t1/k"
    assert (await done(bot, "POST", "t1/decrypt/k", {"ciphertext": sealed}))["data"]["plaintext"] == "YWJj"
    assert await bot.status("POST", "t1x/decrypt/k", {"ciphertext": sealed}) == 400
    assert (await done(bot, "LIST", "t1/keys"))["data"]["keys"] == ["k"]
    assert await bot.status("GET", "transit/keys/k") == 404
    await done(bot, "DELETE", "sys/mounts/t1")
    assert await bot.status("GET", "t1x/keys/k") == 200
    assert await bot.status("POST", "t1/decrypt/k", {"ciphertext": sealed}) == 404


async def test_a_new_mount_needs_a_permission_and_keeps_agent_folders_private(
    world: World, app: ASGIApp, bot: VaultAgent
) -> None:
    body = {"type": "kv"}
    assert await bot.status("POST", "sys/mounts/agents/bot/x", body) == 403, "no folder of an agent is in `sys`"
    assert await bot.status("POST", "sys/auth/agents/bot/x", {"type": "approle"}) == 403
    await permit_all(world)
    await done(bot, "POST", "sys/mounts/shop", body)
    await put_policies(world, POLICIES)
    other = await (await enter_agent(world, app, "other")).login()
    await done(other, "POST", "shop/agents/other/x", {"a": "b"})
    assert await bot.status("GET", "shop/agents/other/x") == 403


async def test_a_secret_id_login_acts_as_the_agent_within_its_policies(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    text = 'path "secret/data/agents/bot/*" { capabilities = ["create", "read"] }'
    await done(bot, "POST", "sys/policy/own", {"policy": text})
    credentials = await role_of(bot, token_policies="own")
    worker = await enter(bot, credentials)
    await done(worker, "POST", "secret/data/agents/bot/x", {"data": {"a": "b"}})
    assert newest_entry(world).agent == bot.client.id
    assert await worker.status("POST", "secret/data/other", {"data": {"a": "b"}}) == 403
    assert (await done(worker, "GET", "auth/token/lookup-self"))["data"]["policies"] == ["default", "own"]
    for wrong in ({**credentials, "secret_id": "x"}, {**credentials, "role_id": "x"}):
        assert await bot.status("POST", "auth/workers/login", wrong) == 400
        entry = newest_entry(world)
        assert (entry.outcome, entry.reasons[0].code) == ("refused", "login_refused")
        assert credentials["secret_id"] not in repr(entry)
    destroyed = {"secret_id_accessor": credentials["accessor"]}
    await done(bot, "POST", "auth/workers/role/r/secret-id-accessor/destroy", destroyed)
    assert await worker.status("GET", "auth/token/lookup-self") == 403, "a token ends with its secret ID"
    assert await bot.status("POST", "auth/workers/login", credentials) == 400


async def test_a_secret_id_is_limited_by_uses_time_and_address(world: World, bot: VaultAgent, clock: Clock) -> None:
    await permit_all(world)
    credentials = await role_of(bot, secret_id_num_uses=2, secret_id_ttl="1h")
    for _ in range(2):
        await enter(bot, credentials)
    assert await bot.status("POST", "auth/workers/login", credentials) == 400
    fresh = await role_of(bot)
    clock.advance(3599)
    await bot.login()
    await enter(bot, fresh)
    clock.advance(1)
    assert await bot.status("POST", "auth/workers/login", fresh) == 400
    bound = (await done(bot, "POST", "auth/workers/role/r/secret-id", {"cidr_list": ["198.51.100.0/24"]}))["data"]
    assert await bot.status("POST", "auth/workers/login", {**fresh, **bound}) == 400, "another address"
    await enter(bot, {**fresh, "secret_id": bound["secret_id"]}, address="198.51.100.9")
    for wrong in ({"cidr_list": "x"}, {"metadata": "[]"}, {"ttl": "x"}, {"secret_id": "chosen"}):
        assert await bot.status("POST", "auth/workers/role/r/secret-id", wrong) == 400, wrong


async def test_roles_belong_to_one_agent_and_end_with_the_agent(world: World, app: ASGIApp, bot: VaultAgent) -> None:
    await permit_all(world)
    credentials = await role_of(bot)
    other = await (await enter_agent(world, app, "other")).login()
    for method, path in (
        ("GET", "role/r"),
        ("POST", "role/r/secret-id"),
        ("GET", "role/r/role-id"),
        ("LIST", "role/r/secret-id"),
    ):
        assert await other.status(method, f"auth/workers/{path}", {} if method == "POST" else None) == 404, path
    assert await other.status("DELETE", "auth/workers/role/r") == 204
    assert await other.status("LIST", "auth/workers/role") == 404
    await done(other, "POST", "auth/workers/role/r", {})
    taken = await other.ask("POST", "auth/workers/role/r/role-id", {"role_id": credentials["role_id"]})
    assert (taken.status, taken.json["errors"][0]) == (400, "another role of the mount has this role ID")
    await done(bot, "POST", "auth/workers/role/r/role-id", {"role_id": "r"})
    taken = await other.ask("POST", "auth/workers/role/r/role-id", {"role_id": "r"})
    assert (taken.status, taken.json["errors"][0]) == (400, "another role of the mount has this role ID")
    await done(bot, "POST", "auth/workers/role/r/role-id", {"role_id": credentials["role_id"]})
    worker = await enter(bot, credentials)
    accessor = (await done(worker, "GET", "auth/token/lookup-self"))["data"]["accessor"]
    assert await other.status("POST", "auth/token/lookup", {"token": worker.token}) == 403
    assert await other.status("POST", "auth/token/revoke-accessor", {"accessor": accessor}) == 403
    await act(world, "agent.suspend", lambda a: registry.set_agent_state(a, bot.name, Verb.SUSPEND))
    assert await worker.status("GET", "auth/token/lookup-self") == 403
    assert await bot.status("POST", "auth/workers/login", credentials, token="") == 400


async def test_tokens_and_secret_ids_end_with_the_bearer_exemption_of_the_agent(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    credentials = await role_of(bot)
    worker = await enter(bot, credentials)
    orphan = (await done(bot, "POST", "auth/token/create-orphan", {}))["auth"]["client_token"]
    await act(world, "bearer.forbid", lambda a: trust.forbid_bearer(a, bot.name, "ostiary"))
    for token in (worker.token, orphan, bot.token):
        assert await bot.status("GET", "auth/token/lookup-self", token=token) == 403
    await act(world, "bearer.allow", lambda a: trust.allow_bearer(a, bot.name, "ostiary"))
    assert await bot.status("POST", "auth/workers/login", credentials) == 400, "the secret ID has ended too"


async def test_a_child_token_does_not_outlive_its_parent(world: World, bot: VaultAgent, clock: Clock) -> None:
    await permit_all(world)
    child = (await done(bot, "POST", "auth/token/create", {"ttl": "100h", "period": "100h"}))["auth"]
    assert child["lease_duration"] <= 86_400
    assert (await done(bot, "POST", "auth/token/create", {"ttl": "5m"}))["auth"]["lease_duration"] == 300
    orphan = (await done(bot, "POST", "auth/token/create-orphan", {"ttl": "5m"}))["auth"]["client_token"]
    limited = (await done(bot, "POST", "auth/token/create", {"ttl": "10m", "explicit_max_ttl": "5m"}))["auth"]
    assert limited["lease_duration"] == 300
    clock.advance(60)
    renewed = await done(bot, "POST", "auth/token/renew", {"token": limited["client_token"], "increment": "1h"})
    assert renewed["auth"]["lease_duration"] == 240
    fixed = (await done(bot, "POST", "auth/token/create", {"renewable": False}))["auth"]["client_token"]
    assert await bot.status("POST", "auth/token/renew", {"token": fixed}) == 400
    await done(bot, "POST", "auth/token/revoke-self")
    assert await bot.status("GET", "auth/token/lookup-self", token=child["client_token"]) == 403
    assert await bot.status("GET", "auth/token/lookup-self", token=orphan) == 200


async def test_a_child_ends_when_a_token_above_expires(world: World, bot: VaultAgent, clock: Clock) -> None:
    await permit_all(world)
    parent = await child_of(bot, ttl="60s")
    last = await child_of(await child_of(parent, ttl="24h"), ttl="24h")
    accessor = (await done(last, "GET", "auth/token/lookup-self"))["data"]["accessor"]
    orphan = (await done(parent, "POST", "auth/token/create-orphan", {"ttl": "30m"}))["auth"]["client_token"]
    clock.advance(30)
    await done(parent, "POST", "auth/token/renew-self", {"increment": "60s"})
    clock.advance(59)
    await done(last, "GET", "auth/token/lookup-self")
    clock.advance(1)
    assert await last.status("GET", "auth/token/lookup-self") == 403
    assert await bot.status("POST", "auth/token/renew-accessor", {"accessor": accessor}) == 403
    assert await bot.status("GET", "auth/token/lookup-self", token=orphan) == 200
    line = bot
    for _ in range(16):
        line = await child_of(line)
    assert await line.status("POST", "auth/token/create", {}) == 400, "17 tokens would be above"
    limited = await child_of(bot, num_uses=5)
    for path in ("create", "create-orphan"):
        assert await limited.status("POST", f"auth/token/{path}", {}) == 400, "its uses would not count"


async def test_child_tokens_survive_an_orphaning_revocation_of_their_parent(
    world: World, app: ASGIApp, bot: VaultAgent, clock: Clock
) -> None:
    await permit_all(world)
    parent = await child_of(bot, ttl="60s")
    child = await child_of(parent, ttl="30m")
    below = await child_of(child, ttl="30m")
    wrapped = (await parent.ask("GET", "sys/mounts", headers=[("x-vault-wrap-ttl", "60")])).json["wrap_info"]["token"]
    other = await (await enter_agent(world, app, "other")).login()
    assert await other.status("POST", "auth/token/revoke-orphan", {"token": parent.token}) == 403
    await done(bot, "POST", "auth/token/revoke-orphan", {"token": parent.token})
    assert await parent.status("GET", "auth/token/lookup-self") == 403
    assert await bot.status("POST", "sys/wrapping/unwrap", {"token": wrapped}) == 400, "only tokens live on"
    assert (await done(child, "GET", "auth/token/lookup-self"))["data"]["orphan"] is True
    assert (await done(below, "GET", "auth/token/lookup-self"))["data"]["orphan"] is False
    clock.advance(61)
    await done(below, "GET", "auth/token/lookup-self")  # the revoked token would have expired by now
    await done(bot, "POST", "auth/token/revoke", {"token": child.token})
    assert await below.status("GET", "auth/token/lookup-self") == 403
    late = await child_of(await child_of(bot), ttl="30m")
    await done(bot, "POST", "auth/token/revoke-self")
    assert await late.status("GET", "auth/token/lookup-self") == 403, "every other revocation ends the children"


async def test_orphaned_child_tokens_still_end_with_the_login(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    child = await child_of(bot, ttl="30m")
    await done(bot, "POST", "auth/token/revoke-orphan", {"token": bot.token})
    await done(child, "GET", "auth/token/lookup-self")
    await act(world, "key.revoke", lambda a: registry.revoke_key(a, bot.client.key.public.thumbprint))
    assert await child.status("GET", "auth/token/lookup-self") == 403


async def test_the_revocation_of_an_ended_or_unknown_token_changes_nothing(
    world: World, app: ASGIApp, bot: VaultAgent, clock: Clock
) -> None:
    await permit_all(world)
    child, late = await child_of(bot), await child_of(bot, ttl="60s")
    accessor = (await done(child, "GET", "auth/token/lookup-self"))["data"]["accessor"]
    for verb, body in (
        ("revoke", {"token": child.token}),
        ("revoke", {"token": child.token}),
        ("revoke-accessor", {"accessor": accessor}),
        ("revoke-accessor", {"accessor": "none"}),
        ("revoke", {"token": "hvs.none"}),
        ("revoke", {"token": "\u00fc"}),
    ):
        assert await bot.status("POST", f"auth/token/{verb}", body) == 204, (verb, body)
    clock.advance(60)
    await done(bot, "POST", "auth/token/revoke", {"token": late.token})
    for verb, body, status in (
        ("revoke", {}, 403),
        ("revoke-orphan", {"token": child.token}, 403),
        ("revoke-accessor", {}, 400),
        ("lookup", {"token": child.token}, 403),
        ("renew", {"token": child.token}, 403),
        ("lookup-accessor", {"accessor": accessor}, 400),
    ):
        assert await bot.status("POST", f"auth/token/{verb}", body) == status, verb
    other = await (await enter_agent(world, app, "other")).login()
    await done(bot, "GET", "auth/token/lookup-self")
    assert await other.status("POST", "auth/token/revoke", {"token": bot.token}) == 403
    await done(bot, "GET", "auth/token/lookup-self")


async def test_a_child_token_has_its_display_name_and_an_unknown_role_is_refused_by_name(
    world: World, bot: VaultAgent
) -> None:
    await permit_all(world)
    for body, name in (({}, "token"), ({"display_name": ""}, "token"), ({"display_name": "x"}, "token-x")):
        child = await child_of(bot, **body)
        assert (await done(child, "GET", "auth/token/lookup-self"))["data"]["display_name"] == name
    answer = await bot.ask("POST", "auth/token/create/none", {})
    assert (answer.status, answer.json["errors"][0]) == (400, "unknown role none")


async def test_a_secret_id_cannot_exceed_the_limits_of_its_role(world: World, bot: VaultAgent, clock: Clock) -> None:
    await permit_all(world)
    bounds = ["192.0.2.0/24", "2001:db8::/32"]
    settings = {"secret_id_num_uses": 2, "secret_id_ttl": "60s", "token_ttl": "1h", "token_max_ttl": "2m"}
    credentials = await role_of(bot, secret_id_bound_cidrs=bounds, **settings)
    make = "auth/workers/role/r/secret-id"
    wrong: tuple[dict[str, Any], ...] = (
        {"num_uses": 0},
        {"num_uses": 3},
        {"num_uses": -1},
        {"ttl": 0},
        {"ttl": 61},
        {"cidr_list": ["0.0.0.0/0"]},
        {"cidr_list": ["192.0.2.0/24", "192.0.3.0/24"]},
        {"cidr_list": "192.0.2.0/23"},
        {"cidr_list": ["::/0"]},
    )
    for body in wrong:
        assert await bot.status("POST", make, body) == 400, body
    within = {"num_uses": 1, "ttl": 60, "cidr_list": ["192.0.2.7/32", "2001:db8:1::/48"]}
    narrow = (await done(bot, "POST", make, within))["data"]
    wrapped = await bot.ask("POST", "auth/workers/login", credentials, headers=[("x-vault-wrap-ttl", "60")])
    assert wrapped.status == 400, "the answer of a login is never wrapped"
    worker = await enter(bot, {**credentials, "secret_id": narrow["secret_id"]})
    assert (await done(worker, "GET", "auth/token/lookup-self"))["data"]["ttl"] <= 120
    await done(bot, "POST", "auth/workers/role/r", {"secret_id_bound_cidrs": ["198.51.100.0/24"]})
    assert await bot.status("POST", "auth/workers/login", credentials) == 400, "the role has other addresses now"
    await done(bot, "POST", "auth/workers/role/r", {"secret_id_bound_cidrs": bounds})
    await enter(bot, credentials)


async def test_a_token_role_can_forbid_policies(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    for name in ("one", "two"):
        await done(bot, "POST", f"sys/policies/acl/{name}", {"policy": 'path "auth/*" { capabilities = ["update"] }'})
    await done(bot, "POST", "auth/token/roles/r", {"disallowed_policies": ["ONE", "default"]})
    both = await child_of(bot, policies=["one", "two"])
    for who, policies in ((bot, ["one"]), (bot, ["One"]), (bot, ["two", "default"]), (both, [])):
        assert await who.status("POST", "auth/token/create/r", {"policies": policies}) == 400, policies
    made = await done(bot, "POST", "auth/token/create/r", {"policies": ["two"]})
    assert made["auth"]["policies"] == ["two"], "the policy default is not added"
    await done(bot, "POST", "auth/token/roles/r", {"allowed_policies": ["Two"], "disallowed_policies": []})
    assert (await done(bot, "POST", "auth/token/create/r", {}))["auth"]["policies"] == ["default", "two"]
    assert await bot.status("POST", "auth/token/create/r", {"policies": ["one"]}) == 400
    for member in ("allowed_entity_aliases", "path_suffix"):
        assert await bot.status("POST", "auth/token/roles/r", {member: ["x"]}) == 400, member


async def test_a_token_role_can_permit_policies_by_pattern(world: World, bot: VaultAgent) -> None:
    await permit_all(world)

    async def policies_of(wanted: list[str]) -> list[str] | None:
        answer = await bot.ask("POST", "auth/token/create/r", {"policies": wanted})
        return list(answer.json["auth"]["policies"]) if answer.status == 200 else None

    await done(bot, "POST", "auth/token/roles/r", {"allowed_policies_glob": "Dev-*,ops", "allowed_policies": "one"})
    for wanted, given in (
        (["dev-a"], ["default", "dev-a"]),
        (["DEV-"], ["default", "dev-"]),
        (["ops", "one"], ["default", "one", "ops"]),
        ([], ["default", "one"]),
        (["dev"], None),
        (["ops-a"], None),
        (["dev-a", "prod-dev-a"], None),
        (["ostiary"], None),
    ):
        assert await policies_of(wanted) == given, wanted
    await done(bot, "POST", "auth/token/roles/r", {"disallowed_policies_glob": ["*-prod", "def*"]})
    for wanted, given in ((["dev-a"], ["dev-a"]), (["dev-prod"], None), (["default"], None), (["ops"], ["ops"])):
        assert await policies_of(wanted) == given, wanted
    await done(bot, "POST", "auth/token/roles/r", {"disallowed_policies_glob": [], "token_no_default_policy": True})
    assert await policies_of(["dev-a"]) == ["dev-a"]
    shown = (await done(bot, "GET", "auth/token/roles/r"))["data"]
    assert (shown["allowed_policies_glob"], shown["token_no_default_policy"]) == (["Dev-*", "ops"], True)
    await done(bot, "POST", "auth/token/roles/all", {})
    answer = await bot.ask("POST", "auth/token/create/all", {})
    assert answer.json["auth"]["policies"] == ["ostiary"]


async def test_a_token_role_refuses_parents_outside_its_networks(world: World, bot: VaultAgent) -> None:
    """A child has the address of its parent, so the role refuses parents elsewhere."""
    await permit_all(world)
    create = "auth/token/create/r"
    for networks, status in (
        ([f"{HOME}/32"], 200),
        (["192.0.2.0/24", "2001:db8::/32"], 200),
        ("198.51.100.0/24,192.0.2.0/29", 200),
        (["192.0.2.0/30"], 400),
        (["2001:db8::/32"], 400),
        ([], 200),
    ):
        await done(bot, "POST", "auth/token/roles/r", {"token_bound_cidrs": networks})
        assert await bot.status("POST", create, {}) == status, networks
        bearer = [("authorization", f"Bearer {await bot.bearer()}")]
        assert await bot.status("POST", create, {}, token="", headers=bearer) == status, networks
    await done(bot, "POST", "auth/token/roles/r", {"bound_cidrs": "203.0.113.0/24"})
    assert (await done(bot, "GET", "auth/token/roles/r"))["data"]["token_bound_cidrs"] == ["203.0.113.0/24"]
    for wrong in (["x"], "300.0.0.1/8", ["10.0.0.0/8"] * 33, [" "]):
        assert await bot.status("POST", "auth/token/roles/r", {"token_bound_cidrs": wrong}) == 400, wrong
