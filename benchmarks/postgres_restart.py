"""Restart of PostgreSQL under a running server: from its start to the first token that is granted.

Two clients are timed: one asks without pause, so that its time is the server's; an `Agent` waits as `Retry-After` asks,
a random number of seconds, so that clients do not all return at once.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from harness.postgres_cluster import cluster
from harness.server import running
from ostiary.agent import Agent
from ostiary.protocol.errors import Refused

ROUNDS = 5


def is_ready(server_url: str) -> bool:
    """Return whether the server says that it can serve."""
    return httpx2.get(f"{server_url}/readyz").status_code == 200


def is_granted(agent: Agent, resource: str) -> bool:
    """Return whether the agent gets a new token, after the pauses that the server asks for."""
    agent._client._tokens.clear()
    try:
        return bool(agent.token(resource=resource))
    except (Refused, httpx2.HTTPError):
        return False


def main() -> None:
    with cluster() as postgresql, tempfile.TemporaryDirectory() as folder:
        seconds = []
        with (
            running(Path(folder) / "data", "--database", postgresql.create("restart")) as server,
            ThreadPoolExecutor(1) as pool,
        ):
            agent, patient = (Agent.from_credential(server.folder / "admin.json", url=server.url) for _ in range(2))
            for _ in range(ROUNDS):
                assert is_granted(agent, f"{agent.issuer}/api/v1")
                postgresql.stop()
                started = time.perf_counter()
                postgresql.start()
                up = time.perf_counter()
                waiting = pool.submit(is_granted, patient, f"{patient.issuer}/api/v1")
                while not is_ready(server.url):
                    time.sleep(0.01)
                assert is_granted(agent, f"{agent.issuer}/api/v1")
                first = time.perf_counter()
                assert waiting.result()
                seconds.append((up - started, first - up, time.perf_counter() - up))
            agent.close()
            patient.close()
        labels = ("start of PostgreSQL", "then to the first grant", "then to a client that waits")
        for label, values in zip(labels, zip(*seconds, strict=True), strict=True):
            print(f"{label:<27} median {statistics.median(values):6.2f} s   longest {max(values):6.2f} s")


if __name__ == "__main__":
    main()
