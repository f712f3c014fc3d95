"""The client: requests rendered beforehand over keep-alive connections, one in flight on each, from one thread.

While the clock runs, the client reads only the status and the length of an answer. One core of the client therefore
loads one core of the server fully.
"""

from __future__ import annotations

import collections
import itertools
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Ran:
    """The answers to the requests, in their order; `seconds` from the first byte sent to the last received."""

    seconds: float
    statuses: list[int]
    heads: list[bytes]
    bodies: list[bytes]
    latencies: list[float]
    """seconds each"""

    def quantile(self, part: float) -> float:
        """Return the latency that this part of the requests did not exceed."""
        return sorted(self.latencies)[min(int(part * len(self.latencies)), len(self.latencies) - 1)]


class _Connection:
    __slots__ = ("number", "received", "sent_at", "socket", "wanted")

    def __init__(self, port: int, source: str = "127.0.0.1", *, waits: bool = True) -> None:
        self.socket = socket.socket()
        self.socket.bind((source, 0))
        self.socket.setblocking(waits)
        with suppress(BlockingIOError):  # the connection is opened in the background
            self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.number, self.sent_at = -1, 0.0
        self.received, self.wanted = b"", 0


class _Answers:
    """The answers so far, each at the index of its request."""

    def __init__(self, count: int) -> None:
        self.statuses, self.heads, self.bodies, self.latencies = (
            [0] * count,
            [b""] * count,
            [b""] * count,
            [0.0] * count,
        )
        self.count = 0

    def take(self, connection: _Connection, latency: float) -> bytes:
        """Take the whole answer from a connection, which can then carry another request; return the head."""
        index = connection.number
        self.latencies[index] = latency
        self.statuses[index] = int(connection.received[9:12])
        self.heads[index], _, self.bodies[index] = connection.received.partition(b"\r\n\r\n")
        connection.received, connection.wanted = b"", -1
        self.count += 1
        return self.heads[index]


def drive(port: int, requests: Sequence[bytes], *, connections: int) -> Ran:
    """Send every request once and wait for its answer, `connections` of them in flight."""
    count = len(requests)
    answers = _Answers(count)
    poll = select.epoll()
    opened = {c.socket.fileno(): c for c in (_Connection(port) for _ in range(min(connections, count)))}
    for number in opened:
        poll.register(number, select.EPOLLIN)
    queue = iter(range(count))
    clock = time.perf_counter
    started = clock()
    for connection in opened.values():
        _send(connection, next(queue), requests, clock())
    while answers.count < count:
        ready = poll.poll(TIMEOUT_S)
        if not ready:
            raise TimeoutError(f"no answer for {TIMEOUT_S} s; {answers.count} of {count} came")
        for number, _ in ready:
            connection = opened[number]
            if not _receive(connection):
                continue
            now = clock()
            answers.take(connection, now - connection.sent_at)
            if (following := next(queue, None)) is not None:
                _send(connection, following, requests, now)
    seconds = clock() - started
    for connection in opened.values():
        connection.socket.close()
    poll.close()
    return Ran(seconds, answers.statuses, answers.heads, answers.bodies, answers.latencies)


def _send(connection: _Connection, number: int, requests: Sequence[bytes], now: float) -> None:
    connection.number, connection.sent_at, connection.wanted = number, now, -1
    connection.socket.sendall(requests[number])


def _receive(connection: _Connection) -> bool:
    """Read the next part of an answer; return whether the answer is whole."""
    part = connection.socket.recv(1 << 18)
    if not part:
        raise ConnectionError("the server closed a connection")
    received = connection.received = connection.received + part
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return False
    if connection.wanted < 0:
        head = received[:end].lower() + b"\r\n"
        if b"\r\ntransfer-encoding: chunked\r\n" in head:
            return received.endswith(b"\r\n0\r\n\r\n")
        at = head.index(b"\r\ncontent-length:") + 17
        connection.wanted = int(head[at : head.index(b"\r\n", at)])
    return len(received) - end - 4 >= connection.wanted


