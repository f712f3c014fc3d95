"""Policies that ask a person instead of denying."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.values import Entity, Uid, entity
from ostiary.decision.access import CALL, Judgement, Policies, PolicyResult
from ostiary.decision.access.reasons import asks_of, reasons_of

WHO, TOOL = Uid("Agent", "ag_1"), Uid("Tool", "bank/pay")
KNOWN: dict[Uid, Entity] = {uid: entity(uid) for uid in (WHO, TOOL, CALL)}
PERMIT = ir.PolicyIR(id="all", effect="permit")
FAILS = (ir.Get(ir.Var("context"), "nothing"),)


def asks(id: str = "asks", whom: str = "person", **more: Any) -> ir.PolicyIR:
    return ir.PolicyIR(id=id, effect="forbid", annotations={"ask": whom} | more.pop("annotations", {}), **more)


def forbid(id: str = "no", **more: Any) -> ir.PolicyIR:
    return ir.PolicyIR(id=id, effect="forbid", **more)


def judge(*policies: ir.PolicyIR, approved: tuple[str, ...] = ()) -> tuple[Judgement, Policies]:
    made = Policies("hash", ir.PolicySetIR(policies))
    return made.judge(WHO, CALL, TOOL, {}, KNOWN, None, approved), made


def test_where_all_that_forbids_asks_a_yes_is_all_that_is_missing() -> None:
    said, policies = judge(PERMIT, asks("a"), asks("b", annotations={"reason": "it is much", "hint": "pay less"}))
    assert (said.allowed, said.because, said.policies) == (False, "approval_needed", ("a", "b"))
    assert asks_of(said, policies) == "person"
    assert [(one.code, one.message, one.hint) for one in reasons_of(said, policies)] == [
        ("approval_needed", "policy `a` asks a person", ""),
        ("approval_needed", "it is much", "pay less"),
    ]


def test_with_a_yes_they_do_not_count() -> None:
    said, _ = judge(PERMIT, asks("a"), asks("b"), approved=("a", "b"))
    assert (said.allowed, said.policies) == (True, ("all",))


def test_a_yes_to_one_policy_is_none_to_another() -> None:
    said, _ = judge(PERMIT, asks("a"), asks("b"), approved=("a",))
    assert (said.because, said.policies) == ("approval_needed", ("b",))


def test_a_policy_that_does_not_ask_always_wins() -> None:
    for approved in ((), ("asks",)):
        said, policies = judge(PERMIT, asks(), forbid(), approved=approved)
        assert said.policies == ("no",)
    assert (said.allowed, said.because, asks_of(said, policies)) == (False, "forbidden_by_policy", None)


def test_a_policy_that_fails_denies_though_the_others_ask() -> None:
    for failing in (forbid("broken", conditions=FAILS), asks("broken", conditions=FAILS)):
        said, _ = judge(PERMIT, asks(), failing, approved=("asks", "broken"))
        assert (said.allowed, said.because, said.policies) == (False, "policy_error", ("broken",))


def test_nobody_is_asked_about_what_nothing_permits() -> None:
    for approved in ((), ("asks",)):
        said, _ = judge(asks(), approved=approved)
        assert (said.allowed, said.because) == (False, "no_permit")


def test_the_most_careful_of_them_counts() -> None:
    said, policies = judge(PERMIT, asks("one"), asks("both", "two"))
    assert asks_of(said, policies) == "two"
    said, policies = judge(PERMIT, asks("one"), asks("both", "two"), approved=("both",))
    assert asks_of(said, policies) == "person"


def test_what_is_not_known_needs_two() -> None:
    said, policies = judge(PERMIT, asks(whom="nobody"))
    assert asks_of(said, policies) == "two"


def test_a_permit_and_a_policy_that_watches_ask_nobody() -> None:
    said, _ = judge(ir.PolicyIR(id="all", effect="permit", annotations={"ask": "person"}))
    assert said.allowed
    said, _ = judge(PERMIT, asks(annotations={"mode": "watch"}))
    assert (said.allowed, said.watched) == (True, ("asks",))


@pytest.mark.parametrize(
    ("rego", "because"),
    [
        (PolicyResult("rego", permits=True), "approval_needed"),
        (PolicyResult("rego", forbids=("no",)), "forbidden_by_policy"),
        (PolicyResult("rego", error="broken"), "policy_error"),
    ],
)
def test_policies_elsewhere_have_a_say_before_anybody_is_asked(rego: PolicyResult, because: str) -> None:
    policies = Policies("hash", ir.PolicySetIR((PERMIT, asks())), remote={"rego": False})
    asked: list[bytes] = []

    def elsewhere(question: bytes) -> tuple[PolicyResult, ...]:
        asked.append(question)
        return (rego,)

    assert policies.judge(WHO, CALL, TOOL, {}, KNOWN, elsewhere).because == because
    assert len(asked) == 1
