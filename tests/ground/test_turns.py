"""Turns of parsing: each round of the event loop spends a bounded time on the bytes of clients."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from harness.patience import PATIENCE_S, eventually_async
from ostiaryd.ground.http import arrivals, protocol, turns
from ostiaryd.ground.http.acceptor import Acceptor
from ostiaryd.ground.http.connections import Connections
from ostiaryd.ground.http.edge import Call, Endpoint, Reply, Wire, render_admin, reply
from ostiaryd.ground.http.protocol import MAX_HEAD_BYTES, Protocol, is_one_request
from ostiaryd.ground.http.turns import (
    CLOSED_AT_ONCE,
    CLOSED_PART,
    EACH_S,
    LONGEST_ROUND_S,
    LONGEST_WAIT_S,
    MANY,
    ROUND_S,
    ParsingTurns,
)
from ostiaryd.ground.world import World
from tests.ground.http_server import find_target, post, serving

READ = 256 << 10
"""bytes that the event loop reads from a socket at once"""


async def test_connections_beyond_the_time_of_a_round_wait_in_order_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "ROUND_S", 1e-9)
    monkeypatch.setattr(turns, "EACH_S", 0)
    loop, parsing, parsed = asyncio.get_running_loop(), ParsingTurns(), list[int]()
    assert parsing.is_free
    parsing.run(partial(parsed.append, 0), loop)
    assert not parsing.is_free, "the time of this round is used up"
    for number in (1, 2, 3):
        parsing.wait(partial(parsed.append, number), loop)
    for rounds in range(1, 5):
        assert parsed == list(range(rounds))
        await asyncio.sleep(0)


async def test_an_error_in_one_turn_does_not_affect_the_next_turn() -> None:
    loop, parsing, parsed, errors = asyncio.get_running_loop(), ParsingTurns(), list[int](), list[object]()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    error = OSError("of one connection")

    def fail() -> None:
        raise error

    parsing.wait(fail, loop)
    parsing.wait(partial(parsed.append, 1), loop)
    await eventually_async(lambda: parsing.is_free)
    assert (parsed, errors) == ([1], [error])


async def test_a_round_with_time_left_parses_the_waiting_connections() -> None:
    loop, parsing, parsed = asyncio.get_running_loop(), ParsingTurns(), list[int]()
    parsing.wait(partial(parsed.append, 0), loop)
    assert not parsing.is_free, "a connection waits, and comes first"
    await eventually_async(lambda: parsing.is_free)
    assert parsed == [0]


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        (1, ROUND_S),
        (int(ROUND_S / EACH_S) * 2, 2 * ROUND_S),
        (10_000, LONGEST_ROUND_S),
    ],
)
async def test_a_round_is_longer_with_more_waiting_connections_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, waiting: int, expected: float
) -> None:
    """The clock is read twice for each connection, and a connection takes 0.1 ms."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.00005
        return now

    monkeypatch.setattr("time.perf_counter", clock)
    loop, parsing, parsed = asyncio.get_running_loop(), ParsingTurns(), list[int]()
    for number in range(waiting):
        parsing.wait(partial(parsed.append, number), loop)
    await asyncio.sleep(0)
    most = round(expected / 0.00005)
    assert len(parsed) == min(waiting, most) or len(parsed) == most + 1


@pytest.mark.parametrize(
    ("waited_s", "waiting", "expected"),
    [
        (LONGEST_WAIT_S + 0.001, MANY + 1, ["refused", *["parsed"] * MANY]),
        (LONGEST_WAIT_S - 0.001, MANY + 1, ["parsed"] * (MANY + 1)),
        (LONGEST_WAIT_S + 0.001, MANY, ["parsed"] * MANY),
    ],
)
async def test_a_turn_is_refused_only_if_late_and_while_many_connections_wait(
    monkeypatch: pytest.MonkeyPatch, waited_s: float, waiting: int, expected: list[str]
) -> None:
    used_s = 0.0
    monkeypatch.setattr("time.thread_time", lambda: used_s)
    loop, parsing, done = asyncio.get_running_loop(), ParsingTurns(), list[str]()
    for _ in range(waiting):
        parsing.wait(partial(done.append, "parsed"), loop, refuse=partial(done.append, "refused"))
    used_s += waited_s
    await eventually_async(lambda: parsing.is_free)
    assert done == expected


