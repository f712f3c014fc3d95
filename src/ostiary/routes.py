"""The routes of a Starlette or FastAPI application as tools: which tool a request calls.

Each route is one tool. The table asks the application's own routes which of them a request matches, in the order of the
application's router, so the guard and the router agree. A request that no route matches in full calls no tool: another
method, a missing or an additional trailing slash, `OPTIONS`. `HEAD` of a route with `GET` calls the tool of `GET`.

The arguments are as `ostiary.openapi` describes; a plain Starlette application has no OpenAPI document.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from starlette.datastructures import URLPath
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Host, Match, Mount, NoMatchFound, Router, WebSocketRoute

from ostiary.openapi import Endpoint, HttpTool, slug
from ostiary.protocol.errors import Conflict, Forbidden
from ostiary.protocol.jose import b64u

DECIDED = "ostiary.decided"
"""key of the ASGI scope under which the parts of the decided request are that routers may read"""
MAX_DEPTH = 16
"""maximum depth of mounts in mounts"""


@dataclass(frozen=True, slots=True)
class Matched:
    """The tool that a request calls. `scope`: the scope for the application, with the parts of the decided request that
    routers may read, for each root path; `Seal` compares the request with them.
    """

    tool: HttpTool
    path_params: Mapping[str, Any]
    scope: dict[str, Any]


class RouteTable:
    """The tools of one application. The routes are read again for each request, so routes that are added later
    have tools too.
    """

    def __init__(self, app: Any) -> None:
        """Read the routes of an application. Raises Conflict for an application without a list of routes."""
        if not isinstance(getattr(app, "routes", None), list):
            raise Conflict(
                "the application has no list of routes", hint="name the tools: GuardASGI(app, guard, tool={...})"
            )
        self._app = app
        self._known: tuple[tuple[int, ...], dict[int, str]] = ((), {})

    @property
    def tools(self) -> list[HttpTool]:
        """The tools of all routes that the OpenAPI document lists, in the order of the routes. Of tools with the same
        name, only the first counts.
        """
        endpoints = list(_endpoints(self._app))
        names = self._names(endpoints)
        tools: dict[str, HttpTool] = {}
        for endpoint in endpoints:
            if getattr(endpoint.route, "include_in_schema", True) is False:
                continue  # a route that the document leaves out, such as /docs; the owner can add it to the catalogue
            for method in sorted({*(endpoint.methods or ("GET",))} - endpoint.hidden_by):
                tool = HttpTool(_tool_name(names[id(endpoint.route)], endpoint, method), endpoint, method)
                tools.setdefault(tool.name, tool)
        return list(tools.values())

    @property
    def listing(self) -> dict[str, Any]:
        """The tools in the form of a response to MCP's `tools/list`, for `Catalogue.from_mcp`."""
        return {"tools": [tool.listed for tool in self.tools]}

    def find(self, scope: Mapping[str, Any]) -> Matched | None:
        """Return the tool that a request calls; None if no route matches in full.

        Raises Forbidden for a route whose operation in the OpenAPI document is that of another route.
        """
        endpoints = list(_endpoints(self._app))
        matched = _match(self._app, dict(scope), {id(endpoint.route): endpoint for endpoint in endpoints}, ())
        if matched is None:
            return None
        endpoint, path_params, roots = matched
        method = "WEBSOCKET" if scope["type"] == "websocket" else str(scope["method"])
        if method == "HEAD" and (not endpoint.methods or "GET" in endpoint.methods):
            method = "GET"
        if method in endpoint.hidden_by:
            raise Forbidden(
                f"two routes answer `{method} {endpoint.path[:100]}`, and the OpenAPI document describes the other one",
                hint="give one of the two routes another path or method; `{id:int}` and `{id}` count as one path",
                code="unknown_tool",
            )
        name = _tool_name(self._names(endpoints)[id(endpoint.route)], endpoint, method)
        decided = frozenset((_line(scope), root) for root in roots)
        return Matched(HttpTool(name, endpoint, method), path_params, {**scope, DECIDED: decided})

    @property
    def version(self) -> object:
        """An opaque value that changes when a route is added or removed."""
        return tuple(id(endpoint.route) for endpoint in _endpoints(self._app))

    def _names(self, endpoints: Sequence[Endpoint]) -> dict[int, str]:
        """Return the names of endpoints by the identity of the route. If several routes have the same name,
        names of method and path replace it.
        """
        key = tuple(id(endpoint.route) for endpoint in endpoints)
        if self._known[0] != key:
            count = Counter(endpoint.name for endpoint in endpoints)
            unique = {
                id(endpoint.route): endpoint.name if count[endpoint.name] == 1 else _spelled(endpoint)
                for endpoint in endpoints
            }
            self._known = key, unique
        return self._known[1]


