"""HTTP/1.1 from the socket to an endpoint without ASGI, and the limits of a connection.

`Protocol` extends uvicorn's protocol. For a plain request it calls `Endpoint.answer` directly, as the ASGI application
does; every other request goes through ASGI: a HEAD, an answer that may be streamed, a large body, a request behind
another one, and a request without an endpoint. This relies on the internals of uvicorn: tests/ground/test_protocol.py
sends the same bytes both ways and compares the answers.

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
from ostiaryd.ground.process.eager import start_now

MAX_HEAD_BYTES = 64 << 10
"""Maximum total size of the target, the header fields and the trailer fields of one request, in bytes."""
MAX_FIELDS = 200
SLOWEST_S = 30.0
"""Maximum time in which a request must arrive, in seconds, from its first byte on (for the first request from the
beginning of the connection). An unauthenticated client must also read a response in this time.
"""
MAX_WAITING = 32
"""Maximum number of requests of a connection that wait while an earlier request is answered. When it is reached, the
connection is not parsed further.
"""
SLICE_BYTES = 4 << 10
"""Number of bytes that are parsed at once, so that `MAX_WAITING` is checked often."""
WAITING_COST = 4 << 10
"""Memory that a waiting request takes in addition to its bytes, in bytes."""
MAX_REASON = 200
"""Maximum length of the reason with which a malformed request is refused, in characters."""
LINGER_S = 2.0
"""Time after a refusal in which further input is read and discarded, in seconds, so that the client can read the
response.
"""


def _bytes(answer: Reply, headers: Headers, *, keep_alive: bool) -> bytes:
    """Return the bytes of a response. Raises ValueError if a header contains a line break."""
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
    """Return the bytes of a response with a refusal, in the form of the administration API."""
    answer = reply({"error": code, "message": message}, status=status, headers=[NO_STORE])
    named = [(b"content-type", answer.media_type.encode()), *answer.headers]
    if status == 503:
        named.append((b"retry-after", b"1"))
    return _bytes(answer, [*headers, *named], keep_alive=keep_alive)


def _reason_of(error: httptools.HttpParserError) -> str:
    """Return the reason of an error of the parser, also of an error that a callback of the parser raised. The reason
    may contain the target of the request, so it is cut.
    """
    cause = error.__context__
    return str(cause if isinstance(cause, httptools.HttpParserError) else error)[:MAX_REASON]


_LIST_BEGINS = frozenset({b"L", b"LI", b"LIS", b"LIST", b"LIST "})
"""Beginnings of a request with the method LIST of the Vault API. The HTTP parser does not know LIST; these bytes are
replaced so that it reads LINK, a method that no route has. A LIST request that is pipelined after another request is
not recognised, and is refused.
"""
LATE = "too many requests wait to be read"
LATE_ANSWER = render_refusal(503, "busy", LATE, keep_alive=True)
"""Response to a request that has waited too long to be read."""
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})(?=\r\n|$)")
_UNUSUAL = re.compile(
    rb"\r\n(?:[ \t]|transfer-encoding|expect|upgrade|connection:(?! *keep-alive(?:\r\n|$)))|[^\r]\n|\r[^\n]|\0"
)
_LINE_FEED, _RETURN, _NULL = b"\n\r\0"
"""Numbers of these bytes. To search bytes for a number takes a tenth of the time of a search for bytes with `in`."""
_NO_PATH = re.compile(rb"[^/?]+://[^/?]+(?=\?|$)")
"""Pattern of a request target in absolute form with an empty path."""


def is_one_request(data: bytes) -> bool:
    """Return whether the bytes are exactly one GET or POST request of HTTP/1.1 after which the connection can stay
    open.

    False for every head that programs could interpret differently; its connection is closed.
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
    """A replacement for the event with which uvicorn wakes an ASGI application; an exchange has no
    application to wake.
    """

    def set(self) -> None:
        pass


class _Flow(FlowControl):
    """Flow control of a connection. It stays paused while bytes were read and not parsed."""

    has_unparsed = False

    def resume_reading(self) -> None:
        if not self.has_unparsed:
            super().resume_reading()


