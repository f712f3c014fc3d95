"""The routes of a Starlette or FastAPI application as tools: which tool a request calls, and with which arguments.

Each route is one tool. The table asks the application's own routes which of them a request matches, in the order of the
application's router, so the guard and the router agree. A request that no route matches in full calls no tool: another
method, a missing or an additional trailing slash, `OPTIONS`. `HEAD` of a route with `GET` calls the tool of `GET`.

The arguments of a call are the parameters of the path, of the query and, where the OpenAPI document of a FastAPI
application declares them, of headers and cookies, by name; and the body as the argument `body`.

| body | argument `body` |
| --- | --- |
| JSON | its value |
| `application/x-www-form-urlencoded` | an object of its fields |
| any other | `{"type", "bytes", "sha256"}`: its content is not judged |

A body that looks like JSON is judged as JSON, whatever its `Content-Type` says. A body in which the guard and the
application could read different values is refused: a member sent twice, another encoding than UTF-8, a compressed body.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl

from starlette.datastructures import URLPath
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Host, Match, Mount, NoMatchFound, Router, WebSocketRoute

from ostiary.asgi import DECIDED
from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict, Malformed
from ostiary.protocol.jose import b64u
from ostiary.tools import filled, plain

MAX_PARAMETERS = 100
MAX_DEPTH = 16
"""mounts inside of mounts"""
BODY = "body"
"""the argument that holds the body of a request"""
OWN_HEADERS = frozenset(("authorization", "dpop"))
"""headers that are for the guard, never arguments"""
_PARTS = {"query": "query", "path": "path", "header": "headers", "cookie": "cookies"}
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,15})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,15})?")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_JSON_TYPE = re.compile(r"application/(?:[a-z0-9.!#$&^_+-]+\+)?json")
_FORM_TYPE = "application/x-www-form-urlencoded"
_ENCODED_BEGINNINGS = (b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A route that runs code: where it is, and what the OpenAPI document says of it, by method in lower case."""

    route: Any
    """a route, or FastAPI's context of a route in an included router: each has `matches`"""
    path: str
    """the path format from the root of the application"""
    name: str
    methods: tuple[str, ...]
    """without HEAD; empty: any. `WEBSOCKET` for a WebSocket route"""
    operations: Mapping[str, Mapping[str, Any]]
    document: Mapping[str, Any]
    """the OpenAPI document; empty where there is none"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that the OpenAPI document declares. `place`: path, query, header or cookie."""

    name: str
    place: str
    schema: Mapping[str, Any]
    is_required: bool


