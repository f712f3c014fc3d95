"""The keywords of JSON Schema that only accept or refuse a value: bounds of numbers and lengths, `enum`, `const`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from ostiary.authorization.arguments.plain import BadArguments
from ostiary.authorization.arguments.typers import Check
from ostiary.authorization.cedar.values import LONG_MAX
from ostiary.protocol.errors import Invalid


def members(schema: Mapping[str, Any]) -> Callable[[Any], bool] | None:
    """Return a function that tells whether the schema's `enum` and `const` both permit a value; None if the schema has
    neither keyword. Raises Invalid for an `enum` that is not a list.
    """
    listed = as_list(schema["enum"], "enum") if "enum" in schema else [schema["const"]] if "const" in schema else None
    if listed is None:
        return None
    if "const" in schema:
        listed = [item for item in listed if _equal(item, schema["const"])]
    words = frozenset(item for item in listed if type(item) is str)
    return lambda value: value in words if type(value) is str else any(_equal(value, item) for item in listed)


def _equal(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal: 1 equals 1.0, and does not equal true."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(item, right[name]) for name, item in left.items())
    return bool(left == right)


def number_checks(schema: Mapping[str, Any]) -> list[Check]:
    """Return the checks of the numeric keywords of a schema. Raises Invalid for a malformed schema."""
    tests: dict[str, Callable[[Any, Any], bool]] = {
        "minimum": lambda value, bound: value >= bound,
        "maximum": lambda value, bound: value <= bound,
        "exclusiveMinimum": lambda value, bound: value > bound,
        "exclusiveMaximum": lambda value, bound: value < bound,
        "multipleOf": _is_multiple,
    }
    return [_bound(word, schema[word], test) for word, test in tests.items() if word in schema]


def _is_multiple(value: Any, bound: Any) -> bool:
    try:
        return bool(value % bound == 0)
    except OverflowError:  # an integer that is larger than any float
        return bool(value % Fraction(bound) == 0)


def _bound(word: str, bound: object, test: Callable[[Any, Any], bool]) -> Check:
    if type(bound) not in (int, float) or (word == "multipleOf" and not bound > 0):  # type: ignore[operator]
        raise Invalid(f"`{word}` of a schema must be a number{' above zero' if word == 'multipleOf' else ''}")

    def check(value: Any) -> None:
        if not test(value, bound):
            raise BadArguments(f"does not meet the schema's `{word}` of {bound}")

    return check


def length_checks(schema: Mapping[str, Any], least: str, most: str, counted: str) -> list[Check]:
    """Return the checks of a minimum and a maximum length. `least` and `most` are the keywords of the schema, such as
    `minLength` and `maxLength`; `counted` names the counted parts in errors. Raises Invalid for a malformed schema.
    """
    low, high = schema.get(least), schema.get(most)
    for keyword, bound in ((least, low), (most, high)):
        if bound is not None and (type(bound) is not int or bound < 0):
            raise Invalid(f"`{keyword}` of a schema must be an integer from 0")
    if low is None and high is None:
        return []
    low, high = low or 0, LONG_MAX if high is None else high

    def check(value: Any) -> None:
        if len(value) < low:
            raise BadArguments(f"has fewer {counted} than the schema's `{least}` of {low}")
        if len(value) > high:
            raise BadArguments(f"has more {counted} than the schema's `{most}` of {high}")

    return [check]


def as_list(value: object, word: str) -> list[Any]:
    """Return `value`, the value of the schema keyword `word`, if it is a list. Raises Invalid, which
    names the keyword.
    """
    if not isinstance(value, list):
        raise Invalid(f"`{word}` of a schema must be a list")
    return value
