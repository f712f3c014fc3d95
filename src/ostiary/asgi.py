"""A guard in front of an ASGI application (RFC 6750, RFC 9449 section 7, RFC 9470, RFC 9728).

    app = GuardASGI(app, guard)           # Starlette, FastAPI: each route is a tool (`ostiary.routes`)
    app = GuardASGI(app, guard, tool={"GET /files/{path*}": "read_file", "POST /files/{path*}": "write_file"})

A request without a token and a proof gets a challenge that names the issuer of tokens. Any other request is the call
of a tool, and reaches the application only if the call is allowed and recorded. A request for which there is no route
or rule is denied.

| `tool` | arguments of the call |
| --- | --- |
| none | parameters of the path, the query, declared headers and cookies, and the body (`ostiary.routes`) |
| a mapping of rules | parameters of path and query; bodies are not judged |
| a function of the ASGI scope that returns `(tool, arguments)`, or None | the result of the function |

The opening of a WebSocket is a call as well: `WEBSOCKET /path` in a rule. The messages of the WebSocket are not decided
one by one. Their size is counted like the size of an answer, and the connection is closed as soon as its token is
revoked.

Scripts in browsers may call the application from the web origins in `origins` (CORS, Fetch section 3.3); `"*"` permits
every origin. Cookies are not accepted as authentication, so a script has only the access of the token that it holds.
The resource's metadata are open to every origin.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec

from ostiary.guard import Call, Denied, Guard, KeyUnheard, NonceNeeded, Verified, Withheld
from ostiary.guard.connections import Connection
from ostiary.guard.rules import Rules
from ostiary.protocol import jose
from ostiary.protocol.client_certificate import (
    CLIENT_CERT,
    CLIENT_CERT_CHAIN,
    ClientCertificate,
    forwarded_certificate,
)
from ostiary.protocol.dpop import InvalidProof
from ostiary.protocol.errors import Forbidden, Malformed, Refused, Unauthenticated, Unavailable, check_list
from ostiary.protocol.jose import InvalidToken
from ostiary.protocol.network import network_of
from ostiary.protocol.proxies import client_address, is_within, parse_networks

if TYPE_CHECKING:
    from ostiary.routes import RouteTable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Named = tuple[str, Mapping[str, Any]]
"""A tool, and the arguments of a call."""

WELL_KNOWN = "/.well-known/oauth-protected-resource"
VERIFIED = "ostiary.verified"
"""key of the ASGI scope under which the application finds the verified caller"""
MAX_REMEMBERED = 1 << 20
"""maximum number of bytes of a response body that are held back until they are in the task's memory"""
NO_STORE = (b"cache-control", b"no-store")
MAX_BODY = 1 << 20
"""maximum number of bytes of a request body, unless `max_body` sets another limit"""
MAX_SHOWN = 200
"""maximum number of characters of a path in a message"""
POLICY_VIOLATION = 1008
"""close code of a denied WebSocket (RFC 6455 section 7.4.1)"""
EXPOSED = b"www-authenticate, dpop-nonce, mcp-session-id, mcp-protocol-version, retry-after"
"""Response headers that scripts of another origin may read."""
OURS = (b"access-control-allow-origin", b"access-control-allow-credentials", b"access-control-expose-headers")


