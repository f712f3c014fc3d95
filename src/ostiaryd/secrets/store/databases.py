"""Connections to databases, their roles, and static roles. Passwords are stored encrypted.

While the server changes a password at a database, two passwords are stored: the present password, and the pending
password, which replaces the present password after the change.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.database import DatabaseConfig, DynamicRole, StaticRole
from ostiaryd.secrets.model.sealing import Envelope

_CONFIG = sql(
    "select config, wrapped_key, sealed, pending_key, pending from secret_database where name = :name", steady=True
)
_PUT_CONFIG = sql(
    """insert into secret_database (name, config, wrapped_key, sealed, updated_at)
       values (:name, :config, :wrapped_key, :sealed, :now)
       on conflict (name) do update set config = excluded.config, wrapped_key = excluded.wrapped_key,
        sealed = excluded.sealed, pending_key = null, pending = null, updated_at = excluded.updated_at"""
)
_SET_PENDING = sql("update secret_database set pending_key = :wrapped_key, pending = :sealed where name = :name")
_KEEP_PENDING = sql(
    """update secret_database set wrapped_key = pending_key, sealed = pending, pending_key = null, pending = null,
        updated_at = :now where name = :name and pending is not null"""
)
_DELETE_CONFIG = sql("delete from secret_database where name = :name")
_CONFIGS = sql("select name from secret_database order by name limit :limit")
_ROLE = sql("select role from secret_role where name = :name", steady=True)
_PUT_ROLE = sql(
    """insert into secret_role (name, database, role, updated_at) values (:name, :database, :role, :now)
       on conflict (name) do update set database = excluded.database, role = excluded.role,
        updated_at = excluded.updated_at"""
)
_DELETE_ROLE = sql("delete from secret_role where name = :name")
_ROLES = sql("select name from secret_role order by name limit :limit")
_ROLES_OF = sql(
    """select name from secret_role where database = :database
       union all select name from static_role where database = :database limit 1"""
)
_STATIC_COLUMNS = "name, role, wrapped_key, sealed, pending_key, pending, rotated_at, due_at, attempts, error"
_STATIC = sql(f"select {_STATIC_COLUMNS} from static_role where name = :name")
_PUT_STATIC = sql(
    """insert into static_role (name, database, role, due_at, attempts, error)
       values (:name, :database, :role, :due_at, 0, '')
       on conflict (name) do update set role = excluded.role, due_at = excluded.due_at"""
)
_STATIC_PENDING = sql("update static_role set pending_key = :wrapped_key, pending = :sealed where name = :name")
_STATIC_KEEP = sql(
    """update static_role set wrapped_key = pending_key, sealed = pending, pending_key = null, pending = null,
        rotated_at = :now, due_at = :due_at, attempts = 0, error = '' where name = :name and pending is not null"""
)
_STATIC_POSTPONE = sql(
    "update static_role set due_at = :due_at, attempts = :attempts, error = :error where name = :name"
)
_STATIC_CLAIM = sql("update static_role set due_at = :until where name = :name and due_at <= :now")
_DELETE_STATIC = sql("delete from static_role where name = :name")
_STATICS = sql("select name from static_role order by name limit :limit")
_STATIC_DUE = sql("select name from static_role where due_at <= :now order by due_at limit :limit")
_decode_config, _decode_role, _decode_static = map(json_decoder, (DatabaseConfig, DynamicRole, StaticRole))


class StoredDatabase(NamedTuple):
    """A connection with its encrypted password, and the encrypted pending password, which the database may have already
    (None if there is none).
    """

    config: DatabaseConfig
    password: Envelope
    pending: Envelope | None


class StoredStatic(NamedTuple):
    """A static role with its encrypted password (None before the first rotation) and the state of its rotation. Times
    are microseconds since the epoch.
    """

    name: str
    role: StaticRole
    password: Envelope | None
    pending: Envelope | None
    rotated_at: int | None
    due_at: int
    attempts: int
    error: str


def config(reader: Reader, name: str) -> StoredDatabase | None:
    """Return the database connection `name`; None if there is none."""
    return reader.one_as(_CONFIG, _stored, name=name)


def put_config(tx: Tx, name: str, config: DatabaseConfig, password: Envelope) -> None:
    """Insert or replace a connection, with its encrypted password. A pending password is deleted."""
    tx.run(_PUT_CONFIG, name=name, config=_text(config), now=tx.now, **password._asdict())


def set_pending(tx: Tx, name: str, password: Envelope) -> None:
    """Store the pending password of a connection."""
    tx.run(_SET_PENDING, name=name, **password._asdict())


def keep_pending(tx: Tx, name: str) -> None:
    """Make the pending password the password of the connection."""
    tx.run(_KEEP_PENDING, name=name, now=tx.now)


def delete_config(tx: Tx, name: str) -> None:
    """Delete a connection."""
    tx.run(_DELETE_CONFIG, name=name)


def configs(reader: Reader, *, limit: int) -> list[str]:
    """Return the names of at most `limit` database connections."""
    return [str(name) for (name,) in reader.all(_CONFIGS, limit=limit)]


def role(reader: Reader, name: str) -> DynamicRole | None:
    """Return the database role `name`, which creates an account with each lease; None if there is none."""
    return reader.one_as(_ROLE, lambda row: _decode_role(row[0]), name=name)


def put_role(tx: Tx, name: str, role: DynamicRole) -> None:
    """Insert or replace a role."""
    tx.run(_PUT_ROLE, name=name, database=role.database, role=_text(role), now=tx.now)


def delete_role(tx: Tx, name: str) -> None:
    """Delete a role. Its leases stay."""
    tx.run(_DELETE_ROLE, name=name)


def roles(reader: Reader, *, limit: int) -> list[str]:
    """Return the names of at most `limit` database roles that create accounts."""
    return [str(name) for (name,) in reader.all(_ROLES, limit=limit)]


def has_roles(reader: Reader, database: str) -> bool:
    """Return whether a role or a static role uses the connection."""
    return reader.one(_ROLES_OF, database=database) is not None


def static(reader: Reader, name: str) -> StoredStatic | None:
    """Return the static database role `name`; None if there is none."""
    return reader.one_as(_STATIC, _stored_static, name=name)


def put_static(tx: Tx, name: str, role: StaticRole, *, due_at: int) -> None:
    """Insert or replace a static role, whose next rotation is due at `due_at` (microseconds). Its password stays."""
    tx.run(_PUT_STATIC, name=name, database=role.database, role=_text(role), due_at=due_at)


def set_static_pending(tx: Tx, name: str, password: Envelope) -> None:
    """Store the pending password of a static role."""
    tx.run(_STATIC_PENDING, name=name, **password._asdict())


def keep_static_pending(tx: Tx, name: str, *, due_at: int) -> None:
    """Make the pending password the password of the static role, and store the time (`due_at`, microseconds) of the
    next rotation.
    """
    tx.run(_STATIC_KEEP, name=name, now=tx.now, due_at=due_at)


def postpone_static(tx: Tx, name: str, *, due_at: int, attempts: int, error: str) -> None:
    """Record the error of a failed rotation, the number of attempts, and the time (`due_at`, microseconds) of the next
    attempt.
    """
    tx.run(_STATIC_POSTPONE, name=name, due_at=due_at, attempts=attempts, error=error)


def claim_static(tx: Tx, name: str, *, until: int) -> bool:
    """Claim the due rotation of the static role `name` for this process until `until` (microseconds). Return False if
    the rotation is not due, or another process has the claim.
    """
    return tx.run(_STATIC_CLAIM, name=name, until=until, now=tx.now) == 1


def delete_static(tx: Tx, name: str) -> None:
    """Delete a static role. Its account stays at the database."""
    tx.run(_DELETE_STATIC, name=name)


def statics(reader: Reader, *, limit: int) -> list[str]:
    """Return the names of at most `limit` static database roles."""
    return [str(name) for (name,) in reader.all(_STATICS, limit=limit)]


def due_statics(reader: Reader, *, now: int, limit: int) -> list[str]:
    """Return at most `limit` names of static roles whose rotation is due."""
    return [str(name) for (name,) in reader.all(_STATIC_DUE, now=now, limit=limit)]


def _text(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()


def _envelope(wrapped_key: object, sealed: object) -> Envelope | None:
    if not isinstance(wrapped_key, (bytes, memoryview)) or not isinstance(sealed, (bytes, memoryview)):
        return None
    return Envelope(bytes(wrapped_key), bytes(sealed))


def _stored(row: Row) -> StoredDatabase:
    config, wrapped_key, sealed, pending_key, pending = row
    password = _envelope(wrapped_key, sealed)
    assert password is not None  # the columns are not null
    return StoredDatabase(_decode_config(config), password, _envelope(pending_key, pending))


def _stored_static(row: Row) -> StoredStatic:
    name, role, wrapped_key, sealed, pending_key, pending, rotated_at, due_at, attempts, error = row
    current, after = _envelope(wrapped_key, sealed), _envelope(pending_key, pending)
    return StoredStatic(name, _decode_static(role), current, after, rotated_at, due_at, attempts, error)
