"""Requests to an MCP server, as a tool and its arguments (MCP 2025-11-25, 2026-07-28).

The MCP SDK is not needed: the middleware of `ostiary.mcp` and the guard of `ostiary run` both use this module. A method
that is not free is decided like a tool with its name, so the catalogue must list it
(`ostiary.authorization.catalogue.methods`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ostiary.authorization.catalogue import METHODS

DENIED = -32001
"""The JSON-RPC error code of a denial."""
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
_decode = msgspec.json.Decoder().decode
_OF_PROTOCOL = ("_meta", "requestState")
"""members of `params` that are no arguments: they belong to the protocol, and the client returns `requestState`
unchanged
"""


def is_free(method: str, params: object) -> bool:
    """Return whether a request needs no decision. A subscription to changes of a list needs no decision, because it
    reveals no more than the list.
    """
    if method != LISTEN:
        return method in FREE
    filters = params.get("notifications") if isinstance(params, Mapping) else None
    return isinstance(filters, Mapping) and all(
        name in ("toolsListChanged", "promptsListChanged", "resourcesListChanged") or value in (None, [])
        for name, value in filters.items()
    )


def map_request(method: str, params: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the tool and the arguments of a request. For `tools/call`, the tool is the called one; any other method is
    a tool with the name of the method.

    A called tool with the name of an MCP method gets the name `tools/call NAME`, which no catalogue has.
    """
    if method == "tools/call":
        arguments, name = params.get("arguments"), str(params.get("name", ""))
        return f"tools/call {name}" if name in METHODS else name, {} if arguments is None else arguments
    return method, {name: value for name, value in params.items() if name not in _OF_PROTOCOL}


def is_unknown(method: str) -> bool:
    """Return whether `method` is a client request that MCP does not define. The guard lets such a request pass only if
    the catalogue lists the method.
    """
    return method != "tools/call" and method not in FREE and method not in METHODS


def extract_outputs(result: Mapping[str, Any]) -> list[object]:
    """Return the outputs in an MCP result that the agent may read: the structured content (of an object with one
    member, the value of the member), and the content, unless the structured content has the same. The content is its
    texts (a single text as a string, several as a list). Without both, the output is the whole result.
    """
    structured, content = result.get("structuredContent"), result.get("content")
    if not isinstance(content, list):
        return [result] if structured is None else [_unwrap(structured)]
    texts = [part.get("text", part) if isinstance(part, dict) else part for part in content]
    output = texts[0] if len(texts) == 1 else texts
    if structured is None:
        return [output]
    value = _unwrap(structured)
    same = [structured, value, *(value if isinstance(value, list) else ())]
    return [value] if all(_is_same(text, same) for text in texts) else [value, output]


def _unwrap(structured: object) -> object:
    """Return the value of the member, for an object with one member that servers put around another value."""
    if isinstance(structured, dict) and len(structured) == 1 and (name := next(iter(structured))).isidentifier():
        return structured[name]
    return structured


def _is_same(text: object, values: list[object]) -> bool:
    """Return whether a text is one of the values, or the JSON of one of them."""
    if not isinstance(text, str):
        return False
    if text in values:
        return True
    try:
        return _decode(text) in values
    except (msgspec.DecodeError, RecursionError):
        return False
