"""FastMCP 4: every request to a server is decided, over HTTP by the token that came with it, over stdio as an agent.

    protect(server, guard)                                # then server.run("http") or server.http_app()
    protect(server, guard, stdio=Tools(guard, agent))     # server.run(): whoever started it is that agent

FastMCP skips its own checks on stdio, and so does whoever calls the server from inside of its process. Here, who has
not shown a token is somebody only where the transport is stdio and `stdio` says who; everybody else is denied.

Two middlewares stand around all others. The first decides, before anything answers in the tool's place (a cache, a tool
that middleware brings). The last lets nothing through but what was decided, so that arguments that another middleware
has changed run nowhere. Middleware that is added later, and extensions that get a call after the last, are refused.
The decision is made on the arguments as they were sent, with the defaults of the tool's schema.

A denial is the JSON-RPC error -32001, as `ostiary.mcp` has it; with `suspends=True` a client that can be asked to wait
for a person is, as there, over both transports. The door is the one of `ostiary.mcp`, too: DPoP, its
challenges, the resource's metadata. It stands in front of custom routes as well, which then need a token like all else.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from starlette.middleware import Middleware as Layer

from ostiary import mcp
from ostiary.agent import AsyncAgent
from ostiary.asgi import VERIFIED, App, Door, Receive, Scope, Send
from ostiary.guard import Guard, Verified, Withheld, data, words
from ostiary.guard.mcp import DENIED, is_free, named
from ostiary.mcp import _Front
from ostiary.protocol.errors import Conflict, Malformed, Refused, Unauthenticated
from ostiary.tools import Running, Tools, closed, filled, plain

_decided: ContextVar[bytes] = ContextVar("ostiary.fastmcp.decided", default=b"")
"""The request that was decided, and runs."""


def protect(
    server: FastMCP[Any], guard: Guard, *, stdio: Tools | None = None, origin: str | None = None, suspends: bool = False
) -> None:
    """Put the guard in front of a server that has all its middleware and extensions. Raises Conflict.

    `stdio`: whose calls those over standard input and output are. `origin`: the public one, if it is not that of the
    resource's URI. `suspends`: whether clients are asked to wait where a person must say yes.
    """
    if server.auth is not None:
        raise Conflict("the FastMCP server has an `auth`", hint="leave it out: the guard takes its place")
    if stdio is not None and stdio.guard is not guard:
        raise Conflict("the tools for stdio stand behind another guard")
    first = _First(server, guard, stdio, suspends)
    server.auth = _Doors(guard, origin)
    server.middleware[:] = [first, *server.middleware, first.last]
    first.check_order()


def waits(by: AsyncAgent, *, within: float = 600) -> ElicitationHandler[Any]:
    """The `elicitation_handler` of a client of this agent, whose calls then wait for the people who are asked."""
    callback = mcp.waits(by, within=within)

    async def wait(message: str, kind: Any, params: Any, context: Any) -> Any:
        answer = await callback(context, params)
        if isinstance(answer, ErrorData):
            raise Malformed(answer.message)
        return answer

    return wait


class _Doors(AuthProvider):
    """What FastMCP builds its HTTP applications with: the door of `ostiary.mcp` in place of bearer tokens."""

    def __init__(self, guard: Guard, origin: str | None) -> None:
        super().__init__()
        self._guard, self._door = guard, Door(guard, origin=origin)

    def get_middleware(self) -> list[Layer]:
        return [Layer(_Front, guard=self._guard, door=self._door), Layer(_Bearing), Layer(AuthContextMiddleware)]

    async def verify_token(self, token: str) -> AccessToken | None:
        """Nobody gets in by a token alone."""
        return None


class _Bearing:
    """FastMCP wants to see a bearer token of whom the door has let in. The real one stays out of the tools' reach."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            others = [header for header in scope["headers"] if header[0] not in (b"authorization", b"dpop")]
            scope = {**scope, "headers": [(b"authorization", b"Bearer shown-to-the-guard"), *others]}
        await self._app(scope, receive, send)


