"""Requests as calls of tools, for the guard: each HTTP method is a tool, whose arguments are host, path, query
and body.
"""

from __future__ import annotations

from typing import Any

from ostiary.proxy.egress.injection import OutgoingRequest

METHODS = ("get", "head", "options", "post", "put", "patch", "delete")
READS = ("get", "head", "options")
MAX_TEXT = 256 << 10
"""maximum number of characters of a body that policies see"""
_SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("host", "path", "query", "body")},
    "required": ["host", "path"],
    "additionalProperties": False,
}


def _listed(method: str) -> dict[str, Any]:
    hints = {"readOnlyHint": method in READS, "destructiveHint": method == "delete", "openWorldHint": True}
    description = f"{method.upper()} requests to servers"
    return {"name": method, "description": description, "inputSchema": _SCHEMA, "annotations": hints}


LISTING = {"tools": [_listed(method) for method in METHODS]}
"""The tools in the form of MCP's `tools/list`."""


def arguments_of(request: OutgoingRequest, host: str) -> dict[str, Any]:
    """Return the arguments of a request, with placeholders as the program wrote them and without secrets. In place of a
    streamed body, a body that is not text, or a body of more than MAX_TEXT characters, the arguments have a
    description.
    """
    arguments = {"host": host, "path": request.path.decode("ascii")}
    if request.query:
        arguments["query"] = request.query.decode("ascii")
    if request.body:
        arguments["body"] = _text(request.body)
    elif request.streams:
        arguments["body"] = "(a stream)"
    return arguments


def _text(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"({len(body)} bytes, no text)"
    return text if len(text) <= MAX_TEXT else f"({len(body)} bytes)"
