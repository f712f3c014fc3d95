"""A client of gRPC on a Unix socket that sends frames of its own making."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, ResponseReceived

from harness.patience import PATIENCE_S

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/Test/Echo"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


class RawClient:
    """An HTTP/2 client of a gRPC server on a Unix socket, which can send any frames."""

    def __init__(self, path: Path | None, sock: socket.socket | None = None) -> None:
        """Speak to the server at `path`, or through a socket that is connected."""
        self._sock = sock or socket.socket(socket.AF_UNIX)
        self._sock.setblocking(False)
        self.h2 = H2Connection(
            H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
        )
        self.events: list[Event] = []
        self._path = path

    async def __aenter__(self) -> RawClient:
        if self._path is not None:
            await asyncio.get_running_loop().sock_connect(self._sock, str(self._path))
        self.h2.initiate_connection()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sock.close()

    async def send(self, data: bytes = b"") -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, self.h2.data_to_send() + data)

    async def read_until(self, kind: type[Event]) -> Any:
        """The first event of that kind; EOF fails."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        self.events.remove(event)
                        return event
                data = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
                assert data, f"the connection ended before {kind.__name__}"
                self.events += self.h2.receive_data(data)
                with suppress(ConnectionError):  # the server has closed the connection, which ends the next read
                    await self.send()

    async def read_end(self) -> None:
        """Read until the server closes the connection, which is a reset if it has not read everything."""
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionResetError):
                while await asyncio.get_running_loop().sock_recv(self._sock, 65536):
                    pass

    async def status(self) -> str:
        """The `grpc-status` of an answer without a message."""
        headers: dict[str, str] = dict((await self.read_until(ResponseReceived)).headers)
        return headers.get("grpc-status", "")


def frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message
