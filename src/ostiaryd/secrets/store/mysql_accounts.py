"""Accounts of agents at a MySQL or MariaDB server of the organisation: statements that create, disable and remove
accounts.

In MySQL, each statement about accounts commits at once. Work that fails may therefore be done in part; the caller
repeats the work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.outbound.database_driver import LOCK_S, was_refused
from ostiaryd.secrets.model.database import DatabaseConfig, render_statement
from ostiaryd.secrets.model.lease import Lease

if TYPE_CHECKING:
    from ostiaryd.ground.outbound.mysql_driver import MysqlConnection

_LOCK = f"select get_lock(concat('ostiary ', %s), {LOCK_S})"
_HOSTS = "select host from mysql.user where user = %s"
_MAY_SEE_SESSIONS = "select 1 from information_schema.innodb_trx limit 1"
"""A query that fails without the privilege PROCESS. Without this privilege, the list of sessions would be incomplete,
without an error.
"""
_SESSIONS = "select id from information_schema.processlist where user = %s"
_PAUSE = "do sleep(0.02)"
PAUSES = 200
UNKNOWN_THREAD = 1094
"""The error ER_NO_SUCH_THREAD: the session has ended already."""
EXTEND: tuple[str, ...] = ()
"""No statements, because accounts do not expire at the server: the account is removed at the end of its lease."""
ROTATE: tuple[str, ...] = ("""ALTER USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'""",)


def verify(raw: MysqlConnection) -> None:
    """Check that the user of the connection can see accounts and sessions, as the removal of accounts requires."""
    raw.execute(_HOSTS, ("",))
    raw.execute(_MAY_SEE_SESSIONS)


def lock(raw: MysqlConnection, usernames: Sequence[str], *, is_alone: bool = False) -> None:
    """Take the locks of accounts, and keep them until the connection returns to its pool. Raises DatabaseConflict if
    another request holds a lock.
    """
    for username in sorted(usernames):
        if raw.execute(_LOCK, (username,)) != [(1,)]:
            raise was_refused("other work on the account is in progress", is_conflict=True)


def lock_for_creation(raw: MysqlConnection, username: str, *, is_alone: bool = False) -> None:
    """Take the lock of a new account, as `lock` does. The commit cannot be deferred, because each statement about
    accounts commits at once.
    """
    lock(raw, [username])


def has_account(raw: MysqlConnection, username: str) -> bool:
    """Return whether there is an account with this username, whatever the hosts from which it may log in."""
    return bool(raw.execute(_HOSTS, (username,)))


def execute(
    raw: MysqlConnection,
    statements: Sequence[str],
    config: DatabaseConfig,
    username: str,
    password: str = "",
    expires_at: int = 0,
) -> None:
    """Execute statements, with these values in place of the placeholders (`render_statement`). `expires_at`: the end of
    the account in microseconds.
    """
    for one in statements:
        raw.execute(render_statement(one, name=username, password=password, expires_at=expires_at))


def rotate_own(raw: MysqlConnection, config: DatabaseConfig, password: str) -> None:
    """Change the password of the connection's user. The statement names the user, because MariaDB accepts `ALTER USER
    CURRENT_USER()` and does nothing.
    """
    if config.rotation:
        execute(raw, config.rotation, config, config.username, password)
        return
    [(account,)] = raw.execute("select current_user()")
    username, _, host = account.rpartition("@")
    raw.execute("alter user %s@%s identified by %s", (username, host, password))


def disable(raw: MysqlConnection, usernames: Sequence[str]) -> None:
    """Refuse logins of these accounts; accounts that do not exist are skipped."""
    for username, host in _find(raw, usernames):
        raw.execute("alter user if exists %s@%s account lock", (username, host))


def remove(raw: MysqlConnection, usernames: Sequence[str]) -> None:
    """Drop these accounts with their rights, then end their sessions."""
    for username, host in _find(raw, usernames):
        raw.execute("drop user if exists %s@%s", (username, host))
    for username in usernames:
        _end_sessions(raw, username)


def revoke_by_statements(raw: MysqlConnection, lease: Lease, config: DatabaseConfig) -> None:
    """Run the revocation statements of a lease whose account exists, then end the sessions of the account. Raises
    Invalid if the account still exists.
    """
    if has_account(raw, lease.username):
        execute(raw, lease.statements.revocation, config, lease.username, expires_at=lease.expires_at)
    _end_sessions(raw, lease.username)
    if has_account(raw, lease.username):
        raise Invalid(
            "the account still exists after the revocation statements",
            hint="let the revocation statements drop the account",
            code="not_revoked",
        )


def _find(raw: MysqlConnection, usernames: Iterable[str]) -> list[tuple[str, str]]:
    return [(username, host) for username in usernames for (host,) in raw.execute(_HOSTS, (username,))]


def _end_sessions(raw: MysqlConnection, username: str) -> None:
    """End the sessions of an account, and wait until no session is left, because a session continues after its account
    is dropped. Raises Invalid if sessions are left after a few seconds.
    """
    import pymysql

    raw.execute(_MAY_SEE_SESSIONS)
    for _ in range(PAUSES):
        if not (sessions := raw.execute(_SESSIONS, (username,))):
            return
        for (number,) in sessions:
            try:
                raw.execute(f"kill connection {int(number)}")
            except pymysql.err.Error as error:
                if error.args[0] != UNKNOWN_THREAD:
                    raise
        raw.execute(_PAUSE)
    raise Invalid("sessions of the account do not end", hint="end these sessions at the database", code="sessions_left")
