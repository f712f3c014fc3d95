"""HTTP/1.1 from the socket to an endpoint without ASGI, and the limits of a connection.

`Protocol` extends uvicorn's protocol. A plain request for an endpoint is answered by `Endpoint.answer`, which the ASGI
application calls too; every other request goes through ASGI: a HEAD, an answer that may be streamed, a large body, a
request behind another one, and a request without an endpoint. This relies on the internals of uvicorn:
tests/ground/test_protocol.py sends the same bytes both ways and compares the answers.

A head ends where its fields end: the fields of a trailer are counted, and dropped. A head must name its host once (RFC
9112 section 3.2). A refused request is answered before the connection is closed: 400, 408, 431, 501 or 503.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ostiary.protocol.client_certificate import ClientCertificate
from ostiaryd.ground.http.connections import FRESH_S, MAX_HELD, Connections
from ostiaryd.ground.http.edge import (
    NO_LENGTH,
    NO_STORE,
    OVERTAKING,
    PROVED,
    SHOWN,
    SMALL_BODY,
    Endpoint,
    Headers,
    Reply,
    reply,
)
from ostiaryd.ground.http.router import Target
from ostiaryd.ground.http.tls import asks_for_certificates, shown_certificate

MAX_HEAD_BYTES = 64 << 10
"""Maximum size of the target, the fields and the trailer fields of one request, including an incomplete field."""
MAX_FIELDS = 200
SLOWEST_S = 30.0
"""Seconds within which a request must arrive, from its first byte on; the first request from the connection on. An
unproven client must also read an answer within this time."""
MAX_WAITING = 32
"""Maximum number of requests of a connection that wait for the answer to an earlier one; beyond it, the
connection is not parsed.
"""
SLICE_BYTES = 4 << 10
"""Number of bytes that are parsed at once, so that few requests begin to wait before `MAX_WAITING` is checked."""
WAITING_COST = 4 << 10
"""Bytes of memory that a waiting request takes in addition to the bytes that were sent."""
LINGER_S = 2.0
"""Seconds after a refusal during which input is read and dropped, so that the client can read the answer."""


def _bytes(answer: Reply, headers: Headers, *, keep_alive: bool) -> bytes:
    """Return the bytes of an answer. Raises ValueError for a header of more than one line."""
    body = answer.body
    assert isinstance(body, bytes), "the route is not marked as streaming"
    if answer.status not in NO_LENGTH:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    if not keep_alive:
        headers = [*headers, (b"connection", b"close")]
    head = b"".join([b"%b: %b\r\n" % header for header in headers])
    if not head.count(b"\n") == head.count(b"\r") == len(headers):
        raise ValueError("a header field contains a line break")
    return b"%b%b\r\n%b" % (STATUS_LINE[answer.status], head, body)


def render_refusal(
    status: int, code: str, message: str, *, keep_alive: bool = False, headers: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """Return the bytes of a refusal in the form of the admin API."""
    answer = reply({"error": code, "message": message}, status=status, headers=[NO_STORE])
    named = [(b"content-type", answer.media_type.encode()), *answer.headers]
    if status == 503:
        named.append((b"retry-after", b"1"))
    return _bytes(answer, [*headers, *named], keep_alive=keep_alive)


_LIST_BEGINS = frozenset({b"L", b"LI", b"LIS", b"LIST", b"LIST "})
"""The beginnings of a request with the method LIST of the Vault API. The parser has no such method: it reads LINK,
which no route has. A request that is pipelined behind another one is not recognized, and is refused."""
LATE = "too many requests wait to be read"
LATE_ANSWER = render_refusal(503, "busy", LATE, keep_alive=True)
"""The answer to a request that has waited too long to be read."""
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})(?=\r\n|$)")
_UNUSUAL = re.compile(
    rb"\r\n(?:[ \t]|transfer-encoding|expect|upgrade|connection:(?! *keep-alive(?:\r\n|$)))|[^\r]\n|\r[^\n]|\0"
)
_NO_PATH = re.compile(rb"[^/?]+://[^/?]+(?=\?|$)")
"""A target in absolute form with an empty path."""


def is_one_request(data: bytes) -> bool:
    """Return whether the bytes are exactly one GET or POST of HTTP/1.1 after which the connection can be kept.

    False for every head that readers could understand in two ways: its connection is closed.
    """
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank or not head.startswith((b"POST ", b"GET ")) or len(head) > MAX_HEAD_BYTES:
        return False
    lowered = head.lower()
    lengths = _LENGTH.findall(lowered)
    if len(lengths) != lowered.count(b"content-length") or len(lengths) > 1 or _UNUSUAL.search(lowered):
        return False
    return head.partition(b"\r\n")[0].endswith(b" HTTP/1.1") and len(body) == (int(lengths[0]) if lengths else 0)


class _Event:
    """The event that uvicorn sets to wake an ASGI application; an exchange has no application to wake."""

    def set(self) -> None:
        pass


class _Flow(FlowControl):
    """Flow control of a connection that stays paused while bytes were read and not parsed."""

    has_unparsed = False

    def resume_reading(self) -> None:
        if not self.has_unparsed:
            super().resume_reading()


class Exchange:
    """A request and its answer, with the attributes that uvicorn's protocol reads and sets on its own cycles."""

    __slots__ = ("body", "disconnected", "endpoint", "headers", "keep_alive", "method", "response_complete", "target")
    message_event = _Event()

    def __init__(self, method: str, target: Target, headers: Headers, *, keep_alive: bool) -> None:
        self.method, self.target, self.headers, self.keep_alive = method, target, headers, keep_alive
        self.endpoint = target.endpoint
        self.body = b""
        self.disconnected = self.response_complete = False


