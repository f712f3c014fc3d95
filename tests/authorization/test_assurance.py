"""Step-up (RFC 9470): the demands of policies on a token, and the denials that state them."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.authorization.assurance import (
    INSUFFICIENT,
    KEY,
    MAX_AGE,
    TWO_KEYS,
    StepUp,
    join_demands,
    parse_max_age,
    read_annotations,
    weaker,
)
from ostiary.protocol.errors import Invalid
from tests.support.decision_fixtures import CONTEXT, PAYS, PERMIT, call, policy, principal, rules

WEAK = ["unary", "not", ["binary", "eq", ["get", CONTEXT, "acr"], ["lit", TWO_KEYS]]]


def stepping(*conditions: Any, **annotations: str) -> dict[str, Any]:
    return policy("forbid", *conditions, **{"id": "step", "step_up": TWO_KEYS, **annotations})


def pays(acr: str, *policies: dict[str, Any]) -> Any:
    return call(principal(acr=acr), tool="pay", policies=rules(PERMIT, *policies), arguments={"amount": 1})


def test_a_denial_for_insufficient_authentication_states_the_required_acr_and_max_age() -> None:
    decision = pays(KEY, stepping(PAYS, WEAK, max_age="300"))
    (reason,) = decision.reasons
    assert not decision.allowed
    assert decision.policies == ("step",)
    assert (reason.code, reason.acr_values, reason.max_age) == (INSUFFICIENT, TWO_KEYS, 300)
    assert TWO_KEYS in reason.message


def test_a_token_with_sufficient_acr_is_allowed() -> None:
    assert pays(TWO_KEYS, stepping(PAYS, WEAK)).allowed


def test_the_reason_and_hint_of_the_policy_replace_the_default_text() -> None:
    (reason,) = pays(KEY, stepping(PAYS, WEAK, reason="paying takes two keys", hint="ask ops")).reasons
    assert (reason.message, reason.hint) == ("paying takes two keys", "ask ops")


def test_no_step_up_is_offered_if_another_policy_forbids_the_call() -> None:
    decision = pays(KEY, stepping(PAYS, WEAK), policy("forbid", PAYS, id="never"))
    assert [reason.code for reason in decision.reasons] == ["forbidden_by_policy"] * 2
    assert all(reason.acr_values == "" for reason in decision.reasons)


def test_a_step_up_is_required_before_an_approval() -> None:
    decision = pays(KEY, stepping(PAYS, WEAK), policy("forbid", PAYS, id="asks", ask="person"))
    assert [reason.code for reason in decision.reasons] == [INSUFFICIENT]
    after = pays(TWO_KEYS, stepping(PAYS, WEAK), policy("forbid", PAYS, id="asks", ask="person"))
    assert not after.allowed
    assert [reason.code for reason in after.reasons] != [INSUFFICIENT]


def test_a_missing_permit_or_a_policy_error_denies_without_a_step_up() -> None:
    alone = call(principal(acr=KEY), tool="pay", policies=rules(stepping(PAYS)), arguments={"amount": 1})
    assert not alone.allowed
    failing = pays(KEY, stepping(["get", CONTEXT, "nothing"]))
    assert [reason.code for reason in failing.reasons] == ["policy_error"]


def test_several_step_up_demands_combine_or_the_call_is_forbidden() -> None:
    both = pays(KEY, stepping(PAYS, step_up=f"{KEY} {TWO_KEYS}"), stepping(WEAK, id="more", max_age="5"))
    (reason,) = both.reasons
    assert (reason.acr_values, reason.max_age) == (TWO_KEYS, 5)
    never = pays(KEY, stepping(PAYS, step_up=KEY), stepping(WEAK, id="more"))
    assert {reason.code for reason in never.reasons} == {"forbidden_by_policy"}


def test_the_context_contains_auth_time_if_known() -> None:
    fresh = [
        "binary",
        "less_eq",
        ["binary", "duration_since", ["get", CONTEXT, "now"], ["get", CONTEXT, "auth_time"]],
        ["unary", "duration", ["lit", "60s"]],
    ]
    old = rules(PERMIT, policy("forbid", ["unary", "not", fresh], id="old", max_age="60"))
    at = 1_799_999_940  # the instant of `call`
    for ago, allowed in ((60, True), (61, False)):
        decision = call(principal(acr=KEY, auth_time=at - ago), policies=old)
        assert decision.allowed is allowed
    assert decision.reasons[0].max_age == 60
    assert decision.reasons[0].acr_values == ""
    unknown = call(principal(acr=KEY), policies=old)
    assert [reason.code for reason in unknown.reasons] == ["policy_error"]


def test_step_up_demands_join_to_the_common_levels_and_lowest_max_age() -> None:
    assert join_demands([StepUp(("a", "b"), None), StepUp((), 9), StepUp(("b", "a"), 5)]) == StepUp(("a", "b"), 5)
    assert join_demands([StepUp(("a",), None), StepUp(("b",), None)]) is None


def test_the_weaker_of_two_acr_levels_is_found_and_an_unknown_level_is_empty() -> None:
    assert weaker(KEY, TWO_KEYS) == weaker(TWO_KEYS, KEY) == KEY
    assert weaker(TWO_KEYS, TWO_KEYS) == TWO_KEYS
    assert weaker(TWO_KEYS, "urn:else") == weaker("", TWO_KEYS) == ""


def test_malformed_step_up_annotations_are_refused() -> None:
    assert read_annotations({"id": "x"}) is None
    assert read_annotations({"max_age": "0"}) == StepUp((), 0)
    assert read_annotations({"step_up": f"{TWO_KEYS} {KEY}"}) == StepUp((TWO_KEYS, KEY), None)
    assert parse_max_age(str(MAX_AGE)) == MAX_AGE
    for wrong in ({"max_age": ""}, {"max_age": str(MAX_AGE + 1)}, {"max_age": "-1"}, {"step_up": "a  b"}):
        with pytest.raises(Invalid):
            read_annotations(wrong)
