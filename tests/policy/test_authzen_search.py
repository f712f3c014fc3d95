"""Searches beyond the certification's: registered kinds, groups, pages and their tokens, bounds, hostile requests."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.clock import Clock
from harness.registry_fixtures import ADMIN, agent_caller, newest_entry, register_agent, run_act
from ostiary.authorization.catalogue import Catalogue
from ostiary.protocol.jose import b64u, unb64u
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows.search import MAX_EXAMINED, MAX_RESULTS
from ostiaryd.policy.model.page_token import LIFETIME
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from tests.support.policy_fixtures import Ask, certification, put

SUBJECT, RESOURCE, ACTION = "/access/v1/search/subject", "/access/v1/search/resource", "/access/v1/search/action"
WHO: dict[str, Any] = {
    "subject": {"type": "user"},
    "action": {"name": "view"},
    "resource": {"type": "document", "id": "d"},
}
GROUPS = {
    "a.cedarschema": """
        entity group in [group];
        entity user in [group] = { id: String, clearance?: Long };
        entity document in [document] = { id: String, viewers?: Set<group> };
        action view appliesTo { principal: user, resource: document };
    """,
    "a.cedar": """
        permit (principal, action == Action::"view", resource) when { principal in group::"staff" };
    """,
    "a.entities.json": json.dumps(
        [
            {"uid": {"type": "group", "id": "staff"}},
            {"uid": {"type": "group", "id": "lab"}, "parents": [{"type": "group", "id": "staff"}]},
            {"uid": {"type": "user", "id": "ann"}, "parents": [{"type": "group", "id": "lab"}]},
            {"uid": {"type": "user", "id": "ben"}, "parents": [{"type": "group", "id": "staff"}]},
            {"uid": {"type": "user", "id": "cem"}},
            {"uid": {"type": "document", "id": "d"}},
        ]
    ),
}


def many(count: int, permitted: str = "principal has clearance && principal.clearance > 0") -> dict[str, str]:
    """A set with `count` users, of whom every third has a clearance."""
    users = [
        {"uid": {"type": "user", "id": f"u{number:05}"}, "attrs": {"clearance": int(number % 3 == 0)}}
        for number in range(count)
    ]
    return GROUPS | {
        "a.cedar": f'permit (principal, action == Action::"view", resource) when {{ {permitted} }};',
        "a.entities.json": json.dumps([*users, {"uid": {"type": "document", "id": "d"}}]),
    }


def names(answer: dict[str, Any]) -> list[str]:
    return [one.get("id") or one["name"] for one in answer["results"]]


async def test_groups_of_groups_are_followed_in_searches_and_in_evaluations(world: World, ask: Ask) -> None:
    await put(world, GROUPS)
    assert names((await ask(SUBJECT, WHO))[1]) == ["ann", "ben"]
    for user, decision in (("ann", True), ("ben", True), ("cem", False), ("eve", False)):
        question = WHO | {"subject": {"type": "user", "id": user}}
        assert (await ask("/access/v1/evaluation", question))[1]["decision"] is decision


async def test_a_sent_property_counts_only_if_the_set_does_not_state_the_attribute(world: World, ask: Ask) -> None:
    await put(world, many(2))
    cleared, stated = {"clearance": 1}, {"type": "user", "id": "u00001", "properties": {"clearance": 1}}
    assert names((await ask(SUBJECT, WHO | {"subject": {"type": "user", "properties": cleared}}))[1]) == ["u00000"]
    assert (await ask("/access/v1/evaluation", WHO | {"subject": stated}))[1]["decision"] is False
    await put(world, GROUPS | {"a.cedar": many(0)["a.cedar"]})
    assert names((await ask(SUBJECT, WHO))[1]) == []
    assert names((await ask(SUBJECT, WHO | {"subject": {"type": "user", "properties": cleared}}))[1]) == [
        "ann",
        "ben",
        "cem",
    ]


async def test_an_entity_of_a_type_without_stated_entities_is_used_as_sent(world: World, ask: Ask) -> None:
    open_ = {name: text for name, text in GROUPS.items() if name != "a.entities.json"}
    await put(world, open_ | {"a.cedar": 'permit (principal, action, resource) when { principal.id == "ann" };'})
    for user, found in (("ann", ["view"]), ("ben", [])):
        _, answer = await ask(ACTION, {"subject": {"type": "user", "id": user}, "resource": WHO["resource"]})
        assert names(answer) == found


async def test_an_action_search_finds_only_actions_that_the_schema_allows_for_both_types(
    world: World, ask: Ask
) -> None:
    await put(world, GROUPS | {"a.cedar": "permit (principal, action, resource);"})
    _, answer = await ask(ACTION, {"subject": {"type": "user", "id": "cem"}, "resource": WHO["resource"]})
    assert names(answer) == ["view"]
    _, swapped = await ask(ACTION, {"subject": WHO["resource"], "resource": {"type": "user", "id": "cem"}})
    assert names(swapped) == []


# --- agents, tools, resources ---------------------------------------------------------------------------------------


def _catalogue(name: str, parsed: Catalogue, act: Act) -> None:
    registry.set_catalogue(act, name, parsed)


async def stage(world: World) -> dict[str, str]:
    """Three agents, one of them suspended and one without scopes, and two servers; the agents' ids by name."""
    for name, tools in (("files", ["read", "write", "list"]), ("bank", ["pay"])):
        catalogue = {"resource": name, "tools": [{"name": tool, "effect": "read"} for tool in tools]}
        parsed = Catalogue.parse(json.dumps(catalogue))
        await run_act(world, partial(registry.create_resource, name=name, uri=f"https://{name}.example"))
        await run_act(world, partial(_catalogue, name, parsed))
    ids: dict[str, str] = {}
    for name, scopes in (
        ("one", ["files:read"]),
        ("two", ["files:read", "bank:read"]),
        ("three", []),
        ("four", ["files:read"]),
    ):
        ids[name] = (await register_agent(world, name, scopes=scopes)).agent_id
    await run_act(world, lambda a: registry.set_agent_state(a, ids["four"], Verb.SUSPEND))
    return ids


