"""An MCP server over HTTP without a guard: the guard of `ostiary run` decides each call in this proxy.

A POST is read completely and decided; then it is forwarded, or answered with a denial. Responses, in JSON or in
Server-Sent Events, are read to record the outcomes of calls, and to withhold results that a call may not return. Calls
of a session (`Mcp-Session-Id`) are tracked over all streams of the session, because an answer may arrive on another
stream after a reconnection.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import msgspec

from ostiary.protocol.errors import Malformed
from ostiary.proxy.entrance import Headers, Rejected, filter_request_headers
from ostiary.proxy.upstream import MAX_BODY, Body, Upstream, too_large
from ostiary.run import frames
from ostiary.run.exchange import Exchange
from ostiary.run.gate import Gate

MAX_SESSIONS = 1000
MAX_QUEUED = 256
"""Maximum number of events of one stream that wait for the client."""
EXCHANGE = "ostiary.exchange"
STREAM = "ostiary.stream"
_LINE_END = re.compile(rb"\r\n|\n|\r")
_EVENT_END = re.compile(rb"(?>\r\n|\n|\r){2}")
_BOM = b"\xef\xbb\xbf"
_JSON_TYPE = re.compile(r'application/json(?:\s*;\s*charset="?utf-?8"?)?\s*;?\s*')
DROPPED = frozenset(
    (
        b"accept-encoding",
        b"range",
        b"x-http-method-override",
        b"x-http-method",
        b"x-method-override",
        b"x-original-method",
        b"x-forwarded-method",
        b"x-original-url",
        b"x-original-uri",
        b"x-rewrite-url",
        b"x-forwarded-uri",
        b"x-forwarded-path",
        b"x-forwarded-prefix",
    )
)
"""Request headers that are not forwarded: headers that request a part of the response or compression, and headers from
which some servers read another method or path than that of the decided request.
"""
NAMED_BY = {"resources/read": "uri", "prompts/get": "name"}
"""Member of `params` that the header `Mcp-Name` repeats, by method (MCP 2026-07-28, streamable HTTP)."""
STATUSES_SINCE = b"2026-07-28"
STATUSES = {
    frames.PARSE_ERROR: 400,
    frames.INVALID_REQUEST: 400,
    frames.INVALID_PARAMS: 400,
    frames.METHOD_NOT_FOUND: 404,
}
"""HTTP status of a JSON-RPC error (MCP 2026-07-28, streamable HTTP)"""


class GuardedUpstream(Upstream):
    """An MCP server at exactly `url`; a gate decides the calls of its tools."""

    def __init__(self, url: str, gate: Gate) -> None:
        """Guard the MCP server at `url`. Raises Invalid if `url` is not an http or https URL."""
        plain, _, query = url.partition("?")
        super().__init__(plain, None)
        self._exact += f"?{query}" if query else ""
        self._gate = gate
        self._sessions: dict[str, Exchange] = {}

    @asynccontextmanager
    async def send(self, method: str, path: str, headers: Headers, body: Body | None) -> AsyncIterator[httpx2.Response]:
        """Decide a request, and yield the response of the server, or the response with the denial. Raises Rejected for
        a request that is not of MCP.
        """
        if path.partition("?")[0]:
            raise Rejected(404, "not_found", "not found", hint="use the URL of the proxy without a further path")
        if method not in ("GET", "POST", "DELETE"):
            raise Rejected(405, "method_not_allowed", "a request to an MCP server has the method GET, POST or DELETE")
        session = next((value.decode("latin-1") for name, value in headers if name == b"mcp-session-id"), None)
        exchange = self._exchange(session)
        headers = passing(headers)
        headers.append((b"accept-encoding", b"identity"))
        text = b"".join([part async for part in body]) if body is not None else b""
        is_over = session is None
        try:
            if method != "POST" and text:
                raise Rejected(400, "malformed", f"{method} has no body in MCP", hint="send POST")
            if method == "POST":
                _check_named(headers, text)
                replies = list[bytes]()
                admit = partial(exchange.admit, text, replies.append, why=_unreadable(headers))
                if not await asyncio.to_thread(admit):
                    yield _refusal(replies, headers)
                    return
            async with super().send(method, path, headers, body) as response:
                if response.headers.get("content-encoding", "identity") != "identity":
                    raise Rejected(
                        502,
                        "upstream_failed",
                        "the server compresses an answer that was requested uncompressed: the proxy cannot read it",
                    )
                _is_stream(response)
                is_over |= method == "DELETE" and response.is_success
                response.extensions[EXCHANGE] = exchange
                yield response
        finally:
            if is_over:
                self._sessions.pop(session or "", None)
                exchange.end()

    def _requested(self, headers: Headers) -> Headers:
        """Return the headers with the client's own `Authorization`: the server authenticates its clients, not
        agents of Ostiary.
        """
        return [
            *filter_request_headers(headers),
            *((name, value) for name, value in headers if name == b"authorization"),
        ]

    def answer(self, response: httpx2.Response, *, base: str) -> tuple[int, Headers]:
        """Return the status and the headers for the client, as `Upstream.answer` does. A response of the server keeps
        the status 401 and its `WWW-Authenticate`, because the client itself authenticates at the server. The response
        has no `Content-Length`, because the proxy may replace a result.
        """
        status, headers = super().answer(response, base=base)
        if EXCHANGE not in response.extensions:
            return status, headers
        challenges = [(b"www-authenticate", one.encode()) for one in response.headers.get_list("www-authenticate")]
        # withholding a result changes the length
        kept = [(name, value) for name, value in headers if name != b"content-length"]
        return response.status_code, [*kept, *challenges]

    async def parts(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """Yield the parts of a response for the client; a withheld result is replaced by an error."""
        exchange: Exchange | None = response.extensions.get(EXCHANGE)
        if exchange is None:
            yield response.content
            return
        is_stream = _is_stream(response)
        async for whole in _events(response) if is_stream else _whole(response):
            line = _data(whole) if is_stream else whole
            if not line.strip():
                yield whole
                continue
            forwarded = await asyncio.to_thread(exchange.receive, line)
            yield whole if forwarded is line else _with_data(whole, forwarded) if is_stream else forwarded
            await asyncio.to_thread(exchange.record_outcomes, line)

    def _exchange(self, session: str | None) -> Exchange:
        """Return the exchange of a session; a new exchange for a request without a session."""
        if session is None:
            return Exchange(self._gate)
        exchange = self._sessions.pop(session, None) or Exchange(self._gate)
        self._sessions[session] = exchange
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.pop(next(iter(self._sessions))).end()
        return exchange


class SseUpstream(GuardedUpstream):
    """A server with the transport HTTP with Server-Sent Events (MCP 2024-11-05): a GET opens the stream of answers, and
    the first event names the URL for the client's messages.
    """

    def __init__(self, url: str, gate: Gate, *, prefix: str) -> None:
        """Guard the MCP server at a URL. `prefix`: the path of the proxy, below which the client sends its messages.
        Raises Invalid if `url` is not an http or https URL.
        """
        super().__init__(url, gate)
        self._prefix = prefix
        self._streams = dict[str, _Stream]()
        self._count = 0

    @asynccontextmanager
    async def send(self, method: str, path: str, headers: Headers, body: Body | None) -> AsyncIterator[httpx2.Response]:
        """Decide a request of the transport with Server-Sent Events, and yield the response. Raises Rejected for a
        request that is not of this transport.
        """
        stream = self._streams.get(path)
        if method == "POST" and stream is not None and stream.url:
            async with self._post(stream, path, headers, body) as response:
                yield response
        elif method == "GET" and not path.partition("?")[0]:
            async with self._open(headers) as response:
                yield response
        else:
            raise Rejected(
                404, "not_found", "not found", hint="open the stream with GET, then send to the URL that it names"
            )

    def _target(self, path: str) -> str:
        stream = self._streams.get(path)
        return self._exact if stream is None else stream.url

    @asynccontextmanager
    async def _open(self, headers: Headers) -> AsyncIterator[httpx2.Response]:
        self._count += 1
        path, stream = f"/messages/{self._count}", _Stream(Exchange(self._gate))
        self._streams[path] = stream
        if len(self._streams) > MAX_SESSIONS:
            self._streams.pop(next(iter(self._streams)))
        try:
            plain = [*passing(headers), (b"accept-encoding", b"identity")]
            async with Upstream.send(self, "GET", "", plain, None) as response:
                if response.is_success and not _is_stream(response):
                    raise Rejected(502, "upstream_failed", "the server does not answer with Server-Sent Events")
                response.extensions[EXCHANGE], response.extensions[STREAM] = stream.exchange, (path, stream)
                yield response
        finally:
            self._streams.pop(path, None)
            stream.exchange.end()

    @asynccontextmanager
    async def _post(
        self, stream: _Stream, path: str, headers: Headers, body: Body | None
    ) -> AsyncIterator[httpx2.Response]:
        """Decide a message of the client, forward it if it is allowed, and yield the response. A denial is sent as an
        event on the stream of the client.
        """
        text = b"".join([part async for part in body]) if body is not None else b""
        replies = list[bytes]()
        admit = partial(stream.exchange.admit, text, replies.append, why=_unreadable(headers))
        if await asyncio.to_thread(admit):
            async with Upstream.send(self, "POST", path, passing(headers), body) as response:
                # the results arrive on the stream, where `parts` checks them
                yield httpx2.Response(response.status_code)
            return
        for reply in replies:
            await stream.queue.put(_Reply(b"event: message\ndata: " + reply.strip() + b"\n\n"))
        yield httpx2.Response(202, content=b"Accepted")

    async def parts(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """Yield the events of a stream for the client; a withheld result is replaced by an error."""
        path_and_stream: tuple[str, _Stream] | None = response.extensions.get(STREAM)
        if path_and_stream is None or not response.is_success:
            async for part in Upstream.parts(self, response):
                yield part
            return
        path, stream = path_and_stream
        pump = asyncio.create_task(stream.pump(response))
        try:
            while (event := await stream.queue.get()) is not None:
                if isinstance(event, _Reply):
                    yield event
                elif not stream.url:
                    yield self._endpoint(event, response, path, stream)
                elif not (line := _data(event)).strip():
                    yield event
                else:
                    forwarded = await asyncio.to_thread(stream.exchange.receive, line)
                    yield event if forwarded is line else _with_data(event, forwarded)
                    await asyncio.to_thread(stream.exchange.record_outcomes, line)
            await pump
        finally:
            pump.cancel()

    def _endpoint(self, event: bytes, response: httpx2.Response, path: str, stream: _Stream) -> bytes:
        """Store the URL for messages that the event of the server names. Return the event with a URL of the proxy in
        place of this URL. Raises ConnectionAbortedError if the URL leads to another server.
        """
        if not (named := _data(event).decode("latin-1").strip()):
            return event  # a comment precedes the event
        url = response.request.url.join(named)
        if (url.scheme, url.host, url.port) != tuple(
            getattr(response.request.url, one) for one in ("scheme", "host", "port")
        ):
            raise ConnectionAbortedError("the server names a URL of another server for messages")
        stream.url = str(url)
        return _with_data(event, f"{self._prefix}{path}".encode())


class _Reply(bytes):
    """An event that the guard sends in place of the server."""


@dataclass(slots=True)
class _Stream:
    """A stream of responses. `url`: URL at which the server accepts the client's messages; empty until the
    server names it.
    """

    exchange: Exchange
    url: str = ""
    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(MAX_QUEUED))

    async def pump(self, response: httpx2.Response) -> None:
        """Put the server's events into the queue; after the last event, put None."""
        try:
            async for event in _events(response):
                await self.queue.put(event)
        finally:
            await self.queue.put(None)


