"""Tools as an MCP server lists them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def listed(
    name: str, *, description: str = "", hints: Mapping[str, Any] | None = None, **properties: Any
) -> dict[str, Any]:
    schemas = {key: {"type": value} if isinstance(value, str) else value for key, value in properties.items()}
    said: dict[str, Any] = {"name": name, "description": description, "inputSchema": {"properties": schemas}}
    return said | ({} if hints is None else {"annotations": dict(hints)})
