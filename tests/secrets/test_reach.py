"""Reach of an agent at the Vault API: the mounts, tokens and roles that it sees and changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from harness.registry_fixtures import newest_entry
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.secrets import flows
from ostiaryd.secrets.model import login_role
from ostiaryd.secrets.model.acl import AccessList, parse_policy
from ostiaryd.secrets.store import login_roles as role_store
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.secrets.role_fixtures import child_of, done, enter, role_of
from tests.secrets.vault_fixtures import VaultAgent, enter_agent, permit_all
from tests.support.certificate_fixtures import put_policies

if TYPE_CHECKING:
    import pytest
    from starlette.types import ASGIApp

    from ostiaryd.ground.world import World

FIXED = {"aws/", "cubbyhole/", "database/", "kv/", "oauth/", "secret/", "transit/"}
ISSUE = 'permit (principal is Agent, action == Action::"issue_token", resource is Resource);'
TOKENS = ISSUE + 'permit (principal is Agent, action, resource is Secret) when { resource.mount == "auth" };'


async def mounts_of(bot: VaultAgent) -> set[str]:
    """The mounts that an agent sees besides the fixed ones."""
    shown = set((await done(bot, "GET", "sys/mounts"))["data"])
    assert set((await done(bot, "GET", "sys/internal/ui/mounts"))["data"]["secret"]) == shown
    assert shown >= FIXED
    return shown - FIXED


async def test_an_agent_sees_only_mounts_where_a_policy_permits_an_action(
    world: World, app: ASGIApp, bot: VaultAgent
) -> None:
    await permit_all(world)
    for path in ("shop", "team/shop", "bank"):
        await done(bot, "POST", f"sys/mounts/{path}", {"type": "kv"})
    await done(bot, "POST", "sys/auth/workers", {"type": "approle"})
    other = await (await enter_agent(world, app, "other")).login()
    assert await mounts_of(bot) == {"shop/", "team/shop/", "bank/"}
    permit = "permit (principal is Agent, action, resource is Secret) when"
    cases = (
        ("", set[str]()),
        (f'{permit} {{ resource.mount == "shop" }};', {"shop/"}),
        (f'{permit} {{ resource.mount == "shop" && resource.path like "x/*" }};', {"shop/"}),
        (f'{permit} {{ resource.mount == "shop" && principal.id == "x" }};', set[str]()),
        ('permit (principal, action == Action::"read_secret", resource == Secret::"team/shop/db");', {"team/shop/"}),
        (f'{permit} {{ [Secret::"bank/x", Secret::"bankrupt/x"].contains(resource) }};', {"bank/"}),
        (f'{permit} {{ resource.path == "mounts/bank" }} unless {{ resource.mount != "sys" }};', {"bank/"}),
        (f"{permit} {{ resource.agent == principal.id }};", {"shop/", "team/shop/", "bank/"}),
        (
            f"{permit} {{ true }}; "
            'forbid (principal, action, resource is Secret) when { ["shop", "sys"].contains(resource.mount) };',
            {"team/shop/", "bank/"},
        ),
    )
    for text, expected in cases:
        await put_policies(world, TOKENS + text)
        assert await mounts_of(other) == expected, text
        for mount in ("shop", "bank"):
            status = await other.status("GET", f"sys/internal/ui/mounts/{mount}/x")
            assert status == (200 if f"{mount}/" in expected else 403), (text, mount)
    unknown = await other.ask("GET", "sys/internal/ui/mounts/none/x")
    hidden = await other.ask("GET", "sys/internal/ui/mounts/shop/x")
    assert hidden.body.replace(b"shop", b"none") == unknown.body, "a hidden mount looks like a missing one"
    await put_policies(world, TOKENS)
    methods = (await done(other, "GET", "sys/internal/ui/mounts"))["data"]["auth"]
    assert set(methods) == {"approle/", "jwt/", "token/"}
    await done(other, "POST", "auth/workers/role/mine", {})
    methods = (await done(other, "GET", "sys/internal/ui/mounts"))["data"]["auth"]
    assert set(methods) == {"approle/", "jwt/", "token/", "workers/"}


async def test_a_request_without_permission_does_not_reveal_which_mounts_exist(
    world: World, app: ASGIApp, bot: VaultAgent
) -> None:
    await permit_all(world)
    await done(bot, "POST", "sys/mounts/shop", {"type": "kv"})
    await done(bot, "POST", "sys/auth/workers", {"type": "approle"})
    await done(bot, "POST", "sys/policies/acl/none", {"policy": 'path "a" { capabilities = ["read"] }'})
    limited = await child_of(bot, policies=["none"])
    other = await (await enter_agent(world, app, "other")).login()
    pairs = (("shop/x", "none/x"), ("secret/data/x", "none/data/x"), ("auth/workers/role/x", "auth/none/role/x"))

    async def shown(agent: VaultAgent, method: str, path: str, **more: Any) -> tuple[int, bytes]:
        answer = await agent.ask(method, path, {"a": 1} if method == "POST" else None, **more)
        return answer.status, answer.body

    for method in ("GET", "LIST", "POST", "DELETE"):
        for path, missing in pairs:
            for more in ({"token": ""}, {"token": "hvs.unknown"}):
                assert await shown(bot, method, path, **more) == await shown(bot, method, missing, **more), path
                assert (await shown(bot, method, missing, **more))[0] == 403
            assert await shown(limited, method, path) == await shown(limited, method, missing), path
        await put_policies(world, ISSUE)
        assert await shown(other, method, "shop/x") == await shown(other, method, "none/x"), method
        assert (await shown(other, method, "none/x"))[0] == 403
        await permit_all(world)
        assert await bot.status(method, "none/x") == 404
    refused = newest_entry(world)
    assert (refused.action, refused.agent is not None, refused.object) == ("vault.request", True, "none/x")


async def test_an_unsupported_method_does_not_reveal_that_a_mount_exists(
    world: World, app: ASGIApp, bot: VaultAgent
) -> None:
    await permit_all(world)
    for path, kind in (("shop", "kv"), ("team/keys", "transit"), ("ca", "pki")):
        await done(bot, "POST", f"sys/mounts/{path}", {"type": kind})
    await done(bot, "POST", "sys/auth/workers", {"type": "approle"})
    other = await (await enter_agent(world, app, "other")).login()
    requests = (
        ("PATCH", "shop/x", "none/x"),
        ("GET", "team/keys/encrypt/x", "team/none/encrypt/x"),
        ("DELETE", "ca/issue/x", "none/issue/x"),
        ("LIST", "auth/workers/role/x", "auth/none/role/x"),
    )
    await put_policies(world, ISSUE)
    for method, path, missing in requests:
        answer, of_missing = await other.ask(method, path), await other.ask(method, missing)
        assert (answer.status, answer.body) == (of_missing.status, of_missing.body), path
        assert answer.status == 403, path
    await permit_all(world)
    assert [await bot.status(method, path) for method, path, _ in requests] == [405] * 4


async def test_requests_about_leases_do_not_reveal_which_mounts_exist(
    world: World, app: ASGIApp, bot: VaultAgent
) -> None:
    await permit_all(world)
    await done(bot, "POST", "sys/mounts/ca", {"type": "pki"})
    other = await (await enter_agent(world, app, "other")).login()
    requests: tuple[tuple[str, str, str], ...] = (
        ("LIST", "sys/leases/lookup/{}", ""),
        ("POST", "sys/leases/revoke-prefix/{}/issue/r", ""),
        ("POST", "sys/leases/revoke-force/{}", ""),
        ("POST", "sys/leases/lookup", "{}/issue/r/1"),
        ("POST", "sys/leases/renew", "{}"),
        ("POST", "sys/leases/revoke", "{}/issue/r/1"),
    )
    for policies, refusals in ((ISSUE, {403}), (None, {400, 404})):
        await (permit_all(world) if policies is None else put_policies(world, policies))
        for method, path, lease in requests:
            body = {"lease_id": lease.format("none")} if lease else {}
            missing = await other.ask(method, path.format("none"), None if method == "LIST" else body)
            assert missing.status in refusals, path
            if policies is not None:
                body = {"lease_id": lease.format("ca")} if lease else {}
                answer = await other.ask(method, path.format("ca"), None if method == "LIST" else body)
                assert (answer.status, answer.body) == (missing.status, missing.body), path


async def test_a_vault_policy_hides_mounts_too(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    for path in ("shop", "team/shop", "bank"):
        await done(bot, "POST", f"sys/mounts/{path}", {"type": "kv"})
    rules = 'path "sys/mounts" { capabilities = ["read"] } path "bank/*" { capabilities = ["deny"] }'
    for path, expected in (
        ("shop/+/x", {"shop/"}),
        ("team/*", {"team/shop/"}),
        ("team/+/x", {"team/shop/"}),
        ("+/x", {"shop/", "bank/"}),
    ):
        text = f'{rules} path "{path}" {{ capabilities = ["read"] }}'
        await done(bot, "POST", "sys/policies/acl/narrow", {"policy": text})
        narrow = await child_of(bot, policies=["narrow"])
        assert await mounts_of(narrow) == expected, path


def test_a_vault_policy_rule_reaches_each_path_with_a_matching_continuation() -> None:
    for rule, reached, missed in (
        ("a/b", ("a", "a/b"), ("a/b/c", "b", "ab")),
        ("a/*", ("a", "a/b", "a/b/c"), ("b", "ab")),
        ("a*", ("a", "ab", "ab/c"), ("b",)),
        ("+/b", ("a", "a/b", "c/b"), ("a/c", "a/b/c")),
        ("+/b*", ("a", "a/b", "a/bc/d"), ("a/c",)),
        ("*", ("a", "a/b"), ()),
    ):
        access = AccessList([parse_policy(f'path "{rule}" {{ capabilities = ["read"] }}')])
        assert [access.reaches(path) for path in reached] == [True] * len(reached), rule
        assert [access.reaches(path) for path in missed] == [False] * len(missed), rule
    assert not AccessList([parse_policy('path "*" { capabilities = ["deny"] }')]).reaches("a")


async def test_a_move_is_decided_at_both_paths(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await done(bot, "POST", "sys/mounts/shop", {"type": "kv"})
    move = {"from": "shop", "to": "bank/"}
    everything = "permit (principal is Agent, action, resource is Secret);"
    for action, path in (
        ("delete_secret", "mounts/shop"),
        ("write_secret", "mounts/bank"),
        ("write_secret", "remount"),
    ):
        text = f'forbid (principal, action == Action::"{action}", resource == Secret::"sys/{path}");'
        await put_policies(world, ISSUE + everything + text)
        assert await bot.status("POST", "sys/remount", move) == 403, path
        assert newest_entry(world).outcome == "refused"
        capabilities = await done(bot, "POST", "sys/capabilities-self", {"path": "sys/remount"})
        assert capabilities["data"]["capabilities"] == (["deny"] if path == "remount" else ["sudo", "update"])
    assert "bank/" not in await mounts_of(bot)
    await permit_all(world)
    for wrong in (
        {},
        {"from": "shop"},
        {"from": "shop", "to": 1},
        {"from": "/", "to": "x"},
        {"from": "a/../b", "to": "x"},
    ):
        assert await bot.status("POST", "sys/remount", wrong) == 400, wrong
    migration_id = (await done(bot, "POST", "sys/remount", move))["data"]["migration_id"]
    assert await mounts_of(bot) == {"bank/"}
    shown = (await done(bot, "GET", f"sys/remount/status/{migration_id}"))["data"]["migration_info"]
    assert shown == {"source_mount": "shop/", "target_mount": "bank/", "status": "success"}
    for other in ("x", migration_id[:-4], "c2hvcApub25l"):
        assert await bot.status("GET", f"sys/remount/status/{other}") == 404, other


async def test_a_child_token_is_restricted_by_each_policy_list_above_it(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    wide = 'path "*" { capabilities = ["create", "update", "read", "list", "delete", "sudo"] }'
    await done(bot, "POST", "sys/policies/acl/wide", {"policy": wide})
    shut = 'path "secret/data/shut" { capabilities = ["deny"] }'
    await done(bot, "POST", "sys/policies/acl/shut", {"policy": shut})
    await done(bot, "POST", "secret/data/shut", {"data": {"a": "b"}})
    parent = await child_of(bot, policies=["wide", "shut"])
    children = [await child_of(parent, policies=["wide"]), await child_of(parent, policies=["wide"], no_parent=True)]
    children.append(await child_of(children[0], policies=["wide"], no_default_policy=True))
    await done(parent, "POST", "sys/auth/workers", {"type": "approle"})
    await done(parent, "POST", "auth/workers/role/r", {"token_policies": "wide"})
    role_id = (await done(parent, "GET", "auth/workers/role/r/role-id"))["data"]["role_id"]
    secret_id = (await done(parent, "POST", "auth/workers/role/r/secret-id", {}))["data"]["secret_id"]
    children.append(await enter(bot, {"role_id": role_id, "secret_id": secret_id}))
    await done(bot, "POST", "auth/workers/role/r", {"token_policies": "ostiary", "token_no_default_policy": True})
    children.append(await enter(bot, {"role_id": role_id, "secret_id": secret_id}))
    for number, child in enumerate(children):
        assert await child.status("GET", "secret/data/shut") == 403, number
        assert newest_entry(world).reasons[0].code == "vault_policy"
        assert await child.status("GET", "secret/data/open") == 404, number
        shown = await done(child, "POST", "sys/capabilities-self", {"paths": ["secret/data/shut", "secret/data/open"]})
        assert shown["data"]["secret/data/shut"] == ["deny"]
        assert "read" in shown["data"]["secret/data/open"]
    assert await bot.status("GET", "secret/data/shut") == 200


async def test_the_number_of_policy_lists_above_a_token_is_limited(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await done(bot, "POST", "sys/auth/workers", {"type": "approle"})
    worker, role = bot, "auth/workers/role/r"
    for number in range(18):
        await done(bot, "POST", f"sys/policies/acl/p{number}", {"policy": 'path "*" { capabilities = ["update"] }'})
        made = await worker.ask("POST", f"{role}/secret-id", {}) if number else None
        assert made is None or made.status == (200 if number < 17 else 400), number
        if made is not None and made.status == 400:
            assert newest_entry(world).reasons[0].code == "too_deep"
            break
        await done(bot, "POST", role, {"token_policies": f"p{number}", "token_no_default_policy": True})
        if made is None:
            made = await bot.ask("POST", f"{role}/secret-id", {})
        role_id = (await done(bot, "GET", f"{role}/role-id"))["data"]["role_id"]
        worker = await enter(bot, {"role_id": role_id, "secret_id": made.json["data"]["secret_id"]})
    assert number == 17
    assert await worker.status("POST", "auth/token/create", {}) == 400


async def test_token_roles_are_limited_and_named_per_agent(
    world: World, app: ASGIApp, bot: VaultAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await permit_all(world)
    monkeypatch.setattr("ostiaryd.secrets.flows.login_roles.MAX_ROLES", 2)
    assert login_role.MAX_ROLES == 100
    other = await (await enter_agent(world, app, "other")).login()
    for name in ("r", "s"):
        await done(bot, "POST", f"auth/token/roles/{name}", {"token_period": "1h"})
    assert await bot.status("POST", "auth/token/roles/t", {}) == 400
    await done(bot, "POST", "auth/token/roles/s", {"token_period": "2h"})
    missing = await other.ask("GET", "auth/token/roles/none")
    foreign = await other.ask("GET", "auth/token/roles/r")
    assert (foreign.status, foreign.body) == (404, missing.body)
    await done(other, "POST", "auth/token/roles/r", {"token_num_uses": 3})
    assert (await done(bot, "GET", "auth/token/roles/r"))["data"]["token_period"] == 3600
    assert (await done(other, "LIST", "auth/token/roles"))["data"]["keys"] == ["r"]
    await done(other, "DELETE", "auth/token/roles/r")
    assert (await done(bot, "GET", "auth/token/roles/r"))["data"]["token_period"] == 3600


async def test_two_agents_can_have_separate_roles_of_the_same_name(world: World, app: ASGIApp, bot: VaultAgent) -> None:
    await permit_all(world)
    other = await (await enter_agent(world, app, "other")).login()
    own, theirs = await role_of(bot), await role_of(other)
    await enter(bot, own)
    await enter(other, theirs)
    for role_id, secret_id in ((own["role_id"], theirs["secret_id"]), (theirs["role_id"], own["secret_id"])):
        login = {"role_id": role_id, "secret_id": secret_id}
        assert await bot.status("POST", "auth/workers/login", login) == 400
    chosen = {"secret_id": "chosen-by-both"}
    for agent in (bot, other):
        await done(agent, "POST", "auth/workers/role/r/custom-secret-id", chosen)
    lookup = {"secret_id_accessor": own["accessor"]}
    assert await other.status("POST", "auth/workers/role/r/secret-id-accessor/lookup", lookup) == 404
    assert await other.status("POST", "auth/workers/role/r/secret-id-accessor/destroy", lookup) == 404
    await done(other, "DELETE", "auth/workers/role/r")
    await enter(bot, {**own, **chosen})


async def test_roles_of_a_decommissioned_agent_are_deleted(world: World, app: ASGIApp, bot: VaultAgent) -> None:
    await permit_all(world)
    other = await (await enter_agent(world, app, "other")).login()
    for agent in (bot, other):
        await done(agent, "POST", "auth/token/roles/r", {})
        await role_of(agent)
    for verb, left in ((Verb.SUSPEND, 2), (Verb.DECOMMISSION, 0)):
        await act(world, "agent.change", lambda a, verb=verb: registry.set_agent_state(a, "other", verb))  # type: ignore[misc]
        await flows.forget_tokens(world)
        found = [
            role_store.get(world.db.read(), mount, other.client.id, "r") for mount in ("auth/token", "auth/workers")
        ]
        assert sum(one is not None for one in found) == left, verb
    assert (await done(bot, "LIST", "auth/token/roles"))["data"]["keys"] == ["r"]


async def test_a_login_method_that_is_being_disabled_accepts_no_new_role(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    credentials = await role_of(bot)
    login = {"role_id": credentials["role_id"], "secret_id": credentials["secret_id"]}
    answers = await asyncio.gather(
        bot.ask("DELETE", "sys/auth/workers"),
        bot.ask("POST", "auth/workers/role/late", {}),
        bot.ask("POST", "auth/workers/login", login),
    )
    assert [one.status for one in answers] == [204, 404, 404]
    assert not role_store.has_roles(world.db.read(), "auth/workers")


async def test_another_token_is_shown_and_evaluated_with_its_own_task(
    world: World, app: ASGIApp, bot: VaultAgent
) -> None:
    await permit_all(world)
    spec = TaskSpec(agent="bot", purpose="to read")
    task = (await act(world, "test", lambda a: tasks.start(a, spec))).task_id
    narrow = await VaultAgent(bot.client, bot.name).login(task=task)
    accessor = (await done(narrow, "GET", "auth/token/lookup-self"))["data"]["accessor"]
    for path, body in (("lookup", {"token": narrow.token}), ("lookup-accessor", {"accessor": accessor})):
        assert (await done(bot, "POST", f"auth/token/{path}", body))["data"]["meta"]["task"] == task
    renewed: dict[str, Any] = await done(bot, "POST", "auth/token/renew-accessor", {"accessor": accessor})
    assert renewed["auth"]["metadata"]["task"] == task
    text = f'permit (principal is Agent, action, resource is Secret) when {{ context.task != "{task}" }};'
    auth = 'permit (principal is Agent, action, resource is Secret) when { resource.mount == "auth" };'
    await put_policies(world, ISSUE + text + auth)
    asked = {"path": "secret/data/x"}
    own = await done(bot, "POST", "sys/capabilities-self", asked)
    assert "read" in own["data"]["capabilities"]
    for path, body in (("", {"token": narrow.token}), ("-accessor", {"accessor": accessor})):
        shown = await done(bot, "POST", f"sys/capabilities{path}", {**asked, **body})
        assert shown["data"]["capabilities"] == ["deny"], path