def _line(scope: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the parts of a request that routers read, except the root path."""
    hosts = tuple(value for name, value in scope["headers"] if name == b"host")
    return scope["type"], scope.get("method"), scope["path"], scope.get("query_string"), hosts


class Seal(BaseRoute):
    """The first route of each router. It matches no request, and refuses a request that differs from the decided one.

    The seal runs after all middleware, so middleware that rewrites a path cannot lead a request to another route.
    """

    def matches(self, scope: Any) -> tuple[Match, Any]:
        """Refuse a request that was changed after its decision; otherwise match nothing. Raises HTTPException,
        which the application renders.
        """
        decided = scope.get(DECIDED)
        if decided is not None and (_line(scope), scope.get("root_path", "")) not in decided:
            raise HTTPException(403, "denied: the request was changed after it was decided")
        return Match.NONE, {}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Raise NoMatchFound: this route has no URL."""
        raise NoMatchFound(name, path_params)


def _seal(app: Any) -> None:
    router = getattr(app, "router", app)
    if isinstance(router, Router) and not (router.routes and isinstance(router.routes[0], Seal)):
        router.routes[:] = [Seal(), *(route for route in router.routes if not isinstance(route, Seal))]


def _effective(routes: Sequence[BaseRoute]) -> list[Any]:
    """Return the routes, and those of FastAPI's included routers, in the order in which the router tries them."""
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:
        return list(routes)
    contexts = [(context, context._route_context) for context in iter_route_contexts(routes)]
    return [
        context.route if inner is None else inner.starlette_route if inner.starlette_route is not None else inner
        for context, inner in contexts
    ]


def _mounted(route: Any) -> Any:
    """Return the mount or host if its routes can be read; None for any other route."""
    return route if isinstance(route, Mount | Host) and route.routes else None


def _endpoints(app: Any, prefix: str = "", scope: str = "", depth: int = MAX_DEPTH) -> Iterator[Endpoint]:
    """Yield every route that runs code, also in mounted applications, in the order in which the routers try them."""
    document = _document(app)
    paths = document.get("paths", {})
    routes = _effective(app.routes)
    # Of two routes with the same path and method, the OpenAPI document describes the last.
    described = {
        (getattr(route, "path_format", None), method): route
        for route in routes
        if getattr(route, "include_in_schema", True)
        for method in _methods(route)
    }
    for route in routes:
        path = prefix + str(getattr(route, "path", ""))
        if (inner := _mounted(route)) is not None:
            name = inner.name or slug(str(getattr(inner, "path", "") or getattr(inner, "host", "")))
            below = getattr(inner, "_base_app", inner.app)
            if depth and isinstance(getattr(below, "routes", None), list):
                yield from _endpoints(below, path, f"{scope}{name}/" if name else scope, depth - 1)
            continue
        methods = _methods(route)
        path_format = getattr(route, "path_format", None)
        operations = paths.get(path_format, {})
        others = {method for method in operations if described.get((path_format, method.upper()), route) is not route}
        own_operations = {method: operation for method, operation in operations.items() if method not in others}
        is_listed = getattr(route, "include_in_schema", True)
        hidden_by = {method for method in methods if is_listed and method.lower() in others}
        name = _own_name(route) or slug(path)
        yield Endpoint(route, path, (scope + name)[:100], methods, own_operations, document, frozenset(hidden_by))


def _document(app: Any) -> Mapping[str, Any]:
    """Return the OpenAPI document of a FastAPI application; empty for any other."""
    openapi = getattr(app, "openapi", None)
    document = openapi() if callable(openapi) else None
    return document if isinstance(document, dict) else {}


def _methods(route: Any) -> tuple[str, ...]:
    if isinstance(route, WebSocketRoute):
        return ("WEBSOCKET",)
    return tuple(sorted(set(getattr(route, "methods", None) or ()) - {"HEAD"}))


def _own_name(route: Any) -> str:
    """Return the name of a route: the name that its author set, or the name of its function."""
    name = str(getattr(route, "name", None) or "")
    return name if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name) else slug(name)


def _spelled(endpoint: Endpoint) -> str:
    """Return a name made of methods and path, which does not depend on the order of routes."""
    text = f"{' '.join(endpoint.methods)} {endpoint.path}"
    return f"{slug(text.lower())[:80]}.{b64u(sha256(text.encode()).digest()[:6]).replace('-', '_')}"


def _tool_name(name: str, endpoint: Endpoint, method: str) -> str:
    """Return the name of a tool. The name includes the method if the route has several methods, or accepts any."""
    is_only = endpoint.methods == (method,) or (not endpoint.methods and method == "GET")
    return name if is_only else f"{name}.{method.lower()}"[:128]


def _match(
    app: Any, scope: dict[str, Any], endpoints: Mapping[int, Endpoint], roots: tuple[str, ...]
) -> tuple[Endpoint, Mapping[str, Any], tuple[str, ...]] | None:
    """Return (endpoint, path parameters, root paths) for a request: the first route that matches in full, as the
    routers search it. Return None if no route matches. `roots`: the root paths of the outer routers.
    """
    _seal(app)
    if own_root := getattr(app, "root_path", ""):  # FastAPI replaces the root path by its own
        scope["root_path"] = own_root
    roots = (*roots, scope.get("root_path", ""))
    for route in _effective(app.routes):
        match, child = route.matches(scope)
        if match is not Match.FULL:
            continue
        below = {**scope, **child}
        inner = _mounted(route)
        if inner is not None:
            base = getattr(inner, "_base_app", inner.app)
            return _match(base, below, endpoints, roots) if len(roots) < MAX_DEPTH and hasattr(base, "routes") else None
        endpoint = endpoints.get(id(route))
        path_params = dict(below.get("path_params", {}))
        if isinstance(route, Mount | Host):  # an application whose routes cannot be read
            path_params[REST] = below["path"][len(below.get("root_path", "")) :]
        return None if endpoint is None else (endpoint, path_params, roots)
    return None


REST = "path"
"""name of the argument with the rest of the path, for a mounted application whose routes cannot be read"""
