"""Connections to databases, and roles. The server stores each change of a password here before it makes the change at
the database. Each function that stores or reads a password raises Sealed while the secrets are sealed.
"""

from __future__ import annotations

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ground.outbound.database_driver import DatabaseTarget
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model.database import (
    DATABASE_MOUNT,
    MAX_DATABASES,
    MAX_ROLES,
    DatabaseConfig,
    DynamicRole,
    StaticRole,
    check_account,
    make_password,
    may_use,
)
from ostiaryd.secrets.model.lease import MAX_ERROR, TAKEOVER_S, next_try
from ostiaryd.secrets.model.request import SECOND, NothingStored
from ostiaryd.secrets.model.sealing import Envelope
from ostiaryd.secrets.store.databases import StoredDatabase, StoredStatic


def put_connection(act: Act, name: str, config: DatabaseConfig, password: str) -> None:
    """Store a database connection with its password. Raises Invalid (`has_leases`) if the connection has leases and
    `config` names another database server or database than before; Conflict for a new connection if the maximum number
    of connections is stored.
    """
    registry.fill_entry(act, object=f"{DATABASE_MOUNT}/config/{name}", address=config.address, database=config.database)
    present = store.databases.config(act.tx, name)
    if present is None and len(store.databases.configs(act.tx, limit=MAX_DATABASES)) >= MAX_DATABASES:
        raise Conflict(f"the server has {MAX_DATABASES} connections, which is the limit", hint="delete a connection")
    moves = present is not None and _server_of(present.config) != _server_of(config)
    if moves and store.leases.has_any(act.tx, name):
        raise Invalid(
            "the connection has leases, so its server cannot change", hint="revoke the leases first", code="has_leases"
        )
    store.databases.put_config(act.tx, name, config, _seal(act, f"config/{name}", password))


def present_password(reader: Reader, name: str, config: DatabaseConfig, *, keys: Keyring) -> str:
    """Return the stored password for a connection whose new configuration has no password.

    Raises Invalid if the connection is new, or if its server, its database, its user or the verification of the server
    (`tls_ca`) changes, because the password must not be sent there.
    """
    stored = store.databases.config(reader, name)
    if stored is None or _receiver_of(stored.config) != _receiver_of(config):
        raise Invalid(
            "`password` is required for a new connection, and if its server, database, user or TLS verification changes"
        )
    return _open(reader, keys, f"config/{name}", stored.password)


def _server_of(config: DatabaseConfig) -> tuple[str, str, str]:
    return config.kind, config.address, config.database


def _receiver_of(config: DatabaseConfig) -> tuple[object, ...]:
    return *_server_of(config), config.username, config.is_verified, config.tls_ca


def delete_connection(act: Act, name: str) -> None:
    """Delete a connection, if it exists. Raises Invalid if the connection still has leases (`has_leases`) or roles
    (`has_roles`).
    """
    registry.fill_entry(act, object=f"{DATABASE_MOUNT}/config/{name}")
    if store.leases.has_any(act.tx, name):
        raise Invalid("the connection has leases", hint="revoke the leases first", code="has_leases")
    if store.databases.has_roles(act.tx, name):
        raise Invalid("the connection has roles", hint="delete the roles first", code="has_roles")
    store.databases.delete_config(act.tx, name)


def find_connection(reader: Reader, name: str) -> StoredDatabase:
    """Return a database connection (`database/config/NAME`) by its name. Raises Invalid for an unknown name."""
    if (stored := store.databases.config(reader, name)) is None:
        raise Invalid(
            f"failed to find entry for connection with name: {name!a}",
            hint=f"write {DATABASE_MOUNT}/config/NAME",
            code="no_connection",
        )
    return stored


def find_target(reader: Reader, name: str, *, keys: Keyring) -> DatabaseTarget:
    """Return the server of a connection, with the passwords that may be valid for its user: the present and the pending
    password. Raises Invalid for an unknown connection, Conflict if a stored password cannot be decrypted.
    """
    stored = find_connection(reader, name)
    sealed = [one for one in (stored.password, stored.pending) if one is not None]
    return target_of(stored.config, *(_open(reader, keys, f"config/{name}", one) for one in sealed))


