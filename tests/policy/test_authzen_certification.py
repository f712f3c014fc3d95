"""The scenario of the OpenID AuthZEN certification: Basic and Batch, Core and Properties, and Discovery."""

from __future__ import annotations

from typing import Any

import pytest

from ostiaryd.ground.world import World
from tests.policy.conftest import Ask

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


@pytest.mark.parametrize(("question", "expected"), SCENARIO)
async def test_an_evaluation_decides_as_certified(
    certified: World, ask: Ask, question: dict[str, Any], expected: bool
) -> None:
    status, answer = await ask("/access/v1/evaluation", question)
    assert (status, answer["decision"]) == (200, expected)


async def test_a_batch_decides_as_certified_in_the_order_of_the_request(certified: World, ask: Ask) -> None:
    status, answer = await ask("/access/v1/evaluations", {"evaluations": [question for question, _ in SCENARIO]})
    assert status == 200
    assert set(answer) == {"evaluations"}
    assert [one["decision"] for one in answer["evaluations"]] == [expected for _, expected in SCENARIO]


async def test_defaults_are_replaced_as_a_whole_and_not_merged(certified: World, ask: Ask) -> None:
    batch = {
        "subject": BOB | ADMIN,
        "action": {"name": "write"},
        "evaluations": [{"resource": R2 | ARCHIVED}, {"subject": BOB, "resource": R2 | ARCHIVED}],
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
async def test_a_semantic_stops_with_the_decision_that_settles_it(
    certified: World, ask: Ask, semantic: str, expected: list[bool]
) -> None:
    asked = [case(ALICE, "read", R1), case(BOB, "write", R1), case(BOB, "read", R1), case(BOB, "write", R2)]
    _, answer = await ask(
        "/access/v1/evaluations", {"evaluations": asked, "options": {"evaluations_semantic": semantic}}
    )
    assert [one["decision"] for one in answer["evaluations"]] == expected


async def test_permit_on_first_permit_goes_on_after_denials(certified: World, ask: Ask) -> None:
    asked = [case(BOB, "write", R1), case(BOB, "write", R2), case(ALICE, "read", R1), case(BOB, "read", R1)]
    _, answer = await ask(
        "/access/v1/evaluations", {"evaluations": asked, "options": {"evaluations_semantic": "permit_on_first_permit"}}
    )
    assert [one["decision"] for one in answer["evaluations"]] == [False, False, True]


@pytest.mark.parametrize("empty", [{}, {"evaluations": []}, {"evaluations": None}])
async def test_without_evaluations_a_batch_is_a_single_evaluation(
    certified: World, ask: Ask, empty: dict[str, Any]
) -> None:
    status, answer = await ask("/access/v1/evaluations", case(ALICE, "read", R1) | empty)
    assert (status, answer["decision"], "evaluations" in answer) == (200, True, False)


async def test_the_metadata_names_this_decision_point_and_what_it_offers(world: World, ask: Ask) -> None:
    status, found = await ask("/.well-known/authzen-configuration", method="GET")
    url = world.config.public_url
    assert status == 200
    assert found == {
        "policy_decision_point": url,
        "access_evaluation_endpoint": f"{url}/access/v1/evaluation",
        "access_evaluations_endpoint": f"{url}/access/v1/evaluations",
    }
