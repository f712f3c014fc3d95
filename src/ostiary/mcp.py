"""A guard in front of an MCP server (MCP 2026-07-28 authorization, with DPoP in place of bearer tokens).

    app = protect(server, guard)          # an ASGI application: `uvicorn module:app`

The MCP SDK passes only the token to its token verifier. Therefore authentication is a layer outside of the SDK, which
accepts `Authorization: DPoP`, checks the proof, and gives the caller to the SDK. Each call of a tool is decided on the
arguments in the body (the SDK refuses a request whose `Mcp-Name` header differs), then recorded, then run. A denial is
the JSON-RPC error -32001 with the reason in words.

The decision is made in the innermost server middleware. The hook `intercept_tool_call` of an extension is not used,
because it can only be given to the constructor, and does not see other methods. `ostiary.guard.mcp` maps each method
to a tool.

With `suspends=True`, a call that a person must approve ends with an `input_required` result (MCP 2026-07-28, multi
round-trip requests), if the client has the capability `elicitation` in form mode. The client repeats the call after a
person has answered. A client of an Ostiary agent does this automatically (`waits`), or keeps the result until the
answer, and continues, in another process too:

    first = await client.session.call_tool("pay", arguments, allow_input_required=True)
    responses = await answered(first, asker)                             # an `AsyncAgent`; waits for the people
    await client.session.call_tool("pay", arguments, input_responses=responses)

The call is decided again by the approval at the Ostiary server; the client's answer allows nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
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
from ostiary.guard import Call, Denied, Guard, Verified, Withheld, data_for_developer, text_for_model
from ostiary.guard.closed import fail_closed
from ostiary.guard.mcp import DENIED, FREE, extract_outputs, is_free, map_request
from ostiary.protocol.errors import Conflict, Forbidden, Refused, Unauthenticated

__all__ = ["DENIED", "FREE", "answered", "protect", "waits"]

APPROVAL = re.compile(r"ap_[0-9a-f]{32}")
"""key of a request to wait: the id of the approval, which every client returns unchanged"""

MISSING = "ostiary.missing"
"""key of the ASGI scope for denials whose response is a challenge"""
NOTHING = {"type": "object", "properties": {}}
"""schema of the requested input: an empty form"""
WAITED = ElicitResult(action="accept", content={})
EVERY_ORIGIN = ("*",)
"""Scripts of every web origin may call by default: the server accepts only tokens, and no cookies."""


def protect(
    server: MCPServer,
    guard: Guard,
    *,
    origin: str | None = None,
    proxies: str = "",
    origins: Collection[str] = EVERY_ORIGIN,
    suspends: bool = False,
    **options: Any,
) -> App:
    """Return the ASGI application of an MCP server behind the guard. Raises Conflict for a server with `auth` settings,
    Malformed for malformed `origins`.

    `origin`: the public origin, if it differs from the resource's URI. `proxies`: networks of reverse proxies,
    separated by spaces, whose `Client-Cert` and `X-Forwarded-For` are trusted. `origins`: web origins whose scripts may
    call; others are refused. `suspends`: true if clients are asked to wait for a person's approval. `options`:
    arguments of `MCPServer.streamable_http_app`, which by default serves only `localhost` and scripts of `localhost`.
    """
    if server.settings.auth is not None:
        raise Conflict("the MCP server has `auth` settings", hint="leave `auth` out: the guard authenticates callers")
    server.middleware.append(_Hook(guard, server, suspends))
    door = Door(guard, origin=origin, proxies=proxies, origins=origins)
    return _Front(AuthContextMiddleware(server.streamable_http_app(**options)), guard, door)


async def answered(required: InputRequiredResult, by: AsyncAgent, *, within: float = 600) -> InputResponses:
    """Wait until a person has answered each approval, at most `within` seconds; return the responses with which the
    client repeats its call. Other requests of the server get no response. Raises ServerRefused if the server refuses
    the question about an approval, Unavailable if the server does not answer.
    """
    approvals = [key for key in required.input_requests or () if APPROVAL.fullmatch(key)]
    await asyncio.gather(*(by.ask(approval, within=within) for approval in approvals))
    return dict.fromkeys(approvals, WAITED)


def waits(by: AsyncAgent, *, within: float = 600) -> ElicitationFnT:
    """Return the `elicitation_callback` for a client of this agent. Calls of the client then wait for
    approvals, each at most `within` seconds.
    """

    async def wait(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        if not APPROVAL.fullmatch(approval := str(context.request_id)):
            return ErrorData(code=INVALID_REQUEST, message="only requests to wait for an approval are answered")
        await by.ask(approval, within=within)
        return WAITED

    return wait


def asking(
    refusal: Refused, *, version: str, able: ClientCapabilities | None, params: Mapping[str, Any]
) -> InputRequiredResult | None:
    """Return the result that suspends a call while a person is asked; None if the refusal requested no approval, or
    if the client cannot wait or has already waited.
    """
    elicitation = able.elicitation if able is not None else None
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return None  # the client does not support form mode, which a capability without modes includes
    if version not in MODERN_PROTOCOL_VERSIONS or not (isinstance(refusal, Denied) and refusal.approval):
        return None
    if answer_of(params) is not None:
        return None
    request = ElicitRequest(params=ElicitRequestFormParams(message=text_for_model(refusal), requested_schema=NOTHING))
    return InputRequiredResult(input_requests={refusal.approval: request})


def answer_of(params: Mapping[str, Any]) -> str | None:
    """Return the action of the client's response to a request to wait; None without such a response."""
    answers = params.get("inputResponses")
    for key, one in answers.items() if isinstance(answers, Mapping) else ():
        if APPROVAL.fullmatch(key):
            return str(one.get("action")) if isinstance(one, Mapping) else "cancel"
    return None


