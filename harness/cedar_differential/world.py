"""A random store of entities and random requests, as the JSON that both engines read."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import TypeAlias

from harness.cedar_differential.vocabulary import LONGS, SCHEMA, STRINGS, TEXTS

Name: TypeAlias = tuple[str, str]
Json: TypeAlias = object

VALID = {  # well-formed on purpose: a store or a context that holds a bad value is refused as a whole
    "decimal": ("decimal", ("0.0", "1.5", "1.50", "-2.25", "2.0", "922337203685477.5807", "-922337203685477.5808")),
    "ip": (
        "ip",
        ("10.0.0.1", "10.0.0.0/8", "10.0.3.0/24", "127.0.0.1", "::1", "2001:db8::/32", "2001:db8::1", "ff02::1"),
    ),
    "datetime": ("datetime", ("1970-01-01", "1969-12-31T23:59:59.999Z", "2024-02-29", "2024-12-31T12:34:56.001+0130")),
    "duration": ("duration", ("0ms", "1s", "1000ms", "-1d2h", "25h", "90m", "9223372036854775807ms", "-1ms")),
}


@dataclass(frozen=True, slots=True)
class Request:
    principal: Name
    action: Name
    resource: Name
    context: dict[str, Json]


@dataclass(frozen=True, slots=True)
class World:
    names: tuple[Name, ...]  # every entity that an attribute or a request names, also if it is not in the store
    stored: frozenset[Name]
    ancestors: dict[Name, tuple[Name, ...]]
    entities: list[Json]


ACTIONS = tuple(("Action", name) for name in ("read", "write", "call", "any read", "any", "lonely"))
_ACTION_PARENTS = {"read": ("any read",), "write": ("any",), "call": ("any read", "any"), "any read": ("any",)}


def make_world(random: Random) -> World:
    """Return a store with a chain and a web of groups, users and documents in the groups, and actions in action groups.
    Some entities are missing.
    """
    groups = [("Group", f"g{number}") for number in range(14)]
    users = [("User", name) for name in ("ann", "bob", 'q"uote', "", "日本", "ghost")]
    docs = [("App::Doc", name) for name in ("one", "two", "three", "ghost")] + [("App::Inner::Doc", "one")]
    names = (*groups, *users, *docs, *ACTIONS)
    parents: dict[Name, list[Name]] = {name: [] for name in names}
    for low, high in pairwise(groups[:10]):
        parents[low].append(high)
    for name in groups[10:]:
        parents[name] += random.sample(groups[:10], 2)
    for name in (*users, *docs):
        parents[name] += random.sample(groups, random.randrange(3))
    parents[("App::Doc", "one")].append(("App::Doc", "two"))
    for low_action, high_actions in _ACTION_PARENTS.items():
        parents["Action", low_action] += [("Action", high) for high in high_actions]
    stored = frozenset(name for name in names if name[1] not in ("ghost", "lonely") and name != ("Group", "g9"))
    return World(
        names=names,
        stored=stored,
        ancestors={name: _closure(name, parents, stored) for name in names},
        entities=[_entity(random, name, parents[name], names) for name in names if name in stored],
    )


def _closure(name: Name, parents: dict[Name, list[Name]], stored: frozenset[Name]) -> tuple[Name, ...]:
    found: list[Name] = []
    open_ = [name]
    while open_:
        current = open_.pop()
        ups = [up for up in parents[current] if up not in found] if current in stored else []
        found += ups
        open_ += ups
    return tuple(found)


def _entity(random: Random, name: Name, parents: list[Name], names: tuple[Name, ...]) -> Json:
    tags = {tag: _value(random, random.choice(("long", "string", "set", "entity")), names) for tag in STRINGS[:5]}
    return {
        "uid": _named(name),
        "attrs": attributes(random, names),
        "parents": [_named(parent) for parent in parents],
        "tags": {tag: value for tag, value in tags.items() if random.random() < 0.6},
    }


def make_request(random: Random, world: World) -> Request:
    def one(*kinds: str) -> Name:
        kind = random.choice(kinds)
        return random.choice([name for name in world.names if name[0] == kind])

    principal, resource = one("User", "User", "User", "App::Doc", "Group"), one("App::Doc", "App::Doc", "Group", "User")
    return Request(principal, random.choice(ACTIONS), resource, attributes(random, world.names))


def attributes(random: Random, names: tuple[Name, ...], schema: dict[str, object] = SCHEMA) -> dict[str, Json]:
    """Return values for the attributes of a schema. A few are missing, and a few have another type."""
    kinds = ("long", "string", "bool", "entity", "set", "duration", "decimal")
    made: dict[str, Json] = {}
    for name, kind in schema.items():
        dice = random.random()
        if dice < 0.04:
            continue
        if isinstance(kind, dict):
            made[name] = attributes(random, names, kind)
        else:
            made[name] = _value(random, random.choice(kinds) if dice < 0.06 else str(kind), names)
    return made


def _value(random: Random, kind: str, names: tuple[Name, ...]) -> Json:
    match kind:
        case "long":
            return random.choice(LONGS[:8] if random.random() < 0.8 else LONGS)
        case "string":
            return random.choice(STRINGS)
        case "bool":
            return random.random() < 0.6
        case "entity":
            return {"__entity": _named(random.choice(names))}
        case "entities":
            return [{"__entity": _named(name)} for name in random.sample(names, random.randrange(4))]
        case "set":
            return [_element(random, names) for _ in range(random.randrange(4))]
    if kind in TEXTS:
        return TEXTS[kind](random)
    function, spellings = VALID[kind]
    spelling = random.choice(spellings)
    if kind == "datetime" and random.random() < 0.2:
        arguments = [_extension("datetime", spelling), _extension("duration", random.choice(("1h", "-1ms", "400000d")))]
        return {"__extn": {"fn": "offset", "args": arguments}}
    return _extension(function, spelling)


def _element(random: Random, names: tuple[Name, ...]) -> Json:
    """Return one of a few values, so that sets often have common elements. Among the values are `1`, `true`, a set, a
    record and an extension value.
    """
    return random.choice(
        (
            0,
            1,
            2,
            True,
            False,
            "a",
            "b",
            "ab",
            [],
            [1],
            [True],
            [1, 1, 2],
            {"k": 1},
            {"k": True},
            {},
            {"k": [1]},
            {"__entity": _named(names[0])},
            {"__entity": _named(random.choice(names))},
            _extension("decimal", "1.50"),
            _extension("duration", "1s"),
            _extension("ip", "::1"),
        )
    )


def _extension(function: str, text: str) -> Json:
    return {"__extn": {"fn": function, "arg": text}}


def _named(name: Name) -> dict[str, str]:
    return {"type": name[0], "id": name[1]}
