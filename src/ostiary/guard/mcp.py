"""What is asked of an MCP server, as a tool and its arguments.

Nothing of the MCP SDK is needed here: the middleware of `ostiary.mcp` and the guard of `ostiary run` stand on this.
`resources/read`, `prompts/get` and whatever else is not in FREE are decided like a tool of that name, so that a
catalogue must list them before anybody reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DENIED = -32001
"""The code of the JSON-RPC error that a denial is."""
FREE = frozenset(
    {
        "initialize", "ping", "server/discover", "logging/setLevel", "tools/list", "resources/list",
        "resources/templates/list", "prompts/list",
    }
)  # fmt: skip
"""What a caller that is let in at all may ask: it says what there is, and reveals nothing of what is in it."""


def named(method: str, params: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Tool and arguments of a request, as its body has them."""
    if method == "tools/call":
        arguments = params.get("arguments")
        return str(params.get("name", "")), {} if arguments is None else arguments
    return method, {name: value for name, value in params.items() if name != "_meta"}


def returned(result: Mapping[str, Any]) -> object:
    """What a tool returned: its structured content, or else its texts; of what is no tool, all of it."""
    structured, content = result.get("structuredContent"), result.get("content")
    if isinstance(structured, dict):
        return next(iter(structured.values())) if len(structured) == 1 else structured
    if isinstance(content, list):
        return [part.get("text", part) if isinstance(part, dict) else part for part in content]
    return result