class Protocol(HttpToolsProtocol):
    """A connection that speaks HTTP/1.1."""

    def __init__(
        self,
        find_target: Callable[[str, bytes], Target | None],
        connections: Connections | None = None,
        **options: Any,
    ) -> None:
        """`find_target` returns the endpoint that answers a method and URL without ASGI
        (`SegmentRouter.find_target`).
        """
        super().__init__(**options)
        self._find_target = find_target
        self._connections = Connections() if connections is None else connections
        self._address = ""
        self._shown: ClientCertificate | None = None
        self._is_proxied = self._is_proven = self._is_privileged = False
        self._is_in_head = self._is_in_message = self._has_cycle = self._is_refused = self._is_list = False
        self._fields = self._seen = self._unseen = self._body_bytes = self._held = 0
        self._waiting_bytes = self.answered = 0
        self._unparsed = b""
        self._has_turn = False
        """True if this connection waits for a turn."""
        self._running: Any = None
        """The request that is being answered; `cycle` is the newest request, which may still wait."""
        self._opened_at = self.loop.time()
        self._waits_since: float | None = self._opened_at
        self._stalls_since: float | None = None

    # --- the connection

    def connection_made(self, transport: Any) -> None:
        """Register the connection with the bounds of its address."""
        super().connection_made(transport)
        self.flow: _Flow = _Flow(transport)
        self._address = self.client[0] if self.client else ""
        self._is_proxied = self._connections.is_proxy(self._address)
        if asks_for_certificates(transport):
            self._shown = shown_certificate(transport)
        self._connections.add(self, "" if self._is_proxied else self._address)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remove the connection from the bounds, and drop its requests."""
        self._connections.remove(self)
        self._hold(0)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        self._unparsed = b""
        super().connection_lost(exc)
        self.cycle = cast(Any, None)  # with the scope, it refers to this connection
        self._running = None
        self.scope = cast(Any, None)

    @property
    def is_idle(self) -> bool:
        """Return whether no part of a request has arrived, and no answer is due."""
        return not self._is_in_message and not self.is_answering

    @property
    def is_answering(self) -> bool:
        """Return whether bytes of the connection wait to be parsed or answered."""
        if self.flow.has_unparsed:
            return True
        return self.cycle is not None and not self.cycle.response_complete and not self._is_in_message

    @property
    def is_fresh(self) -> bool:
        """Return whether the connection was opened less than `FRESH_S` ago."""
        return self.loop.time() - self._opened_at < FRESH_S

    def turn_away(self) -> None:
        """Close the connection; if part of a request is there, answer 503 first."""
        if self._stalls_since is not None:  # the client does not read
            self._is_refused = True
            self.transport.abort()
        elif self.is_idle:
            self._is_refused = True
            self.transport.close()
        else:
            self._refuse(503, "too_many_connections", "too many connections of unauthenticated callers")

    def close_if_slow(self, now: float) -> None:
        """Close the connection if its request, or the reading of its answer, is overdue at `now` (loop clock)."""
        may_stall = self._is_proven and not self.transport.is_closing()
        if self._stalls_since is not None and not may_stall and now - self._stalls_since > SLOWEST_S:
            self.transport.abort()
        if self._waits_since is None or now - self._waits_since <= (LINGER_S if self._is_refused else SLOWEST_S):
            return
        if self._is_refused or not self._is_in_message:
            self.transport.close()
        else:
            self._refuse(408, "too_slow", f"the request did not come within {SLOWEST_S:g} s")

    def pause_writing(self) -> None:
        """Record since when the client does not read."""
        self._stalls_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Record that the client reads again."""
        self._stalls_since = None
        super().resume_writing()

    def _note_proven(self, is_privileged: bool) -> None:
        """Remove this connection from the bounds: its caller is proved. A proxy's connection carries many callers."""
        if self.transport.is_closing():  # the connection has ended, and is not counted again
            return
        self._is_privileged |= is_privileged and not self._is_proxied
        if self._is_proxied:
            self._connections.add(self, "")
        elif not self._is_proven:
            self._is_proven = True
            self._connections.remove(self)
            self._hold(0)

    def _overtaking(self) -> AbstractContextManager[None]:
        """Return the block in which an administrator or a person stops something while all other clients wait."""
        return self._connections.turns.paused(self.loop)

    def _hold(self, count: int) -> None:
        """Set the number of bytes that this connection holds."""
        if not self._is_proven or self._held:
            count = 0 if self._is_proven else count
            self._connections.held += count - self._held
            self._held = count

    # --- requests

    def data_received(self, data: bytes) -> None:
        """Parse the bytes; unlike uvicorn, log no input of strangers, and offer no upgrade."""
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        self._unparsed += data
        if self._is_privileged:  # an administrator or a person overtakes the turns of all others
            self._parse()
        elif (turns := self._connections.turns).is_free:
            turns.run(self._parse, self.loop)
        else:
            self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        """Parse in a later round of the event loop, and read nothing more until then."""
        self.flow.has_unparsed = True
        if not self._is_proven:
            self._connections.update(self)
            self._check_held()
            if self._is_refused:  # what still comes is read and dropped
                self.flow.has_unparsed = False
                return
        self.flow.pause_reading()
        if not self._has_turn:
            self._has_turn = True
            self._connections.turns.wait(self._take_turn, self.loop, address=self._address, refuse=self._refuse_late)

    def _take_turn(self) -> None:
        self._has_turn = self.flow.has_unparsed = False
        if self.transport.is_closing():
            return
        if not self._is_full:
            self.flow.resume_reading()
        if not self._is_refused:
            self._parse()

    def _refuse_late(self) -> None:
        """Refuse, unread, input that has waited too long for its turn. The connection stays open after one whole
        request.
        """
        self._has_turn = self.flow.has_unparsed = False
        data, self._unparsed = self._unparsed, b""
        if self.transport.is_closing() or self._is_refused:
            return
        self._hold(0)
        if self.is_idle and not self.flow.write_paused and is_one_request(data):
            self.transport.write(LATE_ANSWER)
            self.on_response_complete()
        else:
            self._refuse(503, "busy", LATE)
            self.flow.resume_reading()

    @property
    def _is_full(self) -> bool:
        """Return whether nothing more may be read until an earlier request is answered, or its body is consumed."""
        cycle: Any = self.cycle
        if self.pipeline or cycle is None or cycle.response_complete or isinstance(cycle, Exchange):
            return bool(self.pipeline)
        return len(cycle.body) > HIGH_WATER_LIMIT

    def _parse(self) -> None:
        """Parse the bytes that have arrived, at least one slice. While too many requests wait, keep the rest and stop
        reading; once the time of the round is used up, parse the rest in a later round.
        """
        data, self._unparsed = self._unparsed, b""
        if not self._is_in_message and data[:5] in _LIST_BEGINS:
            if len(data) < 5:
                self._unparsed, self._waits_since = data, self.loop.time()
                return
            data, self._is_list = b"LINK" + data[4:], True
        at, is_over = 0, False
        while at < len(data) and len(self.pipeline) < MAX_WAITING and not (self._is_refused or is_over):
            self._feed(data[at : at + SLICE_BYTES])
            at += SLICE_BYTES
            is_over = at < len(data) and not self._is_privileged and self._connections.turns.is_over
        if self._is_refused:
            return
        self._unparsed = data[at:]
        if self._unparsed and len(self.pipeline) < MAX_WAITING:
            self._wait_for_turn()
            return
        self.flow.has_unparsed = bool(self._unparsed)
        if self._unparsed:
            self.flow.pause_reading()
        if not self._is_proven:
            self._check_held()

    def _check_held(self) -> None:
        """Count the bytes that this connection holds; refuse the request if all connections together hold too many."""
        arrived = self._seen + self._unseen + self._body_bytes
        self._hold(self._waiting_bytes + len(self._unparsed) + arrived)
        if self._connections.held > MAX_HELD:
            self._refuse(503, "too_much_waits", "requests of unauthenticated callers use too much memory")

    def _feed(self, data: bytes) -> None:
        self._unseen += len(data)  # the parser's callbacks reset this to 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(400, "malformed", "the request is not valid HTTP/1.1")
            return
        except httptools.HttpParserUpgrade:
            pass
        if self._is_head_too_large():
            self._refuse_head()

    def _should_upgrade(self) -> bool:
        return False

    def on_message_begin(self) -> None:
        """Begin a request: reset its counts."""
        self._unset_keepalive_if_required()  # an answer may have set it since the bytes of this request arrived
        self._is_in_head = self._is_in_message = True
        self._has_cycle = False
        self._fields = self._seen = self._unseen = self._body_bytes = 0
        self._waits_since = self.loop.time()
        self.url, self.headers, self.expect_100_continue = b"", [], False
        if not self._is_proven:
            self._connections.update(self)

    def on_url(self, url: bytes) -> None:
        """Add a part of the URL, and check the size of the head."""
        self._unseen = 0
        self._seen += len(url)
        super().on_url(url)
        self._check_size()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header, and check the number and the size of the headers."""
        self._unseen = 0
        self._fields += 1
        self._seen += len(name) + len(value) + 4
        if self._fields > MAX_FIELDS or self._seen > MAX_HEAD_BYTES:
            self._check_size()
        if self._is_in_head:  # as uvicorn does, without a call
            name = name.lower()
            self.expect_100_continue |= name == b"expect" and value.lower() == b"100-continue"
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """End the head: check it, and choose the endpoint or the application for the request."""
        self._unseen = 0
        self._is_in_head = False
        self._check_head()
        if no_path := _NO_PATH.match(self.url):  # the empty path is `/` (RFC 9110 section 4.2.3)
            self.url = b"%b/%b" % (no_path[0], self.url[no_path.end() :])
        if self._is_proxied:
            self._connections.add(self, self._connections.forwarded_address(self._address, self.headers))
            if self._is_refused:
                raise httptools.HttpParserError("the address has too many requests")
        is_list, self._is_list = self._is_list, False
        method = "LIST" if is_list else self.parser.get_method().decode("ascii")
        target = self._find_target(method, self.url) if self._is_plain() else None
        if target is None or self._is_large(method, target.endpoint):
            url, headers, expect = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.headers, self.expect_100_continue = url, headers, expect
            self.scope["headers"] = headers
            extensions = {PROVED: self._note_proven, OVERTAKING: self._overtaking, SHOWN: self._shown}
            self.scope["extensions"] = cast(Any, extensions)
            super().on_headers_complete()
            self.scope["method"] = method
            if self.pipeline:  # `_parse` stops reading; until then, the end of the connection is noticed
                self.flow.resume_reading()
        else:
            keep_alive = self.parser.should_keep_alive()
            self.cycle = Exchange(method, target, self.headers, keep_alive=keep_alive)  # type: ignore[assignment]
            self._running = self.cycle
        self._has_cycle = True  # not before: an invalid target has raised

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _is_head_too_large(self) -> bool:
        return self._seen + self._unseen > MAX_HEAD_BYTES or self._fields > MAX_FIELDS

    def _check_size(self) -> None:
        """Refuse a head that is too large. Raises HttpParserError, so that parsing stops."""
        if self._is_head_too_large():
            self._refuse_head()
            raise httptools.HttpParserError("the head is too large")

    def _refuse_head(self) -> None:
        self._refuse(431, "head_too_large", f"a head has at most {MAX_HEAD_BYTES} bytes and {MAX_FIELDS} fields")

    def _check_head(self) -> None:
        """Check the header fields of a request. Raises HttpParserError, which is answered 400 unless another answer
        was sent.
        """
        hosts, codings = 0, list[bytes]()
        for name, value in self.headers:
            hosts += name == b"host"
            if name == b"transfer-encoding":
                codings += (coding.strip().lower() for coding in value.split(b","))
            if b"\n" in value or b"\r" in value or b"\0" in value:
                raise httptools.HttpParserError("a header field contains a line break or a null character")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):
            raise httptools.HttpParserError("a request has exactly one `Host` field")
        if codings not in ([], [b"chunked"]):  # of several, only `chunked` has been decoded (RFC 9112 section 6.1)
            if codings[-1] == b"chunked" and codings.count(b"chunked") == 1:
                self._refuse(501, "not_implemented", "the only transfer coding is `chunked`")
            raise httptools.HttpParserError("the transfer codings are not `chunked` alone")

    def _is_plain(self) -> bool:
        """Return whether this is an ordinary request, and all earlier requests are answered."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
            and not self.expect_100_continue
        )

    def _is_large(self, method: str, endpoint: Endpoint) -> bool:
        """Return whether the request may have a body that is read after the authentication of its caller."""
        return method != "GET" and endpoint.max_body > SMALL_BODY and endpoint.proves_first(self.headers)

    def on_chunk_header(self) -> None:
        """Begin a chunk of the body."""
        self._unseen = 0

    def on_body(self, body: bytes) -> None:
        """Add a part of the body."""
        self._unseen = 0
        exchange: object = self.cycle
        if not isinstance(exchange, Exchange):
            self._body_bytes = len(self.cycle.body) + len(body)  # an application removes the part that it has read
            super().on_body(body)
        elif len(exchange.body) <= exchange.endpoint.max_body:  # a part over the limit is kept: the endpoint refuses it
            exchange.body += body
            self._body_bytes = len(exchange.body)

    def on_message_complete(self) -> None:
        """End the request: answer it, or refuse it at once."""
        self._waits_since = None
        self._is_in_message = False
        if self.pipeline:
            self._waiting_bytes += WAITING_COST + self._seen + self._body_bytes
        self._seen = self._unseen = self._fields = 0
        if not self._is_proven:
            self._connections.update(self)
        exchange: object = self.cycle
        if not isinstance(exchange, Exchange):
            super().on_message_complete()
            return
        if not self.flow.write_paused:
            refusal = exchange.endpoint.refuse(
                exchange.method, exchange.target.path, exchange.headers, exchange.body, address=self._address
            )
            if refusal is not None:
                self._finish(exchange, self._render(exchange, *refusal))
                return
        task = self.loop.create_task(self._answer(exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if self._is_privileged and exchange.endpoint.stops:  # the task begins in a later round, which shall be short
            pause = ExitStack()
            pause.enter_context(self._overtaking())
            task.add_done_callback(lambda _: pause.close())

    # --- answers

    async def _answer(self, exchange: Exchange) -> None:
        try:
            answer, headers = await exchange.endpoint.answer(
                exchange.method,
                exchange.target.path,
                params=exchange.target.params,
                query=exchange.target.query,
                headers=exchange.headers,
                body=exchange.body,
                address=self._address,
                shown=self._shown,
                note_proven=self._note_proven,
                overtaking=self._overtaking,
            )
            sent = self._render(exchange, answer, headers)
        except Exception:  # noqa: BLE001 because `failure` logs it
            exchange.keep_alive = False
            sent = self._render(exchange, *exchange.endpoint.failure(exchange.target.path, exchange.headers))
        if self.flow.write_paused and not exchange.disconnected:
            await self.flow.drain()
        self._finish(exchange, sent)

    def _finish(self, exchange: Exchange, sent: bytes) -> None:
        exchange.response_complete = True
        if exchange.disconnected:
            return
        self.transport.write(sent)
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        """Count the answer, begin the next request of the pipeline, and parse the bytes that have arrived meanwhile."""
        self.answered += 1
        if not self.pipeline:
            self._waiting_bytes = 0
        if self.is_idle:
            self._hold(0)
            if self._is_proxied and not self.transport.is_closing():
                self._connections.add(self, "")
        if not self._is_proven:
            self._connections.update(self)
        super().on_response_complete()
        if self._unparsed and not self.transport.is_closing():
            self.flow.has_unparsed = False
            if not self._is_full:
                self.flow.resume_reading()
            self._parse()

    def _render(self, exchange: Exchange, answer: Reply, headers: Headers) -> bytes:
        return _bytes(answer, [*self.server_state.default_headers, *headers], keep_alive=exchange.keep_alive)

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer this connection with a refusal in the form of the admin API, and close the connection.

        If an answer to an earlier request is due, that answer is the last one instead.
        """
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused, self._waits_since = True, self.loop.time()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not self._has_cycle and not self.pipeline:
                cycle.keep_alive = False
                return
            if self.pipeline or getattr(cycle, "response_started", False):
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        elif self._is_in_message and self._has_cycle:  # the request was answered before it had arrived completely
            self.transport.close()
            return
        self.transport.write(render_refusal(status, code, message, headers=self.server_state.default_headers))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
