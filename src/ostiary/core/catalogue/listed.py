"""What an MCP server says of its tools (MCP 2026-07-28, `tools/list`), and a digest of all that a model sees of one."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ostiary.core import canonical
from ostiary.core.catalogue.tool import MAX_DESCRIPTION, Effect, Tool, ToolName
from ostiary.core.decoding import convert
from ostiary.core.errors import Malformed

MAX_TOOLS = 1000
_SHOWN = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
"""members that reach a model, or say what the tool does"""


class Hints(msgspec.Struct, rename="camel"):
    """Where the server is silent MCP's own defaults hold, which are the careful ones: see `Listed.tool`."""

    read_only_hint: bool | UnsetType = UNSET
    destructive_hint: bool | UnsetType = UNSET
    open_world_hint: bool | UnsetType = UNSET


class Listed(msgspec.Struct, rename="camel"):
    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any] = {}
    annotations: Hints | None = None

    @property
    def hints(self) -> Hints:
        return self.annotations or Hints()

    def tool(self, definition: str) -> Tool:
        """As its hints say. `definition`: its digest."""
        destroys = self.hints.destructive_hint is not False
        effect = Effect.READ if self.hints.read_only_hint is True else Effect.DESTROY if destroys else Effect.WRITE
        return Tool(
            name=self.name, effect=effect, open_world=self.hints.open_world_hint is not False,
            arguments=self.input_schema, description=seen(self.description or ""), definition=definition,
        )  # fmt: skip


class _Typed(msgspec.Struct):
    tools: Annotated[list[Listed], Meta(max_length=MAX_TOOLS)]


class _Whole(msgspec.Struct):
    tools: list[dict[str, Any]]


def parse_listed(unverified_result: object) -> list[tuple[Listed, str]]:
    """Each tool of the result of `tools/list` (all pages together) with its definition's digest. Raises Malformed."""
    try:
        typed, whole = convert(unverified_result, _Typed), convert(unverified_result, _Whole)
    except msgspec.ValidationError as error:
        raise Malformed(f"not the result of tools/list: {error}") from None
    return [(listed, definition_of(tool)) for listed, tool in zip(typed.tools, whole.tools, strict=True)]


def definition_of(unverified: Mapping[str, Any]) -> str:
    """base64url(SHA-256) of what one member of `tools` says. What is null is not there. Raises Malformed."""
    said = {name: _without_nulls(unverified[name]) for name in _SHOWN if unverified.get(name) is not None}
    return canonical.digest(said, floats=True)


def seen(text: str) -> str:
    """The text with a mark for whatever nobody can see, cut to what is kept."""
    cut = text[:MAX_DESCRIPTION]
    return "".join(one if one in "\n\t" or unicodedata.category(one)[0] != "C" else "\ufffd" for one in cut)


def _without_nulls(value: Any) -> Any:
    """Of annotations, which some servers spell out and others leave out."""
    return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value
