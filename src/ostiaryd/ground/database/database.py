"""Where the data lives: opens connections, lends readers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from ostiary.core.errors import Invalid
from ostiaryd.ground.database.connection import Connection, PostgresConnection, SqliteConnection
from ostiaryd.ground.database.files import LostDatabase
from ostiaryd.ground.database.transaction import Reader

T = TypeVar("T")
log = logging.getLogger("ostiary")
READER_THREADS = 4


class Database:
    """A database by its URL: sqlite:///PATH or postgresql://HOST/NAME."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite:")
        if not self.is_sqlite and not url.startswith(("postgresql:", "postgres:")):
            raise Invalid(
                f"unknown database `{urlsplit(url).scheme}`", hint="use sqlite:///PATH or postgresql://HOST/NAME"
            )
        self.loss: LostDatabase | None = None
        """why nothing is read or written any more: a file of the database was lost while the server runs"""
        self._local = threading.local()
        self._opened: list[Connection] = []
        self._pool = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="reader")

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        return Path(unquote(self.url.removeprefix("sqlite:///")))

    def connect(self, *, read_only: bool = False, create: bool = False) -> Connection:
        """A new connection. `create`: make a missing SQLite file, for `migrate` alone. Raises Unavailable."""
        if self.is_sqlite:
            return SqliteConnection(str(self.path), read_only=read_only, create=create, on_loss=self._note_loss)
        return PostgresConnection(self.url)

    def read(self) -> Reader:
        """A reader on this thread: each statement sees the newest commit. Raises LostDatabase after a loss."""
        if self.loss is not None:
            raise LostDatabase(self.loss.message)
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            connection = self.connect(read_only=True)
            self._opened.append(connection)
            reader = self._local.reader = Reader(connection)
        return reader

    async def scan(self, read: Callable[[Reader], T]) -> T:
        """Run what may scan, in a reader thread and one snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._scan, read)

    def _scan(self, read: Callable[[Reader], T]) -> T:
        reader = self.read()
        reader._connection.begin(write=False)
        try:
            return read(reader)
        finally:
            reader._connection.rollback()

    def _note_loss(self, loss: LostDatabase) -> None:
        self.loss = loss
        log.critical("%s; nothing is acknowledged any more: %s", loss.message, loss.hint)

    def close(self) -> None:
        self._pool.shutdown()
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._local = threading.local()
