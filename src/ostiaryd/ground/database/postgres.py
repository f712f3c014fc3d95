"""The PostgreSQL driver (psycopg 3): every wait is bounded, and a connection that was lost is replaced.

Limits on the server's side (`statement_timeout`, `lock_timeout`, `idle_in_transaction_session_timeout`) end the work of
a client that is frozen. Limits on the client's side end the wait for a server that is silent.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from ostiary.protocol.errors import Malformed
from ostiaryd.ground.database.connection import DatabaseUnavailable, OutcomeUnknown
from ostiaryd.ground.database.statement import Sql

if TYPE_CHECKING:
    from ostiaryd.ground.database.postgres_server import BoundedConnection, PostgresServer

FROZEN_TIMES, STATEMENT_TIMES = 2, 5
"""The time that a frozen writer may block others, and that a statement may take, as multiples of the timeout."""
_NUMBER = """insert into writer_commit (connection, number, at)
    values ('{connection}', {number}, extract(epoch from now()))
    on conflict (connection) do update set number = excluded.number, at = excluded.at"""
_NEWEST = "select coalesce(max(number), 0) from writer_commit"
_LAST = "select number from writer_commit where connection = %(connection)s"
_FORGET_OLD = """delete from writer_commit
    where at < extract(epoch from now()) - 86400 and number < (select max(number) from writer_commit)"""
READ_ONLY = "25006"
"""SQLSTATE read_only_sql_transaction: the server has become a replica."""


class PostgresConnection:
    """A connection, replaced after a loss. Writers of all processes are put in one order by an advisory lock.

    Each commit is numbered in a row that this connection has in `writer_commit`: so a connection can tell whether
    another one has committed since, and whether its own commit took place although the answer was lost.
    """

    WRITER_LOCK = 0x0571A12
    LOCKS = 0x0571A13
    """the first of two numbers that name every other lock"""

    def __init__(self, server: PostgresServer, *, times: int, holds_lock: bool) -> None:
        self._server, self.times, self.holds_lock = server, times, holds_lock
        self.loss = server.losses
        self._raw = server.dial(times=times, holds_lock=holds_lock)
        self._fresh: tuple[BoundedConnection, int] | None = None
        self._in_transaction, self._may_write, self._has_written = False, True, False
        self._name = secrets.token_hex(8)
        self._number, self._pending = -1, -1
        """the newest known commit, and the own commit whose outcome is unknown"""
        self._newest: int | None = None
        """the newest commit before the present transaction, once read"""
        self._queue: list[str] = []
        """statements without parameters that are sent together with the next one of that kind"""
        self.round_trips = 0
        """round trips of this connection; tests and benchmarks count them"""

    @property
    def losses(self) -> int:
        """The number of times the server was lost."""
        return self._server.losses

    def prepare(self, raw: BoundedConnection, loss: int) -> None:
        """Store the replacement connection for the next use. The monitor thread calls this."""
        unused, self._fresh = self._fresh, (raw, loss)
        if unused is not None:
            unused[0].close()

    def check(self) -> None:
        """Check that the server answers. Raises DatabaseUnavailable."""
        self._execute("select 1")

    def execute(self, statement: Sql, params: dict[str, Any]) -> Any:
        """Execute a statement, and return the cursor of its rows. Raises Malformed for a text with NUL."""
        self._has_written |= statement.writes
        try:
            text = statement.postgres
            return self._execute(text, params if params or "%" in text else None)  # with parameters, %% stands for %
        except DatabaseUnavailable:
            raise
        except Exception:
            # The statement was not sent, so the transaction stands: a NUL from one caller fails no act of another.
            if any(isinstance(value, str) and "\0" in value for value in params.values()):
                raise Malformed("a text contains a null character") from None
            raise

    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None:
        """Execute a statement once for each row of parameters, after the queued statements."""
        self._has_written = True
        names = statement.names
        self._flush()
        self.round_trips += 1
        try:
            with self._current().cursor() as cursor:
                cursor.executemany(statement.postgres, [dict(zip(names, row, strict=True)) for row in rows])
        except psycopg.Error as error:
            self._check_lost(error)
            raise

    def queue(self, statement: Sql) -> None:
        """Queue a statement without parameters; it is sent with the next one, in the same round trip."""
        self._queue.append(statement.postgres)

    def script(self, text: str) -> None:
        """Run statements that may take long, such as migrations."""
        self._has_written = True
        raw = self._current()
        raw.limit_s = 0.0
        try:
            self._execute("set local statement_timeout = 0")
            if raw.info.server_version >= 170000:
                self._execute("set local transaction_timeout = 0")
            self._execute(text)
        finally:
            raw.limit_s = self.times * self._server.timeout_s

    def begin(self, *, write: bool) -> None:
        """Begin a transaction with the next statement. `write`: the transaction waits for the lock of the writer."""
        self._current()
        self._in_transaction, self._may_write, self._has_written = True, write, False
        self._newest = None
        if write:
            self._queue += ["begin", f"select pg_advisory_xact_lock({self.WRITER_LOCK})"]
        else:
            self._queue.append("begin isolation level repeatable read, read only")

    def commit(self) -> None:
        """Number the commit if anything was written, then commit.

        Raises OutcomeUnknown if the connection is lost before the answer and something was written.

        PostgreSQL turns `commit` into a rollback, without an error, if a statement has failed: numbering fails then.
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
            self._execute("commit")  # if numbering fails, PostgreSQL leaves out the rest of what was sent with it
        except DatabaseUnavailable:
            raise OutcomeUnknown(
                "the connection to the database was lost during the commit",
                hint="look whether the change took place before you repeat the request",
            ) from None
        self._number = self._pending
        self._end()

    def has_committed(self) -> bool:
        """Return whether the commit that raised OutcomeUnknown took place. Raises OutcomeUnknown if that cannot be
        found out.

        The check holds the writer's lock, so a transaction that PostgreSQL still had in progress has ended.
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
            "the connection to the database was lost during the commit, and does not come back",
            hint="look whether the change took place before you repeat the request",
        )

    def rollback(self) -> None:
        """End the transaction without effect. PostgreSQL itself does that when it loses a connection."""
        was_in_transaction = self._in_transaction
        has_begun = not any(text.startswith("begin") for text in self._queue)
        self._end()
        if was_in_transaction and has_begun and self.loss == self._server.losses:
            with suppress(DatabaseUnavailable):
                self._execute("rollback")

    def _end(self) -> None:
        self._in_transaction = False
        self._queue.clear()

    def close(self) -> None:
        """Close the connection, and its replacement if there is one."""
        self._server.forget(self)
        self._raw.close()
        fresh, self._fresh = self._fresh, None
        if fresh is not None:
            fresh[0].close()

    def is_alone(self) -> bool:
        """Return whether no other server committed between the last two write transactions."""
        newest = self._ask_newest()
        was, self._number = self._number, newest
        return was == newest

    def _ask_newest(self) -> int:
        ((newest,),) = self._execute(_NEWEST).fetchall()
        self._newest = int(newest)
        return self._newest

    def take(self, lock: int) -> bool:
        """Return whether this connection has that lock, exclusively among all processes."""
        (is_ours,) = self._execute(f"select pg_try_advisory_lock({self.LOCKS}, {lock})").fetchone() or (False,)
        return bool(is_ours)

    def _execute(self, text: str, params: dict[str, Any] | None = None) -> Any:
        """Execute a statement after the queued ones: in the same round trip if it has no parameters."""
        raw = self._current()
        if params is None:
            text, self._queue = "; ".join([*self._queue, text]), []
        else:
            self._flush()
        self.round_trips += 1
        try:
            cursor = raw.execute(text, params)
        except psycopg.Error as error:
            self._check_lost(error)
            raise
        while cursor.nextset():  # to the result of the last
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
        """Replace the connection after a loss. Raises DatabaseUnavailable in a transaction, or while it is down."""
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
        """Raise DatabaseUnavailable for an error of the server or of the way to it, not of the statement."""
        if self._raw.closed or (error.sqlstate == READ_ONLY and self._may_write):
            self._server.note_loss(self.loss)
            raise DatabaseUnavailable("the connection to the database was lost", hint="try again in a moment") from None
        if isinstance(error, psycopg.OperationalError):
            raise DatabaseUnavailable(
                f"the database cannot do that now ({error.sqlstate})", hint="try again in a moment"
            ) from None