class Exchange:
    """A request and its response that are handled without ASGI, with the attributes that uvicorn's protocol reads and
    sets on its request cycles.
    """

    __slots__ = ("body", "disconnected", "endpoint", "headers", "keep_alive", "method", "response_complete", "target")
    message_event = _Event()

    def __init__(self, method: str, target: Target, headers: Headers, *, keep_alive: bool) -> None:
        self.method, self.target, self.headers, self.keep_alive = method, target, headers, keep_alive
        self.endpoint = target.endpoint
        self.body = b""
        self.disconnected = self.response_complete = False


class Protocol(HttpToolsProtocol):
    """An HTTP/1.1 connection of a client to the server."""

    def __init__(
        self,
        find_target: Callable[[str, bytes], Target | None],
        connections: Connections | None = None,
        *,
        is_expected: bool = False,
        **options: Any,
    ) -> None:
        """Create the protocol of one connection. `find_target` returns the endpoint of a method and URL that can be
        answered without ASGI (`SegmentRouter.find_target`). `is_expected`: until its first bytes are parsed, the
        connection counts as one of an administrator, and is watched (`Arrivals`).
        """
        super().__init__(**options)
        self._find_target = find_target
        self._connections = Connections() if connections is None else connections
        self._address = ""
        self._shown: ClientCertificate | None = None
        self._is_proxied = self._is_proven = self._is_privileged = self._is_of_guard = False
        self._is_expected = is_expected
        self._is_in_head = self._is_in_message = self._has_cycle = self._is_refused = self._is_list = False
        self._offers_upgrade = False
        self._fields = self._seen = self._unseen = self._body_bytes = self._held = 0
        self._waiting_bytes = self.answered = 0
        self._unparsed = b""
        self._has_turn = self._has_stopped = False
        """True while this connection waits for its turn to be parsed; true after a stop began in the present turn."""
        self._running: Any = None
        """The request that is being answered. `cycle` is the newest request, which may still wait."""
        self._opened_at = self.loop.time()
        self._idle_since: float | None = None
        self._waits_since: float | None = self._opened_at
        self._stalls_since: float | None = None

    # --- the connection

    def connection_made(self, transport: Any) -> None:
        """Count the connection for the limits of its address."""
        super().connection_made(transport)
        self.flow: _Flow = _Flow(transport)
        self._address = self.client[0] if self.client else ""
        self._is_proxied = self._connections.is_proxy(self._address)
        if asks_for_certificates(transport):
            self._shown = shown_certificate(transport)
        self._connections.add(self, "" if self._is_proxied else self._address)

    @property
    def _descriptor(self) -> int:
        return self.transport.get_extra_info("socket").fileno()  # type: ignore[no-any-return]

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting the connection, and drop its requests."""
        self._connections.remove(self)
        self._hold(0)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        self._unparsed = b""
        super().connection_lost(exc)
        self.cycle = cast(Any, None)  # breaks a reference cycle: the scope refers to this connection
        self._running = None
        self.scope = cast(Any, None)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio defines the value
        """Close the connection, whose client has left, in one of the next rounds of the event loop: thousands of
        clients may leave at the same time. With TLS, close it now.
        """
        if not self.transport.can_write_eof():
            return False
        self._connections.turns.close_soon(self.transport, self.loop)
        return True

    @property
    def is_idle(self) -> bool:
        """Return whether no part of a request has arrived, and no response is due."""
        return not self._is_in_message and not self.is_answering

    @property
    def is_proven(self) -> bool:
        """Return whether a caller has authenticated on this connection. Always false for the connection of a proxy."""
        return self._is_proven

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
        """Close the connection. If a part of a request has arrived, send the response 503 first."""
        if self._stalls_since is not None:  # the client does not read
            self._is_refused = True
            self.transport.abort()
        elif self.is_idle:
            self._is_refused, self._waits_since = True, self.loop.time()
            self.transport.close()
        else:
            self._refuse(503, "too_many_connections", "too many connections of unauthenticated callers")

    def end(self) -> None:
        """Close the connection without waiting for the client."""
        self.transport.abort()

    def close_idle(self) -> None:
        """Close the connection, because its descriptor is needed. At the second call, end it if nothing waits to be
        sent: with TLS, closing waits for the client, and a client that keeps an idle connection does not notice.
        """
        if self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self.end()
        else:
            self.transport.close()

    def close_if_slow(self, now: float) -> None:
        """Close the connection if its request has not arrived in time, or if an unauthenticated client has not read its
        response in time. `now` is the time of the event loop, in seconds.
        """
        may_stall = self._is_proven and not self.transport.is_closing()
        if self._stalls_since is not None and not may_stall and now - self._stalls_since > SLOWEST_S:
            self.transport.abort()
        if self._waits_since is None or now - self._waits_since <= (LINGER_S if self._is_refused else SLOWEST_S):
            return
        if self.transport.is_closing() and not self._is_proven:  # with TLS, closing waits for the client
            self.end()
        elif self._is_refused or not self._is_in_message:
            self.transport.close()
        else:
            self._refuse(408, "too_slow", f"the request did not arrive within {SLOWEST_S:g} s")

    def close_if_streaming(self) -> None:
        """Close the connection if its response has begun and is not complete: the feed of a guard, for example, never
        ends.
        """
        cycle: Any = self.cycle
        if getattr(cycle, "response_started", False) and not cycle.response_complete:
            self.transport.close()

    def pause_writing(self) -> None:
        """Record the time from which the client does not read."""
        self._stalls_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Record that the client reads again, so that waiting parts of a response can be sent."""
        self._stalls_since = None
        super().resume_writing()

    def _note_proven(self, is_privileged: bool, is_guard: bool) -> None:
        """Stop counting this connection for the limits, because its caller has authenticated. The connection of a proxy
        stays counted, because it carries many callers.
        """
        if self.transport.is_closing():  # the connection has ended and is no longer counted
            return
        if is_privileged and not self._is_proxied and not self._is_privileged:
            self._is_privileged = True
            self._connections.turns.arrivals.note_address(self._address)
            self._connections.turns.arrivals.watch(self._descriptor)
        self._is_of_guard |= is_guard and not self._is_proxied
        if self._is_proxied:
            self._connections.add(self, "")
        elif not self._is_proven:
            self._is_proven = True
            self._connections.remove(self)
            self._hold(0)

    def _overtaking(self) -> AbstractContextManager[None]:
        """Return a context in which an administrator or a person stops something while all other clients wait."""
        return self._connections.turns.paused(self.loop)

    def _hold(self, count: int) -> None:
        """Set the number of bytes that count as held by this connection."""
        if not self._is_proven or self._held:
            count = 0 if self._is_proven else count
            self._connections.held += count - self._held
            self._held = count

    # --- requests

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes. Unlike uvicorn, log no input of unauthenticated callers, and permit no upgrade of
        the protocol.
        """
        if self._is_refused:
            return
        self._idle_since = None
        self._unparsed += data
        if self._is_privileged:  # the connections of administrators and persons need not wait for a turn
            self._parse()
        elif (turns := self._connections.turns).is_free or self._is_expected:
            if self._is_expected:
                self._note_unexpected()
            turns.run(self._parse, self.loop)
        else:
            self._wait_for_turn()

    def _note_unexpected(self) -> None:
        """Count the connection like others until its caller has authenticated."""
        self._is_expected = False
        if not self.transport.is_closing():
            self._connections.turns.arrivals.forget(self._descriptor)

    def _wait_for_turn(self) -> None:
        """Parse the received bytes in a later round of the event loop, and read nothing more until then."""
        self.flow.has_unparsed = True
        if not self._is_proven:
            self._connections.update(self)
            self._check_held()
            if self._is_refused:  # after a refusal, further input is read and discarded
                self.flow.has_unparsed = False
                return
        self.flow.pause_reading()
        if not self._has_turn:
            self._has_turn = True
            refuse = None if self._is_of_guard else self._refuse_late  # its reports must arrive, however late
            self._connections.turns.wait(self._take_turn, self.loop, address=self._address, refuse=refuse)

    def _take_turn(self) -> None:
        self._has_turn = self.flow.has_unparsed = False
        if self.transport.is_closing():
            return
        if not self._is_full:
            self.flow.resume_reading()
        if not self._is_refused:
            self._parse()

    def _refuse_late(self) -> None:
        """Refuse, unread, input that has waited too long for its turn. If the input is exactly one request, the
        connection stays open.
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
        """Return whether nothing more may be read before an earlier request is answered, or its body is consumed."""
        cycle: Any = self.cycle
        if self.pipeline or cycle is None or cycle.response_complete or isinstance(cycle, Exchange):
            return bool(self.pipeline)
        return len(cycle.body) > HIGH_WATER_LIMIT

    def _parse(self) -> None:
        """Parse the received bytes, at least one slice. If too many requests wait, keep the rest and stop reading. If
        the time of this round is used up, parse the rest in a later round.
        """
        data, self._unparsed = self._unparsed, b""
        self._has_stopped = False
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
        """Count the bytes that this connection holds. If all connections together hold too many, refuse the request."""
        arrived = self._seen + self._unseen + self._body_bytes
        self._hold(self._waiting_bytes + len(self._unparsed) + arrived)
        if self._connections.held > MAX_HELD:
            self._refuse(503, "too_much_waits", "requests of unauthenticated callers use too much memory")

    def _feed(self, data: bytes) -> None:
        while data:
            self._unseen += len(data)  # the callbacks of the parser set this to 0 again
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserError as error:
                self._refuse(400, "malformed", f"the request is not valid HTTP/1.1: {_reason_of(error)}")
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._head_without_offer() + data[offer.args[0] :]
                self.parser = httptools.HttpRequestParser(self)  # the other parses nothing after `Connection: close`
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # like uvicorn
            else:
                break
        if self._seen + self._unseen > MAX_HEAD_BYTES:
            self._refuse_head()

    def _head_without_offer(self) -> bytes:
        """Return the head that was parsed last, without its offer to upgrade the protocol (RFC 9110 section 7.8).

        The parser ends a request that offers an upgrade at its head, and would read the body as the next request. The
        server ignores such offers, so it parses the head again.
        """
        version = self.parser.get_http_version().encode()
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (self.parser.get_method(), self.url, version, b"".join(fields))

    def on_message_begin(self) -> None:
        """Begin a new request of the connection: reset the counts of the request before."""
        # a response may have set this timer after the bytes of this request arrived
        self._idle_since = None
        self._is_in_head = self._is_in_message = True
        self._has_cycle = False
        self._fields = self._seen = self._unseen = self._body_bytes = 0
        self._waits_since = self.loop.time()
        self.url, self.headers, self.expect_100_continue = b"", [], False
        if not self._is_proven:
            self._connections.update(self)

    def on_url(self, url: bytes) -> None:
        """Add a part of the URL, and check the size of the head. Called by the parser."""
        self._unseen = 0
        self._seen += len(url)
        self.url += url
        if self._seen > MAX_HEAD_BYTES:
            raise self._refuse_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Check the number and the size of the fields until now. Keep a field of the head; ignore a trailer field."""
        self._unseen = 0
        self._fields += 1
        self._seen += len(name) + len(value) + 4
        if self._fields > MAX_FIELDS or self._seen > MAX_HEAD_BYTES:
            raise self._refuse_head()
        if self._is_in_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Complete the head: check it, and choose the endpoint or the ASGI application for the request."""
        self._unseen = 0
        self._is_in_head = False
        self._check_head()
        self._offers_upgrade = self.parser.should_upgrade()
        if self._offers_upgrade:  # `_feed` parses this head again
            if self.parser.get_method() == b"CONNECT":
                raise httptools.HttpParserError("CONNECT is not supported")
            return
        if no_path := _NO_PATH.match(self.url):  # an empty path means `/` (RFC 9110 section 4.2.3)
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
            if self.pipeline:  # `_parse` will stop reading; until then, a disconnect must be noticed
                self.flow.resume_reading()
        else:
            keep_alive = self.parser.should_keep_alive()
            self.cycle = Exchange(method, target, self.headers, keep_alive=keep_alive)  # type: ignore[assignment]
            self._running = self.cycle
        self._has_cycle = True  # set only here, because an invalid target raises before

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _refuse_head(self) -> httptools.HttpParserError:
        """Refuse a head that is too large, and return the error that ends parsing."""
        self._refuse(431, "head_too_large", f"a head has at most {MAX_HEAD_BYTES} bytes and {MAX_FIELDS} fields")
        return httptools.HttpParserError("the head is too large")

    def _check_head(self) -> None:
        """Check the header fields of a request. Raises HttpParserError, which leads to the response 400 unless another
        one was sent.
        """
        names, values = zip(*self.headers, strict=True) if self.headers else ((), ())
        text = b"".join(values)
        if _LINE_FEED in text or _RETURN in text or _NULL in text:
            name = "a null character" if _NULL in text else "a line break"
            raise httptools.HttpParserError(f"a header field contains {name}")
        hosts = names.count(b"host")
        if b"expect" in names:  # like uvicorn
            self.expect_100_continue = any(
                value.lower() == b"100-continue" for name, value in self.headers if name == b"expect"
            )
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):
            raise httptools.HttpParserError("a request must have exactly one `Host` field")
        if b"transfer-encoding" not in names:
            return
        coded = [value for name, value in self.headers if name == b"transfer-encoding"]
        codings = [coding.strip().lower() for value in coded for coding in value.split(b",")]
        # if there are several codings, the parser has decoded only `chunked` (RFC 9112 section 6.1)
        if codings != [b"chunked"]:
            if codings[-1] == b"chunked" and codings.count(b"chunked") == 1:
                self._refuse(501, "not_implemented", "only the transfer coding `chunked` is supported")
            raise httptools.HttpParserError("a request has other transfer codings than `chunked`")

    def _is_plain(self) -> bool:
        """Return whether this is a request without special features, and all earlier requests are answered."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and self.parser.get_http_version() == "1.1"
            and not self.expect_100_continue
        )

    def _is_large(self, method: str, endpoint: Endpoint) -> bool:
        """Return whether the request may have a body that must be read after authentication."""
        return method != "GET" and endpoint.max_body > SMALL_BODY and endpoint.proves_first(self.headers)

    def on_chunk_header(self) -> None:
        """Record that the parser has read the header of a chunk, whose bytes then no longer count for the size of the
        head.
        """
        self._unseen = 0

    def on_body(self, body: bytes) -> None:
        """Add a part of the request's body that has arrived."""
        self._unseen = 0
        exchange: object = self.cycle
        if not isinstance(exchange, Exchange):
            # the ASGI application removes the part that it has read
            self._body_bytes = len(self.cycle.body) + len(body)
            super().on_body(body)
        # one part beyond the limit is kept, so that the endpoint refuses the body
        elif len(exchange.body) <= exchange.endpoint.max_body:
            exchange.body += body
            self._body_bytes = len(exchange.body)

    def on_message_complete(self) -> None:
        """Complete the request: answer it, or refuse it immediately."""
        if self._offers_upgrade:
            return
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
        if exchange.endpoint.stops and (self._is_privileged or not self._has_stopped):
            self._has_stopped = True
            pause = ExitStack()
            if self._is_privileged:
                pause.enter_context(self._overtaking())
            task = start_now(self.loop, self._answer(exchange))
            task.add_done_callback(lambda _: pause.close())
        else:
            task = self.loop.create_task(self._answer(exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # --- answers

    async def _answer(self, exchange: Exchange) -> None:
        try:
            answer, headers = await exchange.endpoint.answer(
                exchange.method,
                exchange.target.path,
                params=exchange.target.params,
                query=exchange.target.query,
                raw_path=exchange.target.raw_path,
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
        """Record that a response was sent. Then begin the next pipelined request, and parse bytes that have arrived."""
        self.answered += 1
        if not self.pipeline:
            self._waiting_bytes = 0
        if (self._held or self._is_proxied) and self.is_idle:
            self._hold(0)
            if self._is_proxied and not self.transport.is_closing():
                self._connections.add(self, "")
        if not self._is_proven:
            self._connections.update(self)
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            if self.flow.read_paused:
                self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            else:
                self._note_idle()
        if self._unparsed and not self.transport.is_closing():
            self.flow.has_unparsed = False
            if not self._is_full:
                self.flow.resume_reading()
            self._parse()

    def _note_idle(self) -> None:
        """Note that the connection is idle from now on. Unlike uvicorn, which sets a timer after each response, keep
        the timer of an earlier response: most connections are used again before it ends.
        """
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_idle(self.timeout_keep_alive)

    def _watch_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for the configured time."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None or self.transport.is_closing():
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._watch_idle(left)
        else:
            self.transport.close()

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def _render(self, exchange: Exchange, answer: Reply, headers: Headers) -> bytes:
        return _bytes(answer, [*self.server_state.default_headers, *headers], keep_alive=exchange.keep_alive)

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Send a refusal in the form of the administration API, and close the connection.

        If the response to an earlier request is due, that response is sent instead, as the last one.
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
        elif self._is_in_message and self._has_cycle:  # the request was answered before it arrived completely
            self.transport.close()
            return
        self.transport.write(render_refusal(status, code, message, headers=self.server_state.default_headers))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        if not self._is_proven:
            self._connections.linger(self)
