"""Makes Cedar text that is right by construction; `constructs_of_*` say how, for each construct of the language.

Directed by types, so that most of what is made can be evaluated; now and then another type stands where one was due.
`Maker.policy(construct)` gives a condition in which that construct decides: it is at the root, or just under an
operator that looks at what it gives.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeAlias

from harness.cedar_differential.vocabulary import LONGS, PATHS, STRINGS, TEXTS
from harness.cedar_differential.world import Name, World

_RESERVED = {"if", "in", "is", "true", "false", "then", "else", "has", "like", "__cedar"}
TYPES = ("bool", "long", "string", "entity", "set", "entities", "record", "decimal", "ip", "datetime", "duration")
WRONG = 0.015  # the share of expressions that have another type than the requested one

Production: TypeAlias = "Callable[[Maker, int], str]"
CONSTRUCTS: dict[str, tuple[str, Production]] = {}  # by name: its type, and the function that makes an expression
_BY_TYPE: dict[str, list[Production]] = {}


def construct(name: str, kind: str) -> Callable[[Production], Production]:
    def register(production: Production) -> Production:
        CONSTRUCTS[name] = kind, production
        _BY_TYPE.setdefault(kind, []).append(production)
        return production

    return register


def quoted(text: str) -> str:
    return '"' + "".join(escaped(char) for char in text) + '"'


def escaped(char: str) -> str:
    plain = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\0": "\\0", "'": "\\'"}
    return plain.get(char) or (char if char.isprintable() else f"\\u{{{ord(char):x}}}")


def named(name: Name) -> str:
    return f"{name[0]}::{quoted(name[1])}"


def is_identifier(name: str) -> bool:
    return name.isascii() and name.isidentifier() and name not in _RESERVED


def dotted(base: str, path: tuple[str, ...]) -> str:
    return base + "".join(f".{name}" if is_identifier(name) else f"[{quoted(name)}]" for name in path)


class Maker:
    def __init__(self, random: Random, world: World) -> None:
        self.random = random
        self.world = world

    # --- pieces ---

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def name(self) -> Name:
        return self.random.choice(self.world.names)

    def relatives(self) -> tuple[Name, Name]:
        """Return two entities; the second is usually an ancestor of the first."""
        low = self.name()
        ups = self.world.ancestors[low]
        return low, self.random.choice(ups) if ups and self.chance(0.7) else self.name()

    def base(self) -> str:
        if self.chance(0.1):
            return named(self.name())
        return self.random.choice(("principal", "resource", "context", "context", "context"))

    def path(self, kind: str) -> str:
        return dotted(self.base(), self.random.choice(PATHS[kind]))

    def make(self, kind: str, depth: int) -> str:
        """Return an expression of this type, or seldom of another type."""
        if self.chance(WRONG):
            kind = self.random.choice(TYPES)
        if depth <= 0 or self.chance(0.45):
            return self.leaf(kind)
        return self.random.choice(_BY_TYPE.get(kind) or _BY_TYPE["bool"])(self, depth - 1)

    def leaf(self, kind: str) -> str:
        if self.chance(0.45):
            return self.path(kind)
        match kind:
            case "bool":
                return self.random.choice(("true", "false"))
            case "long":
                return literal_long(self.random)
            case "string":
                return quoted(self.random.choice(STRINGS))
            case "entity":
                return self.random.choice(("principal", "resource", "action", named(self.name())))
            case "entities":
                return f"[{', '.join(named(self.name()) for _ in range(self.random.randrange(4)))}]"
            case "set":
                return self.set_of_literals()
            case "record":
                return self.record_of_literals()
        function, texts = CONSTRUCTORS[kind]
        return f"{function}({quoted(TEXTS[texts](self.random))})"

    def element(self) -> str:
        return self.random.choice(
            (
                "0",
                "1",
                "2",
                "true",
                "false",
                '"a"',
                '"b"',
                '"ab"',
                "[]",
                "[1]",
                "[true]",
                "[2, 1]",
                "{k: 1}",
                "{k: true}",
                "{}",
                '{"k": [1]}',
                named(self.world.names[0]),
                'decimal("1.5")',
                'duration("1000ms")',
                'ip("::1")',
                "principal",
            )
        )

    def set_of_literals(self) -> str:
        return f"[{', '.join(self.element() for _ in range(self.random.randrange(4)))}]"

    def record_of_literals(self) -> str:
        names = self.random.sample(("k", "n", "s", "a-b", "deep", "", "if"), self.random.randrange(4))
        return "{" + ", ".join(f"{quoted(name)}: {self.element()}" for name in names) + "}"

    def same_again(self, kind: str, text: str, depth: int) -> str:
        """Return `text` or another expression, so that a test of equality is not always false."""
        if self.chance(0.45):
            return text
        return self.make(self.random.choice(TYPES) if self.chance(0.15) else kind, depth)

    # --- conditions ---

    def policy(self, name: str, depth: int) -> str:
        kind, production = CONSTRUCTS[name]
        text = production(self, depth)
        return text if kind == "bool" else self.look_at(kind, text, depth)

    def look_at(self, kind: str, text: str, depth: int) -> str:
        """Return a condition on `text`, an expression of this type."""
        if self.chance(0.35) or kind == "string":
            return f"({text} {self.random.choice(('==', '==', '!='))} {self.same_again(kind, text, 0)})"
        other = self.make(kind, min(depth, 1))
        match kind:
            case "long" | "datetime" | "duration":
                return f"({text} {self.random.choice(('<', '<=', '>', '>='))} {other})"
            case "entity":
                return f"({text} in {other})" if self.chance(0.5) else f"({text} is {self.random.choice(ENTITY_TYPES)})"
            case "set" | "entities":
                method = self.random.choice(("containsAll", "containsAny"))
                return f"{text}.isEmpty()" if self.chance(0.3) else f"{text}.{method}({other})"
            case "record":
                return f"({text} has {self.random.choice(('n', 's', 'k'))})"
            case "decimal":
                return f"{text}.{self.random.choice(DECIMAL_METHODS)}({other})"
            case "ip":
                return f"{text}.isInRange({other})"
        raise AssertionError(kind)


ENTITY_TYPES = ("User", "Group", "App::Doc", "App::Inner::Doc", "Action", "Doc")
DECIMAL_METHODS = ("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual")
CONSTRUCTORS = {
    "decimal": ("decimal", "decimal text"),
    "ip": ("ip", "ip text"),
    "datetime": ("datetime", "datetime text"),
    "duration": ("duration", "duration text"),
}


def literal_long(random: Random) -> str:
    number = random.choice(LONGS[:9] if random.random() < 0.75 else LONGS)
    return f"({number})" if number < 0 else str(number)
