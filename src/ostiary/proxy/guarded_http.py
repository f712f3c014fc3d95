"""An HTTP API that has no guard: the guard of `ostiary run` decides each request in this proxy.

With the OpenAPI document of the API, each operation is a tool, and a request that the document does not have is denied.
Without it, each method is a tool (`get`, `post`, ...) with the arguments `path`, the parameters of the query, and
`body`. The arguments are as `ostiary.openapi` describes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import httpx2

from ostiary.guard import Withheld
from ostiary.openapi import Endpoint, HttpTool, OpenApiTable, check_path
from ostiary.protocol.errors import Malformed, Refused
from ostiary.proxy.entrance import Headers, Rejected, filter_request_headers
from ostiary.proxy.guarded import passing
from ostiary.proxy.upstream import Body, Upstream, too_large
from ostiary.run.gate import Gate, Verdict

MAX_JUDGED = 4 << 20
"""Maximum size in bytes of the body of a request, and of a response that is added to the memory of the task before the
client receives it.
"""
VERDICT = "ostiary.verdict"
ANY = ("get", "head", "post", "put", "patch", "delete", "options")


class MethodTable:
    """The tools of an API without an OpenAPI document: one for each method."""

    @property
    def tools(self) -> list[HttpTool]:
        """Return the tools of an API without an OpenAPI document: one tool for each HTTP method."""
        return [_method_tool(method) for method in ANY]

    @property
    def listing(self) -> dict[str, Any]:
        """Return the tools in the form of MCP's `tools/list`."""
        return {"tools": [tool.listed for tool in self.tools]}

    def find(self, method: str, raw_path: str) -> tuple[HttpTool, dict[str, str]] | None:
        """Return (the tool of this HTTP method, which is the same for every path, and its argument `path`: the decoded
        path); None for a method without a tool. Raises Malformed for a path that `check_path` refuses.
        """
        check_path(raw_path)
        name = method.lower()
        return (_method_tool(name), {"path": unquote(raw_path)}) if name in ANY else None


def _method_tool(method: str) -> HttpTool:
    return HttpTool(method, Endpoint(None, "/{path}", method, (method.upper(),), {}, {}), method.upper())


def table_of(document: Mapping[str, Any] | None) -> OpenApiTable | MethodTable:
    """Return the tools of an API: the operations of its OpenAPI document; without a document (None), one tool for each
    HTTP method. Raises Malformed for a document without paths.
    """
    return MethodTable() if document is None else OpenApiTable(document)


class GuardedHttpUpstream(Upstream):
    """An HTTP API at `url`; a gate decides its requests."""

    def __init__(self, url: str, gate: Gate, table: OpenApiTable | MethodTable) -> None:
        """Guard the HTTP API at `url`. Raises Invalid if `url` is not an http or https URL."""
        super().__init__(url, None)
        self._gate, self._table = gate, table

    @asynccontextmanager
    async def send(self, method: str, path: str, headers: Headers, body: Body | None) -> AsyncIterator[httpx2.Response]:
        """Decide a request, and yield the response of the API, or the response with the denial. Raises Rejected for a
        body of more than MAX_JUDGED bytes, or if the API cannot be reached.
        """
        text = b"".join([part async for part in body]) if body is not None else b""
        if len(text) > MAX_JUDGED:
            raise too_large(MAX_JUDGED)
        verdict = await asyncio.to_thread(self._decide, method, path, headers, text)
        if not verdict.passes:
            yield _denied(verdict.why)
            return
        plain = [*passing(headers), (b"accept-encoding", b"identity")]
        is_ok = False
        try:
            async with super().send(method, path, plain, body) as response:
                response.extensions[VERDICT] = verdict
                yield response
                is_ok = response.is_success or response.is_redirect
        finally:
            if verdict.call is not None:
                await asyncio.to_thread(self._gate.finish, verdict.call, ok=is_ok and verdict.call.ok)

    def _decide(self, method: str, path: str, headers: Headers, text: bytes) -> Verdict:
        """Decide a request. A request that cannot be decided is denied, or passes in mode `watch`."""
        raw_path, _, query = path.partition("?")
        try:
            matched = self._table.find(method, raw_path or "/")
            if matched is None:
                raise Malformed(f"the API has no operation `{method} {raw_path[:200]}`", code="unknown_tool")
            tool, parameters = matched
            scope = {"query_string": query.encode("latin-1"), "headers": headers}
            arguments = tool.arguments(scope, parameters, text)
        except Refused as refusal:
            return self._gate.undecided("(unreadable)", refusal)
        return self._gate.decide(tool.name, arguments)

    def _requested(self, headers: Headers) -> Headers:
        """Return the headers with the client's own `Authorization`: the API authenticates its clients, not
        agents of Ostiary.
        """
        return [
            *filter_request_headers(headers),
            *((name, value) for name, value in headers if name == b"authorization"),
        ]

    def answer(self, response: httpx2.Response, *, base: str) -> tuple[int, Headers]:
        """Return the status and the headers for the client, as `Upstream.answer` does. A 401 of the API stays a 401,
        because the client itself authenticates at the API.
        """
        status, headers = super().answer(response, base=base)
        return (response.status_code if VERDICT in response.extensions else status), headers

    async def parts(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """Yield the body in parts as they arrive. A body whose size is limited, or that is added to the memory of the
        task, is yielded as a whole after that. Raises ConnectionAbortedError for such a body if it is withheld, or has
        more than MAX_JUDGED bytes.
        """
        verdict: Verdict | None = response.extensions.get(VERDICT)
        call = verdict.call if verdict is not None else None
        if call is None or (call.watched is None and call.most_bytes is None):
            async for part in super().parts(response):
                yield part
            return
        whole = b""
        async for part in super().parts(response):
            whole += part
            if len(whole) > MAX_JUDGED:
                raise ConnectionAbortedError(
                    f"the answer is withheld: it has over {MAX_JUDGED >> 20} MiB, and the guard must read all of it"
                    " before the client does; request a smaller part"
                )
        try:
            call.result(ok=response.is_success, bytes=len(whole))
            await asyncio.to_thread(self._gate.observe, call, whole.decode("utf-8", "replace"))
        except Withheld as refusal:
            call.ok = False
            raise ConnectionAbortedError(refusal.message) from refusal
        yield whole


def _denied(why: Refused | None) -> httpx2.Response:
    """Return the response to a request that is not forwarded to the API."""
    refusal = why or Rejected(403, "denied", "denied")
    body = {"error": refusal.code, "message": f"denied: {refusal.message}", "hint": refusal.hint}
    approval = getattr(refusal, "approval", None)
    return httpx2.Response(403, json=body | ({"approval": approval} if approval else {}))
