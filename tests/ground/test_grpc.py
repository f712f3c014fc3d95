"""gRPC on a Unix socket, with grpcio as the client, and with frames that no client sends."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

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
from ostiaryd.ground.http.buckets import SECOND
from ostiaryd.ground.http.grpc import (
    CALL_BYTES,
    KEPT_STREAMS,
    MAX_HEADERS,
    MAX_MESSAGE,
    REFUSED_US,
    GrpcCall,
    GrpcServer,
    GrpcStatus,
    GrpcWork,
    grpc_status,
)
from ostiaryd.ground.world import World, open_world
from tests.ground.event_loops import LOOPS, NewLoop
from tests.support.grpc_client import HEADERS, RawClient, frame


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
    """Call a method with grpcio over a connection of its own; the messages of the answer."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"unix:{server.path}", options) as channel:
        return [part async for part in channel.unary_stream(f"/Test/{method}")(message, timeout=PATIENCE_S, **more)]


# ---------------------------------------------------------------------------------------- A client of others


async def test_a_message_and_a_stream_beyond_the_window_are_returned(server: GrpcServer) -> None:
    assert await call(server, "Echo", b"hello") == [b"hello"]
    assert await call(server, "Echo") == [b""]
    assert [part[:1] for part in await call(server, "Count")] == [b"0", b"1", b"2"]


