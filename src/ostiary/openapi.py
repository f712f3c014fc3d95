"""HTTP operations as tools: the arguments of a request, the schema and the listing of a tool, from an OpenAPI document.

The arguments of a call are the parameters of the path, of the query and, where the OpenAPI document declares them, of
headers and cookies, by name; and the body as the argument `body`.

| body | argument `body` |
| --- | --- |
| JSON | its value |
| `application/x-www-form-urlencoded` | an object of its fields |
| any other | `{"type", "bytes", "sha256"}`: its content is not judged |

A body that looks like JSON is judged as JSON, whatever its `Content-Type` says. A body in which the guard and the
application could read different values is refused: a member sent twice, another encoding than UTF-8, a compressed body.

Source: OpenAPI 3.1, sections 4.8.8 to 4.8.14.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, unquote

from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict, Malformed
from ostiary.protocol.jose import b64u
from ostiary.tools import filled, plain

MAX_PARAMETERS = 100
BODY = "body"
"""the argument that holds the body of a request"""
OWN_HEADERS = frozenset(("authorization", "dpop"))
"""headers that are for the guard, never arguments"""
PLACES = frozenset(("query", "path", "header", "cookie"))
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,15})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,15})?")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_JSON_TYPE = re.compile(r"application/(?:[a-z0-9.!#$&^_+-]+\+)?json")
_FORM_TYPE = "application/x-www-form-urlencoded"
_ENCODED_BEGINNINGS = (b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")


@dataclass(frozen=True, slots=True)
class Endpoint:
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
class HttpTool:
    """One tool: a method of a route."""

    name: str
    endpoint: Endpoint
    method: str

    @property
    def operation(self) -> Mapping[str, Any] | None:
        """What the OpenAPI document says of it; None where the document does not have it."""
        return self.endpoint.operations.get(self.method.lower())

    @property
    def path_names(self) -> list[str]:
        return re.findall(r"\{([^{}/:]*)[^{}/]*\}", self.endpoint.path)

    @property
    def parameters(self) -> list[Parameter]:
        return [
            Parameter(one["name"], one["in"], one.get("schema") or {}, bool(one.get("required")))
            for declared in (self.operation or {}).get("parameters", ())
            if (one := _dereferenced(declared, self.endpoint.document)) and one.get("in") in PLACES
        ]

    def arguments(self, scope: Mapping[str, Any], path_params: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        """Return the arguments of a call. Raises Malformed, where the guard and the application could disagree."""
        declared = self.parameters
        arguments: dict[str, Any] = {}
        for name, value in path_params.items():
            self._put(arguments, name, plain(value, name), declared, place="path")
        for name, value in _query(scope["query_string"], [one for one in declared if one.place == "query"]).items():
            self._put(arguments, name, value, declared, place="query")
        for one, value in _headers(scope, declared):
            self._put(arguments, one.name, value, declared, place=one.place)
        if body:
            self._put(arguments, BODY, _body(scope, body), declared, place=BODY)
        return filled(arguments, self.input_schema) if self.operation is not None else arguments

    def _put(
        self, arguments: dict[str, Any], name: str, value: Any, declared: Sequence[Parameter], *, place: str
    ) -> None:
        """Raises Malformed for a name that stands for something else already."""
        own = [one for one in declared if one.name == name]
        is_misplaced = bool(own) and place not in [one.place for one in own]
        if name in arguments or is_misplaced or (name == BODY and place != BODY and self._has_body):
            raise Malformed(
                f"the parameter `{name[:64]}` is in the wrong part of the request, or was sent twice",
                hint="send each parameter once, where the API expects it",
            )
        schema = next((one.schema for one in own if one.place == place), None)
        arguments[name] = (
            value if schema is None or place == BODY else _typed(name, value, schema, self.endpoint.document)
        )

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
        line = f"{self.method} {self.endpoint.path}"
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
            names = re.findall(r"\{([A-Za-z_][A-Za-z0-9_]*)", self.endpoint.path)
            return {"type": "object", "properties": {name: {} for name in names}, "required": names}
        properties: dict[str, Any] = {one.name: dict(one.schema) for one in self.parameters}
        required = [one.name for one in self.parameters if one.is_required]
        if (declared := operation.get("requestBody")) is not None:
            body = _dereferenced(declared, self.endpoint.document)
            if BODY in properties:
                raise Conflict(f"`{self.name}` has a parameter `body` and a body", hint="rename the parameter")
            properties[BODY] = _body_schema(body)
            required += [BODY] if body.get("required") else []
        schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        return _self_contained(schema, self.endpoint.document)


METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


class OpenApiTable:
    """The tools of an HTTP API, by its OpenAPI document. A path without parameters comes before one with parameters."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Raises Malformed for a document without paths."""
        paths = document.get("paths")
        if not isinstance(paths, Mapping):
            raise Malformed("the OpenAPI document has no `paths`")
        self._rules: list[tuple[str, re.Pattern[str], HttpTool]] = []
        for path in sorted(paths, key=lambda path: (str(path).count("{"), str(path))):
            for method in METHODS:
                if isinstance(operation := paths[path].get(method), Mapping):
                    shared = paths[path].get("parameters", [])
                    whole = {**operation, "parameters": [*shared, *operation.get("parameters", [])]}
                    self._rules.append((method.upper(), _template(path), _tool(method, path, whole, document)))

    @property
    def tools(self) -> list[HttpTool]:
        """Raises Malformed for two operations of one name."""
        names = Counter(tool.name for _, _, tool in self._rules)
        if twice := [name for name, count in names.items() if count > 1]:
            raise Malformed(f"two operations have the `operationId` {twice[0][:64]!a}")
        return [tool for _, _, tool in self._rules]

    @property
    def listing(self) -> dict[str, Any]:
        """The tools as MCP's `tools/list` lists them."""
        return {"tools": [tool.listed for tool in self.tools]}

    def find(self, method: str, raw_path: str) -> tuple[HttpTool, dict[str, str]] | None:
        """Return the tool that a request calls with the parameters of its path, or None.

        Raises Malformed for a path with an encoded separator: servers disagree on what it means.
        """
        if re.search("%2f|%5c|%25|%00", raw_path, re.IGNORECASE):
            raise Malformed("the path has an encoded separator", hint="send it in the query or in the body")
        for known, pattern, tool in self._rules:
            if method == known and (matched := pattern.fullmatch(raw_path)) is not None:
                return tool, {
                    name: unquote(value) for name, value in zip(tool.path_names, matched.groups(), strict=True)
                }
        return None