def calls(subject: dict[str, Any], resource: dict[str, Any]) -> dict[str, Any]:
    return {"subject": subject, "action": {"name": "call"}, "resource": resource}


async def test_a_search_finds_the_registered_agents_and_tools_that_the_full_decision_allows(
    world: World, ask: Ask
) -> None:
    ids = await stage(world)
    tool = {"type": "tool", "id": "files/read"}
    assert names((await ask(SUBJECT, calls({"type": "agent"}, tool)))[1]) == sorted([ids["one"], ids["two"]])
    assert names((await ask(SUBJECT, calls({"type": "agent"}, tool | {"id": "bank/pay"})))[1]) == [ids["two"]]
    for name, found in (
        ("one", ["files/list", "files/read", "files/write"]),
        ("two", ["bank/pay", "files/list", "files/read", "files/write"]),
        ("three", []),
        ("four", []),
    ):
        _, answer = await ask(RESOURCE, calls({"type": "agent", "id": ids[name]}, {"type": "tool"}))
        assert sorted(names(answer)) == found
    for name, found in (("one", ["call"]), ("three", []), ("four", [])):
        _, answer = await ask(ACTION, {"subject": {"type": "Agent", "id": ids[name]}, "resource": tool})
        assert names(answer) == found
    _, answer = await ask(
        RESOURCE,
        {
            "subject": {"type": "agent", "id": "one"},
            "action": {"name": "issue_token"},
            "resource": {"type": "Resource"},
        },
    )
    assert sorted(names(answer)) == ["bank", "files"]


