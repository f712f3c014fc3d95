"""HTTP operations as tools: the arguments of a request, the schema and the listing of a tool, from an OpenAPI document.

The arguments of a call are the parameters of the path, of the query and, where the OpenAPI document declares them, of
headers and cookies, by name; and the body as the argument `body`.

| body | argument `body` |
| --- | --- |
| JSON | its value |
| `application/x-www-form-urlencoded` | an object of its fields |
| any other | `{"type", "bytes", "sha256"}`: its content is not judged |

A body that looks like JSON is judged as JSON, whatever its `Content-Type` says. A body in which the guard and the
application could read different values is refused: a member sent twice, another encoding than UTF-8, a compressed body,
a form that looks like JSON. Absent parameters, and absent members of a body, have the defaults that the document
declares.

Source: OpenAPI 3.1, sections 4.8.8 to 4.8.14.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict, Malformed
from ostiary.protocol.jose import b64u
from ostiary.tools import fill_defaults, json_argument

MAX_PARAMETERS = 100
MAX_REFERENCES = 16
"""maximum number of references in a chain"""
BODY = "body"
"""name of the argument with the body of a request"""
OWN_HEADERS = frozenset(("authorization", "dpop"))
"""headers for the guard, which are never arguments"""
PLACES = frozenset(("query", "path", "header", "cookie"))
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,15})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,15})?")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_JSON_TYPE = re.compile(r"application/(?:[a-z0-9.!#$&^_+-]+\+)?json")
_FORM_TYPE = "application/x-www-form-urlencoded"
_ENCODED_BEGINNINGS = (b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route that runs code, and its operations in the OpenAPI document, by method in lower case."""

    route: Any
    """a route, or FastAPI's context of a route in an included router; both have `matches`"""
    path: str
    """path template from the root of the application"""
    name: str
    methods: tuple[str, ...]
    """methods without HEAD; empty: every method. `WEBSOCKET` for a WebSocket route"""
    operations: Mapping[str, Mapping[str, Any]]
    document: Mapping[str, Any]
    """the OpenAPI document; empty if there is none"""
    hidden_by: frozenset[str] = frozenset()
    """methods for which the OpenAPI document describes another route with the same path instead of this route"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that the OpenAPI document declares. `place`: path, query, header or cookie."""

    name: str
    place: str
    schema: Mapping[str, Any]
    is_required: bool