def target_of(config: DatabaseConfig, *passwords: str) -> DatabaseTarget:
    """Return the database server that a connection names, with these passwords for the login."""
    return DatabaseTarget(
        config.kind,
        config.address,
        config.database,
        config.username,
        passwords,
        config.is_verified,
        config.tls_ca,
        config.max_connections,
    )


def begin_root_rotation(act: Act, name: str) -> None:
    """Store a new random password of a connection's user as pending. If there is a pending password, it is kept,
    because the database may have it already. Raises Invalid for an unknown connection.
    """
    registry.fill_entry(act, object=f"{DATABASE_MOUNT}/config/{name}")
    if find_connection(act.tx, name).pending is None:
        store.databases.set_pending(act.tx, name, _seal(act, f"config/{name}", make_password(act.tx.random)))


def pending_root(reader: Reader, name: str, *, keys: Keyring) -> str:
    """Return the pending password of a connection. Raises Invalid for an unknown connection; Conflict if there is no
    pending password.
    """
    if (pending := find_connection(reader, name).pending) is None:
        raise Conflict("the rotation has ended already")
    return _open(reader, keys, f"config/{name}", pending)


def check_pending_root(reader: Reader, name: str, password: str, *, keys: Keyring) -> None:
    """Check that `password` is still the pending password of a connection. Raises Invalid for an unknown connection,
    Conflict for any other password.
    """
    if pending_root(reader, name, keys=keys) != password:
        raise Conflict("another rotation has replaced this password")


def end_root_rotation(act: Act, name: str, password: str) -> None:
    """Make the pending password the password of a connection. Raises Invalid for an unknown connection; Conflict if
    `password` is not pending any more.
    """
    registry.fill_entry(act, object=f"{DATABASE_MOUNT}/config/{name}")
    check_pending_root(act.tx, name, password, keys=act.tx.keys)
    store.databases.keep_pending(act.tx, name)


def put_role(act: Act, name: str, role: DynamicRole) -> None:
    """Store a role that creates an account with each lease. Raises Invalid for an unknown connection, Conflict for too
    many roles.
    """
    registry.fill_entry(act, object=f"{DATABASE_MOUNT}/roles/{name}", database=role.database)
    find_connection(act.tx, role.database)
    if store.databases.role(act.tx, name) is None and len(store.databases.roles(act.tx, limit=MAX_ROLES)) >= MAX_ROLES:
        raise Conflict(
            f"the server has {MAX_ROLES} database roles, which is the limit", hint="delete a role of `database/roles`"
        )
    store.databases.put_role(act.tx, name, role)


def put_static_role(act: Act, name: str, role: StaticRole) -> bool:
    """Store a static role (an existing account whose password the server changes); return whether the role is new. For
    a new role, also store its first password as pending, for the rotation that must follow. Raises Invalid for an
    unknown connection, a role that the connection does not allow, or another database or user of an existing role;
    Conflict for too many static roles.
    """
    registry.fill_entry(
        act, object=f"{DATABASE_MOUNT}/static-roles/{name}", database=role.database, username=role.username
    )
    stored = find_connection(act.tx, role.database)
    check_permitted(stored, name)
    check_account(role.username, stored.config.kind)
    present = store.databases.static(act.tx, name)
    if present is None:
        if len(store.databases.statics(act.tx, limit=MAX_ROLES)) >= MAX_ROLES:
            raise Conflict(f"the server has {MAX_ROLES} static roles, which is the limit", hint="delete a static role")
        store.databases.put_static(act.tx, name, role, due_at=act.now + TAKEOVER_S * SECOND)
        begin_rotation(act, name)
        return True
    if (present.role.database, present.role.username) != (role.database, role.username):
        raise Invalid("the database and the user of a static role cannot be changed", hint="create another role")
    store.databases.put_static(act.tx, name, role, due_at=(present.rotated_at or act.now) + role.period)
    return False


def find_rotation_time(reader: Reader, name: str) -> int | None:
    """Return the time (microseconds) of the last password change of a static role, 0 before the first change; None if
    the role is unknown.
    """
    stored = store.databases.static(reader, name)
    return None if stored is None else stored.rotated_at or 0


