"""gRPC over HTTP/2 on a Unix socket: methods that take one message and return one message or a stream of messages.

The protocol is "gRPC over HTTP2" of the gRPC project, without compression and without reflection; the library h2
implements HTTP/2. The callers are unauthenticated processes of this machine: memory, calls, connections and processor
time are limited for each user (docs/adr/0152-a-caller-of-the-workload-api-is-bounded-by-user.md).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import resource
import socket
import stat
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import cast
from urllib.parse import quote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes

from ostiary.protocol.errors import Forbidden, Invalid, Malformed, NotFound, Refused, Unauthenticated, Unavailable
from ostiaryd.ground.database.failures import storage_failure
from ostiaryd.ground.http.buckets import Buckets
from ostiaryd.ground.http.turns import ParsingTurns
from ostiaryd.ground.process.clock import boot_clock
from ostiaryd.ground.process.peer import PeerProcess, gives_pidfd, open_peer
from ostiaryd.ground.world import World

log = logging.getLogger("ostiary")

MAX_MESSAGE = 64 << 10
"""Maximum size of a caller's message, in bytes."""
MAX_STREAMS = 100
"""Maximum number of open calls on one connection."""
MAX_HEADERS = 8 << 10
"""Maximum size of the metadata of a call, in bytes, as the specification of gRPC suggests."""
MAX_CONNECTIONS = 16_384
DESCRIPTORS = 16
"""Number of descriptors of the process for which one connection is permitted. A connection uses two; the others are for
the HTTP server.
"""
MAX_BYTES = 512 << 20
"""Maximum memory for unread bytes and open calls of all users, in bytes. One user may use at most as much as is left
for all others.
"""
CALL_BYTES = 16 << 10
"""Memory that a call uses in addition to its metadata and its message, in bytes."""
REFUSED_US = 1000
"""Processor time that counts for a refused call, in microseconds: the server reads facts about the process, and counts
the refusal for the ledger.
"""
KEPT_STREAMS = 256
"""Number of closed streams of a connection that are remembered, to recognise late frames of them."""
REQUEST_S = 10.0
"""Maximum time for a call to arrive completely, in seconds."""
STUCK_S = 30.0
"""Maximum time for a caller to read a message, in seconds."""
MAX_PATH = 107
"""Maximum length of the path of a Unix socket, in bytes (unix(7))."""
POLL_S = 0.1
"""Interval at which connections are accepted on kernels that give no pidfd with a connection
(`open_peer`), in seconds.
"""
PAUSE_S = 1.0
"""Time for which no connection is accepted after the system had no descriptor or memory for one, in seconds."""
QUEUE = 4096
ACCEPT_S = 0.003
"""Maximum time for new connections in one round of the event loop, in seconds: enough to open about 15, or to refuse
200.
"""
SLICE = 1024
"""Number of bytes that are read from a connection in one turn; the rest stays in the kernel."""
OUTPUT = 16 << 10
"""Number of response bytes that a caller has not read, from which the server stops reading from the caller."""
_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class GrpcStatus(IntEnum):
    """The status codes of gRPC that the server returns."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


STATUS: dict[type[Refused], GrpcStatus] = {
    Malformed: GrpcStatus.INVALID_ARGUMENT,
    Invalid: GrpcStatus.INVALID_ARGUMENT,
    Unauthenticated: GrpcStatus.PERMISSION_DENIED,
    Forbidden: GrpcStatus.PERMISSION_DENIED,
    NotFound: GrpcStatus.PERMISSION_DENIED,
    Unavailable: GrpcStatus.UNAVAILABLE,
    Refused: GrpcStatus.UNAVAILABLE,
}
"""gRPC status of each refusal class. For a class that is not listed, its nearest base class applies."""


def grpc_status(refusal: Refused) -> GrpcStatus:
    """Return the gRPC status code with which a refusal ends a call, by the class of the refusal."""
    return next(STATUS[kind] for kind in type(refusal).__mro__ if kind in STATUS)


@dataclass(frozen=True, slots=True)
class GrpcCall:
    """A call: the process that made it, its metadata, and its message."""

    peer: PeerProcess
    method: str
    metadata: Mapping[str, str]
    message: bytes


GrpcMethod = Callable[[GrpcCall], AsyncGenerator[bytes, None]]
"""A gRPC method: it yields the messages of the response, and raises Refused."""


class GrpcCalls(Buckets):
    """The limit on the rate of calls by one user of the machine."""

    burst, per_second = 10_000, 500


class GrpcConnects(Buckets):
    """Rate limit of one user for new connections of the user's processes."""

    burst, per_second = 4_096, 500


