"""Restart of PostgreSQL under a running server: from its start to the first token that is granted."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import httpx2

from harness.postgres_cluster import cluster
from harness.server import running
from ostiary.agent import Agent
from ostiary.protocol.errors import Refused

ROUNDS = 3


def granted(agent: Agent, resource: str) -> bool:
    agent._client._tokens.clear()
    try:
        return bool(agent.token(resource=resource))
    except (Refused, httpx2.HTTPError):
        return False


def main() -> None:
    with cluster() as postgresql, tempfile.TemporaryDirectory() as folder:
        seconds = []
        with running(Path(folder) / "data", "--database", postgresql.create("restart")) as server:
            agent = Agent.from_credential(server.folder / "admin.json", url=server.url)
            for _ in range(ROUNDS):
                assert granted(agent, f"{agent.issuer}/api/v1")
                postgresql.stop()
                started = time.perf_counter()
                postgresql.start()
                up = time.perf_counter()
                while not granted(agent, f"{agent.issuer}/api/v1"):
                    time.sleep(0.01)
                seconds.append((up - started, time.perf_counter() - up))
            agent.close()
        for label, values in zip(
            ("start of PostgreSQL", "then to the first grant"), zip(*seconds, strict=True), strict=True
        ):
            print(f"{label:<26} median {statistics.median(values):6.2f} s   longest {max(values):6.2f} s")


if __name__ == "__main__":
    main()