async def test_waiting_addresses_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, parsing, parsed = asyncio.get_running_loop(), ParsingTurns(), list[str]()
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2"):
        parsing.wait(partial(parsed.append, address), loop, address=address)
    await eventually_async(lambda: parsing.is_free)
    assert parsed == ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.1", "2001:db8::2", "192.0.2.1"]


async def test_bytes_of_other_clients_are_not_parsed_during_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_PAUSE_S", PATIENCE_S)
    loop, parsing, parsed = asyncio.get_running_loop(), ParsingTurns(), list[int]()
    with parsing.paused(loop), parsing.paused(loop):
        parsing.wait(partial(parsed.append, 0), loop)
        parsing.after_pause(partial(parsed.append, 1))
        for _ in range(5):
            await asyncio.sleep(0)
        assert (parsed, parsing.is_free, parsing.is_paused) == ([], False, True)
    await eventually_async(lambda: parsing.is_free)
    assert parsed == [1, 0]


async def test_a_pause_that_begins_in_a_round_delays_the_next_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_PAUSE_S", PATIENCE_S)
    loop, parsing, parsed = asyncio.get_running_loop(), ParsingTurns(), list[int]()
    parsing.wait(partial(parsed.append, 0), loop)
    with parsing.paused(loop):
        for _ in range(5):
            await asyncio.sleep(0)
        assert not parsed
    await eventually_async(lambda: parsed == [0])


async def test_a_pause_lasts_through_rounds_up_to_50_ms() -> None:
    loop, parsing, parsed = asyncio.get_running_loop(), ParsingTurns(), list[float]()
    began = loop.time()
    with parsing.paused(loop):
        parsing.wait(lambda: parsed.append(loop.time() - began), loop)
        for _ in range(5):
            await asyncio.sleep(0.001)
            assert bool(parsed) is not parsing.is_paused
        await eventually_async(lambda: parsed)
    assert parsed[0] >= 0.05


async def test_a_pause_ends_at_its_limit_even_if_the_stop_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST_PAUSE_S", 0.01)
    loop, parsing, parsed = asyncio.get_running_loop(), ParsingTurns(), list[int]()
    with parsing.paused(loop):
        parsing.wait(partial(parsed.append, 0), loop)
        await eventually_async(lambda: parsed == [0])
        assert not parsing.is_paused


async def test_endless_stops_leave_half_of_the_time_to_other_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    loop, parsing = asyncio.get_running_loop(), ParsingTurns()
    with parsing.paused(loop):
        now += 0.04
    for later, expected in ((0.039, False), (0.041, True)):
        now = 0.04 + later
        with parsing.paused(loop):
            assert parsing.is_paused is expected, later


