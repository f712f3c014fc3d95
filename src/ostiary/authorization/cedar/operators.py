"""The operators of Cedar at run time. Generated code calls them; each operator checks the types of its operands.

Operators raise EvaluationError; or KeyError for an attribute that a record or entity does not have, because a plain
dict lookup is the fastest check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from ostiary.authorization.cedar import extensions
from ostiary.authorization.cedar.extensions import Datetime, Decimal, Duration, EvaluationError, Ip
from ostiary.authorization.cedar.values import LONG_MAX, LONG_MIN, Entities, Uid, key

_NAMES = {
    bool: "bool",
    int: "long",
    str: "string",
    Uid: "entity",
    frozenset: "set",
    dict: "record",
    Decimal: "decimal",
    Ip: "ipaddr",
    Datetime: "datetime",
    Duration: "duration",
}


def _wrong(operator: str, *operands: object) -> NoReturn:
    extensions.check_usable(*operands)
    raise EvaluationError(f"{operator} does not take {' and '.join(_NAMES[type(operand)] for operand in operands)}")


def boolean(value: object) -> bool:
    """Return the operand of a condition. Raises EvaluationError if it is not a bool."""
    if value is True or value is False:
        return value
    _wrong("a condition", value)


def negate(value: object) -> int:
    """Return `-value`."""
    return _long(-_as_long("-", value))


def equal(left: object, right: object) -> bool:
    """Return `left == right`."""
    if type(left) is not type(right):
        extensions.check_usable(left, right)
        return False
    if type(left) is dict:
        return key(left) == key(right)
    return left == right


def less(left: object, right: object) -> bool:
    """Return `left < right`."""
    if type(left) is int and type(right) is int:
        return left < right
    if (type(left) is Datetime and type(right) is Datetime) or (type(left) is Duration and type(right) is Duration):
        return left.ms < right.ms
    _wrong("<", left, right)


def less_eq(left: object, right: object) -> bool:
    """Return `left <= right`."""
    if type(left) is int and type(right) is int:
        return left <= right
    if (type(left) is Datetime and type(right) is Datetime) or (type(left) is Duration and type(right) is Duration):
        return left.ms <= right.ms
    _wrong("<=", left, right)


def greater(left: object, right: object) -> bool:
    """Return `left > right`."""
    return less(right, left)


def greater_eq(left: object, right: object) -> bool:
    """Return `left >= right`."""
    return less_eq(right, left)


def add(left: object, right: object) -> int:
    """Return `left + right`."""
    return _long(_as_long("+", left) + _as_long("+", right))


def sub(left: object, right: object) -> int:
    """Return `left - right`."""
    return _long(_as_long("-", left) - _as_long("-", right))


def mul(left: object, right: object) -> int:
    """Return `left * right`."""
    return _long(_as_long("*", left) * _as_long("*", right))


def _as_long(operator: str, value: object) -> int:
    if type(value) is int:
        return value
    _wrong(operator, value)


def _long(value: int) -> int:
    if LONG_MIN <= value <= LONG_MAX:
        return value
    raise EvaluationError("the result is outside of the range of 64 bits")


# --- sets -----------------------------------------------------------------------------------------------------------


def is_empty(value: object) -> bool:
    """Return `value.isEmpty()`."""
    if type(value) is frozenset:
        return not value
    _wrong("isEmpty", value)


def contains(container: object, element_key: object) -> bool:
    """Return `container.contains(element)`. `element_key`: the key of the element (`values.key`)."""
    if type(container) is frozenset:
        return element_key in container
    _wrong("contains", container)


def contains_all(left: object, right: object) -> bool:
    """Return `left.containsAll(right)`."""
    return _as_set("containsAll", left) >= _as_set("containsAll", right)


def contains_any(left: object, right: object) -> bool:
    """Return `left.containsAny(right)`."""
    return not _as_set("containsAny", left).isdisjoint(_as_set("containsAny", right))


def _as_set(operator: str, value: object) -> frozenset[object]:
    if type(value) is frozenset:
        return value
    _wrong(operator, value)


# --- records and entities -------------------------------------------------------------------------------------------


def attribute(base: object, name: str, entities: Entities) -> object:
    """Return `base.name`. Raises EvaluationError if the entity `base` does not exist, KeyError if the record or entity
    lacks the attribute.
    """
    if type(base) is dict:
        return base[name]
    if type(base) is Uid:
        entity = entities.get(base)
        if entity is None:
            raise EvaluationError("the entity does not exist")
        return entity.attrs[name]
    _wrong(".", base)


def has(base: object, name: str, entities: Entities) -> bool:
    """Return `base has name`."""
    if type(base) is dict:
        return name in base
    if type(base) is Uid:
        entity = entities.get(base)
        return entity is not None and name in entity.attrs
    _wrong("has", base)


def get_tag(base: object, name: object, entities: Entities) -> object:
    """Return `base.getTag(name)`."""
    if type(base) is not Uid or type(name) is not str:
        _wrong("getTag", base, name)
    entity = entities.get(base)
    if entity is None or name not in entity.tags:  # the name may come from the request, so no message may have it
        raise EvaluationError("the entity does not have this tag")
    return entity.tags[name]


def has_tag(base: object, name: object, entities: Entities) -> bool:
    """Return `base.hasTag(name)`."""
    if type(base) is not Uid or type(name) is not str:
        _wrong("hasTag", base, name)
    entity = entities.get(base)
    return entity is not None and name in entity.tags


def is_type(base: object, name: str) -> bool:
    """Return `base is name`."""
    if type(base) is Uid:
        return base.type == name
    _wrong("is", base)


def is_in(descendant: object, ancestor: object, entities: Entities) -> bool:
    """Return `descendant in ancestor`."""
    if type(descendant) is not Uid:
        _wrong("in", descendant)
    if type(ancestor) is frozenset:
        if not all(type(element) is Uid for element in ancestor):
            raise EvaluationError("the operator `in` accepts a set only if all its elements are entities")
        ancestors = ancestor
    elif type(ancestor) is Uid:
        ancestors = frozenset((ancestor,))
    else:
        _wrong("in", ancestor)
    entity = entities.get(descendant)
    return descendant in ancestors if entity is None else not entity.lineage.isdisjoint(ancestors)


def like(text: object, pieces: tuple[str, ...]) -> bool:
    """Return whether `text` matches a pattern. `pieces`: the pattern, split at its wildcards (`*`). The time is linear,
    because matching each piece at its first place suffices.
    """
    if type(text) is not str:
        _wrong("like", text)
    first, *middle, last = pieces if len(pieces) > 1 else (pieces[0], None)
    if last is None:
        return text == first
    position, end = len(first), len(text) - len(last)
    if position > end or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in middle:
        at = text.find(piece, position, end)
        if at < 0:
            return False
        position = at + len(piece)
    return True


# --- extension functions --------------------------------------------------------------------------------------------


def arity_error(function: str, expected: int, args: tuple[object, ...]) -> NoReturn:
    """Raise the error for a call with a wrong number of arguments, after the arguments are evaluated."""
    raise EvaluationError(
        f"wrong number of arguments provided to extension function `{function}`: expected {expected}, got {len(args)}"
    )


def _method(name: str, kind: type, function: Callable[..., object]) -> Callable[..., object]:
    """Return `function` with a check that all operands are of the type `kind`."""

    def checked(*operands: object) -> object:
        for operand in operands:
            if type(operand) is not kind:
                _wrong(name, operand)
        return function(*operands)

    return checked


METHODS: dict[str, Callable[..., object]] = {
    "decimal_less_than": _method("lessThan", Decimal, lambda left, right: left.units < right.units),
    "decimal_less_eq": _method("lessThanOrEqual", Decimal, lambda left, right: left.units <= right.units),
    "decimal_greater": _method("greaterThan", Decimal, lambda left, right: left.units > right.units),
    "decimal_greater_eq": _method("greaterThanOrEqual", Decimal, lambda left, right: left.units >= right.units),
    "is_ipv4": _method("isIpv4", Ip, lambda address: address.bits == 32),
    "is_ipv6": _method("isIpv6", Ip, lambda address: address.bits == 128),
    "is_loopback": _method("isLoopback", Ip, extensions.is_loopback),
    "is_multicast": _method("isMulticast", Ip, extensions.is_multicast),
    "is_in_range": _method("isInRange", Ip, extensions.is_in_range),
    "to_date": _method("toDate", Datetime, extensions.to_date),
    "to_time": _method("toTime", Datetime, extensions.to_time),
    "to_milliseconds": _method("toMilliseconds", Duration, extensions.to_milliseconds),
    "to_seconds": _method("toSeconds", Duration, extensions.to_seconds),
    "to_minutes": _method("toMinutes", Duration, extensions.to_minutes),
    "to_hours": _method("toHours", Duration, extensions.to_hours),
    "to_days": _method("toDays", Duration, extensions.to_days),
}