@dataclass(slots=True)
class Answer:
    status: int
    body: Any
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def send(self, send: Send) -> None:
        """Send the response, without a body if the status is 204."""
        body, headers = b"", self.headers
        if self.status != 204:
            body = msgspec.json.encode(self.body)
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *self.headers,
            ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Door:
    """The entrance of an application behind a guard: authenticates requests, and renders refusals.

    `origin`: the public origin, if it differs from the resource's URI. `proxies`: networks of reverse proxies,
    separated by spaces, whose `Client-Cert` (RFC 9440) and `X-Forwarded-For` are trusted. `origins`: web origins whose
    scripts may call, `"*"` for every origin; without any, the application answers CORS itself. Raises ValueError for
    malformed `proxies`, Malformed for malformed `origins`.
    """

    def __init__(
        self, guard: Guard, *, origin: str | None = None, proxies: str = "", origins: Collection[str] = ()
    ) -> None:
        self._guard, self._origin, self._proxies = guard, origin, parse_networks(proxies)
        self._origins = frozenset(check_origins(origins))

    def authenticate(self, scope: Scope) -> Verified:
        """Verify the token and the proof of a request; return the caller. Raises Refused if either is invalid, or if
        the request has a forbidden `Origin`.
        """
        self._check_origin(scope)
        caller = self._guard.verify(
            authorization=_header(scope, b"authorization"),
            proof=_header(scope, b"dpop", twice=InvalidProof),
            method=scope.get("method", "GET"),
            uri=self._public_origin() + _path(scope),
            certificate=self._certificate(scope),
        )
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return replace(caller, network=network_of(client_address(_address(scope), forwarded, self._proxies)))

    def _certificate(self, scope: Scope) -> ClientCertificate | None:
        """Return the client's certificate: as a trusted proxy forwards it, or else as the application's server states
        it in the scope (`ostiary.asgi_tls`, the TLS extension of ASGI). Return None for a client without a certificate.
        Raises Malformed for an unreadable one.
        """
        if self._proxies and is_within(_address(scope), self._proxies):
            _check_trailer(scope)
            return forwarded_certificate(scope["headers"])
        chain = (scope.get("extensions") or {}).get("tls", {}).get("client_cert_chain") or ()
        if not chain:
            return None
        try:
            first, *others = [ssl.PEM_cert_to_DER_cert(pem) for pem in chain]
        except ValueError:
            raise Malformed("the server of the application passed a client certificate that is not PEM") from None
        return ClientCertificate(first, tuple(others))

    def answer_preflight(self, scope: Scope) -> Answer | None:
        """Return the response to a CORS preflight (Fetch section 3.3.2); None for any other request. Raises Forbidden
        for an origin that may not call.
        """
        if scope.get("method") != "OPTIONS" or _header(scope, b"access-control-request-method") is None:
            return None
        if not self._is_well_known(scope):
            if not self._origins:
                return None
            self._check_origin(scope)
        headers = [
            (b"access-control-allow-methods", b"*"),
            (b"access-control-allow-headers", b"*, authorization"),  # the wildcard `*` does not include `Authorization`
            (b"access-control-max-age", b"7200"),
        ]
        return Answer(204, None, headers)

    def share(self, scope: Scope, send: Send) -> Send:
        """Return an ASGI `send` that adds the headers with which browsers let scripts of the allowed origins read the
        response (Fetch section 3.3.3), in place of those of the application.
        """
        is_open = "*" in self._origins or self._is_well_known(scope)
        if not self._origins and not is_open:
            return send
        headers = [(b"access-control-expose-headers", EXPOSED)]
        if is_open:
            headers.append((b"access-control-allow-origin", b"*"))
        else:
            sent = [value for name, value in scope["headers"] if name == b"origin"]
            allowed = [value for value in sent[:1] if value.decode("latin-1") in self._origins]
            headers += [(b"vary", b"origin"), *((b"access-control-allow-origin", value) for value in allowed)]
        return _with_headers(send, headers, replaced=OURS)

    def _check_origin(self, scope: Scope) -> None:
        """Check the `Origin` of a request that a script sends (MCP 2026-07-28, transports: a server validates
        `Origin`).

        Raises Forbidden if the check fails.
        """
        origin = _header(scope, b"origin")
        if origin is None or not self._origins or "*" in self._origins:
            return
        if origin not in self._origins and origin != self._public_origin():
            raise Forbidden(
                f"scripts of {origin[:MAX_SHOWN]!a} may not call this server",
                hint="the owner of the server names the web origins in `origins`",
                code="origin_not_allowed",
            )

    def _is_well_known(self, scope: Scope) -> bool:
        path: str = scope["path"]
        return path == WELL_KNOWN or path.startswith(WELL_KNOWN + "/")

    def is_metadata(self, scope: Scope) -> bool:
        """Return whether a request is for the resource's metadata (RFC 9728)."""
        return scope.get("method") == "GET" and self._is_well_known(scope)

    def metadata(self) -> Answer:
        """Return the metadata of the resource (RFC 9728 section 2). Raises Unavailable if the guard has no present
        facts of the feed.
        """
        resource, _, facts, exempt = self._guard.feed.current()
        scopes = sorted({tool.scope for tool in facts.resource.tools.values()})
        body = {
            "resource": resource.uri,
            "resource_name": resource.name,
            "authorization_servers": [self._guard.feed.issuer],
            "bearer_methods_supported": ["header"],
            "dpop_bound_access_tokens_required": not exempt and not self._proxies,
            "dpop_signing_alg_values_supported": sorted(jose.ALGS),
        }
        body |= {"tls_client_certificate_bound_access_tokens": True} if self._proxies else {}
        return Answer(200, body | ({"scopes_supported": scopes} if scopes else {}))

    def refuse(self, refusal: Refused) -> Answer:
        """Return the response for a refusal: status, challenge, and a body with the reason and a hint."""
        body: dict[str, Any] = {"error": refusal.code, "message": refusal.message}
        body |= {"hint": refusal.hint} if refusal.hint else {}
        body |= {"approval": refusal.approval} if isinstance(refusal, Denied) and refusal.approval else {}
        headers = [NO_STORE]
        match refusal:
            case KeyUnheard():  # the challenge says that another time would help, and nothing was processed
                challenges = self._challenges("temporarily_unavailable", refusal.message)
                return Answer(503, body, [*headers, (b"retry-after", b"1"), *challenges])
            case Unavailable():
                return Answer(503, body, [*headers, (b"retry-after", b"1")])
            case NonceNeeded():
                headers.append((b"dpop-nonce", refusal.nonce.encode()))
                return Answer(401, body, [*headers, *self._challenges("use_dpop_nonce", refusal.message)])
            case Unauthenticated():
                error = "" if refusal.code == "no_credentials" else refusal.code
                return Answer(401, body, [*headers, *self._challenges(error, refusal.message)])
            case Denied() if refusal.missing_scope:
                challenges = self._challenges("insufficient_scope", refusal.message, scope=refusal.missing_scope)
                return Answer(403, body, [*headers, *challenges])
            case Denied() if (needed := refusal.step_up) is not None:
                max_age = "" if needed.max_age is None else str(needed.max_age)
                challenges = self._challenges(
                    refusal.code, refusal.message, acr_values=needed.acr_values, max_age=max_age
                )
                return Answer(401, body, [*headers, *challenges])
            case LengthRequired():
                return Answer(411, body, headers)
            case Malformed():
                return Answer(400, body, [*headers, *self._challenges("invalid_request", refusal.message)])
            case _:
                return Answer(403, body, headers)

    def _challenges(self, error: str, description: str, **more: str) -> list[tuple[bytes, bytes]]:
        """Return the `WWW-Authenticate` headers: the challenge for DPoP; if some agents may use bearer tokens,
        preceded by the challenge for Bearer, because clients without DPoP read only the first challenge (RFC 6750
        section 3, RFC 9449 section 7.1). A response to a refused proof has only the challenge for DPoP.
        """
        parts = {"error": error, "error_description": description if error else "", **more}
        where = {"resource_metadata": self._metadata_url()}
        challenges = [_challenge("DPoP", parts | {"algs": " ".join(sorted(jose.ALGS))} | where)]
        if self._exempts() and error not in ("use_dpop_nonce", InvalidProof.code):
            challenges.insert(0, _challenge("Bearer", parts | where))
        return challenges

    def _exempts(self) -> bool:
        """Return whether bearer tokens of some agents are accepted."""
        try:
            return bool(self._guard.feed.current().exempt)
        except Unavailable:
            return False

    def _metadata_url(self) -> str:
        try:
            return self._public_origin() + WELL_KNOWN + urlsplit(self._guard.resource.uri).path.rstrip("/")
        except Unavailable:
            return ""

    def _public_origin(self) -> str:
        if self._origin is not None:
            return self._origin
        parts = urlsplit(self._guard.resource.uri)
        return f"{parts.scheme}://{parts.netloc}"