async def test_pages_of_tools_across_resources_miss_and_repeat_no_tool(world: World, ask: Ask) -> None:
    ids = await stage(world)
    search = calls({"type": "agent", "id": ids["two"]}, {"type": "tool"})
    cases: list[int] = [1, 2, 3, 4, 5]
    for limit in cases:
        found = await walk(ask, RESOURCE, search, limit)
        assert sorted(found) == ["bank/pay", "files/list", "files/read", "files/write"], limit
        agents = await walk(ask, SUBJECT, calls({"type": "agent"}, {"type": "tool", "id": "files/read"}), limit)
        assert agents == sorted([ids["one"], ids["two"]]), limit


SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "limit": {"type": "integer"}},
    "required": ["path"],
    "additionalProperties": False,
}
LOOKING = {
    "a.cedarschema": "type Arguments = { path?: String, limit?: Long };",
    "a.cedar": """
        permit (principal is Agent, action == Action::"call", resource)
        when { context.arguments has path && context.arguments.path like "/tmp/*" };
        @id("no-more") forbid (principal is Agent, action == Action::"call", resource)
        when { context.arguments has limit && context.arguments.limit > 9 };
    """,
}


async def shelf(world: World) -> str:
    """An agent that may read at a server with one tool that takes arguments; its id."""
    catalogue = {"resource": "shelf", "tools": [{"name": "open", "effect": "read", "arguments": SCHEMA}]}
    await run_act(world, partial(registry.create_resource, name="shelf", uri="https://shelf.example"))
    await run_act(world, partial(_catalogue, "shelf", Catalogue.parse(json.dumps(catalogue))))
    return (await register_agent(world, "one", scopes=["shelf:read"])).agent_id


OPEN = {"type": "tool", "id": "shelf/open"}


async def test_a_tool_with_required_arguments_is_found_if_no_policy_reads_its_arguments(world: World, ask: Ask) -> None:
    agent = await shelf(world)
    _, answer = await ask(SUBJECT, calls({"type": "agent"}, OPEN))
    assert answer["results"] == [{"type": "agent", "id": agent}]


async def test_a_search_result_lists_the_arguments_on_which_it_depends(world: World, ask: Ask) -> None:
    agent = await shelf(world)
    await put(world, LOOKING)
    cases: list[tuple[Any, list[str] | None]] = [
        (None, ["arguments.limit", "arguments.path"]),
        ({}, ["arguments.limit", "arguments.path"]),
        ({"path": "/tmp/a"}, ["arguments.limit"]),
        ({"limit": 9}, ["arguments.path"]),
        ({"path": "/tmp/a", "limit": 9}, []),
        ({"path": "/etc/a"}, None),
        ({"limit": 10}, None),
        ({"path": 7}, None),
        ({"other": 7}, None),
    ]
    for arguments, depends in cases:
        context = {} if arguments is None else {"context": {"arguments": arguments}}
        due = {"context": {"depends_on": depends}} if depends else {}
        for path, search, result in (
            (SUBJECT, calls({"type": "agent"}, OPEN), {"type": "agent", "id": agent}),
            (RESOURCE, calls({"type": "agent", "id": agent}, {"type": "tool"}), OPEN),
            (ACTION, {"subject": {"type": "agent", "id": agent}, "resource": OPEN}, {"name": "call"}),
        ):
            _, answer = await ask(path, search | context)
            assert answer["results"] == ([] if depends is None else [result | due]), arguments
            _, certain = await ask(path, search | context | {"options": {"uncertain": "exclude"}})
            assert certain["results"] == ([result] if depends == [] else []), arguments


