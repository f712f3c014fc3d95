"""The catalogue of a resource: which tools it offers, what they do, which scope and which arguments they take.

The owner of the resource states it, or confirms what the MCP server says of itself (MCP 2026-07-28, `tools/list`).
MCP's annotations are hints of the server about itself; where they are silent, MCP's own defaults hold, which are the
careful ones: a tool destroys, in an open world.

Data classes of the resource count for each of its tools: a tool may say more, and never less.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ostiary.core import canonical
from ostiary.core.arguments import Arguments
from ostiary.core.classes import check_known
from ostiary.core.errors import Invalid, Malformed

MAX_BYTES = 4 << 20
MAX_TOOLS = 1000
MAX_SCHEMA_BYTES = 64 << 10
MAX_SCHEMA_DEPTH = canonical.MAX_DEPTH - 4  # so that the catalogue around it has a digest
_RESOURCE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Effect(StrEnum):
    """What a call does to the world."""

    READ = "read"
    WRITE = "write"
    SEND = "send"
    DESTROY = "destroy"
    PAY = "pay"
    SHARE = "share"
    CHANGE = "change"
    ADMINISTER = "administer"


_CLASSES = {Effect.READ: "read", Effect.ADMINISTER: "administer"}

ToolName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,127}\Z")]
Word = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}\Z")]
Words = Annotated[tuple[Word, ...], Meta(max_length=32)]


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, dict=True):
    """One tool. Left out, `scope` is `read` for what reads, `administer` for what administers, `write` for the rest."""

    name: ToolName
    effect: Effect
    scope: Word | msgspec.UnsetType = msgspec.UNSET
    """the class: `write` in the scope `files:write`"""
    data_classes: Words | msgspec.UnsetType = msgspec.UNSET
    """what it handles (`ostiary.core.classes`) beyond what the resource does; left out: nothing is said of it"""
    open_world: bool = True
    """whether it reaches beyond the resource: anybody may read what it sends, or have written what it reads"""
    arguments: dict[str, Any] = {}
    """JSON Schema of its input; empty: any object"""
    kinds: Annotated[dict[str, Word], Meta(max_length=64)] = {}
    """what arguments stand for, by name: `recipient`, `url`, `path`, `amount`, `command`, `secret`, ..."""

    @property
    def scope_class(self) -> str:
        return _CLASSES.get(self.effect, "write") if self.scope is msgspec.UNSET else self.scope

    @cached_property
    def typed(self) -> Arguments:
        """Its arguments' schema, made ready. Raises Invalid."""
        return Arguments(self.arguments | {"type": "object"})


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
            _check(tool)
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
        """This one in the place of `before`: where it says nothing of data classes, what was said still holds. MCP says
        nothing of them, and a tool must not become harmless by being listed anew; `[]` takes them away.
        """
        tools = {
            name: replace(tool, data_classes=before.tools[name].data_classes)
            if tool.data_classes is msgspec.UNSET and name in before.tools
            else tool
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


def _check(tool: Tool) -> None:
    try:
        size = len(canonical.encode(tool.arguments, floats=True, max_depth=MAX_SCHEMA_DEPTH))
        if size > MAX_SCHEMA_BYTES:
            raise Invalid(f"its schema has {size} bytes", hint=f"at most {MAX_SCHEMA_BYTES}")
        if tool.arguments.get("type", "object") != "object":
            raise Invalid("the arguments of a tool are an object")
        tool.typed  # noqa: B018 because making it ready is what checks it
    except (Malformed, Invalid) as error:
        raise Invalid(f"tool `{tool.name}`: {error.message}", hint=error.hint) from None


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
