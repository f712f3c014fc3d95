"""MySQL and MariaDB servers of the organisation, by PyMySQL."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from threading import Timer
from typing import Any

from ostiaryd.ground.outbound.database_driver import (
    CONNECT_S,
    LOCK_S,
    MAX_MESSAGE,
    SILENCE_S,
    STATEMENT_S,
    DatabaseDown,
    DatabaseRefused,
    DatabaseTarget,
    log_in,
    was_lost,
    was_refused,
)

CONFLICTS = frozenset({1205, 1213, 3058})
"""Error numbers after which a transaction can be repeated: ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK and
ER_USER_LOCK_DEADLOCK.
"""
ENDED = frozenset({1053, 1927})
"""ER_SERVER_SHUTDOWN and ER_CONNECTION_KILLED; numbers from 2000 to 2999 are errors of the client."""
MAX_ANSWER = 1 << 20
"""Maximum total size of the server's answers to one call, in bytes. Statements about accounts return few rows."""
SHOWN = 11
"""Minimum number of characters of a hidden text that are recognised at the end of a message that was cut."""
INSTALL = "on the server: pip install 'ostiary[mysql]'"
LIMITS = f"set session lock_wait_timeout = {LOCK_S}, innodb_lock_wait_timeout = {LOCK_S}, wait_timeout = 300"
LIMIT_OF_MARIADB = f"set session max_statement_time = {STATEMENT_S}"
"""Statement that limits the time of statements on MariaDB. MySQL has no such limit; there, the connection ends after
`SILENCE_S`.
"""
MALFORMED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""Exceptions that PyMySQL raises for packets that violate the protocol, or that request a file of the client."""


class MysqlConnection:
    """A connection whose statements end within `SILENCE_S`, even if the server answers slowly, and whose answers are at
    most `MAX_ANSWER` bytes.
    """

    def __init__(self, raw: Any) -> None:
        self._raw, self._left = raw, 0
        self._read = raw._read_bytes
        raw._read_bytes = self._read_bounded

    @property
    def is_open(self) -> bool:
        """Return whether the connection is open: neither closed nor lost."""
        return bool(self._raw.open)

    def execute(self, statement: str, values: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        """Execute statements separated by semicolons, and return the rows of the first one. Raises `pymysql.Error`."""
        with self._bounded(), self._raw.cursor() as cursor:
            cursor.execute(statement, values)
            rows = list(cursor.fetchall())
            while cursor.nextset():
                pass
        return rows

    def open_at(self, sock: socket.socket) -> None:
        """Log in on a connected socket. Raises `pymysql.Error`, OSError."""
        self._raw._sock = sock
        with self._bounded():
            self._raw.connect(sock)

    def commit(self) -> None:
        """Commit the present transaction of the connection."""
        with self._bounded():
            self._raw.commit()

    def rollback(self) -> None:
        """Roll back the present transaction of the connection."""
        with self._bounded():
            self._raw.rollback()

    def close(self) -> None:
        """Close the connection in any state."""
        if self._raw.open:
            self._raw._force_close()

    def _read_bounded(self, count: int) -> bytes:
        """Return the next `count` bytes from the server. After `MAX_ANSWER` bytes, close the connection and raise
        `pymysql.Error`.
        """
        from pymysql.err import InterfaceError

        self._left -= count
        if self._left < 0:
            self.close()
            raise InterfaceError(f"the server answers with more than {MAX_ANSWER} bytes")
        data: bytes = self._read(count)
        return data

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """Close the socket if the block takes longer than `SILENCE_S`. A limit for each read alone would permit a
        server to answer endlessly.
        """
        from pymysql.err import InterfaceError

        self._left = MAX_ANSWER
        limit = Timer(SILENCE_S, self._abort)
        limit.daemon = True
        limit.start()
        try:
            yield
        except MALFORMED:
            raise InterfaceError("the server does not speak the protocol of MySQL") from None
        finally:
            limit.cancel()

    def _abort(self) -> None:
        with suppress(OSError, AttributeError):  # closed meanwhile
            self._raw._sock.shutdown(socket.SHUT_RDWR)


class _RefusedLogin:
    """An authentication method that is refused because it would reveal the password, or an old hash of it, to the
    server.
    """

    def __init__(self, _: object) -> None:
        pass

    def authenticate(self, _: object) -> None:
        from pymysql.err import OperationalError

        raise OperationalError(2059, "the server asks for the password in clear text")


def connect(target: DatabaseTarget) -> MysqlConnection:
    """Open a connection with the first password that the server accepts. Raises DatabaseDown if the server accepts
    none, or cannot be reached.
    """
    try:
        import pymysql
    except ImportError:
        raise DatabaseDown("the server has no Python driver for MySQL databases of agents", hint=INSTALL) from None
    return log_in(target, partial(_login, target), pymysql.Error, _message)


def _login(target: DatabaseTarget, password: str) -> MysqlConnection:
    import pymysql
    from pymysql.constants.CLIENT import MULTI_STATEMENTS

    raw = MysqlConnection(
        pymysql.connect(
            user=target.username,
            password=password,
            host=target.host or "localhost",
            unix_socket=target.socket or None,
            database=target.database or None,
            charset="utf8mb4",
            client_flag=MULTI_STATEMENTS,
            read_timeout=SILENCE_S,
            write_timeout=SILENCE_S,
            program_name="ostiary",
            auth_plugin_map=dict.fromkeys(("mysql_clear_password", "mysql_old_password", "dialog"), _RefusedLogin),
            ssl=ssl.create_default_context(cadata=target.tls_ca or None) if target.is_verified else None,
            ssl_disabled=not target.is_verified,
            defer_connect=True,
        )
    )
    try:
        raw.open_at(_open_socket(target))
        raw.execute(LIMITS)
        with suppress(pymysql.err.OperationalError):  # MySQL raises 1193, "Unknown system variable"
            raw.execute(LIMIT_OF_MARIADB)
    except BaseException:
        raw.close()
        raise
    return raw


def _open_socket(target: DatabaseTarget) -> socket.socket:
    if not target.socket:
        return socket.create_connection((target.host, target.port), CONNECT_S)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_S)
        sock.connect(target.socket)
    except OSError:
        sock.close()
        raise
    return sock


def is_working(raw: MysqlConnection) -> bool:
    """Return whether an idle connection still works."""
    return _works(raw, "select 1")


def reset(raw: MysqlConnection) -> bool:
    """Roll back the open transaction of a connection and release its locks; return false if the connection is lost."""
    return _works(raw, "rollback; do release_all_locks()")


def _works(raw: MysqlConnection, statement: str) -> bool:
    import pymysql

    try:
        raw.execute(statement)
    except (pymysql.Error, OSError):
        return False
    return True


def explain(raw: MysqlConnection, error: Exception, hidden: str) -> DatabaseRefused | DatabaseDown | None:
    """Return the error to raise for an exception of PyMySQL; None for any other exception. Its message does not contain
    the text `hidden`.
    """
    import pymysql

    if not isinstance(error, pymysql.Error):
        return None
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    message = _message(error, hidden)
    is_lost = not raw.is_open or 2000 <= number < 3000 or number in ENDED
    if is_lost or isinstance(error, pymysql.err.InterfaceError):
        return was_lost(message)
    return was_refused(message, is_conflict=number in CONFLICTS)


def _message(error: Exception, hidden: str) -> str:
    """Return the message of a server, cut before the part that quotes a statement, because the statement may contain
    `hidden`.
    """
    text = " ".join(str(error.args[-1] if error.args else error).split())
    text = text.partition(" near '")[0]
    if hidden and hidden[:SHOWN] in text:
        text = text.partition(hidden[:SHOWN])[0] + "***"
    return text[:MAX_MESSAGE]
