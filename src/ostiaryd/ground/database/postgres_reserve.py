"""A reserve of disk space in PostgreSQL for acts that stop something: unlogged tables whose pages are empty.

All servers of a database share the reserve. When PostgreSQL reports a full disk, one table after the other is dropped,
which frees its space at once; then only acts that stop something run, at every server, until all tables exist again.

The tables are unlogged, so they cost no write-ahead log, and PostgreSQL itself empties them when it recovers from a
crash. This gives a recovery space to run in, if PostgreSQL has crashed because its log had no space on the same disk
(docs/adr/0175-a-reserve-in-postgresql.md).
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import psycopg

from ostiaryd.ground.database.connection import DatabaseUnavailable
from ostiaryd.ground.database.database import Database
from ostiaryd.ground.database.postgres import RESERVE_TABLE, RESERVE_TABLES, STEP_BYTES, PostgresConnection
from ostiaryd.ground.database.reserve import is_disk_full

log = logging.getLogger("ostiary")
PAUSE_S = 10.0
"""Time between two attempts to restore the reserve, in seconds, because an attempt fills the disk for a moment."""
LOCK_MS = 100
"""Time for which a locked table delays a stop before the session with the lock is ended, in milliseconds."""
_PAGE_BYTES = 8192
_BUILD_LOCK = 0x0571A14
_CREATE = """do $create$ begin
    if not pg_try_advisory_xact_lock({lock}) or pg_relation_size(to_regclass('{name}')) >= {size} then return; end if;
    drop table if exists {name};
    create unlogged table {name} (filler text) with (autovacuum_enabled = false, vacuum_truncate = false);
    alter table {name} alter column filler set storage plain;
    begin
        insert into {name} select repeat('x', {row}) from generate_series(1, {rows});
        raise exception using errcode = 'OST01';
    exception when sqlstate 'OST01' then null;
    end;
end $create$"""
"""Statement that creates a table whose pages are allocated and have no visible row: the rows are rolled back, so that
backups do not contain them. If another server creates tables, or has created this one, it does nothing.
"""
_END_HOLDERS = """with holder as materialized (
    select application_name, pid from pg_stat_activity
    where pid in (select pid from pg_locks where relation = to_regclass('{name}') and granted)
    and pid <> pg_backend_pid() and datname = current_database()
) select application_name, pid from holder where pg_terminate_backend(pid)"""
"""Materialized, because PostgreSQL chooses the order in which it evaluates conditions, and would end other sessions."""
_SIZES = "select " + ", ".join(
    f"coalesce(pg_relation_size(to_regclass('{RESERVE_TABLE}{number}')), 0)" for number in range(1, RESERVE_TABLES + 1)
)


class PostgresReserve:
    """The tables in PostgreSQL that keep disk space in reserve, to be freed when the disk is full. Thread-safe."""

    was_full = False
    """False: this process does not know the free space of PostgreSQL's disk before it has created the tables."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection: PostgresConnection | None = None
        self._lock = threading.Lock()
        self._failed_at = float("-inf")
        """Time of the last attempt that found no space, in seconds of the monotonic clock."""
        self.defect = ""
        """Reason for which PostgreSQL refuses to create the tables; empty without one."""

    @property
    def size(self) -> int:
        """Return the number of bytes that are reserved now."""
        return sum(self._sizes())

    def build(self) -> bool:
        """Create the missing tables, if the disk has space for them and a quarter more. Return false if it has no
        space, had none less than `PAUSE_S` ago, or another server is creating the tables; true if all tables exist.

        If PostgreSQL refuses the tables for another reason (`defect`), there is no reserve, and the disk does not count
        as full: return true.
        """
        missing = [number for number, size in enumerate(self._sizes(), 1) if size < STEP_BYTES]
        if not missing:
            self._failed_at = float("-inf")
            return True
        if time.monotonic() - self._failed_at < PAUSE_S:
            return False
        connection = self._connect()
        try:
            for number in missing:
                spare = f"; {_create(0)}; drop table if exists {_name(0)}" if number == missing[-1] else ""
                connection.run_text(_create(number) + spare)  # one message is one transaction
            self._failed_at, self.defect = float("-inf"), ""
        except Exception as error:
            if is_disk_full(error):
                self._failed_at, self.defect = time.monotonic(), ""
                return False
            if not isinstance(error, psycopg.Error):
                raise
            self.defect = str(error).partition("\n")[0]
            return True
        finally:
            connection.close()
        return all(size >= STEP_BYTES for size in self._sizes())

    def release(self) -> bool:
        """Free a part of the reserve by dropping one of its tables. Return false if no table is left.

        If another session has a lock on the table, as a dump of the whole database does, the session is ended, because
        stops go before dumps. PostgreSQL permits that for sessions of a role of which the server is a member.
        """
        number = max((number for number, size in enumerate(self._sizes(), 1) if size), default=0)
        if number:
            try:
                self._run(_drop(number, within_ms=LOCK_MS))
            except DatabaseUnavailable:  # among others, for a lock that is not granted
                self._end_holders(number)
                self._run(_drop(number, within_ms=10 * LOCK_MS))
        return bool(number)

    def _end_holders(self, number: int) -> None:
        """End the sessions that have a lock on a table, and log them."""
        try:
            ended = self._run(_END_HOLDERS.format(name=_name(number))).fetchall()
        except psycopg.errors.InsufficientPrivilege:
            return  # the table stays locked, as the next attempt says
        for name, pid in ended:
            log.warning("the disk is full: ended the session %d (%s), which locked %s", pid, name, _name(number))

    def open_room(self) -> bool:
        """Return whether the last attempt to restore the reserve found no space. The free space itself is unknown, so
        `release` frees a part when an act needs it.
        """
        return self._failed_at > float("-inf")

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def _sizes(self) -> tuple[int, ...]:
        row: tuple[int, ...] = self._run(_SIZES).fetchone()
        return row

    def _run(self, text: str) -> Any:
        with self._lock:
            self._connection = self._connection or self._connect()
            return self._connection.run_text(text)

    def _connect(self) -> PostgresConnection:
        connection = self._db.connect()
        assert isinstance(connection, PostgresConnection)
        return connection


def _name(number: int) -> str:
    return f"{RESERVE_TABLE}{number}"


def _drop(number: int, *, within_ms: int) -> str:
    return f"set local lock_timeout = {within_ms}; drop table if exists {_name(number)}"


def _create(number: int) -> str:
    rows = STEP_BYTES // _PAGE_BYTES
    return _CREATE.format(name=_name(number), lock=_BUILD_LOCK, size=STEP_BYTES, row=_PAGE_BYTES - 192, rows=rows)
