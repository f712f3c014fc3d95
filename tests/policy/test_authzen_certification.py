"""The scenario of the OpenID AuthZEN certification: Basic, Batch and Search, Core and Properties, and Discovery.

Fixture: certification/. What its text says of transport is in test_authzen_transport.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from ostiaryd.ground.world import World
from tests.support.policy_fixtures import Ask

ALICE, BOB = {"type": "user", "id": "alice"}, {"type": "user", "id": "bob"}
R1, R2 = {"type": "record", "id": "record-1"}, {"type": "record", "id": "record-2"}
ARCHIVED = {"properties": {"status": "archived"}}
ADMIN = {"properties": {"role": "admin"}}


def case(subject: dict[str, Any], action: str, resource: dict[str, Any], **properties: Any) -> dict[str, Any]:
    verb = {"name": action} | ({"properties": properties} if properties else {})
    return {"subject": subject, "action": verb, "resource": resource}


SCENARIO = [
    (case(ALICE, "read", R1), True),
    (case(ALICE, "write", R1), True),
    (case(BOB, "read", R1), True),
    (case(BOB, "write", R1), False),
    (case(ALICE, "write", R2 | ARCHIVED), False),
    (case(ALICE, "write", R1 | {"properties": {"status": "active"}}), True),
    (case(BOB | ADMIN, "write", R2 | ARCHIVED), True),
    (case(ALICE, "delete", R1, soft=True), True),
    (case(ALICE, "delete", R1, soft=False), False),
]


async def test_an_evaluation_decides_as_the_certification_expects(certified: World, ask: Ask) -> None:
    for question, expected in SCENARIO:
        status, answer = await ask("/access/v1/evaluation", question)
        assert (status, answer["decision"]) == (200, expected), question


async def test_a_batch_decides_as_the_certification_expects_in_the_order_of_the_request(
    certified: World, ask: Ask
) -> None:
    status, answer = await ask("/access/v1/evaluations", {"evaluations": [question for question, _ in SCENARIO]})
    assert status == 200
    assert set(answer) == {"evaluations"}
    assert [one["decision"] for one in answer["evaluations"]] == [expected for _, expected in SCENARIO]


async def test_defaults_are_replaced_as_a_whole_and_not_merged(certified: World, ask: Ask) -> None:
    batch = {
        "subject": ALICE | ADMIN,
        "action": {"name": "write"},
        "evaluations": [{"resource": R2 | ARCHIVED}, {"subject": ALICE, "resource": R2 | ARCHIVED}],
        "resource": R1,
    }
    _, answer = await ask("/access/v1/evaluations", batch)
    assert [one["decision"] for one in answer["evaluations"]] == [True, False]


@pytest.mark.parametrize(
    ("semantic", "expected"),
    [
        ("execute_all", [True, False, True, False]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ],
)
async def test_a_batch_semantic_stops_at_the_decision_that_settles_the_batch(
    certified: World, ask: Ask, semantic: str, expected: list[bool]
) -> None:
    asked = [case(ALICE, "read", R1), case(BOB, "write", R1), case(BOB, "read", R1), case(BOB, "write", R1)]
    _, answer = await ask(
        "/access/v1/evaluations", {"evaluations": asked, "options": {"evaluations_semantic": semantic}}
    )
    assert [one["decision"] for one in answer["evaluations"]] == expected


async def test_permit_on_first_permit_goes_on_after_denials(certified: World, ask: Ask) -> None:
    asked = [case(BOB, "write", R1), case(ALICE, "write", R2), case(ALICE, "read", R1), case(BOB, "read", R1)]
    _, answer = await ask(
        "/access/v1/evaluations", {"evaluations": asked, "options": {"evaluations_semantic": "permit_on_first_permit"}}
    )
    assert [one["decision"] for one in answer["evaluations"]] == [False, False, True]


@pytest.mark.parametrize("empty", [{}, {"evaluations": []}, {"evaluations": None}])
async def test_a_batch_without_evaluations_is_a_single_evaluation(
    certified: World, ask: Ask, empty: dict[str, Any]
) -> None:
    status, answer = await ask("/access/v1/evaluations", case(ALICE, "read", R1) | empty)
    assert (status, answer["decision"], "evaluations" in answer) == (200, True, False)


# --- Search -----------------------------------------------------------------------------------------------------------

SUBJECT, RESOURCE, ACTION = "/access/v1/search/subject", "/access/v1/search/resource", "/access/v1/search/action"
USERS, RECORDS = {"type": "user"}, {"type": "record"}
READ, WRITE = {"name": "read"}, {"name": "write"}
CONTEXT = {"context": {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}}
WHO_READS = {"subject": USERS, "action": READ, "resource": R1}
WHAT_ALICE_READS = {"subject": ALICE, "action": READ, "resource": RECORDS}
WHAT_ALICE_DOES = {"subject": ALICE, "resource": R1}

SEARCHES: list[tuple[str, dict[str, Any], set[str]]] = [
    (SUBJECT, WHO_READS, {"alice", "bob"}),
    (SUBJECT, WHO_READS | CONTEXT, {"alice", "bob"}),
    (SUBJECT, WHO_READS | {"subject": ALICE}, {"alice", "bob"}),
    (SUBJECT, {"subject": USERS, "action": WRITE, "resource": R2 | ARCHIVED}, {"bob"}),
    (RESOURCE, WHAT_ALICE_READS, {"record-1", "record-2"}),
    (RESOURCE, WHAT_ALICE_READS | CONTEXT, {"record-1", "record-2"}),
    (RESOURCE, WHAT_ALICE_READS | {"resource": R1}, {"record-1", "record-2"}),
    (RESOURCE, {"subject": BOB | ADMIN, "action": WRITE, "resource": RECORDS}, {"record-2"}),
    (ACTION, WHAT_ALICE_DOES, {"read", "write"}),
    (ACTION, WHAT_ALICE_DOES | CONTEXT, {"read", "write"}),
    (ACTION, {"subject": BOB | ADMIN, "resource": R2 | ARCHIVED}, {"read", "write"}),
]


async def test_a_search_finds_the_results_that_the_certification_expects_and_each_is_permitted(
    certified: World, ask: Ask
) -> None:
    for path, search, expected in SEARCHES:
        status, answer = await ask(path, search)
        assert status == 200, search
        assert next(iter(answer)) == "page", search
        assert (answer["page"]["next_token"], answer["page"]["count"]) == ("", len(expected)), search
        key = "name" if path == ACTION else "id"
        assert {one[key] for one in answer["results"]} == expected, search
        if path != ACTION:
            sought = search["subject" if path == SUBJECT else "resource"]
            assert all(one == {"type": sought["type"], "id": one["id"]} for one in answer["results"]), search
        for one in answer["results"]:
            part = {SUBJECT: "subject", RESOURCE: "resource", ACTION: "action"}[path]
            _, decided = await ask("/access/v1/evaluation", search | {part: search.get(part, {}) | one})
            assert decided["decision"] is True, search


async def test_a_search_for_an_unknown_entity_finds_nothing_and_has_a_reason_for_administrators(
    certified: World, ask: Ask
) -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        (ACTION, WHAT_ALICE_DOES | {"subject": {"type": "user", "id": "nonexistent-user"}}),
        (ACTION, WHAT_ALICE_DOES | {"resource": {"type": "record", "id": "nonexistent"}}),
        (ACTION, WHAT_ALICE_DOES | {"subject": {"type": "spaceship", "id": "x"}}),
        (SUBJECT, WHO_READS | {"subject": {"type": "spaceship"}}),
        (SUBJECT, WHO_READS | {"resource": {"type": "record", "id": "nonexistent"}}),
        (SUBJECT, WHO_READS | {"resource": {"type": "spaceship", "id": "x"}}),
        (RESOURCE, WHAT_ALICE_READS | {"resource": {"type": "spaceship"}}),
        (RESOURCE, WHAT_ALICE_READS | {"subject": {"type": "user", "id": "nonexistent"}}),
        (RESOURCE, WHAT_ALICE_READS | {"subject": {"type": "spaceship", "id": "x"}}),
    ]
    for path, search in cases:
        status, answer = await ask(path, search)
        assert (status, answer["results"], answer["page"]["next_token"]) == (200, [], ""), search
        assert answer["context"]["reason_admin"]["404"].startswith("the polic"), search


async def test_a_search_without_a_required_member_is_a_400(certified: World, ask: Ask) -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        (SUBJECT, {"subject": USERS, "resource": R1}),
        (RESOURCE, {"action": READ, "resource": RECORDS}),
        (ACTION, {"subject": ALICE}),
        (SUBJECT, {"subject": USERS, "action": READ, "resource": RECORDS}),
        (RESOURCE, {"subject": USERS, "action": READ, "resource": RECORDS}),
        (ACTION, {"subject": USERS, "resource": R1}),
        (ACTION, {"subject": ALICE, "resource": RECORDS}),
        (SUBJECT, {"subject": {}, "action": READ, "resource": R1}),
    ]
    for path, search in cases:
        status, message = await ask(path, search)
        assert (status, type(message)) == (400, str), search


async def test_the_token_of_a_limited_page_continues_the_search_without_a_repeated_limit(
    certified: World, ask: Ask
) -> None:
    _, first = await ask(SUBJECT, WHO_READS | {"page": {"limit": 1}})
    assert first["results"] == [{"type": "user", "id": "alice"}]
    status, second = await ask(SUBJECT, WHO_READS | {"page": {"token": first["page"]["next_token"]}})
    assert (status, second["results"], second["page"]["next_token"]) == (200, [{"type": "user", "id": "bob"}], "")


# --- Discovery --------------------------------------------------------------------------------------------------------


async def test_the_metadata_list_the_endpoints_and_capabilities_of_the_decision_point(world: World, ask: Ask) -> None:
    status, found = await ask("/.well-known/authzen-configuration", method="GET")
    url = world.config.public_url
    assert status == 200
    assert found == {
        "policy_decision_point": url,
        "access_evaluation_endpoint": f"{url}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{url}/access/v1/evaluations",
        "search_subject_endpoint": url + SUBJECT,
        "search_resource_endpoint": url + RESOURCE,
        "search_action_endpoint": url + ACTION,
        "access_request_endpoint": f"{url}/access/v1/requests",
        "jwks_uri": f"{url}/jwks",
        "capabilities": ["urn:openid:authzen:capability:access-request"],
        "supported_obligations": ["step-up"],
    }