@dataclass(frozen=True, slots=True)
class HttpTool:
    """A tool that is one method of a route."""

    name: str
    endpoint: Endpoint
    method: str

    @property
    def operation(self) -> Mapping[str, Any] | None:
        """The operation in the OpenAPI document; None for an operation that the document lacks."""
        return self.endpoint.operations.get(self.method.lower())

    @property
    def path_names(self) -> list[str]:
        """The names of the parameters in the path."""
        return re.findall(r"\{([^{}/:]*)[^{}/]*\}", self.endpoint.path)

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters that the OpenAPI document declares."""
        return [
            Parameter(one["name"], one["in"], _schema(one, "the `schema` of a parameter"), bool(one.get("required")))
            for declared in (self.operation or {}).get("parameters", ())
            if (one := _dereferenced(declared, self.endpoint.document)) and one.get("in") in PLACES
        ]

    def arguments(self, scope: Mapping[str, Any], path_params: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        """Return the arguments of a call. Raises Malformed if the guard and the application could read
        different values.
        """
        declared, document = self.parameters, self.endpoint.document
        arguments: dict[str, Any] = {}
        lists = {one.name for one in declared if one.place == "query" and _kind(one.schema, document) == "array"}
        for name, value in path_params.items():
            self._put(arguments, name, json_argument(value, name), declared, place="path")
        for name, value in _query(scope["query_string"], lists).items():
            self._put(arguments, name, value, declared, place="query")
        for one, value in _headers(scope, declared):
            self._put(arguments, one.name, value, declared, place=one.place)
        if body:
            kind, value = _body(scope, body)
            self._put(arguments, BODY, _completed(value, self._body_schema(kind), document), declared, place=BODY)
        return fill_defaults(arguments, self.input_schema) if self.operation is not None else arguments

    def _put(
        self, arguments: dict[str, Any], name: str, value: Any, declared: Sequence[Parameter], *, place: str
    ) -> None:
        """Add an argument of the call. Raises Malformed for a parameter in the wrong part of the request, or
        with a second value.
        """
        own = [one for one in declared if one.name == name]
        is_misplaced = bool(own) and place not in [one.place for one in own]
        if name in arguments:
            raise Malformed(f"the parameter `{name[:64]}` was sent twice", hint="send each parameter once")
        if is_misplaced or (name == BODY and place != BODY and self._has_body):
            raise Malformed(
                f"the parameter `{name[:64]}` is in the wrong part of the request ({place})",
                hint="send each parameter where the API expects it",
            )
        schema = next((one.schema for one in own if one.place == place), None)
        arguments[name] = (
            value if schema is None or place == BODY else _typed(name, value, schema, self.endpoint.document)
        )

    def _body_schema(self, kind: str) -> Mapping[str, Any]:
        """Return the schema of a body with this media type; empty if the document has none."""
        body = _dereferenced((self.operation or {}).get("requestBody") or {}, self.endpoint.document)
        return _schema(body.get("content", {}).get(kind, {}), "a `schema` of the body")

    @property
    def _has_body(self) -> bool:
        return self.operation is None or "requestBody" in self.operation

    @property
    def listed(self) -> dict[str, Any]:
        """The tool as a member of `tools` in a response to MCP's `tools/list`."""
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
        """The JSON Schema of the tool's arguments. Raises Conflict if a parameter of an operation with a body is named
        `body`.
        """
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
    """The tools of an HTTP API, as its OpenAPI document describes them. A path with fewer parameters matches first."""

    def __init__(self, unverified: object) -> None:
        """Read the operations of an OpenAPI document. Raises Malformed for a document without paths, for a member of
        another type than OpenAPI states, and for two parameters of one name in a path or in a list of parameters.
        """
        document = _object(unverified, "the OpenAPI document")
        if "paths" not in document:
            raise Malformed("the OpenAPI document has no `paths`", hint="give a complete OpenAPI document")
        paths = _object(document["paths"], "`paths` of the OpenAPI document")
        components = _object(document.get("components", {}), "`components` of the OpenAPI document")
        _object(components.get("schemas", {}), "`schemas` in the `components` of the OpenAPI document")
        self._rules = list[_Rule]()
        templates = [path for path in paths if not path.startswith("x-")]  # `x-` begins an extension (section 4.9)
        for path in sorted(templates, key=lambda path: (path.count("{"), path)):
            item = _object(paths[path], f"the path {path[:64]!a}")
            for method in METHODS:
                if isinstance(operation := item.get(method), Mapping):
                    place = f"`{method}` of the path {path[:64]!a}"
                    if (body := operation.get("requestBody")) is not None:
                        _check_body(body, document, place)
                    shared, own = (_parameters(one, document, place) for one in (item, operation))
                    whole = {**operation, "parameters": _merged(shared, own)}
                    tool = _tool(method, path, whole, document)
                    _check_different(tool.path_names, f"the path {path[:64]!a}")
                    self._rules.append(_Rule(*_template(path), tool))

    @property
    def tools(self) -> list[HttpTool]:
        """Return the tools of the document. Raises Malformed if two operations have the same name."""
        names = Counter(rule.tool.name for rule in self._rules)
        if twice := [name for name, count in names.items() if count > 1]:
            raise Malformed(
                f"two operations have the name {twice[0][:64]!a} (from `operationId`, or else from method and path)",
                hint="give each operation a different `operationId`",
            )
        return [rule.tool for rule in self._rules]

    @property
    def listing(self) -> dict[str, Any]:
        """The tools in the form of a response to MCP's `tools/list`."""
        return {"tools": [tool.listed for tool in self.tools]}

    def find(self, method: str, raw_path: str) -> tuple[HttpTool, dict[str, str]] | None:
        """Return the tool that a request calls, with the parameters of its path; None for an unknown operation.

        Raises Malformed for a path that servers may route to another operation: some servers decode a path before they
        route it, or ignore its case.
        """
        check_path(raw_path)
        raw = _ESCAPE.sub(lambda escape: escape[0].upper(), raw_path)
        rules = [rule for rule in self._rules if rule.tool.method == method]
        exact = next(((rule, match) for rule in rules if (match := rule.exact.fullmatch(raw))), None)
        if exact is None:
            return None
        rule, match = exact
        others = [other for other in rules if other is not rule and other.lenient.fullmatch(unquote(raw))]
        if any(len(other.tool.path_names) <= len(rule.tool.path_names) for other in others):
            raise Malformed(
                "the path matches several operations",
                hint="write the path as in the OpenAPI document, without unnecessary escapes",
            )
        names = rule.tool.path_names
        return rule.tool, {name: unquote(value) for name, value in zip(names, match.groups(), strict=True)}


