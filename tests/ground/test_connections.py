"""Connections of unauthenticated callers: bounded for each address, in total, and in the bytes that they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from harness.patience import PATIENCE_S, eventually_async
from ostiary.protocol.errors import Unauthenticated
from ostiaryd.ground.http import protocol
from ostiaryd.ground.http.connections import LINGERING, TIMES_IN_ALL, Connections
from ostiaryd.ground.http.edge import Call, Endpoint, Reply, render_admin, reply
from ostiaryd.ground.http.protocol import Protocol
from ostiaryd.ground.world import World
from tests.ground.http_server import find_target, post, serving

LIMIT = 3
PROXIES = (ip_network("127.0.0.0/8"),)


class Counted:
    """A connection as the bounds see it."""

    def __init__(
        self, *, is_idle: bool = True, is_answering: bool = False, answered: int = 0, is_fresh: bool = False
    ) -> None:
        self.answered, self.is_fresh = answered, is_fresh
        self.is_idle, self.is_answering, self.is_away = is_idle, is_answering, False
        self.has_ended = False

    def turn_away(self) -> None:
        self.is_away = True

    def end(self) -> None:
        self.has_ended = True


def added(connections: Connections, address: str, *all: Counted) -> list[bool]:
    for one in all:
        connections.add(one, address)
    return [one.is_away for one in all]


def test_the_oldest_idle_connection_of_an_address_makes_room() -> None:
    connections = Connections(of_address=LIMIT)
    busy, *others = Counted(is_idle=False), Counted(), Counted(), Counted()
    assert added(connections, "a", busy, *others) == [False, True, False, False]
    assert len(connections) == LIMIT


@pytest.mark.parametrize(("in_all", "most"), [(None, LIMIT * TIMES_IN_ALL), (5, 5), (10_000, LIMIT * TIMES_IN_ALL)])
def test_the_limit_on_descriptors_lowers_the_maximum_number_of_connections(in_all: int | None, most: int) -> None:
    connections = Connections(of_address=LIMIT, in_all=in_all)
    away = sum(any(added(connections, f"address {number}", Counted())) for number in range(most + 3))
    assert len(connections) == most
    assert away == 0, "the new connection stays, an older one makes room"


def test_the_oldest_lingering_refused_connection_ends_when_too_many_linger() -> None:
    connections = Connections(of_address=LIMIT, in_all=3 * LINGERING)
    gone, *refused = [Counted() for _ in range(5)]
    connections.linger(gone)
    connections.remove(gone)  # its client has closed it
    for one in refused:
        connections.linger(one)
    assert [one.has_ended for one in (gone, *refused)] == [False, True, False, False, False]


@pytest.mark.parametrize("is_idle", [True, False])
def test_the_oldest_displaced_connection_ends_when_too_many_displaced_ones_stay_open(is_idle: bool) -> None:
    connections = Connections(of_address=1, in_all=2 * LINGERING)
    all = [Counted(is_idle=is_idle) for _ in range(5)]
    assert added(connections, "a", *all) == [True, True, True, True, False]
    assert [one.has_ended for one in all] == [True, True, False, False, False]


def test_the_oldest_sending_connection_makes_room_if_no_connection_is_idle() -> None:
    sends, answered = partial(Counted, is_idle=False), partial(Counted, is_idle=False, is_answering=True)
    first = added(Connections(of_address=LIMIT), "a", answered(), sends(), answered(), sends())
    assert first == [False, True, False, False]
    last = added(Connections(of_address=LIMIT), "a", answered(), answered(), answered(), answered())
    assert last == [False, False, False, True]


def test_the_connection_with_the_most_responses_makes_room_if_all_await_a_response() -> None:
    answered = partial(Counted, is_idle=False, is_answering=True)
    assert added(
        Connections(of_address=LIMIT), "a", answered(answered=1), answered(answered=9), answered(), answered()
    ) == [False, True, False, False]


def test_a_client_between_a_challenge_and_its_proof_keeps_its_connection_in_a_flood() -> None:
    busy = partial(Counted, is_idle=False, is_answering=True)
    away = added(Connections(of_address=LIMIT), "a", busy(answered=2), Counted(answered=1), busy(), busy())
    assert away == [True, False, False, False]


def test_connections_make_room_in_the_order_of_their_ranks() -> None:
    order = [
        Counted(answered=2),  # idle again
        Counted(),  # silent
        Counted(is_idle=False),  # its first request is arriving
        Counted(is_idle=False, is_answering=True, answered=2),  # answered often
        Counted(is_fresh=True),  # has not had the time to send
        Counted(answered=1),  # may be about to answer a challenge
    ]
    waits = partial(Counted, is_idle=False, is_answering=True)
    connections = Connections(of_address=len(order))
    again, silent, arriving, often, fresh, once = order
    added(connections, "a", once, often, arriving, silent, fresh, again)
    for number in range(len(order)):
        assert added(connections, "a", waits()) == [False]
        assert [one.is_away for one in order] == [True] * (number + 1) + [False] * (len(order) - number - 1)
    assert added(connections, "a", waits()) == [True], "the newest, since all others wait for their first answer"


def test_a_connection_makes_room_by_its_current_state() -> None:
    connections = Connections(of_address=LIMIT)
    asked, silent, other = Counted(), Counted(), Counted()
    added(connections, "a", asked, silent, other)
    asked.is_idle, asked.is_answering = False, True
    connections.update(asked)
    assert added(connections, "a", Counted()) == [False]
    assert [asked.is_away, silent.is_away, other.is_away] == [False, True, False]
    connections.update(silent)  # counts no longer
    assert len(connections) == LIMIT


def test_an_address_displaces_connections_of_another_address_only_at_the_total_limit() -> None:
    connections = Connections(of_address=LIMIT)
    many = [Counted() for _ in range(LIMIT * TIMES_IN_ALL)]
    for number, one in enumerate(many):
        connections.add(one, f"a{number // (LIMIT - 1)}")
    assert not any(one.is_away for one in many)
    late = Counted()
    connections.add(late, "b")
    assert not late.is_away
    assert sum(one.is_away for one in many) == 1
    assert len(connections) == LIMIT * TIMES_IN_ALL


def test_a_removed_connection_no_longer_counts() -> None:
    connections = Connections(of_address=LIMIT)
    all = [Counted() for _ in range(LIMIT)]
    added(connections, "a", *all)
    connections.remove(all[0])
    connections.remove(all[0])
    assert added(connections, "a", Counted()) == [False]
    connections.add(all[1], "b")
    assert added(connections, "a", Counted()) == [False]


async def greet(call: Call) -> Reply:
    if call.header(b"authorization") is None:
        raise Unauthenticated("not authenticated")
    return reply({"network": call.network})


@pytest.fixture
def app(world: World) -> Starlette:
    endpoint = Endpoint(world, greet, render=render_admin, proves=True)
    public = Endpoint(world, greet, render=render_admin)
    return Starlette(
        routes=[
            Route("/greet", endpoint, methods=["POST"]),
            Route("/greet/{name}", endpoint, methods=["POST"]),
            Route("/public", public, methods=["POST"]),
        ]
    )


Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Clients:
    """Connections to a port that the test opens, and closes at its end."""

    def __init__(self, port: int) -> None:
        self.port, self.opened = port, list[Opened]()

    async def open(self, *parts: bytes) -> Opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.opened.append((reader, writer))
        for part in parts:
            writer.write(part)
            await writer.drain()
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        return reader, writer

    def close(self) -> None:
        for _, writer in self.opened:
            writer.close()


async def rest(client: Opened) -> bytes:
    """Read until the connection is closed."""
    return await asyncio.wait_for(client[0].read(), PATIENCE_S)


@pytest.fixture
async def clients(app: Starlette) -> AsyncIterator[Clients]:
    connections = Connections(of_address=LIMIT)
    async with serving(app, partial(Protocol, find_target(app), connections)) as port:
        made = Clients(port)
        yield made
        made.close()


PROOF = post("/greet", b"", "authorization: x")


@pytest.mark.parametrize("path", ["/greet", "/greet/x"])
async def test_an_authenticated_caller_keeps_its_connection(clients: Clients, path: str) -> None:
    proven = await clients.open(post(path, b"", "authorization: x"))
    first = await clients.open(post("/public", b"", "authorization: x"))
    for _ in range(LIMIT):
        await clients.open(post(path))
    assert await rest(first) == b""
    proven[1].write(post(path, b"", "authorization: x", "connection: close"))
    assert (await rest(proven)).startswith(b"HTTP/1.1 200 ")


async def test_a_connection_with_a_slow_request_head_makes_room_with_a_503_response(app: Starlette) -> None:
    connections, made = Connections(of_address=LIMIT), list[Protocol]()

    def protocol(**given: Any) -> Protocol:
        made.append(Protocol(find_target(app), connections, **given))
        return made[-1]

    async with serving(app, protocol) as port:
        clients = Clients(port)
        slow = [await clients.open() for _ in range(LIMIT)]
        for _, writer in slow:
            writer.write(b"POST /greet HTTP/1.1\r\n")
        await eventually_async(lambda: len(made) == LIMIT and not any(one.is_idle for one in made))
        assert not (await clients.open(post("/greet")))[0].at_eof(), "the new one is served"
        answer = await rest(slow[0])
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b'"too_many_connections"' in answer
        clients.close()


async def test_each_client_address_behind_a_proxy_has_its_own_connection_limit(world: World) -> None:
    under_way, go_on = [], asyncio.Event()

    async def wait(call: Call) -> Reply:
        under_way.append(call)
        await go_on.wait()
        return reply({})

    app = Starlette(routes=[Route("/wait", Endpoint(world, wait, render=render_admin), methods=["POST"])])
    connections = Connections(of_address=LIMIT, proxies=PROXIES)
    async with serving(app, partial(Protocol, find_target(app), connections)) as port:
        clients = Clients(port)
        opened = [await clients.open() for _ in range(2 * LIMIT + 1)]
        for number, (_, writer) in enumerate(opened[: 2 * LIMIT]):
            writer.write(post("/wait", b"", f"x-forwarded-for: 203.0.113.{number % 2}"))
        await eventually_async(lambda: len(under_way) == 2 * LIMIT)
        opened[-1][1].write(post("/wait", b"", "x-forwarded-for: 6.6.6.6, 203.0.113.0"))
        answer = await rest(opened[-1])
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b'"too_many_connections"' in answer
        go_on.set()
        for reader, _ in opened[: 2 * LIMIT]:
            assert (await asyncio.wait_for(reader.readline(), PATIENCE_S)).startswith(b"HTTP/1.1 200 ")
        again = await clients.open(post("/wait", b"", "x-forwarded-for: 203.0.113.0"))
        assert not again[0].at_eof()
        clients.close()


async def test_the_bytes_that_unauthenticated_callers_hold_are_bounded_in_total(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_HELD", 3000)
    connections = Connections(of_address=LIMIT)
    async with serving(app, partial(Protocol, find_target(app), connections)) as port:
        clients = Clients(port)
        first, second = await clients.open(), await clients.open()
        part = b"POST /greet HTTP/1.1\r\nhost: x\r\ncontent-length: 9000\r\n\r\n" + b"x" * 2000
        first[1].write(part)
        await eventually_async(lambda: connections.held > 2000)
        second[1].write(part)
        second[1].write_eof()  # a server that accepts the part closes now, without an answer
        assert b'"too_much_waits"' in await rest(second)
        first[1].close()
        second[1].close()
        await eventually_async(lambda: connections.held == 0)
        assert (await clients.open(PROOF))[0] is not None
        assert connections.held == 0
        clients.close()
