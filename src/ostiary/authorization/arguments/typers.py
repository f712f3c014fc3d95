"""Typers: the functions that a schema is compiled to. A typer converts a JSON value to a Cedar value, or refuses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ostiary.authorization.arguments.plain import BadArguments, Unrepresentable, plain, to_decimal, to_long, usable
from ostiary.authorization.cedar.extensions import Decimal, Unusable
from ostiary.authorization.cedar.values import Value

Fuel: TypeAlias = list[int]
Typer: TypeAlias = Callable[[Any, int, Fuel], Value]
"""A function of (value, remaining levels, [remaining steps]) that returns the Cedar value. Raises BadArguments for a
value that the schema does not permit.
"""
Check: TypeAlias = Callable[[Any], None]
"""A check of a value against the schema. Raises BadArguments if the check fails."""


def spend(fuel: Fuel, steps: int, depth: int) -> None:
    """Subtract `steps` from the remaining steps of the conversion (`fuel`). Raises BadArguments if fewer than `steps`
    steps remain, or if no levels of nesting remain (`depth` is 0).
    """
    fuel[0] -= steps
    if fuel[0] < 0:
        raise BadArguments("has too many parts to be checked")
    if depth == 0:
        raise BadArguments("is nested too deeply")


def as_it_comes(value: Any, depth: int, fuel: Fuel) -> Value:
    """Convert a value that no schema describes to the Cedar value of its JSON type (`plain`)."""
    spend(fuel, 1, 1)  # `plain` bounds the levels
    return plain(value, depth)


def never(value: Any, depth: int, fuel: Fuel) -> Value:
    """Refuse every value, as the schema `false` does. Raises BadArguments for every value."""
    raise BadArguments("is not allowed by the schema")


def as_it_is(value: Any, depth: int, fuel: Fuel) -> Value:
    """Return the value unchanged, because a JSON value of its type is a Cedar value already."""
    return value  # type: ignore[no-any-return]


def integer(value: Any, depth: int, fuel: Fuel) -> int:
    """Convert an integer. A float without a fraction counts as an integer."""
    if type(value) is float:
        if not value.is_integer():
            raise BadArguments("is not an integer")
        value = int(value)
    return to_long(value)


def number(value: Any, depth: int, fuel: Fuel) -> Decimal:
    """Convert a number to a Cedar decimal."""
    return to_decimal(value)


def exactly(only: type, typer: Typer, wrong: str) -> Typer:
    """Return a typer that accepts only values of the Python type `only`, and converts them by `typer`. `wrong`: message
    of the error for any other value.
    """

    def same(value: Any, depth: int, fuel: Fuel) -> Any:
        if type(value) is not only:
            raise BadArguments(wrong)
        return value

    def converted(value: Any, depth: int, fuel: Fuel) -> Value:
        if type(value) is not only:
            raise BadArguments(wrong)
        return typer(value, depth, fuel)

    return same if typer is as_it_is else converted


def either(by_type: dict[type, Typer], wrong: str) -> Typer:
    """Return a typer that converts a value by the typer for its Python type. `wrong`: message of the error for a type
    without a typer.
    """
    find = by_type.get

    def by_its_type(value: Any, depth: int, fuel: Fuel) -> Value:
        typer = find(type(value))
        if typer is None:
            raise BadArguments(wrong)
        return typer(value, depth, fuel)

    return by_its_type


def listed(by_type: dict[type, Typer], wrong: str, is_listed: Callable[[Any], bool]) -> Typer:
    """Return a typer like that of `either`, which also refuses values for which `is_listed` is false."""
    by_its_type = either(by_type, wrong)

    def if_listed(value: Any, depth: int, fuel: Fuel) -> Value:
        if not is_listed(value):
            raise BadArguments("is not one of the values that the schema lists")
        return by_its_type(value, depth, fuel)

    return if_listed


def checked(convert: Typer, checks: list[Check]) -> Typer:
    """Return a typer that applies `convert`, then all of `checks` to the JSON value itself, even if Cedar cannot
    represent the value.
    """
    if not checks:
        return convert

    def if_it_passes(value: Any, depth: int, fuel: Fuel) -> Value:
        converted = usable(convert, value, depth, fuel)
        for check in checks:
            check(value)
        return _member_value(converted)

    return if_it_passes


def choice(branches: list[Typer], *, exactly_one: bool) -> Typer:
    """Return a typer that converts a value by the first branch that accepts the value. If `exactly_one`
    (`oneOf`), the typer refuses a value that several branches accept.
    """

    def choose(value: Any, depth: int, fuel: Fuel) -> Value:
        members: list[Value] = []
        for branch in branches:
            spend(fuel, 1, depth)
            try:
                members.append(usable(branch, value, depth - 1, fuel))
            except BadArguments:
                continue
            if not exactly_one:
                break
        if not members:
            raise BadArguments("fits none of the forms that the schema lists")
        if len(members) > 1:
            raise BadArguments("fits more than one of the forms that the schema lists")
        return _member_value(members[0])

    return choose


def every(parts: list[Typer]) -> Typer:
    """Return a typer that converts a value by all of `parts` (`allOf`), and merges the results."""

    def read_all(value: Any, depth: int, fuel: Fuel) -> Value:
        spend(fuel, len(parts), depth)
        typed = usable(parts[0], value, depth - 1, fuel)
        for part in parts[1:]:
            typed = merge(typed, usable(part, value, depth - 1, fuel))
        return _member_value(typed)

    return read_all


def merge(left: Value, right: Value) -> Value:
    """Return one Cedar value for the conversions of one JSON value by two schemas. Records are merged member by member.
    Otherwise the result is `left` if it is a decimal or an Unusable, and `right` if not.
    """
    if type(left) is dict and type(right) is dict:
        return {name: merge(item, right[name]) for name, item in left.items()}
    return left if type(left) is Decimal or type(left) is Unusable else right


def _member_value(value: Value) -> Value:
    """Return the value. Raises Unrepresentable for an Unusable, because only the enclosing object can store an
    Unusable.
    """
    if type(value) is Unusable:
        raise Unrepresentable(value.problem)
    return value
