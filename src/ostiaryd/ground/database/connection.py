"""The connections to SQLite and PostgreSQL, with one interface."""

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
from ostiaryd.ground.database.statement import Read, Sql

BUSY_TIMEOUT, DO_NOT_WAIT = "pragma busy_timeout=10000", "pragma busy_timeout=0"
LONG_LOG, LONGEST_LOG = 8_000, 16_000
"""Two lengths of SQLite's write-ahead log, in pages. From the first length on, the next commit empties the log after
`move_log` has moved most pages. From the second length on, a commit moves all pages to the database file.
"""
MOVE_AT, MOVE = "pragma wal_autocheckpoint={}", "pragma wal_checkpoint(passive)"
PRAGMAS = (
    BUSY_TIMEOUT,
    "pragma journal_mode=wal",
    # a commit returns only after the log is synced to the disk, and responses are sent after that
    "pragma synchronous=full",
    "pragma foreign_keys=on",
    "pragma cache_size=-65536",
    "pragma temp_store=memory",  # pages to restore for a savepoint; in a file, each would cost a write
    MOVE_AT.format(LONGEST_LOG),
)


# Both adapters return their argument, without a call of a function in Python. Without an adapter, `sqlite3` searches
# each blob and each null for the methods of one, which raises an exception.
sqlite3.register_adapter(bytes, bytes)
sqlite3.register_adapter(type(None), {None: None}.get)


class DatabaseUnavailable(Unavailable):
    """The database does not answer, or cannot execute statements now. Nothing was changed."""

    code = "database_unavailable"


class OutcomeUnknown(DatabaseUnavailable):
    """The connection was lost during a commit, and it is unknown whether the change took place."""

    code = "outcome_unknown"


