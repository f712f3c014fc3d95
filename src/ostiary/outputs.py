"""Output of tools that run in the agent's own process: its JSON form and its size."""

from __future__ import annotations

from typing import Any

import msgspec


def output(value: object) -> Any:
    """Return the output of a tool as a JSON value, or as text if it has no JSON form."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    try:
        return msgspec.to_builtins(value, enc_hook=lambda one: dict(one) if is_model(one) else str(one))
    except (TypeError, ValueError, RecursionError):
        return str(value)


def size(value: object) -> int | None:
    """Return the size of a result in bytes, as text or as JSON; None for a result that is neither."""
    if isinstance(value, str | bytes):
        return len(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def is_model(value: object) -> bool:
    """Return whether a value is a Pydantic model."""
    return hasattr(type(value), "__pydantic_fields__")
