"""A protected server: its resource identifier (RFC 8707), its guard's key, and its catalogue of tools.

Resource identifiers are compared character by character (RFC 3986 section 6.2.1), so only the normal form (section
6.2.2) is accepted, so that one resource cannot be registered under two identifiers. An empty path and `/` are
different, as in MCP.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType
from urllib.parse import urlsplit

from ostiary.authorization.catalogue import Catalogue
from ostiary.authorization.classes import STANDARD
from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.uri import normalise_uri

ResourceId = NewType("ResourceId", str)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_resource_id(id: str) -> bool:
    """Return whether an id has the form of a resource's id. No other kind of client has such an id."""
    return id.startswith("rs_")


class Mode(StrEnum):
    ENFORCE = "enforce"
    WATCH = "watch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    resource_id: ResourceId
    name: str
    uri: str
    mode: Mode
    segment: str
    jkt: str | None
    jwk: dict[str, Any] | None
    catalogue_hash: str | None
    catalogue_version: int
    created_at: int
    is_proposed: bool = False
    """True if the server proposed the catalogue and no person has confirmed it."""


def check_uri(unverified_uri: str) -> str:
    """Return a resource identifier in canonical form, after checking that it begins with https, or with http on
    loopback. Raises Invalid for any other URI.
    """
    uri = unverified_uri
    if "#" in uri:
        raise Invalid("the URI has a fragment", hint="remove the fragment (RFC 8707 section 2)")
    if "@" in uri.partition("://")[2].partition("/")[0]:
        raise Invalid(
            "the URI contains user information",
            hint="remove the user information: the part between `://` and `@`, and the `@`",
        )
    try:
        normal = normalise_uri(uri)
    except Malformed as error:
        raise Invalid(f"the URI is not accepted: {error.message}", hint="write https://HOST[:PORT][/PATH]") from None
    base, question, query = uri.partition("?")
    if base not in (normal, normal.removesuffix("/")):
        raise Invalid("the URI is not in canonical form", hint=f"write `{normal}{question}{query}`")
    parts = urlsplit(uri)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise Invalid(
            "the URI must begin with https://", hint="http:// is accepted for 127.0.0.1, [::1] and localhost only"
        )
    return uri


def parse_catalogue(resource: str, unverified: object, *, classes: Collection[str] = STANDARD) -> Catalogue:
    """Return a parsed catalogue (the tools of a resource) from JSON in Ostiary's own format, or from the results of the
    resource's MCP list methods, with or without the JSON-RPC envelope.

    `classes` are all data classes that the catalogue may name. Hundreds of tools take some milliseconds. Raises
    Malformed for other JSON, Invalid for a tool that is not valid.
    """
    if isinstance(unverified, dict) and "jsonrpc" in unverified:
        unverified = unverified.get("result")
    if isinstance(unverified, dict) and "resource" in unverified:
        catalogue = Catalogue.parse(canonical.encode(unverified, floats=True))
        catalogue.check_classes(classes)
        return catalogue
    tools = unverified.get("tools") if isinstance(unverified, dict) else None
    if isinstance(tools, list) and any(isinstance(tool, dict) and "effect" in tool for tool in tools):
        hint = f'write `"resource": "{resource}"` beside `tools` for a catalogue of Ostiary'
        raise Invalid("a tool has an `effect`, which the result of MCP's tools/list cannot have", hint=hint)
    return Catalogue.from_mcp(resource, unverified)
