"""Lowering Cedar text: what each construct becomes, what policies are called, what is refused."""

import cedarpy
import pytest

from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.compile import Verdict, compile_set
from ostiary.authorization.cedar.values import Uid, entity, parse_record
from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.policy.model.cedar_growth import growth
from ostiaryd.policy.model.lower import MAX_GROWTH, NotModelled, lower

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


def test_an_evaluation_error_is_reported_and_an_error_of_a_forbid_is_marked() -> None:
    compiled = compile_set(lower(TEXT))
    verdict = compiled.decide(Uid("Agent", "a"), Uid("Action", "call"), Uid("Tool", "t"), {}, {})
    assert not verdict.allowed
    assert verdict.errors == (("stop", "the entity does not exist"),)
    assert verdict.forbid_errors


def ids(text: str) -> list[str]:
    return [policy.id for policy in lower(text).policies]


PERMIT = "permit(principal, action, resource);"


def test_a_policy_has_the_id_of_its_unique_id_annotation() -> None:
    assert ids(f'@id("a") {PERMIT} {PERMIT} @id("b") {PERMIT}') == ["a", "policy1", "b"]


def test_a_shared_empty_or_conflicting_id_annotation_is_not_used_as_a_policy_id() -> None:
    assert ids(f'@id("a") {PERMIT} @id("a") {PERMIT}') == ["policy0", "policy1"]
    assert ids(f'@id("") {PERMIT} @id {PERMIT}') == ["policy0", "policy1"]
    assert ids(f'@id("policy1") {PERMIT} {PERMIT}') == ["policy0", "policy1"]
    assert ids(f'@id("policy0") {PERMIT}') == ["policy0"]


def test_annotations_are_kept() -> None:
    (policy,) = lower(f'@id("a") @mode("watch") @flag {PERMIT}').policies
    assert policy.annotations == {"id": "a", "mode": "watch", "flag": ""}


def test_a_template_is_refused() -> None:
    with pytest.raises(NotModelled, match="template policy0"):
        lower("permit(principal == ?principal, action, resource in ?resource) when { context.ok };")


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
    with pytest.raises(Invalid, match="nested deeper than"):
        lower(clause(101))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("ip()", "function `ip`: expected 1, got 0"),
        ('decimal("1.0", "2.0")', "function `decimal`: expected 1, got 2"),
        ('datetime("2024-01-01", 1, 2)', "function `datetime`: expected 1, got 3"),
        ('duration("1d", "1d")', "function `duration`: expected 1, got 2"),
        ('ip("1.2.3.4").isInRange()', "function `isInRange`: expected 2, got 1"),
        ('ip("1.2.3.4").isInRange(1, 2)', "function `isInRange`: expected 2, got 3"),
        ('ip("1.2.3.4").isIpv4(1)', "function `isIpv4`: expected 1, got 2"),
        ("context.a.lessThan()", "there is no attribute 'a'"),
        ('datetime("no day").offset()', "datetime: not one of the forms"),
        ('datetime("2024-01-01").durationSince(datetime("no day"), 1)', "datetime: not one of the forms"),
    ],
)
def test_a_call_with_the_wrong_number_of_arguments_evaluates_them_and_then_fails(call: str, message: str) -> None:
    text = f"permit(principal, action, resource) when {{ {call} == 1 }};"
    verdict = decide_anything(text)
    assert len(verdict.errors) == 1
    assert message in verdict.errors[0][1]
    theirs = cedarpy.is_authorized(REQUEST, text, [])
    assert len(theirs.diagnostics.errors) == 1
    if "function" in message:
        assert message in str(theirs.diagnostics.errors[0])


def test_a_call_with_the_wrong_number_of_arguments_fails_only_where_it_is_evaluated() -> None:
    assert decide_anything("permit(principal, action, resource) when { true || ip().isIpv4() };").allowed
    assert decide_anything("permit(principal, action, resource) unless { false && ip(1, 2).isIpv4() };").allowed


def test_an_arity_error_with_the_expected_number_of_arguments_is_refused() -> None:
    node = ir.ArityError("ip", 1, (ir.Lit("1.2.3.4"),))
    with pytest.raises(Invalid, match="has 1 arguments, which is the expected number"):
        compile_set(ir.PolicySetIR((ir.PolicyIR("a", "permit", conditions=(node,)),)))


REQUEST = {"principal": 'A::"a"', "action": 'Action::"b"', "resource": 'R::"r"', "context": {}}


def decide_anything(text: str) -> Verdict:
    compiled = compile_set(ir.parse(ir.render(lower(text))))
    return compiled.decide(Uid("A", "a"), Uid("Action", "b"), Uid("R", "r"), {}, {})


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
def test_the_growth_of_a_text_counts_the_copies_of_each_tested_expression(condition: str, copies: int) -> None:
    assert growth(f"permit(principal, action, resource) when {{ {condition} }};") == copies


def test_many_short_has_and_is_tests_in_a_condition_are_accepted() -> None:
    condition = " && ".join(["context has a.b", "principal is A in principal"] * 40)
    (policy,) = lower(f"permit(principal, action, resource) when {{ {condition} }};").policies
    assert len(policy.conditions) == 1


def test_text_that_is_not_cedar_is_malformed() -> None:
    with pytest.raises(Malformed, match="not Cedar"):
        lower("permit(principal, action);")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("permit(principal, action);", 1),
        ("\n// pays; a lot\npermit(principal, action, resource", 3),
        (
            '@id("a;")\npermit(principal, action, resource);\n\n// b\n@id("b")\nforbid((principal, action);',
            5,
        ),
        ('@reason("say \\"no\\"; now")\npermit(principal, action, resource);\nforbid', 3),
    ],
)
def test_text_that_is_not_cedar_is_refused_with_the_line_of_its_policy(text: str, line: int) -> None:
    with pytest.raises(Malformed, match=rf"the policy that begins in line {line}: "):
        lower(text)
