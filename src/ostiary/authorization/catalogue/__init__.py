"""The catalogue of a resource: which tools it offers, what they do, which scope and which arguments they take.

The owner of the resource states it, or confirms what the MCP server says of itself (MCP 2026-07-28, `tools/list`).
MCP's annotations are hints of the server about itself; where they are silent, MCP's own defaults hold, which are the
careful ones: a tool destroys, in an open world.

Data classes of the resource count for each of its tools: a tool may say more, and never less.
"""

from ostiary.authorization.catalogue.catalogue import MAX_BYTES, Catalogue, classes_at, scopes_of
from ostiary.authorization.catalogue.coverage import Leaf, Rule
from ostiary.authorization.catalogue.kind import Kind
from ostiary.authorization.catalogue.listed import MAX_TOOLS, definition_of, listing_of
from ostiary.authorization.catalogue.methods import METHODS
from ostiary.authorization.catalogue.tool import MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH, Effect, Tool, ToolName

__all__ = [
    "MAX_BYTES",
    "MAX_SCHEMA_BYTES",
    "MAX_SCHEMA_DEPTH",
    "MAX_TOOLS",
    "METHODS",
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