def _end_unclear_request(scope: Scope, send: Send) -> Send:
    """Return an ASGI `send` that closes the connection after the response if the request has a body and offers an
    upgrade of the protocol (RFC 9110 section 7.8).

    uvicorn with httptools ends such a request at its head, and reads the body as the next request. A proxy that shares
    the connection would give the response to that request to another client.
    """
    names = {name for name, _ in scope["headers"]}
    if b"upgrade" not in names or names.isdisjoint((b"content-length", b"transfer-encoding")):
        return send
    return _with_headers(send, [(b"connection", b"close")], replaced=(b"connection",))


def _check_trailer(scope: Scope) -> None:
    """Check that a client cannot have sent the fields that a trusted proxy forwards. Raises LengthRequired otherwise.

    uvicorn with httptools adds the fields of a trailer to the headers (RFC 9110 section 6.5.1 forbids this). A proxy
    that forwards trailers replaces a header of the client, but not a field of the trailer.
    """
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" not in names:
        return
    if CLIENT_CERT in names:
        raise LengthRequired(
            "a request with `Client-Cert` has no `Content-Length`: the field may come from a trailer of the client",
            hint="send `Content-Length`, or let the proxy buffer the body and send its length",
        )
    if names.count(b"x-forwarded-for") > 1:
        raise LengthRequired(
            "a request with two `X-Forwarded-For` has no `Content-Length`: the second may come from a trailer",
            hint="let the proxy send `X-Forwarded-For` once, or buffer requests",
        )


