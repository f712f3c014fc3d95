"""Connections are taken many at a time, and again once the system has room for them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.patience import PATIENCE_S, eventually_async
from ostiaryd.ground.http import acceptor, turns
from ostiaryd.ground.http.acceptor import REFUSAL, Acceptor
from ostiaryd.ground.http.turns import ParsingTurns
from tests.ground.event_loops import LOOPS, NewLoop


class Counting(asyncio.Protocol):
    """Counts the connections that were opened, and closes each."""

    def __init__(self, opened: list[int]) -> None:
        self._opened = opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opened.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        transport.close()


@contextmanager
def waiting(count: int, *, then_from: str = "127.0.0.1") -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """A listening socket in whose queue so many connections wait, the last from another address; and their clients."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(acceptor.QUEUE)
        addresses = ["127.0.0.1"] * (count - 1) + [then_from]
        clients = [socket.create_connection(sock.getsockname(), source_address=(one, 0)) for one in addresses]
        yield sock, clients
        for client in clients:
            client.close()


RESET = b"reset"


def read_all(client: socket.socket) -> bytes:
    """Return the bytes that a server sends before it closes the connection, and `RESET` if it resets the connection."""
    client.settimeout(PATIENCE_S)
    received = b""
    try:
        while part := client.recv(4096):
            received += part
    except ConnectionResetError:
        received += RESET
    return received


async def count_rounds(sock: socket.socket, opened: list[int], count: int, turns: ParsingTurns | None = None) -> int:
    """Return the number of rounds of the event loop in which `count` connections are opened."""
    accepting, rounds = Acceptor(sock, lambda _: Counting(opened), turns=turns), 0
    while len(opened) < count:
        await asyncio.sleep(0)
        rounds += 1
    accepting.close()
    return rounds


@LOOPS
def test_a_round_of_the_event_loop_accepts_at_most_a_limited_number_of_connections(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "AT_ONCE", 8)
    opened: list[int] = []

    with waiting(40) as (sock, _), asyncio.Runner(loop_factory=new_loop) as runner:
        assert 5 <= runner.run(count_rounds(sock, opened, 40)) < 40
    assert opened == [1] * 40, "small answers are not held back (TCP_NODELAY)"


