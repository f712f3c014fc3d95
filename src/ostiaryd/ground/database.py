"""One SQL text for two databases.

A statement is written once with `:name` parameters in the subset that SQLite and PostgreSQL share (text, bigint, bytea;
`on conflict`, `returning`, CTEs, window functions; JSON as text; booleans as 0 and 1; time as bigint microseconds).
What really differs lives in the two connection classes below and nowhere else. Rows are plain tuples.

Point reads run on the caller's thread (about 4 microseconds in SQLite); whatever may scan goes to a reader thread.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from ostiary.core.errors import Invalid

if TYPE_CHECKING:
    from ostiaryd.ground.keyring import Keyring

T = TypeVar("T")
Row = tuple[Any, ...]
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_][a-z0-9_]*)")
READER_THREADS = 4
PRAGMAS = (
    "pragma busy_timeout=10000",
    "pragma journal_mode=wal",
    "pragma synchronous=full",  # the log is synced before a commit returns, so before anybody is answered
    "pragma foreign_keys=on",
    "pragma cache_size=-65536",
    "pragma temp_store=memory",  # what a savepoint may have to restore: in a file it costs a write for each page
    "pragma wal_autocheckpoint=8000",  # pages: most are written again and again before they move to the database
)


class Sql:
    """One statement in both spellings. `names` is the order in which `many` expects the columns of a row."""

    __slots__ = ("names", "postgres", "sqlite")

    def __init__(self, text: str) -> None:
        self.names: tuple[str, ...] = tuple(dict.fromkeys(_PARAMETER.findall(text)))
        number = {name: index for index, name in enumerate(self.names, 1)}
        self.sqlite = _PARAMETER.sub(lambda match: f"?{number[match[1]]}", text)
        self.postgres = _PARAMETER.sub(lambda match: f"%({match[1]})s", text.replace("%", "%%"))


def sql(text: str) -> Sql:
    """Prepare a statement; call it at import, never with a value spliced in."""
    return Sql(text)


class Connection(Protocol):
    """The few calls in which the two drivers differ."""

    def execute(self, statement: Sql, params: dict[str, Any]) -> Any: ...
    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None: ...
    def script(self, text: str) -> None: ...
    def begin(self, *, write: bool) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...
    def close(self) -> None: ...


class SqliteConnection:
    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self._raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
        for pragma in PRAGMAS:
            self._raw.execute(pragma)
        if read_only:
            self._raw.execute("pragma query_only=on")

    def execute(self, statement: Sql, params: dict[str, Any]) -> sqlite3.Cursor:
        return self._raw.execute(statement.sqlite, [params[name] for name in statement.names])

    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None:
        self._raw.executemany(statement.sqlite, rows)

    def script(self, text: str) -> None:
        for part in text.split(";\n"):
            if part.strip():
                self._raw.execute(part)

    def begin(self, *, write: bool) -> None:
        self._raw.execute("begin immediate" if write else "begin")

    def commit(self) -> None:
        self._raw.execute("commit")

    def rollback(self) -> None:
        if self._raw.in_transaction:
            self._raw.execute("rollback")

    def close(self) -> None:
        self._raw.close()


class PostgresConnection:
    """psycopg 3. Writers of all processes are put in one order by an advisory lock held for the batch."""

    WRITER_LOCK = 0x0571A12

    def __init__(self, url: str) -> None:
        import psycopg  # an extra: only who chooses PostgreSQL needs it

        self._raw = psycopg.connect(url, autocommit=True, prepare_threshold=2)
        self._cursor = self._raw.cursor()

    def execute(self, statement: Sql, params: dict[str, Any]) -> Any:
        return self._raw.execute(statement.postgres, params)

    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None:
        names = statement.names
        self._cursor.executemany(statement.postgres, [dict(zip(names, row, strict=True)) for row in rows])

    def script(self, text: str) -> None:
        self._raw.execute(text)

    def begin(self, *, write: bool) -> None:
        self._raw.execute("begin" if write else "begin read only")
        if write:
            self._raw.execute(f"select pg_advisory_xact_lock({self.WRITER_LOCK})")

    def commit(self) -> None:
        self._raw.execute("commit")

    def rollback(self) -> None:
        self._raw.execute("rollback")

    def close(self) -> None:
        self._raw.close()


class Reader:
    """Statements against one connection, for reading."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def one(self, statement: Sql, **params: Any) -> Row | None:
        """The first row, or None."""
        row: Row | None = self._connection.execute(statement, params).fetchone()
        return row

    def all(self, statement: Sql, **params: Any) -> list[Row]:
        rows: list[Row] = self._connection.execute(statement, params).fetchall()
        return rows


class Tx(Reader):
    """A transaction of the writer: `now` is the one instant of the batch, in microseconds since the epoch."""

    __slots__ = ("deferred", "keys", "now", "random", "topics")

    def __init__(self, connection: Connection, *, now: int, random: Callable[[int], bytes], keys: Keyring) -> None:
        super().__init__(connection)
        self.now = now
        self.random = random
        self.keys = keys
        self.deferred: dict[Callable[[Tx, list[Any]], None], list[Any]] = {}
        self.topics: set[str] = set()

    def run(self, statement: Sql, **params: Any) -> int:
        """Execute; the number of rows touched."""
        count: int = self._connection.execute(statement, params).rowcount
        return count

    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None:
        """Execute for each row, values in the order of `statement.names`."""
        self._connection.many(statement, rows)

    def defer(self, function: Callable[[Tx, list[Any]], None], value: Any) -> None:
        """Gather `value`; `function(tx, values)` runs once, right before the commit, for all acts of the batch."""
        self.deferred.setdefault(function, []).append(value)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """All or nothing for what is inside; an exception rolls it back and goes on."""
        topics = set(self.topics)
        self._connection.execute(_SAVEPOINT, {})
        try:
            yield
        except BaseException:
            self._connection.execute(_ROLLBACK_TO, {})
            self._connection.execute(_RELEASE, {})
            self.topics = topics
            raise
        self._connection.execute(_RELEASE, {})


_SAVEPOINT, _ROLLBACK_TO, _RELEASE = (
    sql("savepoint act"),
    sql("rollback to savepoint act"),
    sql("release savepoint act"),
)


class Database:
    """Where the data lives: opens connections, lends readers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite:")
        if not self.is_sqlite and not url.startswith(("postgresql:", "postgres:")):
            raise Invalid(
                f"unknown database `{urlsplit(url).scheme}`", hint="use sqlite:///PATH or postgresql://HOST/NAME"
            )
        self._local = threading.local()
        self._opened: list[Connection] = []
        self._pool = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="reader")

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        return Path(unquote(self.url.removeprefix("sqlite:///")))

    def connect(self, *, read_only: bool = False) -> Connection:
        if self.is_sqlite:
            return SqliteConnection(str(self.path), read_only=read_only)
        return PostgresConnection(self.url)

    def read(self) -> Reader:
        """A reader on this thread: each statement sees the newest commit."""
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

    def close(self) -> None:
        self._pool.shutdown()
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._local = threading.local()
