"""Foresight knows every member of the context that a decision may add, so that a search is not certain too early."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from ostiary.decision.access import Facts, foresee, resolve
from tests.support.decision_fixtures import CONTEXT, NOW, PERMIT, policy, principal, resource, rules

SCHEMA = (files("ostiaryd.policy") / "base.cedarschema").read_text("utf-8")
OF_CALL = SCHEMA[SCHEMA.index("action call appliesTo") : SCHEMA.index("action delegate appliesTo")]
OPTIONAL = sorted(set(re.findall(r"^    (\w+)\?: ", OF_CALL, re.MULTILINE)))
ALWAYS_PRESENT = sorted(set(re.findall(r"^    (\w+): ", OF_CALL, re.MULTILINE)))
OF_TOKEN = {"auth_time", "datatypes"}
"""optional members that the token states: they are known"""


def is_certain(member: str, *, has_memory: bool = True) -> bool:
    """Return whether foresight is certain that a payment is allowed although a policy forbids it with the member."""
    facts = Facts(resource(), rules(PERMIT, policy("forbid", ["has", CONTEXT, member])))
    agent = principal(memory="tk_1" if has_memory else "", scope="files:write")
    call = resolve(agent, "pay", {}, facts, NOW)
    return foresee(call, frozenset({"arguments.amount"}), has_memory=has_memory).must


def test_foresight_is_certain_of_a_verdict_that_depends_on_a_member_outside_the_schema() -> None:
    assert OF_TOKEN | {"origin", "carries", "planned"} <= {*OPTIONAL}
    assert is_certain("nothing")


@pytest.mark.parametrize("member", sorted({*OPTIONAL} - OF_TOKEN))
def test_foresight_is_not_certain_of_a_verdict_that_depends_on_an_optional_member(member: str) -> None:
    assert not is_certain(member)


@pytest.mark.parametrize("has_memory", [True, False])
@pytest.mark.parametrize("member", ALWAYS_PRESENT)
def test_foresight_knows_that_a_member_is_present_which_is_never_absent(member: str, has_memory: bool) -> None:
    assert not is_certain(member, has_memory=has_memory)
