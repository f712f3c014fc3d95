"""Arguments of HTTP operations: what an application may read otherwise than the guard is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from starlette.requests import cookie_parser

from ostiary.authorization.arguments.plain import BadArguments
from ostiary.authorization.arguments.schema import Arguments
from ostiary.openapi import MAX_REFERENCES, HttpTool, OpenApiTable, listing
from ostiary.protocol.errors import Malformed
from ostiary.proxy.guarded_http import MethodTable

FORM = "application/x-www-form-urlencoded"
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "paths": {
        "/pay": {
            "parameters": [{"name": "currency", "in": "query", "schema": {"type": "integer"}}],
            "post": {
                "operationId": "pay",
                "parameters": [
                    {"name": "x-level", "in": "header", "schema": {"type": "string"}},
                    {"name": "level", "in": "cookie", "schema": {"type": "string"}},
                    {"name": "currency", "in": "query", "schema": {"type": "string"}},
                    {
                        "name": "rank",
                        "in": "query",
                        "schema": {"anyOf": [{"$ref": "#/components/schemas/Rank"}, {"type": "null"}]},
                    },
                    {"name": "all", "in": "query", "schema": {"allOf": [{"$ref": "#/components/schemas/Rank"}]}},
                    {"name": "tags", "in": "query", "schema": {"$ref": "#/components/schemas/Tags"}},
                ],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Payment"}}}},
            },
        },
        "/users/me": {"get": {"operationId": "me"}, "put": {"operationId": "change_me"}},
        "/users/{user}": {"get": {"operationId": "user"}},
        "/caf%C3%A9": {"get": {"operationId": "cafe"}},
    },
    "components": {
        "schemas": {
            "Rank": {"type": "integer", "enum": [1, 2]},
            "Tags": {"type": "array", "items": {"type": "string"}},
            "Payment": {
                "type": "object",
                "properties": {
                    "to": {"type": "string"},
                    "amount": {"type": "integer", "default": 1000},
                    "via": {"$ref": "#/components/schemas/Via"},
                },
            },
            "Via": {"type": "object", "properties": {"bank": {"type": "string", "default": "house"}}},
        }
    },
}
TABLE = OpenApiTable(DOCUMENT)
LOOP = {"$ref": "#/components/a"}
NO_OBJECTS: list[Any] = [[], "", 0, False]


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ([], "the OpenAPI document is not a JSON object"),
        ({}, "the OpenAPI document has no `paths`"),
        ({"paths": []}, "`paths` of the OpenAPI document is not a JSON object"),
        ({"paths": {"/a": None}}, "the path '/a' is not a JSON object"),
        ({"paths": {"/a": {"parameters": 5, "get": {}}}}, "the `parameters` of `get` of the path '/a' are not a list"),
        ({"paths": {"/a": {"get": {"parameters": {}}}}}, "the `parameters` of `get` of the path '/a' are not a list"),
        ({"paths": {"/a": {"get": {"parameters": [5]}}}}, "a parameter of `get` of the path '/a' is not a JSON object"),
        (
            {"paths": {"/a": {"get": {"parameters": [{"in": "query"}]}}}},
            "a parameter of `get` of the path '/a' has no `name`",
        ),
        (
            {"paths": {"/a": {"get": {"parameters": [{"in": "query", "name": "x", "schema": False}]}}}},
            "the `schema` of a parameter of `get` of the path '/a' is not a JSON object",
        ),
        (
            {"paths": {"/a": {"post": {"requestBody": 5}}}},
            "the `requestBody` of `post` of the path '/a' is not a JSON object",
        ),
        *(
            (
                {"paths": {"/a": {"post": {"requestBody": empty}}}},
                "the `requestBody` of `post` of the path '/a' is not a JSON object",
            )
            for empty in NO_OBJECTS
        ),
        (
            {"paths": {"/a": {"post": {"requestBody": {"content": []}}}}},
            "the `content` of `post` of the path '/a' is not a JSON object",
        ),
        (
            {"paths": {"/a": {"post": {"requestBody": {"content": {"application/json": 5}}}}}},
            "a media type of `post` of the path '/a' is not a JSON object",
        ),
        (
            {"paths": {"/a": {"post": {"requestBody": {"content": {"application/json": {"schema": [1]}}}}}}},
            "a `schema` of the body of `post` of the path '/a' is not a JSON object",
        ),
        *(
            (
                {"paths": {"/a": {"post": {"requestBody": {"content": {"application/json": {"schema": never}}}}}}},
                "a `schema` of the body of `post` of the path '/a' is not a JSON object",
            )
            for never in NO_OBJECTS
        ),
        ({"paths": {"/a": {"get": {}}}, "components": []}, "`components` of the OpenAPI document is not a JSON object"),
        ({"paths": {"/a/{x}/{x}": {"get": {}}}}, "the path '/a/{x}/{x}' has two parameters with the name 'x'"),
        ({"paths": {"/a/{x}/{x:int}": {"get": {}}}}, "the path '/a/{x}/{x:int}' has two parameters with the name 'x'"),
        (
            {"paths": {"/a": {"get": {"parameters": [{"in": "query", "name": "x"}] * 2}}}},
            "`query` of `get` of the path '/a' has two parameters with the name 'x'",
        ),
        (
            {"paths": {"/a": {"get": {"parameters": [{"$ref": "#/nowhere"}]}}}},
            "the `$ref` '#/nowhere' leads nowhere",
        ),
        (
            {"paths": {"/a": {"post": {"requestBody": {"$ref": "#/components/a"}}}}, "components": {"a": False}},
            "the `requestBody` of `post` of the path '/a' is not a JSON object",
        ),
        (
            {"paths": {"/a": {"post": {"requestBody": {"$ref": "#/components/a"}}}}, "components": {"a": LOOP}},
            "a chain has more than 16 `$ref`",
        ),
        *(
            (
                {"paths": {"/a": {"get": {"parameters": [{"in": "query", "name": "x", "schema": {"$ref": ref}}]}}}},
                f"the `$ref` '{ref}' leads nowhere",
            )
            for ref in ["#/components/schemas/None", "#/paths/~1a/get/parameters/1/schema", "other.json", "", "#x"]
        ),
        *(
            (
                {"paths": {"/a": {"get": {}}}, "components": {"schemas": schemas}},
                "`schemas` in the `components` of the OpenAPI document is not a JSON object",
            )
            for schemas in [*NO_OBJECTS, None]
        ),
    ],
)
def test_the_refusal_of_an_openapi_document_names_the_fault(document: object, fault: str) -> None:
    with pytest.raises(Malformed) as refusal:
        listing(document)
    assert refusal.value.message == fault


def test_a_part_of_an_openapi_document_may_be_absent_null_or_of_another_place() -> None:
    parts = {"requestBody": None, "parameters": [{"in": "body"}]}
    document = {"paths": {"/a": {"get": parts, "post": None}, "x-owner": "ada", "x-paths": {"get": {}}}}
    [tool] = listing(document)["tools"]
    assert tool["inputSchema"]["properties"] == {}


@pytest.mark.parametrize("schema", [True, None, {}])
def test_a_schema_that_is_true_or_absent_allows_any_value(schema: object) -> None:
    [tool] = tools_with(schema)
    assert tool.input_schema["properties"] == {"q": {}, "body": {}}
    assert arguments_of(tool, b"q=1", b'{"a": 1}') == {"q": "1", "body": {"a": 1}}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": True},
        {"type": "array", "items": 5},
        {"properties": {"a": True}},
        {"properties": {"a": False}},
        {"properties": 5},
        {"anyOf": 5},
        {"oneOf": "text", "allOf": {"a": {}}},
        {"anyOf": [True, 5]},
        {"$ref": "#/components/schemas/Any"},
    ],
)
def test_a_part_of_a_schema_that_is_no_object_declares_no_type_and_no_default(schema: object) -> None:
    [tool] = tools_with(schema)
    expected = ["1"] if isinstance(schema, dict) and "items" in schema else "1"
    assert arguments_of(tool, b"q=1", b'{"a": [1]}') == {"q": expected, "body": {"a": [1]}}
    assert arguments_of(tool, b"q=1", b"[[1]]") == {"q": expected, "body": [[1]]}


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (False, []),
        ({"$ref": "#/components/schemas/Never"}, []),
        ({"anyOf": [{"$ref": "#/components/schemas/Never"}, {"type": "integer"}]}, [1]),
        ({"type": "integer"}, [1]),
        (True, [1, "text"]),
    ],
)
@pytest.mark.parametrize("ref", ["#/components/schemas/X", "#/components/parts/a~1b~0/1/%7Bx%7D"])
def test_a_reference_allows_exactly_what_its_target_allows(ref: str, target: object, allowed: list[object]) -> None:
    components = {"schemas": {"X": target, "Never": False}, "parts": {"a/b~": [{}, {"{x}": target}]}}
    body = {"content": {"application/json": {"schema": {"$ref": ref}}}}
    document = {"paths": {"/a": {"post": {"requestBody": body}}}, "components": components}
    [tool] = OpenApiTable(document).tools
    schema = Arguments(tool.input_schema)

    def is_allowed(value: object) -> bool:
        try:
            return schema.type_({"body": value}) == {"body": value}
        except BadArguments:
            return False

    assert [value for value in (1, "text") if is_allowed(value)] == allowed


@pytest.mark.parametrize(("more", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_chain_of_references_has_at_most_the_maximum_length(more: int, fits: bool) -> None:
    count = MAX_REFERENCES + more
    names = [f"#/components/parameters/{number}" for number in range(count)]
    chain = {str(number): {"$ref": name} for number, name in enumerate(names[1:])}
    parameters = chain | {str(count - 1): {"in": "query", "name": "x"}}
    document = {
        "paths": {"/a": {"get": {"parameters": [{"$ref": names[0]}]}}},
        "components": {"parameters": parameters},
    }
    if fits:
        assert [one.name for tool in OpenApiTable(document).tools for one in tool.parameters] == ["x"]
    else:
        with pytest.raises(Malformed, match="more than 16"):
            OpenApiTable(document)


def test_a_property_may_have_the_name_of_a_reference() -> None:
    [tool] = tools_with({"properties": {"$ref": {"type": "string"}}})
    assert tool.input_schema["properties"]["body"] == {"properties": {"$ref": {"type": "string"}}}


def tools_with(schema: object) -> list[HttpTool]:
    """Return the tools of a document with this schema for a parameter and for the body."""
    operation = {
        "parameters": [{"name": "q", "in": "query", "schema": schema}],
        "requestBody": {"content": {"application/json": {"schema": schema}}},
    }
    return OpenApiTable({"paths": {"/a": {"post": operation}}, "components": {"schemas": {"Any": True}}}).tools


def arguments_of(tool: HttpTool, query: bytes, body: bytes) -> Mapping[str, Any]:
    """Return the arguments of a call of the tool with a JSON body."""
    return tool.arguments({"query_string": query, "headers": [(b"content-type", b"application/json")]}, {}, body)


def read(
    body: bytes = b"", kind: str = "", *, query: str = "", headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Mapping[str, Any]:
    """Return the arguments of `POST /pay`."""
    matched = TABLE.find("POST", "/pay")
    assert matched is not None
    types = ((b"content-type", kind.encode()),) if kind else ()
    return matched[0].arguments({"query_string": query.encode(), "headers": [*headers, *types]}, {}, body)


def found(method: str, path: str) -> tuple[str, Mapping[str, str]] | None:
    matched: tuple[HttpTool, Mapping[str, str]] | None = TABLE.find(method, path)
    return None if matched is None else (matched[0].name, matched[1])


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, b'{"a": "&to=eve&"}'),
        (FORM, b'["&to=eve&"]'),
        (FORM + "; charset=utf-8", b' {"a": "&to=eve&"}'),
        (FORM, b"to=ada;to=eve"),
        ("application/json; charset = utf-7", b"{}"),
        ("application/json; charset=utf-8; charset=utf-7", b"{}"),
        ('application/json; x="a; charset=utf-8"; charset=utf-7', b"{}"),
        ("application/json; CHARSET='utf-8'", b"{}"),
    ],
)
def test_an_ambiguous_body_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(Malformed):
        read(body, kind)


def test_a_semicolon_in_a_query_is_refused_unless_it_is_escaped() -> None:
    with pytest.raises(Malformed):
        read(query="a=1;to=eve")
    assert read(query="a=1%3Bto=eve")["a"] == "1;to=eve"


@pytest.mark.parametrize(
    "cookie",
    ["level=5", "level =5", " level= 5 ", 'level="5"', 'level="5', 'level=""5""', 'a=b;level\t=\t"5"', "level=5\xa0"],
)
def test_a_cookie_is_read_as_starlette_reads_it(cookie: str) -> None:
    arguments = read(headers=((b"cookie", cookie.encode("latin-1")),))
    assert arguments.get("level") == cookie_parser(cookie).get("level")


@pytest.mark.parametrize("cookie", ["level=5; level =6", 'level="a\\073b"'])
def test_an_ambiguous_cookie_is_refused(cookie: str) -> None:
    with pytest.raises(Malformed):
        read(headers=((b"cookie", cookie.encode()),))


@pytest.mark.parametrize("names", [(b"x_level",), (b"x-level", b"x_level"), (b"x-level", b"x-level")])
def test_a_header_that_servers_confuse_with_a_declared_header_is_refused(names: tuple[bytes, ...]) -> None:
    """CGI and WSGI have one variable for `x-level` and `x_level`."""
    with pytest.raises(Malformed):
        read(headers=tuple((name, b"5") for name in names))
    assert read(headers=((b"x-level", b"5"),))["x-level"] == "5"


def test_a_parameter_has_the_type_of_its_referenced_schema() -> None:
    assert read(query="rank=2&all=1&tags=a&tags=b") == {"rank": 2, "all": 1, "tags": ["a", "b"]}
    with pytest.raises(Malformed):
        read(query="rank=x")


def test_a_parameter_of_an_operation_replaces_that_of_its_path() -> None:
    assert read(query="currency=EUR") == {"currency": "EUR"}


def test_absent_members_of_a_body_have_their_default_values() -> None:
    assert read(b'{"to": "ada", "via": {}}', "application/json")["body"] == {
        "to": "ada",
        "amount": 1000,
        "via": {"bank": "house"},
    }
    assert read(b'{"amount": 5}', "application/json")["body"] == {"amount": 5}


@pytest.mark.parametrize(
    "path", ["/users/%6De", "/users/m%65", "/users/ME", "/users/me;x=1", "/users/7;x", "/users//7"]
)
def test_a_path_that_servers_can_read_as_another_path_is_refused(path: str) -> None:
    """Some servers decode a path before they route it, ignore its case, or drop what follows a semicolon."""
    with pytest.raises(Malformed):
        found("GET", path)


def test_a_percent_encoded_character_in_a_path_is_decoded_once() -> None:
    assert found("GET", "/users/%C3%A9") == ("user", {"user": "é"})
    assert found("GET", "/users/a%20b") == ("user", {"user": "a b"})
    assert found("GET", "/users/me") == ("me", {})
    assert found("GET", "/users/mee") == ("user", {"user": "mee"})
    assert found("GET", "/caf%C3%A9") == ("cafe", {})
    assert found("GET", "/caf%c3%a9") == ("cafe", {})
    assert found("GET", "/users/7/") is None


@pytest.mark.parametrize("path", ["/a%2Fb", "/a%5cb", "/a%252Fb", "/a;b/c", "/a//b", "/a%00"])
def test_an_api_without_an_openapi_document_refuses_an_ambiguous_path(path: str) -> None:
    with pytest.raises(Malformed):
        MethodTable().find("GET", path)
    matched = MethodTable().find("GET", "/a/b%20c")
    assert matched is not None
    assert matched[1] == {"path": "/a/b c"}
