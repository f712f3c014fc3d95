"""Lowering Cedar text: what each construct becomes, what policies are called, what is refused."""

import pytest
from cedarpy import PolicySet

from ostiary.core.cedar import ir
from ostiary.core.cedar.compile import compile_set
from ostiary.core.cedar.values import Uid, entity, parse_record
from ostiary.core.errors import Malformed
from ostiaryd.policy.model.lower import NotModelled, lower, lower_nodes

TEXT = """
@id("team") permit(principal in Group::"blue", action == Action::"call", resource is Tool)
when { principal.level > 2 && resource.tags.contains("open") } unless { context.risk >= 50 };
@id("stop") forbid(principal, action, resource) when { principal.suspended };
"""


def test_a_policy_set_decides_end_to_end() -> None:
    compiled = compile_set(ir.parse(ir.render(lower(TEXT))))
    agent, action, tool, group = Uid("Agent", "a"), Uid("Action", "call"), Uid("Tool", "t"), Uid("Group", "blue")

    def decide(*, level: int, risk: int, suspended: bool) -> tuple[bool, tuple[str, ...]]:
        store = {
            agent: entity(agent, {"level": level, "suspended": suspended}, [group]),
            tool: entity(tool, parse_record({"tags": ["open"]})),
        }
        verdict = compiled.decide(agent, action, tool, {"risk": risk}, store)
        assert verdict.errors == ()
        return verdict.allowed, verdict.reasons

    assert decide(level=3, risk=49, suspended=False) == (True, ("team",))
    assert decide(level=2, risk=49, suspended=False) == (False, ())
    assert decide(level=3, risk=50, suspended=False) == (False, ())
    assert decide(level=3, risk=49, suspended=True) == (False, ("stop",))


def test_an_error_is_reported_and_the_caller_is_told_when_a_forbid_had_it() -> None:
    compiled = compile_set(lower(TEXT))
    verdict = compiled.decide(Uid("Agent", "a"), Uid("Action", "call"), Uid("Tool", "t"), {}, {})
    assert not verdict.allowed
    assert verdict.errors == (("stop", "the entity does not exist"),)
    assert verdict.forbid_errors


def ids(text: str) -> list[str]:
    return [policy.id for policy in lower(text).policies]


PERMIT = "permit(principal, action, resource);"


def test_policies_go_by_their_id_annotation_where_it_is_their_own() -> None:
    assert ids(f'@id("a") {PERMIT} {PERMIT} @id("b") {PERMIT}') == ["a", "policy1", "b"]


def test_an_id_annotation_that_is_shared_or_empty_or_anothers_position_names_nothing() -> None:
    assert ids(f'@id("a") {PERMIT} @id("a") {PERMIT}') == ["policy0", "policy1"]
    assert ids(f'@id("") {PERMIT} @id {PERMIT}') == ["policy0", "policy1"]
    assert ids(f'@id("policy1") {PERMIT} {PERMIT}') == ["policy0", "policy1"]
    assert ids(f'@id("policy0") {PERMIT}') == ["policy0"]


def test_annotations_are_kept() -> None:
    (policy,) = lower(f'@id("a") @mode("watch") @flag {PERMIT}').policies
    assert policy.annotations == {"id": "a", "mode": "watch", "flag": ""}


def test_a_template_is_refused_until_it_is_linked() -> None:
    text = "permit(principal == ?principal, action, resource in ?resource) when { context.ok };"
    with pytest.raises(NotModelled, match="template policy0"):
        lower(text)
    values = {"?principal": 'A::"x"', "?resource": 'R::"y"'}
    (policy,) = lower_nodes(PolicySet.from_str(text).with_linked("policy0", "mine", values).to_pst()).policies
    assert policy.id == "mine"
    assert policy.principal == ir.Scope(equals=Uid("A", "x"))
    assert policy.resource == ir.Scope(within=(Uid("R", "y"),))


def test_text_that_is_not_cedar_is_malformed() -> None:
    with pytest.raises(Malformed, match="not Cedar"):
        lower("permit(principal, action);")
