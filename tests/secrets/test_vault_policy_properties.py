"""Vault policies against a second reading of Vault's documentation: the verdicts of random policies on random requests.

The reading decides from the members of the policies, without HCL and without Cedar. Few segments, letters, parameters
and values meet often, so that priorities and conditions matter.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import pytest

from ostiaryd.secrets.model.acl import CAPABILITIES, AccessList, AclRequest, parse_policy

Body = dict[str, Any]
Policy = dict[str, Body]
"""The members of each path."""
SEGMENTS = ("a", "b", "ab", "+", "+")
ENDINGS = ("", "", "*", "/", "/*", "b*")
NAMES = ("p", "Q", "r")
VALUES = ("x", "y", "x*", "*y", "*", 1, True)
SENT = ("x", "y", "xy", "", 1, 2, True)


# --- the reading


def matches(pattern: str, path: str) -> bool:
    """Return whether a pattern with wildcards matches: `+` is one segment, `*` at the end is any rest."""
    if not is_wild(pattern):
        return False
    expression = "".join(
        "[^/]*" if one == "+" else re.escape(one) for one in re.split(r"(?:(?<=/)|^)(\+)(?=/|$)", pattern)
    )
    if pattern.endswith("*"):
        expression = expression.removesuffix(re.escape("*")) + ".*"
    return re.fullmatch(expression, path, re.DOTALL) is not None


def priority(pattern: str) -> tuple[object, ...]:
    """The rules of "Policies": a later wildcard; no `*` at the end; fewer `+`; a longer path; the greater path."""
    literal = pattern.removesuffix("*")
    segments = literal.split("/")
    plus = [index for index, one in enumerate(segments) if one == "+"]
    first = len("/".join([*segments[: plus[0]], ""])) if plus else len(literal)
    return first, not pattern.endswith("*"), -len(plus), len(literal), literal


def applies(policies: Sequence[Policy], paths: Sequence[str]) -> list[Body] | None:
    """The members that the policies have for the one pattern that applies; None if there is none. A list asks for its
    path with and without the slash at its end: a pattern without a wildcard applies before each with one.
    """
    patterns = {pattern for policy in policies for pattern in policy}
    exact = [path for path in paths if path in patterns and not is_wild(path)]
    wild = [max(those, key=priority) for path in paths if (those := [one for one in patterns if matches(one, path)])]
    for pattern in (*exact, *wild):
        return [policy[pattern] for policy in policies if pattern in policy]
    return None


def is_wild(pattern: str) -> bool:
    return pattern.endswith("*") or "+" in pattern.split("/")


def has_value(value: object, listed: Iterable[object]) -> bool:
    """A text may begin or end with `*`; `*` alone is the text itself. Values of other types are equal or not."""
    for one in listed:
        if isinstance(one, str) and isinstance(value, str):
            if value == one or (len(one) > 1 and "*" in one and fnmatchcase(value, one)):
                return True
        elif type(one) is type(value) and one == value:
            return True
    return False


def joined(bodies: Sequence[Body], member: str) -> dict[str, list[object]]:
    """The parameters of all policies: the values add up, and an empty list is every value."""
    lists: dict[str, list[list[object]]] = {}
    for body in bodies:
        for name, values in body.get(member, {}).items():
            lists.setdefault(name.lower(), []).append(values)
    return {name: [] if [] in those else [one for values in those for one in values] for name, those in lists.items()}


def permits(policies: Sequence[Policy], path: str, capability: str, parameters: Body) -> bool:
    bodies = applies(policies, [path, path.removesuffix("/")] if capability == "list" else [path])
    capabilities = {one for body in bodies or () for one in body["capabilities"]}
    if bodies is None or "deny" in capabilities or capability not in capabilities:
        return False
    if capability in ("list", "delete"):
        return True
    required = {name.lower() for body in bodies for name in body.get("required_parameters", [])}
    allowed, denied = joined(bodies, "allowed_parameters"), joined(bodies, "denied_parameters")
    sent = {name.lower(): value for name, value in parameters.items()}
    if not required <= set(parameters) or ("*" in denied and sent):
        return False
    if any(name in sent and (not values or has_value(sent[name], values)) for name, values in denied.items()):
        return False
    if allowed and "*" not in allowed and not set(sent) <= set(allowed):
        return False
    return all(
        name not in sent or not values or has_value(sent[name], values)
        for name, values in allowed.items()
        if name != "*"
    )


# --- random policies and requests


def random_pattern(chance: random.Random) -> str:
    pattern = "/".join(chance.choice(SEGMENTS) for _ in range(chance.randint(1, 3))) + chance.choice(ENDINGS)
    return pattern.replace("+*", "+/*").replace("+b*", "+/b*")


def random_parameters(chance: random.Random) -> dict[str, list[object]]:
    names = [*NAMES, "*"] if chance.random() < 0.3 else NAMES
    return {
        name: chance.sample(VALUES, chance.choice((0, 1, 1, 2))) for name in chance.sample(names, chance.randint(1, 2))
    }


def random_body(chance: random.Random) -> Body:
    body: Body = {"capabilities": ["deny"] if chance.random() < 0.1 else chance.sample(sorted(CAPABILITIES), 4)}
    for member in ("allowed_parameters", "denied_parameters"):
        if chance.random() < 0.3:
            body[member] = random_parameters(chance)
    if chance.random() < 0.2:
        body["required_parameters"] = [chance.choice(("p", "r"))]
    return body


def written(policy: Policy, chance: random.Random) -> str:
    """The policy in JSON or in HCL."""
    if chance.random() < 0.3:
        return json.dumps({"path": policy})
    text = ""
    for path, body in policy.items():
        note = chance.choice(("", "# note", "// note", "/* note */"))
        members = "\n".join(f"{note}\n{name} = {hcl(value)}" for name, value in body.items())
        text += f"path {json.dumps(path)} {{{members}\n}}\n"
    return text


def hcl(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {json.dumps(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.parametrize("seed", range(4))
def test_policies_decide_like_a_second_implementation(seed: int) -> None:
    chance = random.Random(seed)
    verdicts = {True: 0, False: 0}
    for _ in range(150):
        policies = [
            {random_pattern(chance): random_body(chance) for _ in range(chance.randint(1, 5))}
            for _ in range(chance.randint(1, 3))
        ]
        texts = [written(policy, chance) for policy in policies]
        access = AccessList([parse_policy(text) for text in texts])
        for _ in range(30):
            path = "/".join(chance.choice(("a", "b", "ab", "abb")) for _ in range(chance.randint(1, 3)))
            capability = chance.choice(sorted(CAPABILITIES))
            path += "/" if capability == "list" else chance.choice(("", "", "/"))
            parameters = {name: chance.choice(SENT) for name in chance.sample(NAMES, chance.choice((0, 0, 1, 2)))}
            ours = access.permits(AclRequest(path, capability, parameters))
            theirs = permits(policies, path, capability, parameters)
            assert ours == theirs, (path, capability, parameters, texts)
            verdicts[theirs] += 1
    assert min(verdicts.values()) > 500, "both verdicts occur often"
