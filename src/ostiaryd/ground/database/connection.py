"""The connections of both databases, behind one interface."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from ostiary.protocol.errors import Unavailable
from ostiaryd.ground.database.files import DatabaseFiles, LostDatabase
from ostiaryd.ground.database.statement import Sql

BUSY_TIMEOUT, DO_NOT_WAIT = "pragma busy_timeout=10000", "pragma busy_timeout=0"
LONG_LOG, LONGEST_LOG = 8_000, 16_000
"""Lengths of SQLite's log, in pages. A long log begins anew: most pages are written again and again before they move to
the database. At the second length, a commit moves all pages.
"""
MOVE_AT = "pragma wal_autocheckpoint={}"
PRAGMAS = (
    BUSY_TIMEOUT,
    "pragma journal_mode=wal",
    "pragma synchronous=full",  # the log is synced before a commit returns, and so before any response
    "pragma foreign_keys=on",
    "pragma cache_size=-65536",
    "pragma temp_store=memory",  # what a savepoint may have to restore: in a file it costs a write for each page
    MOVE_AT.format(LONGEST_LOG),
)


class DatabaseUnavailable(Unavailable):
    """The database does not answer, or cannot work now. Nothing was changed."""

    code = "database_unavailable"


class OutcomeUnknown(DatabaseUnavailable):
    """The connection was lost during a commit: whether the change took place is not known."""

    code = "outcome_unknown"


class DatabaseConnection(Protocol):
    """The operations in which the two drivers differ."""

    @property
    def losses(self) -> int:
        """Return how often the connection was lost and replaced: a new connection may reach another server."""
        ...

    def has_committed(self) -> bool:
        """Return whether the commit that raised OutcomeUnknown took place. Raises OutcomeUnknown if that cannot
        be found out.
        """
        ...

    def execute(self, statement: Sql, params: dict[str, Any]) -> Any:
        """Execute a statement, and return the cursor of its rows."""
        ...

    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement once for each row of parameters."""
        ...

    def queue(self, statement: Sql) -> None:
        """Execute a statement without parameters and results, at the latest before the next statement."""
        ...

    def script(self, text: str) -> None:
        """Execute the statements of a migration."""
        ...

    def begin(self, *, write: bool) -> None:
        """Begin a transaction. `write`: the transaction takes the lock of the writer."""
        ...

    def commit(self) -> None:
        """Commit the transaction. Raises OutcomeUnknown if the connection is lost meanwhile."""
        ...

    def rollback(self) -> None:
        """Roll the transaction back; do nothing outside a transaction."""
        ...

    def close(self) -> None:
        """Close the connection, and release its locks."""
        ...

    def is_alone(self) -> bool:
        """Return whether no other connection committed between the last two write transactions."""
        ...

    def take(self, lock: int) -> bool:
        """Return whether this connection has that lock now, exclusively among all processes, until it is closed
        or its process dies.
        """
        ...