async def test_the_largest_message_is_accepted_and_one_byte_more_is_refused(server: GrpcServer) -> None:
    assert await call(server, "Echo", b"x" * MAX_MESSAGE) == [b"x" * MAX_MESSAGE]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(server, "Echo", b"x" * (MAX_MESSAGE + 1))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_has_its_grpc_status_and_its_message(server: GrpcServer, name: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(server, "Refuse", name.encode())
    assert refused.value.code().value[0] == grpc_status(REFUSALS[name])
    assert refused.value.details() == f"é 100% {name}"


def test_every_refusal_has_a_grpc_status() -> None:
    def subclasses(kind: type[Refused]) -> Iterator[type[Refused]]:
        for sub in kind.__subclasses__():
            yield sub
            yield from subclasses(sub)

    for kind in subclasses(Refused):
        assert grpc_status(kind.__new__(kind)) is not GrpcStatus.OK


async def test_a_defect_is_logged_and_its_text_is_not_returned(
    server: GrpcServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call(server, "Fail")
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.INTERNAL, "the server failed")
    assert "a defect" in caplog.text


async def test_an_unknown_method_is_unimplemented(server: GrpcServer) -> None:
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


async def test_a_cancelled_call_and_a_closed_connection_are_removed(server: GrpcServer) -> None:
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
def test_a_grpc_stream_is_served_on_both_event_loops(new_loop: NewLoop, tmp_path: Path) -> None:
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


async def test_a_closed_server_ends_its_streams_and_removes_its_socket(world: World, tmp_path: Path) -> None:
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
async def test_a_request_that_is_not_grpc_gets_status_415(
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
async def test_a_body_that_is_not_exactly_one_message_is_refused(server: GrpcServer, data: bytes) -> None:
    async with one_call(server, HEADERS, data) as client:
        assert await client.status() == str(int(GrpcStatus.INVALID_ARGUMENT))


async def test_a_call_whose_message_does_not_arrive_ends_at_its_deadline(
    server: GrpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REQUEST_S", 0.05)
    async with RawClient(server.path) as client:
        client.h2.send_headers(1, HEADERS)
        client.h2.send_data(1, b"\0")
        await client.send()
        assert await client.status() == str(int(GrpcStatus.DEADLINE_EXCEEDED))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\0" * 100, os.urandom(3000) + b"\xff"])
async def test_bytes_that_are_not_http_2_end_the_connection(server: GrpcServer, garbage: bytes) -> None:
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


def h2_frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


FLOODS = {
    "ping": h2_frame(6, 0, 0, b"12345678"),
    "settings": h2_frame(4, 0, 0, b"\0\4\0\0\xff\xff"),
    "priority": h2_frame(2, 0, 3, b"\0\0\0\0\x10"),
    "unknown": h2_frame(99, 0, 0),
    "reset of a closed call": h2_frame(3, 0, 1, b"\0\0\0\x08"),
    "data of a closed call": h2_frame(0, 0, 1),
    "window of the connection": h2_frame(8, 0, 0, b"\0\0\0\1"),
}
"""Frames that a caller may repeat; for some of them h2 states no event."""


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_of_frames_waits_for_processor_time(server: GrpcServer, kind: str) -> None:
    async with one_call(server, with_header("content-type", "text/html")) as client:
        await client.read_until(ResponseReceived)  # the call 1 is closed
        budget = server.world.get_singleton(GrpcWork).of(str(os.getuid()))
        budget.burst = budget.per_second = 1
        [connection] = server._connections
        flood = asyncio.create_task(client.send(FLOODS[kind] * 100_000))
        await eventually_async(lambda: connection._turn is not None)
        assert len(connection._input) <= module.SLICE, "the kernel keeps the rest"
        flood.cancel()


async def test_a_refused_call_costs_its_user_processor_time_and_further_calls_wait(server: GrpcServer) -> None:
    budget = server.world.get_singleton(GrpcWork).of(str(os.getuid()))
    budget.per_second = 1
    async with grpc.aio.insecure_channel(f"unix:{server.path}") as channel:
        refused = channel.unary_stream("/Test/Refuse")
        assert [part async for part in channel.unary_stream("/Test/Echo")(b"x")] == [b"x"]
        before = budget.left
        with pytest.raises(grpc.aio.AioRpcError):
            await refused(next(iter(REFUSALS)).encode()).read()
        assert before - budget.left >= REFUSED_US * SECOND // 2, "less what the bucket has got meanwhile"
        budget.left = 0
        waiting = refused(next(iter(REFUSALS)).encode())
        [connection] = server._connections
        await eventually_async(lambda: connection._turn is not None)
        assert not waiting.done()
        waiting.cancel()


FLOODER = """
import itertools, socket, sys, threading
def flood(path, frame):
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                sock.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes.fromhex("000000040000000000"))
                print("up\\n", end="", flush=True)
                sock.settimeout(0)
                for _ in itertools.count():
                    try:
                        sock.recv(1 << 20)
                    except BlockingIOError:
                        pass
                    try:
                        sock.send(frame * 1000)
                    except BlockingIOError:
                        pass
        except OSError:
            pass
for frame in sys.argv[2:]:
    threading.Thread(target=flood, args=(sys.argv[1], bytes.fromhex(frame))).start()
"""
HOLDER = """
import socket, sys
held = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[2]))]
for one in held: one.connect(sys.argv[1])
print("up", flush=True)
input()
"""
PYTHON = Path("/usr/bin/python3")
"""An interpreter that every user may run."""
other_user = pytest.mark.skipif(os.getuid() != 0 or not PYTHON.exists(), reason="only root may become another user")


@contextmanager
def process_of(uid: int, script: str, server: GrpcServer, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of another user that runs a script with the path of the server."""
    for folder in (server.path.parent, *server.path.parents):
        if folder.stat().st_mode & 0o001 == 0:
            folder.chmod(0o711)
    with subprocess.Popen(
        [PYTHON, "-c", script, str(server.path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=uid,
        group=uid,
        extra_groups=[],
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def is_up(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline) == b"up\n"


@other_user
async def test_other_users_are_served_while_one_user_floods(
    server: GrpcServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.GrpcWork, "burst", 300_000)
    frames = [flood.hex() for flood in FLOODS.values() if flood[5:9] != b"\0\0\0\1"]
    with process_of(12_345, FLOODER, server, *frames) as flooder:
        await is_up(flooder)
        budget = world.get_singleton(GrpcWork)
        async with grpc.aio.insecure_channel(f"unix:{server.path}") as channel:
            echo = channel.unary_stream("/Test/Echo")
            count = 0
            while count < 50 or budget.of("12345").has(1):
                assert [part async for part in echo(b"x", timeout=PATIENCE_S)] == [b"x"]
                count += 1
        assert any(one._turn is not None for one in server._connections if one.peer.uid == 12_345)


@other_user
async def test_a_user_with_many_connections_loses_connections_to_another_user(server: GrpcServer) -> None:
    server._most = 6
    with process_of(12_345, HOLDER, server, "6") as many:
        await is_up(many)
        await eventually_async(lambda: len(server._connections) == 6)
        with process_of(12_346, HOLDER, server, "3") as few:
            await is_up(few)
            halves = {12_345: 3, 12_346: 3}
            await eventually_async(lambda: {uid: len(one) for uid, one in server._of_user.items()} == halves)
            with process_of(12_345, HOLDER, server, "1") as more:
                await is_up(more)
                assert await call(server, "Echo", b"x") == [b"x"], "a user without a connection gets one"
            assert len(server._of_user[12_345]) + len(server._of_user[12_346]) == 5
    await eventually_async(lambda: not server._of_user)


async def test_a_connection_beyond_the_rate_of_its_user_is_closed(
    server: GrpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.GrpcConnects, "burst", 2)
    monkeypatch.setattr(module.GrpcConnects, "per_second", 0)
    for _ in range(2):
        assert await call(server, "Echo", b"x") == [b"x"]
    async with RawClient(server.path) as third:
        await third.read_end()


async def test_connections_leave_descriptors_for_the_http_server(world: World, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    try:
        server = GrpcServer(world, tmp_path / "api.sock", METHODS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert server._most == 128, "256 descriptors of 2048"
    await server.close()


def of_size(size: int) -> list[tuple[str, str]]:
    """The headers of a call with metadata of a size, as RFC 9113 section 6.5.2 counts."""
    return [*HEADERS, ("x", "y" * (size - sum(len(name) + len(value) + 32 for name, value in HEADERS) - 33))]


async def test_metadata_has_at_most_8_kib(server: GrpcServer) -> None:
    async with one_call(server, of_size(MAX_HEADERS), frame(b"x")) as client:
        assert (await client.read_until(DataReceived)).data == frame(b"x")
    async with one_call(server, of_size(MAX_HEADERS + 1), frame(b"x")) as client:
        assert await client.status() == str(int(GrpcStatus.RESOURCE_EXHAUSTED))


async def test_a_header_bomb_ends_its_connection(server: GrpcServer) -> None:
    """A header of 4000 bytes and 30 references to it, of one byte each, are 120 KB."""
    block = b"\x40\x01x\x7f\xa1\x1e" + b"y" * 4000 + b"\xbe" * 30
    async with RawClient(server.path) as client:
        await client.send(h2_frame(1, 4, 1, block))
        ended = await client.read_until(ConnectionTerminated)
        assert ended.error_code is ErrorCodes.ENHANCE_YOUR_CALM
        await client.read_end()
    assert await call(server, "Echo", b"x") == [b"x"]


async def test_frames_that_never_end_use_bounded_memory(server: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 40_000)
    headers = h2_frame(1, 0, 1, b"\x82") + h2_frame(9, 0, 1, b"\x82" * 16_000) * 2
    async with RawClient(server.path) as client:
        for _ in range(2):  # with the first answer, the client confirms the settings of the server
            client.h2.ping(b"12345678")
            await client.send()
            await client.read_until(PingAckReceived)
        [connection] = server._connections
        await client.send(headers[:20_000])
        await eventually_async(lambda: server._reserved[os.getuid()] == 20_000)
        assert not connection._is_over
        await client.send(headers[20_000:20_001])
        ended = await client.read_until(ConnectionTerminated)
        assert ended.error_code is ErrorCodes.ENHANCE_YOUR_CALM
    assert not server._reserved


async def test_open_calls_of_one_user_use_bounded_memory(server: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user has at most half, so that there is room for another user."""
    waiting = [(":path", "/Test/Wait") if header[0] == ":path" else header for header in HEADERS]
    size = CALL_BYTES + sum(len(name) + len(value) + 32 for name, value in waiting)
    monkeypatch.setattr(module, "MAX_BYTES", 2 * (2 * size + 10))
    async with RawClient(server.path) as client:
        for id, message in ((1, b""), (3, b"")):
            client.h2.send_headers(id, waiting)
            client.h2.send_data(id, frame(message), end_stream=True)
            await client.send()
            await client.read_until(ResponseReceived)
            assert (await client.read_until(DataReceived)).data == frame(b"first")
        assert server._reserved[os.getuid()] == 2 * size + 10
        client.h2.send_headers(5, waiting)
        await client.send()
        assert await client.status() == str(int(GrpcStatus.RESOURCE_EXHAUSTED))
        client.h2.reset_stream(1)
        client.h2.send_headers(7, waiting)
        client.h2.send_data(7, frame(b"x"))  # one byte too many
        await client.send()
        assert await client.status() == str(int(GrpcStatus.RESOURCE_EXHAUSTED))
        client.h2.send_headers(9, waiting)
        client.h2.send_data(9, frame(b""), end_stream=True)
        await client.send()
        assert (await client.read_until(DataReceived)).data == frame(b"first")
    await eventually_async(lambda: not server._reserved)


async def test_calls_that_are_reset_leave_a_bounded_number_of_closed_streams(server: GrpcServer) -> None:
    async with RawClient(server.path) as client:
        for id in range(1, 4 * KEPT_STREAMS, 2):
            client.h2.send_headers(id, HEADERS)
            client.h2.reset_stream(id)
        await client.send()
        client.h2.send_headers(4 * KEPT_STREAMS + 1, HEADERS)
        client.h2.send_data(4 * KEPT_STREAMS + 1, frame(b"x"), end_stream=True)
        await client.send()
        assert (await client.read_until(DataReceived)).data == frame(b"x")
        [connection] = server._connections
        assert len(connection._h2._closed_streams) <= KEPT_STREAMS
        assert not connection._streams
        assert not server._reserved


async def test_the_header_table_of_the_server_does_not_take_the_size_of_the_caller(server: GrpcServer) -> None:
    async with RawClient(server.path) as client:
        for size in (2**32 - 1, 0, 4096, 2**31):
            client.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
            await client.send()
        for number in range(3):
            client.h2.send_headers(1 + 2 * number, HEADERS)
            client.h2.send_data(1 + 2 * number, b"no message", end_stream=True)
            await client.send()
            assert await client.status() == str(int(GrpcStatus.INVALID_ARGUMENT))
        [connection] = server._connections
        encoder = connection._h2.encoder
        assert (encoder.header_table_size, len(encoder.header_table.dynamic_entries)) == (0, 0)
        assert len(encoder.table_size_changes) <= 1


@pytest.mark.parametrize("seed", range(3))
async def test_corrupted_frames_cause_no_error_in_the_log(
    server: GrpcServer, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(f"frames {seed}")
    client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    client.initiate_connection()
    for id in (1, 3, 5):
        client.send_headers(id, HEADERS)
        client.send_data(id, frame(b"x" * 20), end_stream=True)
    client.ping(b"12345678")
    honest = client.data_to_send()
    with ExitStack() as opened:
        for _ in range(200):
            sent = bytearray(honest)
            for _ in range(rng.randrange(1, 6)):
                place = rng.randrange(24, len(sent))
                sent[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
            sock = opened.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, str(server.path))
            with suppress(ConnectionError):
                await asyncio.get_running_loop().sock_sendall(sock, bytes(sent))
    await eventually_async(lambda: not server._connections)
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    assert not server._reserved
    assert await call(server, "Echo", b"x") == [b"x"]


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ([("grpc-timeout", "1H")], None),
        ([("grpc-timeout", "99999999H")], None),
        ([("grpc-timeout", "100000000H")], GrpcStatus.INVALID_ARGUMENT),
        ([("grpc-timeout", "-1S")], GrpcStatus.INVALID_ARGUMENT),
        ([("grpc-timeout", "1S"), ("grpc-timeout", "1H")], GrpcStatus.INVALID_ARGUMENT),
        ([("grpc-encoding", "identity"), ("grpc-encoding", "gzip")], GrpcStatus.UNIMPLEMENTED),
        ([("te", "trailers")], GrpcStatus.UNIMPLEMENTED),
    ],
)
async def test_headers_with_a_wrong_value_or_two_values_are_refused(
    server: GrpcServer, more: list[tuple[str, str]], status: GrpcStatus | None
) -> None:
    async with one_call(server, [*HEADERS, *more], frame(b"x")) as client:
        if status is None:
            assert (await client.read_until(DataReceived)).data == frame(b"x")
        else:
            assert await client.status() == str(int(status))


async def test_a_call_beyond_the_rate_of_its_user_is_unavailable(
    server: GrpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.GrpcCalls, "burst", 2)
    monkeypatch.setattr(module.GrpcCalls, "per_second", 1)
    assert await call(server, "Echo", b"1") == [b"1"]
    assert await call(server, "Echo", b"2") == [b"2"]
    with pytest.raises(grpc.aio.AioRpcError) as shed:
        await call(server, "Echo", b"3")
    assert shed.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_whose_client_does_not_read_is_reset(server: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK_S", 0.05)
    async with RawClient(server.path) as client:
        headers = list(HEADERS)
        headers[2] = (":path", "/Test/Count")
        client.h2.send_headers(1, headers)
        client.h2.send_data(1, frame(b""), end_stream=True)
        await client.send()
        await client.read_until(DataReceived)  # without a WINDOW_UPDATE
        assert await client.read_until(StreamReset)


async def test_a_connection_beyond_the_maximum_number_is_closed(server: GrpcServer) -> None:
    server._most = 2
    async with RawClient(server.path):
        async with RawClient(server.path):
            await eventually_async(lambda: len(server._connections) == 2)
            async with RawClient(server.path) as third:
                await third.read_end()
        await eventually_async(lambda: len(server._connections) == 1)
        assert await call(server, "Echo", b"again") == [b"again"]


# ---------------------------------------------------------------------------------------- The socket


async def test_only_a_stale_socket_is_replaced_at_the_path_of_the_server(world: World, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("name", "problem"),
    [("relative.sock", "is not absolute"), ("/" + "x" * module.MAX_PATH, f"has {module.MAX_PATH + 1} bytes")],
)
async def test_a_socket_path_that_is_relative_or_too_long_is_refused(world: World, name: str, problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        GrpcServer(world, Path(name), METHODS)