def check_answer(params: Mapping[str, Any]) -> None:
    """Check that the client accepted the request to wait, if it responded. Raises Forbidden otherwise."""
    if answer_of(params) not in (None, "accept"):
        raise Forbidden(
            "the client declined to wait for a person's approval, so the call did not run",
            hint="repeat the call after the approval",
            code="approval_needed",
        )


def without_answer(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters without the response to the guard's request to wait. Responses to requests of the
    tool stay.
    """
    others = {name: one for name, one in (params.get("inputResponses") or {}).items() if not APPROVAL.fullmatch(name)}
    rest = {name: value for name, value in params.items() if name != "inputResponses"}
    return rest | ({"inputResponses": others} if others else {})


class _Front:
    """The outermost layer: passes requests with a valid token and proof."""

    def __init__(self, app: App, guard: Guard, door: Door) -> None:
        self._app, self._guard, self._door = app, guard, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)  # only `lifespan`: the SDK has no other kinds of scopes
            return
        send = self._door.share(scope, send)
        try:
            if (preflight := self._door.answer_preflight(scope)) is not None:
                await preflight.send(send)
                return
            if self._door.is_metadata(scope):
                await self._door.metadata().send(send)
                return
            caller = self._door.authenticate(scope)
        except Refused as refusal:
            await self._refuse(refusal, send)
            return
        missing: list[Denied] = []
        caller_scope = {**let_in(scope, caller), "user": AuthenticatedUser(_access_token(caller)), MISSING: missing}
        challenging = _Challenging(send, self._door, missing) if scope["method"] == "POST" else send
        watched = _Watched(challenging, caller, self._guard)
        try:
            await watched.serve(self._guard, self._app, caller_scope, receive)
        except Refused as refusal:
            if watched.status:
                raise  # the response has begun, and ends here
            await self._refuse(refusal, send)

    async def _refuse(self, refusal: Refused, send: Send) -> None:
        answer = self._door.refuse(refusal)
        error = {"code": DENIED, "message": text_for_model(refusal), "data": data_for_developer(refusal)}
        answer.body = {"jsonrpc": "2.0", "id": None, "error": error}  # clients display this text
        await answer.send(send)


class _Challenging:
    """An ASGI `send` that replaces the response by a challenge, 403 `insufficient_scope`, if the call lacked a scope.

    A stream of events starts before its call is decided. Therefore the start of a response is held back until the first
    content.
    """

    def __init__(self, send: Send, door: Door, missing: list[Denied]) -> None:
        self._send, self._door, self._missing = send, door, missing
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._start is not None:
            if message.get("more_body") and not message.get("body"):
                return
            start, self._start = self._start, None
            if self._missing:
                answer = self._door.refuse(self._missing[0])
                start = {**start, "status": answer.status, "headers": [*start["headers"], *answer.headers]}
            await self._send(start)
        await self._send(message)


class _Watched(Meter):
    """An ASGI `send` that ends a response as soon as the token of the request is no longer valid."""

    def __init__(self, send: Send, caller: Verified, guard: Guard) -> None:
        super().__init__(send, caller)
        self._guard = guard

    async def __call__(self, message: Message) -> None:
        if self.bytes:
            self._guard.check_alive(self._caller)
        await super().__call__(message)


class _Hook:
    """Middleware of the MCP SDK that decides each request."""

    def __init__(self, guard: Guard, server: MCPServer, suspends: bool) -> None:
        self._guard, self._server, self._suspends = guard, server, suspends

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        # a notification has no effect and needs no decision
        if is_free(ctx.method, ctx.params) or ctx.request_id is None:
            result = await call_next(ctx)
            if ctx.method == "tools/list":
                self._guard.listing.store_definitions(_as_sent(result).get("tools"))
            return result
        self._check_served(ctx)
        params = ctx.params or {}
        try:
            with fail_closed():
                caller = _caller(ctx)
                if ctx.method == "tools/call" and not await self._has_tool(params):
                    return _unknown_tool(str(params["name"]), ctx.protocol_version)
                call = await self._decide(caller, ctx.method, params)
        except Refused as refusal:
            able = ctx.session.client_capabilities
            if self._suspends and (
                suspension := asking(refusal, version=ctx.protocol_version, able=able, params=params)
            ):
                return suspension
            note_missing({} if ctx.request is None else ctx.request.scope, refusal)
            raise MCPError(DENIED, text_for_model(refusal), data_for_developer(refusal)) from None
        call.ok = False
        if answer_of(params) is not None:
            ctx = replace(ctx, params=without_answer(params))
        try:
            try:
                result = await call_next(ctx)
            except MCPError as error:  # the message of the error reaches the agent like a result
                await self._guard.observe_async(call, [error.error.message, error.error.data])
                raise
            body = result if isinstance(result, dict) else {} if result is None else result.model_dump(mode="json")
            _measure(call, body)
            for output in extract_outputs(body):
                await self._guard.observe_async(call, output)
            return result
        except Withheld as refusal:
            raise MCPError(DENIED, text_for_model(refusal), data_for_developer(refusal)) from None
        finally:
            self._guard.finish(call)

    def _check_served(self, ctx: ServerRequestContext[Any, Any]) -> None:
        """Check that the server has the method in this version of MCP, and that the parameters are valid.

        Raises MCPError, ValidationError, as the SDK would raise them after the decision; the SDK maps each to the HTTP
        status of the negotiated version. No decision is recorded, and no code of the tool runs.
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
        """Return whether the catalogue or the server has the called tool. Raises Unavailable if the guard has no
        present facts of the feed.
        """
        name, _ = map_request("tools/call", params)
        if name in self._guard.feed.current().facts.resource.tools:
            return True
        return any(tool.name == params["name"] for tool in await self._server.list_tools())

    async def _decide(self, caller: Verified, method: str, params: Mapping[str, Any]) -> Call:
        """Decide and record a call. Raises Refused if the call is not allowed."""
        tool, arguments = map_request(method, params)
        if method == "tools/call":
            check_answer(params)
            if not self._guard.listing.knows(tool):  # the caller may have listed the tools of another process
                self._guard.listing.store_definitions([_as_sent(one) for one in await self._server.list_tools()])
        call = await self._guard.decide_async(caller, tool, arguments)
        call.check()
        return call


def _caller(ctx: ServerRequestContext[Any, Any]) -> Verified:
    """Return the verified caller of this request. Raises Unauthenticated for a call without a verified token."""
    caller = ctx.request.scope[VERIFIED] if ctx.request is not None else None
    if not isinstance(caller, Verified):
        raise Unauthenticated(
            "the call has no verified token", hint="serve the application that `protect` returns", code="nobody_acts"
        )
    return caller


def note_missing(scope: Mapping[str, Any], refusal: Refused) -> None:
    """Store the missing scope of a denied call in `scope`, the ASGI scope of the request, if the client registered
    itself. The response is then a challenge.

    Such a client requests the missing scope, and its person consents (MCP 2026-07-28, step-up authorization). Other
    clients get only the message.
    """
    caller, missing = scope.get(VERIFIED), scope.get(MISSING)
    is_self_registered = isinstance(caller, Verified) and caller.principal.claims.registration != ""
    if missing is not None and is_self_registered and isinstance(refusal, Denied) and refusal.missing_scope:
        missing.append(refusal)


def _unknown_tool(name: str, version: str) -> HandlerResult:
    """Return the result of the SDK for an unknown tool. No tool runs, so no decision is recorded."""
    result = CallToolResult(content=[TextContent(type="text", text=f"Unknown tool: {name}")], is_error=True)
    return serialize_server_result("tools/call", version, _as_sent(result))


def _as_sent(model: Any) -> dict[str, Any]:
    """Return a result in the form that clients receive."""
    return model if isinstance(model, dict) else model.model_dump(by_alias=True, mode="json", exclude_none=True)


def _measure(call: Call, body: dict[str, Any]) -> None:
    """Record the size of a result: the number of bytes of its JSON, and, if the result is a list, the number of
    elements as its number of records.
    """
    structured, content = body.get("structuredContent"), body.get("content", body.get("contents"))
    if isinstance(structured, dict) and len(structured) == 1:
        structured = next(iter(structured.values()))  # the SDK wraps a value that is no object into {"result": ..}
    records = next((len(part) for part in (structured, content) if isinstance(part, list)), None)
    call.result(ok=not body.get("isError", False), bytes=len(msgspec.json.encode(body)), records=records)


def _access_token(caller: Verified) -> AccessToken:
    """Return the SDK's description of the caller, for `get_access_token()` in tools. The description does not
    contain the token.
    """
    claims = caller.principal.claims
    return AccessToken(
        token="",
        client_id=claims.client_id,
        scopes=sorted(caller.principal.scopes),
        expires_at=claims.exp,
        resource=claims.aud,
        subject=claims.sub,
        claims=msgspec.to_builtins(claims),
    )