class DatabaseConnection(Protocol):
    """The interface of a database connection, which each of the two drivers implements."""

    @property
    def losses(self) -> int:
        """Return the number of losses of the database so far. After a loss, the connection is replaced, and may lead to
        another server.
        """
        ...

    def has_committed(self) -> bool:
        """Return whether the commit that raised OutcomeUnknown took place. Raises OutcomeUnknown if this cannot be
        determined.
        """
        ...

    def execute(self, statement: Sql, params: dict[str, Any]) -> Any:
        """Execute a statement, and return the cursor of its rows. Raises DatabaseUnavailable if the database cannot
        execute the statement.
        """
        ...

    def execute_each(self, reads: Sequence[Read]) -> list[list[tuple[Any, ...]]]:
        """Execute several statements in one round trip, and return the rows of each. Raises DatabaseUnavailable if the
        database cannot execute the statements.
        """
        ...

    def read_ahead(self, reads: Sequence[Read]) -> None:
        """Execute reads in one round trip, and keep their rows for `execute` until `forget_ahead`."""
        ...

    def forget_ahead(self, reads: Sequence[Read]) -> None:
        """Forget the rows of reads that were read ahead."""
        ...

    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement once for each row of parameters."""
        ...

    def queue(self, statement: Sql, params: dict[str, Any]) -> None:
        """Execute a statement whose result is not needed, now or together with the next statement."""
        ...

    def script(self, text: str) -> None:
        """Execute the SQL statements of one migration."""
        ...

    def begin(self, *, write: bool) -> None:
        """Begin a transaction. A write transaction first waits for the lock of the writer, which only one process
        holds.
        """
        ...

    def commit(self) -> None:
        """Commit the transaction. Raises OutcomeUnknown if the connection is lost during the commit."""
        ...

    def rollback(self) -> None:
        """Roll back the transaction. Outside a transaction, do nothing."""
        ...

    def close(self) -> None:
        """Close the connection, and release its locks."""
        ...

    def is_alone(self) -> bool:
        """Return true if no other connection has committed between the last two write transactions of
        this connection.
        """
        ...

    def lacks_reserve(self) -> bool:
        """Return true if the disk space that all servers keep in reserve on the database's disk was used up or lost, in
        part or in whole, since an earlier transaction.
        """
        ...

    def take(self, lock: int) -> bool:
        """Try to take the lock with this number for this connection, exclusively among all processes; return whether
        this connection has the lock. The lock is held until the connection is closed or lost, or the process ends.
        """
        ...


class SqliteConnection:
    """A connection to a SQLite database file. A write transaction checks at its begin and at its commit that no other
    program has replaced or changed the files (`DatabaseFiles`).
    """

    def __init__(
        self,
        path: str,
        *,
        read_only: bool = False,
        create: bool = False,
        is_shared: bool = False,
        on_loss: Callable[[LostDatabase], None] = lambda _: None,
    ) -> None:
        """Open a database file. If it does not exist, create it if `create`, otherwise raise Unavailable.

        `on_loss` is called if a file of the database is replaced while the connection writes. `is_shared`: another
        process may write to the file, so its changes do not count as a loss.
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
                "cannot open the database",
                hint="check that the file is a SQLite database, and writable for this user",
                detail=f"{path}: {error}",
            ) from error
        self._path, self._uri, self._locks = path, uri, list[int]()
        self._is_log_long = False
        """True if the next commit must move the remaining pages of the log to the database file."""
        self._writes = False
        """True while a write transaction is open."""
        self._waits = True
        self._version, self._is_alone = 0, False
        if read_only:
            self._raw.execute("pragma query_only=on")

    def execute(self, statement: Sql, params: dict[str, Any]) -> sqlite3.Cursor:
        """Execute a statement, and return the cursor of its rows."""
        return self._raw.execute(statement.sqlite, [params[name] for name in statement.names])

    def execute_each(self, reads: Sequence[Read]) -> list[list[tuple[Any, ...]]]:
        """Execute several statements, and return the rows of each."""
        return [self.execute(read.statement, read.params).fetchall() for read in reads]

    def read_ahead(self, reads: Sequence[Read]) -> None:
        """Do nothing, because SQLite runs in this process."""

    def forget_ahead(self, reads: Sequence[Read]) -> None:
        """Do nothing."""

    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement once for each row of parameters."""
        self._raw.executemany(statement.sqlite, rows)

    def queue(self, statement: Sql, params: dict[str, Any]) -> None:
        """Execute a statement now: queueing would not save time, because SQLite runs in this process."""
        self._raw.execute(statement.sqlite, [params[name] for name in statement.names])

    def script(self, text: str) -> None:
        """Execute the statements of a migration one by one."""
        for part in text.split(";\n"):
            if part.strip():
                self._raw.execute(part)

    def begin(self, *, write: bool) -> None:
        """Begin a transaction. Before a write transaction, check the files of the database."""
        self._wait(True)
        self._raw.execute("begin immediate" if write else "begin")
        if write:
            self._check_files()

    def begin_now(self) -> bool:
        """Begin a write transaction without waiting, and check the files of the database. Return false, without a
        transaction, if another process is writing. Raises LostDatabase if a file of the database was replaced, removed
        or cut.
        """
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
        """Store whether other connections have written since the last check, and check that the paths still name the
        opened files. Raises LostDatabase otherwise.
        """
        (version,) = self._raw.execute("pragma data_version").fetchone()
        self._is_alone, self._version = version == self._version, version
        self._writes = True
        self._files.check_begun(is_alone=self._is_alone)

    def _wait(self, waits: bool) -> None:
        if waits is not self._waits:
            self._raw.execute(BUSY_TIMEOUT if waits else DO_NOT_WAIT)
            self._waits = waits

    def is_alone(self) -> bool:
        """Return true if no other connection has committed between the last two write transactions of
        this connection.
        """
        return self._is_alone

    def lacks_reserve(self) -> bool:
        """Return false: the reserve is a file of this process."""
        return False

    def take(self, lock: int) -> bool:
        """Try to lock a file beside the database, without waiting; return whether this connection has the lock. The
        lock is held until the connection is closed. SQLite's own locks would end with the transaction.
        """
        file = os.open(f"{self._path}.lock{lock}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._locks.append(file)
        return True

    def commit(self) -> None:
        """Commit the transaction. Raises LostDatabase if a file of the database was replaced or changed by another
        program; the commit is then lost too.
        """
        with self._files.committing():
            if is_long := self._is_log_long:
                self._raw.execute(MOVE_AT.format(1))
            self._raw.execute("commit")
            self._writes = False
            if is_long:
                self._is_log_long = False
                self._raw.execute(MOVE_AT.format(LONGEST_LOG))

    def move_log(self) -> None:
        """Move committed pages from the write-ahead log to the database file. This can run in any thread while the
        connection writes. If the log is long, the next commit moves the remaining pages and empties the log. Raises
        LostDatabase if a file of the database was replaced, removed or cut, DatabaseUnavailable if SQLite fails.
        """
        try:
            with self._files.moving() as may_move, closing(sqlite3.connect(self._uri, uri=True)) as mover:
                if may_move:
                    _, pages, _ = mover.execute(MOVE).fetchone()
                    if pages >= LONG_LOG:  # the second pass takes pages of the commits in the first one
                        mover.execute(MOVE)
                        self._is_log_long = True
        except sqlite3.DatabaseError as error:
            raise DatabaseUnavailable(
                "cannot move pages from the write-ahead log to the database", detail=f"{self._path}: {error}"
            ) from error

    def rollback(self) -> None:
        """Roll back the open transaction, if there is one. After a write transaction, also check the files; raise
        LostDatabase if the check fails.
        """
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
        """Raise AssertionError: SQLite always reports the outcome of a commit."""
        raise AssertionError("SQLite always answers a commit")

    def close(self) -> None:
        """Close the connection, and release its locks."""
        self._raw.close()
        self._files.close()
        while self._locks:
            os.close(self._locks.pop())
