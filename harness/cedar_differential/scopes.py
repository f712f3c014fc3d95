"""Whole policies: scopes, effects, several clauses. What is compared is the decision and not one expression."""

from __future__ import annotations

from harness.cedar_differential.maker import Maker, named
from harness.cedar_differential.world import ACTIONS, Name

SCOPES = ("any", "==", "in", "is", "is in")
ACTION_SCOPES = ("any", "==", "in", "in a set")
SCOPE_CONSTRUCTS = (
    *(f"scope {who} {form}" for who in ("principal", "resource") for form in SCOPES),
    *(f"scope action {form}" for form in ACTION_SCOPES),
    "when and unless",
)


def scope_of(make: Maker, who: str, form: str, likely: tuple[Name, ...]) -> str:
    """Return a scope that usually matches one of the `likely` entities."""
    name = make.random.choice(likely)
    ups = (name, *make.world.ancestors[name])
    match form:
        case "any":
            return who
        case "==":
            return f"{who} == {named(name)}"
        case "in":
            return f"{who} in {named(make.random.choice(ups))}"
        case "is":
            return f"{who} is {name[0]}"
        case "is in":
            return f"{who} is {name[0]} in {named(make.random.choice(ups))}"
    raise AssertionError(form)


def action_scope_of(make: Maker, form: str) -> str:
    name = make.random.choice(ACTIONS)
    ups = (name, *make.world.ancestors[name])
    match form:
        case "any":
            return "action"
        case "==":
            return f"action == {named(name)}"
        case "in":
            return f"action in {named(make.random.choice(ups))}"
        case "in a set":
            return (
                f"action in [{', '.join(named(one) for one in make.random.sample(ACTIONS, make.random.randrange(4)))}]"
            )
    raise AssertionError(form)


def clauses_of(make: Maker, count: int) -> str:
    return " ".join(f"{make.random.choice(('when', 'unless'))} {{ {make.make('bool', 2)} }}" for _ in range(count))


def scoped_policy(make: Maker, construct: str, principals: tuple[Name, ...], resources: tuple[Name, ...]) -> str:
    """Return a permit whose result depends on one part of its scope, or on the order of its clauses."""
    principal, action, resource, clauses = "principal", "action", "resource", ""
    if construct == "when and unless":
        clauses = clauses_of(make, make.random.randrange(2, 5))
    elif construct.startswith("scope principal"):
        principal = scope_of(make, "principal", construct.removeprefix("scope principal "), principals)
    elif construct.startswith("scope resource"):
        resource = scope_of(make, "resource", construct.removeprefix("scope resource "), resources)
    else:
        action = action_scope_of(make, construct.removeprefix("scope action "))
    if construct.endswith("any"):
        clauses = clauses_of(make, 1)
    return f"permit({principal}, {action}, {resource}) {clauses};"


def mixed_policy(make: Maker, principals: tuple[Name, ...], resources: tuple[Name, ...]) -> str:
    """Return a policy with any effect and scope, and perhaps a condition, to test the decision of several policies."""
    choose = make.random.choice
    parts = (
        scope_of(make, "principal", choose(SCOPES), principals),
        action_scope_of(make, choose(ACTION_SCOPES)),
        scope_of(make, "resource", choose(SCOPES), resources),
    )
    effect = "forbid" if make.chance(0.25) else "permit"
    return f"{effect}({', '.join(parts)}) {clauses_of(make, make.random.randrange(2))};"
