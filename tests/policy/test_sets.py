"""Policy sets in the life of a server: put, tested, switched and shown, without a restart or a stale answer."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import feed_messages, newest_entry, register_agent, run_act
from ostiary.authorization.assurance import KEY
from ostiary.authorization.cedar import ir
from ostiary.protocol.errors import Forbidden, NotFound
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows, store, wire_admin
from ostiaryd.policy.flows.sets import REMEMBERED
from ostiaryd.policy.model import own_files, safeguards, starter_files
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent
from tests.support.policy_fixtures import Ask, certification, put

PERMIT, FORBID = (
    {"a.cedar": "permit (principal, action, resource);"},
    {"a.cedar": "forbid (principal, action, resource);"},
)
QUESTION = {
    "subject": {"type": "user", "id": "alice"},
    "action": {"name": "read"},
    "resource": {"type": "record", "id": "record-1"},
}


WRONG = """
[[case]]
name = "nobody reads"
subject = { type = "user", id = "alice" }
action = "read"
resource = { type = "record", id = "record-1" }
expect = "deny"
"""


async def decides(ask: Ask) -> bool:
    _, answer = await ask("/access/v1/evaluation", QUESTION)
    return bool(answer["decision"])


async def test_the_starter_set_is_active_at_first_and_is_listed_with_its_files(world: World, ask: Ask) -> None:
    reader = world.db.read()
    assert store.active_hash(reader) == starter_files().hash
    assert flows.active_policies(reader).hash == starter_files().hash
    assert ir.parse(store.get_active_ir(reader)[1].encode()) == starter_files().ir
    _, listed = await ask("/api/v1/policies", method="GET")
    [only] = listed["policies"]
    assert (only["hash"], only["active"], only["policies"], only["created_by"]) == (
        starter_files().hash,
        True,
        starter_files().count,
        "ostiary",
    )
    _, shown = await ask("/api/v1/policies/{hash}", method="GET", hash=starter_files().hash)
    assert shown["files"] == own_files(starter_files().files)
    assert (shown["extends"], shown["left_out"]) == (safeguards(), [])


async def test_a_set_that_is_put_decides_at_once_and_an_earlier_set_can_be_activated_again(
    world: World, ask: Ask
) -> None:
    assert not await decides(ask)
    status, made = await ask("/api/v1/policies", {"files": PERMIT})
    assert (status, made["active"], made["policies"], made["tests"]) == (201, True, 1, 0)
    assert await decides(ask)
    _, other = await ask("/api/v1/policies", {"files": FORBID})
    assert not await decides(ask)
    status, again = await ask("/api/v1/policies/{hash}/activate", {}, hash=made["hash"])
    assert (status, again["active"]) == (200, True)
    assert await decides(ask)
    _, listed = await ask("/api/v1/policies", method="GET")
    assert {one["hash"]: one["active"] for one in listed["policies"]} == {
        other["hash"]: False,
        made["hash"]: True,
        starter_files().hash: False,
    }
    await ask("/api/v1/policies/{hash}/activate", {}, hash=starter_files().hash)
    assert not await decides(ask)


async def test_a_change_of_the_active_set_sends_its_hash_to_guards_and_leaves_an_entry(world: World, ask: Ask) -> None:
    hash = await put(world, PERMIT)
    entry = newest_entry(world)
    assert (entry.action, entry.object, entry.outcome) == ("policy.put", hash, "ok")
    assert entry.detail == {"policies": 1, "before": starter_files().hash}
    await ask("/api/v1/policies/{hash}/activate", {}, hash=starter_files().hash)
    assert (newest_entry(world).action, newest_entry(world).detail) == ("policy.activate", {"before": hash})
    told = [delta["hash"] for delta in feed_messages(world) if delta["kind"] == "policy"]
    assert told == [hash, starter_files().hash]


async def test_a_dry_run_tests_a_set_and_stores_nothing(world: World, ask: Ask) -> None:
    status, tested = await ask("/api/v1/policies?dry_run=true", {"files": certification()})
    assert (status, tested["active"], tested["policies"], tested["tests"]) == (200, False, 4, 5)
    assert store.active_hash(world.db.read()) == starter_files().hash
    assert store.get(world.db.read(), tested["hash"]) is None
    status, _ = await ask("/api/v1/policies?dry_run=yes", {"files": certification()})
    assert status == 422


@pytest.mark.parametrize("query", ["", "?dry_run=true", "?watch=true"])
async def test_unknown_approvers_of_a_policy_are_named(world: World, ask: Ask, query: str) -> None:
    await register_agent(world, owner="ada")
    asking = '@id("pay") @ask("person") @approvers("ada, adda, finance") forbid (principal, action, resource);'
    _, answer = await ask("/api/v1/policies" + query, {"files": PERMIT | {"b.cedar": asking}})
    assert [note for note in answer["notes"] if "@approvers" in note] == [
        f"`@approvers` of policy `pay` names `{name}`, which is no registered person or team"
        for name in ("adda", "finance")
    ]


async def test_a_set_that_is_refused_changes_nothing(world: World, ask: Ask) -> None:
    cases: list[tuple[Any, int, str]] = [
        ({"files": {"a.cedar": "permit"}}, 400, "malformed"),
        ({"files": {"a.cedar": "permit (principal is x, action, resource);"}}, 422, "invalid"),
        ({"files": PERMIT | {"a.test.toml": WRONG}}, 422, "policy_test_failed"),
        ({"files": []}, 400, "malformed"),
        ({"files": {"a.cedar": 1}}, 400, "malformed"),
        ({"files": PERMIT, "more": 1}, 400, "malformed"),
        ({}, 400, "malformed"),
    ]
    for body, status, error in cases:
        answered, refusal = await ask("/api/v1/policies", body)
        assert (answered, refusal["error"]) == (status, error), body
        assert store.active_hash(world.db.read()) == starter_files().hash, body


async def test_an_unknown_hash_is_not_found(world: World, ask: Ask) -> None:
    for method, path in (("GET", "/api/v1/policies/{hash}"), ("POST", "/api/v1/policies/{hash}/activate")):
        status, refusal = await ask(path, {}, method=method, hash="x" * 43)
        assert (status, refusal["error"]) == (404, "not_found")
    assert newest_entry(world).outcome == "refused"


async def test_stored_sets_are_listed_in_pages_with_the_newest_first(world: World, ask: Ask, clock: Clock) -> None:
    hashes = []
    for number in range(5):
        clock.advance(1 if number != 3 else 0)  # two of one instant
        hashes.append(await put(world, PERMIT | {f"{number}.cedar": "// nothing"}))
    seen: list[str] = []
    after = ""
    while True:
        _, page = await ask(f"/api/v1/policies?limit=2{f'&after={after}' if after else ''}", method="GET")
        seen += [one["hash"] for one in page["policies"]]
        assert len(page["policies"]) <= 2
        if page["next"] is None:
            break
        after = page["next"]
    assert sorted(seen) == sorted([*hashes, starter_files().hash])
    assert (seen[0], set(seen[1:3]), set(seen[4:])) == (hashes[4], set(hashes[2:4]), {hashes[0], starter_files().hash})
    status, _ = await ask("/api/v1/policies?limit=1001", method="GET")
    assert status == 422


async def test_the_same_files_put_again_create_no_new_set(world: World, ask: Ask) -> None:
    first = await put(world, PERMIT)
    await put(world, FORBID)
    assert await put(world, PERMIT) == first
    _, listed = await ask("/api/v1/policies", method="GET")
    assert len(listed["policies"]) == 3


async def test_a_set_that_is_no_longer_cached_decides_after_it_is_activated_again(world: World, ask: Ask) -> None:
    first = await put(world, PERMIT)
    for number in range(REMEMBERED + 1):
        await put(world, FORBID | {f"{number}.cedar": "// nothing"})
    assert not await decides(ask)
    await run_act(world, lambda a: flows.activate(a, first))
    assert await decides(ask)


async def test_a_decision_matches_its_stated_set_while_sets_change_under_load(world: World, ask: Ask) -> None:
    by_hash = {await put(world, FORBID): False, await put(world, PERMIT): True}

    async def switch() -> None:
        for number in range(20):
            await run_act(world, partial(flows.activate, hash=list(by_hash)[number % 2]))

    async def look() -> None:
        for _ in range(40):
            _, answer = await ask("/access/v1/evaluation", QUESTION)
            assert answer["decision"] is by_hash[answer["context"]["policy"]]

    await asyncio.gather(switch(), *(look() for _ in range(4)))


def test_policy_routes_require_the_read_scope_to_read_and_the_admin_scope_to_change() -> None:
    scopes = {(route.method, route.path): route.scope for route in wire_admin.ROUTES}
    assert {path for (method, path), scope in scopes.items() if scope == "ostiary:read"} == {
        "/api/v1/policies",
        "/api/v1/policies/{hash}",
        "/api/v1/policies/schema",
    }
    assert {scope for (method, path), scope in scopes.items() if method != "GET" and "policies" in path} == {
        "ostiary:admin"
    }


# --- issuing tokens -------------------------------------------------------------------------------------------------


def issue(agent: Agent, a: Act, **more: Any) -> str:
    chain = flows.TaskChain(more.pop("task", "tk_1"))
    asked = {"resource": None, "uri": "https://other.example", "scopes": frozenset({"files:read"})}
    return flows.decide_issue(a, agent, chain, acr=KEY, **(asked | more))


async def test_the_starter_set_permits_token_issue_and_the_entry_names_its_policy(world: World) -> None:
    agent = await register_agent(world)
    assert await run_act(world, lambda a: issue(agent, a)) == starter_files().hash
    entry = newest_entry(world)
    assert (entry.policy, entry.policies) == (starter_files().hash, ["issue-token"])


RULES = """
@id("files-only")
permit (principal is Agent, action == Action::"issue_token", resource == Resource::"files");

