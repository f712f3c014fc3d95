"""Compiled policies: the index, errors, and generated code without text from policies."""

from __future__ import annotations

import itertools
import random

import pytest

from ostiary.authorization.cedar import generate
from ostiary.authorization.cedar.compile import Verdict, compile_set
from ostiary.authorization.cedar.ir import (
    Binary,
    EntityLit,
    Expr,
    Get,
    Has,
    Is,
    Lit,
    PolicyIR,
    PolicySetIR,
    Record,
    Scope,
    Set,
    Unary,
    Var,
)
from ostiary.authorization.cedar.values import Entity, Uid, Value, entity
from ostiary.protocol.errors import Invalid

ANN, GROUP, ORG = Uid("User", "ann"), Uid("Group", "g"), Uid("Group", "org")
TOOL, SERVER = Uid("Tool", "t"), Uid("Server", "s")
READ, ANY_READ = Uid("Action", "read"), Uid("Action", "any read")
STORE: dict[Uid, Entity] = {
    ANN: entity(ANN, {"level": 3}, [GROUP, ORG], {"team": "blue"}),
    TOOL: entity(TOOL, {"owner": ANN}, [SERVER]),
    READ: entity(READ, {}, [ANY_READ]),
}
YES, NO, WRONG = Lit(True), Lit(False), Lit("a string is no condition")


def decide(*policies: PolicyIR, store: dict[Uid, Entity] = STORE, action: Uid = READ) -> Verdict:
    return compile_set(PolicySetIR(policies)).decide(ANN, action, TOOL, {"risk": 5}, store)


def holds(condition: Expr) -> bool | str:
    verdict = decide(PolicyIR("p", "permit", conditions=(condition,)))
    return verdict.errors[0][1] if verdict.errors else verdict.allowed


# --- the decision ---------------------------------------------------------------------------------------------------


def test_a_request_without_any_policy_is_denied() -> None:
    assert decide() == Verdict(False, (), (), False)


def test_a_forbid_overrides_and_is_the_reason() -> None:
    policies = PolicyIR("yes", "permit"), PolicyIR("no", "forbid")
    assert decide(*policies) == Verdict(False, ("no",), (), False)
    assert decide(policies[0]) == Verdict(True, ("yes",), (), False)


def test_reasons_and_errors_are_in_order_of_id() -> None:
    ids = ["b", "a", "d", "c"]
    verdict = decide(*(PolicyIR(name, "permit", conditions=(YES if name < "c" else WRONG,)) for name in ids))
    assert verdict.reasons == ("a", "b")
    assert [name for name, _ in verdict.errors] == ["c", "d"]


def test_a_policy_with_an_error_is_skipped_and_an_error_of_a_forbid_is_flagged() -> None:
    permit, failing = PolicyIR("yes", "permit"), (WRONG,)
    told = (("bad", "a condition does not take string"),)
    assert decide(permit, PolicyIR("bad", "forbid", conditions=failing)) == Verdict(True, ("yes",), told, True)
    assert decide(permit, PolicyIR("bad", "permit", conditions=failing)) == Verdict(True, ("yes",), told, False)


def test_conditions_are_evaluated_in_order_until_one_is_false() -> None:
    assert decide(PolicyIR("p", "permit", conditions=(NO, WRONG))) == Verdict(False, (), (), False)
    assert decide(PolicyIR("p", "permit", conditions=(WRONG, NO))).errors
    assert not decide(PolicyIR("p", "permit", principal=Scope(type="Tool"), conditions=(WRONG,))).errors


def test_a_question_has_the_same_verdict_with_each_context_as_a_new_request() -> None:
    """A policy that does not read the context is evaluated once for all contexts, and a policy that begins with
    `context has` is evaluated only in a context with this member.
    """
    has_risk, is_high = Has(Var("context"), "risk"), Binary("greater", Get(Var("context"), "risk"), Lit(5))
    compiled = compile_set(
        PolicySetIR(
            (
                PolicyIR("always", "permit"),
                PolicyIR("high", "forbid", conditions=(Binary("and", Binary("and", has_risk, is_high), YES),)),
                PolicyIR("low-or-none", "permit", conditions=(Unary("not", Binary("and", has_risk, is_high)),)),
                PolicyIR("with-or-without", "permit", conditions=(Binary("or", has_risk, YES),)),
                PolicyIR("never", "forbid", conditions=(NO,)),
                PolicyIR("fails-first", "permit", conditions=(WRONG, has_risk)),
                PolicyIR("fails-with-risk", "forbid", conditions=(has_risk, WRONG)),
                PolicyIR("fails-always", "permit", conditions=(Get(Var("principal"), "absent"),)),
            )
        )
    )
    question = compiled.question(ANN, READ, TOOL, STORE)
    wrong, absent = "a condition does not take string", "there is no attribute 'absent'"
    permits = ("always", "low-or-none", "with-or-without")
    without = Verdict(True, permits, (("fails-always", absent), ("fails-first", wrong)), False)
    errors = (("fails-always", absent), ("fails-first", wrong), ("fails-with-risk", wrong))
    expected: list[tuple[dict[str, Value], Verdict]] = [
        ({}, without),
        ({"risk": 5}, Verdict(True, permits, errors, True)),
        ({"risk": 6}, Verdict(False, ("high",), errors, True)),
        ({"other": 6}, without),
    ]
    for context, verdict in expected:
        assert compiled.answer(question, context) == verdict
        assert compiled.decide(ANN, READ, TOOL, context, STORE) == verdict


