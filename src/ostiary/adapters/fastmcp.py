"""FastMCP 4: every request to a server is decided. The caller of an HTTP request is the holder of its token, the caller
over stdio is a configured agent.

    protect(server, guard)                                # then server.run("http") or server.http_app()
    protect(server, guard, stdio=Tools(guard, agent))     # server.run(): the caller is that agent

FastMCP skips its own checks on stdio and for calls from inside its process. Here, a call without a token is accepted
only if the transport is stdio and the argument `stdio` names the agent; any other call without a token is denied.

Two middlewares enclose all others. The first decides, before a cache or a tool of another middleware can answer in the
tool's place. The last passes only decided requests, so that a request that another middleware has changed does not run.
Middleware that is added later, and extensions that get a call after the last middleware, are refused. The decision is
made on the arguments as they were sent, with the defaults of the tool's schema.

A denial is the JSON-RPC error -32001, as in `ostiary.mcp`. With `suspends=True`, clients with this capability are asked
to wait for a person, over both transports. Authentication is the same as in `ostiary.mcp`: DPoP, its challenges, and
the resource's metadata. This authentication also protects custom routes, so a request to a custom route needs a token.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextvars import ContextVar
from typing import Any

import msgspec
from fastmcp import FastMCP
from fastmcp.client.elicitation import ElicitationHandler
from fastmcp.server.auth import AccessToken, AuthProvider
from fastmcp.server.extensions import ServerExtension
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.tools.base import InputRequiredToolResult
from fastmcp.utilities.versions import VersionSpec
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import ErrorData
from pydantic import BaseModel
from starlette import middleware

from ostiary import mcp
from ostiary.agent import AsyncAgent
from ostiary.asgi import VERIFIED, App, Door, Receive, Scope, Send
from ostiary.guard import Guard, Verified, Withheld, data_for_developer, text_for_model
from ostiary.guard.closed import fail_closed
from ostiary.guard.mcp import DENIED, extract_outputs, is_free, map_request
from ostiary.mcp import EVERY_ORIGIN, _Front
from ostiary.protocol.errors import Conflict, Malformed, Refused, Unauthenticated
from ostiary.tools import Running, Tools, fill_defaults, json_argument

_decided: ContextVar[bytes] = ContextVar("ostiary.fastmcp.decided", default=b"")
"""Fingerprint of the request that was decided and may run."""


def protect(
    server: FastMCP[Any],
    guard: Guard,
    *,
    stdio: Tools | None = None,
    origin: str | None = None,
    proxies: str = "",
    origins: Collection[str] = EVERY_ORIGIN,
    suspends: bool = False,
) -> None:
    """Put the guard in front of a server that has all its middleware and extensions. Raises Conflict for a server with
    `auth` settings or an extension that could change a decided call, and for tools of another guard.

    `stdio`: the tools of the agent whose calls come over standard input and output; without `stdio`, these calls are
    denied. `origin`: the public origin, if it differs from that of the resource's URI. `proxies`: networks of reverse
    proxies, separated by spaces, whose `Client-Cert` and `X-Forwarded-For` are trusted. `origins`: web origins whose
    scripts may call; others are refused. `suspends`: true if clients are asked to wait for a person's approval.
    """
    if server.auth is not None:
        raise Conflict("the FastMCP server has an `auth`", hint="leave `auth` out: the guard authenticates callers")
    if stdio is not None and stdio.guard is not guard:
        raise Conflict(
            "`stdio` has the tools of another guard", hint="protect(server, guard, stdio=Tools(guard, caller))"
        )
    first = _First(server, guard, stdio, suspends)
    server.auth = _Doors(guard, Door(guard, origin=origin, proxies=proxies, origins=origins))
    server.middleware[:] = [first, *server.middleware, first.last]
    first.check_order()


def waits(by: AsyncAgent, *, within: float = 600) -> ElicitationHandler[Any]:
    """Return the `elicitation_handler` for a client of this agent. Calls of the client then wait for approvals, each
    at most `within` seconds.
    """
    callback = mcp.waits(by, within=within)

    async def wait(message: str, kind: Any, params: Any, context: Any) -> Any:
        answer = await callback(context, params)
        if isinstance(answer, ErrorData):
            raise Malformed(answer.message)
        return answer

    return wait


class _Doors(AuthProvider):
    """Authentication of FastMCP's HTTP applications: the `Door` of `ostiary.mcp` in place of bearer tokens."""

    def __init__(self, guard: Guard, door: Door) -> None:
        super().__init__()
        self._guard, self._door = guard, door

    def get_middleware(self) -> list[middleware.Middleware]:
        return [
            middleware.Middleware(_Front, guard=self._guard, door=self._door),
            middleware.Middleware(_Bearing),
            middleware.Middleware(AuthContextMiddleware),
        ]

    async def verify_token(self, token: str) -> AccessToken | None:
        """Refuse every token: a token without a proof is not accepted."""
        return None