class _First(Middleware):
    """Decides each request, and says how it went."""

    def __init__(self, server: FastMCP[Any], guard: Guard, stdio: Tools | None, suspends: bool) -> None:
        self.last, self._suspends = _Last(), suspends
        self._server, self._guard, self._stdio, self._shown = server, guard, stdio, Tools(guard)

    async def __call__(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        if _is_free(context):
            result = await call_next(context)
            if context.method == "tools/list":
                self._guard.listing.note([_listed(tool) for tool in result])
            return result
        try:
            with closed():
                running = await self._decide(context)
                token = _decided.set(_asked(context))
        except Refused as refusal:
            if self._suspends and (asked := _asking(context, refusal)):
                return asked
            raise MCPError(DENIED, words(refusal), data(refusal)) from None
        if (request := _request(context)) is not None and request.params is not None:
            request.params = mcp.without_answer(request.params)
        try:
            with running:
                return await _measured(running, await call_next(context))
        except Withheld as refusal:
            raise MCPError(DENIED, words(refusal), data(refusal)) from None
        finally:
            _decided.reset(token)

    def check_order(self) -> None:
        """Raises Conflict if something comes where nobody decides."""
        if self._server.middleware[0] is not self or self._server.middleware[-1] is not self.last:
            raise Conflict("middleware came after the guard", hint="protect(server, guard) once all of it is there")
        for name, extension in self._server._extensions.items():
            if type(extension).intercept_tool_call is not ServerExtension.intercept_tool_call:
                raise Conflict(f"the extension {name} could change a call that is decided", hint="leave it out")

    async def _decide(self, context: MiddlewareContext[Any]) -> Running:
        """Raises Refused."""
        self.check_order()
        tool, arguments = _named(context)
        if (request := _request(context)) is not None:
            mcp.check_answer(request.params or {})
        if context.method == "tools/call" and (found := await self._server.get_tool(tool, _version(context))):
            arguments = filled(arguments, found.parameters)
            if not self._guard.listing.knows(tool):  # who calls may have asked another
                self._guard.listing.note([_listed(found)])
        who = self._who(context)
        if isinstance(who, Tools):
            return await who.admit_async(tool, arguments)
        with self._shown.acting(who):
            return await self._shown.admit_async(tool, arguments)

    def _who(self, context: MiddlewareContext[Any]) -> Verified | Tools:
        """Who has shown a token with this very request, or whoever `stdio` is. Raises Unauthenticated."""
        session = context.fastmcp_context
        request = session.request_context.request if session and session.request_context else None
        if request is None and self._stdio is not None and session is not None and session.transport == "stdio":
            return self._stdio
        who = request.scope.get(VERIFIED) if request is not None else None
        if not isinstance(who, Verified):
            raise Unauthenticated("no authenticated caller", code="nobody_acts")
        if who.principal.claims.aud != self._guard.resource.uri:  # of a server that this one is mounted on
            raise Unauthenticated("the token was shown to another guard", code="nobody_acts")
        return who


def _request(context: MiddlewareContext[Any]) -> ServerRequestContext[Any, Any] | None:
    """A call of a tool as it came over the wire; None: it is something else, or came from inside of the process."""
    session = context.fastmcp_context
    request = session.request_context if session is not None and context.method == "tools/call" else None
    return None if request is None else request._srctx


def _asking(context: MiddlewareContext[Any], refusal: Refused) -> InputRequiredToolResult | None:
    """What a client gets in place of a denial that can wait for a person."""
    if (request := _request(context)) is None:
        return None
    able, version = request.session.client_capabilities, request.protocol_version
    asked = mcp.asking(refusal, version=version, able=able, params=request.params or {})
    return None if asked is None else InputRequiredToolResult(asked)


class _Last(Middleware):
    """Lets through what was decided, and nothing else."""

    async def __call__(self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]) -> Any:
        if not _is_free(context) and _asked(context) != _decided.get():
            raise MCPError(DENIED, "denied: the request was changed after it was decided")
        return await call_next(context)


def _listed(tool: Any) -> dict[str, Any]:
    """As it goes out."""
    said: dict[str, Any] = tool.to_mcp_tool(name=tool.name).model_dump(by_alias=True, mode="json", exclude_none=True)
    return said


def _is_free(context: MiddlewareContext[Any]) -> bool:
    return context.type == "notification" or is_free(context.method or "", _params(context))


def _named(context: MiddlewareContext[Any]) -> tuple[str, Mapping[str, Any]]:
    """Tool and arguments of a request."""
    return named(context.method or "", _params(context))


def _params(context: MiddlewareContext[Any]) -> Mapping[str, Any]:
    """The parameters of a request, which FastMCP has parsed or has not."""
    params = context.message
    if isinstance(params, BaseModel):
        params = {field.alias or name: getattr(params, name) for name, field in type(params).model_fields.items()}
        params = {name: value for name, value in params.items() if value is not None}
    return params or {}


def _asked(context: MiddlewareContext[Any]) -> bytes:
    """A request in bytes that no later change reaches. Raises Malformed."""
    return msgspec.json.encode(plain([context.method, *_named(context)], "request"), order="deterministic")


def _version(context: MiddlewareContext[Any]) -> VersionSpec | None:
    """Which of several tools of one name is meant: they can have different defaults."""
    meta = getattr(context.message, "meta", None) or {}
    version = meta.get("fastmcp", {}).get("version")
    return None if version is None else VersionSpec(eq=version) if isinstance(version, str) else VersionSpec(**version)


async def _measured(running: Running, result: Any) -> Any:
    """How much came out: what a tool has returned, as FastMCP has wrapped it."""
    body = result.model_dump() if isinstance(result, BaseModel) else result
    if isinstance(body, dict):
        structured, content = body.get("structured_content"), body.get("content", body.get("contents", body))
        wrapped = next(iter(structured.values())) if structured and len(structured) == 1 else structured
        await running.returned_async(content if wrapped is None else wrapped, ok=not body.get("is_error", False))
    return result
