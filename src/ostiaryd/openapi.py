"""The OpenAPI 3.1 document of the server, generated from its routes.

Request and response schemas come from the types that the wire functions parse and render; refusals come from the
function that renders them in each protocol. Examples are composed from `EXAMPLES`, which has one example for each
member name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from ostiary.protocol.errors import Refused
from ostiaryd.ground.config import Config
from ostiaryd.ground.http.routes import Content, Either, PageBody, Route, RouteProtocol
from ostiaryd.registry.model import SELF

Schema = dict[str, Any]
Describe = Callable[[Any], Schema]

EXAMPLES: Schema = {
    "action": {"name": "read"},
    "agent": "invoices",
    "agent_id": "ag_019a7b3c5d6e7f8091a2b3c4d5e6f708",
    "alg": "ES256",
    "approval_id": "ap_019a7b3c5d6e7f8091a2b3c4d5e6f708",
    "call": "Zm9vYmFyYmF6cXV4cXV1eA",
    "client_id": "ag_019a7b3c5d6e7f8091a2b3c4d5e6f708",
    "created_at": 1793181600,
    "deputy": "bob",
    "email": "alice@example.com",
    "files": {"policy.cedar": '@id("read")\npermit (principal, action, resource);'},
    "hash": "5f0c1d2e3b4a59687786a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "incident_id": "in_019a7b3c5d6e7f8091a2b3c4d5e6f708",
    "jwk": {
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    },
    "keep": {"bg_1": 5},
    "kid": "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U",
    "limit": 100,
    "name": "invoices",
    "need": {"bg_1": 5},
    "networks": ["192.0.2.0/24"],
    "owner": "alice",
    "path": "000",
    "person": "alice",
    "person_id": "pe_019a7b3c5d6e7f8091a2b3c4d5e6f708",
    "purpose": "Pay invoices that a person approved",
    "reason": "checked with the owner",
    "resource": {"type": "record", "id": "invoice-7"},
    "resource_id": "rs_019a7b3c5d6e7f8091a2b3c4d5e6f708",
    "scopes": ["files:read"],
    "spool": "9f2c4d5e6a7b8091a2b3c4d5e6f70819",
    "stream_id": "st_019a7b3c5d6e7f8091a2b3c4d5e6f708",
    "subject": {"type": "user", "id": "alice"},
    "task": "tk_019a7b3c5d6e7f8091a2b3c4d5e6f708",
    "task_id": "tk_019a7b3c5d6e7f8091a2b3c4d5e6f708",
    "uri": "https://files.example.com/mcp",
    "url": "https://hooks.example.com/ostiary",
    "why": "the key was published by mistake",
}
"""Example for each member name. If the type of a member differs from that of the example, an example for its type is
used.
"""

DPOP, API_KEY, SETS = "dpop", "pepKey", "transmitter"
SECURITY_SCHEMES: Schema = {
    DPOP: {
        "type": "http",
        "scheme": "DPoP",
        "description": "An access token for `<public URL>/api/v1` that is bound to a key, and in the header `DPoP` a "
        "proof of that key (RFC 9449). The scopes are listed per operation; an operation without a scope is open to "
        "each authenticated caller, and returns or changes only the caller's own objects.",
    },
    API_KEY: {
        "type": "http",
        "scheme": "bearer",
        "description": "The API key of a static policy enforcement point, from its registered networks.",
    },
    SETS: {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "The `authorization_header` of the stream, as `POST /api/v1/issuers` returned it.",
    },
}


def describe_routes(routes: Iterable[Route], config: Config, *, version: str) -> Schema:
    """Return the OpenAPI 3.1 document of these routes. Routes with the method LIST, which OpenAPI 3.1 cannot describe,
    are left out.
    """
    routes = tuple(routes)
    types = {id(kind): kind for route in routes for kind in _types(route)}
    schemas, components = msgspec.json.schema_components(types.values(), ref_template="#/components/schemas/{name}")
    for schema in (*schemas, *components.values()):
        _make_portable(schema)
    schema_of = dict(zip(types, schemas, strict=True))

    def describe(kind: Any) -> Schema:
        if isinstance(kind, PageBody):
            return _describe_page(kind, schema_of[id(kind.row)])
        if isinstance(kind, Either):
            return {"anyOf": [schema_of[id(kind.first)], schema_of[id(kind.second)]]}
        return {} if kind is None else schema_of[id(kind)]

    examples = _Examples(components)
    paths: dict[str, Schema] = {}
    for route in routes:
        # OpenAPI 3.1 cannot describe the method LIST; `GET ?list=true` is the same operation
        if route.method == "LIST":
            continue
        path = re.sub(r":\w+}", "}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _describe_route(route, describe, examples)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ostiary",
            "version": version,
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
            "description": "Identity and access control plane for AI agents. A path that is not listed answers 404; a "
            "method that is not listed for its path answers 405 with `Allow`. Every answer has an `x-request-id`, "
            "which names the request in the log and the ledger.",
        },
        "servers": [{"url": config.public_url}],
        "tags": [{"name": name} for name in sorted({route.protocol.name for route in routes})],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": _share_responses(paths),
            "securitySchemes": SECURITY_SCHEMES,
            "headers": {
                "RequestId": {"required": True, "schema": {"type": "string"}, "description": "Id of the request."},
                "RetryAfter": {
                    "required": True,
                    "schema": {"type": "string", "pattern": "^[0-9]+$"},
                    "description": "Seconds after which to try again.",
                },
            },
        },
    }


def _make_portable(schema: Any) -> None:
    """Change a schema of msgspec in place, so that other tools interpret it in the same way.

    Patterns of JSON Schema are those of ECMA-262, which has no `\\A` and `\\Z`. Each array gets an object as `items`,
    which some tools require. Arrays whose items differ by position get `maxItems`.
    """
    for member in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _make_portable(member)
    if not isinstance(schema, dict):
        return
    if isinstance(pattern := schema.get("pattern"), str):
        schema["pattern"] = pattern.replace(r"\A", "^").replace(r"\Z", "$")
    if schema.get("type") == "array" and not schema.get("items"):
        schema["items"] = {}


def _types(route: Route) -> Iterator[Any]:
    """Yield every type for which the document needs a schema because of the route."""
    contents = [route.body, *route.answers.values(), route.protocol.error, *(one.type for one in route.query)]
    for one in contents:
        kind = one.type if isinstance(one, Content) else one
        if isinstance(kind, Either):
            yield from (kind.first, kind.second)
        elif kind is not None:
            yield kind.row if isinstance(kind, PageBody) else kind


def _describe_page(page: PageBody, row: Schema) -> Schema:
    """Return the schema of a page of rows. In place of a row that is too long, a page has an object with `cut`, the
    names of the omitted members.
    """
    cut = {"type": "object", "required": ["cut"], "properties": {"cut": {"type": "array", "items": {"type": "string"}}}}
    return {
        "type": "object",
        "properties": {
            page.kind: {"type": "array", "items": {"anyOf": [row, cut]}},
            "total": {"type": ["integer", "null"], "description": "Number of all rows, if it was requested."},
            "next": {
                "type": ["string", "null"],
                "description": "Cursor of the page that follows, which may be empty; null at the end.",
                "examples": [None],
            },
        },
        "required": [page.kind, "next"],
        "additionalProperties": False,
    }


def _describe_route(route: Route, describe: Describe, examples: _Examples) -> Schema:
    operation: Schema = {
        "operationId": _operation_id(route),
        "tags": [route.protocol.name],
        "summary": route.summary,
    }
    if route.description:
        operation["description"] = route.description
    parameters = [_path_parameter(name) for name in route.parameters]
    for query in route.query:
        one = {"name": query.name, "in": "query", "required": query.is_required, "description": query.description}
        parameters.append(one | {"schema": describe(query.type)})
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        content = _content(route.body)
        operation["requestBody"] = {
            "required": content.is_required,
            "content": _media(content, describe, examples),
        }
    operation["responses"] = dict(sorted(_responses(route, describe, examples).items()))
    operation["security"] = _security(route)
    return operation


def _operation_id(route: Route) -> str:
    path = f"{route.path}slash" if route.path.endswith("/") else route.path
    words = re.findall(r"[A-Za-z0-9]+", re.sub(r":\w+}", "}", path))
    return route.method.lower() + "".join(word[:1].upper() + word[1:] for word in words)


def _path_parameter(name: str) -> Schema:
    example = EXAMPLES.get(name if isinstance(EXAMPLES.get(name), str) else "task_id")
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema, "example": example}


def _security(route: Route) -> list[Schema]:
    if not route.scope:
        return [{SETS: []}] if route.path.startswith("/api/v1/signals/") else []
    schemes: list[Schema] = [{DPOP: [] if route.scope == SELF else [route.scope]}]
    return schemes + [{API_KEY: []}] * route.allows_peps


def _responses(route: Route, describe: Describe, examples: _Examples) -> Schema:
    responses: Schema = {}
    for status, answer in route.answers.items():
        one: Schema = {"description": _REASONS.get(status, "Success"), "headers": _headers(status)}
        if answer is not None:
            one["content"] = _media(_content(answer), describe, examples)
        responses[str(status)] = one
    for status, refusals in route.error_statuses.items():
        one = responses.setdefault(str(status), {"description": "", "headers": _headers(status)})
        codes = dict.fromkeys(refusal.code for refusal in refusals)
        one["description"] = (one["description"] + " Refused: " + ", ".join(f"`{code}`" for code in codes)).strip()
        for refusal in refusals:
            _add_refusal(one, refusal, route.protocol, describe)
        for media_type in route.protocol.other_media_types:
            one["content"][media_type] = {}
    return responses


def _add_refusal(response: Schema, refusal: Refused, protocol: RouteProtocol, describe: Describe) -> None:
    """Add a refusal to a response: the schema of its form, and the refusal as an example. For an HTML page, add
    neither.
    """
    answer = protocol.render(refusal)
    assert isinstance(answer.body, bytes)
    content = response.setdefault("content", {})
    if protocol.error is None:
        content.setdefault(answer.media_type.partition(";")[0], {})
        return
    if not answer.body:
        return
    schema = describe(protocol.error)
    media = content.setdefault(answer.media_type, {"schema": schema, "examples": {}})
    if "example" in media:  # a successful response has the same status
        both = {"anyOf": [media["schema"], schema]}
        media = content[answer.media_type] = {"schema": both, "examples": {"answer": {"value": media["example"]}}}
    media["examples"].setdefault(refusal.code, {"value": msgspec.json.decode(answer.body)})


def _share_responses(paths: dict[str, Schema]) -> Schema:
    """Replace each response that several operations have by a reference, and return these responses by name."""
    users: dict[bytes, list[tuple[Schema, str]]] = {}
    for operations in paths.values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                key = msgspec.json.encode([operation["tags"], status, response])
                users.setdefault(key, []).append((operation, status))
    shared: Schema = {}
    for places in users.values():
        if len(places) > 1:
            operation, status = places[0]
            tag = operation["tags"][0].replace(" ", "")
            name = next(name for n in range(1, len(users)) if (name := f"{tag}{status}.{n}") not in shared)
            shared[name] = operation["responses"][status]
            for operation, status in places:
                operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    return shared


_REASONS = {
    200: "Success.",
    201: "Created.",
    202: "Accepted.",
    204: "Success, without content.",
    304: "Not modified.",
    503: "Not ready.",
}


def _headers(status: int) -> Schema:
    headers = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    return headers | ({"retry-after": {"$ref": "#/components/headers/RetryAfter"}} if status in (429, 503) else {})


def _content(kind: Any) -> Content:
    return kind if isinstance(kind, Content) else Content(kind)


def _media(content: Content, describe: Describe, examples: _Examples) -> Schema:
    media: Schema = {}
    if content.type is not None:
        media["schema"] = describe(content.type)
        media["example"] = content.example if content.example is not None else examples.of(media["schema"])
    return dict.fromkeys(content.media_types, media)


class _Examples:
    """Generates examples for schemas."""

    def __init__(self, components: Schema) -> None:
        self._components = components

    def of(self, schema: Schema, name: str = "", depth: int = 0) -> Any:
        """Return an example that the schema accepts: the schema's own example or first enumerated value, else the
        example in `EXAMPLES` for a member of this `name`, else a value of the type. Optional members with a default are
        left out, and from the nesting `depth` 6 on all optional members.
        """
        if "$ref" in schema:
            return self.of(self._components[schema["$ref"].rpartition("/")[2]], name, depth)
        if "examples" in schema:
            return schema["examples"][0]
        if "enum" in schema:
            return schema["enum"][0]
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self.of(self._best(schema[union], name), name, depth)
        kind = schema.get("type")
        kinds = kind if isinstance(kind, list) else [kind]
        if name in EXAMPLES and kinds[0] == _TYPE_NAMES.get(type(EXAMPLES[name])):
            example = EXAMPLES[name]
            items, values = schema.get("items", {}), schema.get("additionalProperties")
            has_objects = "$ref" in items or items.get("type") == "object"
            is_other_list = isinstance(example, list) and isinstance(example[0], dict) != has_objects
            is_map_of_enum = isinstance(values, dict) and "enum" in values
            if not is_other_list and (
                not isinstance(example, dict)
                or (
                    set(schema.get("required", ())) <= example.keys() <= schema.get("properties", example).keys()
                    and not is_map_of_enum
                )
            ):
                return example
        match kinds[0]:
            case "object":
                properties = schema.get("properties", {})
                required: set[str] = set(schema.get("required", ()))
                shown = {one: sub for one, sub in properties.items() if one in required or "default" not in sub}
                return {one: self.of(sub, one, depth + 1) for one, sub in shown.items() if depth < 6 or one in required}
            case "array":
                return [self.of(schema["items"], name.removesuffix("s"), depth + 1)] if schema.get("items") else []
            case "integer" | "number":
                return max(schema.get("minimum", 1), 1)
            case "boolean":
                return bool(schema.get("default", False))
            case "string":
                return schema.get("default") or "example"
        return None if "null" in kinds or schema else {}

    def _best(self, options: list[Schema], name: str) -> Schema:
        """Return the first of the options whose type is that of the example for this name; if there is none, the first
        option that is not null.
        """
        kind = None if isinstance(EXAMPLES.get(name), dict) else _TYPE_NAMES.get(type(EXAMPLES.get(name)))
        some = [one for one in options if one.get("type") != "null"] or options
        return next((one for one in some if kind is not None and one.get("type") == kind), some[0])


_TYPE_NAMES: dict[type, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
}