class _Bearing:
    """Authentication for FastMCP, which expects a bearer token of each authenticated caller. FastMCP gets a
    placeholder, because the guard has removed the headers with the real token and its proof.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [(b"authorization", b"Bearer shown-to-the-guard"), *scope["headers"]]}
        await self._app(scope, receive, send)


class _First(Middleware):
    """The middleware that must stand first: it decides each request and records its outcome."""

    def __init__(self, server: FastMCP[Any], guard: Guard, stdio: Tools | None, suspends: bool) -> None:
        self.last, self._suspends = _Last(), suspends
        self._server, self._guard, self._stdio, self._shown = server, guard, stdio, Tools(guard)

    async def __call__(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        if _is_free(context):
            result = await call_next(context)
            if context.method == "tools/list":
                self._guard.listing.store_definitions([_listed(tool) for tool in result])
            return result
        try:
            with fail_closed():
                running = await self._decide(context)
                token = _decided.set(_fingerprint(context))
        except Refused as refusal:
            if self._suspends and (suspension := _asking(context, refusal)):
                return suspension
            if (request := _http_request(context)) is not None:
                mcp.note_missing(request.scope, refusal)
            raise MCPError(DENIED, text_for_model(refusal), data_for_developer(refusal)) from None
        if (call := _request(context)) is not None and call.params is not None:
            call.params = mcp.without_answer(call.params)
        try:
            with running:
                return await _measured(running, await call_next(context))
        except Withheld as refusal:
            raise MCPError(DENIED, text_for_model(refusal), data_for_developer(refusal)) from None
        finally:
            _decided.reset(token)

    def check_order(self) -> None:
        """Check that no other middleware or extension runs outside the decision. Raises Conflict otherwise."""
        if self._server.middleware[0] is not self or self._server.middleware[-1] is not self.last:
            raise Conflict(
                "middleware was added after the guard", hint="call protect(server, guard) after all `add_middleware`"
            )
        for name, extension in self._server._extensions.items():
            if type(extension).intercept_tool_call is not ServerExtension.intercept_tool_call:
                raise Conflict(
                    f"the extension {name} could change a call after the decision", hint="remove this extension"
                )

    async def _decide(self, context: MiddlewareContext[Any]) -> Running:
        """Decide the call of this context. Raises Refused if the call is denied or cannot be decided."""
        self.check_order()
        tool, arguments = _tool_and_arguments(context)
        if (request := _request(context)) is not None:
            mcp.check_answer(request.params or {})
        if context.method == "tools/call" and (tool_found := await self._server.get_tool(tool, _version(context))):
            arguments = fill_defaults(arguments, tool_found.parameters)
            if not self._guard.listing.knows(tool):  # the caller may have listed the tools of another process
                self._guard.listing.store_definitions([_listed(tool_found)])
        caller = self._identify(context)
        if isinstance(caller, Tools):
            return await caller.admit_async(tool, arguments)
        with self._shown.acting(caller):
            return await self._shown.admit_async(tool, arguments)

    def _identify(self, context: MiddlewareContext[Any]) -> Verified | Tools:
        """Return the verified caller of this request, or the tools of `stdio`. Raises Unauthenticated for a call
        without a valid token.
        """
        session, request = context.fastmcp_context, _http_request(context)
        if request is None and self._stdio is not None and session is not None and session.transport == "stdio":
            return self._stdio
        caller = request.scope.get(VERIFIED) if request is not None else None
        if not isinstance(caller, Verified):
            raise Unauthenticated(
                "the call has no verified token",
                hint="call over HTTP, or name `stdio` in `protect`",
                code="nobody_acts",
            )
        # The token may be for another server, on which this server is mounted.
        if caller.principal.claims.aud != self._guard.resource.uri:
            raise Unauthenticated(
                f"the token is for {caller.principal.claims.aud}, not for this server",
                hint=f"get a token for {self._guard.resource.uri}",
                code="nobody_acts",
            )
        return caller


def _http_request(context: MiddlewareContext[Any]) -> Any:
    """Return the HTTP request of a call; None for a call over stdio, or from inside the process."""
    session = context.fastmcp_context
    return session.request_context.request if session and session.request_context else None


def _request(context: MiddlewareContext[Any]) -> ServerRequestContext[Any, Any] | None:
    """Return the request of a tool call from a client; None for another request, or for a call from inside the
    process.
    """
    session = context.fastmcp_context
    request = session.request_context if session is not None and context.method == "tools/call" else None
    return None if request is None else request._srctx


def _asking(context: MiddlewareContext[Any], refusal: Refused) -> InputRequiredToolResult | None:
    """Return the response that suspends a call until a person approves it; None if the client cannot wait."""
    if (request := _request(context)) is None:
        return None
    able, version = request.session.client_capabilities, request.protocol_version
    suspension = mcp.asking(refusal, version=version, able=able, params=request.params or {})
    return None if suspension is None else InputRequiredToolResult(suspension)


class _Last(Middleware):
    """Middleware that passes only decided requests."""

    async def __call__(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        if not _is_free(context) and _fingerprint(context) != _decided.get():
            raise MCPError(DENIED, "denied: the request was changed after it was decided")
        return await call_next(context)


def _listed(tool: Any) -> dict[str, Any]:
    """Return the definition of a tool as clients receive it."""
    definition: dict[str, Any] = tool.to_mcp_tool(name=tool.name).model_dump(
        by_alias=True, mode="json", exclude_none=True
    )
    return definition


def _is_free(context: MiddlewareContext[Any]) -> bool:
    return context.type == "notification" or is_free(context.method or "", _params(context))


def _tool_and_arguments(context: MiddlewareContext[Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the name of the tool and the arguments of a request."""
    return map_request(context.method or "", _params(context))


