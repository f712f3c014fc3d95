"""Requests that bypass ASGI: the same bytes get the same response directly and over ASGI."""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from harness.patience import PATIENCE_S, eventually_async
from ostiary.protocol.errors import Conflict, Forbidden, Unauthenticated
from ostiaryd.ground.http.connections import Connections
from ostiaryd.ground.http.edge import SMALL_BODY, Call, Endpoint, Reply, render_admin, reply
from ostiaryd.ground.http.protocol import (
    MAX_HEAD_BYTES,
    MAX_WAITING,
    SLICE_BYTES,
    SLOWEST_S,
    Exchange,
    Protocol,
)
from ostiaryd.ground.http.router import Target
from ostiaryd.ground.world import World
from tests.ground.http_server import find_target, post, serving
from tests.support.world import Kind

Ports = tuple[int, int]


@pytest.fixture
def database() -> Kind:
    """SQLite alone, since no endpoint of these tests reads the database."""
    return "sqlite"


async def echo(call: Call) -> Reply:
    if call.body == b"refuse":
        raise Conflict("no", hint="ask again")
    if call.body == b"fail":
        raise RuntimeError("a bug")
    if call.body == b"two headers in one":
        return reply({}, headers=[(b"x-told", b"a\r\nx-forged: b")])
    call.answer_headers.append((b"x-told", b"yes"))
    said = {
        "method": call.method,
        "path": call.path,
        "params": call.params,
        "query": call.query,
        "body": call.body.decode("latin-1"),
        "dpop": call.header(b"dpop"),
        "network": call.network,
        "uri": call.uri,
    }
    return reply(said, status=201, headers=[(b"cache-control", b"no-store")])


async def make(call: Call) -> Reply:
    """The answer whose status the query states."""
    return Reply(int(call.query), b"" if call.query in ("204", "304") else b"x", "text/plain")


async def nothing(call: Call) -> None:
    """Check nothing."""


async def gate(call: Call) -> None:
    call.answer_headers.append((b"www-authenticate", b"DPoP"))
    raise Forbidden("nobody may")


def application(world: World) -> Starlette:
    return Starlette(
        routes=[
            Route("/", Endpoint(world, echo, render=render_admin), methods=["GET"]),
            Route("/echo", Endpoint(world, echo, render=render_admin), methods=["POST"]),
            Route("/gated", Endpoint(world, echo, render=render_admin, gate=gate), methods=["POST"]),
            Route("/things/{id}", Endpoint(world, echo, render=render_admin), methods=["POST"]),
            Route("/things/{id}/parts/{part}", Endpoint(world, echo, render=render_admin), methods=["POST"]),
            Route("/seen", Endpoint(world, echo, render=render_admin), methods=["GET"]),
            Route("/made", Endpoint(world, make, render=render_admin), methods=["GET"]),
            Route("/made", Endpoint(world, echo, render=render_admin, check=nothing), methods=["PUT", "LIST"]),
            Route("/files/{path:path}", Endpoint(world, echo, render=render_admin), methods=["GET", "DELETE"]),
            Route("/streamed", Endpoint(world, echo, render=render_admin, streams=True), methods=["GET"]),
        ]
    )


