"""The time that the egress proxy adds to a request on a kept connection, and that the search for used secrets adds to a
call at a guard: `python -m benchmarks.egress`.

The same request to the same HTTPS API: directly, through the proxy, which decides the request, puts the key into it,
and looks for the key in the answer, and through a bare proxy, which ends TLS, parses and forwards: the least that a
proxy in Python adds. All ways take turns, so that other work of the machine falls on each.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import httptools

from harness.egress import VALUE, ApiAddress, EgressStage, egress_api
from harness.live_server import ServerFixture, authenticate, own_server
from harness.server import COMMAND
from ostiary.guard import Guard
from ostiary.protocol.destination import MIN_SECRET
from ostiary.protocol.secret_forms import texts_of
from ostiary.proxy.egress import RunAuthority
from ostiary.run.local import LocalServers
from ostiaryd.registry.model.used_secret import STRIDE, WINDOW, find_secret, make_prints

COUNT, WARM = 2000, 100
LIMIT_MS = 1.5
THREADS = {"bare proxy": "bare-proxy", "proxy": "ostiary-http"}


def trip(connection: http.client.HTTPSConnection, headers: dict[str, str]) -> float:
    """Return the milliseconds until the whole answer."""
    started = time.perf_counter()
    connection.request("GET", "/who", headers=headers)
    answer = connection.getresponse().read()
    took = (time.perf_counter() - started) * 1000
    assert answer == b"welcome", answer
    return took


class _Side(asyncio.Protocol):
    """A side of the bare proxy, which parses the received bytes and sends them to the other side."""

    def __init__(self, parser: type[httptools.HttpRequestParser] | type[httptools.HttpResponseParser]) -> None:
        self._parser = parser(self)
        self.other: asyncio.WriteTransport | None = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        assert self.other is not None
        self.other.write(data)


class _Entrance(asyncio.Protocol):
    """A connection to the bare proxy before its tunnel is open."""

    def __init__(self, proxy: BareProxy) -> None:
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._task = asyncio.create_task(self._proxy.open_tunnel(self._transport, self))


class BareProxy:
    """A proxy for one API that decides nothing and puts no key anywhere."""

    def __init__(self, api: ApiAddress, folder: Path) -> None:
        authority = RunAuthority()
        ca_file = folder / "bare-ca.pem"
        ca_file.write_bytes(authority.pem)
        self._port, self._server_tls = api.port, authority.context("localhost")
        self._client_tls = ssl.create_default_context(cafile=api.ca_file)
        self._tls = ssl.create_default_context(cafile=ca_file)
        self.port = 0

    async def open_tunnel(self, transport: asyncio.Transport, entrance: _Entrance) -> None:
        loop = asyncio.get_running_loop()
        program, server = _Side(httptools.HttpRequestParser), _Side(httptools.HttpResponseParser)
        up, _ = await loop.create_connection(
            lambda: server, "127.0.0.1", self._port, ssl=self._client_tls, server_hostname="localhost"
        )
        transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        transport.set_protocol(program)
        program.other = up
        server.other = await loop.start_tls(transport, program, self._server_tls, server_side=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve in a thread of its own."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="bare-proxy")
        thread.start()

        async def listen() -> asyncio.Server:
            return await loop.create_server(lambda: _Entrance(self), "127.0.0.1", 0)

        server = asyncio.run_coroutine_threadsafe(listen(), loop).result()
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def connect(self) -> http.client.HTTPSConnection:
        made = http.client.HTTPSConnection("127.0.0.1", self.port, context=self._tls)
        made.set_tunnel("localhost", self._port)
        return made


def thread_seconds(name: str) -> float:
    """Return the processor time of a thread."""
    thread = next(one for one in threading.enumerate() if one.name == name)
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def serve(folder: Path) -> None:
    """Run the API, and print its port."""
    with egress_api(folder) as api:
        print(api.port, flush=True)
        sys.stdin.read()


@contextmanager
def api_process(folder: Path) -> Iterator[ApiAddress]:
    """An API in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.egress", str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield ApiAddress(int(process.stdout.readline()), folder / "api-ca.pem")
        process.stdin.close()


