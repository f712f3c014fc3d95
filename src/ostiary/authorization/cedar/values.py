"""Cedar values as Python values, entities, and parsers of both (docs.cedarpolicy.com, "Entities and context syntax").

    bool  bool      string  str      set     frozenset of keys (see `key`)    decimal, ipaddr, datetime, duration
    long  int       entity  Uid      record  dict                              the structs of `extensions`

A value of a request that Cedar cannot represent is an `Unusable`: a policy that reads it fails.

Stricter than Cedar: a record with one of the escape names `__entity`, `__extn`, `__expr` that is no well-formed escape
is refused, while Cedar reads it as an ordinary record. In `__extn`, only extension functions that construct values are
permitted, not predicates.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, Protocol, TypeAlias, Union

import msgspec

from ostiary.authorization.cedar import extensions
from ostiary.authorization.cedar.extensions import Datetime, Decimal, Duration, EvaluationError, Ip, Unusable
from ostiary.protocol.errors import Invalid, Malformed

LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
MAX_DEPTH = 64  # nesting of a JSON value; Cedar has no limit of its own
MAX_ANCESTORS = 10_000  # of one entity


class Uid(msgspec.Struct, frozen=True, array_like=True, cache_hash=True, forbid_unknown_fields=True):
    """The identifier of an entity, `Type::"id"`. The type includes its namespaces (`Shop::Clerk`)."""

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}::{msgspec.json.encode(self.id).decode()}"


Value: TypeAlias = Union[bool, int, str, Uid, frozenset[object], "Record", Decimal, Ip, Datetime, Duration, Unusable]
Record: TypeAlias = dict[str, Value]

_TRUE, _FALSE = object(), object()


def key(value: object) -> object:
    """Return the key that stands for `value` in a set and in comparisons of records: hashable, and different for `1`
    and `true`.

    Sets only test membership, so they store the keys and never return an element. The key of a record is a 1-tuple,
    which equals no other member of a set.
    """
    if value is True:
        return _TRUE
    if value is False:
        return _FALSE
    if type(value) is dict:
        return (frozenset((name, key(item)) for name, item in value.items()),)
    return value


def unkey(stood_for: object) -> object:
    """Return the Cedar value for which the key `stood_for` stands in a set (the inverse of `key`)."""
    if stood_for is _TRUE:
        return True
    if stood_for is _FALSE:
        return False
    if type(stood_for) is tuple:
        (fields,) = stood_for
        return {name: unkey(item) for name, item in fields}
    return stood_for


def make_set(elements: Iterable[object]) -> frozenset[object]:
    """Return the Cedar set of these values."""
    return frozenset([key(element) for element in elements])


class _Absent(dict[str, Value]):
    """The attributes of an entity that is not in the store. Each lookup raises EvaluationError."""

    def __missing__(self, name: str) -> NoReturn:
        raise EvaluationError("the entity does not exist")


_NOTHING: Mapping[str, Value] = {}
_ABSENT: Mapping[str, Value] = _Absent()


class Entity(msgspec.Struct, frozen=True, gc=False):
    """An entity. `lineage` is the entity and all its ancestors, so that `in` is one lookup. Construct it with
    `entity()`.
    """

    uid: Uid
    attrs: Mapping[str, Value]
    lineage: frozenset[Uid]
    tags: Mapping[str, Value]


def entity(
    uid: Uid,
    attrs: Mapping[str, Value] = _NOTHING,
    ancestors: Iterable[Uid] = (),
    tags: Mapping[str, Value] = _NOTHING,
) -> Entity:
    """Return an entity with its attributes (a dict), *all* its ancestors (not only its parents), and its tags
    (a dict).
    """
    return Entity(uid, attrs, frozenset((uid, *ancestors)), tags)


@functools.lru_cache(maxsize=1024)
def absent(uid: Uid) -> Entity:
    """Return an entity for an identifier that is not in the store: it has no attributes, and is a member of itself
    only.
    """
    return Entity(uid, _ABSENT, frozenset((uid,)), _ABSENT)


class Entities(Protocol):
    """The store of entities: a dict, or an `Overlay` of a dict."""

    def get(self, uid: Uid, /) -> Entity | None:
        """Return the entity `uid`; None if the store has none."""


class Overlay(msgspec.Struct, frozen=True, gc=False):
    """A store with the entities of one request in front of a permanent store. (Without a permanent store, use a
    dict.)
    """

    base: Entities
    near: dict[Uid, Entity]
    """the entities of the request"""

    @classmethod
    def of(cls, base: Entities, *near: Entity) -> Overlay:
        """Return the store `base` with the entities of `near`, which take precedence over entities with the same name
        in `base`.
        """
        return cls(base, {one.uid: one for one in near})

    def get(self, uid: Uid, /) -> Entity | None:
        """Return the entity `uid` from the entities of the request, or else from the permanent store; None if neither
        has it.
        """
        return self.near.get(uid) or self.base.get(uid)

    def find(self, principal: Uid, action: Uid, resource: Uid) -> tuple[Entity, Entity, Entity]:
        """Return these entities of a request. An entity that is in neither store has no attributes."""
        near, base = self.near, self.base
        return (
            near.get(principal) or base.get(principal) or absent(principal),
            near.get(action) or base.get(action) or absent(action),
            near.get(resource) or base.get(resource) or absent(resource),
        )


# --- from JSON ------------------------------------------------------------------------------------------------------

_RESERVED = frozenset({"if", "in", "is", "true", "false", "then", "else", "has", "like", "__cedar"})
_TYPE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(::[A-Za-z_][A-Za-z0-9_]*)*")
_CONSTRUCTORS: dict[str, Callable[..., Value]] = {
    "decimal": extensions.decimal,
    "ip": extensions.ip,
    "datetime": extensions.datetime,
    "duration": extensions.duration,
    "offset": extensions.offset,
}
ESCAPES = frozenset({"__entity", "__extn", "__expr"})


@functools.lru_cache(maxsize=1024)
def is_type_name(name: str) -> bool:
    """Return whether `name` is a Cedar type name: identifiers joined by `::`, none of them reserved, no white space."""
    return _TYPE_NAME.fullmatch(name) is not None and _RESERVED.isdisjoint(name.split("::"))


def parse_uid(unverified: object) -> Uid:
    """Return the `Uid` of `{"type": .., "id": ..}`, with or without `__entity` around it. Raises Malformed for any
    other value.
    """
    if type(unverified) is dict and unverified.keys() == {"__entity"}:
        unverified = unverified["__entity"]
    if type(unverified) is not dict or unverified.keys() != {"type", "id"}:
        raise Malformed("an entity must be named by an object with exactly `type` and `id`")
    kind, name = unverified["type"], unverified["id"]
    if type(kind) is not str or type(name) is not str:
        raise Malformed("`type` and `id` of an entity must be strings")
    if not is_type_name(kind):
        raise Malformed(
            f"the `type` of an entity is no Cedar type name: {kind[:64]!a}",
            hint="join identifiers by `::`; none may be a reserved word",
        )
    return Uid(kind, name)


def parse_value(unverified: object, *, depth: int = MAX_DEPTH) -> Value:
    """Return the Cedar value of a parsed JSON value. Raises Malformed for null, floats and malformed escapes
    (`__entity`, `__extn`), Invalid for an integer beyond 64 bits and for more than `depth` levels.
    """
    kind = type(unverified)
    if kind is str or kind is bool:
        return unverified  # type: ignore[return-value]
    if kind is int:
        if not LONG_MIN <= unverified <= LONG_MAX:  # type: ignore[operator]
            raise Invalid("an integer is outside of the range of 64 bits")
        return unverified  # type: ignore[return-value]
    if depth == 0:
        raise Invalid("a value is nested too deeply")
    if kind is list:
        return make_set([parse_value(item, depth=depth - 1) for item in unverified])  # type: ignore[attr-defined]
    if kind is dict:
        return _record_or_escape(unverified, depth - 1)  # type: ignore[arg-type]
    raise Malformed(f"Cedar has no value for {'null' if unverified is None else kind.__name__}")


def parse_record(unverified: object, *, depth: int = MAX_DEPTH) -> Record:
    """Return the Cedar record (a context, attributes, tags) of a parsed JSON object. Raises Malformed and Invalid for
    the same values as `parse_value`.
    """
    if type(unverified) is not dict:
        raise Malformed("a record must be a JSON object")
    if not ESCAPES.isdisjoint(unverified):
        raise Malformed(f"a record must not have one of these names: {', '.join(sorted(ESCAPES))}")
    made: Record = {}
    for name, item in unverified.items():
        if type(name) is not str:
            raise Malformed("names in a record must be strings")
        made[name] = parse_value(item, depth=depth)
    return made


def _record_or_escape(unverified: dict[str, object], depth: int) -> Value:
    if len(unverified) == 1:
        if "__entity" in unverified:
            return parse_uid(unverified)
        if "__extn" in unverified:
            return _extension(unverified["__extn"], depth)
    return parse_record(unverified, depth=depth)


def _extension(call: object, depth: int) -> Value:
    match call:
        case {"fn": str(name), "arg": arg, **others} if not others:
            unverified_args = [arg]
        case {"fn": str(name), "args": list(unverified_args), **others} if not others:
            pass
        case _:
            raise Malformed("`__extn` must have `fn` (a string), and either `arg` or `args` (a list)")
    function = _CONSTRUCTORS.get(name)
    if function is None:
        raise Malformed(
            f"there is no extension function {name[:64]!a}",
            hint=f"use one of: {', '.join(sorted(_CONSTRUCTORS))}",
        )
    expected = 2 if function is extensions.offset else 1
    if len(unverified_args) != expected:
        raise Malformed(f"the extension function `{name}` has {len(unverified_args)} arguments, not {expected}")
    if depth == 0:
        raise Invalid("a value is nested too deeply")
    try:
        return function(*(parse_value(item, depth=depth - 1) for item in unverified_args))
    except EvaluationError as error:
        raise Invalid(str(error)) from error


def parse_entities(unverified: object, *, max_ancestors: int = MAX_ANCESTORS) -> dict[Uid, Entity]:
    """Return a store from Cedar's entity JSON: a list of `{uid, attrs?, parents?, tags?}`. Raises Malformed for other
    JSON, Invalid for an entity that occurs twice.

    The ancestors of each entity are computed from the parents. Cycles, duplicates and too many ancestors are refused.
    """
    if type(unverified) is not list:
        raise Malformed("entities must be a JSON list")
    parents: dict[Uid, tuple[Uid, ...]] = {}
    bodies: dict[Uid, tuple[Record, Record]] = {}
    for item in unverified:
        if type(item) is not dict or not {"uid"} <= item.keys() <= {"uid", "attrs", "parents", "tags"}:
            raise Malformed("an entity must be an object with `uid`, and perhaps `attrs`, `parents` and `tags`")
        name = parse_uid(item["uid"])
        if name in parents:
            raise Invalid(f"the entity {name} occurs twice")
        if type(item.get("parents", [])) is not list:
            raise Malformed("`parents` must be a list")
        parents[name] = tuple(parse_uid(parent) for parent in item.get("parents", []))
        bodies[name] = parse_record(item.get("attrs", {})), parse_record(item.get("tags", {}))
    closed = close(parents, max_ancestors=max_ancestors)
    return {name: entity(name, attrs, closed[name], tags) for name, (attrs, tags) in bodies.items()}


def close(parents: Mapping[Uid, Iterable[Uid]], *, max_ancestors: int = MAX_ANCESTORS) -> dict[Uid, frozenset[Uid]]:
    """Return all ancestors of each entity, computed from the parents of each.

    Raises Invalid if an entity is its own ancestor, or has more than `max_ancestors`. The function does not recurse,
    because hierarchies may be deeper than Python's stack.
    """
    closed: dict[Uid, frozenset[Uid]] = {}
    for start in parents:
        open_, path = [start], set[Uid]()
        while open_:
            name = open_[-1]
            missing = [up for up in parents.get(name, ()) if up not in closed]
            if name in closed or not missing:
                ups = parents.get(name, ())
                ancestors = closed.setdefault(name, frozenset(ups).union(*(closed[up] for up in ups)))
                if len(ancestors) > max_ancestors:
                    raise Invalid(f"{name} has more than {max_ancestors} ancestors")
                path.discard(name)
                open_.pop()
                continue
            path.add(name)
            if not path.isdisjoint(missing):
                raise Invalid(f"{name} is its own ancestor")
            open_.extend(missing)
    return closed
