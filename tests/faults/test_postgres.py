"""PostgreSQL lost, stopped, killed or frozen beneath a real server; and a frozen server beside another one."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import psycopg
import pytest

from harness.live_server import ServerFixture, pid_of
from harness.patience import PATIENCE_S, eventually
from harness.postgres_cluster import Cluster, cluster
from harness.server import Server, running
from harness.tcp_proxy import Proxy
from ostiary.protocol.errors import Unavailable
from tests.faults.tally import Tally

PUBLIC = ("--public-url", "https://id.example.org")
NO_ANSWER = 0


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Cluster]:
    with cluster() as running_cluster:
        yield running_cluster


@contextmanager
def administered(server: Server, folder: Path) -> Iterator[ServerFixture]:
    with ServerFixture(server, folder) as live_server:
        yield live_server


def ready(server: Server) -> httpx2.Response:
    return httpx2.get(f"{server.url}/readyz", timeout=PATIENCE_S)


def create(live_server: ServerFixture, name: str) -> int:
    """Create a person; the status of the answer, or NO_ANSWER. The token may be refused with 503, too."""
    url, resource = f"{live_server.server.url}/api/v1/persons", f"{live_server.admin.issuer}/api/v1"
    try:
        response = live_server.admin.request(
            "POST", url, resource=resource, json={"name": name, "email": f"{name}@example.org"}
        )
    except Unavailable:
        return 503
    except httpx2.TransportError:  # a server that was frozen finds its connections too slow, and cuts them
        return NO_ANSWER
    assert response.status_code != 503 or int(response.headers["retry-after"]) > 0
    return response.status_code


class Writers:
    """Threads that create persons; a name is tried again until it is acknowledged."""

    def __init__(self, live_server: ServerFixture, *, count: int = 3) -> None:
        self._house, self._is_over = live_server, threading.Event()
        self.acknowledged: list[str] = []
        self.statuses: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        live_server, made = ServerFixture(self._house.server, self._house.folder), 0
        while not self._is_over.is_set():
            name = f"person-{number}-{made}"
            status = create(live_server, name)
            self.statuses[status] += 1
            if status in (503, NO_ANSWER):
                self._is_over.wait(0.05)
            else:
                made += 1
            if status == 201:
                self.acknowledged.append(name)
        live_server.admin.close()

    def until_more(self, count: int) -> None:
        """Wait until so many more have been acknowledged."""
        enough = len(self.acknowledged) + count
        eventually(lambda: len(self.acknowledged) >= enough)

    def close(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def names(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [name for (name,) in connection.execute("select name from person where name like 'person-%'")]


@pytest.mark.slow
def test_a_server_goes_on_by_itself_after_a_loss_of_postgresql(
    postgresql: Cluster, tmp_path: Path, rounds: int, tally: Tally
) -> None:
    def restart() -> None:
        postgresql.stop()
        postgresql.start()

    def crash() -> None:
        postgresql.kill()
        postgresql.start()

    url = postgresql.create("losses")
    faults: list[Callable[[], None]] = [postgresql.terminate_backends, restart, crash]
    with running(tmp_path / "data", "--database", url) as server, administered(server, tmp_path) as live_server:
        writers = Writers(live_server)
        try:
            for fault in faults * rounds:
                writers.until_more(5)
                fault()
                writers.until_more(5)
                eventually(lambda: ready(server).status_code == 200)
        finally:
            writers.close()
    written = names(url)
    lost = set(writers.acknowledged) - set(written)
    tally("what was acknowledged is there after a loss of PostgreSQL", broken=len(lost), of=len(writers.acknowledged))
    tally("a retry doubles nothing", broken=len(written) - len(set(written)), of=len(written))
    unexpected = sum(count for status, count in writers.statuses.items() if status not in (201, 503, 409))
    tally("a loss of PostgreSQL is 503 with Retry-After", broken=unexpected, of=writers.statuses.total())


@pytest.mark.slow
def test_a_frozen_postgresql_is_told_and_hangs_nothing(postgresql: Cluster, tmp_path: Path, tally: Tally) -> None:
    url = postgresql.create("frozen")
    is_frozen, answers = False, Counter[tuple[str, int]]()
    try:
        with running(tmp_path / "data", "--database", url) as server, administered(server, tmp_path) as live_server:
            live_server.owner()
            assert ready(server).json() == {
                "status": "ready",
                "checks": {**ready(server).json()["checks"], "database": "ok", "writer": "ok", "keys": "ok"},
            }
            postgresql.freeze()
            is_frozen = True
            told = eventually(lambda: (found := ready(server)).status_code == 503 and found)
            assert told.json()["status"] == "not ready"
            assert told.json()["checks"]["database"] != "ok"
            for _ in range(20):
                for path in ("/livez", "/jwks", "/ledger/v1/checkpoint"):
                    answers[path, httpx2.get(server.url + path, timeout=PATIENCE_S).status_code] += 1
            postgresql.thaw()
            is_frozen = False
            eventually(lambda: ready(server).status_code == 200)
            live_server.owner()
            postgresql.freeze()
            is_frozen = True
        # The block ends with SIGTERM, and the server has ended with 0 though PostgreSQL does not answer.
    finally:
        if is_frozen:
            postgresql.thaw()
    expected = {("/livez", 200): 20, ("/jwks", 200): 20, ("/ledger/v1/checkpoint", 503): 20}
    tally("a frozen PostgreSQL hangs no request", broken=int(answers != expected), of=answers.total())


@pytest.mark.slow
def test_a_frozen_server_does_not_stop_another(postgresql: Cluster, tmp_path: Path, rounds: int, tally: Tally) -> None:
    url = postgresql.create("servers")
    with running(tmp_path / "a", "--database", url, *PUBLIC) as a:
        shutil.copytree(
            tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("server.*", "first-start.*", "*.lock")
        )
        with (
            running(tmp_path / "b", "--database", url, *PUBLIC) as b,
            administered(a, tmp_path) as live_server_a,
            administered(b, tmp_path) as live_server_b,
        ):
            writers = Writers(live_server_a)
            tried = 0
            try:
                for number in range(3 * rounds):
                    writers.until_more(3)
                    os.kill(pid_of(a), signal.SIGSTOP)
                    try:
                        eventually(lambda number=number: create(live_server_b, f"other-{number}") == 201)  # type: ignore[misc]
                        tried += 1
                    finally:
                        os.kill(pid_of(a), signal.SIGCONT)
            finally:
                writers.close()
    lost = set(writers.acknowledged) - set(names(url))
    tally("a frozen server does not stop another", broken=0, of=tried)
    tally("a frozen server loses nothing acknowledged", broken=len(lost), of=len(writers.acknowledged))


@pytest.mark.slow
def test_a_revocation_works_half_a_second_from_postgresql(postgresql: Cluster, tmp_path: Path, tally: Tally) -> None:
    """Each answer of PostgreSQL takes 500 ms: rounds of the background loops leave the event loop to requests."""
    proxy = Proxy(postgresql.create("far"))
    with (
        closing(proxy),
        running(tmp_path / "data", "--database", proxy.url, *PUBLIC) as server,
        administered(server, tmp_path) as live_server,
    ):
        admin = live_server.admin
        agents = [live_server.agent("files:read")[0] for _ in range(2)]
        proxy.delay_s = 0.25
        url, resource = f"{server.url}/api/v1/revoke", f"{admin.issuer}/api/v1"
        answers = [
            admin.request("POST", url, resource=resource, json={"kind": "agent", "id": name}, timeout=PATIENCE_S)
            for name in agents
        ]
        proxy.delay_s = 0.0
    broken = sum(answer.status_code != 200 for answer in answers)
    tally("a revocation works 500 ms from PostgreSQL", broken=broken, of=len(answers))
