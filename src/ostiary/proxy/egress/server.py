"""The connections of the proxy: with the wrapped process, and with the servers that the process calls.

A CONNECT opens a tunnel. The proxy presents to the program a certificate for the host, signed by the authority of the
run, and reads each request in the tunnel. A request in absolute form is read in the same way. The proxy decides each
request, puts the secrets into it, and sends it to the server over a separate connection, which is reused. The bodies
of request and answer are streamed.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial

import h11

from ostiary.guard import Call, Withheld
from ostiary.protocol.destination import HTTP_PORT, HTTPS_PORT, Destination, Place
from ostiary.protocol.errors import Refused, Unavailable
from ostiary.protocol.jose import InvalidToken
from ostiary.proxy.connections import CHUNK, MAX_HEAD, ClientConnection, Connections, render_refusal
from ostiary.proxy.egress.authority import RunAuthority
from ostiary.proxy.egress.dialing import Dialer
from ostiary.proxy.egress.frames import FrameContent, FrameReader, MaskedFrames
from ostiary.proxy.egress.inflating import InflatedBody, Unsearchable
from ostiary.proxy.egress.injection import (
    PLACEHOLDER,
    SHORTEST_PLACEHOLDER,
    OutgoingRequest,
    divide_begun,
    fill_body,
    names_in,
)
from ostiary.proxy.egress.masking import MaskedStream, ObservedStream, SearchedStream
from ostiary.proxy.egress.secrets import SecretSource
from ostiary.proxy.egress.strictness import (
    Authority,
    check_answer_head,
    check_framing,
    check_head,
    normalize_path,
    parse_authority,
)
from ostiary.proxy.egress.tools import METHODS, arguments_of
from ostiary.proxy.entrance import HOP_BY_HOP, Headers, Listen, Rejected, has_dot_segments
from ostiary.proxy.guarded import DROPPED
from ostiary.run.gate import Gate, Injection, Verdict

MAX_CONNECTIONS = 512
MAX_PATH = 2048
MAX_BUFFERED = 4 << 20
"""maximum size in bytes of a body that is read before the decision; a longer body, or a body of unknown length, is
streamed
"""
IDLE_S = 300.0
HANDSHAKE_S = 15.0
"""maximum seconds for a TLS handshake, and for the first request of a connection, because another program may have
opened the connection
"""
SILENCE_S = 0.05
"""seconds without a byte from the server after which the held bytes of the masked stream are sent"""
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)
_ENCODINGS = (b"content-encoding", b"sec-websocket-extensions")
"""Headers which show that the body or the frames of an answer are compressed or encoded."""
_BARE = re.compile(rb"(?<!\r)\n")
_NOT_FORWARDED = HOP_BY_HOP | DROPPED | {b"accept-charset", b"a-im", b"expect", b"if-range", b"proxy-connection"}
_NOT_RETURNED = HOP_BY_HOP | {b"alt-svc"}
_PIN_ALERTS = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE")


class EgressProxy:
    """The egress proxy of one run. `open_origins`: the addresses of the other local proxies of the run, to which
    requests pass without a decision of this proxy.
    """

    def __init__(
        self,
        gate: Gate,
        secrets: SecretSource,
        dialer: Dialer,
        authority: RunAuthority,
        *,
        capability: str,
        alarm: Callable[[str], None],
    ) -> None:
        self.gate, self.secrets, self.dialer, self.authority = gate, secrets, dialer, authority
        self.alarm = alarm
        self.open_origins: Collection[Authority] = ()
        self._expected = b"Basic " + base64.b64encode(f"ostiary:{capability}".encode())

    def admits(self, headers: Headers) -> bool:
        """Return whether the headers of a request contain the password of the run."""
        shown = [value for name, value in headers if name == b"proxy-authorization"]
        return len(shown) == 1 and hmac.compare_digest(shown[0], self._expected)


async def serve_egress(proxy: EgressProxy, listen: Listen, *, ready: Callable[[Listen], None]) -> None:
    """Serve until cancelled; call `ready` with the address once the proxy listens."""
    await Connections(partial(_Conversation, proxy), most=MAX_CONNECTIONS).serve(listen, ready=ready)


class _Upstream:
    """A connection of the egress proxy to a server to which a program sends requests."""

    def __init__(self, at: Authority, is_tls: bool, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.at, self.is_tls, self.reader, self.writer = at, is_tls, reader, writer
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._next: object = h11.NEED_DATA

    async def send(self, *events: h11.Event) -> None:
        if data := b"".join(self.http.send(event) or b"" for event in events):
            self.writer.write(data)
            await self.writer.drain()

    async def read(self) -> bytes:
        """Return the next bytes of the server; empty bytes at the end. TCP acknowledges received data without delay,
        because some servers send the body only after the acknowledgement of the head (RFC 896). If the server has
        closed the connection, the bytes that arrived before are returned first.
        """
        if _QUICKACK is not None and (connection := self.writer.get_extra_info("socket")) is not None:
            with suppress(OSError):  # the connection is closed
                connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        return await self.reader.read(CHUNK)

    def next_event(self) -> object:
        """Return the next event of an answer; all received parts of a body are one event. Raises Rejected for a head
        that is too long or has folded lines, h11.RemoteProtocolError for a malformed answer.
        """
        if self.http.their_state is h11.SEND_RESPONSE:
            check_answer_head(self.http.trailing_data[0])
        event, self._next = self._next, h11.NEED_DATA
        if event is h11.NEED_DATA:
            event = self.http.next_event()
        if not isinstance(event, h11.Data):
            return event
        parts = [event.data]
        with suppress(h11.RemoteProtocolError):  # raised again by the next call
            while isinstance(after := self.http.next_event(), h11.Data):
                parts.append(after.data)
            self._next = after
        return h11.Data(data=b"".join(parts))

    def renew(self) -> bool:
        """Prepare the connection for the next request. Return whether the connection can be reused."""
        if self.http.our_state is not h11.DONE or self.http.their_state is not h11.DONE or self.reader.at_eof():
            return False
        if self.http.trailing_data[0]:
            return False  # the server has sent an answer without a request
        self.http.start_next_cycle()
        return True


class _Exchange:
    """A request on its way to the server. `request`: its present form; `owned`: the destinations of the server by name;
    `values`: the secrets that were fetched, by name of the destination.
    """

    def __init__(
        self, request: OutgoingRequest, at: Authority, *, is_tls: bool, owned: dict[str, Destination], is_upgrade: bool
    ) -> None:
        self.request, self.at, self.is_tls, self.owned, self.is_upgrade = request, at, is_tls, owned, is_upgrade
        self.method = request.method
        self.values: dict[str, str] = {}
        self.verdict: Verdict | None = None
        self.decided = ""

    @property
    def host(self) -> str:
        """Return the host of the server; with the port, if it is not the default port of the scheme."""
        return _origin(self.at, is_tls=self.is_tls).partition("://")[2]

    @property
    def may_be_private(self) -> bool:
        """Return whether a destination of a secret permits private addresses for the server of this request."""
        return any(one.private for one in self.owned.values())


class _Conversation(ClientConnection):
    """A connection of the program, with all its requests."""

    ends = (OSError, h11.LocalProtocolError)

    def __init__(self, proxy: EgressProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._proxy = proxy
        self._tunnel: Authority | None = None
        self._upstream: _Upstream | None = None
        self._is_head, self._is_admitted, self._held = False, False, b""

    async def run(self) -> None:
        try:
            while (request := await self._next_request()) is not None:
                if request.method == b"CONNECT" and self._tunnel is None:
                    await self._open_tunnel(request)
                    continue
                await self._answer(request)
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except Rejected as refusal:
            await self._reject(refusal)
        finally:
            self._drop_upstream()

    # --- the program

    async def _next_request(self) -> h11.Request | None:
        """Return the next request after a strict check of its head; None if the program has closed the connection.
        Raises Rejected for a head that is not strict HTTP.
        """
        self._is_head = False
        async with asyncio.timeout(IDLE_S if self._is_admitted else HANDSHAKE_S):
            searched = 0
            while b"\r\n\r\n" not in (data := self._http.trailing_data[0]):
                if _BARE.search(data, searched):
                    raise Rejected(400, "malformed", "a line does not end with CRLF")
                searched = max(len(data) - 1, 0)
                if len(data) > MAX_HEAD:
                    check_head(data)
                part = await self._reader.read(CHUNK)
                if not part:
                    return None
                self._http.receive_data(part)
        check_head(data[: data.index(b"\r\n\r\n") + 4])
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise Rejected(400, "malformed", f"the received bytes are not an HTTP request: {error}") from None
        self._is_head = isinstance(event, h11.Request) and event.method == b"HEAD"
        return event if isinstance(event, h11.Request) else None

    async def _open_tunnel(self, request: h11.Request) -> None:
        """Answer a CONNECT, and start TLS with the program. Raises Rejected for a target that the proxy does not serve,
        and OSError if TLS with the program fails.
        """
        headers = [(bytes(name), bytes(value)) for name, value in request.headers]
        self._check_program(headers)
        at = parse_authority(request.target.decode("ascii"), default_port=None)
        self._check_host(at)
        if any(
            parse_authority(value.decode("latin-1"), default_port=at.port) != at for value in _all(headers, b"host")
        ):
            raise Rejected(400, "malformed", "the `Host` is not the target of the CONNECT")
        if at.port != HTTPS_PORT and not await self._owned(at, is_tls=True):
            raise _port_closed(at)
        await self._event()  # the end of the head
        if self._http.trailing_data[0]:
            raise Rejected(400, "malformed", "the program sent data before the tunnel was open")
        context = await asyncio.to_thread(self._proxy.authority.context, at.host)
        await self._send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
        try:
            await self._writer.start_tls(context, ssl_handshake_timeout=HANDSHAKE_S)
        except ssl.SSLError as error:
            if any(alert in str(error.reason) for alert in _PIN_ALERTS):
                self._proxy.alarm(
                    f"{at.host}: the program refuses the certificate of this run: it pins certificates, or does not "
                    "read SSL_CERT_FILE, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or NODE_EXTRA_CA_CERTS"
                )
            raise ConnectionAbortedError(f"no TLS with the program for {at.host}: {error.reason}") from None
        self._tunnel = at
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    def _check_program(self, headers: Headers) -> None:
        if not self._proxy.admits(headers):
            raise Rejected(
                407, "no_password", "the request lacks the password of this proxy", hint="use the URL in HTTPS_PROXY"
            )
        self._is_admitted = True

    async def _answer(self, request: h11.Request) -> None:
        """Decide a request and answer it. Raises Rejected if the request is refused or its server fails, and OSError if
        a connection breaks off.
        """
        exchange = await self._read(request)
        is_ok = False
        try:
            await self._decide(exchange)
            is_ok = await self._serve(exchange)
        finally:
            if exchange.verdict is not None and (call := exchange.verdict.call) is not None:
                self._proxy.gate.finish(call, ok=is_ok and call.ok)

    async def _read(self, request: h11.Request) -> _Exchange:
        """Return the exchange for a request. A body of at most MAX_BUFFERED bytes is read into it. Raises Rejected for
        a request that the proxy does not forward: a wrong host, an unknown method, or a body that is not valid.
        """
        headers: Headers = [(bytes(name), bytes(value)) for name, value in request.headers.raw_items()]
        lower: Headers = [(name.lower(), value) for name, value in headers]
        check_framing(lower)
        at, is_tls, target = self._target(request.target, lower)
        self._check_host(at)
        raw_path, _, query = target.partition(b"?")
        path = normalize_path(raw_path)
        if has_dot_segments(path.decode("latin-1")) or b"#" in target:
            raise Rejected(
                400,
                "invalid_path",
                "the path has a segment of dots, or a fragment",
                hint="send the path without such segments and without a fragment",
            )
        if request.method.decode().lower() not in METHODS:
            raise Rejected(405, "method_not_allowed", f"the proxy knows no method {request.method.decode()!a}")
        upgrade = _all(lower, b"upgrade")
        is_upgrade = request.method == b"GET" and [one.lower() for one in upgrade] == [b"websocket"]
        lengths = _all(lower, b"content-length")
        streams = bool(_all(lower, b"transfer-encoding")) or any(int(one) > MAX_BUFFERED for one in lengths)
        body = None if streams else await self._read_body()
        outgoing = OutgoingRequest(request.method.decode(), path, query, _forwarded(headers), body or None, streams)
        owned = await self._owned(at, is_tls=is_tls)
        return _Exchange(outgoing, at, is_tls=is_tls, owned=owned, is_upgrade=is_upgrade)

    def _target(self, target: bytes, lower: Headers) -> tuple[Authority, bool, bytes]:
        """Return the server of a request, whether the connection uses TLS, and the path with the query. Raises Rejected
        if the target is not valid or names another host than `Host`.
        """
        hosts, tunnel = _all(lower, b"host"), self._tunnel
        scheme = b"https" if tunnel is not None else b"http"
        match = re.fullmatch(rb"(https?)://([^/?#]*)(/[^#]*)?", target, re.IGNORECASE)
        if tunnel is None:
            self._check_program(lower)
            if match is None or match[1].lower() != scheme:
                raise Rejected(
                    400,
                    "malformed",
                    "the proxy accepts only CONNECT, and requests for http URLs in absolute form",
                    hint="use CONNECT for https",
                )
            at = parse_authority(match[2].decode("latin-1"), default_port=HTTP_PORT)
        else:
            at = tunnel
            if match is not None and (
                match[1].lower() != scheme
                or parse_authority(match[2].decode("latin-1"), default_port=HTTPS_PORT) != tunnel
            ):
                raise Rejected(421, "wrong_host", "the URL of the request names another host than the tunnel")
            if match is None and not target.startswith(b"/"):
                raise Rejected(400, "malformed", "the target of the request is not a path")
        usual = HTTP_PORT if tunnel is None else HTTPS_PORT
        if len(hosts) != 1 or parse_authority(hosts[0].decode("latin-1"), default_port=usual) != at:
            raise Rejected(421, "wrong_host", "the `Host` is not the host of the request", hint="send one `Host`")
        path = target if match is None else match[3] or b"/"
        return at, tunnel is not None, path

    async def _read_body(self) -> bytes:
        body = bytearray()
        while (part := await self._receive()) is not None:
            body += part
        return bytes(body)

    async def _receive(self) -> bytes | None:
        """Return the next part of the body; None at its end. Raises Rejected if the body is not valid HTTP."""
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        try:
            async with asyncio.timeout(IDLE_S):
                event = await self._event()
        except h11.RemoteProtocolError as error:
            raise Rejected(400, "malformed", f"the body of the request is not valid HTTP: {error}") from None
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def _reject(self, refusal: Rejected) -> None:
        """Answer with a refusal in JSON. The code is also the reason phrase, which programs show for a failed
        CONNECT.
        """
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            raise ConnectionAbortedError("the answer had begun") from refusal
        body = render_refusal(refusal)
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        if refusal.status == 407:
            headers.append(("proxy-authenticate", 'Basic realm="ostiary"'))
        reason = refusal.code.encode()
        await self._send(h11.Response(status_code=refusal.status, headers=headers, reason=reason))
        if not self._is_head:
            await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())
        with suppress(OSError, TimeoutError):  # so that a program that is still sending can first read the answer
            if self._writer.can_write_eof():
                self._writer.write_eof()
            elif self._http.their_state is not h11.SEND_BODY:
                return
            async with asyncio.timeout(1.0):
                while await self._reader.read(CHUNK):
                    pass

    # --- the decision

    async def _owned(self, at: Authority, *, is_tls: bool) -> dict[str, Destination]:
        """Return the destinations of an origin. Raises Rejected if no destinations are known yet."""
        origin = _origin(at, is_tls=is_tls)
        by_name = await self._destinations()
        return {name: one for name, one in by_name.items() if one.origin == origin}

    async def _destinations(self) -> dict[str, Destination]:
        if (by_name := self._proxy.secrets.known_destinations) is not None:
            return by_name
        try:
            return await asyncio.to_thread(self._proxy.secrets.destinations)
        except Refused as refusal:
            raise Rejected(503, refusal.code, refusal.message, hint=refusal.hint) from None

    async def _decide(self, exchange: _Exchange) -> None:
        """Decide a request, and put its secrets into it. Raises Rejected if the call is denied, or a secret is in a
        wrong place or may not be used.
        """
        request, at = exchange.request, exchange.at
        if not exchange.is_tls and at in self._proxy.open_origins:
            return
        if not exchange.is_tls and at.port != HTTP_PORT and not exchange.owned:
            raise _port_closed(at)
        for name, place in request.placeholders.items():
            _check_placeholder(name, place, exchange)
            one = exchange.owned[name]
            if one.field and name in request.with_fields([one], lambda _: "").placeholders:
                raise _foreign_place(one)
        forms = await self._check_no_secret(exchange)
        gate, arguments = self._proxy.gate, arguments_of(request, exchange.host)
        exchange.verdict = verdict = await gate.decide_async(request.method.lower(), arguments)
        if not verdict.passes:
            why = verdict.why or Rejected(403, "denied", "denied")
            status = 503 if isinstance(why, Unavailable) else 403
            raise Rejected(status, why.code, f"denied: {why.message}", hint=why.hint)
        exchange.decided = gate.basis(verdict)
        named = {*request.placeholders, *(one.name for one in exchange.owned.values() if one.field)}
        for name in sorted(named):
            await self._get_secret(exchange, name)
        if self._proxy.secrets.masks.forms is not forms:
            await self._check_no_secret(exchange)
        destinations = [one for name, one in exchange.owned.items() if name in named]
        exchange.request = request.with_secrets(destinations, exchange.values.__getitem__)

    async def _get_secret(self, exchange: _Exchange, name: str) -> None:
        """Get the secret of a destination for a request. Raises Rejected if the server does not give the secret."""
        if name in exchange.values:
            return
        path, secrets = exchange.request.path.decode("ascii"), self._proxy.secrets
        if len(path) > MAX_PATH:
            raise Rejected(414, "path_too_long", f"the path of a request with a secret has over {MAX_PATH} characters")
        injection = Injection(name, exchange.method, exchange.host, path, exchange.decided)
        try:
            if (value := secrets.known_secret(injection)) is None:
                value = await asyncio.to_thread(secrets.secret, injection)
        except Refused as refusal:
            status = 503 if isinstance(refusal, Unavailable) else 403
            message = f"the secret of `{name}` may not be used: {refusal.message}"
            raise Rejected(status, refusal.code, message, hint=refusal.hint) from None
        exchange.values[name] = value

    async def _check_no_secret(self, exchange: _Exchange) -> object:
        """Check that the request, as the program sent it, contains no secret of this run, which the program could only
        have from a leak. Return the forms of secrets for which the request was searched; later secrets may add forms.
        Raises Rejected if the check fails.
        """
        masks, request = self._proxy.secrets.masks, exchange.request
        forms = masks.forms
        self._check_host(exchange.at)
        names, values = zip(*request.headers, strict=True) if request.headers else ((), ())
        if masks.find(b"\0".join((request.path, request.query, *names, *values))):
            raise _secret_sent()
        await self._search(exchange)(request.body or b"")
        return forms

    def _search(self, exchange: _Exchange) -> Callable[[bytes], Awaitable[None]]:
        """Return a function that searches the next part of the body for secrets, and raises Rejected if it finds one.
        A compressed body must have no placeholder either. If the body cannot be searched, the function raises Rejected
        once the run has a secret, or if the server owns one. A part that may take long is searched in a thread.
        """
        masks, last = self._proxy.secrets.masks, b""
        search, body = SearchedStream(masks), InflatedBody(exchange.request.headers)

        def check(part: bytes) -> None:
            nonlocal last
            try:
                for piece in body.feed(part):
                    if search.find(piece):
                        raise _secret_sent()
                    if body.is_compressed and PLACEHOLDER.search(last + piece):
                        raise _compressed_placeholder()
                    last = (last + piece)[-SHORTEST_PLACEHOLDER:]
            except Unsearchable:
                if masks.forms or exchange.owned:
                    raise

        async def check_in_time(part: bytes) -> None:
            if body.is_compressed or len(part) > CHUNK:
                await asyncio.to_thread(check, part)
            else:
                check(part)

        return check_in_time

    def _check_host(self, at: Authority) -> None:
        """Check that the name of the host contains no secret of this run, because DNS resolvers see the name. Raises
        Rejected otherwise.
        """
        if self._proxy.secrets.masks.find_in_host(at.host):
            raise _secret_sent()

    # --- the server

    async def _serve(self, exchange: _Exchange) -> bool:
        """Send a request and forward its answer to the program; return whether the answer is not an error. If the
        token is revoked meanwhile, stop at once; in mode `watch`, only a request to the owner of a secret is stopped.

        Raises Rejected if the server of the request fails or the token is revoked, and OSError if a connection breaks
        off.
        """
        gate, verdict = self._proxy.gate, exchange.verdict
        if verdict is None or not (gate.enforces or exchange.owned):
            return await self._carry(exchange)
        try:
            async with gate.serving(verdict):
                return await self._carry(exchange)
        except (InvalidToken, Unavailable) as refusal:
            status = 503 if isinstance(refusal, Unavailable) else 403
            raise Rejected(status, refusal.code, f"denied: {refusal.message}", hint=refusal.hint) from None

    async def _carry(self, exchange: _Exchange) -> bool:
        """Send a request and forward its answer to the program; return whether the answer is not an error. Raises
        Rejected if the server of the request fails, and OSError if a connection breaks off.
        """
        upstream = await self._connected(exchange)
        request = exchange.request
        target = request.path + (b"?" + request.query if request.query else b"")
        headers = [(b"Host", exchange.host.encode()), *request.headers, (b"Accept-Encoding", b"identity")]
        if exchange.is_upgrade:
            headers += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        elif request.streams:
            headers.append((b"Transfer-Encoding", b"chunked"))
        elif request.body or request.method in ("POST", "PUT", "PATCH"):
            headers.append((b"Content-Length", str(len(request.body or b"")).encode()))
        events: list[h11.Event] = [h11.Request(method=request.method, target=target, headers=headers)]
        if request.body:
            events.append(h11.Data(data=request.body))
        if not request.streams:
            events.append(h11.EndOfMessage())
        try:
            await upstream.send(*events)
        except h11.LocalProtocolError:  # the message of the error could quote a secret
            raise Rejected(400, "malformed", "the request cannot be forwarded as HTTP/1.1") from None
        up = asyncio.create_task(self._pump_up(exchange, upstream))
        down = asyncio.create_task(self._pump_down(exchange, upstream))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if up.done() and not down.done():
                if up.exception() is not None:
                    await up
                await down
            status = await down
        except BaseException:
            self._drop_upstream()
            raise
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.wait((up, down))
        if self._http.our_state is h11.SWITCHED_PROTOCOL:
            await self._pass_frames(exchange, upstream)
        return status < 400

    async def _connected(self, exchange: _Exchange) -> _Upstream:
        """Return the open connection if it leads to the server of the exchange, or else a new connection. Raises
        Rejected if the server cannot be reached or may not be visited.
        """
        kept = self._upstream
        if kept is not None and (kept.at, kept.is_tls) == (exchange.at, exchange.is_tls) and kept.renew():
            return kept
        self._drop_upstream()
        is_open = exchange.at in self._proxy.open_origins
        connection = await self._proxy.dialer.connect(
            exchange.at, is_tls=exchange.is_tls, may_be_private=exchange.may_be_private or is_open
        )
        self._upstream = _Upstream(exchange.at, exchange.is_tls, *connection)
        return self._upstream

    def _drop_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream.writer.transport.abort()
            self._upstream = None

    async def _pump_up(self, exchange: _Exchange, upstream: _Upstream) -> None:
        """Send a streamed body to the server, then wait for data of the program. Raises Rejected if the body has a
        secret or is not valid HTTP; raises OSError for a network error, and if the program closes the connection.
        """
        if exchange.request.streams:
            search, begun = self._search(exchange), b""
            while (part := await self._receive()) is not None:
                await search(part)
                whole, begun = divide_begun(begun + part)
                await self._send_part(exchange, upstream, whole)
            await self._send_part(exchange, upstream, begun)
            await upstream.send(h11.EndOfMessage())
        data = await self._reader.read(CHUNK)
        if not data:
            raise ConnectionResetError("the program has closed the connection")
        self._http.receive_data(data)

    async def _send_part(self, exchange: _Exchange, upstream: _Upstream, part: bytes) -> None:
        """Send a part of a streamed body with its secrets. Raises Rejected for a placeholder of another origin."""
        for name in names_in(part):
            _check_placeholder(name, Place.BODY, exchange)
            await self._get_secret(exchange, name)
        if filled := fill_body(part, exchange.request.media_type, exchange.values.__getitem__):
            await upstream.send(h11.Data(data=filled))

    async def _pump_down(self, exchange: _Exchange, upstream: _Upstream) -> int:
        """Forward the answer to the program, and return its status. Raises Rejected for an answer that cannot be
        forwarded, and OSError if a connection breaks off.
        """
        stream, status = MaskedStream(self._proxy.secrets.masks, exchange.host), 0
        observed = ObservedStream(self._proxy.secrets.masks)
        size, call = 0, exchange.verdict.call if exchange.verdict is not None else None
        while True:
            event = await self._next_answer(upstream, stream)
            match event:
                case h11.InformationalResponse(status_code=101) if exchange.is_upgrade:
                    self._check_encoding(exchange, event)
                    await self._send(h11.InformationalResponse(status_code=101, headers=self._returned(event)))
                    return 101
                case h11.InformationalResponse():
                    continue
                case h11.Response():
                    status = event.status_code
                    self._check_encoding(exchange, event)
                    self._hold_head(event)
                case h11.Data():
                    data = bytes(event.data)
                    size += len(data)
                    await self._observe(exchange, observed, data, size)
                    self._hold_data(stream.feed(data))
                case h11.EndOfMessage():
                    self._hold_data(stream.end())
                    if call is not None:
                        _state_result(call, ok=status < 400, size=size)
                    self._hold(h11.EndOfMessage())  # without trailers: RFC 9110 section 6.5.1
                    await self._flush()
                    return status
                case _:
                    raise ConnectionAbortedError("the server has closed the connection")

    def _hold_head(self, event: h11.Response) -> None:
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
            raise Rejected(502, "upstream_failed", "the server's answer states its length in two ways")
        reason = self._proxy.secrets.masks.mask(event.reason)
        try:
            self._hold(h11.Response(status_code=event.status_code, headers=self._returned(event), reason=reason))
        except h11.LocalProtocolError:
            raise Rejected(502, "upstream_failed", "the server's answer cannot be forwarded as HTTP/1.1") from None

    def _hold_data(self, data: bytes) -> None:
        if data:
            self._hold(h11.Data(data=data))

    def _hold(self, event: h11.Event) -> None:
        """Add an event to the bytes that are sent together when the proxy waits for the server again."""
        self._held += self._http.send(event) or b""

    async def _flush(self) -> None:
        data, self._held = self._held, b""
        await self._write(data)

    async def _send_waiting(self, data: bytes) -> None:
        self._hold_data(data)
        await self._flush()

    async def _next_answer(self, upstream: _Upstream, stream: MaskedStream) -> object:
        """Return the next event of an answer. If the server pauses, send the held bytes of the masked stream meanwhile.
        Raises Rejected for an answer that is not valid HTTP, and OSError if it breaks off after its beginning was
        forwarded.
        """
        try:
            while (event := upstream.next_event()) is h11.NEED_DATA:
                await self._flush()
                upstream.http.receive_data(await _read_part(upstream, stream, self._send_waiting))
        except h11.RemoteProtocolError:  # the message of the error quotes the server, which may show a secret
            if self._http.our_state is h11.SEND_RESPONSE:
                raise Rejected(502, "upstream_failed", "the server's answer is not valid HTTP/1.1") from None
            raise ConnectionAbortedError("the answer broke off, or is not valid HTTP/1.1") from None
        return event

    def _check_encoding(self, exchange: _Exchange, event: h11.Response | h11.InformationalResponse) -> None:
        """Check that the body or the frames of the answer are not compressed. This is necessary if they may contain
        secrets, or are added to the memory of the task. Raises Rejected if the check fails.
        """
        encodings = [value for name, value in event.headers if name in _ENCODINGS]
        call = exchange.verdict.call if exchange.verdict is not None else None
        is_recorded = call is not None and call.watched is not None and self._proxy.gate.enforces
        is_searched = is_recorded or bool(self._proxy.secrets.masks.forms or exchange.owned)
        if is_searched and any(value.lower() not in (b"identity", b"") for value in encodings):
            raise Rejected(
                502,
                "compressed_answer",
                "the server compresses an answer that was requested uncompressed: the proxy cannot search it",
            )

    def _returned(self, event: h11.Response | h11.InformationalResponse) -> Headers:
        """Return the headers of an answer for the program: without secrets, and without headers that concern
        one connection.
        """
        is_switch = event.status_code == 101
        lines = [
            bytes(line)
            for header in event.headers.raw_items()
            if header[0].lower() not in _NOT_RETURNED or (is_switch and header[0].lower() == b"upgrade")
            for line in header
        ]
        masked = iter(self._proxy.secrets.masks.mask(b"\n".join(lines)).split(b"\n") if lines else ())
        kept = list(zip(masked, masked, strict=True))
        return [*kept, (b"Connection", b"Upgrade")] if is_switch else kept

    async def _observe(self, exchange: _Exchange, observed: ObservedStream, data: bytes, size: int) -> None:
        """Add a part of an answer to the memory of the task before the part is sent to the program. `size`: bytes of
        the answer so far. Raises OSError if the answer is withheld.
        """
        call = exchange.verdict.call if exchange.verdict is not None else None
        if call is None:
            return
        if call.most_bytes is not None and size > call.most_bytes:
            call.ok = False
            raise ConnectionAbortedError("the answer is longer than the task allows")
        if call.watched is None:
            return
        try:
            await asyncio.to_thread(self._proxy.gate.observe, call, observed.feed(data))
        except Refused as refusal:
            call.ok = False
            raise ConnectionAbortedError(refusal.message) from None

    async def _pass_frames(self, exchange: _Exchange, upstream: _Upstream) -> None:
        """Pass the frames of a WebSocket both ways; secrets are masked in the frames of the server. Raises Rejected if
        the program sends a secret, OSError if a connection breaks off.
        """
        masks = self._proxy.secrets.masks
        stream, frames = MaskedFrames(masks, exchange.host), FrameReader()
        searches = {content: SearchedStream(masks) for content in FrameContent}
        first_up, first_down = self._http.trailing_data[0], upstream.http.trailing_data[0]

        async def up() -> None:
            data = first_up or await self._reader.read(CHUNK)
            while data:
                if any(searches[content].find(part) for content, part in frames.feed(data)):
                    raise _secret_sent()
                upstream.writer.write(data)
                await upstream.writer.drain()
                data = await self._reader.read(CHUNK)

        async def down() -> None:
            data = first_down or await upstream.read()
            while data:
                await self._write(stream.feed(data))
                data = await _read_part(upstream, stream, self._write)
            await self._write(stream.end())

        tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _read_part(
    upstream: _Upstream, stream: MaskedStream | MaskedFrames, send: Callable[[bytes], Awaitable[None]]
) -> bytes:
    """Return the next bytes of the server. If the server pauses, send the held bytes of the masked stream meanwhile.
    Raises OSError if a connection breaks off.
    """
    if stream.is_waiting:
        with suppress(TimeoutError):
            async with asyncio.timeout(SILENCE_S):
                return await upstream.read()
        await send(stream.show())
    return await upstream.read()


def _state_result(call: Call, *, ok: bool, size: int) -> None:
    """State the result of a call to the guard before the last byte of the answer is sent. Raises ConnectionAbortedError
    if the answer is withheld.
    """
    try:
        call.result(ok=ok, bytes=size)
    except Withheld as refusal:
        raise ConnectionAbortedError(refusal.message) from None


def _all(headers: Headers, field: bytes) -> list[bytes]:
    return [value for name, value in headers if name == field]


def _forwarded(headers: Headers) -> Headers:
    """Return the headers for the server: without headers that concern one connection, without requests for
    ranges or compressed answers, and without WebSocket extensions, which compress frames. A name with `_`
    counts as the name with `-`, as in CGI and WSGI.
    """
    listed = {
        one.strip().lower().replace(b"_", b"-")
        for name, value in headers
        if name.lower() == b"connection"
        for one in value.split(b",")
        if one.strip().lower() not in (b"authorization", b"host", b"cookie")
    }
    dropped = _NOT_FORWARDED | listed | {b"host", b"content-length", b"sec-websocket-extensions"}
    return [
        (name, value)
        for name, value in headers
        if name.lower().replace(b"_", b"-") not in dropped and not name.lower().startswith((b"proxy-", b"proxy_"))
    ]


def _origin(at: Authority, *, is_tls: bool) -> str:
    scheme, usual = ("https", HTTPS_PORT) if is_tls else ("http", HTTP_PORT)
    shown = str(at) if at.port != usual else str(at).rpartition(":")[0]
    return f"{scheme}://{shown}"


def _check_placeholder(name: str, place: Place, exchange: _Exchange) -> None:
    """Check that the placeholder of the destination `name` is sent to the origin that owns the secret, in a permitted
    place. Raises Rejected otherwise.
    """
    one = exchange.owned.get(name)
    if one is None:
        raise Rejected(
            403,
            "foreign_placeholder",
            f"{exchange.at} does not own the secret of OSTIARY:{name}",
            hint="list the origin of each secret: ostiary egress list",
        )
    if one.place not in (Place.PLACEHOLDER, place):
        raise _foreign_place(one)


def _foreign_place(one: Destination) -> Rejected:
    where = f"the {one.place.value} `{one.field}`"
    message = f"the secret of OSTIARY:{one.name} may be sent only in {where}"
    return Rejected(403, "foreign_place", message, hint="leave the placeholder out: the proxy puts the secret there")


def _port_closed(at: Authority) -> Rejected:
    return Rejected(
        403,
        "port_closed",
        f"the proxy connects to the ports 80 and 443 and to the ports of destinations, not to {at}",
        hint="allow the port by a destination: ostiary egress add NAME --origin https://HOST:PORT --secret PATH",
    )


def _secret_sent() -> Rejected:
    return Rejected(
        403, "secret_sent", "the request has a secret that the program must not have", hint="send the placeholder"
    )


def _compressed_placeholder() -> Rejected:
    return Rejected(
        415,
        "compressed_placeholder",
        "the compressed body has a placeholder, which the proxy replaces only in uncompressed bodies",
        hint="send the body uncompressed, or send the placeholder in a header",
    )
