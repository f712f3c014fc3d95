"""Lowering Cedar text: what each construct becomes, what policies are called, what is refused."""

from dataclasses import replace

import pytest
from cedarpy import PolicySet, policies_to_pst, pst

from ostiary.core.cedar import ir
from ostiary.core.cedar.compile import compile_set
from ostiary.core.cedar.values import Uid, entity, parse_record
from ostiary.core.errors import Invalid, Malformed
from ostiaryd.policy.model.growth import growth
from ostiaryd.policy.model.lower import MAX_GROWTH, NotModelled, lower, lower_nodes

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


@pytest.mark.parametrize(
    ("opening", "inside", "closing"),
    [("!(", "true", ")"), ("[", "1", "]"), ("{a: ", "1", "}"), ("", "context", ".a"), ("", "true", " && true")],
)
def test_the_deepest_text_that_cedarpy_takes_is_lowered_and_compiled(opening: str, inside: str, closing: str) -> None:
    def clause(levels: int) -> str:
        return f"permit(principal, action, resource) unless {{ {opening * levels}{inside}{closing * levels} }};"

    lowered = lower(clause(99))
    assert ir.parse(ir.render(lowered)) == lowered
    compile_set(lowered)
    with pytest.raises(Malformed, match="nesting"):
        lower(clause(100))


def test_a_path_of_has_is_taken_apart_as_cedar_does() -> None:
    asked = pst.HasAttr(pst.Var("context"), ("a", "b", "c"))
    text = "permit(principal, action, resource) when { context has a.b.c };"
    (policy,) = policies_to_pst(text).static_policies.values()
    by_hand = pst.PolicySet({}, {policy.id: replace(policy, clauses=(pst.When(asked),))}, ())
    assert lower_nodes(by_hand) == lower(text)


def test_text_that_grows_without_bound_is_refused_before_it_is_parsed() -> None:
    def nested(levels: int, question: str) -> str:
        return f"permit(principal, action, resource) when {{ {'(' * levels}principal{f' {question})' * levels} }};"

    for question in ("has a.b.c", "is A in principal", "has a.b.c.d.e.f.g.h"):
        sizes = [growth(nested(levels, question)) for levels in range(40)]
        last = max(levels for levels in range(40) if sizes[levels] <= MAX_GROWTH)
        if last < 10:  # further down cedarpy takes its seconds
            lower(nested(last, question))
        with pytest.raises(Invalid, match="too long"):
            lower(nested(last + 1, question))
        with pytest.raises(Invalid, match="too long"):
            lower(nested(40, question))


@pytest.mark.parametrize(
    ("condition", "copies"),
    [
        ("context has a", 0),
        ('context has "a.b.c"', 0),
        ('context.s == "x has a.b"', 0),
        ("true // context has a.b.c\n", 0),
        ("context has a.b.c", 2),
        ("context has a . b\n.c", 2),
        ("context has a.b.c && context.a.b has d.e", 2 + 5),
        ("principal is A", 1),
    ],
)
def test_growth_counts_the_copies_of_what_is_asked_about(condition: str, copies: int) -> None:
    assert growth(f"permit(principal, action, resource) when {{ {condition} }};") == copies


def test_many_short_questions_do_not_add_up_to_a_long_one() -> None:
    condition = " && ".join(["context has a.b", "principal is A in principal"] * 40)
    (policy,) = lower(f"permit(principal, action, resource) when {{ {condition} }};").policies
    assert len(policy.conditions) == 1


def test_text_that_is_not_cedar_is_malformed() -> None:
    with pytest.raises(Malformed, match="not Cedar"):
        lower("permit(principal, action);")