def plain(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: x", "x-request-id: rq_1", *headers, "", ""]).encode() + body


@pytest.fixture
async def ports(world: World) -> AsyncIterator[Ports]:
    """Two servers with one application: the first calls it over ASGI, the second directly."""
    app = application(world)
    straight = partial(Protocol, find_target(app))
    async with serving(app, partial(Protocol, find_target(Starlette()))) as asgi, serving(app, straight) as other:
        yield asgi, other


async def exchange(port: int, *parts: bytes) -> bytes:
    """Everything that the server says to these parts, until it has nothing to say for a while."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.02)
        while True:
            more = await asyncio.wait_for(reader.read(1 << 16), 0.3)
            if not more:
                return said + b"(closed)"
            said += more
    except (TimeoutError, ConnectionError):
        return said
    finally:
        writer.close()


async def test_a_refused_client_gets_503_before_its_request_is_handled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection goes on, and neither the gate nor the wire hears of the request; any other client is answered."""
    monkeypatch.setattr("ostiaryd.ground.database.writer.CROWDED_PART", 0)
    asked: list[bytes] = []

    async def note(call: Call) -> Reply:
        asked.append(call.body)
        return await echo(call)

    endpoint = Endpoint(world, note, render=render_admin, is_refused=lambda call: call.body == b"busy")
    app = Starlette(routes=[Route("/echo", endpoint, methods=["POST"])])
    async with serving(app, partial(Protocol, find_target(app))) as port:
        said = await exchange(port, post("/echo", b"busy") + post("/echo", b"busy") + post("/echo", b"other"))
    answers = [int(part[:3]) for part in said.split(b"HTTP/1.1 ")[1:]]
    assert (answers, asked) == ([503, 503, 201], [b"other"])
    assert re.findall(rb"retry-after: [1-4]\r\n", said) != []
    assert said.count(b'"error":"busy"') == 2
    monkeypatch.setattr("ostiaryd.ground.database.writer.CROWDED_PART", 0.4)
    async with serving(app, partial(Protocol, find_target(app))) as port:
        assert b" 201 " in await exchange(port, post("/echo", b"busy"))


async def test_only_a_connection_with_an_incomplete_request_is_closed_as_slow(world: World) -> None:
    app, made = application(world), list[Protocol]()

    def protocol(**given: Any) -> Protocol:
        made.append(Protocol(find_target(app), **given))
        return made[-1]

    whole = post("/echo")
    slow = {
        "nothing": b"",
        "half a head": whole[:20],
        "half a body": whole[:-1],
        "half a second one": whole + whole[:-1],
    }
    parts = slow | {"all": whole}
    async with serving(app, protocol) as port:
        opened = {name: await asyncio.open_connection("127.0.0.1", port) for name in parts}
        for name, part in parts.items():
            opened[name][1].write(part)
        await asyncio.sleep(0.2)
        now = asyncio.get_running_loop().time()
        for late, cut_off in ((SLOWEST_S - 1, set[str]()), (SLOWEST_S + 1, set(slow))):
            for one in made:
                one.close_if_slow(now + late)
            await asyncio.sleep(0.05)
            for reader, _ in opened.values():
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1 << 16), 0.05)
            assert {name for name, (reader, _) in opened.items() if reader.at_eof()} == cut_off
        for _, writer in opened.values():
            writer.close()


