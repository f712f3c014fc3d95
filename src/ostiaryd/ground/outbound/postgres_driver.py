"""PostgreSQL servers of the organisation, by psycopg."""

from __future__ import annotations

import re
import tempfile
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from ostiaryd.ground.database.bounded_connection import BoundedConnection

IDLE_IN_TRANSACTION_S = 10
CONFLICTS = frozenset({"40001", "40P01"})
"""Values of SQLSTATE after which a transaction can be repeated: serialization_failure and deadlock_detected."""
CATALOG_CONFLICT = "tuple concurrently updated"
"""Message of PostgreSQL when two transactions change the privileges of one table. Its SQLSTATE is that of an internal
error, so it is recognised by the text.
"""
DEPENDENT = "2BP01"
"""Value of SQLSTATE if objects depend on the object to drop: dependent_objects_still_exist. The detail of the error
names these objects, and contains no value.
"""
_VERIFIER = re.compile(r"SCRAM-SHA-256\$[^\s'\"]+")
"""Pattern of a SCRAM verifier, which stands in statements instead of the password."""
INSTALL = "on the server: pip install 'ostiary[postgres]'"


def connect(target: DatabaseTarget) -> BoundedConnection:
    """Open a connection with the first password that the server accepts. Raises DatabaseDown if the server accepts
    none, or cannot be reached.
    """
    try:
        import psycopg

        from ostiaryd.ground.database.bounded_connection import BoundedConnection
    except ImportError:
        raise DatabaseDown("the server has no Python driver for PostgreSQL databases of agents", hint=INSTALL) from None
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as ca_file:
        ca_file.write(target.tls_ca)
        ca_file.flush()
        options = _options(target, ca_file.name)

        def login(password: str) -> BoundedConnection:
            return BoundedConnection.connect(password=password, **options)

        raw = log_in(target, login, psycopg.Error, _login_message)
    raw.limit_s = SILENCE_S
    return raw


def _login_message(error: Exception, password: str) -> str:
    """Return the last part of a message, which states the reason; the first part names the server."""
    return " ".join(str(error).replace(password, "***").split())[-MAX_MESSAGE:]


def _options(target: DatabaseTarget, ca_file: str) -> dict[str, Any]:
    tls = {"sslmode": "verify-full", "sslrootcert": ca_file if target.tls_ca else "system"}
    limits = {
        "statement_timeout": STATEMENT_S,
        "lock_timeout": LOCK_S,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_S,
    }
    return {
        **({"host": target.socket} if target.socket else {"host": target.host, "port": target.port}),
        "dbname": target.database,
        "user": target.username,
        **(tls if target.is_verified else {"sslmode": "disable"}),
        "gssencmode": "disable",
        "connect_timeout": CONNECT_S,
        "tcp_user_timeout": round(SILENCE_S * 1000),
        "application_name": "ostiary",
        "options": " ".join(f"-c {name}={seconds}s" for name, seconds in limits.items()),
    }


def is_working(raw: BoundedConnection) -> bool:
    """Return whether a connection that was idle still works."""
    import psycopg  # psycopg is installed, because a connection exists

    try:
        raw.execute("select 1")
        raw.rollback()
    except psycopg.Error:
        return False
    return True


def reset(raw: BoundedConnection) -> bool:
    """Roll back the open transaction of a connection, which releases its locks; return False if the
    connection is lost.
    """
    import psycopg

    try:
        raw.rollback()
    except psycopg.Error:
        return False
    return True


def explain(raw: BoundedConnection, error: Exception, hidden: str) -> DatabaseRefused | DatabaseDown | None:
    """Return the error to raise for an exception of psycopg; None for any other exception. Its message does not contain
    the text `hidden`.
    """
    import psycopg

    if not isinstance(error, psycopg.Error):
        return None
    message = _message(error, hidden)
    if raw.broken or raw.closed or isinstance(error, psycopg.InterfaceError):
        return was_lost(message)
    return was_refused(message, is_conflict=error.sqlstate in CONFLICTS or message == CATALOG_CONFLICT)


def _message(error: Exception, hidden: str) -> str:
    """Return the first line of a server's message, with `hidden` removed; the other lines quote the statement. If
    objects depend on an object, the message also names these objects.
    """
    diagnosis = getattr(error, "diag", None)
    primary = getattr(diagnosis, "message_primary", None) or str(error).partition("\n")[0]
    if diagnosis is not None and diagnosis.sqlstate == DEPENDENT and diagnosis.message_detail:
        primary = f"{primary}: {diagnosis.message_detail}"
    primary = _VERIFIER.sub("***", primary.replace(hidden, "***") if hidden else primary)
    return " ".join(primary.split())[:MAX_MESSAGE]
