"""HTTP requests: duplicate headers, parameters and members are refused, and each part is bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ostiaryd.ground.http.buckets import TooMuch
from ostiaryd.ground.http.edge import MAX_DEPTH, SMALL_BODY, Call, Endpoint, Reply, Wire, render_admin, reply
from ostiaryd.ground.http.forms import MAX_PARAMETERS
from ostiaryd.ground.world import World
from tests.support.world import Kind


@pytest.fixture
def database() -> Kind:
    """SQLite alone, since no endpoint of these tests reads the database."""
    return "sqlite"


async def ask(
    world: World, wire: Wire, *headers: tuple[str, str], path: str = "/here", query: str = "", body: bytes = b""
) -> tuple[int, Any]:
    """Status and JSON of the answer."""
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    endpoint = Endpoint(world, wire, render=render_admin)
    answer, sent = await endpoint.answer("POST", path, params={}, query=query, headers=raw, body=body)
    assert isinstance(answer.body, bytes)
    return answer.status, json.loads(answer.body) | {"sent": dict(sent)}


async def proof(call: Call) -> Reply:
    return reply({"proof": call.header(b"dpop")})


async def after(call: Call) -> Reply:
    return reply({"after": call.query_one("after")})


async def read_json(call: Call) -> Reply:
    return reply({"read": call.json(dict) is not None})


async def read_form(call: Call) -> Reply:
    return reply({"names": len(call.form())})


async def test_a_header_that_is_sent_twice_is_refused(world: World) -> None:
    assert (await ask(world, proof))[1]["proof"] is None
    assert (await ask(world, proof, ("dpop", "a"), ("other", "b")))[1]["proof"] == "a"
    status, answer = await ask(world, proof, ("dpop", "a"), ("dpop", "a"))
    assert (status, answer["error"]) == (400, "malformed")


async def test_the_response_above_a_rate_limit_has_a_retry_after_header(world: World) -> None:
    async def refuse(call: Call) -> Reply:
        raise TooMuch("too many exports", after_s=7, hint="export less often")

    status, answer = await ask(world, refuse)
    assert (status, answer["error"], answer["sent"][b"retry-after"]) == (429, "too_much", b"7")


async def test_a_parameter_that_is_sent_twice_is_refused(world: World) -> None:
    assert (await ask(world, after))[1]["after"] is None
    assert (await ask(world, after, query="after=1&limit=2"))[1]["after"] == "1"
    status, answer = await ask(world, after, query="after=1&after=1")
    assert (status, answer["error"]) == (400, "malformed")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/json5", 415),
        ("", 415),
    ],
)
async def test_a_body_of_another_type_is_refused(world: World, given: str, status: int) -> None:
    assert (await ask(world, read_json, ("content-type", given), body=b"{}"))[0] == status


async def test_a_body_without_a_type_is_refused(world: World) -> None:
    assert (await ask(world, read_json, body=b"{}"))[0] == 415


@pytest.mark.parametrize(("levels", "status"), [(MAX_DEPTH, 200), (MAX_DEPTH + 1, 400)])
async def test_a_body_beyond_the_maximum_nesting_is_refused(world: World, levels: int, status: int) -> None:
    body = b'{"a":' * (levels - 1) + b"{}" + b"}" * (levels - 1)
    assert (await ask(world, read_json, ("content-type", "application/json"), body=body))[0] == status


@pytest.mark.parametrize(
    ("character", "name"),
    [("\0", "a null character (`%00`)"), ("\n", "a line feed (`%0A`)"), ("\r", "a carriage return (`%0D`)")],
)
async def test_a_path_with_a_character_that_is_not_accepted_is_refused_with_the_name_of_the_character(
    world: World, character: str, name: str
) -> None:
    status, answer = await ask(world, after, path=f"/he{character}re")
    assert (status, answer["message"]) == (400, f"the path contains {name}")


async def test_a_null_character_in_path_query_or_body_is_refused(world: World) -> None:
    typed = ("content-type", "application/json")
    assert (await ask(world, after, path="/he\1re", query="after=%01"))[0] == 200
    assert (await ask(world, read_json, typed, body=b'{"a": "\\u0001"}'))[0] == 200
    status, answer = await ask(world, after, path="/he\0re")
    assert (status, "the path contains a null character" in answer["message"]) == (400, True)
    status, answer = await ask(world, after, query="after=%00")
    assert (status, "the query contains a null character" in answer["message"]) == (400, True)
    assert (await ask(world, read_json, typed, body=b'{"a": "\\u0000"}'))[0] == 400


async def test_a_json_member_that_is_sent_twice_is_refused(world: World) -> None:
    kind = ("content-type", "application/json")
    assert (await ask(world, read_json, kind, body=b'{"a":1,"b":1}'))[0] == 200
    assert (await ask(world, read_json, kind, body=b'{"a":1,"a":1}'))[0] == 400


@pytest.mark.parametrize(("count", "status"), [(MAX_PARAMETERS, 200), (MAX_PARAMETERS + 1, 400)])
async def test_a_form_has_at_most_a_hundred_parameters(world: World, count: int, status: int) -> None:
    body = "&".join(f"n{number}=" for number in range(count)).encode()
    assert (await ask(world, read_form, ("content-type", "application/x-www-form-urlencoded"), body=body))[0] == status


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("x", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("a b", False),
        ("a\nb", False),
        ("a\x7f", False),
    ],
)
async def test_a_request_id_is_kept_if_well_formed_and_replaced_otherwise(world: World, given: str, kept: bool) -> None:
    said = (await ask(world, proof, ("x-request-id", given)))[1]["sent"][b"x-request-id"].decode()
    assert (said == given) is kept
    assert kept or said.startswith("rq_")


@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_a_body_longer_than_the_limit_is_refused(world: World, over: int) -> None:
    status, answer = await ask(world, proof, body=b"x" * (SMALL_BODY + over))
    assert (status, answer.get("error")) == ((413, "too_large") if over > 0 else (200, None))


async def test_an_endless_body_is_not_read_beyond_the_limit(world: World) -> None:
    parts, sent = 0, list[Any]()

    async def receive() -> dict[str, Any]:
        nonlocal parts
        parts += 1
        assert parts < 100, "it reads on and on"
        return {"type": "http.request", "body": b"x" * (SMALL_BODY // 4), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/here", "query_string": b"", "headers": []}
    await Endpoint(world, proof, render=render_admin)(scope, receive, send)
    assert (sent[0]["status"], parts) == (413, 5)
