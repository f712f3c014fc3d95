"""What a tool of the agent's own process returned: as JSON, and how much it is."""

from __future__ import annotations

from typing import Any

import msgspec


def output(value: object) -> Any:
    """What a tool returned, as JSON or as its text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    try:
        return msgspec.to_builtins(value, enc_hook=lambda one: dict(one) if is_model(one) else str(one))
    except (TypeError, ValueError, RecursionError):
        return str(value)


def size(value: object) -> int | None:
    """Bytes of a result, as text or as JSON; None for what is neither."""
    if isinstance(value, str | bytes):
        return len(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None


def is_model(value: object) -> bool:
    return hasattr(type(value), "__pydantic_fields__")