@LOOPS
def test_a_round_opens_one_connection_while_an_administrator_sends(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, opened = ParsingTurns(), list[int]()
    monkeypatch.setattr(turns.arrivals, "has_new", lambda: True)

    with waiting(10) as (sock, _), asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(count_rounds(sock, opened, 10, turns)) >= 10


class Naming(asyncio.Protocol):
    """Notes the addresses of the connections that are opened."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._addresses.append(transport.get_extra_info("peername")[0])
        transport.close()


def opened_addresses(sock: socket.socket, new_loop: NewLoop, *, count: int) -> list[str]:
    """Accept until so many connections are open; return their addresses in order."""
    addresses: list[str] = []

    async def take() -> None:
        accepting = Acceptor(sock, lambda _: Naming(addresses))
        await eventually_async(lambda: len(addresses) >= count)
        accepting.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(take())
    return addresses


@LOOPS
def test_a_connection_from_a_second_address_is_accepted_before_the_queue_of_the_first(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "AT_ONCE", 2)
    with waiting(20, then_from="127.0.0.9") as (sock, _):
        assert "127.0.0.9" in opened_addresses(sock, new_loop, count=20)[:2]


@LOOPS
def test_a_connection_from_an_address_of_an_administrator_is_opened_first(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsing, made = ParsingTurns(), list[bool]()

    def make(is_expected: bool) -> asyncio.Protocol:
        made.append(is_expected)
        return Counting([])

    async def take() -> None:
        accepting = Acceptor(sock, make, turns=parsing)
        await eventually_async(lambda: len(made) == 20)
        accepting.close()

    parsing.arrivals.note_address("127.0.0.9")
    with waiting(20, then_from="127.0.0.9") as (sock, _), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(take())
    assert made == [True] + [False] * 19


@LOOPS
@pytest.mark.parametrize("most", [19, 20])
def test_a_connection_beyond_the_limit_refuses_the_oldest_of_the_address_with_the_most(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(acceptor, "MAX_TAKEN", most)
    with waiting(20, then_from="127.0.0.9") as (sock, clients):
        addresses = opened_addresses(sock, new_loop, count=most)
        answers = [read_all(client) for client in clients]
    assert (len(addresses), addresses.count("127.0.0.9")) == (most, 1)
    assert answers == [REFUSAL] * (20 - most) + [b""] * most


@LOOPS
@pytest.mark.parametrize(("longest_s", "refused"), [(-1.0, 6), (PATIENCE_S, 0)])
def test_connections_that_wait_too_long_are_refused_with_503_while_many_wait(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch, longest_s: float, refused: int
) -> None:
    monkeypatch.setattr(acceptor, "LONGEST_WAIT_S", longest_s)
    monkeypatch.setattr(acceptor, "MANY", 14)
    with waiting(20) as (sock, clients):
        for client in clients:
            client.send(b"POST /token HTTP/1.1\r\nhost: ")  # unread bytes do not destroy the answer
        opened_addresses(sock, new_loop, count=20 - refused)
        answers = [read_all(client) for client in clients]
    assert answers[:refused] == [REFUSAL] * refused
    assert set(answers[refused:]) <= {b"", RESET}


@LOOPS
def test_no_connection_is_accepted_or_opened_in_a_pause(new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "AT_ONCE", 2)
    monkeypatch.setattr(turns, "LONGEST_PAUSE_S", PATIENCE_S)
    opened: list[int] = []

    async def take(sock: socket.socket, parsing: ParsingTurns) -> None:
        loop = asyncio.get_running_loop()
        accepting = Acceptor(sock, lambda _: Counting(opened), turns=parsing)
        with parsing.paused(loop):
            for _ in range(20):
                await asyncio.sleep(0)
            assert not opened
        await eventually_async(lambda: opened)
        with parsing.paused(loop):
            before = len(opened)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(opened) <= before + 4, "what was about to be opened is opened"
        await eventually_async(lambda: len(opened) == 20)
        accepting.close()

    with waiting(20) as (sock, _), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(take(sock, ParsingTurns()))


@LOOPS
def test_an_acceptor_that_is_closed_in_a_pause_stays_closed(new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_PAUSE_S", PATIENCE_S)
    opened: list[int] = []

    async def close(sock: socket.socket, parsing: ParsingTurns) -> None:
        loop = asyncio.get_running_loop()
        accepting = Acceptor(sock, lambda _: Counting(opened), turns=parsing)
        with parsing.paused(loop):
            for _ in range(5):
                await asyncio.sleep(0)
            accepting.close()
        for _ in range(10):
            await asyncio.sleep(0)

    with waiting(1) as (sock, _), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(close(sock, ParsingTurns()))
    assert not opened


class Exhausted(socket.socket):
    """A listening socket of a process without a free descriptor, for a number of calls."""

    left = 2

    def accept(self) -> tuple[socket.socket, object]:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@LOOPS
def test_the_acceptor_accepts_waiting_connections_after_a_descriptor_is_free_again(new_loop: NewLoop) -> None:
    opened: list[int] = []

    async def take() -> None:
        with Exhausted() as sock:
            sock.bind(("127.0.0.1", 0))
            accepting = Acceptor(sock, lambda _: Counting(opened))
            client = socket.create_connection(sock.getsockname())
            await eventually_async(lambda: opened)
            accepting.close()
            client.close()
            assert sock.left == 0

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(take())
    assert len(opened) == 1


class ExhaustedByOne(Exhausted):
    """A listening socket of a process whose last descriptor went to a connection."""

    left = 0

    def accept(self) -> tuple[socket.socket, object]:
        accepted = super().accept()
        self.left = 1 << 20
        return accepted


@LOOPS
def test_a_connection_that_takes_the_last_descriptor_is_opened(new_loop: NewLoop) -> None:
    opened: list[int] = []

    async def take() -> None:
        with ExhaustedByOne() as sock:
            sock.bind(("127.0.0.1", 0))
            accepting = Acceptor(sock, lambda _: Counting(opened))
            client = socket.create_connection(sock.getsockname())
            await eventually_async(lambda: opened)
            accepting.close()
            client.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(take())


@LOOPS
def test_a_closed_acceptor_accepts_no_connection(new_loop: NewLoop) -> None:
    opened: list[int] = []

    async def refuse(sock: socket.socket) -> None:
        Acceptor(sock, lambda _: Counting(opened)).close()
        for _ in range(10):
            await asyncio.sleep(0)

    with waiting(1) as (sock, _), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(refuse(sock))
    assert not opened
