"""The database: opens connections, and provides one reader per thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.database.connection import DatabaseConnection, DatabaseUnavailable, SqliteConnection
from ostiaryd.ground.database.failures import StorageFailed
from ostiaryd.ground.database.transaction import Reader

if TYPE_CHECKING:
    from ostiaryd.ground.database.postgres_server import PostgresServer

T = TypeVar("T")
log = logging.getLogger("ostiary")
READER_THREADS = 4
TIMEOUT_S = 2.0
ON_LOOP, OFF_LOOP = 1, 6
"""Factors of the timeout after which a statement on PostgreSQL is given up: on the event loop, and in other threads,
where statements may take longer.
"""


class Database:
    """A database by its URL: `sqlite:///PATH` or `postgresql://HOST/NAME`. `timeout_s` is the time without an answer
    after which PostgreSQL counts as down, in seconds; a statement outside the event loop may take a multiple of it.
    `is_shared`: a server may write to the SQLite file at the same time.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S, is_shared: bool = False) -> None:
        self.url, self._is_shared = url, is_shared
        self.is_sqlite = url.startswith("sqlite:")
        if not self.is_sqlite and not url.startswith(("postgresql:", "postgres:")):
            raise Invalid(
                f"the database URL has the unknown scheme `{urlsplit(url).scheme}`",
                hint="use sqlite:///PATH or postgresql://HOST/NAME",
            )
        self.loss: StorageFailed | None = None
        """Reason for which all reads are refused: a file of the database was replaced, or is damaged. None while reads
        work.
        """
        self.is_suspect = False
        """True if a request has met a damaged page since the last check of the database."""
        self._server: PostgresServer | None = None
        if not self.is_sqlite:
            # imported only here: psycopg is installed by the extra `postgres`
            from ostiaryd.ground.database.postgres_server import PostgresServer

            self._server = PostgresServer(url, timeout_s=timeout_s)
        self._local = threading.local()
        self._opened: list[DatabaseConnection] = []
        self._pool = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="reader")

    @property
    def path(self) -> Path:
        """Return the path of the SQLite database file."""
        return Path(unquote(self.url.removeprefix("sqlite:///")))

    @property
    def is_up(self) -> bool:
        """Return false from a loss of the PostgreSQL connection until it is restored and every check has passed;
        otherwise true.
        """
        return self._server is None or self._server.is_up

    def check_after_loss(self, check: Callable[[Reader], None]) -> None:
        """Register a function that runs after each loss of the PostgreSQL connection, before any other read or write.

        The new connection may lead to a replica that lags. Checks run in the order of their registration, in the
        monitor thread. If a check raises, the database stays down and the checks run again.
        """
        if self._server is not None:
            self._server.checks.append(check)

    def watch(self) -> None:
        """Start to monitor PostgreSQL, and reconnect after each loss."""
        if self._server is not None:
            self._server.watch()

    def connect(self, *, read_only: bool = False, create: bool = False) -> DatabaseConnection:
        """Open and return a new connection. `read_only`: the connection never writes. `create` (only for `migrate`):
        create the SQLite file if it does not exist. Raises Unavailable if the file or the server cannot be opened.
        """
        return self._connect(times=OFF_LOOP, read_only=read_only, create=create)

    def read(self) -> Reader:
        """Return the reader of this thread. Each statement sees the newest commit. Raises StorageFailed if the database
        is lost or damaged, Unavailable if a first connection of the thread cannot be opened.
        """
        return self._reader(times=ON_LOOP)

    def _reader(self, *, times: int) -> Reader:
        """Return the reader of this thread, whose waits end after `times` the timeout. Raises StorageFailed if the
        database is lost or damaged.
        """
        if self.loss is not None:
            raise type(self.loss)(self.loss.detail)
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            connection = self._connect(times=times, read_only=True)
            self._opened.append(connection)
            reader = self._local.reader = Reader(connection)
        return reader

    def _connect(self, *, times: int, read_only: bool = False, create: bool = False) -> DatabaseConnection:
        if self._server is None:
            return SqliteConnection(
                str(self.path), read_only=read_only, create=create, is_shared=self._is_shared, on_loss=self.give_up
            )
        if not self._server.is_up:
            raise DatabaseUnavailable("the database is not reachable", hint="try again in a moment")
        return self._server.connect(times=times, holds_lock=not read_only)

    async def scan(self, read: Callable[[Reader], T]) -> T:
        """Run `read` in a reader thread on one snapshot of the database, and return its result. Use it for reads that
        examine many rows. Raises StorageFailed if the database is lost or damaged.
        """
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._scan, read)

    def _scan(self, read: Callable[[Reader], T]) -> T:
        reader = self._reader(times=OFF_LOOP)
        try:
            reader._connection.begin(write=False)
            return read(reader)
        finally:
            reader._connection.rollback()

    def give_up(self, loss: StorageFailed) -> None:
        """Refuse every further read until the server is restarted, because of this loss."""
        self.loss = loss
        log.critical("the server acknowledges nothing from now on: %s", loss.message_with_detail)

    def close(self) -> None:
        """Close all connections."""
        if self._server is not None:
            self._server.close()
        self._pool.shutdown()
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._local = threading.local()
