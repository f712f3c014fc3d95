"""gRPC on a Unix socket, with grpcio as the client, and with frames that no client sends."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamReset, TrailersReceived

from harness.patience import PATIENCE_S, eventually_async
from ostiary.protocol.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
)
from ostiaryd.ground.config import Config
from ostiaryd.ground.http import grpc as module
from ostiaryd.ground.http.grpc import MAX_MESSAGE, GrpcCall, GrpcServer, GrpcStatus, grpc_status
from ostiaryd.ground.world import World, open_world
from tests.ground.event_loops import LOOPS, NewLoop

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/Test/Echo"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


async def echo(call: GrpcCall) -> AsyncGenerator[bytes, None]:
    yield call.message


async def count(call: GrpcCall) -> AsyncGenerator[bytes, None]:
    for number in range(3):
        yield str(number).encode() * 100_000


async def wait(call: GrpcCall) -> AsyncGenerator[bytes, None]:
    yield b"first"
    await asyncio.Event().wait()


async def refuse(call: GrpcCall) -> AsyncGenerator[bytes, None]:
    raise REFUSALS[call.message.decode()]
    yield b""


async def fail(call: GrpcCall) -> AsyncGenerator[bytes, None]:
    raise RuntimeError("a defect")
    yield b""


REFUSALS: dict[str, Refused] = {
    kind.__name__: kind(f"é 100% {kind.__name__}")
    for kind in (Malformed, Invalid, Unauthenticated, Forbidden, NotFound, Conflict, Unavailable)
}
METHODS = {"/Test/Echo": echo, "/Test/Count": count, "/Test/Wait": wait, "/Test/Refuse": refuse, "/Test/Fail": fail}


@pytest.fixture
def database() -> str:
    return "sqlite"


@pytest.fixture
async def server(world: World, tmp_path: Path) -> AsyncIterator[GrpcServer]:
    opened = GrpcServer(world, tmp_path / "api.sock", METHODS)
    yield opened
    await opened.close()


async def call(server: GrpcServer, method: str, message: bytes = b"", **more: Any) -> list[bytes]:
    """Call a method with grpcio; the messages of the answer."""
    async with grpc.aio.insecure_channel(f"unix:{server.path}") as channel:
        return [part async for part in channel.unary_stream(f"/Test/{method}")(message, timeout=PATIENCE_S, **more)]


class RawClient:
    """An HTTP/2 client that sends what it likes."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.setblocking(False)
        self.h2 = H2Connection(
            H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
        )
        self.events: list[Event] = []
        self._path = path

    async def __aenter__(self) -> RawClient:
        await asyncio.get_running_loop().sock_connect(self._sock, str(self._path))
        self.h2.initiate_connection()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sock.close()

    async def send(self, data: bytes = b"") -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, self.h2.data_to_send() + data)

    async def read_until(self, kind: type[Event]) -> Any:
        """The first event of that kind; EOF fails."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        self.events.remove(event)
                        return event
                data = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
                assert data, f"the connection ended before {kind.__name__}"
                self.events += self.h2.receive_data(data)
                await self.send()

    async def read_end(self) -> None:
        """Read until the server closes the connection."""
        async with asyncio.timeout(PATIENCE_S):
            while await asyncio.get_running_loop().sock_recv(self._sock, 65536):
                pass

    async def status(self) -> str:
        """The `grpc-status` of an answer without a message."""
        headers: dict[str, str] = dict((await self.read_until(ResponseReceived)).headers)
        return headers.get("grpc-status", "")


def frame(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


# ---------------------------------------------------------------------------------------- A client of others


async def test_a_message_comes_back_and_so_does_a_stream_beyond_the_window(server: GrpcServer) -> None:
    assert await call(server, "Echo", b"hello") == [b"hello"]
    assert await call(server, "Echo") == [b""]
    assert [part[:1] for part in await call(server, "Count")] == [b"0", b"1", b"2"]


async def test_the_largest_message_is_taken_and_one_byte_more_is_refused(server: GrpcServer) -> None:
    assert await call(server, "Echo", b"x" * MAX_MESSAGE) == [b"x" * MAX_MESSAGE]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(server, "Echo", b"x" * (MAX_MESSAGE + 1))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_has_its_status_and_its_words(server: GrpcServer, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(server, "Refuse", name.encode())
    assert refused.value.code().value[0] == grpc_status(REFUSALS[name])
    assert refused.value.details() == f"é 100% {name}"


def test_every_refusal_has_a_status() -> None:
    def subclasses(kind: type[Refused]) -> Iterator[type[Refused]]:
        for sub in kind.__subclasses__():
            yield sub
            yield from subclasses(sub)

    for kind in subclasses(Refused):
        assert grpc_status(kind.__new__(kind)) is not GrpcStatus.OK


async def test_a_defect_says_nothing_of_itself(server: GrpcServer, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call(server, "Fail")
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.INTERNAL, "the server failed")
    assert "a defect" in caplog.text


async def test_unknown_methods_are_not_implemented(server: GrpcServer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(server, "Other")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_compressed_messages_are_refused(server: GrpcServer) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(server, "Echo", b"x" * 1000, compression=grpc.Compression.Gzip)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_of_the_client_ends_the_call(server: GrpcServer) -> None:
    async with RawClient(server.path) as client:
        headers = [*HEADERS, ("grpc-timeout", "10m")]
        headers[2] = (":path", "/Test/Wait")
        client.h2.send_headers(1, headers)
        client.h2.send_data(1, frame(b""), end_stream=True)
        await client.send()
        trailers = dict((await client.read_until(TrailersReceived)).headers)
        assert trailers["grpc-status"] == str(int(GrpcStatus.DEADLINE_EXCEEDED))


async def test_a_client_that_cancels_leaves_nothing_behind(server: GrpcServer) -> None:
    async with grpc.aio.insecure_channel(f"unix:{server.path}") as channel:
        stream = channel.unary_stream("/Test/Wait")(b"")
        assert await stream.read() == b"first"
        [connection] = [one for one in server._connections if one._streams]
        stream.cancel()
        await eventually_async(lambda: not connection._streams)
    async with RawClient(server.path) as client:
        await client.send()
        await eventually_async(lambda: len(server._connections) > 1)
    await eventually_async(lambda: server._connections <= {connection})


@LOOPS
def test_on_both_event_loops(new_loop: NewLoop, tmp_path: Path) -> None:
    """The client is a process of its own: grpcio has one loop in a process."""
    script = f"""