def passing(headers: Headers) -> Headers:
    """Return those headers of a request that are forwarded to the server. In the comparison with the dropped headers,
    `_` counts as `-`, as CGI and WSGI read it.
    """
    return [(name, value) for name, value in headers if name.replace(b"_", b"-") not in DROPPED]


def _check_named(headers: Headers, text: bytes) -> None:
    """Check that the headers `Mcp-Method` and `Mcp-Name`, if they are sent, equal the method and the tool in the body,
    because a server may trust the headers. Raises Rejected otherwise.
    """
    claims = [(name, value) for name, value in headers if name in (b"mcp-method", b"mcp-name")]
    if not claims:
        return
    try:
        messages = frames.read(text)
    except Malformed:
        return  # the gate decides the message
    expected: dict[bytes, Any] = {}
    if len(messages) > 1:
        raise Rejected(400, "header_mismatch", "a batch may not have the header `Mcp-Method` or `Mcp-Name`")
    if messages:
        expected[b"mcp-method"] = messages[0].method
        if messages[0].method == "tools/call":
            expected[b"mcp-name"] = messages[0].tool
        elif (member := NAMED_BY.get(messages[0].method)) is not None:
            expected[b"mcp-name"] = messages[0].arguments.get(member)
    for name, value in claims:
        if name in expected and _plain(value) != expected[name]:
            raise Rejected(400, "header_mismatch", f"the header `{name.decode()}` differs from the body of the request")


