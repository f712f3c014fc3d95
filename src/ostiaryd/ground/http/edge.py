"""HTTP requests and replies as values, with limits for everything that a caller sends.

A wire function is `async (Call) -> Reply`. It raises refusals, which the protocol of its route renders. `Endpoint` is
the small ASGI application that connects a wire function with Starlette's routes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from functools import cached_property, partial
from typing import Any, TypeVar

import msgspec
from starlette.types import Message, Receive, Scope, Send

from ostiary.protocol import canonical
from ostiary.protocol.client_certificate import ClientCertificate, forwarded_certificate
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
)
from ostiary.protocol.network import network_of
from ostiary.protocol.proxies import client_address, is_within
from ostiaryd.ground.database import DamagedDatabase, storage_failure
from ostiaryd.ground.database.writer import Busy
from ostiaryd.ground.http.buckets import TooMuch
from ostiaryd.ground.http.forms import parse_form
from ostiaryd.ground.process.ids import new_id
from ostiaryd.ground.world import World

T = TypeVar("T")
log = logging.getLogger("ostiary")
MAX_DEPTH = 32
SMALL_BODY = 64 << 10
"""Maximum size of a body that is read before authentication, in bytes. A larger body is read only after
authentication.
"""
PROVED, OVERTAKING, SHOWN = "ostiary.proved", "ostiary.overtaking", "ostiary.shown"
"""Keys in the ASGI scope under which the arguments `note_proven`, `overtaking` and `shown` of `Endpoint.answer` are
passed.
"""
LONGEST_STALL_S = 60.0
"""Maximum time that a client may take to read the next part of a streamed response, in seconds."""
RETRY_SPREAD_S = 4
_REFUSED = {"\0": "a null character (`%00`)", "\r": "a carriage return (`%0D`)", "\n": "a line feed (`%0A`)"}
"""The characters that no path may contain, with their names."""
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


class TooLarge(Malformed):
    """The body of the request is larger than the limit."""

    code = "too_large"


class PreconditionFailed(Conflict):
    """A condition in a header of the request is false (RFC 9110 section 13)."""

    code = "precondition_failed"


class MethodNotAllowed(Refused):
    """The path has no operation with the method of the request (RFC 9110 section 15.5.6)."""

    code = "method_not_allowed"


class UnsupportedMediaType(Malformed):
    """The route does not accept the content type of the body."""

    code = "unsupported_media_type"


class Failed(Refused):
    """An internal error of the server. The log has the cause with the id of the request."""

    code = "internal_error"

    def __init__(self, message: str = "the server failed") -> None:
        super().__init__(message, hint="search the server's log for the `x-request-id` of this response")


class Call(msgspec.Struct):
    """A request. `answer_headers` are added to its response, also to a refusal, but not after an internal error.

    `caller` is set by the gate of the route (the function that authenticates the caller), or by `prove` if the act of
    the request authenticates the caller.
    """

    world: World
    method: str
    path: str
    params: dict[str, str]
    query: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    request_id: str
    caller: Any = None
    proving: Callable[[Any], Any] | None = None
    check_again: Callable[[Any], None] | None = None
    """Function that checks, on the state of an act, whether the authenticated caller may still use the route; None for
    a route without authentication.
    """
    has_acted: bool = False
    """True if an act of the request has checked the caller on its own state (`prove`). A wire function that waits for
    something after its act, and then shows the result, sets it to false: the caller may have been stopped meanwhile.
    """
    gate: Callable[[Call], Awaitable[Any]] | None = None
    answer_headers: list[tuple[bytes, bytes]] = []
    address: str = ""
    """network address of the connection; empty without a connection"""
    shown: ClientCertificate | None = None
    """Certificate that the client showed in the TLS handshake of this connection; None without one."""
    parsed: object = None
    """The parsed value of a JSON body that was too large to be parsed on the event loop; None otherwise."""
    raw_path: str = ""
    """The path as the client sent it, if it has escapes and is known; otherwise empty, and `path` counts."""
    known_network: str | None = None
    """Cached value of the property `network`; None before its first use."""
    by_name: dict[bytes, bytes] = {}
    """The headers by name, each with its last value; made from `headers`."""
    is_privileged: bool = False
    """True if the caller has authenticated as an administrator or a person."""
    is_guard: bool = False
    """True if the caller has authenticated as a guard."""
    is_proven: bool = False
    """True if the wire function has authenticated the caller itself, on a route that also answers other callers."""

    def __post_init__(self) -> None:
        self.by_name = dict(self.headers)

    def header(self, name: bytes, *, twice: type[Refused] = Malformed) -> str | None:
        """Return the only value of a header; None without the header. If the header occurs more than once, raise
        `twice`, because programs differ on which value counts.
        """
        if (value := self.by_name.get(name)) is None:
            return None
        if len(self.by_name) < len(self.headers) and [key for key, _ in self.headers].count(name) > 1:
            raise twice(f"the header `{name.decode()}` was sent more than once", hint="send the header once")
        return value.decode("latin-1")

    @property
    def is_read(self) -> bool:
        """Return whether the method of the request is GET or HEAD; the server answers a HEAD as the GET without its
        body.
        """
        return self.method in ("GET", "HEAD")

    def prove(self, act: Any) -> Any:
        """Authenticate the caller inside an act of the request, as its first step, and return the caller. If the gate
        or an earlier act has authenticated the caller, check on the state of this act that the caller may still use the
        route. Raises the refusals of the gate.
        """
        self.has_acted = True
        if self.proving is not None:
            proving, self.proving = self.proving, None
            act.tx.undone.append(partial(setattr, self, "proving", proving))  # with the mark of the proof
            self.caller = proving(act)
        elif self.check_again is not None:
            self.check_again(act)
        return self.caller

    async def prove_first(self) -> None:
        """Authenticate the caller before the act, for a route that permits only authenticated callers. Raises the
        refusals of the gate.
        """
        if self.proving is not None and self.gate is not None:
            gate, self.proving = self.gate, None
            self.caller = await gate(self)

    @property
    def origin(self) -> str:
        """Return the address of the caller. For a request of a configured proxy, it is the address that the proxy
        forwards.
        """
        if not (proxies := self.world.config.proxy_networks):
            return self.address
        forwarded = [value.decode("latin-1") for key, value in self.headers if key == b"x-forwarded-for"]
        return client_address(self.address, forwarded, proxies)

    @property
    def certificate(self) -> ClientCertificate | None:
        """Return the certificate of the client: from the TLS handshake, or as a configured proxy forwards it (RFC
        9440); None without one. The certificate of the proxy itself is never returned. Raises Malformed for a malformed
        header of the proxy.
        """
        networks = self.world.config.certificate_networks
        return forwarded_certificate(self.headers) if networks and is_within(self.address, networks) else self.shown

    @property
    def network(self) -> str:
        """Return the IP network of the caller's address (/24 or /48), which the ledger stores instead
        of the address.
        """
        if self.known_network is None:
            self.known_network = network_of(self.origin)
        return self.known_network

    @property
    def uri(self) -> str:
        """Return the public URI of this request without its query. It is made from the configuration, never from the
        header `Host`.
        """
        return self.world.config.public_url + (self.raw_path or self.path)

    def json(self, kind: type[T]) -> T:
        """Return the body as a value of this type, parsed as strict JSON: no duplicate keys, limited depth. The content
        type must be JSON. Raises Malformed for another body, UnsupportedMediaType for another content type.
        """
        self.expect("application/json")
        if self.body.find(b"\\u0000") >= 0:  # no supported database stores a null character
            raise Malformed("the body contains a null character")
        try:
            return convert(self.parse_json() if self.parsed is None else self.parsed, kind)
        except msgspec.ValidationError as error:
            raise Malformed(str(error)) from None

    def parse_json(self) -> object:
        """Parse the body as strict JSON: no duplicate keys, limited depth and size. Raises Malformed for other text."""
        return canonical.parse(self.body, max_bytes=self.world.config.max_request_bytes, max_depth=MAX_DEPTH)

    def form(self) -> dict[str, list[str]]:
        """Return the parameters of a form body, each with all its values (RFC 8707 permits several `resource`). Raises
        Malformed for another body, UnsupportedMediaType for another content type.
        """
        self.expect("application/x-www-form-urlencoded")
        return parse_form(self.body)

    def query_one(self, name: str) -> str | None:
        """Return the only value of a query parameter; None if it is missing. Raises Malformed if it occurs more than
        once.
        """
        values = parse_form(self.query.encode("latin-1")).get(name, [])
        if len(values) > 1:
            raise Malformed(f"the parameter `{name}` was sent {len(values)} times", hint="send the parameter once")
        return values[0] if values else None

    def expect(self, media_type: str) -> None:
        """Check that the content type of the request is this media type. Raises UnsupportedMediaType otherwise."""
        if not self.has_type(media_type):
            sent = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
            raise UnsupportedMediaType(f"the content type `{sent[:100]}` is not supported", hint=f"send {media_type}")

    def has_type(self, media_type: str) -> bool:
        """Return whether the content type of the request is that media type."""
        sent = self.header(b"content-type") or ""
        return sent == media_type or sent.partition(";")[0].strip().lower() == media_type


JSON = "application/json"
JSON_TYPE = (b"content-type", JSON.encode())


class Reply(msgspec.Struct):
    """The response to one request. A `body` that is a generator is sent in parts, as the generator yields them."""

    status: int
    body: bytes | AsyncGenerator[bytes, None] = b""
    media_type: str = JSON
    headers: list[tuple[bytes, bytes]] = []


Headers = list[tuple[bytes, bytes]]
Wire = Callable[[Call], Awaitable[Reply]]
Render = Callable[[Refused], Reply]

_encode = msgspec.json.Encoder().encode
NO_STORE = (b"cache-control", b"no-store")
NO_LENGTH = (204, 304)
"""Status codes whose responses have no content length: for 204 it is forbidden, and for 304 it would have to be that of
the response 200 (RFC 9110 section 8.6).
"""
NO_SNIFF = (b"x-content-type-options", b"nosniff")


CROSS_ORIGIN = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"dpop-nonce, www-authenticate, retry-after, x-request-id"),
)
"""Headers with which browsers let scripts of every origin read a response (Fetch 3.3.3), without credentials."""


class Preflight:
    """The response to a CORS preflight request (Fetch 3.3.2) for a path with these methods. It does not depend on the
    request.
    """

    def __init__(self, methods: Collection[str]) -> None:
        self._headers = [
            (b"access-control-allow-origin", b"*"),
            (b"access-control-allow-methods", ", ".join(sorted(methods)).encode()),
            (b"access-control-allow-headers", b"authorization, content-type, dpop, mcp-protocol-version"),
            (b"access-control-max-age", b"7200"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": self._headers})
        await send({"type": "http.response.body", "body": b""})


def reply(value: Any, *, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> Reply:
    """Return a reply with this value as JSON."""
    return Reply(status, _encode(value), headers=headers or [])


STATUS: dict[type[Refused], int] = {
    Failed: 500,
    TooLarge: 413,
    UnsupportedMediaType: 415,
    MethodNotAllowed: 405,
    Malformed: 400,
    Invalid: 422,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    PreconditionFailed: 412,
    Conflict: 409,
    TooMuch: 429,
    Unavailable: 503,
    Refused: 400,
}
"""HTTP status of each refusal class in the administration API. For a class that is not listed, its nearest base class
applies.
"""


def status_of(refusal: Refused) -> int:
    """Return the HTTP status with which a refusal is answered, by its class."""
    return next(STATUS[kind] for kind in type(refusal).__mro__ if kind in STATUS)


def retry_headers(refusal: Refused) -> Headers:
    """Return the header `Retry-After` for a caller above a rate limit; no header for any other refusal."""
    return [(b"retry-after", b"%d" % refusal.after_s)] if isinstance(refusal, TooMuch) else []


def render_admin(refusal: Refused) -> Reply:
    """Return the reply `{"error": code, "message": the error, "hint": the next step}`."""
    body = {"error": refusal.code, "message": refusal.message}
    if refusal.hint:
        body["hint"] = refusal.hint
    return reply(body, status=status_of(refusal), headers=[NO_STORE, *retry_headers(refusal)])


Gate = Callable[[Call], Awaitable[Any]]


class Endpoint:
    """A route with its steps: read the request, authenticate, call the wire function, render the reply. It is also an
    ASGI application.

    A body of at most `SMALL_BODY` bytes is read before authentication. If a route accepts larger bodies, a request that
    may have one is authenticated first, and its JSON is parsed in a thread, unless the wire function parses it.
    """

    def __init__(
        self,
        world: World,
        wire: Wire,
        *,
        render: Render,
        gate: Gate | None = None,
        streams: bool = False,
        check: Gate | None = None,
        proves: bool = False,
        is_refused: Callable[[Call], bool] | None = None,
        stops: bool = False,
        bounds_body: bool = False,
        parses_body: bool = False,
        is_cross_origin: bool = False,
    ) -> None:
        """Create the endpoint of a wire function. `streams`: some responses are sent while they are made. `check`:
        authenticates the caller before a body of more than `SMALL_BODY` bytes is read; without it, such bodies are
        refused. `proves`: a response below 400 means that the caller has authenticated. `is_refused`: whether `refuse`
        answers a request; without it, none. `stops`: all other clients wait while an administrator or a person uses the
        route. `bounds_body`: the wire function itself refuses a body of more than `max_body` bytes. `parses_body`: the
        wire function itself parses a large body.
        """
        self._is_refused = is_refused
        self._world, self._wire, self._render, self._gate, self.streams = world, wire, render, gate, streams
        self._check, self.proves, self.stops, self._bounds_body = check, proves, stops, bounds_body
        self._parses_body = parses_body
        self._cross_origin = CROSS_ORIGIN if is_cross_origin else ()
        most = world.config.max_request_bytes
        self.max_body = min(most, SMALL_BODY) if check is None else most

    @cached_property
    def _busy(self) -> Reply:
        return self._render(Busy())

    def proves_first(self, headers: Headers) -> bool:
        """Return whether the caller must be authenticated before the body is read: the route accepts more than
        `SMALL_BODY` bytes, and the headers state a larger length, or no length.
        """
        if self.max_body <= SMALL_BODY:
            return False
        lengths = [value for name, value in headers if name == b"content-length"]
        return not lengths or len(lengths[0]) > len(str(SMALL_BODY)) or int(lengths[0]) > SMALL_BODY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read, body = None, b""
        if scope["method"] not in ("GET", "HEAD") and self.proves_first(scope["headers"]):
            read = partial(_read, receive, self.max_body)
        else:
            body = await _read(receive, self.max_body)
        answer, headers = await self.answer(
            scope["method"],
            scope["path"],
            params=scope.get("path_params", {}),
            query=scope["query_string"].decode("latin-1"),
            raw_path=raw.decode("latin-1") if b"%" in (raw := scope.get("raw_path", b"")) else "",
            headers=scope["headers"],
            body=body,
            address=(scope.get("client") or ("",))[0],
            shown=scope.get("extensions", {}).get(SHOWN),
            read=read,
            note_proven=scope.get("extensions", {}).get(PROVED),
            overtaking=scope.get("extensions", {}).get(OVERTAKING, nullcontext),
        )
        await _send(receive, send, answer, headers)

    def refuse(
        self, method: str, path: str, headers: Headers, body: bytes, *, address: str
    ) -> tuple[Reply, Headers] | None:
        """Return the refusal of a request while too many jobs wait for the writer, with all headers except the length;
        None if the request is not refused. Nothing of the request is read except its client.
        """
        if self._is_refused is None or not self._world.writer.is_crowded:
            return None
        request_id = request_id_of(headers, self._world)
        call = Call(self._world, method, path, {}, "", headers, body, request_id, address=address)
        return self._finish(call, self._busy) if self._is_refused(call) else None

    async def answer(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str],
        query: str,
        headers: Headers,
        body: bytes,
        raw_path: str = "",
        address: str = "",
        shown: ClientCertificate | None = None,
        read: Callable[[], Awaitable[bytes]] | None = None,
        note_proven: Callable[[bool, bool], None] | None = None,
        overtaking: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> tuple[Reply, Headers]:
        """Return the reply to a request, and all its headers except the length.

        `body` may be cut off after `max_body` bytes. `shown` is the client certificate of the connection. `read`
        returns the body of a request that is authenticated first. If the caller has authenticated and the status is
        below 400, `note_proven` is called with two arguments: whether the caller is an administrator or a person, and
        whether the caller is a guard. If an administrator or a person stops something, the work runs in the block
        `overtaking`.
        """
        world = self._world
        request_id = request_id_of(headers, world)
        call = Call(world, method, path, params, query, headers, body, request_id, address=address, shown=shown)
        call.raw_path = raw_path
        try:
            if not self._bounds_body:
                self._check_size(body)
            if "\0" in path or "\r" in path or "\n" in path:
                raise Malformed(f"the path contains {next(name for char, name in _REFUSED.items() if char in path)}")
            # routes are compared with the decoded path, so an encoded slash could lead to another operation
            if "%" in raw_path and "%2f" in raw_path.lower() and not any("/" in value for value in params.values()):
                raise Malformed("the path contains an encoded slash (`%2F`)", hint="names and ids have no slash")
            if "%00" in query:
                raise Malformed("the query contains a null character (`%00`)")
            if read is not None and self._check is not None:
                await self._check(call)
                call.body = await read()
                self._check_size(call.body)
                if len(call.body) > SMALL_BODY and not self._parses_body and call.has_type("application/json"):
                    call.parsed = await asyncio.to_thread(call.parse_json)
            if self._gate is not None:
                call.caller = await self._gate(call)
            if self.stops and call.is_privileged:
                with overtaking():
                    answer = await self._wire(call)
            else:
                answer = await self._wire(call)
        except Refused as refusal:
            answer = self._render(refusal)
        except Exception as error:
            log.exception("%s %s failed (%s)", method, path, request_id)
            call.answer_headers.clear()
            failure = storage_failure(error)
            world.db.is_suspect |= isinstance(failure, DamagedDatabase)
            answer = self._render(failure or Failed())
        if (self.proves or call.is_proven) and answer.status < 400 and note_proven is not None:
            note_proven(call.is_privileged, call.is_guard)
        return self._finish(call, answer)

    def _finish(self, call: Call, answer: Reply) -> tuple[Reply, Headers]:
        if answer.status == 503:
            call.answer_headers.append((b"retry-after", b"%d" % retry_after_s(self._world)))
        request_id = (b"x-request-id", call.request_id.encode("latin-1"))
        if answer.media_type != JSON:
            named = [(b"content-type", answer.media_type.encode("latin-1")), request_id]
        else:  # an empty body is not JSON, and clients would parse it
            named = [JSON_TYPE, request_id] if answer.body else [request_id]
        return answer, [*named, *call.answer_headers, *answer.headers, *self._cross_origin]

    def _check_size(self, body: bytes) -> None:
        """Check that the body is not larger than the limit of the route. Raises TooLarge otherwise."""
        if len(body) > self.max_body:
            hint = "send a smaller body"
            if self._check is not None:
                hint += ", or increase the setting `max_request_bytes`"
            raise TooLarge(f"the request body is over {self.max_body} bytes", hint=hint)

    def failure(self, path: str, headers: Headers) -> tuple[Reply, Headers]:
        """Return the response to a request whose own response could not be sent. Call it in the handler of that
        exception.
        """
        answer, id = self._render(Failed()), request_id_of(headers, self._world)
        log.exception("%s: the response could not be sent (%s)", path, id)
        named = [
            (b"content-type", answer.media_type.encode("latin-1")),
            (b"x-request-id", id.encode("latin-1")),
        ]
        return answer, [*named, *answer.headers]


def retry_after_s(world: World) -> int:
    """Return after how many seconds (1 to 4) a client should try again. The number is random, so that not all clients
    return at the same time.
    """
    return 1 + world.random(1)[0] % RETRY_SPREAD_S


def request_id_of(headers: Headers, world: World) -> str:
    """Return the `x-request-id` in the headers if it is 1 to 128 visible ASCII characters; otherwise a new id."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(text := value.decode("latin-1")):
            return text
    return new_id("rq", now=world.now(), random=world.random)


async def _read(receive: Receive, limit: int) -> bytes:
    """Return the body. If it is longer than `limit` bytes, return at least one byte more than the limit."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body") and len(body) <= limit:
        message = await receive()
        body += message.get("body", b"")
    return body


async def _send(receive: Receive, send: Send, answer: Reply, headers: Headers) -> None:
    start: Message = {"type": "http.response.start", "status": answer.status, "headers": headers}
    if isinstance(answer.body, bytes):
        if answer.status not in NO_LENGTH:
            headers.append((b"content-length", str(len(answer.body)).encode()))
        await send(start)
        await send({"type": "http.response.body", "body": answer.body})
        return
    await send(start)
    sending = asyncio.ensure_future(_send_stream(send, answer.body))
    # the body is complete, so the next message means that the client has disconnected
    leaving = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not sending.cancelled():
            # The connection closes before the end of the response, because the client reads nothing or has lost its
            # access.
            with suppress(Refused, TimeoutError):
                sending.result()
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)


async def _send_stream(send: Send, body: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(body):
        async for chunk in body:
            async with asyncio.timeout(LONGEST_STALL_S):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