@dataclass(frozen=True, slots=True)
class RouteTool:
    """One tool: a method of a route."""

    name: str
    leaf: Leaf
    method: str

    @property
    def operation(self) -> Mapping[str, Any] | None:
        """What the OpenAPI document says of it; None where the document does not have it."""
        return self.leaf.operations.get(self.method.lower())

    @property
    def parameters(self) -> list[Parameter]:
        return [
            Parameter(one["name"], one["in"], one.get("schema") or {}, bool(one.get("required")))
            for given in (self.operation or {}).get("parameters", ())
            if (one := _dereferenced(given, self.leaf.document)) and one.get("in") in _PARTS
        ]

    def arguments(self, scope: Mapping[str, Any], path_params: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        """Return the arguments of a call. Raises Malformed, where the guard and the application could disagree."""
        declared = self.parameters
        found: dict[str, Any] = {}
        for name, value in path_params.items():
            self._put(found, name, plain(value, name), declared, place="path")
        for name, value in _query(scope["query_string"], [one for one in declared if one.place == "query"]).items():
            self._put(found, name, value, declared, place="query")
        for one, value in _headers(scope, declared):
            self._put(found, one.name, value, declared, place=one.place)
        if body:
            self._put(found, BODY, _body(scope, body), declared, place=BODY)
        return filled(found, self.input_schema) if self.operation is not None else found

    def _put(self, found: dict[str, Any], name: str, value: Any, declared: Sequence[Parameter], *, place: str) -> None:
        """Raises Malformed for a name that stands for something else already."""
        own = [one for one in declared if one.name == name]
        is_misplaced = bool(own) and place not in [one.place for one in own]
        if name in found or is_misplaced or (name == BODY and place != BODY and self._has_body):
            raise Malformed(
                f"the parameter `{name[:64]}` is in the wrong part of the request, or was sent twice",
                hint="send each parameter once, where the API expects it",
            )
        schema = next((one.schema for one in own if one.place == place), None)
        found[name] = value if schema is None or place == BODY else _typed(name, value, schema, self.leaf.document)

    @property
    def _has_body(self) -> bool:
        return self.operation is None or "requestBody" in self.operation

    @property
    def listed(self) -> dict[str, Any]:
        """The tool as a member of `tools` in an answer to MCP's `tools/list`."""
        operation = self.operation or {}
        text = operation.get("description") or operation.get("summary") or ""
        reads = self.method in ("GET", "HEAD")
        hints = {"readOnlyHint": True} if reads else {"readOnlyHint": False, "destructiveHint": self.method == "DELETE"}
        if self.method not in ("GET", "HEAD", "DELETE", "PUT", "PATCH"):
            del hints["destructiveHint"]
        line = f"{self.method} {self.leaf.path}"
        return {
            "name": self.name,
            "description": f"{line}\n{text}" if text else line,
            "inputSchema": self.input_schema,
            "annotations": hints,
        }

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of its arguments."""
        operation = self.operation
        if operation is None:
            names = re.findall(r"\{([A-Za-z_][A-Za-z0-9_]*)", self.leaf.path)
            return {"type": "object", "properties": {name: {} for name in names}, "required": names}
        properties: dict[str, Any] = {one.name: dict(one.schema) for one in self.parameters}
        required = [one.name for one in self.parameters if one.is_required]
        if (given := operation.get("requestBody")) is not None:
            body = _dereferenced(given, self.leaf.document)
            if BODY in properties:
                raise Conflict(f"`{self.name}` has a parameter `body` and a body", hint="rename the parameter")
            properties[BODY] = _body_schema(body)
            required += [BODY] if body.get("required") else []
        schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        return _self_contained(schema, self.leaf.document)


@dataclass(frozen=True, slots=True)
class Matched:
    """The tool that a request calls. `sealed`: what the routers on the way may read of the request, see `Seal`."""

    tool: RouteTool
    path_params: Mapping[str, Any]
    sealed: frozenset[Any]


class RouteTable:
    """The tools of one application. The routes are read again with each request, so an added route has a tool, too."""

    def __init__(self, app: Any) -> None:
        """Raises Conflict for an application that has no routes to read."""
        if not isinstance(getattr(app, "routes", None), list):
            raise Conflict(
                "the application has no list of routes", hint="name the tools: GuardASGI(app, guard, tool={...})"
            )
        self._app = app
        self._known: tuple[tuple[int, ...], dict[int, str]] = ((), {})

    @property
    def tools(self) -> list[RouteTool]:
        """Every tool that can be called, in the order of the routes; the first of one name counts."""
        leaves = list(_leaves(self._app))
        names = self._names(leaves)
        tools: dict[str, RouteTool] = {}
        for leaf in leaves:
            if getattr(leaf.route, "include_in_schema", True) is False:
                continue  # such as /docs: the owner can add the tool to the catalogue
            for method in leaf.methods or ("GET",):
                tool = RouteTool(_tool_name(names[id(leaf.route)], leaf, method), leaf, method)
                tools.setdefault(tool.name, tool)
        return list(tools.values())

    @property
    def listing(self) -> dict[str, Any]:
        """The tools as MCP's `tools/list` lists them: `Catalogue.from_mcp` makes a catalogue of it."""
        return {"tools": [tool.listed for tool in self.tools]}

    def find(self, scope: Mapping[str, Any]) -> Matched | None:
        """Return the tool that a request calls; None if no route matches in full."""
        leaves = list(_leaves(self._app))
        matched = _match(self._app, dict(scope), {id(leaf.route): leaf for leaf in leaves}, ())
        if matched is None:
            return None
        leaf, path_params, roots = matched
        method = "WEBSOCKET" if scope["type"] == "websocket" else str(scope["method"])
        if method == "HEAD" and (not leaf.methods or "GET" in leaf.methods):
            method = "GET"
        name = _tool_name(self._names(leaves)[id(leaf.route)], leaf, method)
        return Matched(RouteTool(name, leaf, method), path_params, frozenset((_line(scope), root) for root in roots))

    @property
    def version(self) -> object:
        """A value that changes when a route is added or removed."""
        return tuple(id(leaf.route) for leaf in _leaves(self._app))

    def _names(self, leaves: Sequence[Leaf]) -> dict[int, str]:
        """By the identity of the route. A name that several routes have is replaced by method and path."""
        key = tuple(id(leaf.route) for leaf in leaves)
        if self._known[0] != key:
            count = Counter(leaf.name for leaf in leaves)
            unique = {id(leaf.route): leaf.name if count[leaf.name] == 1 else _spelled(leaf) for leaf in leaves}
            self._known = key, unique
        return self._known[1]


def _line(scope: Mapping[str, Any]) -> tuple[Any, ...]:
    """What routes read of a request, beside the root path."""
    hosts = tuple(value for name, value in scope["headers"] if name == b"host")
    return scope["type"], scope.get("method"), scope["path"], scope.get("query_string"), hosts


class Seal(BaseRoute):
    """The first route of each router. It matches nothing, and refuses a request that differs from the decided one.

    It runs after all middleware, so middleware that rewrites a path cannot lead a request to another route.
    """

    def matches(self, scope: Any) -> tuple[Match, Any]:
        """Raises HTTPException, which the application renders."""
        decided = scope.get(DECIDED)
        if decided is not None and (_line(scope), scope.get("root_path", "")) not in decided:
            raise HTTPException(403, "denied: the request was changed after it was decided")
        return Match.NONE, {}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        raise NoMatchFound(name, path_params)


def _seal(app: Any) -> None:
    router = getattr(app, "router", app)
    if isinstance(router, Router) and not (router.routes and isinstance(router.routes[0], Seal)):
        router.routes[:] = [Seal(), *(route for route in router.routes if not isinstance(route, Seal))]


def _effective(routes: Sequence[BaseRoute]) -> list[Any]:
    """The routes in the order in which they are tried; those of FastAPI's included routers in place of the router."""
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
    """The mount or the host whose routes can be read; None for any other route."""
    return route if isinstance(route, Mount | Host) and route.routes else None


def _leaves(app: Any, prefix: str = "", scope: str = "", depth: int = MAX_DEPTH) -> Iterator[Leaf]:
    """Every route that runs code, those of mounted applications among them, in the order in which they are tried."""
    document = _document(app)
    paths = document.get("paths", {})
    for route in _effective(app.routes):
        path = prefix + str(getattr(route, "path", ""))
        if (inner := _mounted(route)) is not None:
            name = inner.name or _slug(str(getattr(inner, "path", "") or getattr(inner, "host", "")))
            below = getattr(inner, "_base_app", inner.app)
            if depth and isinstance(getattr(below, "routes", None), list):
                yield from _leaves(below, path, f"{scope}{name}/" if name else scope, depth - 1)
            continue
        methods = _methods(route)
        known = paths.get(getattr(route, "path_format", None), {})
        name = _own_name(route, known, methods) or _slug(path)
        yield Leaf(route, path, (scope + name)[:100], methods, known, document)


def _document(app: Any) -> Mapping[str, Any]:
    """The OpenAPI document of a FastAPI application."""
    openapi = getattr(app, "openapi", None)
    found = openapi() if callable(openapi) else None
    return found if isinstance(found, dict) else {}


def _methods(route: Any) -> tuple[str, ...]:
    if isinstance(route, WebSocketRoute):
        return ("WEBSOCKET",)
    return tuple(sorted(set(getattr(route, "methods", None) or ()) - {"HEAD"}))


def _own_name(route: Any, operations: Mapping[str, Any], methods: Sequence[str]) -> str:
    """The name that its author gave a route: the name of its function, unless something else was chosen."""
    name = str(getattr(route, "name", None) or "")
    return name if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", name) else _slug(name)


def _spelled(leaf: Leaf) -> str:
    """A name by methods and path, the same wherever the route stands."""
    text = f"{' '.join(leaf.methods)} {leaf.path}"
    slug = _slug(text.lower())[:80]
    return f"{slug}.{b64u(sha256(text.encode()).digest()[:6]).replace('-', '_')}"


def _tool_name(name: str, leaf: Leaf, method: str) -> str:
    """With the method, where a route has several or any."""
    is_only = leaf.methods == (method,) or (not leaf.methods and method == "GET")
    return name if is_only else f"{name}.{method.lower()}"[:128]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "root"


def _match(
    app: Any, scope: dict[str, Any], leaves: Mapping[int, Leaf], roots: tuple[str, ...]
) -> tuple[Leaf, Mapping[str, Any], tuple[str, ...]] | None:
    """Follow a request as the routers will: the first route that matches in full has it. `roots`: the root paths that
    the routers above have seen.
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
            return _match(base, below, leaves, roots) if len(roots) < MAX_DEPTH and hasattr(base, "routes") else None
        leaf = leaves.get(id(route))
        path_params = dict(below.get("path_params", {}))
        if isinstance(route, Mount | Host):  # an application whose routes cannot be read
            path_params[REST] = below["path"][len(below.get("root_path", "")) :]
        return None if leaf is None else (leaf, path_params, roots)
    return None


REST = "path"
"""the argument that holds the rest of the path at a mounted application whose routes cannot be read"""


def _query(query_string: bytes, declared: Sequence[Parameter]) -> dict[str, Any]:
    """Raises Malformed for a name given twice, unless the document declares a list."""
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise Malformed("the query does not parse") from None
    lists = {one.name for one in declared if _kind(one.schema) == "array"}
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in lists:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise Malformed(f"the parameter `{name[:64]}` was sent twice", hint="send each parameter once")
        else:
            found[name] = value
    return found


def _headers(scope: Mapping[str, Any], declared: Sequence[Parameter]) -> Iterator[tuple[Parameter, str]]:
    """The headers and cookies that the document declares, with their values. Raises Malformed for one sent twice."""
    sent = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    names = Counter(name for name, _ in sent)
    cookies: dict[str, str] = {}
    own_cookies = {one.name for one in declared if one.place == "cookie"}
    for pair in "; ".join(value for name, value in sent if name == "cookie").split(";"):
        name, _, value = pair.strip().partition("=")
        if name not in own_cookies:
            continue
        if name in cookies or "\\" in value:
            raise Malformed(
                f"the cookie `{name[:64]}` was sent twice, or has an escape in it", hint="send each cookie once"
            )
        cookies[name] = value.strip('"')
    for one in declared:
        if one.place == "cookie" and one.name in cookies:
            yield one, cookies[one.name]
        elif one.place == "header" and one.name.lower() not in OWN_HEADERS and (count := names[one.name.lower()]):
            if count > 1:
                raise Malformed(f"the header `{one.name[:64]}` was sent twice", hint="send each header once")
            yield one, next(value for name, value in sent if name == one.name.lower())


def _body(scope: Mapping[str, Any], body: bytes) -> Any:
    """Raises Malformed for a body in which somebody else may read another value."""
    sent = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    types = [value for name, value in sent if name == "content-type"]
    if any(name == "content-encoding" and value.lower() != "identity" for name, value in sent):
        raise Malformed("the body has a `Content-Encoding`", hint="send it uncompressed")
    if len(types) != 1:
        raise Malformed("a body needs one `Content-Type`", hint="such as application/json")
    kind, *options = (part.strip().lower() for part in types[0].split(";"))
    charset = next((one.partition("=")[2].strip('"') for one in options if one.startswith("charset=")), "utf-8")
    is_text = not kind.startswith(("multipart/", "image/", "audio/", "video/")) and kind != "application/octet-stream"
    if is_text and (charset not in ("utf-8", "utf8") or body.startswith(_ENCODED_BEGINNINGS) or b"\0" in body[:4]):
        raise Malformed("the body is not in UTF-8", hint="send UTF-8")
    if _JSON_TYPE.fullmatch(kind) or body.lstrip()[:1] in (b"{", b"["):
        return canonical.parse(body, max_bytes=len(body), max_depth=canonical.MAX_ARGUMENTS_DEPTH)
    if kind == _FORM_TYPE:
        return _query(body, ())
    return {"type": kind, "bytes": len(body), "sha256": b64u(sha256(body).digest())}


def _kind(schema: Mapping[str, Any]) -> str:
    """The type of a parameter: of `anyOf` with null, the other one; `string` where there are several."""
    kinds = {str(one["type"]) for one in (schema, *schema.get("anyOf", ())) if isinstance(one.get("type"), str)}
    kinds -= {"null"}
    return kinds.pop() if len(kinds) == 1 else "string"


def _typed(name: str, value: Any, schema: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    """Return the text of a parameter as the JSON value that its schema declares. Raises Malformed."""
    whole = _dereferenced(schema, document)
    kind = _kind(whole)
    if kind == "array" and isinstance(value, list):
        shapes = (whole, *whole.get("anyOf", ()))
        items: Mapping[str, Any] = next((one["items"] for one in shapes if "items" in one), {})
        return [_typed(name, one, items, document) for one in value]
    if not isinstance(value, str):
        return value
    if kind == "integer" and _INTEGER.fullmatch(value):
        return int(value)
    if kind == "number" and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    if kind == "boolean" and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    if kind in ("integer", "number", "boolean"):
        raise Malformed(f"the parameter `{name[:64]}` is not of type {kind}", hint="write it as JSON writes it")
    return value


def _body_schema(body: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the argument `body`: of the media types whose content is judged, or any."""
    content = body.get("content", {})
    judged = [one.get("schema") or {} for kind, one in content.items() if _JSON_TYPE.fullmatch(kind)]
    return dict(judged[0]) if len(judged) == 1 == len(content) else {}


def _dereferenced(value: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a `$ref` within the document, once."""
    at: Any = document
    if (ref := value.get("$ref")) is None:
        return value
    for part in str(ref).removeprefix("#/").split("/"):
        at = at.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(at, Mapping) else {}
    return at if isinstance(at, Mapping) else {}


_COMPONENT = "#/components/schemas/"


def _self_contained(schema: dict[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with all that it refers to in `$defs`, in place of the document's components."""
    components = document.get("components", {}).get("schemas", {})
    needed: dict[str, Any] = {}

    def moved(value: Any) -> Any:
        if isinstance(value, Mapping):
            ref = value.get("$ref")
            if isinstance(ref, str) and ref.startswith(_COMPONENT):
                name = ref.removeprefix(_COMPONENT)
                if name not in needed:
                    needed[name] = {}
                    needed[name] = moved(components.get(name, {}))
                return {**{key: moved(one) for key, one in value.items() if key != "$ref"}, "$ref": f"#/$defs/{name}"}
            return {key: moved(one) for key, one in value.items()}
        return [moved(one) for one in value] if isinstance(value, list) else value

    whole: dict[str, Any] = moved(schema)
    return whole | ({"$defs": needed} if needed else {})
