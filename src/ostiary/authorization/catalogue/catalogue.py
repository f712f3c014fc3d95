"""The catalogue of one resource: parsing, rendering and digest."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ostiary.authorization.catalogue.listed import MAX_TOOLS, listing_of, parse_listed
from ostiary.authorization.catalogue.methods import METHODS, offered
from ostiary.authorization.catalogue.tool import Tool, Words, check_tool
from ostiary.authorization.classes import check_known
from ostiary.protocol import canonical
from ostiary.protocol.decoding import convert, json_decoder
from ostiary.protocol.errors import Invalid, Malformed

MAX_BYTES = 4 << 20
_RESOURCE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class _Wire(msgspec.Struct, forbid_unknown_fields=True):
    resource: str
    tools: Annotated[tuple[Tool, ...], Meta(max_length=MAX_TOOLS)]
    data_classes: Words | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The tools of `resource` by name, and the data classes of the resource, which apply to each of its tools."""

    resource: str
    tools: Mapping[str, Tool]
    data_classes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def parse(cls, unverified: bytes | str) -> Catalogue:
        """Return the catalogue in a JSON text, `{"resource": .., "tools": [{"name": .., "effect": .., ..}]}`. Raises
        Malformed for other text, Invalid for a tool that is not valid.
        """
        value = canonical.parse(unverified, max_bytes=MAX_BYTES, max_depth=2 * canonical.MAX_DEPTH)
        try:
            wire = convert(value, _Wire)
        except msgspec.ValidationError as error:
            raise Malformed(f"the document is not a catalogue: {error}") from None
        return cls.of(wire.resource, wire.tools, wire.data_classes)

    @classmethod
    def from_mcp(cls, resource: str, unverified_result: object) -> Catalogue:
        """Return a catalogue from the results of MCP's list methods (all pages together), see `listing_of`. Raises
        Malformed for a value that is no such result, Invalid for a tool that is not valid.
        """
        listing = listing_of(unverified_result)
        return cls.listed(resource, listing, [one.tool(digest) for one, digest in parse_listed(listing)])

    @classmethod
    def listed(cls, resource: str, listing: Mapping[str, Any], tools: Sequence[Tool]) -> Catalogue:
        """Return a catalogue of `tools`, which a server lists, and of the MCP methods that the server offers, as
        `listing` shows (see `listing_of`), up to MAX_TOOLS together. Raises Malformed for a malformed listing, Invalid
        for a tool with the name of an MCP method.
        """
        if (like := next((tool.name for tool in tools if tool.name in METHODS), None)) is not None:
            raise Invalid(
                f"the server lists a tool `{like}`, which is the name of a method of MCP",
                hint="rename the tool at the server",
            )
        methods = list(offered(listing))[: max(0, MAX_TOOLS - len(tools))]
        return cls.of(resource, [*tools, *methods])

    @classmethod
    def of(
        cls, resource: str, tools: Sequence[Tool], classes: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    ) -> Catalogue:
        """Return the catalogue of a resource with these tools. `classes`: data classes of the resource; UNSET: not
        stated. Raises Invalid for a malformed name of a resource, a malformed tool, or two tools with one name.
        """
        if not _RESOURCE.fullmatch(resource):
            raise Invalid(
                f"{resource[:64]!a} is not a name of a resource",
                hint="use 1 to 63 lower-case letters, digits, `.`, `_` and `-`, first a letter or digit",
            )
        by_name: dict[str, Tool] = {}
        for tool in tools:
            if tool.name in by_name:
                raise Invalid(f"the catalogue has two tools `{tool.name}`", hint="rename or remove one of the tools")
            check_tool(tool)
            by_name[tool.name] = tool
        return cls(resource, by_name, classes)

    def scope(self, tool: Tool) -> str:
        """Return the scope that a token needs for calls of `tool`, such as `files:read`."""
        return f"{self.resource}:{tool.scope_class}"

    def classes(self, tool: Tool) -> frozenset[str]:
        """Return the data classes that `tool` handles: those of the resource and those of the tool."""
        return frozenset((*(self.data_classes or ()), *(tool.data_classes or ())))

    def check_classes(self, allowed: Collection[str]) -> None:
        """Check that every data class is in `allowed`. Raises Invalid otherwise."""
        check_known(self.data_classes or (), allowed)
        for tool in self.tools.values():
            check_known(tool.data_classes or (), allowed)

    def after(self, before: Catalogue) -> Catalogue:
        """Return this catalogue as the successor of `before`. Tools that only `before` has are dropped.

        For members that this catalogue omits (scopes, data classes, kinds, untrusted content, created things, decoys,
        offers, descriptions, definitions), the statements of `before` stay in force: MCP has no members for most of
        them, and a tool must not become harmless because a server lists it again. `[]` removes data classes,
        `{"argument": "none"}` removes kinds. A stated scope ends if the new effect requires a more powerful one
        (`Tool.scope_for`). If this catalogue does not state `confirmed` for a tool, the confirmed entry of the tool
        stays as it is while the definition is the same; a changed definition ends the confirmation.
        """
        tools = {
            name: _after(tool, before.tools[name]) if name in before.tools else tool
            for name, tool in self.tools.items()
        }
        classes = before.data_classes if self.data_classes is msgspec.UNSET else self.data_classes
        return Catalogue(self.resource, tools, classes)

    @property
    def scopes(self) -> frozenset[str]:
        """Return all scopes that tools of this resource require."""
        return frozenset(map(self.scope, self.tools.values()))

    def render(self) -> dict[str, Any]:
        """Return the catalogue as a JSON value, which `parse` reads."""
        tools = [msgspec.to_builtins(self.tools[name]) for name in sorted(self.tools)]
        classes = {} if self.data_classes is msgspec.UNSET else {"data_classes": list(self.data_classes)}
        return {"resource": self.resource, "tools": tools, **classes}

    @property
    def digest(self) -> str:
        """Return base64url(SHA-256) of the canonical JSON. The order in which tools are listed does not matter."""
        return canonical.digest(self.render(), floats=True)


