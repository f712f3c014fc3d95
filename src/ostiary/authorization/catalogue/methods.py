"""The MCP methods that are authorized like tools, and the methods that a server offers (MCP 2025-11-25, 2026-07-28).

In a catalogue, each method is a tool with the name of the method. Its `offers` are the listed URIs of resources, URI
templates and names of prompts. All methods reach an open world: their results may come from untrusted sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ostiary.authorization.catalogue.offers import MAX_OFFER, MAX_OFFERS
from ostiary.authorization.catalogue.tool import Effect, Tool
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Malformed

_TEXT: dict[str, Any] = {"type": "string"}
_FILTER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "toolsListChanged": {"type": "boolean"},
        "promptsListChanged": {"type": "boolean"},
        "resourcesListChanged": {"type": "boolean"},
        "resourceSubscriptions": {"type": "array", "items": _TEXT},
    },
}
_COMPLETED: dict[str, Any] = {
    "ref": {"type": "object", "properties": {"type": _TEXT, "name": _TEXT, "uri": _TEXT}},
    "argument": {"type": "object", "properties": {"name": _TEXT, "value": _TEXT}},
    "context": {"type": "object", "properties": {"arguments": {"type": "object"}}},
}


def _method(name: str, properties: dict[str, Any], *required: str, effect: Effect = Effect.READ, **kinds: str) -> Tool:
    schema = {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})
    return Tool(
        name=name, effect=effect, arguments=schema, kinds={path.replace("__", "."): kinds[path] for path in kinds}
    )


METHODS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        _method("resources/read", {"uri": _TEXT}, "uri", uri="address"),
        _method("resources/subscribe", {"uri": _TEXT}, "uri", uri="address"),
        _method("subscriptions/listen", {"notifications": _FILTER}, notifications__resourceSubscriptions="address"),
        _method("prompts/get", {"name": _TEXT, "arguments": {"type": "object"}}, "name"),
        _method("completion/complete", _COMPLETED, "ref", "argument"),
        _method("tasks/get", {"taskId": _TEXT}, "taskId"),
        _method("tasks/result", {"taskId": _TEXT}, "taskId"),
        _method("tasks/list", {"cursor": _TEXT}),
        _method("tasks/update", {"taskId": _TEXT}, "taskId", effect=Effect.WRITE),
        _method("tasks/cancel", {"taskId": _TEXT}, "taskId", effect=Effect.WRITE),
    )
}
"""Methods by name. Listing tools needs no decision (`ostiary.guard.mcp`)."""
_RESOURCES = ("resources/read", "resources/subscribe", "subscriptions/listen")
_PROMPTS = ("prompts/get",)
_TASKS = ("tasks/get", "tasks/result", "tasks/list", "tasks/update", "tasks/cancel")
_BY_CAPABILITY = {
    "resources": _RESOURCES,
    "prompts": _PROMPTS,
    "completions": ("completion/complete",),
    "tasks": _TASKS,
    "io.modelcontextprotocol/tasks": _TASKS,
}
_LISTED = Annotated[str, Meta(min_length=1, max_length=MAX_OFFER)]


class _Resource(msgspec.Struct):
    uri: _LISTED


class _Template(msgspec.Struct, rename="camel"):
    uri_template: _LISTED


class _Prompt(msgspec.Struct):
    name: _LISTED


class _Offered(msgspec.Struct, rename="camel"):
    resources: list[_Resource] = []
    resource_templates: list[_Template] = []
    prompts: list[_Prompt] = []
    capabilities: dict[str, Any] = {}


def offered(listing: Mapping[str, Any]) -> Iterator[Tool]:
    """Yield a catalogue entry for each MCP method that a server offers, as the result of `listing_of` shows. Raises
    Malformed for a malformed listing.
    """
    try:
        offered = convert(listing, _Offered)
    except msgspec.ValidationError as error:
        raise Malformed(f"the document is not the result of a list method of MCP: {error}") from None
    extensions = offered.capabilities.get("extensions")
    capable = {*offered.capabilities, *(extensions if isinstance(extensions, dict) else ())}
    uris = [one.uri for one in offered.resources] + [one.uri_template for one in offered.resource_templates]
    names = [one.name for one in offered.prompts]
    offers = dict.fromkeys(_RESOURCES, uris) | dict.fromkeys(_PROMPTS, names)
    offers |= {"completion/complete": [*uris, *names]}
    for name, tool in METHODS.items():
        listed = tuple(dict.fromkeys(offers.get(name, ())))[:MAX_OFFERS]
        if listed or any(name in methods for capability, methods in _BY_CAPABILITY.items() if capability in capable):
            yield replace(tool, offers=listed)
