"""Server-Sent Events as a guard follows them: byte for byte, whatever their line ends and however they are cut."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.proxy.entrance import Rejected
from ostiary.proxy.guarded import (
    SseUpstream,
    _check_named,
    _data,
    _events,
    _is_stream,
    _refusal,
    _Stream,
    _unreadable,
    _with_data,
    passing,
)
from ostiary.proxy.upstream import Body
from ostiary.run import frames
from ostiary.run.exchange import Exchange
from ostiary.run.gate import Gate

END = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINE = st.sampled_from(
    [b"data: x", b"data:y", b"data", b": note", b"id: 7", b"event: message", b"data:  two ", b"retry: 1"]
)


async def events(parts: list[bytes]) -> list[bytes]:
    async def stream() -> object:
        for part in parts:
            yield part

    response = httpx2.Response(200, content=stream())  # type: ignore[arg-type]
    return [event async for event in _events(response)]


@given(
    lines=st.lists(st.tuples(st.lists(st.tuples(LINE, END), min_size=1, max_size=4), END), max_size=4),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
async def test_a_stream_of_events_passes_byte_for_byte(
    lines: list[tuple[list[tuple[bytes, bytes]], bytes]], cuts: list[int]
) -> None:
    text = b"".join(b"".join(line + end for line, end in event) + last for event, last in lines)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    parts = [text[start:end] for start, end in pairwise(places)]
    assert b"".join(await events(parts)) == text


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
async def test_each_event_of_a_stream_is_read_separately(end: bytes) -> None:
    first, second = b"id: 1" + end + b"data: one" + end * 2, b"data: two" + end + b"data: more" + end * 2
    assert await events([first + second]) == [first, second]
    slow = [_data(event) for event in await events([bytes([byte]) for byte in first + second])]
    assert [data for data in slow if data] == [b"one", b"two\nmore"]
    assert [_data(first), _data(second)] == [b"one", b"two\nmore"]


def test_an_event_with_replaced_data_keeps_its_id() -> None:
    assert _with_data(b"id: 7\r\nevent: message\r\ndata: secret\r\n\r\n", b'{"a":1}\n') == (
        b'id: 7\nevent: message\ndata: {"a":1}\n\n'
    )


def test_a_byte_order_mark_hides_no_data_of_an_event() -> None:
    assert _data(b"\xef\xbb\xbfdata: x\n\n") == b"x"


CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read","arguments":{}}}'


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ([], True),
        ([(b"mcp-method", b"tools/call"), (b"mcp-name", b"read")], True),
        ([(b"mcp-name", b"=?base64?cmVhZA==?=")], True),
        ([(b"mcp-name", b"write")], False),
        ([(b"mcp-name", b"=?base64?d3JpdGU=?=")], False),
        ([(b"mcp-name", b"=?base64?!?=")], False),
        ([(b"mcp-method", b"ping")], False),
        ([(b"mcp-name", b"\xff")], False),
        ([(b"mcp-name", b"write"), (b"mcp-name", b"read")], False),
    ],
)
def test_a_header_that_differs_from_the_method_or_the_tool_in_the_body_is_rejected(
    headers: list[tuple[bytes, bytes]], passes: bool
) -> None:
    if passes:
        _check_named(headers, CALL)
        return
    with pytest.raises(Rejected):
        _check_named(headers, CALL)


def test_a_batch_with_a_header_that_names_a_tool_is_rejected() -> None:
    with pytest.raises(Rejected):
        _check_named([(b"mcp-name", b"read")], b"[" + CALL + b"," + CALL + b"]")


@pytest.mark.parametrize(
    ("headers", "is_readable"),
    [
        ([], True),
        ([(b"content-type", b"application/json")], True),
        ([(b"content-type", b'Application/JSON ; charset="UTF-8"')], True),
        ([(b"content-type", b"application/json"), (b"content-encoding", b"identity")], True),
        ([(b"content-type", b"application/json; charset=utf-7")], False),
        ([(b"content-type", b"application/json; charset=utf-8; charset=utf-7")], False),
        ([(b"content-type", b"application/json"), (b"content-type", b"text/plain")], False),
        ([(b"content-type", b"application/x-www-form-urlencoded")], False),
        ([(b"content-encoding", b"gzip")], False),
    ],
)
def test_a_body_of_another_media_type_or_encoding_is_not_read_as_json(
    headers: list[tuple[bytes, bytes]], is_readable: bool
) -> None:
    assert (_unreadable(headers) is None) is is_readable


@pytest.mark.parametrize(
    ("kind", "is_stream"),
    [
        ("application/json", False),
        ("", False),
        ("Text/Event-Stream; charset=utf-8", True),
        ("application/json; a=text/event-stream", None),
        ("application/json, text/event-stream", None),
        ("text/event-stream; a=application/json", None),
    ],
)
def test_a_response_with_an_ambiguous_content_type_is_rejected(kind: str, is_stream: bool | None) -> None:
    response = httpx2.Response(200, headers={"content-type": kind})
    if is_stream is not None:
        assert _is_stream(response) is is_stream
        return
    with pytest.raises(Rejected):
        _is_stream(response)


@pytest.mark.parametrize(
    ("name", "passes"), [(b"file:///a", True), (b"=?base64?ZmlsZTovLy9h?=", True), (b"file:///b", False)]
)
def test_a_header_that_differs_from_the_resource_in_the_body_is_rejected(name: bytes, passes: bool) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a"}}'
    if passes:
        _check_named([(b"mcp-name", name)], body)
        return
    with pytest.raises(Rejected):
        _check_named([(b"mcp-name", name)], body)


@pytest.mark.parametrize(
    ("code", "status"), [(-32700, 400), (-32600, 400), (-32601, 404), (-32602, 400), (-32001, 200)]
)
def test_an_error_has_the_http_status_of_the_protocol_version(code: int, status: int) -> None:
    """In 2025-11-25 a 404 ends the client's session."""
    reply = frames.error(7, code, "no")
    assert _refusal([reply], [(b"mcp-protocol-version", b"2026-07-28")]).status_code == status
    for headers in ([], [(b"mcp-protocol-version", b"2025-11-25")]):
        assert _refusal([reply], headers).status_code == 200
    assert _refusal([reply, reply], [(b"mcp-protocol-version", b"2026-07-28")]).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        b"range",
        b"accept-encoding",
        b"x-http-method-override",
        b"x_http_method_override",
        b"x-http_method",
        b"x-original-url",
        b"x_rewrite_url",
        b"x-forwarded-uri",
    ],
)
def test_a_header_that_changes_the_request_for_the_server_is_not_forwarded(name: bytes) -> None:
    """CGI and WSGI take `_` for `-`."""
    assert passing([(name, b"DELETE"), (b"x-own", b"1"), (b"api_key", b"2")]) == [(b"x-own", b"1"), (b"api_key", b"2")]


@pytest.mark.parametrize("status", [200, 202, 400])
async def test_the_response_to_a_posted_message_has_no_content_with_server_sent_events(status: int) -> None:
    """Results come on the stream alone, where they are judged."""
    upstream = SseUpstream("http://127.0.0.1:1/sse", cast(Gate, None), prefix="/x")
    result = b'{"jsonrpc": "2.0", "id": 1, "result": {"content": "secret"}}'
    upstream._http = httpx2.AsyncClient(
        transport=httpx2.MockTransport(lambda _: httpx2.Response(status, content=result))
    )
    upstream._streams["/messages/1"] = _Stream(Exchange(cast(Gate, None)), "http://127.0.0.1:1/messages")

    async def message() -> bytes:
        return messages.pop() if messages else b""

    messages = [b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}']
    body = Body(message, max_bytes=1000)
    async with upstream.send("POST", "/messages/1", [], body) as response:
        parts = [part async for part in upstream.parts(response)]
    body.close()
    await upstream.close()
    assert (response.status_code, b"".join(parts)) == (status, b"")
