"""Connections are taken many at a time, and again once the system has room for them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.patience import eventually_async
from ostiaryd.ground.http import acceptor
from ostiaryd.ground.http.acceptor import Acceptor
from tests.ground.event_loops import LOOPS, NewLoop


class Counting(asyncio.Protocol):
    """Counts the connections that were opened, and closes each."""

    def __init__(self, opened: list[int]) -> None:
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opened.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        transport.close()


@contextmanager
def waiting(count: int) -> Iterator[socket.socket]:
    """A listening socket in whose queue so many connections wait."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(acceptor.QUEUE)
        clients = [socket.create_connection(sock.getsockname()) for _ in range(count)]
        yield sock
        for client in clients:
            client.close()


@LOOPS
def test_a_round_takes_as_many_connections_as_wait_up_to_its_limit(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "AT_ONCE", 8)
    opened: list[int] = []

    async def take(sock: socket.socket) -> int:
        accepting = Acceptor(sock, lambda: Counting(opened))
        rounds = 0
        while len(opened) < 40:
            await asyncio.sleep(0)
            rounds += 1
        accepting.close()
        return rounds

    with waiting(40) as sock, asyncio.Runner(loop_factory=new_loop) as runner:
        assert 5 <= runner.run(take(sock)) < 40
    assert opened == [1] * 40, "small answers are not held back (TCP_NODELAY)"


class Exhausted(socket.socket):
    """A listening socket of a process that has no descriptor left, for so many calls."""

    left = 2

    def accept(self) -> tuple[socket.socket, object]:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@LOOPS
def test_without_a_descriptor_it_waits_and_then_takes_those_that_wait(new_loop: NewLoop) -> None:
    opened: list[int] = []

    async def take() -> None:
        with Exhausted() as sock:
            sock.bind(("127.0.0.1", 0))
            accepting = Acceptor(sock, lambda: Counting(opened))
            client = socket.create_connection(sock.getsockname())
            await eventually_async(lambda: opened)
            accepting.close()
            client.close()
            assert sock.left == 0

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(take())
    assert len(opened) == 1


@LOOPS
def test_once_closed_it_takes_no_connection(new_loop: NewLoop) -> None:
    opened: list[int] = []

    async def refuse(sock: socket.socket) -> None:
        Acceptor(sock, lambda: Counting(opened)).close()
        for _ in range(10):
            await asyncio.sleep(0)

    with waiting(1) as sock, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(refuse(sock))
    assert not opened
