"""The state of PostgreSQL for all connections of this process: up or down.

If one connection is lost or a wait exceeds its limit, the database counts as down: transactions in progress end, and
every call raises `DatabaseUnavailable` immediately. A monitor thread reconnects with back-off, runs the registered
checks, opens a replacement for each connection, and then sets the state to up. Therefore no connection is opened on the
event loop, and no connection leads to a server from before a failover.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo

from ostiary.protocol.errors import Unavailable
from ostiaryd.ground.database.bounded_connection import BoundedConnection
from ostiaryd.ground.database.connection import DatabaseUnavailable
from ostiaryd.ground.database.postgres import FROZEN_TIMES, STATEMENT_TIMES, PostgresConnection
from ostiaryd.ground.database.transaction import Reader

T = TypeVar("T")
log = logging.getLogger("ostiary")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 0.5
"""First and maximum pause between two attempts to connect, in seconds. The pause doubles after each failure."""
LOCKED_WRITE, LOCKED_READ = 2, 20
"""Parts of the timeout for which a statement waits for a lock of another client on a table or a row: half of it in a
write, behind which every other write waits, and a twentieth in a read on the event loop.
"""
CONNECT_S = 2
"""Time limit for connecting, in seconds: the minimum that libpq accepts."""


class PostgresServer:
    """The state of PostgreSQL and its connections in this process. Thread-safe.

    `timeout_s` is the time without an answer after which the database counts as down, in seconds. After a loss,
    `checks` run on a new connection, in the monitor thread, before the database counts as up. If a check raises, the
    monitor connects again and repeats the checks.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url, self.timeout_s = url, timeout_s
        self.checks: list[Callable[[Reader], None]] = []
        self.losses = 0
        """Number of losses of the database so far. A connection is valid while this number is the same as when it was
        opened.
        """
        self._is_up = threading.Event()
        self._is_up.set()
        self._lock = threading.Lock()
        self._wake, self._is_closed = threading.Event(), threading.Event()
        self._connections: list[PostgresConnection] = []
        self._monitor: threading.Thread | None = None

    @property
    def frozen_ms(self) -> int:
        """Return for how long a writer that hangs in its transaction may block other processes, in milliseconds."""
        return round(FROZEN_TIMES * self.timeout_s * 1000)

    def lock_ms(self, *, times: int, holds_lock: bool) -> int:
        """Return for how long a statement waits for a lock of another client on a table or a row, in milliseconds.
        `times`: the limit of the connection, as a multiple of the timeout. `holds_lock`: whether the connection may
        write, which it does under the lock of the writer.
        """
        part = LOCKED_WRITE if holds_lock else LOCKED_READ / times
        return max(1, round(self.timeout_s * 1000 / part))

    @property
    def is_up(self) -> bool:
        """Return false from a loss of the PostgreSQL server until the monitor has reconnected and every check has
        passed; otherwise true.
        """
        return self._is_up.is_set()

    def wait_up(self, *, within_s: float) -> bool:
        """Wait until the database is up, at most `within_s` seconds; return whether it is up."""
        return self._is_up.wait(within_s)

    def watch(self) -> None:
        """Start the monitor thread, which detects a server that does not answer, and reconnects after a loss."""
        self._monitor = threading.Thread(target=self._watch, name="postgres", daemon=True)
        self._monitor.start()

    def close(self) -> None:
        """Stop the monitor."""
        self._is_closed.set()
        self._wake.set()
        if self._monitor is not None:
            self._monitor.join()

    def connect(self, *, times: int, holds_lock: bool) -> PostgresConnection:
        """Open a connection that is replaced after a loss, and whose waits end after the timeout multiplied by `times`.
        `holds_lock`: whether the connection may write, which it does under the lock of the writer. Raises
        DatabaseUnavailable if PostgreSQL cannot be reached.
        """
        connection = PostgresConnection(self, times=times, holds_lock=holds_lock)
        with self._lock:
            self._connections.append(connection)
        return connection

    def forget(self, connection: PostgresConnection) -> None:
        """Stop tracking a connection to PostgreSQL that was closed."""
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)

    def dial(self, *, times: int, holds_lock: bool) -> BoundedConnection:
        """Open and return a connection of psycopg, whose waits end after `times` the timeout. `holds_lock`: whether the
        connection may write, which it does under the lock of the writer. Raises DatabaseUnavailable if PostgreSQL
        cannot be reached.
        """
        loss = self.losses
        statement_ms = round(STATEMENT_TIMES * self.timeout_s * 1000)
        options = {
            "statement_timeout": statement_ms,
            "lock_timeout": self.lock_ms(times=times, holds_lock=holds_lock),
            "idle_in_transaction_session_timeout": self.frozen_ms if holds_lock else 0,
            "tcp_user_timeout": self.frozen_ms,
        }
        defaults: dict[str, Any] = {
            "connect_timeout": CONNECT_S,
            "keepalives_idle": max(1, round(self.timeout_s)),
            "keepalives_interval": 1,
            "keepalives_count": 3,
            "tcp_user_timeout": self.frozen_ms,
            "target_session_attrs": "read-write",
        }
        try:
            parameters = conninfo.conninfo_to_dict(self._url)
            settings = " ".join(f"-c {name}={value}" for name, value in options.items())
            parameters["options"] = f"{settings} {parameters.get('options') or ''}".strip()
            raw = BoundedConnection.connect(
                conninfo.make_conninfo(**(defaults | parameters)), autocommit=True, prepare_threshold=2
            )
        except psycopg.Error as error:
            reason = str(error).partition("\n")[0]
            raise DatabaseUnavailable(
                "cannot connect to PostgreSQL", hint="check that it runs, and the database URL", detail=reason
            ) from None
        # covers cases that the limit for idle transactions does not
        if holds_lock and raw.info.server_version >= 170000:
            raw.execute(f"set transaction_timeout = {2 * statement_ms}")
        raw.limit_s = times * self.timeout_s
        raw.is_current = lambda: self.losses == loss
        return raw

    def note_loss(self, loss: int) -> None:
        """Set the state to down because a connection is lost. `loss` is the number of losses when that connection was
        opened; if it is not the present number, do nothing.
        """
        with self._lock:
            if self.losses != loss:
                return
            self.losses += 1
            self._is_up.clear()
        log.warning("the connection to PostgreSQL was lost")
        self._wake.set()

    def _watch(self) -> None:
        probe: PostgresConnection | None = None
        pause = FIRST_PAUSE_S
        self._wake.wait(self.timeout_s / 2)  # the connections of the start were answered a moment ago
        while not self._is_closed.is_set():
            self._wake.clear()
            try:
                if probe is None:
                    probe = PostgresConnection(self, times=1, holds_lock=False)
                if self.is_up:
                    probe.check()
                else:
                    self._recover(probe)
                pause = FIRST_PAUSE_S
            except Exception as error:
                if not isinstance(error, Unavailable):
                    log.exception("a check after the loss of PostgreSQL failed")
                if probe is not None:
                    probe.close()
                    probe = None
            if self.is_up:
                self._wake.wait(self.timeout_s / 2)
            elif probe is None:
                self._is_closed.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        if probe is not None:
            probe.close()

    def _recover(self, probe: PostgresConnection) -> None:
        """Run all checks, open a replacement for every connection, and set the state to up."""
        loss = probe.loss
        if loss != self.losses:  # the connection was opened before the loss
            raise DatabaseUnavailable("the connection was opened before the loss")
        for check in self.checks:
            check(Reader(probe))
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.prepare(self.dial(times=connection.times, holds_lock=connection.holds_lock), loss)
        with self._lock:
            if self.losses == loss:
                self._is_up.set()
                log.warning("PostgreSQL is connected again")
