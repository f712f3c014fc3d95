"""Coverage: which rule judges each leaf of a call's arguments.

The arguments are flattened once. A leaf is a value other than an object or a list; or the name of an object's member,
if neither the schema nor the catalogue lists this name, because a freely chosen name is a value like any other.
Exactly one rule claims each leaf, the first rule of this list that applies:

    offered      the leaf is a URI that the server lists; if the value is an expansion of a listed URI template, each
                 variable is a further leaf
    declared     the catalogue states the kind of the nearest path at or above the leaf; or the leaf is in the place of
                 an object, and the catalogue states the kind of a path in this object
    harmless     the nearest word of the catalogue at or above the leaf is no kind (`none`)
    switch       the leaf is true, false or null
    listed       the schema lists the value (`enum`, `const`); or the value is the default of an optional argument, of
                 any kind: stating the default has no effect
    quantity     the leaf is a number of at most six digits, at a place that the schema lists
    unclaimed    all other leaves: judged as values that identify an object, so a value from nowhere requires approval
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from ostiary.authorization.arguments.shape import Shape, shape_of
from ostiary.authorization.catalogue.kind import Kind
from ostiary.authorization.catalogue.offers import Offers

MAX_LEAVES = 256
"""maximum number of leaves of one call; one further leaf is UNREADABLE and stands for the rest"""
MAX_DEPTH = 16
LARGEST_QUANTITY = 1_000_000
"""Bound of quantities, exclusive. Larger numbers may be telephone or account numbers."""
UNREADABLE = object()
"""Value of a leaf that stands for everything beyond a limit. Its origin is nowhere."""
EMPTY = object()
"""Value of a leaf that stands for an empty object or list at a place with a kind: the tool may insert any value."""


class Rule(StrEnum):
    """The rule that claims a leaf."""

    OFFERED = "offered"
    DECLARED = "declared"
    HARMLESS = "harmless"
    SWITCH = "switch"
    LISTED = "listed"
    QUANTITY = "quantity"
    UNCLAIMED = "unclaimed"


class Leaf(msgspec.Struct, frozen=True, gc=False):
    """A leaf of the arguments: a single value, or the name of a member that no schema lists. `rule`: the rule that
    decides how the origin of the leaf is judged. `path`: the path for which the catalogue states the rule, or else the
    name of the argument. `kind`: the kind by which the origin is judged; None if the origin does not matter.
    `is_name`: true if the value is a member name.
    """

    path: str
    rule: Rule
    kind: Kind | None
    value: object
    is_name: bool = False


_SCALARS = frozenset((str, bool, int, float, type(None)))
# By name, because an enumeration finds its members slowly.
_OFFERED, _DECLARED, _HARMLESS, _SWITCH, _LISTED, _QUANTITY, _UNCLAIMED = Rule
_OBJECT = Kind.OBJECT


class _Place(NamedTuple):
    """The kind or word that the catalogue states for one path of the arguments, and the places below this path."""

    word: str | None
    below: dict[str, _Place]


class Coverage:
    """The rules that decide how the origin of each value in the arguments of one tool is judged, prepared once for all
    calls of the tool.
    """

    __slots__ = ("_declared", "_defaults", "_kinds", "_offers", "_positions")

    def __init__(
        self,
        words: Mapping[str, str],
        kinds: Mapping[str, Kind],
        schema: Mapping[str, Any],
        presentation: Iterable[str],
        offers: Iterable[str] = (),
    ) -> None:
        """Prepare the rules. `words`: the words of the catalogue, by path; `kinds`: the words that are kinds."""
        self._kinds = kinds
        self._offers = Offers(offers) or None
        self._declared = {} if self._offers else {path: kind for path, kind in kinds.items() if "." not in path}
        self._defaults = _defaults(schema)
        places = _Place(None, {})
        for path, word in words.items():
            place = places
            names = path.split(".")
            for at, name in enumerate(names):
                stated = word if at == len(names) - 1 else None
                existing = place.below.get(name)
                place.below[name] = _Place(
                    stated or (existing.word if existing else None), existing.below if existing else {}
                )
                place = place.below[name]
        shape = shape_of([schema], schema)
        self._positions = {
            name: _position(name, shape.member(name), places.below.get(name))
            for name in (*presentation, *shape.names, *places.below)
        }
        """positions of the arguments that the schema or the catalogue lists"""

    def leaves(self, arguments: Mapping[str, Any]) -> list[Leaf]:
        """Return the leaves of `arguments`, each with the one rule that applies to it. Beyond MAX_LEAVES, one leaf
        stands for the rest.
        """
        claimed: list[Leaf] = []
        for name, value in arguments.items():
            is_scalar = type(value) in _SCALARS
            if is_scalar and name in self._defaults and _is_same(value, self._defaults[name]):
                claimed.append(Leaf(name, _LISTED, None, value))
                continue
            # most arguments end here: the catalogue states a kind for the argument itself, and its value is a scalar
            if is_scalar and (kind := self._declared.get(name)) is not None:
                if value != "":
                    claimed.append(Leaf(name, _DECLARED, kind, value))
                continue
            if (at := self._positions.get(name)) is None:
                at = _position(name, None, None)
                claimed.append(Leaf(at.argument, _UNCLAIMED, _OBJECT, name, True))
            if value == "" or value == []:
                continue  # an empty argument has no leaves
            if is_scalar and self._offers is None:
                claimed.append(self._claim(value, at))
                continue
            for leaf in self._value(value, at):
                claimed.append(leaf)
                if len(claimed) > MAX_LEAVES:
                    break
        if len(claimed) > MAX_LEAVES:
            claimed[MAX_LEAVES:] = [Leaf(claimed[-1].path, _UNCLAIMED, _OBJECT, UNREADABLE)]
        return claimed

    def _member(self, name: str, value: object, at: _Walk) -> Iterator[Leaf]:
        """Yield the leaves of one member of the object at `at`."""
        shape = None if at.shape is None else at.shape.member(name)
        place = None if at.place is None else at.place.below.get(name)
        if shape is None and place is None:
            yield self._claim(name, at, is_name=True)
        path = f"{at.path}.{name}" if at.path else name
        claimed = at.claimed if place is None or place.word is None else path
        yield from self._value(value, _Walk(path, at.argument, claimed, place, shape, at.depth - 1))

    def _value(self, value: object, at: _Walk) -> Iterator[Leaf]:
        if isinstance(value, Mapping | list | tuple) and not value:
            if at.claimed in self._kinds:
                yield self._claim(EMPTY, at)
        elif at.depth > 0 and isinstance(value, Mapping):
            for name, inner in value.items():
                yield from self._member(name, inner, at)
        elif at.depth > 0 and isinstance(value, list | tuple):
            inside = replace(at, shape=None if at.shape is None else at.shape.elements, depth=at.depth - 1)
            for one in value:
                yield from self._value(one, inside)
        elif isinstance(value, str) and self._offers and (variables := self._offers.variables(value)) is not None:
            yield replace(self._claim(value, at), rule=_OFFERED, kind=None)
            for variable in variables:
                if variable.value:
                    leaf = self._claim(variable.value, at)
                    yield replace(leaf, kind=_OBJECT) if variable.is_simple else leaf
        elif value is None or isinstance(value, str | bool | int | float):
            yield self._claim(value, at)
        else:
            yield self._claim(UNREADABLE, at)

    def _claim(self, value: object, at: _Walk, *, is_name: bool = False) -> Leaf:
        if at.claimed is not None:
            kind = self._kinds.get(at.claimed)
            return Leaf(at.claimed, _HARMLESS if kind is None else _DECLARED, kind, value, is_name)
        if not is_name and at.place is not None and (path := _first(at.place, at.path)) in self._kinds:
            return Leaf(path, _DECLARED, self._kinds[path], value)
        if is_name or value is UNREADABLE:
            return Leaf(at.argument, _UNCLAIMED, _OBJECT, value, is_name)
        if value is None or isinstance(value, bool):
            return Leaf(at.argument, _SWITCH, None, value)
        if at.shape is not None and at.shape.lists(value):
            return Leaf(at.argument, _LISTED, None, value)
        if at.shape is not None and isinstance(value, int | float) and abs(value) < LARGEST_QUANTITY:
            return Leaf(at.argument, _QUANTITY, None, value)
        return Leaf(at.argument, _UNCLAIMED, _OBJECT, value)


def _defaults(schema: Mapping[str, Any]) -> dict[str, object]:
    """Return the default values of optional arguments, by name."""
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, Mapping):
        return {}
    return {
        name: one["default"]
        for name, one in properties.items()
        if isinstance(one, Mapping) and "default" in one and not (isinstance(required, list) and name in required)
    }


def _is_same(value: object, other: object) -> bool:
    return value == other and isinstance(value, bool) is isinstance(other, bool)


class _Walk(msgspec.Struct, frozen=True, gc=False):
    """A position in the arguments while they are flattened. `claimed`: the nearest path at or above this position for
    which the catalogue has a word.
    """

    path: str
    argument: str
    claimed: str | None
    place: _Place | None
    shape: Shape | None
    depth: int


def _position(name: str, shape: Shape | None, place: _Place | None) -> _Walk:
    """Return the position of an argument."""
    claimed = None if place is None or place.word is None else name
    return _Walk(name, name[:64], claimed, place, shape, MAX_DEPTH - 1)


def _first(place: _Place, path: str) -> str:
    """Return the first path at or below `place` for which the catalogue states a kind of argument or another word."""
    while place.word is None and place.below:
        name, place = next(iter(place.below.items()))
        path = f"{path}.{name}"
    return path
