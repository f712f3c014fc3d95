"""Requests to an MCP server, as a tool and its arguments (MCP 2025-11-25, 2026-07-28).

Nothing of the MCP SDK is needed here: the middleware of `ostiary.mcp` and the guard of `ostiary run` stand on this. A
method that is not free is decided like a tool of its name, so the catalogue must list it
(`ostiary.authorization.catalogue.methods`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostiary.authorization.catalogue import METHODS

DENIED = -32001
"""The code of the JSON-RPC error that a denial is."""
FREE = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "logging/setLevel",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
        "resources/unsubscribe",
    }
)
"""Methods that need no decision: they list objects without their content, or end an operation that was decided."""
LISTEN = "subscriptions/listen"
_OF_PROTOCOL = ("_meta", "requestState")
"""members of `params` that are the protocol's; the server made the state, and the client only returns it"""


def is_free(method: str, params: object) -> bool:
    """Return whether a request needs no decision. Listening for changes of a list reveals no more than the list."""
    if method != LISTEN:
        return method in FREE
    filters = params.get("notifications") if isinstance(params, Mapping) else None
    return isinstance(filters, Mapping) and all(
        name in ("toolsListChanged", "promptsListChanged", "resourcesListChanged") or value in (None, [])
        for name, value in filters.items()
    )


def map_request(method: str, params: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Tool and arguments of a request, as its body has them.

    A tool with the name of a method is in no catalogue: the entry of that name describes the method.
    """
    if method == "tools/call":
        arguments, name = params.get("arguments"), str(params.get("name", ""))
        return f"tools/call {name}" if name in METHODS else name, {} if arguments is None else arguments
    return method, {name: value for name, value in params.items() if name not in _OF_PROTOCOL}


def is_unknown(method: str) -> bool:
    """Return whether MCP has no such request of a client, so that a server has it only where its catalogue says so."""
    return method != "tools/call" and method not in FREE and method not in METHODS


def extract_output(result: Mapping[str, Any]) -> object:
    """Return the output of a tool: its structured content, or else its texts, a single one as a string. Of another
    method, return the whole result.
    """
    structured, content = result.get("structuredContent"), result.get("content")
    if isinstance(structured, dict):
        return next(iter(structured.values())) if len(structured) == 1 else structured
    if isinstance(content, list):
        texts = [part.get("text", part) if isinstance(part, dict) else part for part in content]
        return texts[0] if len(texts) == 1 else texts
    return result