@id("no-writing")
@reason("this agent only reads")
forbid (principal is Agent, action == Action::"issue_token", resource is Resource)
when { context.scopes.contains("files:write") };

@id("no-strangers")
forbid (principal is Agent, action == Action::"issue_token", resource is Resource)
unless { resource.segment == principal.segment && resource.uri like "https://*" && context.task like "tk_*" };
"""


async def test_policies_decide_on_the_resource_the_scopes_and_the_task_of_a_token(world: World) -> None:
    agent = await register_agent(world)
    files = await run_act(world, lambda a: registry.create_resource(a, name="files", uri="https://files.example/mcp"))
    await put(world, {"a.cedar": RULES})
    at_files: dict[str, Any] = {"resource": files, "uri": files.uri}
    await run_act(world, lambda a: issue(agent, a, **at_files))
    for more, why in [
        (at_files | {"scopes": frozenset({"files:read", "files:write"})}, "this agent only reads"),
        (at_files | {"task": ""}, "policy `no-strangers` forbids the request"),
        ({}, "policy `no-strangers` forbids the request"),
    ]:
        with pytest.raises(Forbidden, match=why) as refused:
            await run_act(world, partial(issue, agent, **more))
        assert refused.value.code == "access_denied"
        assert newest_entry(world).outcome == "refused"
        assert newest_entry(world).policy


async def test_an_empty_hash_finds_no_set(world: World) -> None:
    with pytest.raises(NotFound):
        flows.find_set(world.db.read(), "")