@pytest.mark.parametrize(("when", "null_is_permitted"), [("when", False), ("unless", True)])
async def test_a_required_argument_may_be_null(world: World, ask: Ask, when: str, null_is_permitted: bool) -> None:
    agent = await shelf(world)
    policy = f'permit (principal is Agent, action == Action::"call", resource) {when} {{ context.arguments has path }};'
    await put(world, LOOKING | {"a.cedar": policy})
    asked = calls({"type": "agent", "id": agent}, OPEN)
    for path, is_permitted in ((None, null_is_permitted), ("/tmp/a", not null_is_permitted)):
        _, answer = await ask("/access/v1/evaluation", asked | {"context": {"arguments": {"path": path}}})
        assert answer["decision"] is is_permitted
    _, found = await ask(SUBJECT, calls({"type": "agent"}, OPEN))
    [result] = found["results"]
    assert result["context"]["depends_on"] == ["arguments.path"]
    given_null = {"context": {"arguments": {"path": None, "limit": 1}}}
    _, found = await ask(SUBJECT, calls({"type": "agent"}, OPEN) | given_null)
    assert len(found["results"]) == null_is_permitted


@pytest.mark.parametrize("combined", [{"$defs": {"a": SCHEMA}, "$ref": "#/$defs/a"}, {"allOf": [SCHEMA]}])
async def test_arguments_that_a_combined_schema_requires_are_unknown(
    world: World, ask: Ask, combined: dict[str, Any]
) -> None:
    agent = await shelf(world)
    catalogue = {"resource": "shelf", "tools": [{"name": "open", "effect": "read", "arguments": combined}]}
    await run_act(world, partial(_catalogue, "shelf", Catalogue.parse(json.dumps(catalogue))))
    await put(world, LOOKING)
    search = calls({"type": "agent"}, OPEN) | {"context": {"arguments": {"limit": 5}}}
    [result] = (await ask(SUBJECT, search))[1]["results"]
    assert (result["id"], result["context"]["depends_on"]) == (agent, ["arguments"])
    question = calls({"type": "agent", "id": agent}, OPEN)
    context = {"context": {"arguments": {"limit": 5, "path": "/tmp/a"}}}
    assert (await ask("/access/v1/evaluation", question | context))[1]["decision"] is True


async def test_the_option_uncertain_must_be_include_or_exclude(world: World, ask: Ask) -> None:
    await shelf(world)
    search = calls({"type": "agent"}, OPEN)
    for options, status in (({}, 200), ({"uncertain": "include"}, 200), ({"uncertain": "some"}, 400), ([], 400)):
        assert (await ask(SUBJECT, search | {"options": options}))[0] == status


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (calls({"type": "agent"}, {"type": "tool", "id": "shelf/opne"}), "has no tool 'opne'"),
        (calls({"type": "agent"}, {"type": "tool", "id": "shelve/open"}), "no resource 'shelve'"),
        (calls({"type": "agent"}, {"type": "Resource", "id": "shelve"}), "no resource 'shelve'"),
        (calls({"type": "agent"}, OPEN) | {"action": {"name": "cal"}}, "no action 'cal'"),
    ],
)
async def test_an_unknown_registered_name_is_an_error(world: World, ask: Ask, search: Any, message: str) -> None:
    await shelf(world)
    status, said = await ask(SUBJECT, search)
    assert (status, message in said) == (404, True)
    assert newest_entry(world).outcome == "refused"
    status, said = await ask(RESOURCE, calls({"type": "agent", "id": "onee"}, {"type": "tool"}))
    assert (status, "no agent 'onee'" in said) == (404, True)
    status, said = await ask(ACTION, {"subject": {"type": "agent", "id": "onee"}, "resource": OPEN})
    assert (status, "no agent 'onee'" in said) == (404, True)


async def test_only_callers_who_may_list_agents_get_a_suggestion_for_an_unknown_name(world: World, ask: Ask) -> None:
    await shelf(world)
    other = agent_caller(await register_agent(world, "other"))
    search = calls({"type": "agent", "id": "onee"}, {"type": "tool"})
    for by, hint in ((ADMIN, True), (other, False)):
        _, said = await ask(RESOURCE, search, by=by)
        assert ("did you mean `one`?" in said) is hint


# --- pages ------------------------------------------------------------------------------------------------------------