class LengthRequired(Malformed):
    """A request without `Content-Length` has fields that a trusted proxy forwards, and that could come from a trailer
    of the client (RFC 9110 section 15.5.12).
    """

    code = "length_required"


def _with_headers(send: Send, headers: Sequence[tuple[bytes, bytes]], *, replaced: Collection[bytes]) -> Send:
    """Return an ASGI `send` that adds headers to the response, in place of the headers `replaced` of the
    application.
    """

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [one for one in message.get("headers", ()) if one[0].lower() not in replaced]
            message = {**message, "headers": [*others, *headers]}
        await send(message)

    return sending


CREDENTIALS = frozenset((b"authorization", b"dpop", CLIENT_CERT, CLIENT_CERT_CHAIN))
"""Request headers that are removed before the application gets the request."""


def check_origins(origins: Collection[str]) -> Collection[str]:
    """Return the web origins after checking their form: `"*"`, or scheme, host and perhaps port in lower case, such as
    `https://HOST[:PORT]`. Raises Malformed for other text, Invalid for one text instead of a list.
    """
    for origin in check_list("origins", origins):
        try:
            parts = urlsplit(origin)
            is_origin = parts.netloc and origin == f"{parts.scheme}://{parts.netloc}".lower()
        except ValueError:
            is_origin = False
        if origin != "*" and not is_origin:
            raise Malformed(
                f"{origin[:MAX_SHOWN]!a} is not a web origin", hint="write the origin as https://app.example"
            )
    return origins


def let_in(scope: Scope, caller: Verified) -> Scope:
    """Return the ASGI scope for the application: with the verified caller, and without the headers with credentials,
    because the application could reuse a bearer token. The headers of a forwarded certificate (RFC 9440) are removed
    too, because only the guard knows whether their sender is trusted; so is `Client_Cert`, which WSGI and CGI
    applications read as `Client-Cert` (PEP 3333, RFC 3875 section 4.1.18).
    """
    headers = [header for header in scope["headers"] if header[0].lower().replace(b"_", b"-") not in CREDENTIALS]
    return {**scope, "headers": headers, VERIFIED: caller}


