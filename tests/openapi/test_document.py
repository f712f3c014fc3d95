"""The OpenAPI document has every route, a summary and an example of each, and is served with an entity tag."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from typing import Any

import msgspec
import pytest

from ostiaryd.app import ROUTES, build_app
from ostiaryd.ground.http.edge import SMALL_BODY
from ostiaryd.ground.http.routes import Content, Either, PageBody, Route
from ostiaryd.ground.world import World
from tests.architecture.language import VERBS
from tests.support.api_fixtures import send
from tests.support.node import NODE

MORE_VERBS = frozenset(
    {
        "Activate",
        "Bind",
        "Count",
        "Draw",
        "Explain",
        "Give",
        "Hold",
        "Leave",
        "Lift",
        "Redirect",
        "Settle",
        "Submit",
        "Trust",
        "Unseal",
    }
)
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}
DOCUMENTED = [route for route in ROUTES if route.method != "LIST"]
"""LIST is a method of the Vault API that OpenAPI 3.1 cannot describe; `GET ?list=true` is the same operation."""


async def fetch(world: World) -> dict[str, Any]:
    answer = await send(build_app(world), "GET", "/openapi.json")
    assert answer.status == 200
    document: dict[str, Any] = json.loads(answer.body)
    return document


def resolve(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    found = document
    for name in value.get("$ref", "").split("/")[1:]:
        found = found[name]
    return found if "$ref" in value else value


async def test_every_route_of_the_server_is_in_the_document_and_nothing_else(world: World) -> None:
    document = await fetch(world)
    listed = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert listed == {(route.method, route.path.replace(":path", "")) for route in DOCUMENTED}
    ids = [one["operationId"] for operations in document["paths"].values() for one in operations.values()]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_summary_is_one_line_that_begins_with_a_verb(route: Route) -> None:
    assert route.summary.split(" ")[0].strip(",") in VERBS | MORE_VERBS, route.summary
    assert route.summary.endswith("."), "the first line of the docstring is the summary"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_documents_its_success(route: Route) -> None:
    assert min(route.answers) < 400


async def test_the_security_of_an_operation_states_the_authentication_of_its_route(world: World) -> None:
    document = await fetch(world)
    for route in DOCUMENTED:
        security = document["paths"][route.path.replace(":path", "")][route.method.lower()]["security"]
        if route.scope:
            assert "dpop" in security[0]
            assert security[0]["dpop"] == [route.scope] * (route.scope != "self")
            assert ({"pepKey": []} in security) is route.allows_peps
        else:
            assert security == ([{"transmitter": []}] if "/signals/" in route.path else [])


async def test_each_refusal_of_a_route_is_documented_with_its_status_and_code(world: World) -> None:
    document = await fetch(world)
    for route in DOCUMENTED:
        operation = document["paths"][route.path.replace(":path", "")][route.method.lower()]
        for refusal in route.refusals:
            rendered = route.protocol.render(refusal)
            response = resolve(document, operation["responses"][str(rendered.status)])
            assert f"`{refusal.code}`" in response["description"]
            if route.protocol.error is None:
                assert rendered.media_type.partition(";")[0] in response["content"]
            elif rendered.body:
                examples = response["content"][rendered.media_type]["examples"]
                assert refusal.code in examples, (route.path, refusal.code)


def _accepts(kind: Any, value: Any) -> None:
    if isinstance(kind, PageBody):
        for row in value[kind.kind]:
            _accepts(kind.row, row)
    else:
        msgspec.json.decode(msgspec.json.encode(value), type=kind.first if isinstance(kind, Either) else kind)


async def test_every_example_is_accepted_by_its_type(world: World) -> None:
    document, checked = await fetch(world), 0
    for route in DOCUMENTED:
        operation = document["paths"][route.path.replace(":path", "")][route.method.lower()]
        contents = [(route.body, operation.get("requestBody"))]
        contents += [(kind, operation["responses"][str(status)]) for status, kind in route.answers.items()]
        for kind, holder in contents:
            kind = kind.type if isinstance(kind, Content) else kind
            if kind is None or holder is None:
                continue
            for media in resolve(document, holder)["content"].values():
                if "example" in media:
                    _accepts(kind, media["example"])
                    checked += 1
    assert checked > 200


async def test_no_schema_name_contains_the_name_of_a_module(world: World) -> None:
    names = (await fetch(world))["components"]["schemas"]
    assert not [name for name in names if "." in name], "two types of the API have one name"


async def test_every_example_satisfies_its_schema_in_a_third_party_validator(world: World) -> None:
    document = await fetch(world)
    check = ["node", str(NODE / "ecma-schemas.mjs")]
    done = await asyncio.to_thread(
        subprocess.run, check, input=json.dumps(document), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 500


async def test_an_undocumented_method_gets_405_with_the_documented_methods_in_allow(
    world: World,
) -> None:
    app = build_app(world)
    patterns = [
        (route.method, re.sub(r"{[^}]*}", "[^/]+", route.path.replace("{path:path}", "{path}"))) for route in ROUTES
    ]
    for path in {route.path for route in ROUTES}:
        target = re.sub(r"{[^}]*}", "x", path)
        documented = {method for method, pattern in patterns if re.fullmatch(pattern, target)}
        for method in sorted(METHODS - documented):
            answer = await send(app, method, target)
            assert answer.status == 405, (method, path)
            assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == documented, (method, path)
    assert (await send(app, "GET", "/nosuch")).status == 404


async def test_a_route_documents_413_if_and_only_if_it_refuses_a_large_body(world: World) -> None:
    app = build_app(world)
    for route in [one for one in ROUTES if one.bounds_body]:
        headers = [("content-type", route.body.media_types[0])]
        path = re.sub(r"{.*?}", "x", route.path)
        answer = await send(app, route.method, path, headers=headers, body=bytes(SMALL_BODY + 1))
        assert answer.status in route.statuses, path
        assert (413 in route.statuses) == (answer.status == 413), path


async def test_a_request_with_the_entity_tag_of_the_document_gets_304(world: World) -> None:
    app = build_app(world)
    first = await send(app, "GET", "/openapi.json")
    tag = first.headers["etag"]
    for value in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await send(app, "GET", "/openapi.json", headers=[("if-none-match", value)])
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in again.headers, "it would be the length of the document (RFC 9110 section 8.6)"
    for value in ('"other"', tag.strip('"')):
        again = await send(app, "GET", "/openapi.json", headers=[("if-none-match", value)])
        assert (again.status, again.body) == (200, first.body)