async def walk(ask: Ask, path: str, search: dict[str, Any], limit: int | None = None) -> list[str]:
    """All results, page by page."""
    page: dict[str, Any] = {} if limit is None else {"limit": limit}
    found: list[str] = []
    while True:
        status, answer = await ask(path, search | {"page": page})
        assert status == 200, answer
        assert answer["page"]["count"] == len(answer["results"]) <= (limit or MAX_RESULTS)
        assert answer["page"]["properties"]["examined"] <= MAX_EXAMINED
        found += names(answer)
        if not answer["page"]["next_token"]:
            return found
        page["token"] = answer["page"]["next_token"]


async def test_a_page_has_100_results_by_default_and_at_most_1000(world: World, ask: Ask) -> None:
    await put(world, many(MAX_RESULTS + 1, "true"))
    for page, count in (
        ({}, 100),
        ({"limit": 99}, 99),
        ({"limit": 101}, 101),
        ({"limit": MAX_RESULTS}, MAX_RESULTS),
        ({"limit": MAX_RESULTS + 1}, MAX_RESULTS),
        ({"limit": 10**18}, MAX_RESULTS),
    ):
        status, answer = await ask(SUBJECT, WHO | {"page": page})
        assert (status, len(answer["results"])) == (200, count)
        assert answer["page"]["next_token"]


async def test_a_page_examines_at_most_1000_candidates_and_states_the_number(world: World, ask: Ask) -> None:
    await put(world, many(MAX_EXAMINED + 2, 'principal.id == "u00000" || principal.id == "u01001"'))
    _, first = await ask(SUBJECT, WHO)
    assert (names(first), first["page"]["properties"]) == (["u00000"], {"examined": MAX_EXAMINED})
    _, second = await ask(SUBJECT, WHO | {"page": {"token": first["page"]["next_token"]}})
    assert (names(second), second["page"]) == (
        ["u01001"],
        {"next_token": "", "count": 1, "properties": {"examined": 2}},
    )
    await put(world, many(MAX_EXAMINED, "false"))
    _, whole = await ask(SUBJECT, WHO)
    assert whole["page"] == {"next_token": "", "count": 0, "properties": {"examined": MAX_EXAMINED}}


async def test_a_page_with_limit_0_examines_nothing_and_has_a_token_for_the_next_page(world: World, ask: Ask) -> None:
    await put(world, GROUPS)
    status, answer = await ask(SUBJECT, WHO | {"page": {"limit": 0}})
    assert (status, answer["results"], answer["page"]["properties"]) == (200, [], {"examined": 0})
    assert answer["page"]["next_token"]
    _, again = await ask(SUBJECT, WHO | {"page": {"limit": 0, "token": answer["page"]["next_token"]}})
    assert again["results"] == []


BAD_PAGES: list[Any] = [
    {"limit": -1},
    {"limit": 1.5},
    {"limit": "1"},
    {"limit": True},
    {"limit": -(2**70)},
    {"token": 1},
    {"token": ""},
    {"token": "x"},
    {"token": "A" * 5000},
    {"token": "é"},
    {"token": "AAAA"},
    [],
    "x",
    1,
    {"properties": []},
]


async def test_an_invalid_page_is_a_400_with_an_error_string(world: World, ask: Ask) -> None:
    await put(world, GROUPS)
    for page in BAD_PAGES:
        status, message = await ask(SUBJECT, WHO | {"page": page})
        assert (status, type(message)) == (400, str), page


async def first_token(ask: Ask, search: dict[str, Any] = WHO, limit: int = 1) -> str:
    _, answer = await ask(SUBJECT, search | {"page": {"limit": limit}})
    assert answer["page"]["next_token"]
    return str(answer["page"]["next_token"])


