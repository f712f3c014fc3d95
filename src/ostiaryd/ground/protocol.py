"""A straight way from the socket to an endpoint, past ASGI: what is asked most is answered in half the time.

`Protocol` is uvicorn's for HTTP/1.1. A POST for one of its endpoints is answered by `Endpoint.answer` itself, the same
that the ASGI application calls; all else, and whatever is unusual about a request, takes uvicorn's way. This relies on
how uvicorn is made inside: tests/ground/test_protocol.py sends the same bytes both ways and compares the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from starlette.routing import BaseRoute, Route
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ostiaryd.ground.http import Endpoint, Headers, Reply

MAX_HEAD_BYTES = 64 << 10
"""What a request may say besides its body, headers and trailers: httptools keeps them without end."""
SLOWEST_S = 30.0
"""Within this time a request must have come, counted from its first byte, or from the connection on for the first."""


def endpoints_of(routes: Iterable[BaseRoute]) -> dict[bytes, Endpoint]:
    """Those that `Protocol` takes, by their URL: endpoints that a POST reaches at one path alone, answered at once."""
    return {
        route.path.encode(): route.endpoint
        for route in routes
        if isinstance(route, Route)
        and isinstance(route.endpoint, Endpoint)
        and route.methods == {"POST"}
        and not route.param_convertors
        and not route.endpoint.streams
    }


class _Event:
    """What uvicorn sets to wake an ASGI application; here nobody waits for it."""

    def set(self) -> None:
        pass


class Exchange:
    """One request and its answer, with the attributes that uvicorn's protocol reads and sets on a cycle of its own."""

    __slots__ = ("body", "disconnected", "endpoint", "headers", "keep_alive", "path", "response_complete")
    message_event = _Event()

    def __init__(self, endpoint: Endpoint, path: str, headers: Headers, *, keep_alive: bool) -> None:
        self.endpoint, self.path, self.headers, self.keep_alive = endpoint, path, headers, keep_alive
        self.body = b""
        self.disconnected = self.response_complete = False


class Protocol(HttpToolsProtocol):
    def __init__(self, endpoints: Mapping[bytes, Endpoint], **given: Any) -> None:
        super().__init__(**given)
        self._endpoints = endpoints
        self._head_bytes = 0
        self._waits_since: float | None = self.loop.time()

    def close_if_slow(self, now: float) -> None:
        """Close the connection if its request should have come by then (on the clock of the loop)."""
        if self._waits_since is not None and now - self._waits_since > SLOWEST_S:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._waits_since = self.loop.time()
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        endpoint = self._endpoints.get(self.url)
        if endpoint is None or not self._is_plain():
            url, headers, expect = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.headers, self.expect_100_continue = url, headers, expect
            self.scope["headers"] = headers
            super().on_headers_complete()
            return
        keep_alive = self.parser.should_keep_alive()
        self.cycle = Exchange(endpoint, self.url.decode("ascii"), self.headers, keep_alive=keep_alive)  # type: ignore[assignment]

    def _is_plain(self) -> bool:
        """Whether this is a POST like most, and the answers before it were given."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
        )

    def on_body(self, body: bytes) -> None:
        self._head_bytes -= len(body)
        exchange: object = self.cycle
        if not isinstance(exchange, Exchange):
            super().on_body(body)
        elif len(exchange.body) <= exchange.endpoint.max_body:  # one part beyond is kept, to show that it is too much
            exchange.body += body

    def on_message_complete(self) -> None:
        self._waits_since = None
        exchange: object = self.cycle
        if not isinstance(exchange, Exchange):
            super().on_message_complete()
            return
        task = self.loop.create_task(self._answer(exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            reply, headers = await exchange.endpoint.answer(
                "POST", exchange.path, params={}, query="", headers=exchange.headers, body=exchange.body,
                address=self.client[0] if self.client else "",
            )  # fmt: skip
            sent = self._render(exchange, reply, headers)
        except Exception:  # noqa: BLE001 because `failure` logs it
            exchange.keep_alive = False
            sent = self._render(exchange, *exchange.endpoint.failure(exchange.path, exchange.headers))
        if self.flow.write_paused and not exchange.disconnected:
            await self.flow.drain()
        exchange.response_complete = True
        if exchange.disconnected:
            return
        self.transport.write(sent)
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _render(self, exchange: Exchange, reply: Reply, headers: Headers) -> bytes:
        """The bytes of an answer. Raises ValueError for a header that would be two."""
        body = reply.body
        assert isinstance(body, bytes), "what is sent as a stream is no endpoint of this protocol"
        headers = [*self.server_state.default_headers, *headers, (b"content-length", b"%d" % len(body))]
        if not exchange.keep_alive:
            headers.append((b"connection", b"close"))
        head = b"".join([b"%b: %b\r\n" % header for header in headers])
        if not head.count(b"\n") == head.count(b"\r") == len(headers):
            raise ValueError("a header has more than one line")
        return b"%b%b\r\n%b" % (STATUS_LINE[reply.status], head, body)