TRAILED = b"1\r\nx\r\n0\r\nDPoP: trailer\r\nX-Forwarded-For: 203.0.113.9\r\nHost: y\r\n\r\n"
CASES: dict[str, tuple[bytes, ...]] = {
    "a request": (post("/echo"),),
    "one without a body": (post("/echo", b""),),
    "one in pieces": (post("/echo")[:20], post("/echo")[20:60], post("/echo")[60:]),
    "two, one after the other": (post("/echo"), post("/echo", b"again")),
    "three at once": (post("/echo", b"1") + post("/seen") + post("/echo", b"3"),),
    "chunks": (post("/echo", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "transfer-encoding: chunked"),),
    "a header twice": (post("/echo", b"x", "dpop: a", "dpop: b"),),
    "header names in capitals": (post("/echo", b"x", "DPoP: a"),),
    "a refusal": (post("/echo", b"refuse"),),
    "a gate that stays shut": (post("/gated"),),
    "a query": (post("/echo?a=b"),),
    "an encoded path": (post("/ech%6f"),),
    "an absolute target": (post("http://elsewhere/echo"),),
    "a path with a parameter": (post("/things/7"),),
    "a parameter with an escape": (post("/things/%37%C3%A9"),),
    "no such path": (post("/nothing"),),
    "another method": (post("/seen"),),
    "an old version": (post("/echo", version="1.0"),),
    "the last one": (post("/echo", b"x", "connection: close"),),
    "a client that waits to be told": (post("/echo", b"x", "expect: 100-continue"),),
    "an upgrade": (post("/echo", b"x", "connection: upgrade", "upgrade: h2c"),),
    "nonsense": (b"nonsense\r\n\r\n",),
    "a length that is none": (post("/echo", b"x", "content-length: -1"),),
    "a trailer": (post("/echo", TRAILED, "transfer-encoding: chunked", "dpop: head"),),
    "a trailer of another request's": (
        post("/echo", TRAILED, "transfer-encoding: chunked") + post("/echo", b"again", "dpop: own"),
    ),
    "an extension of a chunk": (post("/echo", b"3;a=b;c\r\nabc\r\n0;x\r\n\r\n", "transfer-encoding: chunked"),),
    "a GET": (plain("GET", "/seen?b=%20c&d"),),
    "a GET with a body": (plain("GET", "/seen", "content-length: 1", body=b"x"),),
    "a HEAD": (plain("HEAD", "/seen"),),
    "two GETs at once": (plain("GET", "/seen") * 2,),
    "an answer that has not changed": (plain("GET", "/made?304"),),
    "an answer without a body": (plain("GET", "/made?204") + plain("GET", "/seen"),),
    "an error of the wire": (plain("GET", "/made?x"),),
    "a PUT": (plain("PUT", "/made", "content-length: 1", body=b"x"),),
    "a large PUT": (plain("PUT", "/made", f"content-length: {SMALL_BODY + 1}", body=b"x" * (SMALL_BODY + 1)),),
    "a LIST": (plain("LIST", "/made"),),
    "a LINK": (plain("LINK", "/made"),),
    "a DELETE": (plain("DELETE", "/files/a/b%2fc/..//d"),),
    "a GET of a path": (plain("GET", "/files/%C3%A9?x"),),
    "a path that is no UTF-8": (plain("GET", "/files/%ff"),),
    "a line break in a path": (plain("GET", "/files/a%0ab"),),
    "an empty path": (plain("GET", "/files/"),),
    "two slashes": (plain("GET", "//seen"),),
    "a fragment": (plain("GET", "/seen#a?b"),),
    "a plus and a semicolon": (plain("GET", "/files/a+b;c?d+e;f"),),
    "the server itself": (plain("OPTIONS", "*"),),
    "two in one go, the second nonsense": (post("/echo") + b"nonsense\r\n\r\n",),
}
BAD: dict[str, bytes] = {
    "a length twice": post("/echo", b"x", "content-length: 1"),
    "two lengths": post("/echo", b"x", "content-length: 2"),
    "a length in two": post("/echo", b"x", "content-length: 1, 1"),
    "a length with a sign": b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\nx",
    "a length beyond 64 bits": b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\nx",
    "a length and chunks": b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "chunks and a length": b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n"
    b"0\r\n\r\n",
    "chunks before another coding": post("/echo", b"0\r\n\r\n", "transfer-encoding: chunked, identity"),
    "chunks twice": post("/echo", b"0\r\n\r\n", "transfer-encoding: chunked, chunked"),
    "chunks twice, in two fields": post("/echo", b"0\r\n\r\n", *["transfer-encoding: chunked"] * 2),
    "chunks with a parameter": post("/echo", b"0\r\n\r\n", "transfer-encoding: chunked;a=b"),
    "a coding without chunks": post("/echo", b"x", "transfer-encoding: gzip"),
    "a coding without a name": post("/echo", b"x", "transfer-encoding: "),
    "a size of a chunk that is none": post("/echo", b"0x1\r\nx\r\n0\r\n\r\n", "transfer-encoding: chunked"),
    "a chunk that is longer than it says": post("/echo", b"1\r\nxy\r\n0\r\n\r\n", "transfer-encoding: chunked"),
    "a field in two lines": post("/echo", b"x", "dpop: a", " b"),
    "a field in two lines, by a tab": post("/echo", b"x", "dpop: a", "\tb"),
    "white space before the colon": post("/echo", b"x", "dpop : a"),
    "a field without a name": post("/echo", b"x", ": a"),
    "a field without a colon": post("/echo", b"x", "dpop"),
    "a null character in a name": post("/echo", b"x", "dp\0op: a"),
    "a null character in a value": post("/echo", b"x", "dpop: a\0b"),
    "a name that is not ASCII": post("/echo", b"x", "dp\u00f6p: a"),
    "a line feed alone": b"POST /echo HTTP/1.1\nhost: x\ncontent-length: 1\n\nx",
    "a carriage return in a value": post("/echo", b"x", "dpop: a\rb: c"),
    "no host": b"POST /echo HTTP/1.1\r\ncontent-length: 1\r\n\r\nx",
    "two hosts": post("/echo", b"x", "host: y"),
    "a target that is not ASCII": "POST /\u00e9 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode(),
    "a target with a null character": b"POST /ec\0ho HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    "a target that is none": b"POST echo HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    "a target that is an authority": plain("CONNECT", "a:80"),
    "a target with a port beyond 16 bits": plain("GET", "http://a:65536/seen"),
    "a version to come": b"POST /echo HTTP/3.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    "the head of another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}