def _unreadable(headers: Headers) -> Malformed | None:
    """Return a refusal if the server may read another text from the body than the guard, which reads JSON in UTF-8;
    otherwise None.

    For example, Express decodes the body by its `charset` (also UTF-7), and decompresses it by its `Content-Encoding`.
    """
    types = [value.decode("latin-1").lower() for name, value in headers if name == b"content-type"]
    if len(types) > 1 or any(_JSON_TYPE.fullmatch(value) is None for value in types):
        return Malformed(
            "the `Content-Type` is not `application/json` in UTF-8", hint="send `Content-Type: application/json`"
        )
    if any(name == b"content-encoding" and value.lower() != b"identity" for name, value in headers):
        return Malformed("the body has a `Content-Encoding`", hint="send the body uncompressed")
    return None


def _plain(value: bytes) -> str | None:
    """Return the text of a header that may be in base64 (MCP 2026-07-28)."""
    encoded = re.fullmatch(rb"=\?base64\?([A-Za-z0-9+/=]*)\?=", value)
    try:
        return (base64.b64decode(encoded[1]) if encoded is not None else value).decode("utf-8")
    except ValueError:
        return None


def _refusal(replies: list[bytes], headers: Headers) -> httpx2.Response:
    """Return the response to a POST that is not forwarded: the JSON-RPC errors `replies`, or 403 for a notification.

    Since MCP 2026-07-28, some errors have an HTTP status of their own. For earlier versions the status is 200, because
    a client would end its session at a 404.
    """
    if not replies:
        return httpx2.Response(403, json={"error": "denied", "message": "the notification is denied"})
    lines = [reply.strip() for reply in replies]
    content = lines[0] if len(lines) == 1 else b"[" + b",".join(lines) + b"]"
    version = next((value for name, value in headers if name == b"mcp-protocol-version"), b"")
    status = 200
    if version >= STATUSES_SINCE and len(lines) == 1:
        status = STATUSES.get(msgspec.json.decode(lines[0])["error"]["code"], 200)
    return httpx2.Response(status, content=content, headers={"content-type": "application/json"})


