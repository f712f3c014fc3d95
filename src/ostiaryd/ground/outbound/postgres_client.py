"""A client of PostgreSQL servers: connections are pooled for each server, bounded, and used in threads.

The caller checks the address. Messages of a server are shortened, and have no text of a statement, which may contain a
password.
"""

from __future__ import annotations

import asyncio
import math
import re
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ostiary.protocol.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from ostiaryd.ground.database.postgres_server import BoundedConnection

T = TypeVar("T")
CONNECT_S, STATEMENT_S, LOCK_S, IDLE_IN_TRANSACTION_S = 5, 10, 5, 10
SILENCE_S = 15.0
"""Seconds without an answer after which a connection counts as lost."""
WAIT_S = 10.0
"""Seconds that a job waits for a connection."""
MAX_WAITING = 512
THREADS = 16
CHECK_AFTER_S, IDLE_S = 1.0, 60.0
"""Seconds after which an idle connection is checked before its use, and after which it is closed."""
MAX_MESSAGE = 200
CONFLICTS = frozenset({"40001", "40P01"})
"""SQLSTATE serialization_failure and deadlock_detected."""
CATALOG_CONFLICT = "tuple concurrently updated"
"""Two transactions changed the rights of one table; this has the SQLSTATE of an internal error."""
_VERIFIER = re.compile(r"SCRAM-SHA-256\$[^\s'\"]+")
"""A verifier of a password, which replaces the password in statements."""
INSTALL = "pip install 'ostiary[postgres]'"


class DatabaseRefused(Invalid):
    """The server refused a statement, and rolled its transaction back."""

    code = "database_refused"


class DatabaseConflict(DatabaseRefused):
    """Another transaction changed the same row; the transaction can be tried again."""

    code = "database_conflict"


class DatabaseDown(Unavailable):
    """The server cannot be reached, refuses the login, or was lost: then the outcome of a transaction is unknown."""

    code = "database_down"


class PostgresTarget(NamedTuple):
    """A server, a database, a user and the passwords that the user may have. `address` is HOST:PORT or the folder of a
    Unix socket; `tls_ca` is PEM, empty for the authorities of the system.
    """

    address: str
    database: str
    username: str
    passwords: tuple[str, ...]
    is_verified: bool
    tls_ca: str
    max_connections: int

    def __repr__(self) -> str:
        """Return the target without its passwords."""
        return f"PostgresTarget({self.username}@{self.address}/{self.database})"


class _Pool:
    """The connections to a target: `slots` bounds those in use. Threads take idle connections and give them back."""

    def __init__(self, target: PostgresTarget) -> None:
        self.slots = asyncio.Semaphore(target.max_connections)
        self.waiting = self.in_use = 0
        self._idle: list[tuple[float, BoundedConnection]] = []
        """Connections with the time of their last use, which rises."""
        self._mutex = threading.Lock()

    @property
    def is_unused(self) -> bool:
        """Return whether nothing uses the pool or waits for it, and no connection is open."""
        return not (self._idle or self.waiting or self.in_use)

    def take(self) -> tuple[float, BoundedConnection] | None:
        """Take the connection that was used last, with the time of that use; None without an idle one."""
        with self._mutex:
            return self._idle.pop() if self._idle else None

    def give(self, raw: BoundedConnection) -> None:
        """Keep a connection for the next job."""
        with self._mutex:
            self._idle.append((time.monotonic(), raw))

    def take_stale(self, before: float) -> list[BoundedConnection]:
        """Take the connections that nothing has used since a time."""
        with self._mutex:
            stale = [raw for used_at, raw in self._idle if used_at < before]
            self._idle = self._idle[len(stale) :]
        return stale

    def release(self) -> None:
        """Let the next job have a connection."""
        self.in_use -= 1
        self.slots.release()


