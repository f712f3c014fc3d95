"""Determines which exceptions of the drivers mean that the storage failed, in contrast to an error of the program."""

from __future__ import annotations

import sqlite3

from ostiary.protocol.errors import Unavailable

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_FAILED = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)


_POSTGRES_FAILED = frozenset({"25P02", "42501", "XX000", "XX001", "XX002"})
"""SQLSTATEs in_failed_sql_transaction (an earlier statement of the batch failed), insufficient_privilege,
internal_error, data_corrupted and index_corrupted. `PostgresConnection` handles lost connections and full disks.
"""


class StorageFailed(Unavailable):
    """The files of the database could not be read or written, or PostgreSQL refuses to read or write the tables.
    Nothing was changed.
    """

    code = "storage_failed"
    problem = "the database cannot be read or written"
    next_step = "the log of the server names the cause"

    def __init__(self, detail: str) -> None:
        """Create the error. Callers who have not authenticated can read it, so only `detail` names the cause."""
        super().__init__(self.problem, hint=self.next_step, detail=detail)


class DamagedDatabase(StorageFailed):
    """SQLite reports that a page of the database is malformed, or that the file is not a database."""

    code = "database_damaged"
    problem = "the database is damaged"
    next_step = "restore the database from a backup: `ostiary doctor --deep` names the damage"


def storage_failure(error: BaseException | None) -> StorageFailed | None:
    """Return the storage failure behind a driver's exception or its cause; None for other exceptions.

    SQLite may roll back a transaction without a command (sqlite.org/lang_transaction.html, section 3), so the last
    exception may only state that a savepoint does not exist.
    """
    while error is not None:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF if isinstance(error, sqlite3.Error) else 0
        if code in _DAMAGED:
            return DamagedDatabase(str(error))
        if code in _FAILED:
            return StorageFailed(f"the files of the database failed: {error}; check the disk")
        if (state := getattr(error, "sqlstate", None)) in _POSTGRES_FAILED:
            check = "check the privileges of the server's role, and the log of PostgreSQL"
            return StorageFailed(
                f"PostgreSQL cannot read or write the tables of the server (SQLSTATE {state}); {check}"
            )
        error = error.__context__
    return None