class SqliteConnection:
    def __init__(
        self,
        path: str,
        *,
        read_only: bool = False,
        create: bool = False,
        is_shared: bool = False,
        on_loss: Callable[[LostDatabase], None] = lambda _: None,
    ) -> None:
        """Open a database file; a missing one is an error, unless `create`. Raises Unavailable.

        `on_loss` is called if a file is lost while the connection writes. `is_shared`: another process may write to the
        file, so its changes are no loss.
        """
        uri = f"{Path(path).absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        try:
            self._raw = sqlite3.connect(
                uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=512
            )
            self._files = DatabaseFiles(path, is_shared=is_shared, on_loss=on_loss)
            for pragma in PRAGMAS:
                self._raw.execute(pragma)
        except (sqlite3.DatabaseError, OSError) as error:
            raise Unavailable(
                f"cannot open the database {path}: {error}",
                hint="check that the file is a SQLite database, and writable for this user",
            ) from error
        self._path, self._uri, self._locks = path, uri, list[int]()
        self._is_log_long = False
        """true if the next commit moves the remaining pages of the log"""
        self._writes = False
        """true if a write transaction is open"""
        self._waits = True
        self._version, self._is_alone = 0, False
        if read_only:
            self._raw.execute("pragma query_only=on")

    def execute(self, statement: Sql, params: dict[str, Any]) -> sqlite3.Cursor:
        """Execute a statement, and return the cursor of its rows."""
        return self._raw.execute(statement.sqlite, [params[name] for name in statement.names])

    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement once for each row of parameters."""
        self._raw.executemany(statement.sqlite, rows)

    def queue(self, statement: Sql) -> None:
        """Execute a statement at once: a call within the process costs no round trip."""
        self._raw.execute(statement.sqlite)

    def script(self, text: str) -> None:
        """Execute the statements of a migration one by one."""
        for part in text.split(";\n"):
            if part.strip():
                self._raw.execute(part)

    def begin(self, *, write: bool) -> None:
        """Begin a transaction; a write transaction checks the files first."""
        self._wait(True)
        self._raw.execute("begin immediate" if write else "begin")
        if write:
            self._check_files()

    def begin_now(self) -> bool:
        """Begin a write transaction without waiting; return False while another process writes."""
        self._wait(False)
        try:
            self._raw.execute("begin immediate")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            return False
        self._check_files()
        return True

    def _check_files(self) -> None:
        """Check whether other connections have written, and that the paths still name the opened files."""
        (version,) = self._raw.execute("pragma data_version").fetchone()
        self._is_alone, self._version = version == self._version, version
        self._writes = True
        self._files.check_begun(is_alone=self._is_alone)

    def _wait(self, waits: bool) -> None:
        if waits is not self._waits:
            self._raw.execute(BUSY_TIMEOUT if waits else DO_NOT_WAIT)
            self._waits = waits

    def is_alone(self) -> bool:
        """Return whether no other connection committed between the last two write transactions."""
        return self._is_alone

    def take(self, lock: int) -> bool:
        """Lock a file beside the database, since locks within the database end with a transaction."""
        file = os.open(f"{self._path}.lock{lock}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._locks.append(file)
        return True

    def commit(self) -> None:
        """Commit. Raises LostDatabase if a file was lost: the commit is lost with it."""
        with self._files.committing():
            if is_long := self._is_log_long:
                self._raw.execute(MOVE_AT.format(1))
            self._raw.execute("commit")
            self._writes = False
            if is_long:
                self._is_log_long = False
                self._raw.execute(MOVE_AT.format(LONGEST_LOG))

    def move_log(self) -> None:
        """Move committed pages from the log to the database, in any thread, while this connection writes. If the log is
        long, the next commit moves the few remaining pages, and the log begins anew. Raises LostDatabase,
        DatabaseUnavailable.
        """
        try:
            with self._files.moving() as may_move, closing(sqlite3.connect(self._uri, uri=True)) as mover:
                if may_move:
                    _, pages, _ = mover.execute("pragma wal_checkpoint(passive)").fetchone()
                    self._is_log_long = pages >= LONG_LOG
        except sqlite3.DatabaseError as error:
            raise DatabaseUnavailable(f"pages stay in the log of {self._path}: {error}") from error

    def rollback(self) -> None:
        """Roll the open transaction back, if there is one, and check the files after a write transaction."""
        if self._raw.in_transaction:
            self._raw.execute("rollback")
        if self._writes:
            self._writes = False
            self._files.check_rolled_back()

    @property
    def losses(self) -> int:
        """Return 0: a connection to a file is never replaced."""
        return 0

    def has_committed(self) -> bool:
        """Raise AssertionError: a connection to a file cannot be lost, so every commit has an answer."""
        raise AssertionError("SQLite always answers a commit")

    def close(self) -> None:
        """Close the connection, and release its locks."""
        self._raw.close()
        while self._locks:
            os.close(self._locks.pop())