class GrpcWork(Buckets):
    """Limit of one user for processor time that frames and refused calls take, in microseconds. Above it,
    frames wait.
    """

    burst, per_second = 2_000_000, 250_000


@dataclass(slots=True, eq=False)
class _Stream:
    """A call that is arriving or in progress. `reserved` is the memory that is reserved for it, in bytes."""

    headers: dict[str, str]
    reserved: int = 0
    body: bytearray = field(default_factory=bytearray)
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    has_window: asyncio.Event = field(default_factory=asyncio.Event)


class GrpcServer:
    """A Unix socket at which gRPC methods can be called by their path (`/Service/Method`). Use it only on the event
    loop.
    """

    def __init__(self, world: World, path: Path, methods: Mapping[str, GrpcMethod]) -> None:
        """Listen on a Unix socket. Raises Invalid if the path cannot be a socket, and Unavailable if another server
        uses it.
        """
        self.world, self.path, self.methods = world, path, methods
        self._loop = asyncio.get_running_loop()
        self.turns = ParsingTurns()
        self.buffer = bytearray(SLICE)
        """Buffer into which each connection reads its next slice."""
        self._connections: set[_Connection] = set()
        self._of_user = defaultdict[int, dict[_Connection, None]](dict)
        """Connections of each user, the oldest first."""
        self._reserved = Counter[int]()
        """Memory that is reserved for each user, in bytes."""
        self._most = min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // DESCRIPTORS)
        self._none_waited_at = boot_clock()
        self._pausing: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sock = _listen(path)
        self._resume()
        if not gives_pidfd():
            self._poll()

    async def close(self) -> None:
        """Stop listening for new gRPC connections, and end all running calls."""
        self._loop.remove_reader(self._sock)
        for timer in filter(None, (self._timer, self._pausing)):
            timer.cancel()
        self._sock.close()
        self.path.unlink(missing_ok=True)
        tasks = [task for connection in list(self._connections) for task in connection.end()]
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self, connection: _Connection) -> None:
        """Stop counting a connection."""
        if connection in self._connections:
            self._connections.remove(connection)
            del self._of_user[connection.peer.uid][connection]
            if not self._of_user[connection.peer.uid]:
                del self._of_user[connection.peer.uid]

    def reserve(self, user: int, size: int) -> bool:
        """Reserve `size` bytes of memory for a user; return false if there is not enough. A negative size releases
        memory.
        """
        if size > 0 and self._reserved[user] + size > MAX_BYTES - self._reserved.total() - size:
            return False
        self._reserved[user] += size
        if not self._reserved[user]:
            del self._reserved[user]
        return True

    def _resume(self) -> None:
        self._loop.add_reader(self._sock, self._accept)

    def _poll(self) -> None:
        """Accept connections at intervals, so that `_none_waited_at` is never much older than `POLL_S`."""
        self._accept()
        self._timer = self._loop.call_later(POLL_S, self._poll)

    def _accept(self) -> None:
        until = time.perf_counter() + ACCEPT_S
        while time.perf_counter() < until:
            before = boot_clock()
            try:
                connection, _ = self._sock.accept()
            except BlockingIOError:
                self._none_waited_at = before
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # the client has already closed the connection
                log.warning("the socket %s takes no connection for %g s: %s", self.path, PAUSE_S, error.strerror)
                self._loop.remove_reader(self._sock)
                self._pausing = self._loop.call_later(PAUSE_S, self._resume)
                return
            self._open(connection)

    def _open(self, connection: socket.socket) -> None:
        """Open a connection. If its process is unknown, or a limit is exceeded, close it."""
        try:
            connection.setblocking(False)
            peer = open_peer(connection, none_waited_at=self._none_waited_at)
        except (Refused, OSError) as error:
            log.info("the socket %s refuses a connection: %s", self.path, error)
            connection.close()
            return
        opened = self.world.get_singleton(GrpcConnects).of(str(peer.uid))
        if not opened.has(1) or (len(self._connections) >= self._most and not self._make_room(peer.uid)):
            if opened.refuse():
                log.warning("the socket %s refuses connections of user %d: too many", self.path, peer.uid)
            peer.close()
            connection.close()
            return
        opened.take(1)
        protocol = _Connection(self, peer)
        self._connections.add(protocol)
        self._of_user[peer.uid][protocol] = None
        opening = self._loop.create_task(self._loop.connect_accepted_socket(lambda: protocol, connection))
        opening.add_done_callback(lambda task: protocol.end() if task.cancelled() or task.exception() else None)

    def _make_room(self, user: int) -> bool:
        """Make room for a connection of `user` by ending the oldest connection of the user with the most connections.
        Do this only if that user keeps at least as many as `user` has; return whether it was done.
        """
        most = max(self._of_user.values(), key=len)
        if len(most) <= len(self._of_user.get(user, ())) + 1:
            return False
        next(iter(most)).end()
        return True


