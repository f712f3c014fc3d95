"""The interface of a driver for databases of the organisation, with its targets and errors.

There is one driver module for each kind of database server. Messages of a server are shortened, and contain no text of
a statement, because it may contain a password.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from ostiary.protocol.errors import Invalid, Unavailable

CONNECT_S, STATEMENT_S, LOCK_S = 5, 10, 5
"""Maximum time for connecting, for a statement, and for a statement to wait for a lock, in seconds."""
SILENCE_S = 15.0
"""Time after which a connection counts as lost, in seconds: on PostgreSQL without a byte from the server, on MySQL
without the complete answer to a call.
"""
MAX_MESSAGE = 200

T = TypeVar("T")
DatabaseKind = Literal["postgresql", "mysql"]


class DatabaseRefused(Invalid):
    """The external database server refused a statement. The transaction was rolled back if the server has transactions
    for such statements.
    """

    code = "database_refused"


class DatabaseConflict(DatabaseRefused):
    """Another transaction changed the same row; the transaction can be tried again."""

    code = "database_conflict"


class DatabaseDown(Unavailable):
    """The external database server is unreachable or refuses the login, no connection became free in time, or the
    connection was lost. After a loss, the outcome of a transaction is unknown.
    """

    code = "database_down"


class DatabaseTarget(NamedTuple):
    """A database on a server, with a user and its possible passwords (the old and the new one during a rotation).

    `address` is HOST:PORT, or the Unix socket: its folder for PostgreSQL, its path for MySQL. `is_verified`: use TLS,
    and verify the server's certificate; otherwise use no TLS. `tls_ca` is PEM, empty for the authorities of the system.
    """

    kind: DatabaseKind
    address: str
    database: str
    username: str
    passwords: tuple[str, ...]
    is_verified: bool
    tls_ca: str
    max_connections: int

    @property
    def socket(self) -> str:
        """Return the Unix socket; empty for a network address."""
        return self.address if self.address.startswith("/") else ""

    @property
    def host(self) -> str:
        """Return the host, an IPv6 address without brackets; empty for a Unix socket."""
        return "" if self.socket else self.address.rpartition(":")[0].removeprefix("[").removesuffix("]")

    @property
    def port(self) -> int:
        """Return the port of the database server."""
        return int(self.address.rpartition(":")[2])

    def __repr__(self) -> str:
        """Return a text about the target without its passwords."""
        return f"DatabaseTarget({self.username}@{self.address}/{self.database})"


class DatabaseDriver(Protocol):
    """A driver for one kind of database server. Its connections have `commit` and `close`, and are used by one thread
    at a time.
    """

    def connect(self, target: DatabaseTarget) -> Any:
        """Open a connection with the first password that the server accepts. Raises DatabaseDown if the server accepts
        none, or cannot be reached.
        """

    def is_working(self, raw: Any) -> bool:
        """Return whether an idle connection still works."""

    def reset(self, raw: Any) -> bool:
        """Roll back the open transaction of a connection and release its locks; return false if the
        connection is lost.
        """

    def explain(self, raw: Any, error: Exception, hidden: str) -> DatabaseRefused | DatabaseDown | None:
        """Return the error to raise for an exception of the driver; None for any other exception. Its message does not
        contain the text `hidden`.
        """


def log_in(
    target: DatabaseTarget,
    login: Callable[[str], T],
    error: type[Exception],
    describe: Callable[[Exception, str], str],
) -> T:
    """Return the connection that `login` opens with the first of the target's passwords that the server accepts. Raises
    DatabaseDown if the server accepts none, or cannot be reached.

    `error` is the exception class of a refused login. `describe` returns its message without the password.
    """
    failure = "the database user has no password"
    for password in target.passwords:
        try:
            return login(password)
        except (error, OSError) as refusal:
            failure = describe(refusal, password)
    raise DatabaseDown(f"cannot connect to the database: {failure}", hint="check the connection and its user")


def was_lost(message: str) -> DatabaseDown:
    """Return the error that stands for a lost connection to a database server."""
    return DatabaseDown(f"the database failed: {message}", hint="see the log of the database")


def was_refused(message: str, *, is_conflict: bool) -> DatabaseRefused:
    """Return the error for a statement that the server refused. `is_conflict`: the transaction can be repeated."""
    kind = DatabaseConflict if is_conflict else DatabaseRefused
    return kind(f"the database refused the statement: {message}", hint="see the statements of the role")