def test_an_error_message_names_attributes_and_types_but_no_values() -> None:
    assert holds(Get(Var("principal"), "absent")) == "there is no attribute 'absent'"
    assert holds(Binary("less", Get(Var("context"), "risk"), Lit("secret"))) == "< does not take long and string"
    secret_tag = Binary("get_tag", Var("principal"), Lit("secret"))
    assert holds(secret_tag) == "the entity does not have this tag"
    assert holds(Get(EntityLit(Uid("User", "secret")), "a")) == "the entity does not exist"


# --- the index ------------------------------------------------------------------------------------------------------

SCOPES = {
    "principal": [
        Scope(),
        Scope(equals=ANN),
        Scope(equals=GROUP),
        Scope(within=(ANN,)),
        Scope(within=(ORG,)),
        Scope(within=(SERVER,)),
        Scope(type="User"),
        Scope(type="Tool"),
        Scope(type="User", within=(GROUP,)),
        Scope(type="Group", within=(GROUP,)),
        Scope(within=()),
        Scope(within=(SERVER, ORG)),
    ],
    "action": [
        Scope(),
        Scope(equals=READ),
        Scope(equals=ANY_READ),
        Scope(within=(READ,)),
        Scope(within=(ANY_READ,)),
        Scope(within=(READ, ANY_READ)),
        Scope(within=()),
        Scope(within=(Uid("Action", "write"),)),
        Scope(type="Action"),
        Scope(type="Other"),
        Scope(equals=READ, within=(ANY_READ,)),
        Scope(equals=READ, within=(GROUP,)),
    ],
    "resource": [
        Scope(),
        Scope(equals=TOOL),
        Scope(equals=SERVER),
        Scope(within=(TOOL,)),
        Scope(within=(SERVER,)),
        Scope(within=(ORG,)),
        Scope(type="Tool"),
        Scope(type="Server"),
        Scope(type="Tool", within=(SERVER,)),
    ],
}


def says(scope: Scope, asked: Entity) -> bool:
    """The meaning of a scope, written down again and without any index."""
    return (
        (scope.equals is None or scope.equals == asked.uid)
        and (scope.type is None or scope.type == asked.uid.type)
        and (scope.within is None or any(group in asked.lineage for group in scope.within))
    )


def test_the_index_finds_exactly_the_policies_with_a_matching_scope() -> None:
    combinations = list(itertools.product(SCOPES["principal"], SCOPES["action"], SCOPES["resource"]))
    policies = [
        PolicyIR(f"{number:04}", "permit", principal=principal, action=action, resource=resource)
        for number, (principal, action, resource) in enumerate(combinations)
    ]
    random.Random(1).shuffle(policies)
    expected = tuple(
        f"{number:04}"
        for number, scopes in enumerate(combinations)
        if all(says(scope, STORE[uid]) for scope, uid in zip(scopes, (ANN, READ, TOOL), strict=True))
    )
    assert 50 < len(expected) < len(combinations)
    assert decide(*policies).reasons == expected


def test_an_unknown_entity_matches_its_own_uid_and_its_type() -> None:
    policies = [
        PolicyIR("equals", "permit", principal=Scope(equals=ANN)),
        PolicyIR("in itself", "permit", principal=Scope(within=(ANN,))),
        PolicyIR("in a group", "permit", principal=Scope(within=(GROUP,))),
        PolicyIR("type", "permit", resource=Scope(type="Tool")),
        PolicyIR("action", "permit", action=Scope(within=(READ,))),
        PolicyIR("action group", "permit", action=Scope(within=(ANY_READ,))),
    ]
    assert decide(*policies, store={}).reasons == ("action", "equals", "in itself", "type")


# --- generated code -------------------------------------------------------------------------------------------------

HOSTILE = "') or __import__('os').system('true') or ('"


def test_generated_source_does_not_contain_text_from_a_policy() -> None:
    conditions = (
        Binary("eq", Get(Get(Var("context"), HOSTILE), HOSTILE), Lit(HOSTILE)),
        Unary("not", Is(EntityLit(Uid("Hostile", HOSTILE)), "Hostile", Set((EntityLit(Uid("Hostile", HOSTILE)),)))),
        Binary("eq", Record(((HOSTILE, Get(Var("principal"), HOSTILE)),)), Lit(7_777)),
    )
    scope = [("principal", Scope(equals=Uid("Hostile", HOSTILE)))]
    source, constants = generate.write(conditions, scope)
    for word in ("import", "Hostile", "7777", "'", '"'):
        assert word not in source
    assert HOSTILE in constants


def test_generated_code_has_no_builtins() -> None:
    assert generate._NAMESPACE["__builtins__"] == {}


def test_policies_of_the_same_structure_share_one_code_object() -> None:
    def made(text: str) -> generate.Function:
        return generate.generate((Binary("eq", Get(Var("principal"), text), Lit(text)),), [])

    one, other = made("a"), made("b")
    assert one.__code__ is other.__code__
    ann = entity(ANN, {"a": "a", "b": "x"})
    assert (one(ann, ann, ann, {}, {}), other(ann, ann, ann, {}, {})) == (True, False)


def test_generated_source_for_nested_is_expressions_grows_linearly() -> None:
    node: Expr = Var("principal")
    sizes = []
    for _ in range(20):
        node = Is(node, "User", EntityLit(GROUP))
        sizes.append(len(generate.write((node,), [])[0]))
    assert sizes[-1] < 20 * sizes[1]


def test_compiling_a_condition_nested_beyond_the_limit_is_refused() -> None:
    deep: Expr = YES
    for _ in range(128):
        deep = Unary("not", deep)
    with pytest.raises(Invalid, match="deeper"):
        compile_set(PolicySetIR((PolicyIR("p", "permit", conditions=(deep,)),)))
