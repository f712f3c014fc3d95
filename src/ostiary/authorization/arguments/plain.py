"""Conversion of JSON values to Cedar values without a schema, and errors for values that Cedar cannot represent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ostiary.authorization.cedar.extensions import Decimal, EvaluationError, Unreadable, Unusable, decimal
from ostiary.authorization.cedar.values import LONG_MAX, LONG_MIN, Record, Value, make_set
from ostiary.protocol.errors import Invalid

MAX_DEPTH = 32


class BadArguments(Invalid):
    """The arguments do not match the schema of the tool. The message names the argument, and never its value."""

    code = "bad_arguments"

    def __init__(self, problem: str, *, where: str = "") -> None:
        super().__init__(f"argument `{where}` {problem}" if where else f"the arguments: an argument {problem}")
        self.problem, self.where = problem, where

    def inside(self, name: str) -> BadArguments:
        """Return the same error as seen from the enclosing object, whose member `name` has the fault: `name` is put in
        front of the dotted path of the fault.
        """
        return BadArguments(self.problem, where=f"{name[:64]}.{self.where}"[:200].rstrip("."))


class Unrepresentable(BadArguments):
    """A JSON value that Cedar cannot represent. The object that contains the value stores an Unusable in its place, so
    the request stays valid, and only a policy that reads the value fails.
    """


def plain(value: object, depth: int = MAX_DEPTH) -> Value:
    """Return the Cedar value of a JSON value that no schema describes. Null in a list or an object counts as absent.

    A member of an object that Cedar cannot represent becomes Unusable. Raises Unrepresentable for any other such value,
    and BadArguments for a value that is not JSON.
    """
    kind = type(value)
    if kind is str or kind is bool:
        return value  # type: ignore[return-value]
    if kind is int:
        return to_long(value)  # type: ignore[arg-type]
    if kind is float:
        return to_decimal(value)  # type: ignore[arg-type]
    if depth == 0:
        raise Unrepresentable("is nested too deeply")
    if kind is list or kind is tuple:
        return to_set(plain(item, depth - 1) for item in value if item is not None)  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return plain_record(value, depth - 1)
    raise BadArguments("is null" if value is None else f"is a {kind.__name__}, which is not a JSON type")


def plain_record(members: Mapping[str, object], depth: int = MAX_DEPTH) -> Record:
    """Return the Cedar record of a JSON object that no schema describes. A null member counts as absent."""
    record: Record = dict(members)  # type: ignore[arg-type]  # the other members follow
    for name, item in members.items():
        if item is None:
            del record[name]
        elif type(item) is not str:
            record[name] = usable(plain, item, depth)
    return record


def usable(convert: Callable[..., Value], value: object, *args: Any) -> Value:
    """Return the result of `convert(value, *args)`; or, if Cedar cannot represent the value, an Unusable with the JSON
    value.
    """
    try:
        return convert(value, *args)
    except Unrepresentable as error:
        return Unusable(error.problem, value)


def to_set(elements: Iterable[Value]) -> Value:
    """Return the Cedar set of the elements. Raises Unrepresentable if an element is an Unusable or contains one."""
    try:
        return make_set(elements)
    except Unreadable as error:
        raise Unrepresentable(f"holds a value that {error.value.problem}") from None


def to_long(value: int) -> int:
    """Return the Cedar Long of an integer. Raises Unrepresentable beyond 64 bits."""
    if LONG_MIN <= value <= LONG_MAX:
        return value
    raise Unrepresentable("is an integer beyond 64 bits")


def to_decimal(value: int | float) -> Decimal:
    """Return the Cedar decimal of a number. Raises BadArguments for NaN and infinities, Unrepresentable for a number
    beyond the range of Cedar's decimals or with more than four decimal places.
    """
    if type(value) is float and not math.isfinite(value):
        raise BadArguments("is not a finite number")
    if not LONG_MIN < value * 10_000 <= LONG_MAX:  # the float nearest to LONG_MIN / 10,000 is below it
        raise Unrepresentable("is a number beyond the range of Cedar's decimals")
    if type(value) is int:
        return Decimal(value * 10_000)
    try:
        # `repr` returns the shortest decimal text of the float, which is the text that the caller has sent
        return decimal(repr(value))
    except EvaluationError:
        raise Unrepresentable("is a number with more than four decimal places") from None