def _after(tool: Tool, before: Tool) -> Tool:
    if before.confirmed and tool.confirmed is msgspec.UNSET and before.definition == tool.definition != "":
        return before
    classes = before.data_classes if tool.data_classes is msgspec.UNSET else tool.data_classes
    outside = before.outside if tool.outside is msgspec.UNSET else tool.outside
    canary = before.canary if tool.canary is msgspec.UNSET else tool.canary
    return replace(
        tool,
        scope=before.scope_for(tool.effect) if tool.scope is msgspec.UNSET else tool.scope,
        data_classes=classes,
        outside=outside,
        canary=canary,
        kinds=tool.kinds or before.kinds,
        creates=tool.creates or before.creates,
        offers=tool.offers or before.offers,
        description=tool.description or before.description,
        definition=tool.definition or before.definition,
    )


class _Outline(msgspec.Struct):
    """The members of a stored catalogue that can be read without compiling the schemas of its tools. The catalogue was
    checked before it was stored.
    """

    resource: str
    tools: list[Tool]
    data_classes: tuple[str, ...] = ()


def scopes_of(text: str) -> frozenset[str]:
    """Return all scopes that tools of a catalogue require, from the catalogue's stored text."""
    outline = json_decoder(_Outline)(text)
    return frozenset(f"{outline.resource}:{tool.scope_class}" for tool in outline.tools)


def classes_at(text: str, scopes: frozenset[str]) -> frozenset[str]:
    """Return the data classes of all tools that these scopes permit, from a catalogue's stored text."""
    outline = json_decoder(_Outline)(text)
    catalogue = Catalogue(outline.resource, {}, outline.data_classes)
    within = [catalogue.classes(tool) for tool in outline.tools if catalogue.scope(tool) in scopes]
    return frozenset().union(*within)
