"""HTTP/1.1 with the clients of a local proxy (RFC 9112): the requests of a connection are handled one after the other.

Bodies are forwarded in both directions as they arrive. When a client disconnects, its request to the upstream server is
cancelled. If a response from the upstream server breaks off, the connection to the client breaks off too, so that no
client mistakes a part for the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import h11
import httpx2

from ostiary.proxy.connections import CHUNK, ClientConnection, Connections, render_refusal
from ostiary.proxy.entrance import Entrance, Headers, Listen, Rejected, has_body
from ostiary.proxy.upstream import MAX_BODY, Body, Upstream, too_large

MAX_CONNECTIONS = 256
IDLE_S = 75.0
"""Maximum time, in seconds, that a client may take to send the head of its next request."""
BODY_S = 60.0
"""Maximum time, in seconds, that a client may take to send the next part of a body."""


async def serve(entrance: Entrance, upstream: Upstream, *, ready: Callable[[Entrance], None]) -> None:
    """Serve until cancelled. `ready` is called with the entrance, which has the actual port. Raises OSError if the
    address cannot be listened on.
    """
    proxy = _Proxy(entrance, upstream)

    def start(listen: Listen) -> None:
        proxy.entrance = replace(entrance, listen=listen)
        ready(proxy.entrance)

    connections = Connections(partial(_Conversation, proxy), most=MAX_CONNECTIONS)
    await connections.serve(entrance.listen, ready=start)


@dataclass(slots=True)
class _Proxy:
    entrance: Entrance
    upstream: Upstream


class _Conversation(ClientConnection):
    def __init__(self, proxy: _Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._proxy = proxy
        self._all_came = asyncio.Event()
        """event that is set when the current request has been read completely"""

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    event = await self._event()
            except h11.RemoteProtocolError as error:
                await self._reject(
                    Rejected(
                        error.error_status_hint, "malformed", f"the received bytes are not an HTTP request: {error}"
                    )
                )
                return
            if not isinstance(event, h11.Request):
                return  # the client has gone
            await self._follow(event)
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _follow(self, request: h11.Request) -> None:
        """Answer a request, unless the client disconnects first."""
        self._all_came.clear()
        work = asyncio.create_task(self._answer(request))
        gone = asyncio.create_task(self._watch())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and gone.result() and not work.done():
                raise ConnectionResetError("the client has disconnected")
            await work
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.wait((work, gone))

    async def _watch(self) -> bool:
        """Wait until the client disconnects (return True), or sends data of its next request (return False), while the
        response is not finished.
        """
        await self._all_came.wait()
        data = await self._reader.read(CHUNK)
        self._http.receive_data(data)
        return not data

    async def _answer(self, request: h11.Request) -> None:
        headers: Headers = [(bytes(name), bytes(value)) for name, value in request.headers]
        body = Body(self._receive, max_bytes=MAX_BODY) if has_body(headers) else None
        if body is None:
            await self._event()  # its end
            self._all_came.set()
        try:
            method, target = request.method.decode("latin-1"), request.target.decode("latin-1")
            path = self._proxy.entrance.check(method, target, headers)
            if any(name == b"content-length" and int(value) > MAX_BODY for name, value in headers):
                raise too_large(MAX_BODY)
            async with self._proxy.upstream.send(method, path, headers, body) as response:
                await self._pass_on(response)
        except Rejected as refusal:
            await self._reject(refusal)
        finally:
            if body is not None:
                body.close()

    async def _pass_on(self, response: httpx2.Response) -> None:
        status, headers = self._proxy.upstream.answer(response, base=self._proxy.entrance.base)
        try:
            await self._send(h11.Response(status_code=status, headers=headers, reason=response.reason_phrase.encode()))
        except h11.LocalProtocolError as error:
            raise Rejected(502, "upstream_failed", f"the server's answer cannot be passed on: {error}") from error
        try:
            async for part in self._proxy.upstream.parts(response):
                await self._send(h11.Data(data=part))
        except (httpx2.HTTPError, h11.LocalProtocolError) as error:
            raise ConnectionAbortedError(f"the answer broke off: {error}") from error
        await self._send(h11.EndOfMessage())

    async def _reject(self, refusal: Rejected) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            raise ConnectionAbortedError("the answer had begun") from refusal
        body = render_refusal(refusal)
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        headers += [("retry-after", "1")] if refusal.status == 503 else []
        await self._send(h11.Response(status_code=refusal.status, headers=headers))
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())
        await self._part()

    async def _part(self) -> None:
        """End the connection so that a client that is still sending can first read the response."""
        with suppress(OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while not self._all_came.is_set() and await self._reader.read(CHUNK):
                    pass

    async def _receive(self) -> bytes:
        """Return the next part of the body of the request; an empty part is the end."""
        if self._http.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[]))
        try:
            async with asyncio.timeout(BODY_S):
                event = await self._event()
        except h11.RemoteProtocolError as error:
            raise Rejected(400, "malformed", f"the body of the request is not valid HTTP: {error}") from error
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self._all_came.set()
        return b""
