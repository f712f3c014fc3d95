"""Tools of the resource that the command-line tests use."""

from __future__ import annotations

from typing import Any

TOOLS: dict[str, Any] = {
    "tools": [
        {"name": "read_file", "inputSchema": {"type": "object", "properties": {"path": {"type": "string"}}}},
        {"name": "write_file", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": False}},
    ]
}
