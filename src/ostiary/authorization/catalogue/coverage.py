"""Coverage: which rule judges each leaf of a call's arguments.

The arguments are flattened once. A leaf is a value that is no object and no list, or a member name of an object that
neither the schema nor the catalogue lists: where names are free, a name is a value like any other. Exactly one rule
claims each leaf, the first applicable rule of this list:

    offered      it is a URI that the server lists; of the expansion of a listed URI template, each variable is a leaf
    declared     the catalogue states the kind of the nearest path at or above the leaf; of a path that should lead
                 further down, where a leaf stands instead of an object, the kind of that object
    harmless     the catalogue states at or above the leaf a word that is no kind (`none`)
    switch       it is true, false or null
    listed       the schema lists the values that may stand there (`enum`, `const`); or it is the default of an argument
                 that may be left out, with any kind in the catalogue: naming the default changes nothing
    quantity     it is a number of at most six digits at a place whose name the schema lists
    unclaimed    all other leaves: judged as something that identifies an object, so a value from nowhere asks
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from ostiary.authorization.arguments.shape import Shape, shape_of
from ostiary.authorization.catalogue.kind import Kind
from ostiary.authorization.catalogue.offers import Offers

MAX_LEAVES = 256
"""leaves of one call"""
MAX_DEPTH = 16
LARGEST_QUANTITY = 1_000_000
"""Longer numbers may be telephone or account numbers."""
UNREADABLE = object()
"""The value of a leaf that stands for everything beyond a limit; it comes from nowhere."""
EMPTY = object()
"""The value of a leaf that stands for an empty object or list where a kind is stated: the tool may fill in anything."""


class Rule(StrEnum):
    """The rule that claims a leaf."""

    OFFERED = "offered"
    DECLARED = "declared"
    HARMLESS = "harmless"
    SWITCH = "switch"
    LISTED = "listed"
    QUANTITY = "quantity"
    UNCLAIMED = "unclaimed"


class Leaf(NamedTuple):
    """A leaf. `path`: the path of the catalogue that claims it, or else the name of its argument. `kind`: as which
    kind its origin is judged; None if its origin does not matter.
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
    """The statement of the catalogue at one path, and at the paths below it."""

    word: str | None
    below: dict[str, _Place]


class Coverage:
    """The rules of one tool, made ready once for all of its calls."""

    __slots__ = ("_defaults", "_direct", "_kinds", "_offers", "_places", "_shape", "_shown")

    def __init__(
        self,
        words: Mapping[str, str],
        kinds: Mapping[str, Kind],
        schema: Mapping[str, Any],
        presentation: Iterable[str],
        offers: Iterable[str] = (),
    ) -> None:
        """Prepare the rules. `words`: the statements of the catalogue by path; `kinds`: those of them
        that are kinds.
        """
        self._kinds = kinds
        self._offers = Offers(offers)
        self._direct = {} if self._offers else {path: kind for path, kind in kinds.items() if "." not in path}
        self._shape = shape_of([schema], schema)
        self._shown = frozenset(presentation)
        self._defaults = _defaults(schema)
        self._places = _Place(None, {})
        for path, word in words.items():
            place = self._places
            names = path.split(".")
            for at, name in enumerate(names):
                stated = word if at == len(names) - 1 else None
                existing = place.below.get(name)
                place.below[name] = _Place(
                    stated or (existing.word if existing else None), existing.below if existing else {}
                )
                place = place.below[name]

    def leaves(self, arguments: Mapping[str, Any]) -> list[Leaf]:
        """Every leaf of `arguments`, each claimed by one rule. Beyond a limit, one leaf stands for the rest."""
        claimed: list[Leaf] = []
        for name, value in arguments.items():
            if name in self._defaults and type(value) in _SCALARS and _is_same(value, self._defaults[name]):
                claimed.append(Leaf(name, _LISTED, None, value))
                continue
            if (kind := self._direct.get(name)) is not None and type(value) in _SCALARS:  # as most arguments are
                if value != "":
                    claimed.append(Leaf(name, _DECLARED, kind, value))
                continue
            top = _Walk("", name[:64], None, self._places, self._shape, MAX_DEPTH)
            for leaf in self._member(name, value, top, is_argument=True):
                claimed.append(leaf)
                if len(claimed) > MAX_LEAVES:
                    break
        if len(claimed) > MAX_LEAVES:
            claimed[MAX_LEAVES:] = [Leaf(claimed[-1].path, _UNCLAIMED, _OBJECT, UNREADABLE)]
        return claimed

    def _member(self, name: str, value: object, at: _Walk, *, is_argument: bool = False) -> Iterator[Leaf]:
        """The leaves of one member of the object at `at`; an argument that is empty has none."""
        shape = None if at.shape is None else at.shape.member(name)
        place = None if at.place is None else at.place.below.get(name)
        if shape is None and place is None and not (is_argument and name in self._shown):
            yield self._claim(name, at, is_name=True)
        path = f"{at.path}.{name}" if at.path else name
        claimed = at.claimed if place is None or place.word is None else path
        if not is_argument or value not in ("", []):
            yield from self._value(value, _Walk(path, at.argument, claimed, place, shape, at.depth - 1))

    def _value(self, value: object, at: _Walk) -> Iterator[Leaf]:
        if isinstance(value, Mapping | list | tuple) and not value:
            if at.claimed in self._kinds:
                yield self._claim(EMPTY, at)
        elif at.depth > 0 and isinstance(value, Mapping):
            for name, inner in value.items():
                yield from self._member(name, inner, at)
        elif at.depth > 0 and isinstance(value, list | tuple):
            inside = at._replace(shape=None if at.shape is None else at.shape.elements, depth=at.depth - 1)
            for one in value:
                yield from self._value(one, inside)
        elif isinstance(value, str) and self._offers and (variables := self._offers.variables(value)) is not None:
            yield self._claim(value, at)._replace(rule=_OFFERED, kind=None)
            for variable in variables:
                if variable.value:
                    leaf = self._claim(variable.value, at)
                    yield leaf._replace(kind=_OBJECT) if variable.is_simple else leaf
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
    """The defaults of the arguments that may be left out, by name."""
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


class _Walk(NamedTuple):
    """The state of the flattening: `claimed` is the nearest path above that the catalogue states."""

    path: str
    argument: str
    claimed: str | None
    place: _Place | None
    shape: Shape | None
    depth: int


def _first(place: _Place, path: str) -> str:
    """The first path at or below `place` that the catalogue states."""
    while place.word is None and place.below:
        name, place = next(iter(place.below.items()))
        path = f"{path}.{name}"
    return path
