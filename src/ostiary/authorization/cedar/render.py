"""Cedar values as JSON that `values.parse_value` reads. A decision stores its question in this form, so that it
can be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from ostiary.authorization.cedar import values
from ostiary.authorization.cedar.extensions import Datetime, Decimal
from ostiary.authorization.cedar.values import Uid
from ostiary.protocol.errors import Invalid

_encode = msgspec.json.Encoder().encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_DEPTH = 16
"""Maximum number of levels of sets and records in a value: readers of JSON have limits, and the enclosing record adds a
few levels.
"""


def render_value(value: object, depth: int = MAX_DEPTH) -> object:
    """Return a Cedar value in Cedar's JSON. `depth`: the maximum number of levels of sets and records in the value.

    Raises Invalid for an IP address, a duration, a time outside of the years 1 to 9999, a record with a reserved name,
    and a value with more levels than `depth`.
    """
    kind = type(value)
    if kind is str or kind is bool or kind is int:
        return value
    if isinstance(value, Uid):
        return {"__entity": {"type": value.type, "id": value.id}}
    if isinstance(value, Decimal):
        return {"__extn": {"fn": "decimal", "arg": _decimal(value.units)}}
    if isinstance(value, Datetime):
        return {"__extn": {"fn": "datetime", "arg": _datetime(value.ms)}}
    if depth == 0:
        raise Invalid(f"a value is nested deeper than {MAX_DEPTH} levels, and cannot be stored")
    if isinstance(value, frozenset):
        return [render_value(values.unkey(element), depth - 1) for element in value]
    if isinstance(value, dict):
        return render_record(value, depth - 1)
    raise Invalid("an IP address or a duration cannot be stored", hint="send the value as text")


def render_record(record: Mapping[str, object], depth: int = MAX_DEPTH) -> dict[str, object]:
    """Return a Cedar record in Cedar's JSON. Raises Invalid as `render_value` does."""
    if not values.ESCAPES.isdisjoint(record):
        raise Invalid(f"a record must not have one of these names: {', '.join(sorted(values.ESCAPES))}")
    return {name: render_value(item, depth) for name, item in record.items()}


def encode_record(record: Mapping[str, object]) -> dict[str, msgspec.Raw]:
    """Return a record with each value as JSON text. Raises Invalid as `render_value` does."""
    return {name: msgspec.Raw(_encode(value)) for name, value in render_record(record).items()}


def _datetime(ms: int) -> str:
    try:
        text = (_EPOCH + timedelta(milliseconds=ms)).isoformat(timespec="milliseconds")
    except OverflowError:
        raise Invalid("a time outside of the years 1 to 9999 cannot be stored") from None
    return text.removesuffix("+00:00") + "Z"


def _decimal(units: int) -> str:
    whole, part = divmod(abs(units), 10_000)
    return f"{'-' if units < 0 else ''}{whole}.{part:04d}"
