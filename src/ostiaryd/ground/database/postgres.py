"""The PostgreSQL driver (psycopg 3): every wait has a limit, and a lost connection is replaced.

Limits on the server (`statement_timeout`, `lock_timeout`, `idle_in_transaction_session_timeout`) end the work of a
client that hangs. Limits on the client end the wait for a server that does not answer.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from ostiary.protocol.errors import Malformed
from ostiaryd.ground.database.bounded_connection import BoundedConnection
from ostiaryd.ground.database.connection import DatabaseUnavailable, OutcomeUnknown
from ostiaryd.ground.database.statement import Read, Sql

if TYPE_CHECKING:
    from ostiaryd.ground.database.postgres_server import PostgresServer

log = logging.getLogger("ostiary")
QUEUED_ROWS = 32
"""Maximum number of rows of one statement that are sent in one message with the next statement."""
FROZEN_TIMES, LOCK_TIMES, STATEMENT_TIMES = 2, 2.5, 5
"""Multiples of the timeout: for how long a writer that hangs may block other processes, for how long a writer waits for
the lock of the writer, and for how long a statement may run.
"""
_NUMBER = """insert into writer_commit (connection, number, at)
    values ('{connection}', {number}, extract(epoch from now()))
    on conflict (connection) do update set number = excluded.number, at = excluded.at"""
RESERVE_TABLE, RESERVE_TABLES = "disk_reserve_", 4
"""First part of the names of the tables that reserve space on the disk, and number of the last one, which is dropped
first.
"""
STEP_BYTES = 24 << 20
"""Size of each table that reserves disk space, in bytes. The size is more than a segment of the write-ahead log (16
MiB).
"""
_NEWEST = f"""select coalesce(max(number), 0),
    coalesce(pg_relation_size(to_regclass('{RESERVE_TABLE}{RESERVE_TABLES}')), 0) from writer_commit"""
_LAST = "select number from writer_commit where connection = %(connection)s"
_FORGET_OLD = """delete from writer_commit
    where at < extract(epoch from now()) - 86400 and number < (select max(number) from writer_commit)"""
_END_HOLDERS = """with holder as materialized (
    select application_name, pid from pg_stat_activity
    where pid in (select pid from pg_locks where locktype = 'advisory' and granted
        and database = (select oid from pg_database where datname = current_database())
        and classid = 0 and objid = {lock} and objsubid = 1)
    and pid <> pg_backend_pid() and state like 'idle%' and state_change < now() - interval '{frozen_ms} ms'
) select application_name, pid from holder where pg_terminate_backend(pid)"""
"""Statement that ends the sessions that hold the lock of the writer without work for so long that they are no writers:
PostgreSQL ends a writer that is idle in its transaction for that time. Materialized, because PostgreSQL chooses the
order in which it evaluates conditions, and would end other sessions. A role sees the state of its own sessions only.
"""
READ_ONLY = "25006"
"""SQLSTATE read_only_sql_transaction: the server is now a read-only replica."""


class _Rows:
    """Rows that were read ahead, as a cursor returns them."""

    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows."""
        return self._rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the first row; None if there is none."""
        return self._rows[0] if self._rows else None


def _results(cursor: Any) -> list[list[tuple[Any, ...]]]:
    """Return the rows of all results from the present result of a cursor on."""
    results = [cursor.fetchall() if cursor.description else []]
    while cursor.nextset():
        results.append(cursor.fetchall() if cursor.description else [])
    return results


@contextmanager
def _refusing_nul(params: dict[str, Any]) -> Iterator[None]:
    """Raise Malformed if the statement of the block fails because a parameter contains NUL. The statement was not sent,
    so the transaction continues: a NUL from one caller does not fail the acts of other callers.
    """
    try:
        yield
    except DatabaseUnavailable:
        raise
    except Exception:
        if any(isinstance(value, str) and "\0" in value for value in params.values()):
            raise Malformed("a text contains a null character") from None
        raise


class PostgresConnection:
    """A connection that is replaced after a loss. An advisory lock ensures that only one process writes at a time.

    Each commit writes its number to a row of `writer_commit` that belongs to this connection. By these numbers, the
    connection determines whether another connection has committed since its own last commit, and, if the answer to its
    commit was lost, whether this commit took place.
    """

    WRITER_LOCK = 0x0571A12
    LOCKS = 0x0571A13
    """The first of the two numbers of each advisory lock of `take`."""

    def __init__(self, server: PostgresServer, *, times: int, holds_lock: bool) -> None:
        self._server, self.times, self.holds_lock = server, times, holds_lock
        self.loss = server.losses
        self._raw = server.dial(times=times, holds_lock=holds_lock)
        self._fresh: tuple[BoundedConnection, int] | None = None
        self._in_transaction, self._may_write, self._has_written = False, True, False
        self._name = secrets.token_hex(8)
        self._number, self._pending = -1, -1
        """Number of the newest known commit, and number of the own commit whose outcome is unknown; -1 for none."""
        self._reserve_bytes, self._had_reserve = 0, False
        """Size of the last table of the reserve at the begin of the transaction, and whether it once was whole."""
        self._is_opening = False
        """True from the begin of a write transaction until its first statement is sent."""
        self._waits_for_lock = False
        """True from the begin of a write transaction until its first statement has succeeded."""
        self._opened: dict[tuple[Any, ...], _Rows] = {}
        """Rows of the opening statements and of other reads that were made ahead, by statement and parameters, until a
        statement may have changed them.
        """
        self._newest: int | None = None
        """Number of the newest commit before the present transaction; None until it is read."""
        self._queue: list[str] = []
        """Statements that wait, to be sent together with the next one."""
        self.round_trips = 0
        """Number of round trips to the server, which tests and benchmarks read."""

    @property
    def losses(self) -> int:
        """Return how often this process has lost the PostgreSQL server so far."""
        return self._server.losses

    def prepare(self, raw: BoundedConnection, loss: int) -> None:
        """Store the replacement of this connection for the next use. Called by the monitor thread."""
        unused, self._fresh = self._fresh, (raw, loss)
        if unused is not None:
            unused[0].close()

    def check(self) -> None:
        """Check that the server answers. Raises DatabaseUnavailable otherwise."""
        self._execute("select 1")

    def execute(self, statement: Sql, params: dict[str, Any]) -> Any:
        """Execute a statement, and return the cursor of its rows. Raises Malformed for a text with NUL."""
        self._has_written |= statement.writes
        if self._opened and (rows := self._opened.get((statement, *params.items()))) is not None:
            return rows
        text = statement.postgres
        self._forget_opened(statement)
        with _refusing_nul(params):
            # psycopg replaces %% by % only if it gets parameters
            return self._execute(text, params if params or "%" in text else None)

    def execute_each(self, reads: Sequence[Read]) -> list[list[tuple[Any, ...]]]:
        """Execute several statements after the queued ones, in one round trip, and return the rows of each."""
        if len(reads) < 2:  # a statement alone can be a prepared one
            return [self.execute(read.statement, read.params).fetchall() for read in reads]
        texts = []
        for read in reads:
            self._has_written |= read.statement.writes
            self._forget_opened(read.statement)
            with _refusing_nul(read.params):
                texts.append(self._bind(read.statement.postgres, read.params))
        return _results(self._execute("; ".join(texts), stays_at_first=True))[-len(reads) :]

    def read_ahead(self, reads: Sequence[Read]) -> None:
        """Execute reads in one round trip, and keep their rows for `execute` until `forget_ahead`, or until a statement
        may have changed them.
        """
        for read, rows in zip(reads, self.execute_each(reads), strict=True):
            self._opened[read.statement, *read.params.items()] = _Rows(rows)

    def forget_ahead(self, reads: Sequence[Read]) -> None:
        """Forget the rows of reads that were read ahead."""
        for read in reads:
            self._opened.pop((read.statement, *read.params.items()), None)

    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement once for each row of parameters, after the queued statements. Up to `QUEUED_ROWS` rows
        are queued, too, and sent in one message with the next statement.
        """
        self._has_written = True
        self._forget_opened(statement)
        names = statement.names
        values = [dict(zip(names, row, strict=True)) for row in rows]
        if len(values) <= QUEUED_ROWS:
            self._queue += [self._bind(statement.postgres, value) for value in values]
            return
        self._flush()
        self.round_trips += 1
        try:
            with self._current().cursor() as cursor:
                cursor.executemany(statement.postgres, values)
        except psycopg.Error as error:
            self._check_lost(error)
            raise

    def queue(self, statement: Sql, params: dict[str, Any]) -> None:
        """Queue a statement, which is sent in one round trip together with the next one. Raises Malformed for a text
        with NUL.
        """
        self._has_written |= statement.writes
        self._forget_opened(statement)
        with _refusing_nul(params):
            self._queue.append(self._bind(statement.postgres, params))

    def _forget_opened(self, statement: Sql) -> None:
        """Forget the rows of opening statements that a statement may change."""
        if statement.writes:
            for opened in [one for one in self._opened if not one[0].tables.isdisjoint(statement.tables)]:
                del self._opened[opened]

    def _bind(self, text: str, params: dict[str, Any] | None) -> str:
        """Return the text with the parameters as literals: only such a text can be a part of a longer message."""
        # psycopg replaces %% by % only if it gets parameters
        return psycopg.ClientCursor(self._current()).mogrify(text, params) if params or "%" in text else text

    def script(self, text: str) -> None:
        """Execute the statements of a migration, without a time limit."""
        self._has_written = True
        raw = self._current()
        raw.limit_s = 0.0
        try:
            self._execute("set local statement_timeout = 0")
            self._execute(f"set local lock_timeout = {STATEMENT_TIMES * round(self._server.timeout_s * 1000)}")
            if raw.info.server_version >= 170000:
                self._execute("set local transaction_timeout = 0")
            self._execute(text)
        finally:
            raw.limit_s = self.times * self._server.timeout_s

    def begin(self, *, write: bool) -> None:
        """Begin a transaction, in the same round trip as the next statement. A write transaction first waits for the
        lock of the writer.
        """
        self._current()
        self._in_transaction, self._may_write, self._has_written = True, write, False
        self._newest = None
        if write:
            limit_ms = round(LOCK_TIMES * self._server.timeout_s * 1000)
            lock = f"select pg_advisory_xact_lock({self.WRITER_LOCK})"
            self._queue += ["begin", f"set local lock_timeout = {limit_ms}", lock, "set local lock_timeout to default"]
            self._is_opening = self._waits_for_lock = True
        else:
            self._queue.append("begin isolation level repeatable read, read only")

    def commit(self) -> None:
        """Commit the transaction. If anything was written, first store the number of this commit.

        Raises OutcomeUnknown if something was written and the connection is lost before the answer.

        If a statement has failed, PostgreSQL turns `commit` into a rollback without an error; in this case storing the
        number fails.
        """
        if not self._has_written:
            self._execute("commit")
            self._end()
            return
        if self._newest is None:
            self._ask_newest()
            self._queue.append(_FORGET_OLD)
        assert self._newest is not None
        self._pending = self._newest + 1
        self._queue.append(_NUMBER.format(connection=self._name, number=self._pending))
        try:
            # if storing the number fails, PostgreSQL does not execute the commit that was sent with it
            self._execute("commit")
        except DatabaseUnavailable:
            raise OutcomeUnknown(
                "the connection to the database was lost during the commit",
                hint="check whether the change took place before you repeat the request",
            ) from None
        self._number = self._pending
        self._end()

    def has_committed(self) -> bool:
        """Return whether the commit that raised OutcomeUnknown took place. Raises OutcomeUnknown if this cannot be
        determined.

        The check takes the lock of the writer, so the transaction in question has ended in PostgreSQL.
        """
        until = time.monotonic() + STATEMENT_TIMES * self._server.timeout_s
        while self._server.wait_up(within_s=until - time.monotonic()):
            try:
                self.begin(write=True)
                return bool(self._execute(_LAST, {"connection": self._name}).fetchall() == [(self._pending,)])
            except DatabaseUnavailable:
                continue
            finally:
                self.rollback()
        raise OutcomeUnknown(
            "the connection to the database was lost during the commit, and cannot be restored",
            hint="check whether the change took place before you repeat the request",
        )

    def rollback(self) -> None:
        """End the transaction without effect. If the connection is lost, PostgreSQL does this itself."""
        was_in_transaction, waited = self._in_transaction, self._waits_for_lock
        has_begun = not any(text.startswith("begin") for text in self._queue)
        self._end()
        if was_in_transaction and has_begun and self.loss == self._server.losses:
            with suppress(DatabaseUnavailable):
                self._execute("rollback")
                if waited:
                    self._end_idle_holders()

    def _end_idle_holders(self) -> None:
        """End the sessions that hold the lock of the writer without work, after a transaction that did not get it."""
        text = _END_HOLDERS.format(lock=self.WRITER_LOCK, frozen_ms=self._server.frozen_ms)
        try:
            ended = self._execute(text).fetchall()
        except psycopg.Error as error:
            log.warning("the session with the lock of the writer cannot be ended (%s)", error.sqlstate)
            return
        for name, pid in ended:
            log.warning("ended the session %s of `%s`: it held the lock of the writer", pid, name)

    def _end(self) -> None:
        self._in_transaction = self._is_opening = self._waits_for_lock = False
        self._opened.clear()
        self._queue.clear()

    def close(self) -> None:
        """Close the connection, and its replacement if there is one."""
        self._server.forget(self)
        self._raw.close()
        fresh, self._fresh = self._fresh, None
        if fresh is not None:
            fresh[0].close()

    def is_alone(self) -> bool:
        """Return true if no other server has committed between the last two write transactions of this connection."""
        newest = self._ask_newest()
        was, self._number = self._number, newest
        return was == newest

    def lacks_reserve(self) -> bool:
        """Return true if the reserve on the disk was whole in an earlier transaction, but not when the present
        transaction began: another server has used it, or PostgreSQL has recovered from a crash.
        """
        return self._had_reserve and self._reserve_bytes < STEP_BYTES

    def _ask_newest(self) -> int:
        openings = Sql.opening if self._is_opening else []
        self._is_opening = False
        cursor = self._execute("; ".join([_NEWEST, *(one.postgres for one in openings)]), stays_at_first=True)
        results = _results(cursor)
        first = len(results) - len(openings)
        ((newest, self._reserve_bytes),) = results[first - 1]
        self._opened = {(one,): _Rows(rows) for one, rows in zip(openings, results[first:], strict=True)}
        self._had_reserve |= self._reserve_bytes >= STEP_BYTES
        self._newest = int(newest)
        return self._newest

    def take(self, lock: int) -> bool:
        """Try to take the lock with this number for this connection, without waiting, exclusively among all processes;
        return whether this connection has the lock. The lock is held until the connection is closed or lost.
        """
        (is_ours,) = self._execute(f"select pg_try_advisory_lock({self.LOCKS}, {lock})").fetchone() or (False,)
        return bool(is_ours)

    def run_text(self, text: str) -> Any:
        """Execute statements without parameters as one transaction of their own, and return the cursor of the last
        statement.
        """
        return self._execute(text)

    def _execute(self, text: str, params: dict[str, Any] | None = None, *, stays_at_first: bool = False) -> Any:
        """Execute statements after the queued statements, in one round trip, and return the cursor at the last result,
        or at the first result of all.
        """
        raw = self._current()
        if self._queue:
            text, params = "; ".join([*self._queue, self._bind(text, params) if params is not None else text]), None
            self._queue = []
        self.round_trips += 1
        try:
            cursor = raw.execute(text, params)
        except psycopg.Error as error:
            self._check_lost(error)
            raise
        self._waits_for_lock = False
        while not stays_at_first and cursor.nextset():
            continue
        return cursor

    def _flush(self) -> None:
        if self._queue:
            last = self._queue.pop()
            self._execute(last)

    def _current(self) -> BoundedConnection:
        if self.loss != self._server.losses:
            self._renew()
        return self._raw

    def _renew(self) -> None:
        """Replace the connection if it was lost. Raises DatabaseUnavailable if a transaction was open, or if the
        database is down.
        """
        server = self._server
        if self._in_transaction or not server.is_up:
            raise DatabaseUnavailable("the database is not reachable", hint="try again in a moment")
        loss = server.losses
        fresh, self._fresh = self._fresh, None
        self._raw.close()
        if fresh is None or fresh[1] != loss:
            try:
                fresh = server.dial(times=self.times, holds_lock=self.holds_lock), loss
            except DatabaseUnavailable:
                server.note_loss(loss)
                raise
        (self._raw, self.loss), self._number = fresh, -1

    def _check_lost(self, error: psycopg.Error) -> None:
        """Raise DatabaseUnavailable if the error comes from the server or the connection, and not from
        the statement.
        """
        if self._raw.closed or (error.sqlstate == READ_ONLY and self._may_write):
            self._server.note_loss(self.loss)
            raise DatabaseUnavailable("the connection to the database was lost", hint="try again in a moment") from None
        if isinstance(error, psycopg.OperationalError):
            raise DatabaseUnavailable(
                "the database cannot execute the statement now",
                hint="try again in a moment",
                detail=f"SQLSTATE {error.sqlstate}",
            ) from None
