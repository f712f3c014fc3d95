"""Bounds: the calls that a task allows, as `authorization_details` of type `tool` (RFC 9396).

    {"type": "tool", "locations": ["https://files.example/mcp"], "actions": ["read_file"],
     "datatypes": ["public", "internal"],
     "arguments": {"path": {"prefix": "/srv/reports/", "max_length": 200}, "options.depth": {"max": 3}}}

`locations` are URIs of resources, `actions` names of tools (absent: all tools of the resource), `datatypes` the only
data classes that a tool may handle (absent: whatever they are), `arguments` conditions on arguments by name or dotted
path. A call is permitted if one of the details permits it. The language is a conjunction of closed conditions, so that
whether bounds lie within bounds can be decided from their texts: nothing ever widens.
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
