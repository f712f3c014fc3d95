"""A guard in front of an MCP server (MCP 2026-07-28 authorization, with DPoP in place of bearer tokens).

    app = protect(server, guard)          # an ASGI application: `uvicorn module:app`

The SDK hands a token verifier nothing but the token, so the door stands outside of it: it takes `Authorization: DPoP`,
checks the proof, and tells the SDK who it is. Each call of a tool is decided on the arguments in the body (the SDK
refuses a request whose `Mcp-Name` header differs), recorded, and only then run. A denial is the JSON-RPC error -32001
with the reason in words.

The hook is a server middleware, the innermost one: an extension's `intercept_tool_call` can only be given to the
constructor, and would not see the other methods. What each of them is decided as, `ostiary.guard.mcp` says.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from ostiary.asgi import VERIFIED, App, Door, Message, Meter, Receive, Scope, Send
from ostiary.core.errors import Conflict, Refused
from ostiary.guard import Call, Guard, Verified, Withheld, data, words
from ostiary.guard.mcp import DENIED, FREE, named, returned

__all__ = ["DENIED", "FREE", "protect"]

log = logging.getLogger("ostiary.guard")


def protect(server: MCPServer, guard: Guard, *, origin: str | None = None, **options: Any) -> App:
    """The server behind the guard. `origin`: the public one, if it is not that of the resource's URI; `options` are for
    `MCPServer.streamable_http_app`. Raises Conflict for a server that has an authorization of its own.
    """
    if server.settings.auth is not None:
        raise Conflict("the MCP server has `auth` settings", hint="leave them out: the guard takes their place")
    server.middleware.append(_Hook(guard, server))
    return _Front(AuthContextMiddleware(server.streamable_http_app(**options)), guard, Door(guard, origin=origin))


class _Front:
    """The outermost layer: lets in who has shown a token and its proof."""

    def __init__(self, app: App, guard: Guard, door: Door) -> None:
        self._app, self._guard, self._door = app, guard, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # the lifespan; the SDK serves nothing else
            return
        try:
            if self._door.is_metadata(scope):
                await self._door.metadata().send(send)
                return
            who = self._door.authenticate(scope)
        except Refused as refusal:
            await self._refuse(refusal, send)
            return
        seen = {**scope, VERIFIED: who, "user": AuthenticatedUser(_access_token(who))}
        watched = _Watched(send, who, self._guard)
        try:
            async with self._guard.serving(who) as watched.connection:
                await self._app(seen, receive, watched)
        except Refused as refusal:
            if watched.status:
                raise  # the answer has begun, and breaks off
            await self._refuse(refusal, send)

    async def _refuse(self, refusal: Refused, send: Send) -> None:
        answer = self._door.refuse(refusal)
        error = {"code": DENIED, "message": words(refusal), "data": data(refusal)}
        answer.body = {"jsonrpc": "2.0", "id": None, "error": error}  # clients show what is in here
        await answer.send(send)


class _Watched(Meter):
    """Ends a stream whose token has died."""

    def __init__(self, send: Send, who: Verified, guard: Guard) -> None:
        super().__init__(send, who)
        self._guard = guard

    async def __call__(self, message: Message) -> None:
        if self.bytes:
            self._guard.check_alive(self._who)
        await super().__call__(message)


class _Hook:
    """Decides each request inside of the SDK."""

    def __init__(self, guard: Guard, server: MCPServer) -> None:
        self._guard, self._server = guard, server

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method in FREE or ctx.request_id is None:  # without an id it is a notification, which does nothing
            result = await call_next(ctx)
            if ctx.method == "tools/list":
                self._guard.listing.note(_said(result).get("tools"))
            return result
        call = await self._decide(ctx)
        call.ok = False
        try:
            result = await call_next(ctx)
            try:
                body = result if isinstance(result, dict) else {} if result is None else result.model_dump(mode="json")
                _measure(call, body)
                await self._guard.observe_async(call, returned(body))
            except Withheld as refusal:
                raise MCPError(DENIED, words(refusal), data(refusal)) from None
            return result
        finally:
            self._guard.finish(call)

    async def _decide(self, ctx: ServerRequestContext[Any, Any]) -> Call:
        """A call that is allowed and recorded. Raises MCPError, whatever goes wrong."""
        try:
            who = ctx.request.scope[VERIFIED] if ctx.request is not None else None
            if not isinstance(who, Verified):
                raise MCPError(DENIED, "nobody has shown who is calling")
            tool, arguments = named(ctx.method, ctx.params or {})
            if ctx.method == "tools/call" and not self._guard.listing.knows(tool):  # who calls may have asked another
                self._guard.listing.note([_said(one) for one in await self._server.list_tools()])
            call = await self._guard.decide_async(who, tool, arguments)
            call.check()
            return call
        except Refused as refusal:
            raise MCPError(DENIED, words(refusal), data(refusal)) from None
        except MCPError:
            raise
        except Exception as error:
            log.exception("the guard failed, and refuses")
            raise MCPError(DENIED, "the guard failed, and refuses") from error


def _said(model: Any) -> dict[str, Any]:
    """As it goes out."""
    return model if isinstance(model, dict) else model.model_dump(by_alias=True, mode="json", exclude_none=True)


def _measure(call: Call, body: dict[str, Any]) -> None:
    """How much came out: bytes of JSON, and records, where the result has a list of them."""
    structured, content = body.get("structuredContent"), body.get("content", body.get("contents"))
    if isinstance(structured, dict) and len(structured) == 1:
        structured = next(iter(structured.values()))  # the SDK wraps what is no object into {"result": ..}
    records = next((len(part) for part in (structured, content) if isinstance(part, list)), None)
    call.result(ok=not body.get("isError", False), bytes=len(msgspec.json.encode(body)), records=records)


def _access_token(who: Verified) -> AccessToken:
    """What the SDK knows of the caller: `get_access_token()` gives it to tools. The token itself stays out."""
    claims = who.principal.claims
    return AccessToken(
        token="",
        client_id=claims.client_id,
        scopes=sorted(who.principal.scopes),
        expires_at=claims.exp,
        resource=claims.aud,
        subject=claims.sub,
        claims=msgspec.to_builtins(claims),
    )
