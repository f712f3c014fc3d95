"""Random calls and very long policies: each gets a decision or a refusal."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import msgspec
import pytest

from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.cedar import ir
from ostiary.authorization.claims import AccessClaims
from ostiary.decision import access
from ostiary.decision.access import Facts, Policies, Principal, Protected
from ostiary.protocol.errors import Refused
from ostiaryd.policy.model import load

URI = "https://files.example/mcp"
NAMES = ("a", "b", "", "a.b", "/srv/a")
TEXTS = ("", "a", "\0", "/srv/a", "..", "é", "\U0001f600", "1.5", "-0", "1e5", "a" * 300, "/srv/../x")
NUMBERS = (0, -5, 5, 2**63, -(2**63) - 1, 10**400, 0.5, 1e308, -1e-320, float("inf"), float("nan"), 1.0)
CONDITIONS: tuple[dict[str, Any], ...] = (
    {"prefix": "/srv/"},
    {"glob": "*a?"},
    {"min": 1},
    {"max": "2.5"},
    {"eq": 1},
    {"one_of": ["a", 1, True]},
    {"max_length": 3},
)
ARGUMENT = ["get", ["get", ["var", "context"], "arguments"], "a"]
FORBIDS: tuple[list[Any], ...] = (
    ["binary", "eq", ARGUMENT, ["lit", 5]],
    ["binary", "in", ARGUMENT, ["var", "principal"]],
    ["binary", "contains", ARGUMENT, ["var", "context"]],
    ["binary", "eq", ["set", [ARGUMENT]], ["set", [["var", "context"]]]],
    ["binary", "less", ARGUMENT, ["lit", 5]],
)


def value(random: Random, depth: int = 0) -> object:
    match random.randrange(6 if depth < 4 else 4):
        case 0:
            return random.choice((None, True, False))
        case 1:
            return random.choice(NUMBERS)
        case 2 | 3:
            return random.choice(TEXTS)
        case 4:
            return [value(random, depth + 1) for _ in range(random.randrange(4))]
    return {random.choice(NAMES): value(random, depth + 1) for _ in range(random.randrange(4))}


def schema(random: Random, depth: int = 0) -> dict[str, Any]:
    made: dict[str, Any] = {}
    kinds = ("string", "integer", "number", "boolean", "array", "object", "null", ["string", "integer"])
    choices: list[tuple[str, Any]] = [
        ("type", random.choice(kinds)),
        ("enum", [random.choice((1, 1.0, True, "a", None, [1], {"a": 1}, 10**30)) for _ in range(3)]),
        ("const", random.choice((1, True, [1], {"a": [1]}))),
        *((word, random.choice((1, 0.5, 3))) for word in ("minimum", "exclusiveMaximum", "multipleOf")),
        *((word, random.randrange(4)) for word in ("minLength", "maxLength", "minItems", "maxProperties")),
        ("$ref", "#"),
    ]
    if depth < 3:
        choices += [
            ("properties", {name: schema(random, depth + 1) for name in NAMES[:3]}),
            ("items", schema(random, depth + 1)),
            ("prefixItems", [schema(random, depth + 1)]),
            ("additionalProperties", random.choice((True, False, schema(random, depth + 1)))),
            (random.choice(("anyOf", "oneOf", "allOf")), [schema(random, depth + 1) for _ in range(2)]),
        ]
    for word, said in choices:
        if random.random() < 0.2:
            made[word] = said
    return made


def protected(random: Random) -> Protected:
    while True:
        tool = {"name": "t", "effect": "read", "arguments": schema(random) | {"type": "object"}}
        try:
            catalogue = Catalogue.parse(json.dumps({"resource": "files", "tools": [tool]}))
        except Refused:
            continue
        return Protected(name="files", uri=URI, segment="s", catalogue=catalogue)


def policies() -> Policies:
    permit = ir.PolicyIR(id="p", effect="permit")
    conditions = [msgspec.convert(one, ir.Expr) for one in FORBIDS]
    forbid = ir.PolicyIR(id="f", effect="forbid", conditions=(conditions[0],))
    watches = (
        ir.PolicyIR(id=f"w{n}", effect="forbid", conditions=(one,), annotations={"mode": "watch"})
        for n, one in enumerate(conditions)
    )
    return Policies("hash", ir.PolicySetIR((permit, forbid, *watches)))


def principal(random: Random) -> Principal:
    detail: dict[str, object] = {
        "type": "tool",
        "locations": [URI],
        "arguments": {random.choice(("a", "a.b")): random.choice(CONDITIONS)},
    }
    return Principal(
        AccessClaims(
            iss="i",
            sub="ag_1",
            client_id="ag_1",
            aud=URI,
            exp=9,
            iat=0,
            jti="t",
            scope="files:read",
            segment="s",
            authorization_details=[detail] if random.random() < 0.3 else [],
        )
    )


@pytest.mark.parametrize("seed", range(100))
def test_random_arguments_always_get_a_decision(seed: int) -> None:
    random = Random(seed)
    facts = Facts(protected(random), policies())
    for _ in range(50):
        arguments = {random.choice(NAMES): value(random) for _ in range(3)}
        decision = access.decide(access.resolve(principal(random), "t", arguments, facts, 1))
        assert decision.allowed or decision.reasons


LONG = 20_000


OPERATORS = "the policy has more than 600 operators"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("permit (principal is " + "::".join(["A"] * LONG) + ", action, resource);", "unrecognized entity type"),
        ("permit (principal, action, resource) when { principal has " + ".".join(["a"] * LONG) + " };", OPERATORS),
        ('@a("x")' * LONG + "permit (principal, action, resource);", OPERATORS),
        ("permit (principal, action, resource) when { [" + ",".join(["1"] * LONG) + "].contains(1) };", ""),
        ("permit (principal, action in [" + ",".join(['Action::"x"'] * LONG) + "], resource);", "unrecognized action"),
        ("permit (principal, action, resource)" + " when {true}" * LONG + ";", OPERATORS),
        ("permit (principal, action, resource) when { " + "!" * LONG + "true };", OPERATORS),
        (
            "permit (principal, action, resource) when { " + "(" * LONG + "true" + ")" * LONG + " };",
            "brackets are nested deeper than 64",
        ),
        ('permit (principal, action, resource) when { "x" like "' + "*a" * LONG + '" };', ""),
    ],
    ids=("name", "has", "annotations", "set", "actions", "clauses", "not", "brackets", "pattern"),
)
def test_a_very_long_policy_text_is_loaded_or_refused(text: str, why: str) -> None:
    if not why:
        assert load({"a.cedar": text}).count == 1
        return
    with pytest.raises(Refused, match=why):
        load({"a.cedar": text})