def guarded_calls(live_server: ServerFixture, user: str) -> dict[str, float]:
    """Return the median time of a call in milliseconds, for an agent whose proxy uses secrets, and for another."""
    uri = "https://files.example/bench"
    resource, credential = live_server.resource(uri)
    keys = {
        "no secret used": live_server.agent(f"{resource}:read")[1],
        "secrets used": live_server.folder / f"{user}.json",
    }
    live_server.server.ostiary("agent", "allow", user, f"{resource}:read")
    took: dict[str, list[float]] = {name: [] for name in keys}
    with Guard(credential, spool_dir=live_server.folder / "bench-spool") as guard:
        callers = {name: authenticate(guard, key, uri) for name, key in keys.items()}
        for _ in range(COUNT // 4):
            for name, caller in callers.items():
                started = time.perf_counter()
                assert guard.decide(caller, "read_file", {"path": "x" * 500}).decision.allowed
                took[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(times) for name, times in took.items()}


def search_cost(secret: str) -> tuple[int, float]:
    """Return the number of hashes, and the processor time in milliseconds, of a search of 1 KiB."""
    key, text = bytes(32), ("lorem ipsum dolor sit amet " * 40)[:1024].encode()
    prints = [make_prints(secret, key)]
    find_secret(text, prints, key)
    started = time.process_time()
    for _ in range(100):
        assert not find_secret(text, prints, key)
    stride = min(STRIDE, len(secret) - WINDOW + 1)
    hashes = sum(-(-(len(reading) - WINDOW + 1) // stride) for reading in texts_of(text))
    return hashes, (time.process_time() - started) * 10


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            own_server(folder, command=(COMMAND,)) as live_server,
            api_process(folder) as api,
            LocalServers() as servers,
        ):
            stage, bare = EgressStage(live_server, api, folder), BareProxy(api, folder)
            stage.start(servers)
            tls = ssl.create_default_context(cafile=api.ca_file)
            own = {"Authorization": f"Bearer {VALUE}"}
            with bare.running():
                ways = {
                    "direct": (http.client.HTTPSConnection("localhost", api.port, context=tls), own),
                    "bare proxy": (bare.connect(), own),
                    "proxy": (stage.connect(), dict[str, str]()),
                }
                took: dict[str, list[float]] = {name: [] for name in ways}
                spent = dict.fromkeys(THREADS, 0.0)
                for number in range(WARM + COUNT):
                    if number == WARM:
                        spent = {name: thread_seconds(thread) for name, thread in THREADS.items()}
                        took = {name: [] for name in ways}
                    for name, (connection, headers) in ways.items():
                        took[name].append(trip(connection, headers))
                spent = {name: thread_seconds(thread) - spent[name] for name, thread in THREADS.items()}
                for connection, _ in ways.values():
                    connection.close()
            searched = guarded_calls(live_server, stage.agent)
    middle = {name: statistics.median(times) for name, times in took.items()}
    shown = "   ".join(f"{name} {value:.3f}" for name, value in middle.items())
    print(f"  a request on a kept connection, median in ms: {shown}")
    print(f"  added at the median, limit: {middle['proxy'] - middle['direct']:.3f} of {LIMIT_MS} ms")
    for name, seconds in spent.items():
        print(f"  processor time of a request in the {name}: {seconds / COUNT * 1000:.3f} ms")
    print(f"  the proxy takes {spent['proxy'] / spent['bare proxy']:.1f} times the processor time of the bare proxy")
    for name, call in searched.items():
        print(f"  a call at a guard, {name}: {call:.3f} ms")
    for secret in (VALUE[:MIN_SECRET], VALUE, 3 * VALUE):
        hashes, cost = search_cost(secret)
        print(f"  search of 1 KiB for a secret of {len(secret)} characters: {hashes} hashes, {cost:.3f} ms")


if __name__ == "__main__":
    serve(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
