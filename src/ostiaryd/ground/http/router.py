"""The router: finds the route of a request by the first segments of its path, so that a request is compared with few
routes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from urllib.parse import unquote

import httptools
import msgspec
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from ostiaryd.ground.http.edge import Endpoint


class Target(msgspec.Struct, frozen=True):
    """The endpoint for a request, with the path, the path parameters, the query, and the path as the client sent it,
    with its escapes.
    """

    endpoint: Endpoint
    path: str
    params: dict[str, str]
    query: str
    raw_path: str


class _Node:
    """A node in the tree of path segments: the routes whose paths can begin with the segments that lead to this node,
    and the nodes below, by the next segment.
    """

    def __init__(self, routes: Sequence[tuple[list[str], Route]], depth: int = 0) -> None:
        self.routes = [route for place, route in routes if len(place) <= depth]
        branches = {place[depth]: list[tuple[list[str], Route]]() for place, _ in routes if len(place) > depth}
        for place, route in routes:
            for branch in [branches[place[depth]]] if len(place) > depth else branches.values():
                branch.append((place, route))
        self.children = {segment: _Node(branch, depth + 1) for segment, branch in branches.items()}

    @cached_property
    def router(self) -> Router:
        """The router of these routes, for a request that passes through ASGI."""
        return Router(self.routes, redirect_slashes=False)


class SegmentRouter(Router):
    """A router of Starlette that compares a request with the routes of its segments.

    Each route belongs to the node of the segments before its first path parameter. A node lists the routes of all nodes
    on the way to it, in their original order, so that the first match is the same as without the tree. A path is never
    redirected to the same path with or without a final slash, because this would send credentials to the host in the
    header `Host`.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        routes = list(routes)
        for route in routes:  # the endpoint refuses a line break in a path parameter, in the form of its protocol
            route.path_regex = _compile(route.path_regex.pattern)
        super().__init__(routes, redirect_slashes=False)
        self._root = _Node([(_place_of(route.path), route) for route in routes])
        fixed = [
            (route.path, method) for route in routes if not route.param_convertors for method in route.methods or ()
        ]
        self._fixed = {(method, path.encode()): self._search(method, path) for path, method in fixed}
        """Targets of all routes whose path has no parameters, by method and URL."""

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the first route that matches. This is the ASGI application."""
        if scope["type"] != "http":
            await super().app(scope, receive, send)
            return
        await self._find_node(scope["path"]).router.app(scope, receive, send)

    def find_target(self, method: str, url: bytes) -> Target | None:
        """Return the endpoint of the first route that matches, as uvicorn and Starlette would find it.

        Return None for a request that needs ASGI: no matching route, a HEAD, or a response that may be streamed. Raises
        HttpParserInvalidURLError for a malformed target.
        """
        if (target := self._fixed.get((method, url))) is not None:
            return target
        parsed = httptools.parse_url(url)
        return self._search(method, parsed.path.decode("ascii"), (parsed.query or b"").decode("latin-1"))

    def _search(self, method: str, raw_path: str, query: str = "") -> Target | None:
        path = unquote(raw_path) if "%" in raw_path else raw_path
        for route in self._find_node(path).routes:
            if method in (route.methods or ()) and (match := route.path_regex.match(path)) is not None:
                endpoint = route.endpoint
                if method == "HEAD" or not isinstance(endpoint, Endpoint) or endpoint.streams:
                    return None
                return Target(endpoint, path, match.groupdict(), query, raw_path)
        return None

    def list_routes(self, path: str) -> list[Route]:
        """Return the routes with which a request for this path is compared."""
        return self._find_node(path).routes

    def _find_node(self, path: str) -> _Node:
        node = self._root
        for segment in path.split("/")[1:]:
            if segment not in node.children:
                break
            node = node.children[segment]
        return node


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    """Compile a pattern once in a process: the cache of `re` does not hold these patterns and Starlette's own."""
    return re.compile(pattern, re.DOTALL)


def _place_of(path: str) -> list[str]:
    fixed, parameter, _ = path.partition("{")
    segments = fixed.split("/")[1:]
    return segments[:-1] if parameter else segments
