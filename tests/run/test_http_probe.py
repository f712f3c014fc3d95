"""Asking a server for its tools over HTTP: a hostile answer ends in a refusal that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from harness.live_server import free_socket, serving
from ostiary.authorization.catalogue import MAX_TOOLS
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiary.run.http_probe import probe_http

TOOLS = {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}


@contextmanager
def opened(endpoint: Callable[[Request], Any]) -> Iterator[str]:
    sock, port = free_socket()
    with serving(Starlette(routes=[Route("/mcp", endpoint, methods=["GET", "POST", "DELETE"])]), sock):
        yield f"http://127.0.0.1:{port}/mcp"


def answering(**results: Any) -> Callable[[Request], Any]:
    """A server with these results by method, with `_` for `/`; every other method is an error."""

    async def endpoint(request: Request) -> Response:
        asked = await request.json()
        answer = {"jsonrpc": "2.0", "id": asked.get("id")}
        result = results.get(asked["method"].replace("/", "_"))
        return JSONResponse(
            answer | ({"error": {"code": -32601, "message": "no"}} if result is None else {"result": result})
        )

    return endpoint


def streaming(*parts: bytes) -> Callable[[Request], Any]:
    async def endpoint(_: Request) -> Response:
        return StreamingResponse(iter(parts), media_type="text/event-stream")

    return endpoint


def test_tools_are_listed_although_the_server_does_not_announce_tools() -> None:
    with opened(answering(server_discover={}, tools_list=TOOLS)) as url:
        assert probe_http(url)["tools"] == TOOLS["tools"]


@pytest.mark.parametrize("capabilities", [None, "all", 5, ["resources"]])
def test_capabilities_that_are_not_an_object_are_refused(capabilities: object) -> None:
    answers = answering(server_discover={"capabilities": capabilities}, tools_list=TOOLS)
    with opened(answers) as url, pytest.raises(Malformed, match="no object `capabilities`"):
        probe_http(url)


@pytest.mark.parametrize("count", [MAX_TOOLS, MAX_TOOLS + 1])
def test_resources_beyond_the_maximum_number_are_ignored(count: int) -> None:
    resources = {"resources": [{"uri": f"file:///{number}", "name": "n"} for number in range(count)]}
    answers = answering(server_discover={"capabilities": {"resources": {}}}, tools_list=TOOLS, resources_list=resources)
    with opened(answers) as url:
        assert len(probe_http(url)["resources"]) == MAX_TOOLS


def test_a_stream_of_events_is_read_with_each_kind_of_line_ending() -> None:
    answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"capabilities": {}}}).encode()
    listed = json.dumps({"jsonrpc": "2.0", "id": 2, "result": TOOLS}, indent=1).encode().split(b"\n")
    events = [b"event: message\r", b"\ndata: " + answer + b"\r\n", b"\r\n"]
    more = [*(b"data: " + line + b"\r" for line in listed), b"\r"]
    replies = iter([events, more])

    async def endpoint(_: Request) -> Response:
        return StreamingResponse(iter(next(replies)), media_type="text/event-stream")

    with opened(endpoint) as url:
        assert probe_http(url)["tools"] == TOOLS["tools"]


@pytest.mark.parametrize(
    ("parts", "kind", "why"),
    [
        ((b"event: endpoint\ndata: http://a:b/\n\n",), Malformed, "does not begin with the URL"),
        ((b"event: endpoint\ndata: /\0\n\n",), Malformed, "does not begin with the URL"),
        ((b"event: endpoint\ndata: http://elsewhere.example/\n\n",), Malformed, "has another origin"),
        ((), Malformed, "does not begin with the URL"),
    ],
)
def test_a_hostile_stream_is_refused_with_the_reason(parts: tuple[bytes, ...], kind: type[Refused], why: str) -> None:
    with opened(streaming(*parts)) as url, pytest.raises(kind, match=why):
        probe_http(url, is_sse=True)


def test_a_line_without_an_end_is_refused_at_the_size_limit() -> None:
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        while sent < 200:
            sent += 1
            yield b"x" * (1 << 20)

    async def endpoint(_: Request) -> Response:
        return StreamingResponse(parts(), media_type="text/event-stream")

    with opened(endpoint) as url, pytest.raises(Invalid, match="more than 16 MiB"):
        probe_http(url, is_sse=True)
    assert sent < 100


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:${PORT}/mcp"])
def test_a_text_that_is_not_a_url_is_refused_as_such(url: str) -> None:
    with pytest.raises(Invalid, match="is not a URL"):
        probe_http(url)


@pytest.mark.parametrize("headers", [{"X": "1", "Y": "\u00e9"}, {"\u00e9": "1"}])
def test_a_header_that_is_not_in_ascii_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Invalid, match=r"the header '(Y|\\xe9)' is not in ASCII"):
        probe_http("http://127.0.0.1:1/mcp", headers=headers)


@pytest.mark.parametrize("value", ["secret\n", " secret", "secret\t", "sec\rret", "sec\x00ret", "sec\x7fret", " "])
def test_a_header_that_http_does_not_allow_is_refused_without_its_value(value: str) -> None:
    with pytest.raises(Invalid, match="the header 'X-Key' has a control character") as refusal:
        probe_http("http://127.0.0.1:1/mcp", headers={"X-Key": value})
    assert "ret" not in f"{refusal.value.message} {refusal.value.hint}"


@pytest.mark.parametrize("value", ["", "a", "a b\tc"])
def test_a_header_may_be_empty_or_have_blanks_inside(value: str) -> None:
    with opened(answering(server_discover={}, tools_list=TOOLS)) as url:
        assert probe_http(url, headers={"X-Key": value})["tools"] == TOOLS["tools"]