def _is_stream(response: httpx2.Response) -> bool:
    """Return whether clients read a response as Server-Sent Events, according to its `Content-Type`. Some clients only
    search the header for the name of the type. Raises Rejected for a header that clients may read in both ways.
    """
    kind = response.headers.get("content-type", "").lower()
    is_stream = kind.partition(";")[0].strip() == "text/event-stream"
    if ("text/event-stream" in kind) != is_stream or (is_stream and "json" in kind):
        raise Rejected(502, "upstream_failed", "the server's `Content-Type` is ambiguous")
    return is_stream


async def _whole(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Yield the body as one part."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > MAX_BODY:
            raise ConnectionAbortedError(f"the server's answer has over {MAX_BODY >> 20} MiB, and cannot be checked")
    yield bytes(body)


async def _events(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Yield the events of a stream unchanged, each with the empty line at its end."""
    buffer = bytearray()
    async for part in response.aiter_raw():
        buffer += part
        start = 0
        for end in _EVENT_END.finditer(buffer):
            yield bytes(buffer[start : end.end()])
            start = end.end()
        del buffer[:start]
        if len(buffer) > MAX_BODY:
            raise too_large(MAX_BODY)
    if buffer:
        yield bytes(buffer)


def _data(event: bytes) -> bytes:
    """Return the data of an event (HTML, section 9.2.6)."""
    lines = _LINE_END.split(event.removeprefix(_BOM))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))


def _with_data(event: bytes, data: bytes) -> bytes:
    """Return the event with its data replaced."""
    lines = [line for line in _LINE_END.split(event.removeprefix(_BOM)) if line and not line.startswith(b"data:")]
    return b"\n".join([*lines, b"data: " + data.strip(), b"", b""])