class GuardASGI:
    """An ASGI application behind a guard."""

    def __init__(
        self,
        app: App,
        guard: Guard,
        *,
        tool: Mapping[str, str] | Callable[[Scope], Named | None] | None = None,
        origin: str | None = None,
        proxies: str = "",
        origins: Collection[str] = (),
        max_body: int = MAX_BODY,
    ) -> None:
        """Put `app` behind the guard. Raises Conflict for an application without routes, Malformed for an invalid rule.

        `tool`: rules, or a function, that map a request to a tool; by default, each route of the application is a tool.
        `origin`: the public origin, if it differs from the resource's URI. `proxies`: networks of reverse proxies,
        separated by spaces, whose `Client-Cert` and `X-Forwarded-For` are trusted. `origins`: web origins whose scripts
        may call, `"*"` for every origin; without any, the application answers CORS itself. `max_body`: maximum number
        of bytes of a request body.
        """
        self._app, self._guard, self._max_body = app, guard, max_body
        self._door = Door(guard, origin=origin, proxies=proxies, origins=origins)
        self._table: RouteTable | None = None
        self._noted: object = None
        self._takes_websockets = not callable(tool)
        if tool is None:
            from ostiary.routes import RouteTable

            self._table = RouteTable(app)
        self._name = tool if callable(tool) else Rules(tool or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http" or (scope["type"] == "websocket" and self._takes_websockets):
            has_begun = False
            send = self._door.share(scope, _end_unclear_request(scope, send))

            async def sending(message: Message) -> None:
                nonlocal has_begun
                has_begun = True
                await send(message)

            try:
                await self._serve(scope, receive, sending)
            except Refused as refusal:
                if scope["type"] == "websocket":
                    await _refuse_websocket(self._door.refuse(refusal), scope, send, has_begun=has_begun)
                    return
                if has_begun:  # the head is already sent: end the response here; the log has the reason
                    raise
                await self._door.refuse(refusal).send(send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "this server accepts no WebSockets"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (preflight := self._door.answer_preflight(scope)) is not None:
            await preflight.send(send)
            return
        if self._door.is_metadata(scope):
            await self._door.metadata().send(send)
            return
        caller = self._door.authenticate(scope)
        if self._table is None:
            named = self._name({"method": "WEBSOCKET", **scope})
        else:
            named, scope, receive = await self._route(self._table, scope, receive)
        if named is None:
            method = scope.get("method", "WEBSOCKET")
            raise Forbidden(
                f"no tool is mapped to `{method} {scope['path'][:MAX_SHOWN]}`",
                hint="check the method and the path; the owner of the application maps requests to tools",
                code="unknown_tool",
            )
        meter = Meter(send, caller)
        call = await self._guard.decide_async(caller, *named)
        call.check()
        meter.most = call.most_bytes
        meter.remember = partial(self._remember, call, meter) if call.watched is not None else None
        try:
            await meter.serve(self._guard, self._app, let_in(scope, caller), receive)
        except InvalidToken:
            meter.is_cut = True
            raise
        finally:
            call.result(ok=200 <= meter.status < 400 and not meter.is_cut, bytes=meter.bytes)
            self._guard.finish(call)

    async def _route(self, table: RouteTable, scope: Scope, receive: Receive) -> tuple[Named | None, Scope, Receive]:
        """Return the tool that a request calls by the routes of the application, and the scope and `receive` for the
        application. `receive` returns exactly the body on which the guard decides. Raises Malformed for a request that
        the guard and the application could read differently.
        """
        if self._noted != (version := table.version):
            self._guard.listing.store_definitions(table.listing["tools"])
            self._noted = version
        matched = table.find(scope)
        if matched is None:
            return None, scope, receive
        body = b""
        if scope["type"] == "http":
            body, receive = await _read(receive, self._max_body)
        arguments = matched.tool.arguments(scope, matched.path_params, body)
        return (matched.tool.name, arguments), matched.scope, receive

    async def _remember(self, call: Call, meter: Meter, text: str) -> None:
        call.ok = 200 <= meter.status < 400
        await self._guard.observe_async(call, text)


class Meter:
    """An ASGI `send` for the response of an application. The meter counts the bytes and limits their number, adds the
    body to the memory of the task, and adds the next nonce to the headers.
    """

    def __init__(self, send: Send, caller: Verified) -> None:
        self._send, self._caller = send, caller
        self.status, self.bytes = 0, 0
        self.most: int | None = None
        """maximum number of bytes to send; a part beyond this limit is not sent, and the response ends there"""
        self.is_cut = False
        self.remember: Callable[[str], Awaitable[None]] | None = None
        """function that adds the body to the memory of the task before it is sent, up to MAX_REMEMBERED bytes"""
        self.connection: Connection | None = None
        """the connection; no data is sent after it was cut"""
        self._held: list[Message] = []
        self._is_stream = False
        """true for Server-Sent Events and WebSockets, whose parts are sent as they arrive"""

    async def serve(self, guard: Guard, app: App, scope: Scope, receive: Receive) -> None:
        """Run the application, which sends its response through this meter. Raises InvalidToken if the connection was
        cut before the response, FeedStale if the guard's feed is stale.
        """
        async with guard.serving(self._caller) as connection:
            self.connection = connection
            await app(scope, receive, self)
        if not self.status:
            connection.check()

    async def __call__(self, message: Message) -> None:
        if self.connection is not None:
            self.connection.check()
        if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
            self.status = message.get("status", 200)
            self._is_stream = message["type"] == "websocket.accept" or _is_event_stream(message)
            if (nonce := self._caller.next_nonce) is not None:
                headers = [*message.get("headers", ()), (b"dpop-nonce", nonce.encode()), NO_STORE]
                message = {**message, "headers": headers}
        elif message["type"] in BODIES:
            size = len(_content(message))
            if self.is_cut or (self.most is not None and self.bytes + size > self.most):
                self.is_cut = True
                raise Withheld(f"the result has more than {self.most} bytes", hint="request a smaller part")
            self.bytes += size
        if self.remember is not None:
            self._held.append(message)
            is_last = message["type"] in BODIES and not message.get("more_body")
            if self.bytes < MAX_REMEMBERED and not is_last and not self._is_stream:
                return
            await self._let_go(self.remember, goes_on=self._is_stream and self.bytes < MAX_REMEMBERED)
        else:
            await self._send(message)

    async def _let_go(self, remember: Callable[[str], Awaitable[None]], *, goes_on: bool) -> None:
        """Add the held parts of the response to the memory of the task, then send the parts. Raises Withheld, and sends
        nothing, if the memory cannot store the parts.

        `goes_on`: true if the response has further parts, which are added to the memory later.
        """
        messages, self._held = self._held, []
        body = b"".join(_content(message) for message in messages)
        try:
            if body or not goes_on:
                await remember(body.decode("utf-8", "replace"))
        except Withheld:
            self.is_cut = True
            raise
        self.remember = remember if goes_on else None
        for message in messages:
            await self._send(message)


BODIES = frozenset(("http.response.body", "websocket.send", "websocket.http.response.body"))


def _content(message: Message) -> bytes:
    """Return the bytes of a message for the client."""
    text = message.get("text")
    content = message.get("bytes" if message["type"] == "websocket.send" else "body") if text is None else text.encode()
    return content or b""


def _is_event_stream(message: Message) -> bool:
    kinds = [value for name, value in message.get("headers", ()) if name.lower() == b"content-type"]
    return any(kind.lower().startswith(b"text/event-stream") for kind in kinds)


async def _read(receive: Receive, most: int) -> tuple[bytes, Receive]:
    """Read the whole body of a request. Return (body, ASGI `receive` that returns this body again). Raises Malformed
    for more than `most` bytes.
    """
    parts, size, is_complete, gone = list[bytes](), 0, False, None
    while not is_complete:
        message = await receive()
        if message["type"] != "http.request":
            gone = message
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise Malformed(f"the request body is over {most} bytes", hint="send a smaller body", code="body_too_large")
        is_complete = not message.get("more_body")
    body = b"".join(parts)
    replies = [gone] if gone is not None else [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return replies.pop() if replies else await receive()

    return body, again


async def _refuse_websocket(answer: Answer, scope: Scope, send: Send, *, has_begun: bool) -> None:
    """Refuse a WebSocket. Before the connection is open, send `answer` as the HTTP response, if the application's
    server supports such a response. In any other case, close the connection.
    """
    if has_begun or "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "denied"})
        return

    async def sending(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await answer.send(sending)


def _header(scope: Scope, name: bytes, *, twice: type[Refused] = Malformed) -> str | None:
    values: list[bytes] = [value for key, value in scope["headers"] if key == name]
    if len(values) > 1:
        raise twice(f"the header `{name.decode()}` was sent {len(values)} times", hint="send the header once")
    return values[0].decode("latin-1") if values else None


def _address(scope: Scope) -> str:
    """Return the IP address of the connection; empty if it is unknown."""
    return str((scope.get("client") or ("",))[0])


def _path(scope: Scope) -> str:
    """Return the path as the client sent it."""
    raw: bytes | None = scope.get("raw_path")
    return quote(scope["path"]) if raw is None else raw.partition(b"?")[0].decode("latin-1")


def _challenge(scheme: str, parts: Mapping[str, str]) -> tuple[bytes, bytes]:
    quoted = ", ".join(f'{name}="{_quotable(value)}"' for name, value in parts.items() if value)
    return b"www-authenticate", f"{scheme} {quoted}".encode("ascii", "replace")


def _quotable(text: str) -> str:
    return text.replace("\\", "").replace('"', "'")