import grpc
with grpc.insecure_channel("unix:{tmp_path / "api.sock"}") as channel:
    assert list(channel.unary_stream("/Test/Count")(b"", timeout={PATIENCE_S}))[2][:1] == b"2"
"""

    async def run() -> int:
        async with open_world(Config(data_dir=str(tmp_path / "data"))) as world:
            server = GrpcServer(world, tmp_path / "api.sock", METHODS)
            client = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
            code = await client.wait()
            await eventually_async(lambda: not server._connections)
            await server.close()
            return code

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(run()) == 0


async def test_the_end_of_the_server_ends_streams(world: World, tmp_path: Path) -> None:
    server = GrpcServer(world, tmp_path / "other.sock", METHODS)
    async with grpc.aio.insecure_channel(f"unix:{server.path}") as channel:
        stream = channel.unary_stream("/Test/Wait")(b"")
        assert await stream.read() == b"first"
        await server.close()
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()
    assert not server.path.exists()


# ---------------------------------------------------------------------------------------- Hostile clients


@asynccontextmanager
async def one_call(server: GrpcServer, headers: list[tuple[str, str]], data: bytes = b"") -> AsyncIterator[RawClient]:
    async with RawClient(server.path) as client:
        client.h2.send_headers(1, headers)
        client.h2.send_data(1, data, end_stream=True)
        await client.send()
        yield client


def with_header(name: str, value: str | None) -> list[tuple[str, str]]:
    kept = [header for header in HEADERS if header[0] != name]
    return (
        kept if value is None else [*kept[:4], (name, value), *kept[4:]] if name[0] != ":" else [(name, value), *kept]
    )


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("content-type", "application/json", "415"),
        ("content-type", None, "415"),
        (":method", "GET", "415"),
    ],
)
async def test_requests_that_are_no_grpc_get_an_http_error(
    server: GrpcServer, name: str, value: str | None, status: str
) -> None:
    async with one_call(server, with_header(name, value), frame(b"x")) as client:
        assert dict((await client.read_until(ResponseReceived)).headers)[":status"] == status


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\0",
        frame(b"x")[:-1],
        frame(b"x") + b"y",
        frame(b"x") * 2,
        b"\1" + frame(b"x")[1:],
        b"\0\xff\xff\xff\xff",
    ],
)
async def test_anything_but_one_message_is_refused(server: GrpcServer, data: bytes) -> None:
    async with one_call(server, HEADERS, data) as client:
        assert await client.status() == str(int(GrpcStatus.INVALID_ARGUMENT))


async def test_a_message_that_does_not_arrive_is_given_up(server: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_S", 0.05)
    async with RawClient(server.path) as client:
        client.h2.send_headers(1, HEADERS)
        client.h2.send_data(1, b"\0")
        await client.send()
        assert await client.status() == str(int(GrpcStatus.DEADLINE_EXCEEDED))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\0" * 100, os.urandom(3000) + b"\xff"])
async def test_garbage_ends_the_connection(server: GrpcServer, garbage: bytes) -> None:
    async with RawClient(server.path) as client:
        client.h2.clear_outbound_data_buffer()
        await client.send(garbage)
        await client.read_end()
    await eventually_async(lambda: not server._connections)


async def test_more_streams_than_allowed_end_the_connection(server: GrpcServer) -> None:
    async with RawClient(server.path) as client:
        await client.send()
        await eventually_async(lambda: server._connections)
        for number in range(module.MAX_STREAMS + 1):
            client.h2.send_headers(1 + 2 * number, HEADERS)
        with suppress(ConnectionError):
            await client.send()
            await client.read_end()
        await eventually_async(lambda: not server._connections)


async def test_a_flood_of_frames_waits_for_its_budget(server: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.GrpcWork, "burst", 50)
    monkeypatch.setattr(module.GrpcWork, "per_second", 1)
    async with RawClient(server.path) as client:
        for _ in range(1000):
            client.h2.ping(b"12345678")
        await client.send()
        await eventually_async(lambda: any(one._turn is not None for one in server._connections))
        [connection] = server._connections
        assert len(connection._input) > 10_000, "the rest was not looked at"


async def test_a_flood_of_calls_is_shed(server: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.GrpcCalls, "burst", 2)
    monkeypatch.setattr(module.GrpcCalls, "per_second", 1)
    assert await call(server, "Echo", b"1") == [b"1"]
    assert await call(server, "Echo", b"2") == [b"2"]
    with pytest.raises(grpc.aio.AioRpcError) as shed:
        await call(server, "Echo", b"3")
    assert shed.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_does_not_read_loses_its_call(server: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK_S", 0.05)
    async with RawClient(server.path) as client:
        headers = list(HEADERS)
        headers[2] = (":path", "/Test/Count")
        client.h2.send_headers(1, headers)
        client.h2.send_data(1, frame(b""), end_stream=True)
        await client.send()
        await client.read_until(DataReceived)  # without a WINDOW_UPDATE
        assert await client.read_until(StreamReset)


async def test_connections_are_bounded_for_each_user(server: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OF_USER", 2)
    async with RawClient(server.path):
        async with RawClient(server.path):
            await eventually_async(lambda: len(server._connections) == 2)
            async with RawClient(server.path) as third:
                await third.read_end()
        await eventually_async(lambda: len(server._connections) == 1)
        assert await call(server, "Echo", b"again") == [b"again"]


# ---------------------------------------------------------------------------------------- The socket


async def test_a_socket_of_a_server_that_has_ended_is_replaced_and_no_other_file(world: World, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    server = GrpcServer(world, path, METHODS)
    assert path.stat().st_mode & 0o777 == 0o666
    with pytest.raises(Unavailable, match="another server"):
        GrpcServer(world, path, METHODS)
    await server.close()
    path.write_text("a file")
    with pytest.raises(Invalid, match="not a socket"):
        GrpcServer(world, path, METHODS)
    assert path.read_text() == "a file"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.sock")
    with pytest.raises(Invalid, match="not a socket"):
        GrpcServer(world, path, METHODS)


@pytest.mark.parametrize("name", ["relative.sock", "/" + "x" * module.MAX_PATH])
async def test_a_path_that_is_none_is_refused(world: World, name: str) -> None:
    with pytest.raises(Invalid, match="absolute path"):
        GrpcServer(world, Path(name), METHODS)