"""Requests that can be read in two ways, and so are not read at all (RFC 9112)."""


async def test_an_ambiguous_request_is_refused_with_400_directly_and_over_asgi(ports: Ports) -> None:
    for case in BAD:
        over_asgi, straight = await asyncio.gather(*(exchange(port, BAD[case]) for port in ports))
        assert straight == over_asgi, case
        assert over_asgi.startswith(b"HTTP/1.1 400 Bad Request\r\n"), case
        assert over_asgi.endswith(b"(closed)"), case
        assert over_asgi.count(b"HTTP/1.1 ") == 1, case


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("a null character in a value", "Invalid header value char"),
        ("a carriage return in a value", "Missing expected LF after header value"),
        ("a target with a null character", "Invalid char in url path"),
        ("two hosts", "a request must have exactly one `Host` field"),
        ("a target that is an authority", "CONNECT is not supported"),
    ],
)
async def test_the_refusal_of_an_ambiguous_request_states_the_reason(ports: Ports, case: str, reason: str) -> None:
    for port in ports:
        assert f'"the request is not valid HTTP/1.1: {reason}"'.encode() in await exchange(port, BAD[case])


async def test_the_reason_of_a_refusal_has_at_most_200_characters(ports: Ports) -> None:
    request = plain("GET", f"http://a:65536/{'x' * 300}")
    for port in ports:
        said = await exchange(port, request)
        [reason] = re.findall(rb'"the request is not valid HTTP/1.1: (.*?)"', said)
        assert (len(reason), b"x" * 50 in reason) == (200, True)


@pytest.mark.parametrize(
    "fields",
    [
        ("transfer-encoding: gzip, chunked",),
        ("transfer-encoding: gzip,CHUNKED",),
        ("transfer-encoding: gzip", "transfer-encoding: chunked"),
        ("transfer-encoding: , chunked",),
    ],
)
async def test_a_transfer_coding_that_is_not_decoded_is_refused(ports: Ports, fields: tuple[str, ...]) -> None:
    over_asgi, straight = [await exchange(port, post("/echo", b"1\r\nx\r\n0\r\n\r\n", *fields)) for port in ports]
    assert straight == over_asgi
    assert straight.startswith(b"HTTP/1.1 501 Not Implemented\r\n")
    assert straight.endswith(b"(closed)")


@pytest.mark.parametrize(("target", "query"), [("http://elsewhere", ""), ("HTTP://elsewhere:80?a=/b", "a=/b")])
async def test_an_absolute_target_without_a_path_is_the_root(ports: Ports, target: str, query: str) -> None:
    over_asgi, straight = [await exchange(port, plain("GET", target)) for port in ports]
    assert straight == over_asgi
    assert f'"path":"/","params":{{}},"query":"{query}"'.encode() in straight