def rotate_now(act: Act, name: str) -> bool:
    """Make the rotation of a static role due now. Return False if the role is unknown."""
    if (stored := store.databases.static(act.tx, name)) is None:
        return False
    store.databases.put_static(act.tx, name, stored.role, due_at=act.now)
    return True


def check_permitted(stored: StoredDatabase, role: str) -> None:
    """Check that a role may use the database connection `stored`, which lists its allowed roles. Raises Invalid
    otherwise.
    """
    if not may_use(stored.config, role):
        raise Invalid(f"{role!a} is not an allowed role", hint="add the role to `allowed_roles` of the connection")


def find_static(reader: Reader, name: str) -> StoredStatic:
    """Return a static database role (`database/static-roles/NAME`) by its name. Raises Invalid for an unknown name."""
    if (stored := store.databases.static(reader, name)) is None:
        raise Invalid(f"unknown role: {name}", code="no_role")
    return stored


def read_static(act: Act, name: str) -> tuple[StoredStatic, str]:
    """Return a static role and its password. Raises Invalid for an unknown role; NothingStored before the first
    rotation.
    """
    registry.fill_entry(act, object=f"{DATABASE_MOUNT}/static-creds/{name}")
    stored = find_static(act.tx, name)
    if stored.password is None:
        raise NothingStored("the server has not set the password of this static role yet")
    return stored, _open(act.tx, act.tx.keys, f"static-roles/{name}", stored.password)


def begin_rotation(act: Act, name: str) -> None:
    """Store a new random password of a static role as pending. If there is a pending password, it is kept, because the
    database may have it already. Raises Invalid for an unknown role.
    """
    registry.fill_entry(act, object=f"{DATABASE_MOUNT}/static-roles/{name}")
    if find_static(act.tx, name).pending is None:
        store.databases.set_static_pending(
            act.tx, name, _seal(act, f"static-roles/{name}", make_password(act.tx.random))
        )


def pending_static(reader: Reader, name: str, *, keys: Keyring) -> tuple[StaticRole, str]:
    """Return a static role and its pending password. Raises Invalid for an unknown role; Conflict if there is no
    pending password.
    """
    stored = find_static(reader, name)
    if stored.pending is None:
        raise Conflict("the rotation has ended already")
    return stored.role, _open(reader, keys, f"static-roles/{name}", stored.pending)


def check_pending_static(reader: Reader, name: str, password: str, *, keys: Keyring) -> None:
    """Check that `password` is still the pending password of a static role. Raises Invalid if there is no such role,
    Conflict if another rotation has replaced the password.
    """
    if pending_static(reader, name, keys=keys)[1] != password:
        raise Conflict("another rotation has replaced this password")


def end_rotation(act: Act, name: str, password: str) -> None:
    """Make the pending password the password of a static role, and schedule the next rotation. Raises Invalid for an
    unknown role; Conflict if `password` is not pending any more.
    """
    registry.fill_entry(act, object=f"{DATABASE_MOUNT}/static-roles/{name}")
    check_pending_static(act.tx, name, password, keys=act.tx.keys)
    store.databases.keep_static_pending(act.tx, name, due_at=act.now + find_static(act.tx, name).role.period)


def fail_rotation(act: Act, name: str, why: str) -> None:
    """Record that a rotation of a static role failed because of `why`, and schedule the next attempt. The present and
    the pending password stay stored, since either may be valid. Raises Invalid for an unknown role.
    """
    stored = find_static(act.tx, name)
    attempts = stored.attempts + 1
    registry.fill_entry(act, object=f"{DATABASE_MOUNT}/static-roles/{name}", attempts=attempts, why=why[:MAX_ERROR])
    store.databases.postpone_static(
        act.tx, name, due_at=next_try(attempts, now=act.now), attempts=attempts, error=why[:MAX_ERROR]
    )


def _seal(act: Act, path: str, password: str) -> Envelope:
    return seal_value(act.tx, password.encode(), (DATABASE_MOUNT, path, 1))


def _open(reader: Reader, keys: Keyring, path: str, envelope: Envelope) -> str:
    return open_value(reader, envelope, (DATABASE_MOUNT, path, 1), keys=keys).decode()
