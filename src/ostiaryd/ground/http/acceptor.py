"""Accepts new connections from the listening socket, many in each round of the event loop.

All connections in the kernel's queue are accepted, which costs little. Then the client addresses take turns, and a few
connections are opened in each round, so that a client is served even while another address opens thousands. A
connection that waits too long to be opened gets the response 503, unread: if it were closed without a response, its
client would immediately connect again. A connection from a known address of an administrator is opened at once
(`Arrivals.expects`).

uvloop accepts one connection per round (libuv since 1.45). Under load a round answers hundreds of requests, so the
queue of the listening socket would overflow, and clients beyond the queue would repeat their attempts only after 1, 3
and then 7 s.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from ostiaryd.ground.database.line import FairQueue
from ostiaryd.ground.http.protocol import render_refusal
from ostiaryd.ground.http.tls import Certificate
from ostiaryd.ground.http.turns import LONGEST_WAIT_S, MANY, ParsingTurns, share_of
from ostiaryd.ground.process.eager import start_now

log = logging.getLogger("ostiary")

QUEUE = 4096
"""Maximum number of connections that the kernel queues: the default limit of Linux (`net.core.somaxconn`)."""
TAKEN_AT_ONCE = 512
"""Maximum number of connections that are accepted from the kernel's queue in one round of the event loop, about 3 ms of
work.
"""
MAX_TAKEN = 2048
"""Maximum number of accepted connections that wait to be opened. Above it, the oldest waiting connection of the address
with the most connections is refused.
"""
REFUSED_AT_ONCE = 256
"""Maximum number of connections refused in one round, about 5 ms of work."""
AT_ONCE = 32
"""Maximum number of connections that are opened in one round of the event loop, about 5 ms of work. Open connections
are served in the same round.
"""
HANDSHAKE_S = 10.0
"""Maximum time for a TLS handshake, in seconds."""
HANDSHAKES, OF_ADDRESS = 1024, 64
"""Maximum number of concurrent TLS handshakes, in total and for one address. A further handshake ends the oldest one,
because a client that stalls needs its place longer than a client that continues.
"""
PAUSE_S = 0.1
"""Time for which no connection is accepted after the system ran out of descriptors or memory, in seconds."""
REFUSAL = render_refusal(503, "busy", "too many connections wait to be opened")
"""Response on a connection that is refused before it is opened."""
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class _Accepted(NamedTuple):
    """An accepted connection that waits to be opened. `since` is the processor time of the event loop at its
    acceptance, in seconds.
    """

    connection: socket.socket
    address: str
    since: float


class Acceptor:
    """The listening socket of a server. `make` returns a new protocol object for a connection; its argument is whether
    the connection counts as one of an administrator until its first bytes are parsed.

    While `turns` are paused, no connection is accepted.
    """

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[bool], asyncio.Protocol],
        certificate: Certificate | None = None,
        *,
        turns: ParsingTurns | None = None,
        most_unopened: int = MAX_TAKEN,
        note_refusal: Callable[[str, str], None] | None = None,
    ) -> None:
        """Start to listen, with TLS if `certificate` is given. Call it on the event loop.

        At most `most_unopened` connections are accepted but not open, and as many are in a TLS handshake. If the
        handshake refuses a client certificate, `note_refusal` is called with the address of the client and the reason.
        """
        self._note_refusal = note_refusal
        self._max_taken, self._max_handshakes = min(MAX_TAKEN, most_unopened), min(HANDSHAKES, most_unopened)
        self._sock, self._make, self._certificate = sock, make, certificate
        self._turns = turns or ParsingTurns()
        self._taken = FairQueue[_Accepted]()
        self._is_opening = self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._opening = dict[asyncio.Task[Any], str]()
        self._of_address = defaultdict[str, dict[asyncio.Task[Any], None]](dict)
        self._resuming: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(QUEUE)
        self._resume()

    def close(self) -> None:
        """Stop accepting connections, and close connections that wait to be opened; open connections stay open."""
        self._is_closed = True
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._sock)
        while (waiting := self._taken.pop()) is not None:
            waiting.connection.close()

    def _resume(self) -> None:
        self._resuming = None
        if not self._is_closed:
            self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        if self._turns.is_paused:
            self._loop.remove_reader(self._sock)
            self._turns.after_pause(self._resume)
            return
        now = time.thread_time()
        for _ in range(TAKEN_AT_ONCE):
            try:
                connection, (address, *_) = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                break
            except ConnectionAbortedError:  # the client has already closed the connection
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.warning("no connections are accepted for %g s: %s", PAUSE_S, error.strerror)
                self._loop.remove_reader(self._sock)
                self._resuming = self._loop.call_later(PAUSE_S, self._resume)
                break
            if self._turns.arrivals.expects(address):
                self._turns.arrivals.watch(connection.fileno())
                self._open(connection, address, is_expected=True)
            else:
                self._taken.push(share_of(address), _Accepted(connection, address, now))
            if self._turns.arrivals.has_new():
                break
            if self._taken.count > self._max_taken and (oldest := self._taken.pop_of_largest()) is not None:
                self._refuse(oldest.connection)
        self._open_some()

    def _open_some(self) -> None:
        """Open some of the accepted connections, and the others in later rounds. If many are waiting, refuse those
        connections that have waited too long.
        """
        latest = time.thread_time() - LONGEST_WAIT_S
        opened = refused = 0
        while opened < AT_ONCE and refused < REFUSED_AT_ONCE and (waiting := self._taken.pop()) is not None:
            if waiting.since < latest and self._taken.count >= MANY:
                self._refuse(waiting.connection)
                refused += 1
            else:
                self._open(waiting.connection, waiting.address)
                opened += 1
            if self._turns.arrivals.has_new():
                break
        if self._taken.count and not self._is_opening:
            self._is_opening = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_opening = False
        if self._turns.is_paused:
            self._turns.after_pause(self._open_some)
        else:
            self._open_some()

    def _refuse(self, connection: socket.socket) -> None:
        """Send the response 503 and close the connection. With TLS, close it without a response, because there was no
        handshake.
        """
        if self._certificate is None:
            connection.setblocking(False)
            with suppress(OSError):  # the client has closed the connection
                connection.send(REFUSAL)
                # if unread bytes are left, closing resets the connection, and the client does not get the response
                connection.recv(64 << 10)
        connection.close()

    def _end_oldest(self, address: str) -> None:
        """Make room for one more handshake from `address`. If the address has too many, end its oldest one. If there
        are too many in total, end the oldest one of the address with the most.

        A connection counts in `connections` only after its handshake.
        """
        if len(self._of_address.get(address, ())) >= OF_ADDRESS:
            self._end_oldest_of(address)
        elif len(self._opening) >= self._max_handshakes:
            self._end_oldest_of(max(self._of_address, key=lambda one: len(self._of_address[one])))

    def _end_oldest_of(self, address: str) -> None:
        task = next(iter(self._of_address[address]))
        self._forget(task)
        task.cancel()

    def _open(self, connection: socket.socket, address: str, *, is_expected: bool = False) -> None:
        connection.setblocking(False)
        # the event loop of asyncio does not set this option
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened = partial(self._loop.connect_accepted_socket, partial(self._make, is_expected), connection)
        if self._certificate is None:
            task = start_now(self._loop, opened())
        else:
            self._end_oldest(address)
            # the event loop does not close a socket whose handshake is cancelled in the round in which it begins
            opened = partial(opened, ssl=self._certificate.context(), ssl_handshake_timeout=HANDSHAKE_S)
            task = self._loop.create_task(opened())
        self._opening[task] = address
        self._of_address[address][task] = None
        task.add_done_callback(partial(self._note_opened, connection))

    def _forget(self, task: asyncio.Task[Any]) -> None:
        if (address := self._opening.pop(task, None)) is not None:
            del self._of_address[address][task]
            if not self._of_address[address]:
                del self._of_address[address]

    def _note_opened(self, connection: socket.socket, task: asyncio.Task[Any]) -> None:
        address = self._opening.get(task, "")
        self._forget(task)
        if task.cancelled():
            connection.close()  # the task was cancelled before it started, so the socket is closed here
            return
        if (error := task.exception()) is None:
            return
        if isinstance(error, ssl.SSLCertVerificationError) and self._note_refusal is not None:
            self._note_refusal(address, error.verify_message)
            return
        # errors that clients cause are not logged
        if not isinstance(error, ssl.SSLError | ConnectionError | TimeoutError):
            log.warning("a connection could not be opened: %s", error)