async def test_a_trailer_does_not_replace_a_field_of_the_head(world: World) -> None:
    behind = replace(world, config=msgspec.structs.replace(world.config, proxies="127.0.0.0/8"))
    app = application(behind)
    request = post("/echo", TRAILED, "transfer-encoding: chunked", "x-forwarded-for: 198.51.100.7", "dpop: head")
    async with (
        serving(app, partial(Protocol, find_target(Starlette()))) as asgi,
        serving(app, partial(Protocol, find_target(app))) as other,
    ):
        for port in (asgi, other):
            answer = await exchange(port, request)
            assert b'"network":"198.51.100.0/24"' in answer
            assert b'"dpop":"head"' in answer
            assert b"203.0.113" not in answer


@pytest.mark.parametrize("next_one", [b"nonsense\r\n\r\n", plain("CONNECT", "a:80"), plain("GET", "http://a:b/seen")])
async def test_a_pending_response_comes_before_the_refusal_of_the_next_request(ports: Ports, next_one: bytes) -> None:
    for port in ports:
        answer = await exchange(port, post("/echo", b"first") + next_one)
        assert answer.startswith(b"HTTP/1.1 201 ")
        assert answer.endswith(b"(closed)")


@pytest.mark.parametrize("over", [-1, 0, 1, 4096])
async def test_a_head_beyond_the_maximum_length_is_refused_directly_and_over_asgi(ports: Ports, over: int) -> None:
    counted = sum(map(len, ("/echo", "host", "x", "x-request-id", "rq_1", "content-length", "0", "a"))) + 4 * 4
    request = post("/echo", b"", "a: " + "x" * (MAX_HEAD_BYTES - counted + over))
    over_asgi, straight = await asyncio.gather(*(exchange(port, request) for port in ports))
    assert straight == over_asgi
    assert straight.startswith(b"HTTP/1.1 431 " if over > 0 else b"HTTP/1.1 201 ")


async def test_many_small_pipelined_requests_do_not_count_as_a_large_head(ports: Ports) -> None:
    many = MAX_HEAD_BYTES // len(post("/echo")) + 10
    for port in ports:
        assert (await exchange(port, post("/echo") * many)).count(b"HTTP/1.1 201 ") == many


@pytest.mark.parametrize("framing", ["content-length", "chunks"])
async def test_a_large_body_is_read_only_after_authentication(world: World, framing: str) -> None:
    """The head alone is answered where the caller proves nothing; where the caller does, the body is read."""

    async def check(call: Call) -> None:
        if call.header(b"authorization") is None:
            raise Unauthenticated("not authenticated")

    endpoint = Endpoint(world, echo, render=render_admin, check=check)
    app = Starlette(routes=[Route("/echo", endpoint, methods=["POST"])])
    said = "transfer-encoding: chunked" if framing == "chunks" else f"content-length: {SMALL_BODY + 1}"
    head = f"POST /echo HTTP/1.1\r\nhost: x\r\n{said}\r\n"
    size = SMALL_BODY + 1
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size) if framing == "chunks" else b"x" * size
    async with serving(app, partial(Protocol, find_target(app))) as port:
        assert (await exchange(port, f"{head}\r\n".encode())).startswith(b"HTTP/1.1 401 ")
        answer = await exchange(port, f"{head}authorization: x\r\n\r\n".encode(), body)
        assert answer.startswith(b"HTTP/1.1 201 ")
        assert answer.count(b"x" * size) == 1


UPGRADE = ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")


@pytest.mark.parametrize("framing", ["a length", "chunks"])
@pytest.mark.parametrize(("version", "option"), [("1.1", ""), ("1.1", ", close"), ("1.0", ""), ("1.0", ", keep-alive")])
async def test_the_body_of_a_request_with_an_upgrade_is_not_a_second_request(
    ports: Ports, framing: str, version: str, option: str
) -> None:
    """A proxy that forwards the offer and the body would give the answer to such a request to another client."""
    inner = plain("GET", "/seen")
    body, fields = inner, [f"content-length: {len(inner)}"]
    if framing == "chunks":
        body, fields = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner), ["transfer-encoding: chunked"]
    for port in ports:
        answers = []
        for more in ((f"connection: x{option}", "upgrading: h2c"), (f"connection: upgrade{option}", "upgrade: h2c")):
            head = plain("POST", "/echo", *fields, *more).replace(b"HTTP/1.1", b"HTTP/" + version.encode())
            answers.append(await exchange(port, head, body))
        assert answers[0] == answers[1]
        assert b"GET /seen" in answers[1]
        assert answers[1].count(b"HTTP/1.1 ") == 1


