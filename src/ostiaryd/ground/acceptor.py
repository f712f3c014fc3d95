"""Takes new connections from the listening socket, many in each round of the event loop.

uvloop takes one connection per round (libuv since 1.45). Under load a round answers hundreds of requests, so the queue
of the listening socket overflows, and the kernel lets each client that did not fit wait for 1, 3 and then 7 s.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

log = logging.getLogger("ostiary")

QUEUE = 4096
"""Connections that the kernel keeps until they are taken; Linux itself allows so many (`net.core.somaxconn`)."""
AT_ONCE = 256
"""Connections taken in one round, so that those which are open are answered meanwhile."""
PAUSE_S = 0.1
"""How long no connection is taken after the system had no descriptor or memory for one."""
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Acceptor:
    """The listening socket of a server. `make` returns the protocol of one connection."""

    def __init__(self, sock: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        """Starts to listen. Runs on the event loop."""
        self._sock, self._make = sock, make
        self._loop = asyncio.get_running_loop()
        self._tasks = set[asyncio.Task[Any]]()
        self._resuming: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(QUEUE)
        self._resume()

    def close(self) -> None:
        """Take no more connections; those that were taken stay."""
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._sock)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:  # its client has gone already
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.warning("no connection can be taken for %g s: %s", PAUSE_S, error.strerror)
                self._loop.remove_reader(self._sock)
                self._resuming = self._loop.call_later(PAUSE_S, self._resume)
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio's own loop does not
            opening = self._loop.create_task(self._loop.connect_accepted_socket(self._make, connection))
            self._tasks.add(opening)
            opening.add_done_callback(self._note_opened)

    def _note_opened(self, opening: asyncio.Task[Any]) -> None:
        self._tasks.discard(opening)
        if not opening.cancelled() and (error := opening.exception()) is not None:
            log.warning("a connection could not be opened: %s", error)
