"""The time that the egress proxy adds to a request on a kept connection, and that the search for used secrets adds to a
call at a guard: `python -m benchmarks.egress`.

The same request to the same HTTPS API, once directly and once through the proxy, which decides the request, puts the
key into it, and looks for the key in the answer. Both ways take turns, so that other work of the machine falls on both.
"""

from __future__ import annotations

import http.client
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.egress import VALUE, ApiAddress, EgressStage, egress_api
from harness.live_server import ServerFixture, authenticate, own_server
from ostiary.guard import Guard
from ostiary.protocol.destination import MIN_SECRET
from ostiary.protocol.secret_forms import readings_of
from ostiary.run.local import LocalServers
from ostiaryd.registry.model.used_secret import STRIDE, WINDOW, find_secret, make_prints

COUNT, WARM = 2000, 100
LIMIT_MS = 1.5


def trip(connection: http.client.HTTPSConnection, headers: dict[str, str]) -> float:
    """Return the milliseconds until the whole answer."""
    started = time.perf_counter()
    connection.request("GET", "/who", headers=headers)
    answer = connection.getresponse().read()
    took = (time.perf_counter() - started) * 1000
    assert answer == b"welcome", answer
    return took


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
    hashes = sum(-(-(len(reading) - WINDOW + 1) // stride) for reading in readings_of(text))
    return hashes, (time.process_time() - started) * 10


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with own_server(folder) as live_server, api_process(folder) as api, LocalServers() as servers:
            stage = EgressStage(live_server, api, folder)
            stage.start(servers)
            tls = ssl.create_default_context(cafile=api.ca_file)
            bare, through = http.client.HTTPSConnection("localhost", api.port, context=tls), stage.connect()
            own = {"Authorization": f"Bearer {VALUE}"}
            for _ in range(WARM):
                trip(bare, own), trip(through, {})
            direct, proxied = list[float](), list[float]()
            for _ in range(COUNT):
                direct.append(trip(bare, own))
                proxied.append(trip(through, {}))
            bare.close()
            through.close()
            searched = guarded_calls(live_server, stage.agent)
    low, high = statistics.median(direct), statistics.median(proxied)
    print(f"  a kept connection: direct {low:.3f} ms   through the proxy {high:.3f} ms")
    print(f"  added at the median, limit: {high - low:.3f} of {LIMIT_MS} ms")
    for name, took in searched.items():
        print(f"  a call at a guard, {name}: {took:.3f} ms")
    for secret in (VALUE[:MIN_SECRET], VALUE, 3 * VALUE):
        hashes, took = search_cost(secret)
        print(f"  search of 1 KiB for a secret of {len(secret)} characters: {hashes} hashes, {took:.3f} ms")


if __name__ == "__main__":
    serve(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
