"""A TCP proxy in front of PostgreSQL that delays, stalls or cuts connections, for tests and benchmarks."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from urllib.parse import parse_qs, urlsplit

PIECE = 1 << 16


class Proxy:
    """A proxy that listens on a free port of this machine, and forwards all bytes to the PostgreSQL server of a URL.

    `delay_s` is the time that each direction takes; pieces do not wait for each other. While `stalls` is set, nothing
    is passed on in either direction, though connections are still accepted. `on_piece(is_request, bytes)` sees each
    piece before it is passed on; if it returns False, the piece is dropped and all connections are cut.
    """

    def __init__(self, url: str, *, delay_s: float = 0.0) -> None:
        self._target = _target(url)
        self.delay_s, self.stalls, self.refuses = delay_s, False, False
        self.on_piece: Callable[[bool, bytes], bool] = lambda is_request, piece: True
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: list[socket.socket] = []
        self._is_closed = False
        self.port: int = self._listener.getsockname()[1]
        self.url = re.sub(r"@[^/]*/([^?]*).*", rf"@127.0.0.1:{self.port}/\1", url)
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def lead_to(self, url: str) -> None:
        """Forward new connections to another PostgreSQL server, and end the present connections."""
        self._target = _target(url)
        self.cut()

    def cut(self) -> None:
        """End every connection."""
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._is_closed, self.stalls = True, False
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in self._open:
            end.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
            try:
                server.connect(self._target)
            except OSError:
                client.close()
                server.close()
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [client, server]
            for source, sink, is_request in ((client, server, True), (server, client, False)):
                pieces: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
                self._start(self._read, source, pieces, is_request)
                self._start(self._write, sink, pieces)

    def _read(self, source: socket.socket, pieces: SimpleQueue[tuple[float, bytes]], is_request: bool) -> None:
        piece = b"-"
        while piece:
            try:
                piece = source.recv(PIECE)
            except OSError:
                piece = b""
            if piece and not self.on_piece(is_request, piece):
                self.cut()
                piece = b""
            pieces.put((time.monotonic() + self.delay_s, piece))

    def _write(self, sink: socket.socket, pieces: SimpleQueue[tuple[float, bytes]]) -> None:
        while True:
            due, piece = pieces.get()
            time.sleep(max(0.0, due - time.monotonic()))
            while self.stalls and not self._is_closed:
                time.sleep(0.01)
            with suppress(OSError):
                if piece:
                    sink.sendall(piece)
                else:
                    sink.shutdown(socket.SHUT_RDWR)
            if not piece:
                return


def _target(url: str) -> str | tuple[str, int]:
    """Return the address of PostgreSQL: the path of its Unix socket, or a host and a port."""
    parts = urlsplit(url)
    host = parse_qs(parts.query).get("host", [""])[0]
    return f"{host}/.s.PGSQL.5432" if host.startswith("/") else (parts.hostname or "127.0.0.1", parts.port or 5432)
