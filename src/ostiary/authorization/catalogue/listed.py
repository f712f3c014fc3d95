"""The listing of an MCP server (MCP 2026-07-28), and the digest of the parts of a tool that a model reads."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ostiary.authorization.catalogue.tool import MAX_DESCRIPTION, TOOL_NAME, Effect, Tool, ToolName
from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Malformed

MAX_TOOLS = 1000
_SHOWN = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
"""members of a tool that a model reads, or that describe the tool's effect"""


class Hints(msgspec.Struct, rename="camel"):
    """Hints of an MCP server about a tool (its `annotations`). For missing hints, MCP's own cautious defaults apply:
    see `Listed.tool`.
    """

    read_only_hint: bool | UnsetType = UNSET
    destructive_hint: bool | UnsetType = UNSET
    open_world_hint: bool | UnsetType = UNSET


class Listed(msgspec.Struct, rename="camel"):
    name: ToolName
    description: str | None = None
    input_schema: dict[str, Any] = {}
    output_schema: dict[str, Any] | None = None
    annotations: Hints | None = None

    @property
    def hints(self) -> Hints:
        """Return the hints of the server about the tool (`annotations`); if the server states none, MCP's defaults."""
        return self.annotations or Hints()

    def tool(self, definition: str) -> Tool:
        """Return the catalogue entry that the hints describe. `definition`: the digest of the tool's listing."""
        destroys = self.hints.destructive_hint is not False
        effect = Effect.READ if self.hints.read_only_hint is True else Effect.DESTROY if destroys else Effect.WRITE
        return Tool(
            name=self.name,
            effect=effect,
            open_world=self.hints.open_world_hint is not False,
            arguments=self.input_schema,
            description=visible(self.description or ""),
            definition=definition,
        )


class _Typed(msgspec.Struct):
    tools: Annotated[list[Listed], Meta(max_length=MAX_TOOLS)]


class _Whole(msgspec.Struct):
    tools: list[dict[str, Any]]


LISTS = ("tools", "resources", "resourceTemplates", "prompts")
"""members with the lists in results of MCP's list methods"""


def listing_of(unverified: object) -> dict[str, Any]:
    """Return the combined results of MCP's list methods. `unverified` is one object with several lists, or a list of
    results, with or without JSON-RPC envelopes; a method may have several pages. `capabilities` may be included, as
    `initialize` and `server/discover` return them. Raises Malformed for a value that is no such result.
    """
    listing: dict[str, Any] = {}
    for part in unverified if isinstance(unverified, list) else [unverified]:
        result = part.get("result") if isinstance(part, dict) and "jsonrpc" in part else part
        lists = {name: result[name] for name in LISTS if name in result} if isinstance(result, dict) else {}
        for name, members in lists.items():
            if not isinstance(members, list | tuple):
                raise Malformed(f"the document is not the result of a list method of MCP: `{name}` is not a list")
            listing[name] = [*listing.get(name, ()), *members]
        if isinstance(result, dict) and isinstance(capabilities := result.get("capabilities"), dict):
            listing["capabilities"] = listing.get("capabilities", {}) | capabilities
        elif not lists:
            raise Malformed(
                "the document is not the result of a list method of MCP",
                hint="give, for example, the result of `tools/list`",
            )
    if not listing:
        raise Malformed(
            "the document is not the result of a list method of MCP",
            hint="give, for example, the result of `tools/list`",
        )
    return {"tools": []} | listing


def parse_listed(listing: Mapping[str, Any]) -> list[tuple[Listed, str]]:
    """Return each tool in `listing`, a result of `listing_of`, with the digest of its definition. Raises Malformed for
    a tool with an unsupported name, and for a malformed listing.
    """
    for tool in listing.get("tools", ()):
        name = tool.get("name") if isinstance(tool, Mapping) else None
        if isinstance(name, str) and not TOOL_NAME.fullmatch(name):
            raise Malformed(
                f"the name of the tool {name[:128]!a} is not supported",
                hint="rename the tool: 1 to 128 of a-z, A-Z, 0-9, `_`, `.`, `/` and `-`, first a letter, digit or `_`",
            )
    try:
        typed, whole = convert(listing, _Typed), convert(listing, _Whole)
    except msgspec.ValidationError as error:
        raise Malformed(f"the document is not the result of tools/list: {error}") from None
    return [(listed, definition_of(tool)) for listed, tool in zip(typed.tools, whole.tools, strict=True)]


def definition_of(unverified: Mapping[str, Any]) -> str:
    """Return base64url(SHA-256) of the definition of a tool, one member of `tools`: its name, title, description,
    schemas and annotations. Null members count as absent. Raises Malformed for a definition without a canonical JSON
    form.
    """
    shown = {name: _without_nulls(unverified[name]) for name in _SHOWN if unverified.get(name) is not None}
    return canonical.digest(shown, floats=True)


def visible(text: str) -> str:
    """Return the text cut to MAX_DESCRIPTION characters, with U+FFFD in place of each invisible character except line
    feeds and tabs.
    """
    cut = text[:MAX_DESCRIPTION]
    return "".join(one if one in "\n\t" or unicodedata.category(one)[0] != "C" else "\ufffd" for one in cut)


def _without_nulls(value: Any) -> Any:
    """Return an object without its null members, which some servers include and others omit; any other value
    unchanged.
    """
    return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value
