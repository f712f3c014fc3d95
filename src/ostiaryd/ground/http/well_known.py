"""Well-known documents (RFC 8615) about an identifier that may have a path.

In the URL, the path of the identifier follows the path of the document (RFC 8414 section 3.1, RFC 9728 section 3.1, SSF
1.0 section 7.2.1). A request without the path of the identifier gets the same document, because a server has only one
of each kind.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from ostiary.protocol.errors import NotFound
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.http.routes import Route


def with_suffix(route: Route) -> tuple[Route, Route]:
    """Return two routes for a well-known document: the given route, and the same route with the path of an identifier
    (such as the issuer) appended.
    """
    return route, replace(route, path=route.path + "/{path:path}")


def check_suffix(call: Call, identifier: str, *, of: str) -> None:
    """Check that the rest of the path of the request, after the path of the document, is empty or the path of the
    identifier. Raises NotFound otherwise.

    `of` names the kind of the identifier in the error.
    """
    if call.params.get("path", "") not in ("", urlsplit(identifier).path.removeprefix("/")):
        raise NotFound(f"{of} not found")