def _listen(path: Path) -> socket.socket:
    """Return a listening socket at `path` to which every user may connect. A socket at which no server listens is
    replaced.

    Raises Invalid for an unusable path, Unavailable if another server listens there.
    """
    if not path.is_absolute():
        raise Invalid(f"the socket path `{path}` is not absolute", hint="begin the path with a slash")
    if (size := len(os.fsencode(path))) > MAX_PATH:
        raise Invalid(f"the socket path `{path}` has {size} bytes; at most {MAX_PATH} are possible", hint="shorten it")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() or path.is_symlink():
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise Invalid(f"`{path}` exists and is not a socket", hint="use another path, or remove the file")
            with suppress(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as other:
                other.settimeout(1.0)
                other.connect(str(path))
                raise Unavailable(f"another server listens on {path}", hint="stop that server, or use another path")
            path.unlink()
        sock.bind(str(path))
        path.chmod(0o666)  # the server gets the identity of the caller from the kernel
        sock.setblocking(False)
        sock.listen(QUEUE)
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror}") from None
    except BaseException:
        sock.close()
        raise
    return sock


class _H2(H2Connection):
    """The HTTP/2 state machine of h2, changed to use little memory for closed streams."""

    MAX_CLOSED_STREAMS = KEPT_STREAMS