def render(
    method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes = b"", media_type: str = ""
) -> bytes:
    """Return the bytes of one HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if media_type:
        lines += [f"content-type: {media_type}"]
    if body:
        lines += [f"content-length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@dataclass(frozen=True, slots=True)
class Offered(Ran):
    """Results of an open loop. `late`: how long after its time each request was sent, in seconds; `resent`: how many
    went out again because the server had closed their idle connection.
    """

    late: list[float]
    resent: int
    most_in_flight: int


def offer(
    port: int, requests: Sequence[bytes], *, rate: float, addresses: int, connections: int | None = None
) -> Offered:
    """Send every request at its time, `rate` a second, whether or not earlier requests are answered (an open loop).

    The clients have `addresses` loopback addresses of their own (127.0.0.2 and so on). A connection carries one request
    at a time, and is used again. If none is idle, another connection is opened, so that connections never limit the
    load. With `connections` there are at most so many, and a due request waits at the client for one of them. A request
    that is answered 503 is not sent again, as a client that heeds `Retry-After` would do later. A latency counts from
    the time at which the request was due.
    """
    count = len(requests)
    answers, late = _Answers(count), [0.0] * count
    poll, clock = select.epoll(), time.perf_counter
    opened: dict[int, _Connection] = {}
    idle: list[_Connection] = []
    waiting = collections.deque[int]()
    sources = itertools.cycle(f"127.0.0.{2 + number}" for number in range(addresses))
    sent = resent = most = 0

    def send(number: int, now: float) -> None:
        while idle:
            connection = idle.pop()
            try:
                return _send(connection, number, requests, now)
            except OSError:  # closed while it was idle
                drop(connection)
        if connections is not None and len(opened) >= connections:
            return waiting.append(number)
        connection = _Connection(port, next(sources), waits=False)
        connection.number = number
        opened[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLOUT)  # the request is sent when the server accepts

    def drop(connection: _Connection) -> None:
        del opened[connection.socket.fileno()]
        connection.socket.close()

    started = heard = clock()
    while answers.count < count:
        now = clock()
        while sent < count and started + sent / rate <= now:
            late[sent] = now - (started + sent / rate)
            send(sent, now)
            sent += 1
        most = max(most, sent - answers.count)
        due_s = started + sent / rate - now if sent < count else TIMEOUT_S
        for number, event in poll.poll(max(0.0, min(due_s, 0.05))):
            if (connection := opened.get(number)) is None:
                continue
            try:
                if event & select.EPOLLOUT and not connection.sent_at:
                    connection.socket.setblocking(True)
                    _send(connection, connection.number, requests, clock())
                    poll.modify(number, select.EPOLLIN)
                    continue
                is_whole = _receive(connection)
            except OSError:
                drop(connection)
                if connection in idle:
                    idle.remove(connection)
                    if waiting:
                        send(waiting.popleft(), clock())
                elif connection.received:
                    raise
                else:  # closed as the request came, so the server did not read it (RFC 9112 section 9.3.1)
                    resent += 1
                    send(connection.number, clock())
                continue
            if not is_whole:
                continue
            heard = clock()
            head = answers.take(connection, heard - (started + connection.number / rate))
            if b"\r\nconnection: close" in head.lower():
                drop(connection)
            else:
                idle.append(connection)
            if waiting:
                send(waiting.popleft(), heard)
        if clock() - heard > TIMEOUT_S and sent > answers.count:
            raise TimeoutError(f"no answer for {TIMEOUT_S} s; {answers.count} of {count} came")
    seconds = clock() - started
    for connection in opened.values():
        connection.socket.close()
    poll.close()
    return Offered(seconds, answers.statuses, answers.heads, answers.bodies, answers.latencies, late, resent, most)
