"""The time that the egress proxy adds to a request on a kept connection: `python -m benchmarks.egress`.

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
from harness.live_server import own_server
from ostiary.run.local import LocalServers

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
    low, high = statistics.median(direct), statistics.median(proxied)
    print(f"  a kept connection: direct {low:.3f} ms   through the proxy {high:.3f} ms")
    print(f"  added at the median, limit: {high - low:.3f} of {LIMIT_MS} ms")


if __name__ == "__main__":
    serve(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