class _Connection(asyncio.BufferedProtocol):
    """A connection. It ends when the process that opened it ends, even if another process has the descriptor."""

    def __init__(self, server: GrpcServer, peer: PeerProcess) -> None:
        self.peer = peer
        self._server, self._world, self._loop = server, server.world, asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, _Stream] = {}
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._input = b""
        self._turn: asyncio.TimerHandle | None = None
        """Timer of the next turn to read, while the processor time of the user is used up; None otherwise."""
        self._waits_for_turn = False
        self._unfinished = 0
        """Number of bytes after the last complete frame, for which memory is reserved."""
        self._is_over = False
        self._aborting: asyncio.TimerHandle | None = None
        self._h2 = _H2(H2Configuration(client_side=False, header_encoding="utf-8"))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # transports of uvloop are not subclasses of asyncio.Transport
        self._transport = cast(asyncio.Transport, transport)
        if self._is_over:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(OUTPUT)
        self._loop.add_reader(self.peer.pidfd, self._on_peer_end)
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS})
        self._keep_no_headers()
        self._flush()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.end()
        if self._aborting is not None:
            self._aborting.cancel()

    def end(self) -> list[asyncio.Task[None]]:
        """Close the connection and cancel its calls; return their tasks."""
        if not self._is_over:
            self._is_over = True
            self._server.forget(self)
            self._loop.remove_reader(self.peer.pidfd)
            self.peer.close()
            if self._turn is not None:
                self._turn.cancel()
            self._keep_unfinished(0)
            if self._transport is not None:
                self._transport.close()
                # the caller may not read the last frames
                self._aborting = self._loop.call_later(STUCK_S, self._transport.abort)
        tasks = [task for id in list(self._streams) if (task := self._drop(id)) is not None]
        self._can_write.set()
        return tasks

    def pause_writing(self) -> None:
        """Stop reading from a caller that does not read responses, because each of its frames may need a response."""
        self._can_write.clear()
        self._read_later()

    def resume_writing(self) -> None:
        self._can_write.set()
        self._work()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._input += self._server.buffer[:nbytes]
        self._work()

    def _read_later(self, after_s: float | None = None) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        if after_s is not None and self._turn is None:
            self._turn = self._loop.call_later(after_s, self._take_turn)

    def _take_turn(self) -> None:
        self._turn, self._waits_for_turn = None, False
        self._work()

    def _work(self) -> None:
        """Read and handle input. Wait first if the caller does not read, if the user's processor time is used up, or if
        it is not the user's turn.
        """
        if self._turn is not None or self._waits_for_turn or self._is_over or not self._can_write.is_set():
            return
        work = self._world.get_singleton(GrpcWork).of(str(self.peer.uid))
        if not work.has(1):
            self._read_later(work.after_s(1))
        elif self._server.turns.is_free:
            self._server.turns.run(self._read, self._loop)
        else:
            self._waits_for_turn = True
            self._read_later()
            self._server.turns.wait(self._take_own_turn, self._loop, address=str(self.peer.uid))

    def _take_own_turn(self) -> None:
        """Read input in the user's turn. The processor time is not counted here, because `ParsingTurns` counts it."""
        self._waits_for_turn = False
        if not self._is_over and self._can_write.is_set():
            self._read()

    def _read(self) -> None:
        data, self._input = self._input, b""
        began = time.thread_time_ns()
        try:
            events = self._h2.receive_data(data)
            for event in events:
                if not self._is_over:
                    self._handle(event)
        except ProtocolError:  # h2 has already sent the error to the caller
            self._flush()
            self.end()
            return
        except UnicodeDecodeError:
            self._give_up(ErrorCodes.PROTOCOL_ERROR)
            return
        finally:
            spent = (time.thread_time_ns() - began) // 1000
            self._world.get_singleton(GrpcWork).of(str(self.peer.uid)).take(1 + spent)
        if not self._keep_unfinished(0 if events else self._unfinished + len(data)):
            self._give_up(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        self._flush()
        if self._transport is not None and not self._transport.is_closing() and self._can_write.is_set():
            self._transport.resume_reading()

    def _keep_unfinished(self, size: int) -> bool:
        """Reserve memory for the bytes of incomplete frames; return whether there is enough."""
        if is_reserved := self._server.reserve(self.peer.uid, size - self._unfinished):
            self._unfinished = size
        return is_reserved

    def _keep_no_headers(self) -> None:
        """Send headers without a dynamic table, whose size the caller could choose (RFC 7541 section 4.2)."""
        self._h2.encoder.header_table_size = 0
        self._h2.encoder.table_size_changes = [0]

    def _handle(self, event: object) -> None:
        match event:
            case RequestReceived(stream_id=int(id), headers=headers):
                self._begin(id, [(str(name), str(value)) for name, value in headers or ()])
            case DataReceived(stream_id=int(id), data=data, flow_controlled_length=int(length)):
                self._h2.acknowledge_received_data(length, id)
                if (stream := self._streams.get(id)) is not None and stream.task is None and data:
                    stream.body += data
                    if len(stream.body) > 5 + MAX_MESSAGE:
                        self._answer_at_once(id, GrpcStatus.RESOURCE_EXHAUSTED, f"at most {MAX_MESSAGE} bytes")
                    else:
                        self._reserve(id, stream, len(data))
            case StreamEnded(stream_id=int(id)):
                self._start(id)
            case StreamReset(stream_id=int(id)):
                self._drop(id)
            case WindowUpdated(stream_id=int(id)):
                self._wake(id)
            case RemoteSettingsChanged():
                self._keep_no_headers()
                self._wake(0)
            case ConnectionTerminated():
                self.end()

    def _wake(self, id: int) -> None:
        """Let a call (its stream id), or all calls for 0, try again to send."""
        for one in self._streams.values() if id == 0 else filter(None, [self._streams.get(id)]):
            one.has_window.set()

    def _begin(self, id: int, sent: list[tuple[str, str]]) -> None:
        """Handle the headers of a call. If they are not those of a valid call, end the call with an error."""
        calls = self._world.get_singleton(GrpcCalls).of(str(self.peer.uid))
        headers = dict[str, str]()
        for name, value in sent:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
        size = sum(len(name) + len(value) + 32 for name, value in sent)
        stream = self._streams[id] = _Stream(headers)
        if headers.get(":method") != "POST" or not _is_grpc(headers.get("content-type", "")):
            self._refuse_http(id, 415)
        elif headers.get("te") != "trailers" or headers.get("grpc-encoding", "identity") != "identity":
            self._answer_at_once(id, GrpcStatus.UNIMPLEMENTED, "no compression, and `te: trailers`")
        elif headers.get(":path") not in self._server.methods:
            self._answer_at_once(id, GrpcStatus.UNIMPLEMENTED, "there is no such method")
        elif "grpc-timeout" in headers and _timeout_s(headers["grpc-timeout"]) is None:
            self._answer_at_once(id, GrpcStatus.INVALID_ARGUMENT, "`grpc-timeout` is malformed")
        elif size > MAX_HEADERS:
            self._answer_at_once(id, GrpcStatus.RESOURCE_EXHAUSTED, f"at most {MAX_HEADERS} bytes of metadata")
        elif not calls.has(1):
            self._answer_at_once(id, GrpcStatus.UNAVAILABLE, "too many calls of this user; try again later")
        elif self._reserve(id, stream, CALL_BYTES + size):
            calls.take(1)
            stream.timer = self._loop.call_later(
                REQUEST_S, self._answer_at_once, id, GrpcStatus.DEADLINE_EXCEEDED, "the message did not arrive"
            )

    def _reserve(self, id: int, stream: _Stream, size: int) -> bool:
        """Reserve memory for a call. If there is not enough, end the call with an error; return whether memory was
        reserved.
        """
        if is_reserved := self._server.reserve(self.peer.uid, size):
            stream.reserved += size
        else:
            self._answer_at_once(id, GrpcStatus.RESOURCE_EXHAUSTED, "the open calls of this user use too much memory")
        return is_reserved

    def _start(self, id: int) -> None:
        """Run the method of a call that has arrived completely."""
        stream = self._streams.get(id)
        if stream is None or stream.task is not None:
            return
        if stream.timer is not None:
            stream.timer.cancel()
        body = bytes(stream.body)
        if len(body) < 5 or body[0] != 0 or int.from_bytes(body[1:5], "big") != len(body) - 5:
            self._answer_at_once(id, GrpcStatus.INVALID_ARGUMENT, "the call is not one uncompressed message")
            return
        metadata = {name: value for name, value in stream.headers.items() if not name.startswith(":")}
        call = GrpcCall(self.peer, stream.headers[":path"].rpartition("/")[2], metadata, body[5:])
        stream.task = self._loop.create_task(self._serve(id, stream, call))

    async def _serve(self, id: int, stream: _Stream, call: GrpcCall) -> None:
        status, message = GrpcStatus.OK, ""
        has_headers = False
        try:
            async with (
                asyncio.timeout(_timeout_s(stream.headers.get("grpc-timeout"))),
                aclosing(self._server.methods[stream.headers[":path"]](call)) as answers,
            ):
                async for answer in answers:
                    await self._send_in_time(id, stream, answer, with_headers=not has_headers)
                    has_headers = True
        except Refused as refusal:
            status, message = grpc_status(refusal), refusal.message
            self._world.get_singleton(GrpcWork).of(str(self.peer.uid)).take(REFUSED_US)
        except TimeoutError:
            status, message = GrpcStatus.DEADLINE_EXCEEDED, "the deadline of the call has passed"
        except ProtocolError:  # the caller has left, or does not read
            self._drop(id)
            return
        except Exception as error:
            log.exception("the call %s failed", call.method)
            failure = storage_failure(error)
            status = GrpcStatus.INTERNAL if failure is None else GrpcStatus.UNAVAILABLE
            message = "the server failed" if failure is None else failure.message
        self._finish(id, status, message, with_headers=not has_headers)

    async def _send_in_time(self, id: int, stream: _Stream, message: bytes, *, with_headers: bool) -> None:
        """Send a message. If the caller does not read it in time, reset the call. Raises ProtocolError if the caller
        has left or reads too slowly.
        """
        try:
            async with asyncio.timeout(STUCK_S):
                await self._send(id, stream, message, with_headers=with_headers)
        except TimeoutError:
            self._h2.reset_stream(id, ErrorCodes.CANCEL)
            self._flush()
            raise StreamClosedError(id) from None

    async def _send(self, id: int, stream: _Stream, message: bytes, *, with_headers: bool) -> None:
        """Send a message as fast as the caller reads it. Raises ProtocolError if the caller has left."""
        await self._can_write.wait()
        if with_headers:
            self._check_open(id)
            self._h2.send_headers(id, [(":status", "200"), ("content-type", "application/grpc")])
        rest = memoryview(b"\0" + len(message).to_bytes(4, "big") + message)
        while rest:
            await self._can_write.wait()
            self._check_open(id)
            size = min(self._h2.local_flow_control_window(id), self._h2.max_outbound_frame_size, len(rest))
            if size <= 0:
                stream.has_window.clear()
                self._flush()
                await stream.has_window.wait()
                continue
            self._h2.send_data(id, bytes(rest[:size]))
            rest = rest[size:]
            self._flush()

    def _check_open(self, id: int) -> None:
        if id not in self._streams or self._transport is None or self._transport.is_closing():
            raise StreamClosedError(id)

    def _answer_at_once(self, id: int, status: GrpcStatus, message: str) -> None:
        if id in self._streams:
            self._finish(id, status, message, with_headers=True)
            self._flush()

    def _finish(self, id: int, status: GrpcStatus, message: str, *, with_headers: bool) -> None:
        """End a call by trailers with the status and the message."""
        headers = [(":status", "200"), ("content-type", "application/grpc")] if with_headers else []
        trailers = [
            ("grpc-status", str(int(status))),
            *([("grpc-message", quote(message, safe=" "))] if message else []),
        ]
        self._end_stream(id, [*headers, *trailers])

    def _refuse_http(self, id: int, status: int) -> None:
        self._end_stream(id, [(":status", str(status))])

    def _end_stream(self, id: int, headers: list[tuple[str, str]]) -> None:
        if id not in self._streams:
            return
        with suppress(ProtocolError):  # the caller has already closed the stream
            self._h2.send_headers(id, headers, end_stream=True)
            # the caller has not ended its side of the stream
            if (opened := self._h2.streams.get(id)) is not None and not opened.closed:
                self._h2.reset_stream(id, ErrorCodes.NO_ERROR)
        self._forget(id)
        self._flush()

    def _drop(self, id: int) -> asyncio.Task[None] | None:
        """Remove a call whose caller has left. Cancel its task, and return the task if there is one."""
        if (stream := self._forget(id)) is None:
            return None
        if stream.task is not None and stream.task is not asyncio.current_task():
            stream.task.cancel()
        return stream.task

    def _forget(self, id: int) -> _Stream | None:
        """Remove and return a call, and release its memory; None if there is no such call."""
        if (stream := self._streams.pop(id, None)) is not None:
            self._server.reserve(self.peer.uid, -stream.reserved)
            if stream.timer is not None:
                stream.timer.cancel()
        return stream

    def _on_peer_end(self) -> None:
        self._give_up(ErrorCodes.NO_ERROR)

    def _give_up(self, code: ErrorCodes) -> None:
        with suppress(ProtocolError):
            self._h2.close_connection(code)
        self._flush()
        self.end()

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing() and (data := self._h2.data_to_send()):
            self._transport.write(data)


def _is_grpc(content_type: str) -> bool:
    return content_type.partition(";")[0].strip() in ("application/grpc", "application/grpc+proto")


def _timeout_s(text: str | None) -> float | None:
    """Return the seconds of a `grpc-timeout`; None if it is absent or malformed."""
    match = None if text is None else _TIMEOUT.fullmatch(text)
    return None if match is None else int(match[1]) * _UNITS[match[2]]