async def test_a_forged_page_token_is_refused_with_a_ledger_entry(world: World, ask: Ask) -> None:
    await put(world, GROUPS)
    sealed = unb64u(await first_token(ask))
    for place in range(len(sealed)):
        forged = bytearray(sealed)
        forged[place] ^= 1
        status, message = await ask(SUBJECT, WHO | {"page": {"token": b64u(bytes(forged))}})
        assert (status, message) == (400, "the page token was not issued to this caller by this server")
    for cut in (0, 1, 11, 12, 27, 28, len(sealed) - 1):
        assert (await ask(SUBJECT, WHO | {"page": {"token": b64u(sealed[:cut]) or "A"}}))[0] == 400
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.reasons[0].code) == ("search.subject", "refused", "invalid_page_token")


async def test_a_page_token_is_encrypted_and_differs_each_time(world: World, ask: Ask) -> None:
    await put(world, many(9))
    token = await first_token(ask)
    assert b"u0000" not in unb64u(token)
    assert await first_token(ask) != token


async def test_a_page_token_continues_only_its_own_search(world: World, ask: Ask) -> None:
    await put(world, GROUPS)
    cases: list[dict[str, Any]] = [
        {"action": {"name": "edit"}},
        {"action": {"name": "view", "properties": {"a": 1}}},
        {"resource": {"type": "document", "id": "e"}},
        {"resource": {"type": "document", "id": "d", "properties": {"a": 1}}},
        {"subject": {"type": "group"}},
        {"subject": {"type": "user", "properties": {"a": 1}}},
        {"context": {"a": 1}},
    ]
    for change in cases:
        token = await first_token(ask)
        status, message = await ask(SUBJECT, WHO | change | {"page": {"token": token}})
        assert (status, message) == (400, "the search differs from the search of the page token"), change


async def test_a_request_with_a_page_token_cannot_change_the_limit_or_properties_of_the_page(
    world: World, ask: Ask
) -> None:
    await put(world, GROUPS)
    token = await first_token(ask)
    for page, status in (
        ({}, 200),
        ({"limit": 1}, 200),
        ({"limit": 2}, 400),
        ({"limit": 0}, 400),
        ({"properties": {"a": 1}}, 400),
    ):
        assert (await ask(SUBJECT, WHO | {"page": {"token": token} | page}))[0] == status
    spelled = json.dumps(dict(reversed((WHO | {"page": {"token": token}, "unknown": 1}).items())), indent=2).encode()
    assert (await ask(SUBJECT, spelled))[0] == 200
    assert (await ask(SUBJECT, WHO | {"subject": {"type": "user", "id": "x"}, "page": {"token": token}}))[0] == 200
    other = {"subject": {"type": "user", "id": "ann"}, "action": WHO["action"], "resource": {"type": "document"}}
    assert (await ask(RESOURCE, other | {"page": {"token": token}}))[0] == 400


async def test_a_page_token_is_accepted_only_from_the_caller_that_received_it(world: World, ask: Ask) -> None:
    await put(world, GROUPS)
    other = agent_caller(await register_agent(world))
    token = await first_token(ask)
    assert (await ask(SUBJECT, WHO | {"page": {"token": token}}, by=other))[0] == 400
    assert (await ask(SUBJECT, WHO | {"page": {"token": token}}, by=ADMIN))[0] == 200


async def test_a_page_token_ends_after_an_hour_or_when_the_policies_change(
    world: World, ask: Ask, clock: Clock
) -> None:
    await put(world, GROUPS)
    token = await first_token(ask)
    clock.now += LIFETIME - 1_000_000
    assert (await ask(SUBJECT, WHO | {"page": {"token": token}}))[0] == 200
    clock.now += 1_000_000
    assert (await ask(SUBJECT, WHO | {"page": {"token": token}}))[1] == "the page token is more than an hour old"
    token = await first_token(ask)
    await put(world, GROUPS | {"b.cedar": "permit (principal, action, resource);"})
    status, message = await ask(SUBJECT, WHO | {"page": {"token": token}})
    assert (status, message) == (400, "the policies have changed since the page before")
    await put(world, GROUPS)
    assert (await ask(SUBJECT, WHO | {"page": {"token": token}}))[0] == 200


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.data())
async def test_pages_of_any_size_return_all_permitted_results_in_order(
    world: World, ask: Ask, data: st.DataObject
) -> None:
    users = data.draw(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 2), max_size=12))
    entities = [{"uid": {"type": "user", "id": id}, "attrs": {"clearance": n}} for id, n in users.items()]
    document = {"uid": {"type": "document", "id": "d"}}
    await put(world, many(0) | {"a.entities.json": json.dumps([*entities, document])})
    limit = data.draw(st.integers(1, 5))
    found = await walk(ask, SUBJECT, WHO, limit)
    assert found == sorted(id for id, clearance in users.items() if clearance > 0)
    for id in users:
        question = WHO | {"subject": {"type": "user", "id": id}}
        assert (await ask("/access/v1/evaluation", question))[1]["decision"] is (id in found)


