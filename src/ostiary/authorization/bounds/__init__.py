"""Bounds: the calls that a task allows, as `authorization_details` of type `tool` (RFC 9396).

    {"type": "tool", "locations": ["https://files.example/mcp"], "actions": ["read_file"],
     "datatypes": ["public", "internal"],
     "arguments": {"path": {"prefix": "/srv/reports/", "max_length": 200}, "options.depth": {"max": 3}}}

`locations` are URIs of resources; `actions` are names of tools (absent: all tools of the resource); `datatypes` are the
only data classes that a tool may handle (absent: all classes); `arguments` are conditions on arguments, by name or
dotted path. A call is permitted if at least one of the details permits it. All conditions of a detail must hold, and
the set of conditions is closed. The server can therefore check from their texts that bounds lie within other bounds,
so that delegated bounds never become wider.
"""

from ostiary.authorization.bounds.conditions import Condition, InvalidDetails
from ostiary.authorization.bounds.details import (
    ToolDetail,
    datatypes,
    explain,
    parse_details,
    permits,
    render_details,
)
from ostiary.authorization.bounds.within import is_within, narrow

__all__ = [
    "Condition",
    "InvalidDetails",
    "ToolDetail",
    "datatypes",
    "explain",
    "is_within",
    "narrow",
    "parse_details",
    "permits",
    "render_details",
]
