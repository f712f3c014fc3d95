"""All tools of one resource: parsed, rendered, named by a digest."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ostiary.core import canonical
from ostiary.core.catalogue.tool import Effect, Tool, ToolName, Words, check_tool
from ostiary.core.classes import check_known
from ostiary.core.errors import Invalid, Malformed

MAX_BYTES = 4 << 20
MAX_TOOLS = 1000
_RESOURCE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class _Wire(msgspec.Struct, forbid_unknown_fields=True):
    resource: str
    tools: Annotated[tuple[Tool, ...], Meta(max_length=MAX_TOOLS)]
    data_classes: Words | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The tools of `resource`, by name, and the data classes that each of them handles whatever it says itself."""

    resource: str
    tools: Mapping[str, Tool]
    data_classes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def parse(cls, unverified: bytes | str) -> Catalogue:
        """From its JSON, `{"resource": .., "tools": [{"name": .., "effect": .., ..}]}`. Raises Malformed, Invalid."""
        value = canonical.parse(unverified, max_bytes=MAX_BYTES, max_depth=2 * canonical.MAX_DEPTH)
        try:
            wire = msgspec.convert(value, _Wire)
        except msgspec.ValidationError as error:
            raise Malformed(f"not a catalogue: {error}") from None
        return cls._of(wire.resource, wire.tools, wire.data_classes)

    @classmethod
    def from_mcp(cls, resource: str, unverified_result: object) -> Catalogue:
        """From the result of MCP's `tools/list` (all pages together). Raises Malformed, Invalid."""
        try:
            listed = msgspec.convert(unverified_result, _McpTools)
        except msgspec.ValidationError as error:
            raise Malformed(f"not the result of tools/list: {error}") from None
        return cls._of(resource, tuple(map(_from_mcp, listed.tools)))

    @classmethod
    def _of(
        cls, resource: str, tools: tuple[Tool, ...], classes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    ) -> Catalogue:
        if not _RESOURCE.fullmatch(resource):
            raise Invalid("the name of a resource is lower-case letters, digits, `.`, `_` and `-`")
        by_name = {tool.name: tool for tool in tools}
        if len(by_name) != len(tools):
            raise Invalid("two tools of the catalogue have one name")
        for tool in tools:
            check_tool(tool)
        return cls(resource, by_name, classes)

    def scope(self, tool: Tool) -> str:
        """The scope that a token needs to call `tool`: `files:read`."""
        return f"{self.resource}:{tool.scope_class}"

    def classes(self, tool: Tool) -> frozenset[str]:
        """The data classes that `tool` handles: the resource's, and its own."""
        return frozenset((*(self.data_classes or ()), *(tool.data_classes or ())))

    def check_classes(self, known: Collection[str]) -> None:
        """Raises Invalid for a data class that is not known."""
        check_known(self.data_classes or (), known)
        for tool in self.tools.values():
            check_known(tool.data_classes or (), known)

    def after(self, before: Catalogue) -> Catalogue:
        """This one in the place of `before`: where it says nothing of data classes, of kinds, of content from outside,
        what was said still holds. MCP says nothing of them, and a tool must not become harmless by being listed anew;
        `[]` takes data classes away, `{"argument": "none"}` kinds.
        """
        tools = {
            name: _after(tool, before.tools[name]) if name in before.tools else tool
            for name, tool in self.tools.items()
        }
        classes = before.data_classes if self.data_classes is msgspec.UNSET else self.data_classes
        return Catalogue(self.resource, tools, classes)

    @property
    def scopes(self) -> frozenset[str]:
        """Every scope that this resource understands."""
        return frozenset(map(self.scope, self.tools.values()))

    def render(self) -> dict[str, Any]:
        """The JSON value that `parse` reads."""
        tools = [msgspec.to_builtins(self.tools[name]) for name in sorted(self.tools)]
        classes = {} if self.data_classes is msgspec.UNSET else {"data_classes": list(self.data_classes)}
        return {"resource": self.resource, "tools": tools, **classes}

    @property
    def digest(self) -> str:
        """base64url(SHA-256) of the canonical JSON: the same for the same tools, in whatever order they were listed."""
        return canonical.digest(self.render(), floats=True)


def _after(tool: Tool, before: Tool) -> Tool:
    classes = before.data_classes if tool.data_classes is msgspec.UNSET else tool.data_classes
    outside = before.outside if tool.outside is msgspec.UNSET else tool.outside
    return replace(tool, data_classes=classes, outside=outside, kinds=tool.kinds or before.kinds)


class _Hints(msgspec.Struct, rename="camel"):
    read_only_hint: bool = False
    destructive_hint: bool = True
    open_world_hint: bool = True


class _McpTool(msgspec.Struct, rename="camel"):
    name: ToolName
    input_schema: dict[str, Any] = {}
    annotations: _Hints | None = None


class _McpTools(msgspec.Struct):
    tools: Annotated[tuple[_McpTool, ...], Meta(max_length=MAX_TOOLS)]


def _from_mcp(tool: _McpTool) -> Tool:
    hints = tool.annotations or _Hints()
    effect = Effect.READ if hints.read_only_hint else Effect.DESTROY if hints.destructive_hint else Effect.WRITE
    return Tool(name=tool.name, effect=effect, open_world=hints.open_world_hint, arguments=tool.input_schema)


class _Outline(msgspec.Struct):
    """What is read of a catalogue that was parsed before, without making its schemas ready."""

    resource: str
    tools: list[Tool]
    data_classes: tuple[str, ...] = ()


def classes_at(text: str, scopes: frozenset[str]) -> frozenset[str]:
    """The data classes that tools within these scopes handle, by a catalogue's own text."""
    outline = msgspec.json.decode(text, type=_Outline)
    catalogue = Catalogue(outline.resource, {}, outline.data_classes)
    within = [catalogue.classes(tool) for tool in outline.tools if catalogue.scope(tool) in scopes]
    return frozenset().union(*within)
