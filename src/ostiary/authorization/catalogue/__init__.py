"""The catalogue of a resource: its tools, their effects, scopes and arguments.

The owner of the resource writes the catalogue, or confirms the self-description of the MCP server (MCP 2026-07-28,
`tools/list`). MCP's annotations are hints of the server about itself. If a hint is missing, MCP's own cautious defaults
apply: the tool has the effect `destroy`, in an open world.

Data classes of the resource apply to each of its tools: a tool can add classes, and cannot remove any.
"""

from ostiary.authorization.catalogue.catalogue import MAX_BYTES, Catalogue, classes_at, scopes_of
from ostiary.authorization.catalogue.coverage import Leaf, Rule
from ostiary.authorization.catalogue.kind import POINTS, RECIPIENTS, SIGNIFICANT, Kind
from ostiary.authorization.catalogue.listed import MAX_TOOLS, definition_of, listing_of
from ostiary.authorization.catalogue.methods import METHODS
from ostiary.authorization.catalogue.tool import (
    GRAVE,
    MAX_SCHEMA_BYTES,
    MAX_SCHEMA_DEPTH,
    SENDING,
    Effect,
    Tool,
    ToolName,
)

__all__ = [
    "GRAVE",
    "MAX_BYTES",
    "MAX_SCHEMA_BYTES",
    "MAX_SCHEMA_DEPTH",
    "MAX_TOOLS",
    "METHODS",
    "POINTS",
    "RECIPIENTS",
    "SENDING",
    "SIGNIFICANT",
    "Catalogue",
    "Effect",
    "Kind",
    "Leaf",
    "Rule",
    "Tool",
    "ToolName",
    "classes_at",
    "definition_of",
    "listing_of",
    "scopes_of",
]
