"""JSON values as Cedar values where no schema speaks, and what cannot be one."""

from __future__ import annotations

from ostiary.core.cedar.extensions import Decimal as CedarDecimal
from ostiary.core.cedar.extensions import EvaluationError
from ostiary.core.cedar.extensions import decimal as parse_decimal
from ostiary.core.cedar.values import LONG_MAX, LONG_MIN, Value, key
from ostiary.core.errors import Invalid

MAX_DEPTH = 32


class BadArguments(Invalid):
    """The arguments are not what the tool's schema says. Names the place, never the value."""

    code = "bad_arguments"

    def __init__(self, what: str, *, where: str = "") -> None:
        super().__init__(f"argument `{where}` {what}" if where else f"the arguments: an argument {what}")
        self.what, self.where = what, where

    def inside(self, name: str) -> BadArguments:
        """The same, seen from the object that holds it as `name`."""
        return BadArguments(self.what, where=f"{name[:64]}.{self.where}"[:200].rstrip("."))


def plain(value: object, depth: int = MAX_DEPTH) -> Value:
    """The Cedar value of a JSON value that no schema describes. Null inside of a list or an object is absent."""
    kind = type(value)
    if kind is str or kind is bool:
        return value  # type: ignore[return-value]
    if kind is int:
        return to_long(value)  # type: ignore[arg-type]
    if kind is float:
        return to_decimal(value)  # type: ignore[arg-type]
    if depth == 0:
        raise BadArguments("is nested too deeply")
    if kind is list or kind is tuple:
        return frozenset([key(plain(item, depth - 1)) for item in value if item is not None])  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return {
            name: item if type(item) is str else plain(item, depth - 1)
            for name, item in value.items()
            if item is not None
        }
    raise BadArguments(f"is {'null' if value is None else kind.__name__}, which Cedar has no type for")


def to_long(value: int) -> int:
    if LONG_MIN <= value <= LONG_MAX:
        return value
    raise BadArguments("is an integer beyond 64 bits")


def to_decimal(value: int | float) -> CedarDecimal:
    if type(value) is int:
        return CedarDecimal(to_long(value * 10_000))
    try:
        return parse_decimal(repr(value))  # the shortest text that is this float: what the caller wrote
    except EvaluationError:
        raise BadArguments("is a number that no decimal of four places is") from None