class HeldTurns(ParsingTurns):
    """Turns that come when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.held = list[Callable[[], None]]()
        self.refusals = list[Callable[[], None] | None]()

    @property
    def is_free(self) -> bool:
        return False

    def wait(
        self,
        parse: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        *,
        address: str = "",
        refuse: Callable[[], None] | None = None,
    ) -> None:
        self.held.append(parse)
        self.refusals.append(refuse)

    def release(self) -> None:
        held, self.held = self.held, []
        for parse in held:
            parse()


class Served:
    """A server whose turns a test holds up, and its connections."""

    def __init__(
        self, connections: Connections, port: int, made: list[Protocol], make: Callable[[bool], Protocol]
    ) -> None:
        self.connections, self.port, self.made, self._make = connections, port, made, make
        self.turns = HeldTurns()

    def hold(self) -> None:
        self.turns.arrivals = self.connections.turns.arrivals
        self.connections.turns = self.turns

    @contextmanager
    def accepting(self) -> Iterator[int]:
        """The port of a socket from which the class of the server itself accepts."""
        with socket.create_server(("127.0.0.1", 0)) as sock:
            acceptor = Acceptor(sock, self._make, turns=self.connections.turns)
            yield sock.getsockname()[1]
            acceptor.close()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def waits(self, count: int) -> None:
        await eventually_async(lambda: len(self.turns.held) == count)


async def greet(call: Call) -> Reply:
    call.is_privileged = call.header(b"authorization") == "administrator"
    return reply({"path": call.path, "body": len(call.body)})


@asynccontextmanager
async def served(world: World, wire: Wire = greet) -> AsyncIterator[Served]:
    endpoint = Endpoint(world, wire, render=render_admin, proves=True)
    public = Endpoint(world, greet, render=render_admin)
    app = Starlette(
        routes=[
            Route("/greet", endpoint, methods=["POST"]),
            Route("/greet/{name}", endpoint, methods=["POST"]),
            Route("/public", public, methods=["POST"]),
            Route("/stop", Endpoint(world, wire, render=render_admin, proves=True, stops=True), methods=["POST"]),
        ]
    )
    connections, made, options = Connections(), list[Protocol](), dict[str, Any]()

    def make(is_expected: bool = False, **given: Any) -> Protocol:
        options.update(given)
        made.append(Protocol(find_target(app), connections, is_expected=is_expected, **options))
        return made[-1]

    async with serving(app, make) as port:
        yield Served(connections, port, made, make)


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Return the status line of the next answer, and read all of it."""
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    return head.partition(b"\r\n")[0]


OK, BUSY = b"HTTP/1.1 200 OK", b"HTTP/1.1 503 Service Unavailable"


@pytest.mark.parametrize("path", ["/greet", "/greet/x"])
async def test_a_request_on_the_connection_of_an_administrator_does_not_wait_for_a_turn(
    world: World, path: str
) -> None:
    async with served(world) as server:
        (chief, to_chief), (agent, to_agent) = await server.open(), await server.open()
        to_chief.write(post(path, b"", "authorization: administrator"))
        to_agent.write(post(path, b"", "authorization: agent"))
        assert [await answer(chief), await answer(agent)] == [OK, OK]
        server.hold()
        to_agent.write(post(path, b"", "authorization: agent"))
        await server.waits(1)
        to_chief.write(post(path, b"", "authorization: administrator"))
        assert await answer(chief) == OK
        assert len(server.turns.held) == 1
        server.turns.release()
        assert await answer(agent) == OK
        to_chief.close()
        to_agent.close()


@pytest.mark.parametrize("who", ["administrator", "agent"])
async def test_the_first_bytes_from_the_address_of_an_administrator_do_not_wait_for_a_turn(
    world: World, who: str
) -> None:
    async with served(world) as server:
        reader, writer = await server.open()
        writer.write(post("/greet", b"", f"authorization: {who}"))
        assert await answer(reader) == OK
        server.hold()
        with server.accepting() as port:
            other, to_other = await asyncio.open_connection("127.0.0.1", port)
            to_other.write(post("/greet", b"", "authorization: agent"))
            await eventually_async(lambda: server.turns.held or sum(made.answered for made in server.made) == 2)
            assert bool(server.turns.held) is (who == "agent")
            server.turns.release()
            assert await answer(other) == OK
            to_other.write(post("/greet", b"", "authorization: agent"))
            await eventually_async(lambda: server.turns.held or sum(made.answered for made in server.made) == 3)
            assert server.turns.held
            server.turns.release()
            assert await answer(other) == OK
            to_other.close()
        writer.close()


async def test_a_client_at_the_address_of_an_administrator_interrupts_only_one_round(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "ASK_EVERY_S", 0.0)
    async with served(world) as server:
        reader, writer = await server.open()
        writer.write(post("/greet", b"", "authorization: administrator"))
        assert await answer(reader) == OK
        watched = server.connections.turns.arrivals
        with server.accepting() as port, socket.create_connection(("127.0.0.1", port)) as agent:
            await eventually_async(lambda: len(server.made) == 2)
            agent.send(post("/greet", b"", "authorization: agent"))
            assert watched.has_new()
            await eventually_async(lambda: server.made[1].answered == 1)
            agent.send(post("/greet", b"", "authorization: agent"))
            assert not watched.has_new()
            await eventually_async(lambda: server.made[1].answered == 2)
        writer.close()