class PostgresClient:
    """The pools of this process. `run` is called on the event loop."""

    def __init__(self, _: object) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database-client")
        self._pools: dict[PostgresTarget, _Pool] = {}

    async def run(self, target: PostgresTarget, work: Callable[[BoundedConnection], T], *, hidden: str = "") -> T:
        """Run `work` in a thread, in a transaction of a connection that only `work` uses meanwhile, and commit.

        `hidden` is a text that no error may show. Raises DatabaseRefused, DatabaseDown.
        """
        pool = self._pools.get(target)
        if pool is None:
            pool = self._pools[target] = _Pool(target)
        if pool.waiting >= MAX_WAITING:
            raise DatabaseDown("too many requests wait for the database", hint="try again in a moment")
        pool.waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await pool.slots.acquire()
        except TimeoutError:
            raise DatabaseDown("the database is busy", hint="try again in a moment") from None
        finally:
            pool.waiting -= 1
        pool.in_use += 1
        job = asyncio.get_running_loop().run_in_executor(self._threads, _perform, pool, target, work, hidden)
        job.add_done_callback(lambda _: pool.release())  # a job whose caller went away still uses its connection
        return await asyncio.shield(job)

    @property
    def targets(self) -> list[PostgresTarget]:
        """Return the targets with connections."""
        return list(self._pools)

    async def close_idle(self, *, within_s: float = IDLE_S) -> None:
        """Close connections that nothing has used within a time; delete targets without connections, with their
        passwords.
        """
        before = time.monotonic() - within_s
        for target, pool in list(self._pools.items()):
            for raw in pool.take_stale(before):
                await asyncio.get_running_loop().run_in_executor(self._threads, raw.close)
            if pool.is_unused and self._pools.get(target) is pool:
                del self._pools[target]

    async def close(self) -> None:
        """Close all connections, after the jobs in progress."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        for pool in self._pools.values():
            for raw in pool.take_stale(math.inf):
                raw.close()


def _perform(pool: _Pool, target: PostgresTarget, work: Callable[[BoundedConnection], T], hidden: str) -> T:
    raw = _take(pool) or _connect(target)
    import psycopg  # installed, since there is a connection

    try:
        result = work(raw)
        raw.commit()
    except psycopg.Error as error:
        message = _message(error, hidden)
        if raw.broken or raw.closed or isinstance(error, psycopg.InterfaceError):
            raw.close()
            raise DatabaseDown(f"the database failed: {message}", hint="see the log of the database") from None
        _give_back(pool, raw)
        kind = DatabaseConflict if error.sqlstate in CONFLICTS or message == CATALOG_CONFLICT else DatabaseRefused
        raise kind(f"the database refused: {message}", hint="see the statements of the role") from None
    except BaseException:
        raw.close()
        raise
    _give_back(pool, raw)
    return result


def _take(pool: _Pool) -> BoundedConnection | None:
    """Return an idle connection that works; None if there is none."""
    while (idle := pool.take()) is not None:
        import psycopg

        used_at, raw = idle
        if time.monotonic() - used_at < CHECK_AFTER_S:
            return raw
        try:
            raw.execute("select 1")
            raw.rollback()
            return raw
        except psycopg.Error:
            raw.close()
    return None


def _give_back(pool: _Pool, raw: BoundedConnection) -> None:
    """Keep a connection for the next job, unless its transaction cannot be ended."""
    import psycopg

    try:
        raw.rollback()
    except psycopg.Error:
        raw.close()
        return
    pool.give(raw)


def _connect(target: PostgresTarget) -> BoundedConnection:
    """Open a connection with the first password that the server accepts. Raises DatabaseDown."""
    try:
        import psycopg

        from ostiaryd.ground.database.postgres_server import BoundedConnection
    except ImportError:
        raise DatabaseDown("the PostgreSQL driver is not installed", hint=INSTALL) from None
    failure = "the user has no password"
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as ca_file:
        ca_file.write(target.tls_ca)
        ca_file.flush()
        options = _options(target, ca_file.name)
        for password in target.passwords:
            try:
                raw = BoundedConnection.connect(password=password, **options)
            except (psycopg.Error, OSError) as error:
                failure = " ".join(str(error).replace(password, "***").split())[-MAX_MESSAGE:]
                continue
            raw.limit_s = SILENCE_S
            return raw
    raise DatabaseDown(f"cannot connect to the database: {failure}", hint="check the connection and its user")


def _options(target: PostgresTarget, ca_file: str) -> dict[str, Any]:
    host, _, port = (target.address, "", "") if target.address.startswith("/") else target.address.rpartition(":")
    tls = {"sslmode": "verify-full", "sslrootcert": ca_file if target.tls_ca else "system"}
    limits = {
        "statement_timeout": STATEMENT_S,
        "lock_timeout": LOCK_S,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_S,
    }
    return {
        "host": host.removeprefix("[").removesuffix("]"),
        **({"port": port} if port else {}),
        "dbname": target.database,
        "user": target.username,
        **(tls if target.is_verified else {"sslmode": "disable"}),
        "gssencmode": "disable",
        "connect_timeout": CONNECT_S,
        "tcp_user_timeout": round(SILENCE_S * 1000),
        "application_name": "ostiary",
        "options": " ".join(f"-c {name}={seconds}s" for name, seconds in limits.items()),
    }


def _message(error: Exception, hidden: str) -> str:
    """Return the first line of a server's message without the hidden text; the other lines quote the statement."""
    diagnosis = getattr(error, "diag", None)
    primary = getattr(diagnosis, "message_primary", None) or str(error).partition("\n")[0]
    primary = _VERIFIER.sub("***", primary.replace(hidden, "***") if hidden else primary)
    return " ".join(primary.split())[:MAX_MESSAGE]
