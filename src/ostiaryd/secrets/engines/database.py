"""Accounts in PostgreSQL, MySQL and MariaDB (HashiCorp Vault, "Database secrets engine (API)").

config/NAME                   GET, POST, DELETE; LIST config
roles/NAME                    GET, POST, DELETE; LIST roles
static-roles/NAME             GET, POST, DELETE; LIST static-roles
creds/ROLE                    GET: a new account with a lease
static-creds/ROLE             GET
rotate-root/NAME, rotate-role/ROLE    POST
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from msgspec import Struct

from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import databases
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.flows.leases import begin_lease
from ostiaryd.secrets.model.database import (
    DATABASE_MOUNT,
    SERVERS,
    SHORTEST_ROTATION_S,
    ConnectionBody,
    DynamicRole,
    StaticRole,
    check_account,
    check_name,
    check_ttl,
    parse_statements,
)
from ostiaryd.secrets.model.lease import DEFAULT_TTL, LONGEST_TTL
from ostiaryd.secrets.model.request import (
    SECOND,
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    parse_duration,
    render_time,
    split_path,
)
from ostiaryd.secrets.model.upstream import ConnectDatabase, RotateRole, RotateRoot

T = TypeVar("T")
TYPE = "database"
DESCRIPTION = "accounts in databases, with leases"
OPTIONS: dict[str, str] | None = None
MAX_LISTED = 10_000
EMPTY = Answer(status=204)


class _RoleBody(Struct):
    db_name: str
    creation_statements: list[str] | str
    revocation_statements: list[str] | str | None = None
    renew_statements: list[str] | str | None = None
    default_ttl: int | str | None = None
    max_ttl: int | str | None = None


class _StaticBody(Struct):
    db_name: str
    username: str
    rotation_period: int | str
    rotation_statements: list[str] | str | None = None


def find_operation(mount: str, request: VaultRequest) -> Operation:
    """Return the operation of a request to the database secrets engine. Raises NothingStored for an unknown path,
    UnsupportedOperation for a method that the path does not support; Malformed for members of wrong types, Invalid for
    wrong names and values.
    """
    kind, name = split_path(request.path.removesuffix("/"))
    if request.method is VaultMethod.LIST and kind in _LISTS and not name:
        return Operation(SecretAction.LIST, f"{kind}/", "list", partial(_list, kind=kind))
    if kind not in _OF or not name:
        raise NothingStored("no handler for route", code="no_route")
    check_name(name, of="connection" if kind in ("config", "rotate-root") else "role")
    make = _OF[kind].get(request.method)
    if make is None:
        raise UnsupportedOperation("unsupported operation")
    action, operation, run = make(name, request)
    return Operation(action, f"{kind}/{name}", operation, run)


_Made = tuple[SecretAction, str, Callable[[Act], Answer]]


def _make_connect(name: str, request: VaultRequest) -> _Made:
    body = request.read_body(ConnectionBody)
    return (
        SecretAction.WRITE,
        "connect",
        lambda act: Answer(upstream=ConnectDatabase(name, body, act.entry.token or "")),
    )


def _make_write_role(name: str, request: VaultRequest) -> _Made:
    body = request.read_body(_RoleBody)
    longest = min(parse_duration(body.max_ttl or 0, field="max_ttl") or LONGEST_TTL, LONGEST_TTL)
    default = parse_duration(body.default_ttl or 0, field="default_ttl") or min(DEFAULT_TTL, longest)
    check_ttl(default, longest)
    role = DynamicRole(
        database=check_name(body.db_name, of="connection"),
        creation=parse_statements(body.creation_statements, field="creation_statements"),
        revocation=parse_statements(body.revocation_statements, field="revocation_statements"),
        renewal=parse_statements(body.renew_statements, field="renew_statements"),
        default_ttl=default,
        max_ttl=longest,
    )

    def write(act: Act) -> Answer:
        databases.put_role(act, name, role)
        return EMPTY

    return SecretAction.WRITE, "write", write


def _make_write_static(name: str, request: VaultRequest) -> _Made:
    body = request.read_body(_StaticBody)
    role = StaticRole(
        database=check_name(body.db_name, of="connection"),
        username=check_account(body.username),
        period=check_period(body.rotation_period),
        rotation=parse_statements(body.rotation_statements, field="rotation_statements"),
    )

    def write(act: Act) -> Answer:
        is_new = databases.put_static_role(act, name, role)
        return Answer(upstream=RotateRole(name, is_new=True)) if is_new else EMPTY

    return SecretAction.WRITE, "write", write


def check_period(value: int | str) -> int:
    """Return the time between two password rotations, which `value` states as a duration such as 3600 or `1h`, in
    microseconds. Raises Invalid if `value` is not a duration, or too short.
    """
    period = parse_duration(value, field="rotation_period")
    if period < SHORTEST_ROTATION_S * SECOND:
        raise Invalid(f"`rotation_period` must be at least {SHORTEST_ROTATION_S} seconds")
    return period


def _read_config(act: Act, name: str) -> Answer:
    config = _present(store.databases.config(act.tx, name)).config
    return Answer(
        data={
            "allowed_roles": list(config.allowed_roles),
            "connection_details": {
                "connection_url": config.url,
                "max_open_connections": config.max_connections,
                "password_authentication": config.password_form,
                "username": config.username,
            },
            "plugin_name": SERVERS[config.kind].plugin,
            "root_credentials_rotate_statements": list(config.rotation),
        }
    )


def _delete_config(act: Act, name: str) -> Answer:
    databases.delete_connection(act, name)
    return EMPTY


def _read_role(act: Act, name: str) -> Answer:
    role = _present(store.databases.role(act.tx, name))
    return Answer(
        data={
            "creation_statements": list(role.creation),
            "credential_type": "password",
            "db_name": role.database,
            "default_ttl": role.default_ttl // SECOND,
            "max_ttl": role.max_ttl // SECOND,
            "renew_statements": list(role.renewal),
            "revocation_statements": list(role.revocation),
            "rollback_statements": [],
        }
    )


def _delete_role(act: Act, name: str) -> Answer:
    registry.fill_entry(act, object=f"{DATABASE_MOUNT}/roles/{name}")
    store.databases.delete_role(act.tx, name)
    return EMPTY


def _read_static(act: Act, name: str) -> Answer:
    stored = _present(store.databases.static(act.tx, name))
    return Answer(
        data={
            "credential_type": "password",
            "db_name": stored.role.database,
            "last_vault_rotation": render_time(stored.rotated_at),
            "rotation_period": stored.role.period // SECOND,
            "rotation_statements": list(stored.role.rotation),
            "username": stored.role.username,
        }
    )


def _delete_static(act: Act, name: str) -> Answer:
    registry.fill_entry(act, object=f"{DATABASE_MOUNT}/static-roles/{name}")
    store.databases.delete_static(act.tx, name)
    return EMPTY


def _make_creds(act: Act, name: str) -> Answer:
    return Answer(upstream=begin_lease(act, name))


def _read_static_creds(act: Act, name: str) -> Answer:
    stored, password = databases.read_static(act, name)
    return Answer(
        data={
            "last_vault_rotation": render_time(stored.rotated_at),
            "password": password,
            "rotation_period": stored.role.period // SECOND,
            "ttl": max(0, stored.due_at - act.now) // SECOND,
            "username": stored.role.username,
        }
    )


def _rotate_root(act: Act, name: str) -> Answer:
    databases.begin_root_rotation(act, name)
    return Answer(upstream=RotateRoot(name))


def _rotate_role(act: Act, name: str) -> Answer:
    databases.begin_rotation(act, name)
    return Answer(upstream=RotateRole(name))


def _present(stored: T | None) -> T:
    if stored is None:
        raise NothingStored("nothing is stored under this name")
    return stored


def _list(act: Act, kind: str) -> Answer:
    act.entry.object = f"{DATABASE_MOUNT}/{kind}/"
    if not (names := sorted(_LISTS[kind](act.tx, limit=MAX_LISTED))):
        raise NothingStored("nothing is stored")
    return Answer(data={"keys": names})


def _plain(action: SecretAction, operation: str, run: Callable[..., Answer]) -> Callable[[str, VaultRequest], _Made]:
    """Return a function that makes the operation `run` from the name in the path and the request; no other part of the
    request matters.
    """
    return lambda name, request: (action, operation, partial(run, name=name))


_LISTS = {"config": store.databases.configs, "roles": store.databases.roles, "static-roles": store.databases.statics}
_OF: dict[str, dict[VaultMethod, Callable[[str, VaultRequest], _Made]]] = {
    "config": {
        VaultMethod.READ: _plain(SecretAction.READ, "read", _read_config),
        VaultMethod.WRITE: _make_connect,
        VaultMethod.DELETE: _plain(SecretAction.DELETE, "delete", _delete_config),
    },
    "roles": {
        VaultMethod.READ: _plain(SecretAction.READ, "read", _read_role),
        VaultMethod.WRITE: _make_write_role,
        VaultMethod.DELETE: _plain(SecretAction.DELETE, "delete", _delete_role),
    },
    "static-roles": {
        VaultMethod.READ: _plain(SecretAction.READ, "read", _read_static),
        VaultMethod.WRITE: _make_write_static,
        VaultMethod.DELETE: _plain(SecretAction.DELETE, "delete", _delete_static),
    },
    "creds": {VaultMethod.READ: _plain(SecretAction.READ, "lease", _make_creds)},
    "static-creds": {VaultMethod.READ: _plain(SecretAction.READ, "read", _read_static_creds)},
    "rotate-root": {VaultMethod.WRITE: _plain(SecretAction.WRITE, "rotate", _rotate_root)},
    "rotate-role": {VaultMethod.WRITE: _plain(SecretAction.WRITE, "rotate", _rotate_role)},
}
"""The functions that make operations, by the first segment of the path and by the method."""
