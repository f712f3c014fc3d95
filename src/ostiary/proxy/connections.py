"""The connections of a local proxy with its clients: HTTP/1.1 (RFC 9112), and one task for each connection."""

from __future__ import annotations

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

import h11
import msgspec

from ostiary.proxy.entrance import Listen, Rejected

log = logging.getLogger("ostiary.proxy")

MAX_HEAD = 64 << 10
"""Maximum size of a request line with the headers of the request, in bytes."""
CHUNK = 64 << 10


class ClientConnection(ABC):
    """A connection of one client with a proxy: its requests and responses."""

    ends: tuple[type[Exception], ...] = (ConnectionError, TimeoutError)
    """Errors of `run` that are expected and only end the connection: the client has disconnected, or has sent nothing
    for too long.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    @abstractmethod
    async def run(self) -> None:
        """Answer the requests of the connection until it ends. The errors in `ends` are expected, and end the
        connection too.
        """

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(CHUNK))
        return event

    async def _send(self, event: h11.Event) -> None:
        await self._write(self._http.send(event) or b"")

    async def _write(self, data: bytes) -> None:
        if data:
            self._writer.write(data)
            await self._writer.drain()


class Connections:
    """The open connections of a proxy. `most`: maximum number of connections; `connect`: function that returns the
    connection for the two streams of a client.
    """

    def __init__(
        self, connect: Callable[[asyncio.StreamReader, asyncio.StreamWriter], ClientConnection], *, most: int
    ) -> None:
        self._connect, self._most = connect, most
        self._tasks = set[asyncio.Task[None]]()

    async def serve(self, listen: Listen, *, ready: Callable[[Listen], None]) -> None:
        """Serve until cancelled, then end all connections. `ready` is called with the address, which has the actual
        port. Raises OSError if the address cannot be listened on.
        """
        if listen.socket is not None:
            before = os.umask(0o177)
            try:
                server = await asyncio.start_unix_server(self._meet, listen.socket, limit=CHUNK)
            finally:
                os.umask(before)
        else:
            server = await asyncio.start_server(self._meet, listen.host, listen.port, limit=CHUNK)
            listen = replace(listen, port=server.sockets[0].getsockname()[1])
        try:
            ready(listen)
            await asyncio.get_running_loop().create_future()  # not `serve_forever`, which waits for clients since 3.12
        finally:
            server.close()
            await self._close()
            if listen.socket is not None:
                listen.socket.unlink(missing_ok=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection from beginning to end."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= self._most:
            writer.transport.abort()
            return
        self._tasks.add(task)
        connection = self._connect(reader, writer)
        try:
            await connection.run()
        except asyncio.CancelledError:  # the proxy ends
            writer.transport.abort()
        except Exception as error:
            if isinstance(error, connection.ends):
                log.debug("a connection broke off: %s", error)
            else:
                log.exception("a connection failed")
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def render_refusal(refusal: Rejected) -> bytes:
    """Return the body of the response to a refused request."""
    members = {"error": refusal.code, "message": refusal.message, "hint": refusal.hint}
    return msgspec.json.encode({name: value for name, value in members.items() if value})