async def test_each_pipelined_request_with_an_upgrade_is_answered(ports: Ports) -> None:
    for port in ports:
        answer = await exchange(port, (plain("GET", "/seen", *UPGRADE) + post("/echo", b"x", *UPGRADE)) * 4)
        assert answer.count(b"HTTP/1.1 200 ") + answer.count(b"HTTP/1.1 201 ") == answer.count(b"HTTP/1.1 ") == 8


async def test_a_malformed_head_with_an_upgrade_is_refused(ports: Ports) -> None:
    for port in ports:
        for field in ("dpop: a\rx: b", "host: y", "transfer-encoding: chunked"):
            answer = await exchange(port, post("/echo", b"x", *UPGRADE, "content-length: 1", field))
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.endswith(b"(closed)")


async def test_the_same_bytes_get_the_same_response_directly_and_over_asgi(ports: Ports) -> None:
    for case in CASES:
        over_asgi, straight = await asyncio.gather(*(exchange(port, *CASES[case]) for port in ports))
        assert straight == over_asgi, case
        assert over_asgi.startswith(b"HTTP/1.1 "), case


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/things/7/parts/8", 201),
        ("POST", "/things/7%2Fparts/8", 400),
        ("POST", "/things/7%2fparts%2f8", 400),
        ("POST", "/things%2F7", 400),
        ("POST", "/things/7%252Fparts", 201),
        ("GET", "/%2fseen", 404),
        ("GET", "/files/a%2Fb", 201),
        ("GET", "/files/a%2f", 201),
        ("GET", "/files%2Fa", 400),
        ("GET", "/seen?a=%2F", 201),
    ],
)
async def test_an_encoded_slash_does_not_lead_to_another_operation(
    ports: Ports, method: str, path: str, status: int
) -> None:
    request = plain(method, path)
    over_asgi, straight = await asyncio.gather(*(exchange(port, request) for port in ports))
    assert straight == over_asgi
    assert straight.startswith(b"HTTP/1.1 %d " % status)
    assert (b"the path contains an encoded slash (`%2F`)" in straight) is (status == 400)


@pytest.mark.parametrize("over", [-1, 0, 1, 1 << 18])
async def test_a_body_over_the_limit_is_refused_directly_and_over_asgi(ports: Ports, world: World, over: int) -> None:
    body = b"x" * (SMALL_BODY + over)
    over_asgi, straight = await asyncio.gather(*(exchange(port, post("/echo", body)) for port in ports))
    assert straight == over_asgi
    assert straight.startswith(b"HTTP/1.1 413 " if over > 0 else b"HTTP/1.1 201 ")


@pytest.mark.parametrize("over", [0, 1])
async def test_a_chunked_body_with_one_byte_over_the_limit_is_refused(ports: Ports, world: World, over: int) -> None:
    limit = SMALL_BODY
    chunks = b"%x\r\n%b\r\n" % (limit, b"x" * limit) + b"1\r\nx\r\n" * over + b"0\r\n\r\n"
    request = post("/echo", chunks, "transfer-encoding: chunked")
    over_asgi, straight = await asyncio.gather(*(exchange(port, request) for port in ports))
    assert straight == over_asgi
    assert straight.startswith(b"HTTP/1.1 413 " if over else b"HTTP/1.1 201 ")


async def test_a_failure_has_the_same_response_directly_and_over_asgi_without_details(ports: Ports) -> None:
    request = post("/echo", b"fail")
    over_asgi, straight = await asyncio.gather(*(exchange(port, request) for port in ports))
    assert straight == over_asgi
    head, _, body = straight.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"x-request-id: rq_1" in head
    assert b"content-type: application/json" in head
    assert body.startswith(b'{"error":"internal_error","message":"the server failed"')
    assert b"a bug" not in straight
    assert b"RuntimeError" not in straight


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_with_status_204_or_304_has_no_content_length(ports: Ports, status: int) -> None:
    for port in ports:
        assert b"content-length" not in await exchange(port, plain("GET", f"/made?{status}"))