def _params(context: MiddlewareContext[Any]) -> Mapping[str, Any]:
    """Return the parameters of a request, parsed by FastMCP or unparsed."""
    params = context.message
    if isinstance(params, BaseModel):
        params = {field.alias or name: getattr(params, name) for name, field in type(params).model_fields.items()}
        params = {name: value for name, value in params.items() if value is not None}
    return params or {}


def _fingerprint(context: MiddlewareContext[Any]) -> bytes:
    """Return a request as JSON bytes, by which a later change of the request is detected. Raises Malformed for a
    request without a JSON form.
    """
    return msgspec.json.encode(
        json_argument([context.method, *_tool_and_arguments(context)], "request"), order="deterministic"
    )


def _version(context: MiddlewareContext[Any]) -> VersionSpec | None:
    """Return the requested version, for servers with several tools of one name: they can have different defaults."""
    meta = getattr(context.message, "meta", None) or {}
    version = meta.get("fastmcp", {}).get("version")
    return None if version is None else VersionSpec(eq=version) if isinstance(version, str) else VersionSpec(**version)


async def _measured(running: Running, result: Any) -> Any:
    """Record the output in a result of FastMCP and its size, and return the result."""
    body = result.model_dump() if isinstance(result, BaseModel) else result
    if isinstance(body, dict):
        structured, content = body.get("structured_content"), body.get("content", body.get("contents", body))
        output, *more = (
            [content] if structured is None else extract_outputs({"structuredContent": structured, "content": content})
        )
        await running.returned_async(output, *more, ok=not body.get("is_error", False))
    return result
