"""PostgreSQL lost, stopped, killed or frozen beneath a real server; and a frozen server beside another one."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx2
import psycopg
import pytest

from harness.live_server import ServerFixture, pid_of
from harness.patience import PATIENCE_S, eventually
from harness.postgres_cluster import Cluster, cluster
from harness.prepared import PreparedServer
from harness.server import Server
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
def test_a_server_resumes_without_a_restart_after_a_loss_of_postgresql(
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
    with PreparedServer(tmp_path / "data", "--database", url) as server, administered(server, tmp_path) as live_server:
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


Fault = Callable[[Cluster, str], AbstractContextManager[None]]


@contextmanager
def every_connection_is_ended_again_and_again(postgresql: Cluster, url: str) -> Iterator[None]:
    is_over = threading.Event()

    def storm() -> None:
        while not is_over.wait(0.02):
            postgresql.terminate_backends()

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@contextmanager
def transactions_are_read_only(postgresql: Cluster, url: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as operator:
        operator.execute("alter system set default_transaction_read_only = on")
        operator.execute("select pg_reload_conf()")
        try:
            yield
        finally:
            operator.execute("alter system reset default_transaction_read_only")
            operator.execute("select pg_reload_conf()")


@contextmanager
def no_connection_is_left(postgresql: Cluster, url: str) -> Iterator[None]:
    """Other clients hold every connection, those of the server included."""
    with ExitStack() as stack:
        operator = stack.enter_context(psycopg.connect(postgresql.create("others"), autocommit=True))
        others = operator.info.dsn
        servers = "from pg_stat_activity where datname = %s and pid <> pg_backend_pid()"
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        while operator.execute(f"select count(*) {servers}", (name,)).fetchone() != (0,):
            operator.execute(f"select pg_terminate_backend(pid) {servers}", (name,))
            with suppress(psycopg.OperationalError):
                while True:
                    stack.enter_context(closing(psycopg.connect(others)))
        yield


@contextmanager
def no_lock_is_left(postgresql: Cluster, url: str) -> Iterator[None]:
    """Another client holds so many locks that the table of locks is full."""
    take = "select count(pg_advisory_xact_lock(key)) from generate_series(%s::int, %s::int) as key"
    with psycopg.connect(url) as other, other.transaction(force_rollback=True):
        taken = 0
        for step in (1000, 100, 10, 1):
            with suppress(psycopg.OperationalError):
                while True:
                    with other.transaction():
                        other.execute(take, (taken, taken + step - 1))
                    taken += step
        yield


@contextmanager
def no_index_is_left(postgresql: Cluster, url: str) -> Iterator[None]:
    """All indexes that are not constraints are gone: every statement reads its whole table."""
    with psycopg.connect(url, autocommit=True) as operator:
        constraints = "(select conname from pg_constraint)"
        indexes = operator.execute(
            f"select indexname, indexdef from pg_indexes where schemaname = 'public' and indexname not in {constraints}"
        ).fetchall()
        assert len(indexes) > 100
        for name, _ in indexes:
            operator.execute(f'drop index "{name}"')
        yield
        for _, definition in indexes:
            operator.execute(definition)


@contextmanager
def every_table_is_rewritten(postgresql: Cluster, url: str) -> Iterator[None]:
    with psycopg.connect(url, autocommit=True) as operator:
        operator.execute("vacuum full")
        yield


FAULTS: dict[Fault, bool] = {
    every_connection_is_ended_again_and_again: False,
    transactions_are_read_only: False,
    no_connection_is_left: False,
    no_lock_is_left: False,
    no_index_is_left: True,
    every_table_is_rewritten: True,
}
"""Fault of PostgreSQL: whether stops work meanwhile."""


def revoke(live_server: ServerFixture, name: str) -> int:
    """Revoke an agent; return the status of the answer."""
    admin = live_server.admin
    url, resource = f"{live_server.server.url}/api/v1/revoke", f"{admin.issuer}/api/v1"
    try:
        return admin.request("POST", url, resource=resource, json={"kind": "agent", "id": name}).status_code
    except Unavailable:
        return 503


@pytest.mark.slow
def test_a_fault_of_postgresql_causes_no_internal_error_and_revocations_work_after_it(
    postgresql: Cluster, tmp_path: Path, tally: Tally
) -> None:
    url, wrong, tried = postgresql.create("faults"), list[str](), 0
    with PreparedServer(tmp_path / "data", "--database", url) as server, administered(server, tmp_path) as live_server:
        agents = [live_server.agent("files:read")[0] for _ in range(2 * len(FAULTS))]
        writers = Writers(live_server)
        try:
            for fault, works in FAULTS.items():
                writers.until_more(3)
                with fault(postgresql, url):
                    stopped, seen = revoke(live_server, agents.pop()), writers.statuses.total()
                    eventually(lambda seen=seen: writers.statuses.total() > seen + 3)  # type: ignore[misc]
                writers.until_more(3)
                eventually(lambda: ready(server).status_code == 200)
                name = agents.pop()
                eventually(lambda name=name: revoke(live_server, name) == 200)  # type: ignore[misc]
                tried += 1
                if stopped not in ((200,) if works else (200, 503)):
                    wrong.append(f"{fault.__name__}: {stopped}")
        finally:
            writers.close()
    assert wrong == []
    unexpected = sum(count for status, count in writers.statuses.items() if status not in (201, 503, 409))
    tally("a fault of PostgreSQL is 503, and the server goes on by itself", broken=unexpected, of=tried)
    lost = set(writers.acknowledged) - set(names(url))
    tally("a fault of PostgreSQL loses nothing", broken=len(lost), of=len(writers.acknowledged))


@pytest.mark.slow
def test_a_frozen_postgresql_is_reported_by_the_health_check_and_hangs_no_request(
    postgresql: Cluster, tmp_path: Path, tally: Tally
) -> None:
    url = postgresql.create("frozen")
    is_frozen, answers = False, Counter[tuple[str, int]]()
    try:
        with (
            PreparedServer(tmp_path / "data", "--database", url) as server,
            administered(server, tmp_path) as live_server,
        ):
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
def test_a_frozen_server_does_not_block_another_server(
    postgresql: Cluster, tmp_path: Path, rounds: int, tally: Tally
) -> None:
    url = postgresql.create("servers")
    with PreparedServer(tmp_path / "a", "--database", url, *PUBLIC) as a:
        shutil.copytree(
            tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("server.*", "first-start.*", "*.lock")
        )
        with (
            PreparedServer(tmp_path / "b", "--database", url, *PUBLIC) as b,
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
def test_a_revocation_works_with_half_a_second_of_latency_to_postgresql(
    postgresql: Cluster, tmp_path: Path, tally: Tally
) -> None:
    """Each answer of PostgreSQL takes 500 ms: rounds of the background loops leave the event loop to requests."""
    proxy = Proxy(postgresql.create("far"))
    with (
        closing(proxy),
        PreparedServer(tmp_path / "data", "--database", proxy.url, *PUBLIC) as server,
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