def test_connections_from_addresses_of_administrators_have_priority_up_to_a_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    watched = arrivals.Arrivals()
    assert not watched.expects("192.0.2.1")
    watched.note_address("192.0.2.1")
    watched.note_address("192.0.2.2")
    expected = [watched.expects(f"192.0.2.{1 + number % 2}") for number in range(arrivals.BURST + 1)]
    assert expected == [True] * arrivals.BURST + [False]
    now += 1 / arrivals.PER_SECOND
    assert [watched.expects("192.0.2.1"), watched.expects("192.0.2.1")] == [True, False]


def test_the_least_recently_used_address_of_an_administrator_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MAX_ADDRESSES", 2)
    watched = arrivals.Arrivals()
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        watched.note_address(address)
    assert [watched.expects(f"192.0.2.{number}") for number in (1, 2, 3)] == [True, False, True]


@pytest.mark.parametrize(("who", "path"), [("administrator", "/stop"), ("administrator", "/greet"), ("agent", "/stop")])
async def test_parsing_pauses_only_when_an_administrator_sends_a_stop(world: World, who: str, path: str) -> None:
    async with served(world) as server:
        reader, writer = await server.open()
        writer.write(post("/greet", b"", f"authorization: {who}"))
        assert await answer(reader) == OK
        [made] = server.made
        made.data_received(post(path, b"", f"authorization: {who}"))
        assert server.connections.turns.is_paused is (who == "administrator" and path == "/stop")
        assert await answer(reader) == OK
        await eventually_async(lambda: not server.connections.turns.is_paused)
        assert server.connections.turns._stops == 0
        writer.close()


@pytest.mark.parametrize("first", ["administrator", "agent"])
async def test_a_stop_begins_in_the_round_in_which_it_is_read(world: World, first: str) -> None:
    """Other requests begin in the next round. `first`: the caller who has authenticated on the connection before."""
    loop, begun, seen = asyncio.get_running_loop(), list[str](), list[list[str]]()

    async def note(call: Call) -> Reply:
        begun.append(call.path)
        return await greet(call)

    async with served(world, note) as server:
        reader, writer = await server.open()
        writer.write(post("/greet", b"", f"authorization: {first}"))
        assert await answer(reader) == OK
        for path in ("/stop", "/greet"):
            begun.clear()
            loop.call_soon(server.made[0].data_received, post(path, b"", "authorization: administrator"))
            loop.call_soon(lambda: seen.append(list(begun)))
            assert await answer(reader) == OK
            assert begun == [path]
        writer.close()
    assert seen == [["/stop"], []]


async def test_only_one_of_many_stops_that_are_read_together_begins_in_the_round(world: World) -> None:
    """Otherwise a client without a token could make a round as long as its requests are many."""
    loop, begun, seen = asyncio.get_running_loop(), list[str](), list[int]()

    async def note(call: Call) -> Reply:
        begun.append(call.path)
        return await greet(call)

    async with served(world, note) as server:
        reader, writer = await server.open()
        await eventually_async(lambda: server.made)
        loop.call_soon(server.made[0].data_received, 3 * post("/stop", b"", "authorization: agent"))
        loop.call_soon(lambda: seen.append(len(begun)))
        for _ in range(3):
            assert await answer(reader) == OK
        writer.close()
    assert (seen, len(begun)) == ([1], 3)


async def test_a_round_of_turns_ends_when_bytes_of_an_administrator_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "ASK_EVERY_S", 0.0)
    monkeypatch.setattr(turns, "ROUND_S", 3600.0)
    loop, parsing, parsed = asyncio.get_running_loop(), ParsingTurns(), list[int]()
    chief, server = socket.socketpair()
    with chief, server:
        parsing.arrivals.watch(server.fileno())
        for number in range(3):
            parsing.wait(partial(parsed.append, number), loop)
        chief.send(b"x")
        await asyncio.sleep(0)
        assert parsed == [0], "the other turns come in a later round"
        await eventually_async(lambda: parsing.is_free)
        assert parsed == [0, 1, 2], "bytes that arrived once end one round"


