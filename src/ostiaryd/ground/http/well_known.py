"""Well-known documents (RFC 8615) about an identifier that may have a path.

The path of the identifier follows that of the document (RFC 8414 section 3.1, RFC 9728 section 3.1, SSF 1.0 section
7.2.1). A reader that leaves it out gets the same document, because a server has one of each kind.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from ostiary.protocol.errors import NotFound
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.http.routes import Route


def with_suffix(route: Route) -> tuple[Route, Route]:
    """Return the route of a document, and the same route with the path of an identifier behind it."""
    return route, replace(route, path=route.path + "/{path:path}")


def check_suffix(call: Call, identifier: str, *, of: str) -> None:
    """Check that the path of the request ends in that of the identifier, or has no suffix. Raises NotFound.

    `of` names the kind of the identifier in the refusal.
    """
    if call.params.get("path", "") not in ("", urlsplit(identifier).path.removeprefix("/")):
        raise NotFound(f"{of} not found")
