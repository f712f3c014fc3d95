"""Vault policies: reading HCL, the most specific path, parameters, and tokens that policies narrow."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from harness.registry_fixtures import newest_entry
from ostiary.protocol.errors import Malformed, Refused
from ostiaryd.secrets.model import acl, hcl
from ostiaryd.secrets.model.acl import AccessList, AclRequest
from tests.secrets.vault_fixtures import POLICIES, VaultAgent, enter_agent, permit_all
from tests.support.certificate_fixtures import put_policies

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from ostiaryd.ground.world import World


def permits(texts: list[str], path: str, capability: str, **more: object) -> bool:
    """Return whether policies permit a request."""
    access = AccessList([acl.parse_policy(text, identity=None) for text in texts])
    return access.permits(AclRequest(path, capability, **more))  # type: ignore[arg-type]


def one(path: str, *capabilities: str, **more: object) -> str:
    return json.dumps({"path": {path: {"capabilities": list(capabilities), **more}}})


PRIORITY = (
    # rules from the one that applies to the others, for the path kv/a/b
    ("kv/a/b", "kv/a/*", "kv/+/b", "*"),
    ("kv/a/b*", "kv/a/*"),
    ("kv/a/*", "kv/+/b"),
    ("kv/a/+", "kv/a/*"),
    ("kv/+/b", "kv/+/b*"),
    ("kv/+/b*", "kv/+/*"),
    ("kv/+/b", "kv/+/+"),
    ("kv/+/+", "kv/*"),
    ("kv/*", "+/a/b", "*"),
    ("+/a/b", "+/+/b", "+/+/+"),
    ("+/a/*", "+/+/*"),
    ("/kv/a/b", "kv/a/+"),
)


@pytest.mark.parametrize("paths", PRIORITY)
def test_the_most_specific_matching_path_applies(paths: tuple[str, ...]) -> None:
    for lower in paths[1:]:
        for texts in ([one(paths[0], "read"), one(lower, "deny")], [one(lower, "deny"), one(paths[0], "read")]):
            assert permits(texts, "kv/a/b", "read"), lower
        assert not permits([one(paths[0], "deny"), one(lower, "read")], "kv/a/b", "read"), lower
        assert not permits([one(paths[0], "update"), one(lower, "read")], "kv/a/b", "read"), lower


def test_a_wildcard_stands_for_one_segment_and_a_glob_for_any_rest() -> None:
    assert permits([one("kv/+/b", "read")], "kv/a/b", "read")
    assert not permits([one("kv/+/b", "read")], "kv/a/a/b", "read")
    assert not permits([one("kv/+/b", "read")], "kv/b", "read")
    assert permits([one("kv/+/b*", "read")], "kv/a/bc/d", "read")
    assert not permits([one("kv/+/b*", "read")], "kv/a/c/b", "read")
    assert permits([one("kv/a*", "read")], "kv/abc/d", "read")
    assert not permits([one("kv/a*b", "read")], "kv/aXb", "read"), "a star within a path is a star"
    assert permits([one("kv/a*b", "read")], "kv/a*b", "read")
    assert permits([one("kv/a", "list")], "kv/a/", "list")
    assert not permits([one("kv/a", "read")], "kv/a/", "read")
    assert permits([one("kv/+", "list")], "kv/a/", "list")
    assert not permits([one("kv/+", "list"), one("kv/+/", "deny")], "kv/a/", "list"), "the path with its slash is first"


def test_policies_of_one_path_add_up_and_deny_prevails() -> None:
    texts = [one("kv/a", "read"), one("kv/a", "update")]
    assert permits(texts, "kv/a", "read")
    assert permits(texts, "kv/a", "update")
    assert not permits([*texts, one("kv/a", "deny", "read")], "kv/a", "read")
    assert not permits([one("kv/a")], "kv/a", "read")


PARAMETERS: tuple[tuple[dict[str, object], dict[str, object], bool], ...] = (
    ({"allowed_parameters": {"a": []}}, {"a": "x"}, True),
    ({"allowed_parameters": {"a": []}}, {"b": "x"}, False),
    ({"allowed_parameters": {"a": ["x", "y*"]}}, {"a": "yes"}, True),
    ({"allowed_parameters": {"a": ["x", "y*"]}}, {"a": "z"}, False),
    ({"allowed_parameters": {"a": ["1"]}}, {"a": 1}, False),
    ({"allowed_parameters": {"a": [True]}}, {"a": True}, True),
    ({"allowed_parameters": {"a": ["*b*"]}}, {"a": "abc"}, True),
    ({"allowed_parameters": {"A": ["x"]}}, {"a": "x"}, True),
    ({"allowed_parameters": {"*": [], "a": ["x"]}}, {"b": "any", "a": "x"}, True),
    ({"allowed_parameters": {"*": [], "a": ["x"]}}, {"a": "y"}, False),
    ({"allowed_parameters": {"a": []}}, {}, True),
    ({"denied_parameters": {"a": []}}, {"A": "x"}, False),
    ({"denied_parameters": {"a": ["x"]}}, {"a": "y"}, True),
    ({"denied_parameters": {"a": ["x*"]}}, {"a": "xy"}, False),
    ({"denied_parameters": {"*": []}}, {"a": "x"}, False),
    ({"denied_parameters": {"*": []}}, {}, True),
    ({"required_parameters": ["a", "b"]}, {"a": 1, "b": 2}, True),
    ({"required_parameters": ["a", "b"]}, {"a": 1}, False),
    ({"required_parameters": ["a"]}, {"A": 1}, False),
    ({"denied_parameters": {"a": []}, "allowed_parameters": {"a": []}}, {"a": "x"}, False),
)


@pytest.mark.parametrize(("rule", "given", "expected"), PARAMETERS)
def test_parameter_rules_decide_updates_and_do_not_apply_to_lists(
    rule: dict[str, object], given: dict[str, object], expected: bool
) -> None:
    assert permits([one("kv/a", "update", "list", **rule)], "kv/a", "update", parameters=given) is expected
    assert permits([one("kv/a", "update", "list", **rule)], "kv/a", "list", parameters=given), "a list has none"


@pytest.mark.parametrize(("seconds", "expected"), [(0, False), (59, False), (60, True), (120, True), (121, False)])
def test_a_wrapping_time_outside_the_limits_of_the_policy_is_denied(seconds: int, expected: bool) -> None:
    text = one("kv/a", "read", min_wrapping_ttl="1m", max_wrapping_ttl=120)
    assert permits([text], "kv/a", "read", wrap_s=seconds) is expected


def test_hcl_and_json_are_read_alike() -> None:
    text = """
    # the reader of the shop
    name = "shop"
    path "kv/shop/*" { // inline
      capabilities = ["read", "list",]
      allowed_parameters = { "version" = ["1"], "other" = [] }
      min_wrapping_ttl = "1s"
    }
    path "kv/old" { policy = "write" }
    /* all of
       this */ path "kv/\\u0041" { capabilities = [ "deny" ] }
    """
    rules = {rule.path: rule for rule in acl.parse_policy(text)}
    assert rules["kv/shop/*"].capabilities == {"read", "list"}
    assert rules["kv/shop/*"].allowed == {"version": (":1",), "other": ()}
    assert rules["kv/old"].capabilities == {"create", "read", "update", "delete", "list"}
    assert rules["kv/A"].capabilities == {"deny"}
    same = {
        "name": "shop",
        "path": [
            {
                "kv/shop/*": {
                    "capabilities": ["read", "list"],
                    "allowed_parameters": {"version": ["1"], "other": []},
                    "min_wrapping_ttl": "1s",
                }
            },
            {"kv/old": {"policy": "write"}, "kv/A": {"capabilities": ["deny"]}},
        ],
    }
    assert {rule.path: rule for rule in acl.parse_policy(json.dumps(same))} == rules


WRONG = (
    ('path "a" {', "line 1: expected a name"),
    ('path "a" { capabilities = ["fly"] }', "path 'a': invalid capability 'fly'"),
    ('\npaths "a" {}', "line 2: invalid key 'paths'"),
    ('path "a" { colour = 1 }', "path 'a': invalid key 'colour'"),
    ('path "a/+*" {}', "'+*' is forbidden"),
    ('path "a" { policy = "fly" }', "invalid policy 'fly'"),
    ('path "a" { capabilities = ["read" "list"] }', "expected `,` or `]`"),
    ('path "a" "b" {}', "a path is written"),
    ('path "a" { min_wrapping_ttl = 9 max_wrapping_ttl = 1 }', "less than min_wrapping_ttl"),
    ("path", "expected `=`"),
    ('path "a" { capabilities = [1] }', "a list of texts"),
    ('path "a" { min_wrapping_ttl = "x" }', "not a duration"),
    ('path "{{identity.entity.metadata.x}}" {}', "unknown template"),
    ('path "{{identity" {}', "a template has no end"),
    ('path "a" { policy = "read" policy = "deny" }', "`policy` is repeated"),
    ('path "a', "unexpected character"),
    ("path <<EOF\na\n", "has no end"),
    ('path "a" { policy = ${x} }', "unexpected character"),
    ('{"path": 1}', "a path"),
    ('{"path": {"a": {"capabilities": ["fly"]}}}', "invalid capability"),
    ("[]", "expected a name"),
    ("{", "JSON"),
)


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_policy_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(Refused) as refusal:
        acl.parse_policy(text)
    assert message.lower() in refusal.value.message.lower()


def nested(depth: int) -> str:
    return f'path "a" {{ allowed_parameters = {"[" * depth}{"]" * depth} }}'


BOMBS = (
    "{" * 60_000,
    "[" * 60_000,
    'a = ["' + '","' * 20_000 + '"]',
    '{"path":' * 9_000,
    'path "a" ' + "{ a " * 9_000,
    f"{'x' * (hcl.MAX_BYTES + 1)}",
    'path "' + "a" * 600 + '" {}',
    "".join(f'path "{n}" {{}}\n' for n in range(129)),
    "".join(f'n{n} = "x"\n' for n in range(hcl.MAX_ITEMS + 1)),
    "<<A\n" * 9_000,
    "/*" * 30_000,
    '"' + "\\" * 30_001,
    nested(hcl.MAX_DEPTH),
    f'path "a" {{ max_wrapping_ttl = {"9" * 5000} }}',
    'path "' + "{" * 60_000 + '" {}',
    'path "' + "{{ x" * 15_000 + '" {}',
)


@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
def test_an_expensive_policy_text_is_refused_quickly(text: str) -> None:
    begun = time.process_time()
    with pytest.raises(Refused):
        acl.parse_policy(text)
    assert time.process_time() - begun < 2, "seconds of CPU, which also the slowest machine does not need"


@pytest.mark.parametrize(
    ("most", "text"),
    [
        (hcl.MAX_ITEMS // 2, lambda count: "a = 1\n" * count),  # a member and its value
        (
            hcl.MAX_ITEMS - 2,
            lambda count: f"a = [{', '.join(['1'] * count)}]",
        ),  # the elements, the member and its value
        (hcl.MAX_ITEMS, lambda count: f'{{"a": [{", ".join(["1"] * count)}]}}'),
    ],
    ids=["lines", "list", "json"],
)
def test_a_policy_has_at_most_the_maximum_number_of_members_and_elements(most: int, text: Callable[[int], str]) -> None:
    assert hcl.parse_hcl(text(most))
    with pytest.raises(Malformed, match=f"more than {hcl.MAX_ITEMS} members"):
        hcl.parse_hcl(text(most + 1))


def test_the_limits_themselves_are_accepted() -> None:
    most = "".join(f'path "{n}/+/x*" {{ capabilities = ["read"] }}\n' for n in range(acl.MAX_RULES))
    rules = acl.parse_policy(most)
    assert len(rules) == acl.MAX_RULES
    other = acl.parse_policy(most.replace("/+/x*", "/y*"))
    assert AccessList([rules, other]).find_capabilities("127/a/x") == {"read"}
    with pytest.raises(Refused, match="at most 256 paths"):
        AccessList([rules, other, acl.parse_policy(one("z", "read"))])
    assert hcl.parse_hcl(f"{'#' * (hcl.MAX_BYTES)}") == []


def test_the_number_of_parameter_values_in_all_policies_of_a_token_is_limited() -> None:
    texts = [
        one("kv/a", "update", allowed_parameters={"p": [f"*{text}-{n}*" for n in range(acl.MAX_PARAMETER_VALUES)]})
        for text in range(acl.MAX_VALUES // acl.MAX_PARAMETER_VALUES)
    ]
    assert permits(texts, "kv/a", "update", parameters={"p": "x63-63x"})
    assert not permits(texts, "kv/a", "update", parameters={"p": "63-"})
    more: tuple[dict[str, object], ...] = ({"q": []}, {"p": ["x"]})
    for denied in more:
        with pytest.raises(Refused, match="at most 4096 parameters and values"):
            permits([*texts, one("kv/b", denied_parameters=denied)], "kv/a", "update")


def test_the_most_specific_of_256_matching_paths_applies() -> None:
    segments = [f"a/{'+' * one}{'b' * (not one)}/" + "+/" * n + "*" for one in (0, 1) for n in range(64)]
    globs = [f"a/{'b/' * n}*" for n in range(2, acl.MAX_RULES + 2)]
    for paths, best in ((segments, "a/b/*"), ([*segments, *globs], globs[-1])):
        rules = [acl.Rule(path=path, capabilities=frozenset({"read", "update"})) for path in paths if path != best]
        assert len(rules) == len(paths) - 1
        access = AccessList([rules, [acl.Rule(path=best, capabilities=frozenset({"list"}))]])
        assert access.find_capabilities(f"a/{'b/' * 129}") == {"list"}


# --- tokens


async def child(bot: VaultAgent, *policies: str, **more: object) -> VaultAgent:
    """Return an agent with a child token of its token."""
    answer = await bot.ask("POST", "auth/token/create", {"policies": list(policies), **more})
    assert answer.status == 200, answer.body
    narrowed = VaultAgent(bot.client, bot.name)
    narrowed.token = answer.json["auth"]["client_token"]
    return narrowed


async def put(bot: VaultAgent, name: str, text: str) -> None:
    answer = await bot.ask("POST", f"sys/policies/acl/{name}", {"policy": text})
    assert answer.status == 204, answer.body


async def test_a_vault_policy_narrows_a_token_and_grants_nothing(world: World, app: ASGIApp, bot: VaultAgent) -> None:
    await permit_all(world)
    await put(bot, "reader", one("secret/data/agents/bot/*", "create", "read") + "")
    narrowed = await child(bot, "reader")
    path = "secret/data/agents/bot/db"
    assert await narrowed.status("POST", path, {"data": {"a": "b"}}) == 200, "it creates"
    assert await narrowed.status("POST", path, {"data": {"a": "c"}}) == 403, "it does not update"
    entry = newest_entry(world)
    assert (entry.outcome, entry.reasons[0].code) == ("refused", "vault_policy")
    assert await narrowed.status("GET", path) == 200
    assert await narrowed.status("DELETE", path) == 403
    assert await narrowed.status("GET", "sys/policies/acl/reader") == 403
    assert await narrowed.status("GET", "auth/token/lookup-self") == 200, "the policy default"
    answer = await narrowed.ask("POST", "sys/capabilities-self", {"paths": [path, "secret/data/other"]})
    assert answer.json["data"][path] == ["create", "read"]
    assert answer.json["data"]["secret/data/other"] == ["deny"]
    assert await bot.read("agents/bot/db") == {"a": "b"}, "the token above is not narrowed"
    other = await (await enter_agent(world, app, "other")).login()
    await put(bot, "all", one("*", "create", "read", "update", "list", "sudo"))
    tokens = 'permit (principal is Agent, action, resource is Secret) when { resource.mount == "auth" };'
    await put_policies(world, POLICIES + tokens)
    widened = await child(other, "all")
    assert await widened.status("GET", path) == 403, "Cedar permits each agent its own folder"


async def test_a_child_token_cannot_have_more_policies_than_its_parent(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await put(bot, "tokens", one("auth/token/*", "update", "sudo", "list"))
    await put(bot, "more", one("secret/*", "read"))
    narrowed = await child(bot, "tokens")
    for policies in (["more"], ["tokens", "more"], ["ostiary"], ["root"]):
        assert await narrowed.status("POST", "auth/token/create", {"policies": policies}) == 400, policies
    same = await child(narrowed, "tokens")
    assert await same.status("GET", "secret/data/agents/bot/x") == 403
    assert await same.status("POST", "auth/token/revoke-self") == 204
    assert await narrowed.status("POST", "auth/token/revoke-self") == 204
    assert await same.status("GET", "auth/token/lookup-self") == 403


async def test_a_protected_path_needs_sudo(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await put(bot, "plain", one("sys/auth/*", "update"))
    await put(bot, "sudo", one("sys/auth/*", "update", "sudo"))
    body = {"type": "approle"}
    assert await (await child(bot, "plain")).status("POST", "sys/auth/mine", body) == 403
    assert await (await child(bot, "sudo")).status("POST", "sys/auth/mine", body) == 204


async def test_an_entity_name_template_stands_for_the_name_of_the_agent(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await put(bot, "own", one("secret/data/agents/{{identity.entity.name}}/*", "create", "read"))
    narrowed = await child(bot, "own")
    assert await narrowed.status("POST", "secret/data/agents/bot/x", {"data": {"a": "b"}}) == 200
    assert await narrowed.status("POST", "secret/data/agents/bo/x", {"data": {"a": "b"}}) == 403


async def test_a_changed_or_deleted_policy_takes_effect_at_once(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    await put(bot, "changing", one("secret/data/x", "create", "read"))
    narrowed = await child(bot, "changing")
    assert await narrowed.status("POST", "secret/data/x", {"data": {"a": "b"}}) == 200
    await put(bot, "changing", one("secret/data/x", "deny"))
    assert await narrowed.status("GET", "secret/data/x") == 403
    assert await bot.status("DELETE", "sys/policies/acl/changing") == 204
    assert await narrowed.status("GET", "secret/data/x") == 403
    for name in ("root", "ostiary"):
        assert await bot.status("POST", f"sys/policies/acl/{name}", {"policy": one("*", "read")}) == 400
        assert await bot.status("DELETE", f"sys/policies/acl/{name}") == 400


async def test_a_token_with_limited_uses_is_refused_after_its_last_use(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    twice = await child(bot, "default", num_uses=2)
    assert [await twice.status("GET", "auth/token/lookup-self") for _ in range(3)] == [200, 200, 403]
    assert await bot.status("POST", "auth/token/create", {"num_uses": -1}) == 400


async def test_a_child_token_cannot_gain_the_default_policy_or_become_an_orphan_without_sudo(
    world: World, bot: VaultAgent
) -> None:
    await permit_all(world)
    await put(bot, "tokens", one("auth/token/create", "update"))
    narrowed = await child(bot, "tokens", no_default_policy=True)
    assert await narrowed.status("POST", "auth/token/create", {"policies": ["default"]}) == 400
    made = await narrowed.ask("POST", "auth/token/create", {"policies": ["tokens"]})
    assert made.json["auth"]["policies"] == ["tokens"]
    assert await narrowed.status("POST", "auth/token/create", {"no_parent": True}) == 403, "it has no `sudo` there"
    await put(bot, "tokens", one("auth/token/create", "update", "sudo"))
    assert await narrowed.status("POST", "auth/token/create", {"no_parent": True}) == 200


async def test_a_path_is_decided_in_its_normalized_form(world: World, bot: VaultAgent) -> None:
    await permit_all(world)
    rules = {"sys/mounts/*": {"capabilities": ["read"]}, "sys/mounts/secret": {"capabilities": ["deny"]}}
    await put(bot, "mounts", json.dumps({"path": rules}))
    narrowed = await child(bot, "mounts")
    for path, status in (("kv", 200), ("kv/", 200), ("secret", 403), ("secret/", 403)):
        assert await narrowed.status("GET", f"sys/mounts/{path}") == status, path
    answer = await narrowed.ask("POST", "sys/capabilities-self", {"paths": ["sys/mounts/kv", "a/" * 16_000]})
    assert answer.json["data"]["a/" * 16_000] == ["deny"]
    assert await bot.status("GET", "auth/token/roles/a%00") == 400
    allow = "permit (principal is Agent, action, resource is Secret);"
    forbid = 'forbid (principal, action, resource is Secret) when { resource.path == "policies/acl/mounts" };'
    await put_policies(world, POLICIES + allow + forbid)
    for name in ("mounts", "MOUNTS", "Mounts/"):
        assert await bot.status("GET", f"sys/policies/acl/{name}") == 403, name
    await permit_all(world)
    await put(bot, "own", 'path "secret/data/agents/{\\u007bidentity.entity.name}}*" { capabilities = ["create"] }')
    own = await child(bot, "own")
    value = {"data": {"rate": 1.5, "count": 2**60}}
    assert await own.status("POST", "secret/data/agents/bot/x", value) == 200
    assert await own.status("POST", "secret/data/agents/other", value) == 403, "the template names the agent"