async def test_a_response_header_with_a_line_break_is_not_sent(ports: Ports) -> None:
    for port in ports:
        answer = await exchange(port, post("/echo", b"two headers in one"))
        assert b"forged" not in answer
        assert answer.endswith(b"(closed)")
    straight = await exchange(ports[1], post("/echo", b"two headers in one"))
    assert straight.startswith(b"HTTP/1.1 500 ")
    assert b"x-request-id: rq_1" in straight
    assert b'"internal_error"' in straight


async def test_other_clients_are_served_after_a_client_left_before_its_response(ports: Ports) -> None:
    for port in ports:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post("/echo"))
        writer.transport.abort()
        assert re.match(rb"HTTP/1.1 201 ", await exchange(port, post("/echo")))


async def test_a_connection_is_not_idle_while_a_request_after_a_refused_request_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.ground.database.writer.CROWDED_PART", 0)
    made, idle = list[Protocol](), list[object]()

    async def note(call: Call) -> Reply:
        idle.append(made[0]._idle_since)
        return await echo(call)

    endpoint = Endpoint(world, note, render=render_admin, is_refused=lambda call: call.body == b"busy")
    app = Starlette(routes=[Route("/echo", endpoint, methods=["POST"])])
    async with serving(app, _recorded(made, app)) as port:
        assert b" 201 " in await exchange(port, post("/echo", b"busy") + post("/echo", b"other"))
    assert idle == [None]


async def test_an_idle_connection_is_closed_by_the_timer_of_an_earlier_response(world: World) -> None:
    app, made, timers = application(world), list[Protocol](), list[object]()

    def has_answered(count: int) -> bool:
        return bool(made) and made[0].answered == count

    async with serving(app, _recorded(made, app)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(3):
            writer.write(post("/echo"))
            await eventually_async(partial(has_answered, number + 1))
            timers.append(made[0].timeout_keep_alive_task)
        assert timers[0] is timers[1] is timers[2] is not None
        connection = made[0]
        connection._unset_keepalive_if_required()  # a further request begins to arrive
        connection.timeout_keep_alive_handler()
        assert not connection.transport.is_closing(), "the connection is in use"
        connection._note_idle()
        connection.timeout_keep_alive_handler()
        assert not connection.transport.is_closing(), "the time is not over"
        connection.timeout_keep_alive = 0
        connection.timeout_keep_alive_handler()
        assert (await reader.read()).count(b"HTTP/1.1 201 ") == 3, "the server closed the connection"
        writer.close()


def _recorded(made: list[Protocol], app: Starlette, **given: Any) -> Callable[..., asyncio.Protocol]:
    def protocol(**options: Any) -> Protocol:
        made.append(Protocol(find_target(app), **given, **options))
        return made[-1]

    return protocol


async def test_a_closed_connection_is_freed_without_a_search_for_cycles(world: World) -> None:
    app, made = application(world), list[Protocol]()
    requests = {
        "direct": plain("GET", "/seen"),
        "by ASGI": plain("GET", "/streamed"),
        "one behind another": plain("GET", "/seen") * 2,
        "an incomplete body": post("/echo", b"", "content-length: 5", "expect: 100-continue"),
    }
    gc.disable()
    try:
        async with serving(app, _recorded(made, app)) as port:
            for request in requests.values():
                await exchange(port, request)
            refs = [weakref.ref(one) for one in made]
            made.clear()
            await eventually_async(lambda: [ref for ref in refs if ref() is not None] == [])
        assert len(refs) == len(requests)
    finally:
        gc.enable()


async def test_a_caller_authenticated_after_its_connection_ended_is_not_counted(world: World) -> None:
    app, made = application(world), list[Protocol]()
    connections = Connections(proxies=[ip_network("127.0.0.0/8")])
    async with serving(app, _recorded(made, app, connections=connections)) as port:
        await exchange(port, plain("GET", "/seen"))
        await eventually_async(lambda: len(connections) == 0)
        made[0]._note_proven(False, False)
        assert len(connections) == 0


async def test_plain_requests_bypass_asgi(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, str, dict[str, str], str]] = []
    made = Exchange.__init__

    def count(self: Exchange, method: str, target: Target, *given: object, **named: object) -> None:
        taken.append((method, target.path, target.params, target.query))
        made(self, method, target, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Exchange, "__init__", count)
    for path in ("/echo", "/things/a%20b", "/echo?a=b", "/nothing", "/seen"):
        await exchange(ports[1], post(path))
    for method in ("GET", "HEAD"):
        await exchange(ports[1], plain(method, "/seen"))
    for path in ("/made", "/streamed"):
        await exchange(ports[1], plain("GET", path))
    assert taken == [
        ("POST", "/echo", {}, ""),
        ("POST", "/things/a b", {"id": "a b"}, ""),
        ("POST", "/echo", {}, "a=b"),
        ("GET", "/seen", {}, ""),
        ("GET", "/made", {}, ""),
    ]


