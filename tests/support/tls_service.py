"""A TLS server that asks for client certificates and reads its files anew for each handshake."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path


class TlsService:
    """A server with key and chain in `tls.pem` of a folder, and the roots to trust in `bundle.pem`. It answers a line
    with the same line.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0

    async def __aenter__(self) -> TlsService:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context())
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = self._choose
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        own = shutil.copyfile(self.folder / "tls.pem", self.folder / "served.pem")  # OpenSSL reads a file twice
        context.load_cert_chain(own)
        context.load_verify_locations(self.folder / "bundle.pem")
        context.verify_mode = ssl.CERT_REQUIRED

    def _choose(self, connection: ssl.SSLObject, _name: str, _context: ssl.SSLContext) -> None:
        fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(fresh)
        connection.context = fresh

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
