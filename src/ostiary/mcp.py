"""A guard in front of an MCP server (MCP 2026-07-28 authorization, with DPoP in place of bearer tokens).

    app = protect(server, guard)          # an ASGI application: `uvicorn module:app`

The SDK hands a token verifier nothing but the token, so the door stands outside of it: it takes `Authorization: DPoP`,
checks the proof, and tells the SDK who it is. Each call of a tool is decided on the arguments in the body (the SDK
refuses a request whose `Mcp-Name` header differs), recorded, and only then run. A denial is the JSON-RPC error -32001
with the reason in words.

The hook is a server middleware, the innermost one: an extension's `intercept_tool_call` can only be given to the
constructor, and would not see the other methods. What each of them is decided as, `ostiary.guard.mcp` says.

With `suspends=True` a call of a tool that a person must say yes to ends with an `input_required` result (MCP
2026-07-28, multi round-trip requests) for clients that can be asked (capability `elicitation`, in form mode): they make
it again, once somebody has answered. An agent of ours does so by itself (`waits`), or keeps the result for as long as
it takes and goes on, in another process too:

    first = await client.session.call_tool("pay", arguments, allow_input_required=True)
    responses = await answered(first, asker)                             # an `AsyncAgent`; waits for the people
    await client.session.call_tool("pay", arguments, input_responses=responses)

The call is decided again, and the server has the last word: what the client answers lets nothing pass.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
from mcp.client.session import ClientRequestContext, ElicitationFnT
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    CallToolResult,
    ClientCapabilities,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    InputRequiredResult,
    InputResponses,
    TextContent,
)
from mcp_types.methods import SPEC_CLIENT_METHODS, serialize_server_result, validate_client_request
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from ostiary.agent import AsyncAgent
from ostiary.asgi import VERIFIED, App, Door, Message, Meter, Receive, Scope, Send, let_in
from ostiary.guard import Call, Denied, Guard, Verified, Withheld, data, words
from ostiary.guard.mcp import DENIED, FREE, is_free, named, returned
from ostiary.protocol.errors import Conflict, Forbidden, Refused, Unauthenticated
from ostiary.tools import closed

__all__ = ["DENIED", "FREE", "answered", "protect", "waits"]

APPROVAL = re.compile(r"ap_[0-9a-f]{32}")
"""The key of a request to wait is the id of the approval: all that a client is sure to see of it but its words."""

NOTHING = {"type": "object", "properties": {}}
"""What is to be filled in."""
WAITED = ElicitResult(action="accept", content={})


def protect(
    server: MCPServer, guard: Guard, *, origin: str | None = None, suspends: bool = False, **options: Any
) -> App:
    """The server behind the guard. `origin`: the public one, if it is not that of the resource's URI; `options` are for
    `MCPServer.streamable_http_app`. `suspends`: whether clients are asked to wait where a person must say yes. Raises
    Conflict for a server that has an authorization of its own.
    """
    if server.settings.auth is not None:
        raise Conflict("the MCP server has `auth` settings", hint="leave them out: the guard takes their place")
    server.middleware.append(_Hook(guard, server, suspends))
    return _Front(AuthContextMiddleware(server.streamable_http_app(**options)), guard, Door(guard, origin=origin))


async def answered(required: InputRequiredResult, by: AsyncAgent, *, within: float = 600) -> InputResponses:
    """What a call is made again with, once a person has answered, or the time is over; what else it asks for is not
    answered. Raises ServerRefused, Unavailable.
    """
    asked = [key for key in required.input_requests or () if APPROVAL.fullmatch(key)]
    await asyncio.gather(*(by.ask(approval, within=within) for approval in asked))
    return dict.fromkeys(asked, WAITED)


def waits(by: AsyncAgent, *, within: float = 600) -> ElicitationFnT:
    """The `elicitation_callback` of a client of this agent, whose calls then wait for the people who are asked."""

    async def wait(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        if not APPROVAL.fullmatch(approval := str(context.request_id)):
            return ErrorData(code=INVALID_REQUEST, message="nothing else is answered here")
        await by.ask(approval, within=within)
        return WAITED

    return wait


def asking(
    refusal: Refused, *, version: str, able: ClientCapabilities | None, params: Mapping[str, Any]
) -> InputRequiredResult | None:
    """What a client gets in place of a denial, if a person is asked and it can wait for them, and has not yet."""
    elicitation = able.elicitation if able is not None else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return None  # it has no forms; a capability without modes is one that has
    if version not in MODERN_PROTOCOL_VERSIONS or not (isinstance(refusal, Denied) and refusal.approval):
        return None
    if answer_of(params) is not None:
        return None
    request = ElicitRequest(params=ElicitRequestFormParams(message=words(refusal), requested_schema=NOTHING))
    return InputRequiredResult(input_requests={refusal.approval: request})


def answer_of(params: Mapping[str, Any]) -> str | None:
    """What a client says that was asked to wait; None: it says nothing of it."""
    answers = params.get("inputResponses")
    for key, one in answers.items() if isinstance(answers, Mapping) else ():
        if APPROVAL.fullmatch(key):
            return str(one.get("action")) if isinstance(one, Mapping) else "cancel"
    return None


def check_answer(params: Mapping[str, Any]) -> None:
    """Raises Forbidden where the client did not want to wait."""
    if answer_of(params) not in (None, "accept"):
        raise Forbidden("the client did not wait for the person who is asked", code="approval_needed")


def without_answer(params: Mapping[str, Any]) -> dict[str, Any]:
    """What a tool sees, which may ask its client for other things: not what was answered to us."""
    others = {name: one for name, one in (params.get("inputResponses") or {}).items() if not APPROVAL.fullmatch(name)}
    rest = {name: value for name, value in params.items() if name != "inputResponses"}
    return rest | ({"inputResponses": others} if others else {})


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
        seen = {**let_in(scope, who), "user": AuthenticatedUser(_access_token(who))}
        watched = _Watched(send, who, self._guard)
        try:
            await watched.serve(self._guard, self._app, seen, receive)
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

    def __init__(self, guard: Guard, server: MCPServer, suspends: bool) -> None:
        self._guard, self._server, self._suspends = guard, server, suspends

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if is_free(ctx.method, ctx.params) or ctx.request_id is None:  # a notification does nothing
            result = await call_next(ctx)
            if ctx.method == "tools/list":
                self._guard.listing.note(_said(result).get("tools"))
            return result
        self._check_served(ctx)
        params = ctx.params or {}
        try:
            with closed():
                who = _caller(ctx)
                if ctx.method == "tools/call" and not await self._has_tool(params):
                    return _unknown_tool(str(params["name"]), ctx.protocol_version)
                call = await self._decide(who, ctx.method, params)
        except Refused as refusal:
            able = ctx.session.client_capabilities
            if self._suspends and (asked := asking(refusal, version=ctx.protocol_version, able=able, params=params)):
                return asked
            raise MCPError(DENIED, words(refusal), data(refusal)) from None
        call.ok = False
        if answer_of(params) is not None:
            ctx = replace(ctx, params=without_answer(params))
        try:
            try:
                result = await call_next(ctx)
            except MCPError as error:  # its words reach the agent like a result
                await self._guard.observe_async(call, [error.error.message, error.error.data])
                raise
            body = result if isinstance(result, dict) else {} if result is None else result.model_dump(mode="json")
            _measure(call, body)
            await self._guard.observe_async(call, returned(body))
            return result
        except Withheld as refusal:
            raise MCPError(DENIED, words(refusal), data(refusal)) from None
        finally:
            self._guard.finish(call)

    def _check_served(self, ctx: ServerRequestContext[Any, Any]) -> None:
        """Check that the server has the method in this version of MCP, and that the parameters fit it.

        Raises MCPError, ValidationError, as the SDK would after the decision; the SDK gives each the HTTP status of the
        negotiated version. Nothing is decided and nothing runs.
        """
        missing = MCPError(METHOD_NOT_FOUND, "Method not found", ctx.method)
        if ctx.method in SPEC_CLIENT_METHODS:
            try:
                validate_client_request(ctx.method, ctx.protocol_version, ctx.params)
            except KeyError:
                raise missing from None
        if self._server.session_manager.app.get_request_handler(ctx.method) is None:
            raise missing

    async def _has_tool(self, params: Mapping[str, Any]) -> bool:
        """Return whether the catalogue or the server has the tool that is called. Raises Unavailable."""
        name, _ = named("tools/call", params)
        if name in self._guard.feed.current().facts.resource.tools:
            return True
        return any(tool.name == params["name"] for tool in await self._server.list_tools())

    async def _decide(self, who: Verified, method: str, params: Mapping[str, Any]) -> Call:
        """A call that is allowed and recorded. Raises Refused."""
        tool, arguments = named(method, params)
        if method == "tools/call":
            check_answer(params)
            if not self._guard.listing.knows(tool):  # who calls may have asked another
                self._guard.listing.note([_said(one) for one in await self._server.list_tools()])
        call = await self._guard.decide_async(who, tool, arguments)
        call.check()
        return call


def _caller(ctx: ServerRequestContext[Any, Any]) -> Verified:
    """Who has shown a token with this very request. Raises Unauthenticated."""
    who = ctx.request.scope[VERIFIED] if ctx.request is not None else None
    if not isinstance(who, Verified):
        raise Unauthenticated("no authenticated caller", code="nobody_acts")
    return who


def _unknown_tool(name: str, version: str) -> HandlerResult:
    """The answer of the SDK where a server has no such tool. Nothing runs, so nothing is decided or on record."""
    result = CallToolResult(content=[TextContent(type="text", text=f"Unknown tool: {name}")], is_error=True)
    return serialize_server_result("tools/call", version, _said(result))


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