@pytest.mark.parametrize(("proxies", "network"), [("", "127.0.0.0/24"), ("127.0.0.0/8", "203.0.113.0/24")])
async def test_the_network_of_a_request_is_the_same_directly_and_over_asgi(
    world: World, proxies: str, network: str
) -> None:
    behind = replace(world, config=msgspec.structs.replace(world.config, proxies=proxies))
    app = application(behind)
    straight = partial(Protocol, find_target(app))
    request = post("/echo", b"", "x-forwarded-for: 6.6.6.6, 203.0.113.7")
    async with serving(app, partial(Protocol, find_target(Starlette()))) as asgi, serving(app, straight) as other:
        for port in (asgi, other):
            assert f'"network":"{network}"'.encode() in await exchange(port, request)


async def test_a_bounded_number_of_pipelined_requests_waits_and_all_are_answered(world: World) -> None:
    app, made, waiting = application(world), list[Protocol](), list[int]()

    async def wait(call: Call) -> Reply:
        waiting.append(len(made[0].pipeline))
        await asyncio.sleep(0)
        return reply({}, status=201)

    app.routes.append(Route("/wait", Endpoint(world, wait, render=render_admin), methods=["GET"]))

    def protocol(**given: Any) -> Protocol:
        made.append(Protocol(find_target(app), **given))
        return made[-1]

    one, many = b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n", 5000
    async with serving(app, protocol) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(one * many)
        count = 0
        while count < many:
            count += (await asyncio.wait_for(reader.readuntil(b"{}"), PATIENCE_S)).count(b"HTTP/1.1 201 ")
        writer.close()
    assert MAX_WAITING <= max(waiting) <= MAX_WAITING + SLICE_BYTES // len(one)


@pytest.mark.parametrize("first", [b"GET /seen HTTP/1.1\r\nhost: x\r\n\r\n", post("/wait/x")])
async def test_pipelined_requests_do_not_run_after_their_client_left(world: World, first: bytes) -> None:
    running, go_on = list[Call](), asyncio.Event()

    async def wait(call: Call) -> Reply:
        running.append(call)
        await go_on.wait()
        return reply({})

    endpoint, made = Endpoint(world, wait, render=render_admin), list[Protocol]()
    app = Starlette(
        routes=[
            Route("/wait/{id}", endpoint, methods=["POST"]),
            Route("/seen", endpoint, methods=["GET"]),
        ]
    )

    def protocol(**given: Any) -> Protocol:
        made.append(Protocol(find_target(app), **given))
        return made[-1]

    async with serving(app, protocol) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first * 4)
        try:
            await eventually_async(lambda: bool(running) and len(made[0].pipeline) == 3)
            answered = made[0]._running
            writer.transport.abort()
            await eventually_async(lambda: made[0].parser is None)
            assert answered.disconnected
        finally:
            go_on.set()
        await eventually_async(lambda: not made[0].tasks)
    assert len(running) == 1