async def test_the_kernel_is_polled_for_arrivals_at_most_once_per_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = arrivals.Arrivals()
    chief, server = socket.socketpair()
    with chief, server:
        watched.watch(server.fileno())
        assert not watched.has_new()
        chief.send(b"x")
        monkeypatch.setattr(arrivals, "ASK_EVERY_S", 3600.0)
        assert not watched.has_new(), "it was asked just now"
        monkeypatch.setattr(arrivals, "ASK_EVERY_S", 0.0)
        assert watched.has_new()
        assert watched.has_new(), "until the event loop has read its sockets"
        await asyncio.sleep(0)
        assert not watched.has_new(), "bytes that it leaves unread count for one round"


@pytest.mark.parametrize("who", ["administrator", "agent"])
async def test_only_connections_of_administrators_are_watched_for_arrivals(
    world: World, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.setattr(arrivals, "ASK_EVERY_S", 0.0)
    async with served(world) as server:
        reader, writer = await server.open()
        watched = server.connections.turns.arrivals
        writer.write(post("/greet", b"", f"authorization: {who}"))
        assert await answer(reader) == OK
        assert not watched.has_new(), "what was read is not new"
        writer.write(post("/greet", b"", f"authorization: {who}"))
        assert watched.has_new() is (who == "administrator")
        assert await answer(reader) == OK
        writer.close()


class Leaving(asyncio.Transport):
    """A connection whose client has left."""

    def __init__(self, closed: list[Leaving]) -> None:
        super().__init__()
        self._closed = closed

    def close(self) -> None:
        self._closed.append(self)


@pytest.mark.parametrize(
    ("leaving", "expected"),
    [
        (3, [3]),
        (2 * CLOSED_AT_ONCE + 1, [CLOSED_AT_ONCE, CLOSED_AT_ONCE, 1]),
        (100 * CLOSED_AT_ONCE, [100 * CLOSED_AT_ONCE // CLOSED_PART]),
    ],
)
async def test_a_bounded_number_of_abandoned_connections_is_closed_in_each_round(
    leaving: int, expected: list[int]
) -> None:
    loop, parsing, closed = asyncio.get_running_loop(), ParsingTurns(), list[Leaving]()
    for _ in range(leaving):
        parsing.close_soon(Leaving(closed), loop)
    for count in expected:
        before = len(closed)
        await asyncio.sleep(0)
        assert len(closed) - before == count
    await eventually_async(lambda: len(closed) == leaving)


async def test_each_connection_of_a_client_that_left_is_removed(world: World) -> None:
    async with served(world) as server:
        opened = [await server.open() for _ in range(2 * CLOSED_AT_ONCE)]
        await eventually_async(lambda: len(server.connections) == len(opened))
        for _, writer in opened:
            writer.close()
        await eventually_async(lambda: len(server.connections) == 0)


async def test_a_waiting_connection_is_not_read_further_and_its_bytes_are_counted(world: World) -> None:
    async with served(world) as server:
        reader, writer = await server.open()
        writer.write(post("/public", b"", "authorization: administrator"))  # a route that proves nothing
        assert await answer(reader) == OK
        server.hold()
        writer.write(post("/public", b"x" * 1000))
        await server.waits(1)
        [made] = server.made
        before = server.connections.held
        assert before > 1000
        assert not made.is_idle
        assert made.is_answering, "the server is late, and not the client"
        writer.write(post("/public", b"x" * 1000) * 1000)
        for _ in range(100):
            await asyncio.sleep(0)
        assert (server.connections.held, len(server.turns.held)) == (before, 1)
        while made.answered != 1002:
            server.turns.release()
            await asyncio.sleep(0)
            assert len(made._unparsed) < 2 * READ
        for _ in range(1001):
            assert await answer(reader) == OK
        assert server.connections.held == 0
        writer.close()


async def refuse_all(server: Served, count: int) -> None:
    """Refuse the connections that wait for their turns, as if these came too late."""
    await server.waits(count)
    server.turns.held.clear()
    refusals, server.turns.refusals = server.turns.refusals, []
    for refuse in refusals:
        assert refuse is not None
        refuse()


async def test_a_late_request_is_refused_and_its_connection_stays_open(world: World) -> None:
    async with served(world) as server:
        server.hold()
        reader, writer = await server.open()
        for _ in range(2):
            writer.write(post("/greet", b"x" * 1000))
            await refuse_all(server, 1)
            assert await answer(reader) == BUSY
            assert server.connections.held == 0
        writer.write(post("/greet", b"x" * 1000))
        await server.waits(1)
        server.turns.release()
        assert await answer(reader) == OK
        assert server.made[0].answered == 3
        writer.close()


GREET = post("/greet", b"")


@pytest.mark.parametrize(
    ("before", "late"),
    [
        (b"", GREET[:-1]),
        (b"", GREET + GREET),
        (b"", GREET + b"x"),
        (GREET[:-20], GREET[-20:]),
        (post("/greet", GREET)[: -len(GREET)], GREET),
        (b"", b"\r\n" + GREET),
        (b"", post("/greet", b"", "connection: close")),
        (b"", post("/greet", b"", "transfer-encoding: chunked")),
    ],
)
async def test_a_connection_with_more_or_less_than_one_late_request_is_closed(
    world: World, before: bytes, late: bytes
) -> None:
    async with served(world) as server:
        server.hold()
        reader, writer = await server.open()
        if before:
            writer.write(before)
            await server.waits(1)
            server.turns.release()
            server.turns.refusals.clear()
        writer.write(late)
        await refuse_all(server, 1)
        async with asyncio.timeout(PATIENCE_S):
            answers = await reader.read()
        assert answers.startswith(BUSY)
        assert answers.count(b"HTTP/1.1 ") == answers.count(b"connection: close") == 1
        assert server.connections.held == 0
        writer.close()


HEAD = b"POST /a HTTP/1.1\r\nhost: a\r\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (HEAD + b"content-length: 2\r\n\r\nab", True),
        (HEAD + b"Content-Length:2\r\nConnection: Keep-Alive\r\n\r\nab", True),
        (HEAD.replace(b"POST", b"GET") + b"\r\n", True),
        (HEAD + b"content-length: 2\r\n\r\na", False),
        (HEAD + b"content-length: 2\r\n\r\nabc", False),
        (HEAD + b"content-length: 2\r\ncontent-length: 2\r\n\r\nab", False),
        (HEAD + b"content-length: 2\r\nx: a\ncontent-length: 0\r\n\r\nab", False),
        (HEAD + b"content-length: +2\r\n\r\nab", False),
        (HEAD + b"content-length : 2\r\n\r\nab", False),
        (HEAD + b"content-length: 2, 2\r\n\r\nab", False),
        (HEAD + b"x: a\r\n content-length: 2\r\n\r\nab", False),
        (HEAD + b"content-length: 2\r\n 0\r\n\r\nab", False),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", False),
        (HEAD + b"Expect: 100-continue\r\n\r\n", False),
        (HEAD + b"Connection: close\r\n\r\n", False),
        (HEAD + b"Connection: keep-alive, upgrade\r\n\r\n", False),
        (HEAD + b"x: a\rb\r\n\r\n", False),
        (HEAD + b"x: a\0b\r\n\r\n", False),
        (HEAD.replace(b"1.1", b"1.0") + b"\r\n", False),
        (HEAD.replace(b"POST", b"HEAD") + b"\r\n", False),
        (HEAD + b"x: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", False),
        (HEAD, False),
        (b"", False),
    ],
)
def test_only_an_unambiguous_complete_request_counts_as_one_request(data: bytes, expected: bool) -> None:
    assert is_one_request(data) is expected


async def test_the_bytes_that_wait_for_a_turn_are_bounded_in_total(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_HELD", 3000)
    async with served(world) as server:
        server.hold()
        (_, first), (second, to_second) = await server.open(), await server.open()
        first.write(post("/public", b"x" * 2000))
        await server.waits(1)
        to_second.write(post("/public", b"x" * 2000))
        async with asyncio.timeout(PATIENCE_S):
            assert b'"too_much_waits"' in await second.read()
        server.turns.release()
        first.close()
        to_second.close()
        await eventually_async(lambda: server.connections.held == 0)


async def test_a_waiting_connection_whose_client_leaves_is_removed(world: World) -> None:
    async with served(world) as server:
        server.hold()
        _, writer = await server.open()
        writer.write(post("/public"))
        await server.waits(1)
        writer.transport.abort()

        def has_left() -> bool:
            server.turns.release()
            return len(server.connections) == 0

        await eventually_async(has_left)
        assert server.connections.held == 0


async def test_pipelined_requests_of_one_client_are_refused_over_many_rounds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.ground.database.writer.CROWDED_PART", 0)
    monkeypatch.setattr(turns, "ROUND_S", 1e-9)
    monkeypatch.setattr(turns, "EACH_S", 0)
    loop, rounds, refused = asyncio.get_running_loop(), 0, Counter[int]()

    def refuse(call: Call) -> bool:
        refused[rounds] += 1
        return True

    def begin_round() -> None:
        nonlocal rounds
        rounds += 1
        if refused.total() < many:
            loop.call_soon(begin_round)

    one, many = b"POST /busy HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", 2000
    endpoint = Endpoint(world, greet, render=render_admin, is_refused=refuse)
    app = Starlette(routes=[Route("/busy", endpoint, methods=["POST"])])
    async with serving(app, partial(Protocol, find_target(app), Connections())) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        loop.call_soon(begin_round)
        writer.write(one * many)
        for _ in range(many):
            assert await answer(reader) == BUSY
        writer.close()
    assert max(refused.values()) <= protocol.SLICE_BYTES // len(one) + 1


@pytest.mark.parametrize("seed", range(8))
async def test_pipelined_requests_are_answered_in_order_with_very_short_rounds(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("ostiaryd.ground.database.writer.CROWDED_PART", 0)
    monkeypatch.setattr(turns, "ROUND_S", 1e-9)
    monkeypatch.setattr(turns, "EACH_S", 0)
    draw, lengths, statuses = random.Random(seed), list[int](), Counter[bytes]()

    async def tell(call: Call) -> Reply:
        call.is_privileged = call.header(b"authorization") == "administrator"
        for _ in range(draw.randrange(3)):
            await asyncio.sleep(0)
        lengths.append(len(call.body))
        return reply({})

    endpoint = Endpoint(world, tell, render=render_admin, is_refused=lambda call: call.body[:1] == b"b", proves=True)
    app = Starlette(
        routes=[
            Route("/plain", endpoint, methods=["POST"]),
            Route("/named/{name}", endpoint, methods=["POST"]),
        ]
    )
    kinds = [
        (post("/plain", b"busy"), (OK, BUSY), 4),
        (post("/plain", b"x" * 200), (OK,), 200),
        (post("/plain", b"x" * 9000), (OK,), 9000),
        (post("/named/x", b"x"), (OK,), 1),
        (post("/named/x", b"x" * 60_000), (OK,), 60_000),
        (post("/named/y", b"xy", "x-long: " + "y" * 5000), (OK,), 2),
    ]
    if seed % 2:
        kinds.append((post("/plain", b"x", "authorization: administrator"), (OK,), 1))
    sent = [kinds[0], *draw.choices(kinds, weights=[90, 20, 5, 20, 2, 3, 1][: len(kinds)], k=1000)]
    async with serving(app, partial(Protocol, find_target(app), Connections())) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def send() -> None:
            rest = b"".join(request for request, _, _ in sent)
            while rest:
                part = draw.choice([1, 100, 5000, 50_000, 500_000])
                writer.write(rest[:part])
                rest = rest[part:]
                await writer.drain()
                await asyncio.sleep(0)

        sending = asyncio.create_task(send())
        for _, expected, length in sent:
            status = await answer(reader)
            assert status in expected
            statuses[status] += 1
            if status == OK:
                assert lengths.pop(0) == length
        await sending
        writer.close()
    assert not lengths
    assert statuses[BUSY] > 0