# --- entries, and hostile requests ------------------------------------------------------------------------------------


async def test_a_search_page_leaves_one_entry_with_the_caller_the_search_and_the_results(
    world: World, ask: Ask
) -> None:
    hash = await put(world, GROUPS)
    before, _ = ledger.get_head(world.db.read())
    await ask(SUBJECT, WHO | {"page": {"limit": 1}})
    after, _ = ledger.get_head(world.db.read())
    assert after.size == before.size + 1
    entry = newest_entry(world)
    assert (entry.action, entry.reporter, entry.token, entry.policy) == ("search.subject", ADMIN.id, ADMIN.token, hash)
    assert entry.detail == {
        "asked": ["user", "", "view", "document", "d"],
        "sought": "subject",
        "found": ["ann"],
        "count": 1,
        "examined": 1,
        "more": True,
    }


HOSTILE: list[bytes] = [
    b"[" * 100_000,
    b'{"subject":{"type":"user"},"subject":{"type":"user"}}',
    json.dumps(WHO).replace('"type": "user"', '"type": "user", "type": "group"').encode(),
    json.dumps(WHO | {"context": {"a": 1}}).replace('"a": 1', '"a": 1, "a": 2').encode(),
    json.dumps(WHO).encode("utf-16"),
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"\xff",
    b"",
]


async def test_a_malformed_search_is_a_400_with_an_error_string(world: World, ask: Ask) -> None:
    await put(world, GROUPS)
    for body in HOSTILE:
        status, message = await ask(SUBJECT, body)
        assert (status, type(message)) == (400, str), body


async def test_a_large_number_of_unused_properties_is_accepted_and_changes_nothing(world: World, ask: Ask) -> None:
    await put(world, GROUPS)
    bag = {f"property {number}": ["x" * 50] * 3 for number in range(2000)}
    for part in ({"subject": {"type": "user", "properties": bag}}, {"context": bag}):
        status, answer = await ask(SUBJECT, WHO | part)
        assert (status, names(answer)) == (200, ["ann", "ben"])


async def test_types_and_ids_are_compared_code_point_by_code_point(world: World, ask: Ask) -> None:
    await put(world, GROUPS)
    for kind in ("User", "user ", "us\u200ber", "ｕser", ""):
        assert names((await ask(SUBJECT, WHO | {"subject": {"type": kind}}))[1]) == []
    for id in ("D", "d ", "d\u0301", "ｄ", "", "../d"):
        assert names((await ask(SUBJECT, WHO | {"resource": {"type": "document", "id": id}}))[1]) == []


def test_every_search_route_requires_the_decide_scope() -> None:
    from ostiaryd.policy import wire_search

    assert {(route.path, route.scope) for route in wire_search.ROUTES} == {
        (SUBJECT, "ostiary:decide"),
        (RESOURCE, "ostiary:decide"),
        (ACTION, "ostiary:decide"),
    }


def test_the_certification_set_has_its_four_files() -> None:
    assert set(certification()) == {
        "certification.cedar",
        "certification.cedarschema",
        "certification.entities.json",
        "certification.test.toml",
    }