@dataclass(frozen=True, slots=True)
class _Rule:
    """An operation. `exact` matches the path as sent; `lenient` matches the decoded path and ignores case."""

    exact: re.Pattern[str]
    lenient: re.Pattern[str]
    tool: HttpTool


def check_path(raw_path: str) -> None:
    """Check that all servers divide the path into the same segments. Raises Malformed for encoded separators, encoded
    percent signs and NUL, a semicolon, and an empty segment.
    """
    if re.search("%2f|%5c|%25|%00|;|//", raw_path, re.IGNORECASE):
        raise Malformed(
            "the path has an encoded `/`, `\\`, `%` or NUL, a semicolon, or an empty segment",
            hint="send the value in the query or in the body",
        )


def _tool(method: str, path: str, operation: Mapping[str, Any], document: Mapping[str, Any]) -> HttpTool:
    name = str(operation.get("operationId") or "")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", name):
        name = slug(name or f"{method} {path}")[:128]
    endpoint = Endpoint(None, path, name, (method.upper(),), {method: operation}, document)
    return HttpTool(name, endpoint, method.upper())


def _object(unverified: object, name: str) -> Mapping[str, Any]:
    """Return a part of an OpenAPI document. Raises Malformed, with `name`, for a part that is not an object."""
    if not isinstance(unverified, Mapping):
        raise Malformed(f"{name} is not a JSON object", hint="correct the OpenAPI document")
    return unverified


