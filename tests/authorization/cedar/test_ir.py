"""The IR as JSON: a round trip for every node, one form for one set, and everything else refused within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import msgspec
import pytest

from ostiary.authorization.cedar import ir
from ostiary.authorization.cedar.compile import compile_set
from ostiary.authorization.cedar.ir import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_POLICIES,
    ArityError,
    Binary,
    EntityLit,
    Expr,
    Get,
    Has,
    If,
    Is,
    Like,
    Lit,
    PolicyIR,
    PolicySetIR,
    Record,
    Scope,
    Set,
    Unary,
    Var,
    parse,
    render,
)
from ostiary.authorization.cedar.values import Uid
from ostiary.protocol.errors import Invalid, Malformed

PRINCIPAL = Var("principal")
EVERY_NODE: tuple[Expr, ...] = (
    PRINCIPAL,
    Lit(True),
    Lit(-(2**63)),
    Lit("naïve 🙂\0"),
    EntityLit(Uid("A::B", "x")),
    Unary("not", Lit(False)),
    Binary("eq", Lit(1), Lit(2)),
    Get(PRINCIPAL, "two words"),
    Has(PRINCIPAL, ""),
    Like(Lit("a"), ("a", "", "*")),
    Is(PRINCIPAL, "A", None),
    Is(PRINCIPAL, "A", EntityLit(Uid("A", "x"))),
    If(Lit(True), Lit(1), Lit("x")),
    Set((Lit(1), Lit(True))),
    Record((("b", Lit(1)), ("a", Lit(2)))),
    ArityError("ip", 1, (Lit("a"), PRINCIPAL)),
)
EVERYTHING = PolicySetIR(
    (
        PolicyIR("a", "permit", conditions=EVERY_NODE, annotations={"id": "a", "mode": "watch"}),
        PolicyIR(
            "b",
            "forbid",
            principal=Scope(equals=Uid("A", "x")),
            action=Scope(within=(Uid("Action", "r"), Uid("Action", "w"))),
            resource=Scope(type="T", within=(Uid("G", "g"),)),
        ),
    )
)


def one(condition: Expr) -> PolicySetIR:
    return PolicySetIR((PolicyIR("a", "permit", conditions=(condition,)),))


def test_every_node_is_the_same_after_rendering_and_parsing() -> None:
    assert {type(node) for node in EVERY_NODE} == set(get_args(Expr))
    assert parse(render(EVERYTHING)) == EVERYTHING


def test_a_policy_set_has_one_json_form() -> None:
    assert render(EVERYTHING) == render(parse(render(EVERYTHING)))
    assert render(one(Binary("eq", Get(PRINCIPAL, "team"), Lit("blue")))) == (
        b'{"policies":[{"id":"a","effect":"permit","conditions":'
        b'[["binary","eq",["get",["var","principal"],"team"],["lit","blue"]]]}],"version":1}'
    )


@pytest.mark.parametrize(
    "condition",
    [
        '["lit",1.5]',
        '["lit",null]',
        '["lit",9223372036854775808]',
        '["lit",-9223372036854775809]',
        '["lit",1,2]',
        '["lit"]',
        '["lat",1]',
        '["var","self"]',
        '["unary","eval",["lit",1]]',
        '["binary","eq",["lit",1]]',
        '["like",["lit","a"],[]]',
        '["entity",["A"]]',
        '["entity",["A","x","y"]]',
        '{"lit":1}',
        "1",
    ],
)
def test_a_condition_of_another_structure_is_malformed(condition: str) -> None:
    with pytest.raises(Malformed):
        parse(f'{{"policies":[{{"id":"a","effect":"permit","conditions":[{condition}]}}]}}'.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"policies":[]',
        '{"policies":[],"more":1}',
        '{"policies":[],"version":2}',
        '{"policies":[{"id":"a"}]}',
        '{"policies":[{"id":"a","effect":"allow"}]}',
        '{"policies":[{"id":"a","effect":"permit","mode":"watch"}]}',
        '{"policies":[{"id":"a","effect":"permit","principal":{"is":"A"}}]}',
        '{"policies":[{"id":"\\ud800","effect":"permit"}]}',
    ],
)
def test_a_policy_set_of_another_structure_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse(text.encode())


def test_integers_at_both_ends_of_64_bits_are_literals() -> None:
    for number in (2**63 - 1, -(2**63)):
        assert parse(render(one(Lit(number)))) == one(Lit(number))


def test_two_policies_with_one_id_are_refused() -> None:
    with pytest.raises(Invalid, match="the same id"):
        parse(render(PolicySetIR((PolicyIR("a", "permit"), PolicyIR("a", "forbid")))))


@pytest.mark.parametrize(
    "policy",
    [
        PolicyIR("a", "permit", principal=Scope(equals=Uid("not a name", "x"))),
        PolicyIR("a", "permit", resource=Scope(type="")),
        PolicyIR("a", "permit", action=Scope(within=(Uid("A", "x"), Uid("if", "x")))),
        PolicyIR("a", "permit", conditions=(Is(PRINCIPAL, "in", None),)),
        PolicyIR("a", "permit", conditions=(Set((Unary("not", EntityLit(Uid("A::", "x"))),)),)),
    ],
)
def test_an_invalid_type_name_is_refused_at_each_position(policy: PolicyIR) -> None:
    with pytest.raises(Invalid, match="type name"):
        parse(render(PolicySetIR((policy,))))


def test_a_record_with_one_name_twice_is_refused() -> None:
    with pytest.raises(Invalid, match="twice"):
        parse(render(one(Record((("a", Lit(1)), ("a", Lit(2)))))))


DEEPENERS: dict[str, Callable[[Expr], Expr]] = {
    "not": lambda node: Unary("not", node),
    "and": lambda node: Binary("and", Lit(True), node),
    "left and": lambda node: Binary("and", node, Lit(True)),
    "get": lambda node: Get(node, "a"),
    "set": lambda node: Set((node,)),
    "record": lambda node: Record((("a", node),)),
    "if": lambda node: If(Lit(True), node, node),
    "is": lambda node: Is(node, "A", Lit(1)),
    "add": lambda node: Binary("add", Lit(1), node),
}


@pytest.mark.parametrize("form", DEEPENERS)
def test_an_expression_at_the_depth_limit_compiles_and_a_deeper_one_is_refused(form: str) -> None:
    def nested(depth: int) -> PolicySetIR:
        node: Expr = Lit(1)
        for level in range(depth - 1):
            # `if` has two branches: doubling at each level would make a tree of 2**128 nodes
            node = If(node, Lit(1), Lit(2)) if form == "if" and level else DEEPENERS[form](node)
        return one(node)

    for depth in (MAX_DEPTH - 1, MAX_DEPTH):
        compiled = compile_set(parse(render(nested(depth))))
        verdict = compiled.decide(Uid("A", "x"), Uid("A", "x"), Uid("A", "x"), {}, {})
        assert (verdict.allowed, [id for id, _ in verdict.errors]) == (False, ["a"])
    with pytest.raises(Invalid, match="nested deeper"):
        parse(render(nested(MAX_DEPTH + 1)))


def test_a_condition_of_a_million_levels_is_refused_as_malformed() -> None:
    deep = b'["unary","not",' * 1_000_000 + b'["lit",true]' + b"]" * 1_000_000
    with pytest.raises(Malformed):
        parse(b'{"policies":[{"id":"a","effect":"permit","conditions":[' + deep + b"]}]}")


def test_a_policy_set_beyond_the_maximum_size_is_refused() -> None:
    text = b'{"policies":[]}'
    for size in (MAX_BYTES - 1, MAX_BYTES):
        assert parse(text + b" " * (size - len(text))) == PolicySetIR(())
    with pytest.raises(Invalid, match="larger than"):
        parse(text + b" " * (MAX_BYTES + 1 - len(text)))


def test_the_number_of_policies_is_bounded() -> None:
    def many(count: int) -> bytes:
        return render(PolicySetIR(tuple(PolicyIR(str(number), "permit") for number in range(count))))

    for count in (MAX_POLICIES - 1, MAX_POLICIES):
        assert len(parse(many(count)).policies) == count
    with pytest.raises(Invalid, match="more than"):
        parse(many(MAX_POLICIES + 1))


def test_children_returns_every_direct_subexpression_of_a_node() -> None:
    for node in EVERY_NODE:
        held = [part for part in msgspec.structs.astuple(node) if isinstance(part, get_args(Expr))]
        if isinstance(node, Set):
            held = list(node.elements)
        if isinstance(node, Record):
            held = [child for _, child in node.fields]
        if isinstance(node, ArityError):
            held = list(node.args)
        assert list(ir.children(node)) == held