def _tool(method: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> HttpTool:
    name = str(operation.get("operationId") or "")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", name):
        name = slug(name or f"{method} {path}")[:128]
    endpoint = Endpoint(None, path, name, (method.upper(),), {method: operation}, document)
    return HttpTool(name, endpoint, method.upper())


def _template(path: str) -> re.Pattern[str]:
    return re.compile(
        "".join("([^/]+)" if part.startswith("{") else re.escape(part) for part in _PARAMETER.split(path))
    )


_PARAMETER = re.compile(r"(\{[^{}/]*\})")


def listing(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tools of an OpenAPI document as MCP's `tools/list` lists them. Raises Malformed."""
    return OpenApiTable(document).listing


def slug(text: str) -> str:
    """Return a name in letters, digits and `_`."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "root"


def _query(query_string: bytes, declared: Sequence[Parameter]) -> dict[str, Any]:
    """Parse a query or a form. Raises Malformed for a name sent twice, unless the document declares a list."""
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise Malformed("the query does not parse") from None
    lists = {one.name for one in declared if _kind(one.schema) == "array"}
    parameters: dict[str, Any] = {}
    for name, value in pairs:
        if name in lists:
            parameters.setdefault(name, []).append(value)
        elif name in parameters:
            raise Malformed(f"the parameter `{name[:64]}` was sent twice", hint="send each parameter once")
        else:
            parameters[name] = value
    return parameters


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
