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


def test_an_approval_is_needed_if_every_matching_forbid_asks_a_person() -> None:
    said, policies = judge(PERMIT, asks("a"), asks("b", annotations={"reason": "it is much", "hint": "pay less"}))
    assert (said.allowed, said.because, said.policies) == (False, "approval_needed", ("a", "b"))
    assert asks_of(said, policies) == "person"
    assert [(one.code, one.message, one.hint) for one in reasons_of(said, policies)] == [
        ("approval_needed", "policy `a` asks a person", ""),
        ("approval_needed", "it is much", "pay less"),
    ]


def test_policies_that_are_approved_do_not_deny() -> None:
    said, _ = judge(PERMIT, asks("a"), asks("b"), approved=("a", "b"))
    assert (said.allowed, said.policies) == (True, ("all",))


def test_an_approval_for_one_policy_does_not_cover_another_policy() -> None:
    said, _ = judge(PERMIT, asks("a"), asks("b"), approved=("a",))
    assert (said.because, said.policies) == ("approval_needed", ("b",))


def test_a_forbid_that_asks_no_person_denies_despite_an_approval() -> None:
    for approved in ((), ("asks",)):
        said, policies = judge(PERMIT, asks(), forbid(), approved=approved)
        assert said.policies == ("no",)
    assert (said.allowed, said.because, asks_of(said, policies)) == (False, "forbidden_by_policy", None)


def test_a_failing_policy_denies_although_other_policies_ask_a_person() -> None:
    for failing in (forbid("broken", conditions=FAILS), asks("broken", conditions=FAILS)):
        said, _ = judge(PERMIT, asks(), failing, approved=("asks", "broken"))
        assert (said.allowed, said.because, said.policies) == (False, "policy_error", ("broken",))


def test_an_unpermitted_call_is_denied_without_an_approval_request() -> None:
    for approved in ((), ("asks",)):
        said, _ = judge(asks(), approved=approved)
        assert (said.allowed, said.because) == (False, "no_permit")


def test_the_strictest_of_several_required_approvals_applies() -> None:
    said, policies = judge(PERMIT, asks("one"), asks("both", "two"))
    assert asks_of(said, policies) == "two"
    said, policies = judge(PERMIT, asks("one"), asks("both", "two"), approved=("both",))
    assert asks_of(said, policies) == "person"


def test_an_unknown_value_of_the_ask_annotation_requires_two_persons() -> None:
    said, policies = judge(PERMIT, asks(whom="nobody"))
    assert asks_of(said, policies) == "two"


def test_a_permit_and_a_policy_in_watch_mode_require_no_approval() -> None:
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
def test_remote_policies_are_evaluated_before_an_approval_is_required(rego: PolicyResult, because: str) -> None:
    policies = Policies("hash", ir.PolicySetIR((PERMIT, asks())), remote={"rego": False})
    asked: list[bytes] = []

    def elsewhere(question: bytes) -> tuple[PolicyResult, ...]:
        asked.append(question)
        return (rego,)

    assert policies.judge(WHO, CALL, TOOL, {}, KNOWN, elsewhere).because == because
    assert len(asked) == 1