def _schema(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the `schema` of a parameter or a media type; empty, for any value, if the schema is absent or `true`.
    Raises Malformed, with `name`, for a schema of another form, such as `false`.
    """
    schema = holder.get("schema")
    return {} if schema is None or schema is True else _object(schema, name)


def _parameters(holder: Mapping[str, Any], document: Mapping[str, Any], place: str) -> list[Mapping[str, Any]]:
    """Return the parameters of a path or an operation, with references resolved. Raises Malformed, with `place`, for
    parameters of another form.
    """
    declared = holder.get("parameters", [])
    if not isinstance(declared, list):
        raise Malformed(f"the `parameters` of {place} are not a list", hint="correct the OpenAPI document")
    name = f"a parameter of {place}"
    whole = [_object(_resolved(_object(one, name), document), name) for one in declared]
    named = [one for one in whole if str(one.get("in")) in PLACES]
    for one in named:
        if not isinstance(one.get("name"), str):
            raise Malformed(f"a parameter of {place} has no `name`", hint="correct the OpenAPI document")
        _schema(one, f"the `schema` of a parameter of {place}")
    for kind in PLACES:
        _check_different([one["name"] for one in named if one["in"] == kind], f"`{kind}` of {place}")
    return named


def _check_different(names: Sequence[str], place: str) -> None:
    """Check that each parameter has a name of its own. Raises Malformed, with `place`, otherwise: the guard and the
    application could read different values.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise Malformed(
            f"{place} has two parameters with the name {twice[0][:64]!a}", hint="give each parameter another name"
        )


def _check_body(unverified: object, document: Mapping[str, Any], place: str) -> None:
    """Check the forms of the parts of a request body. Raises Malformed, with `place`, for a part of another form."""
    name = f"the `requestBody` of {place}"
    body = _object(_resolved(_object(unverified, name), document), name)
    for media in _object(body.get("content", {}), f"the `content` of {place}").values():
        _schema(_object(media, f"a media type of {place}"), f"a `schema` of the body of {place}")


def _merged(shared: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the parameters of an operation. Its own parameters replace those of its path (OpenAPI 3.1, section
    4.8.10).
    """
    return list({(one["in"], one["name"]): one for one in (*shared, *own)}.values())


def _template(path: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return two patterns for a path: one for the path as sent, and one for the decoded path that ignores case."""
    parts = _PARAMETER.split(path)
    exact = ["([^/]+)" if part.startswith("{") else re.escape(quote(unquote(part), _UNESCAPED)) for part in parts]
    lenient = ["([^/]+)" if part.startswith("{") else re.escape(unquote(part)) for part in parts]
    return re.compile("".join(exact)), re.compile("".join(lenient), re.IGNORECASE)


_PARAMETER = re.compile(r"(\{[^{}/]*\})")
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_UNESCAPED = "/:@!$&'()*+,=~"
"""characters of a path that need no escape (RFC 3986 section 3.3)"""


def listing(unverified: object) -> dict[str, Any]:
    """Return the tools of an OpenAPI document in the form of a response to MCP's `tools/list`. Raises Malformed for a
    document without paths or with a member of a wrong type, and for two operations with one name.
    """
    return OpenApiTable(unverified).listing


def slug(text: str) -> str:
    """Return the text with each run of characters other than letters and digits replaced by `_`, and without `_` at its
    beginning and end; `root` if nothing is left.
    """
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "root"


def _query(query_string: bytes, lists: Collection[str] = ()) -> dict[str, Any]:
    """Parse a query or a form. `lists`: names that may be sent several times.

    Raises Malformed for any other repeated name, and for a semicolon, which some servers treat as an ampersand.
    """
    if b";" in query_string:
        raise Malformed("the query or the form has a semicolon", hint="write the semicolon as %3B")
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        hint = "percent-encode other characters (RFC 3986)"
        raise Malformed("the query or the form is not ASCII", hint=hint) from None
    except ValueError:
        raise Malformed(f"the query or the form has more than {MAX_PARAMETERS} parameters") from None
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
    """Yield the headers and cookies that the document declares, with their values.

    Raises Malformed for a repeated header or cookie. CGI and WSGI treat the header `x_level` as `x-level`.
    """
    sent = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    names = Counter(name.replace("_", "-") for name, _ in sent)
    cookies: dict[str, str] = {}
    own_cookies = {one.name for one in declared if one.place == "cookie"}
    for pair in "; ".join(value for name, value in sent if name == "cookie").split(";"):
        name, _, value = (part.strip() for part in pair.partition("="))
        if name not in own_cookies:
            continue
        if name in cookies:
            raise Malformed(f"the cookie `{name[:64]}` was sent twice", hint="send each cookie once")
        if "\\" in value:
            raise Malformed(f"the value of the cookie `{name[:64]}` has a backslash", hint="leave out the backslash")
        cookies[name] = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    for one in declared:
        if one.place == "cookie" and one.name in cookies:
            yield one, cookies[one.name]
        elif one.place == "header" and (header := one.name.lower()) not in OWN_HEADERS:
            values = [value for name, value in sent if name == header]
            if len(values) > 1:
                raise Malformed(f"the header `{one.name[:64]}` was sent twice", hint="send each header once")
            if names[header.replace("_", "-")] > len(values):
                raise Malformed(
                    f"the header `{one.name[:64]}` was sent with `_` in place of `-` or the reverse",
                    hint="send the header once, as the API names it",
                )
            if values:
                yield one, values[0]


def _body(scope: Mapping[str, Any], body: bytes) -> tuple[str, Any]:
    """Return the media type and the value of a body. Raises Malformed for a body that an application may read
    differently.
    """
    sent = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    types = [value for name, value in sent if name == "content-type"]
    if any(name == "content-encoding" and value.lower() != "identity" for name, value in sent):
        raise Malformed("the body has a `Content-Encoding`", hint="send the body uncompressed")
    if len(types) != 1:
        raise Malformed("a body needs one `Content-Type`", hint="send one type, such as application/json")
    kind, *options = (part.strip().lower() for part in types[0].split(";"))
    pairs = [[part.strip() for part in option.partition("=")] for option in options]
    charsets = {value.strip('"') for name, _, value in pairs if name == "charset"}
    is_text = not kind.startswith(("multipart/", "image/", "audio/", "video/")) and kind != "application/octet-stream"
    is_utf8 = charsets <= {"utf-8", "utf8"} and not body.startswith(_ENCODED_BEGINNINGS) and b"\0" not in body[:4]
    if is_text and not is_utf8:
        raise Malformed("the body is not in UTF-8", hint="send UTF-8")
    looks_like_json = body.lstrip()[:1] in (b"{", b"[")
    if kind == _FORM_TYPE and looks_like_json:
        raise Malformed(
            "the body is JSON, and `Content-Type` names a form", hint="send the type `application/json`, or a form"
        )
    if _JSON_TYPE.fullmatch(kind) or looks_like_json:
        return kind, canonical.parse(body, max_bytes=len(body), max_depth=canonical.MAX_ARGUMENTS_DEPTH)
    if kind == _FORM_TYPE:
        return kind, _query(body)
    return kind, {"type": kind, "bytes": len(body), "sha256": b64u(sha256(body).digest())}


def _completed(value: Any, schema: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    """Return a body with the defaults of its absent members filled in."""
    shapes = _shapes(schema, document)
    if isinstance(value, list):
        items: Mapping[str, Any] = next((one["items"] for one in shapes if isinstance(one.get("items"), Mapping)), {})
        return [_completed(one, items, document) for one in value]
    objects = [one for one in shapes if isinstance(one.get("properties"), Mapping)]
    if not isinstance(value, dict) or len(objects) != 1:
        return value
    sent = {name: _completed(one, objects[0]["properties"].get(name, {}), document) for name, one in value.items()}
    return fill_defaults(sent, objects[0])


def _shapes(schema: object, document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the schema and its parts (`anyOf`, `oneOf`, `allOf`), with references resolved."""
    whole = _dereferenced(schema, document)
    lists = [whole.get(word) for word in ("anyOf", "oneOf", "allOf")]
    parts = [part for one in lists if isinstance(one, list) for part in one]
    return [whole, *(_dereferenced(part, document) for part in parts if isinstance(part, Mapping))]


def _kind(schema: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """Return the type of a parameter, without `null`; `string` if there are several types."""
    types = [one.get("type") for one in _shapes(schema, document)]
    kinds = {str(kind) for one in types if one for kind in (one if isinstance(one, list) else [one])} - {"null"}
    return kinds.pop() if len(kinds) == 1 else "string"


def _typed(name: str, value: Any, schema: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    """Return the text of a parameter as a JSON value of the declared type. Raises Malformed for text of another
    type.
    """
    kind = _kind(schema, document)
    if kind == "array" and isinstance(value, list):
        items: Mapping[str, Any] = next((one["items"] for one in _shapes(schema, document) if "items" in one), {})
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
        raise Malformed(f"the parameter `{name[:64]}` is not of type {kind}", hint="write the value as in JSON")
    return value


def _body_schema(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of the argument `body`: that of JSON if it is the only media type, else a schema that
    allows any value.
    """
    content = body.get("content", {})
    schemas = [_schema(one, "a `schema` of the body") for kind, one in content.items() if _JSON_TYPE.fullmatch(kind)]
    return dict(schemas[0]) if len(schemas) == 1 == len(content) else {}


def _dereferenced(value: object, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the value after following its `$ref`; empty for a value that is not an object, such as the schema `true`.
    Raises Malformed as `_resolved` does.
    """
    value = _resolved(value, document)
    return value if isinstance(value, Mapping) else {}


def _resolved(value: object, document: Mapping[str, Any]) -> object:
    """Return the value after following its `$ref` within the document. Raises Malformed for a `$ref` that leads
    nowhere, and for a chain of more than MAX_REFERENCES: without a target, every value would be allowed.
    """
    for _ in range(MAX_REFERENCES + 1):
        if not isinstance(value, Mapping) or (ref := value.get("$ref")) is None:
            return value
        value = _target(ref, document)
    raise Malformed(f"a chain has more than {MAX_REFERENCES} `$ref`", hint="correct the OpenAPI document")


def _target(ref: object, document: Mapping[str, Any]) -> object:
    """Return the value to which a `$ref` refers (RFC 6901). Raises Malformed for a `$ref` that leads nowhere."""
    at: Any = {"#": document}
    for part in str(ref).split("/"):
        part = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(at, list):
            at = {str(index): item for index, item in enumerate(at)}
        if not isinstance(at, Mapping) or part not in at:
            raise Malformed(
                f"the `$ref` {str(ref)[:100]!a} leads nowhere", hint="refer to a part of the same OpenAPI document"
            )
        at = at[part]
    return at


_COMPONENT = "#/components/schemas/"


def _self_contained(schema: dict[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with copies of all referenced parts of the document in `$defs`. Raises Malformed for a `$ref`
    that leads nowhere.
    """
    needed: dict[str, Any] = {}

    def moved(value: Any) -> Any:
        if isinstance(value, Mapping):
            if not isinstance(ref := value.get("$ref"), str):  # else a property may have the name `$ref`
                return {key: moved(one) for key, one in value.items()}
            copy = {key: moved(one) for key, one in value.items() if key != "$ref"}
            name = ref.removeprefix(_COMPONENT)
            if name not in needed:
                needed[name] = {}
                needed[name] = moved(_target(ref, document))
            return copy | {"$ref": f"#/$defs/{name.replace('~', '~0').replace('/', '~1')}"}
        return [moved(one) for one in value] if isinstance(value, list) else value

    whole: dict[str, Any] = moved(schema)
    return whole | ({"$defs": needed} if needed else {})
