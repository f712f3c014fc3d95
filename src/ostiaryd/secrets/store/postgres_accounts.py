"""Accounts of agents at a PostgreSQL server of the organisation: statements that create, extend, disable and remove
accounts.

Each function runs in the present transaction of the given connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ostiary.protocol.errors import Invalid
from ostiaryd.secrets.model.database import DatabaseConfig, lock_number, make_scram_verifier, render_statement
from ostiaryd.secrets.model.lease import Lease

if TYPE_CHECKING:
    from ostiaryd.ground.database.bounded_connection import BoundedConnection

_LOCK = "select pg_advisory_xact_lock(n) from (select unnest(%s::bigint[]) as n order by 1) as numbers"
_LOCK_AND_DEFER = "select set_config('synchronous_commit', 'off', true), pg_advisory_xact_lock(%s)"
_ALONE = "select pg_advisory_xact_lock(91757140)"
"""The lock for changes of table rights, because PostgreSQL refuses two transactions that change the rights of a table
at the same time. After the first such conflict of a role, the role's accounts are created under this lock.
"""
_ACCOUNT = "select rolcanlogin from pg_roles where rolname = %s"
EXTEND: tuple[str, ...] = ("""ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}'""",)
ROTATE: tuple[str, ...] = ("""ALTER ROLE "{{name}}" PASSWORD '{{password}}'""",)
_DISABLE = """do $ostiary$ declare account text; begin
    foreach account in array {}::text[] loop
        if exists (select from pg_roles where rolname = account) then
            execute format('alter role %I nologin', account);
        end if;
    end loop;
end $ostiary$"""
_REMOVE = """do $ostiary$ declare account text; declare made text; declare holder oid;
    declare is_super bool; begin
    select rolsuper into is_super from pg_roles where rolname = current_user;
    foreach account in array {}::text[] loop
        select oid into holder from pg_roles where rolname = account;
        continue when not found;
        if not is_super then execute format('grant %I to current_user', account); end if;
        perform pg_terminate_backend(pid, 2000) from pg_stat_activity where usename = account;
        foreach made in array (
            select coalesce(array_agg(one), '{{}}') from (
                select format('routine if exists %s cascade', oid::regprocedure) as one
                    from pg_proc where proowner = holder
                union all
                select format('%s if exists %s cascade', kinds.word, oid::regclass)
                    from pg_class join (values ('v', 'view'), ('m', 'materialized view'), ('f', 'foreign table'))
                        as kinds (kind, word) on relkind = kinds.kind::"char"
                    where relowner = holder
                union all
                select format('rule if exists %I on %s', rulename, pg_class.oid::regclass)
                    from pg_rewrite join pg_class on ev_class = pg_class.oid
                    where relowner = holder and relkind in ('r', 'p')
                union all
                select format('statistics if exists %s.%I', stxnamespace::regnamespace, stxname)
                    from pg_statistic_ext where stxowner = holder
            ) as code
        ) loop
            execute 'drop ' || made;
        end loop;
        execute format('reassign owned by %I to current_user', account);
        execute format('drop owned by %I', account);
        execute format('drop role %I', account);
    end loop;
end $ostiary$"""
"""Statements that remove accounts. Functions and other code of an account are dropped, because they would run with the
rights of their next owner. The account's tables are given to the user of the connection.
"""


def verify(raw: BoundedConnection) -> None:
    """Check that the server answers."""
    raw.execute("select 1")


def lock(raw: BoundedConnection, usernames: Sequence[str], *, is_alone: bool = False) -> None:
    """Take the locks of accounts, and keep them until the end of the transaction. With `is_alone`, also take the one
    lock for changes of table rights, which conflict.
    """
    raw.execute(_LOCK, ([lock_number(username) for username in usernames],))
    if is_alone:
        raw.execute(_ALONE)


def lock_for_creation(raw: BoundedConnection, username: str, *, is_alone: bool = False) -> None:
    """Take the lock of a new account, as `lock` does. The commit of the transaction does not wait for the disk, so a
    crash of PostgreSQL can lose the transaction, unless a later commit has waited for the disk.
    """
    raw.execute(_LOCK_AND_DEFER, (lock_number(username),))
    if is_alone:
        raw.execute(_ALONE)


def has_account(raw: BoundedConnection, username: str) -> bool:
    """Return whether an account exists."""
    return raw.execute(_ACCOUNT, (username,)).fetchone() is not None


def execute(
    raw: BoundedConnection,
    statements: Sequence[str],
    config: DatabaseConfig,
    username: str,
    password: str = "",
    expires_at: int = 0,
) -> None:
    """Execute statements, with these values in place of the placeholders (`render_statement`) and the password in the
    configured form. `expires_at`: the end of the account in microseconds. One message to the server contains all
    statements.
    """
    if password and config.password_form == "scram-sha-256":
        password = make_scram_verifier(username, password)
    if not statements:
        return
    texts = (render_statement(one, name=username, password=password, expires_at=expires_at) for one in statements)
    raw.execute("\n;".join(texts).encode())  # a statement can end with a comment


def rotate_own(raw: BoundedConnection, config: DatabaseConfig, password: str) -> None:
    """Change the password of the connection's user."""
    execute(raw, config.rotation or ROTATE, config, config.username, password)


def disable(raw: BoundedConnection, usernames: Sequence[str]) -> None:
    """Refuse logins of these accounts; accounts that do not exist are skipped."""
    _execute_for(raw, _DISABLE, usernames)


def remove(raw: BoundedConnection, usernames: Sequence[str]) -> None:
    """End the sessions of these accounts, and drop the accounts with their rights."""
    _execute_for(raw, _REMOVE, usernames)


def _execute_for(raw: BoundedConnection, block: str, usernames: Sequence[str]) -> None:
    from psycopg import sql

    raw.execute(sql.SQL(block).format(sql.Literal(list(usernames))))


def revoke_by_statements(raw: BoundedConnection, lease: Lease, config: DatabaseConfig) -> None:
    """Run the revocation statements of a lease whose account exists. Raises Invalid if the account can still log in
    afterwards.
    """
    if not has_account(raw, lease.username):
        return
    execute(raw, lease.statements.revocation, config, lease.username, expires_at=lease.expires_at)
    left = raw.execute(_ACCOUNT, (lease.username,)).fetchone()
    if left is not None and left[0]:
        raise Invalid(
            "the account can still log in after the revocation statements",
            hint="let the revocation statements drop the account, or refuse its logins",
            code="not_revoked",
        )
