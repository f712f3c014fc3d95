"""The tables of roles of login methods, and of secret IDs, which are stored under the keyed hash of their text."""

from __future__ import annotations

import msgspec

from ostiary.authorization.bounds import parse_details, render_details
from ostiary.protocol import canonical
from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.login_role import CONFIG, LoginRole, SecretId

_ROLE_COLUMNS = "mount, agent, name, role_id, settings"
_GET = sql(f"select {_ROLE_COLUMNS} from vault_login_role where mount = :mount and agent = :agent and name = :name")
_BY_ID = sql(f"select {_ROLE_COLUMNS} from vault_login_role where mount = :mount and role_id = :role_id")
_CONFIGS = sql(f"select {_ROLE_COLUMNS} from vault_login_role where mount = :mount and name = '{CONFIG}' limit 2")
_NAMES = sql(
    f"""select name from vault_login_role where mount = :mount and agent = :agent and name <> '{CONFIG}'
        order by name limit :limit"""
)
_ROLES_OF_MOUNT = sql(
    f"""select {_ROLE_COLUMNS} from vault_login_role where mount = :mount and name <> '{CONFIG}'
        order by name limit :limit"""
)
_ANY = sql("select 1 from vault_login_role where mount = :mount limit 1")
_PUT = sql(
    f"""insert into vault_login_role ({_ROLE_COLUMNS}) values (:mount, :agent, :name, :role_id, :settings)
        on conflict (mount, agent, name) do update set role_id = excluded.role_id, settings = excluded.settings"""
)
_DELETE = sql("delete from vault_login_role where mount = :mount and agent = :agent and name = :name")
_CLEAR = sql("delete from vault_login_role where mount = :mount")
_DELETE_ENDED = sql(
    """delete from vault_login_role where agent in
        (select agent_id from vault_login_role join agent on agent_id = vault_login_role.agent
         where state = 'decommissioned' limit :limit)"""
)
_ID_COLUMNS = """mount, agent, role, accessor, holding, settings, scopes, details, uses_left, created_at, expires_at"""
_SECRET_ID = sql(f"select {_ID_COLUMNS} from vault_secret_id where digest = :digest")
_BY_ACCESSOR = sql(f"select {_ID_COLUMNS} from vault_secret_id where accessor = :accessor")
_OF_ROLE = sql(
    f"""select {_ID_COLUMNS} from vault_secret_id where mount = :mount and agent = :agent and role = :role
        order by accessor limit :limit"""
)
_OF_AGENT = sql(f"select {_ID_COLUMNS} from vault_secret_id where mount = :mount and agent = :agent limit :limit")
_OF_MOUNT = sql(f"select {_ID_COLUMNS} from vault_secret_id where mount = :mount limit :limit")
_INSERT_ID = sql(
    f"""insert into vault_secret_id (digest, {_ID_COLUMNS}) values (:digest, :mount, :agent, :role, :accessor, :holding,
        :settings, :scopes, :details, :uses_left, :created_at, :expires_at)"""
)
_USE = sql("update vault_secret_id set uses_left = :uses_left where digest = :digest")
_DELETE_ID = sql("delete from vault_secret_id where accessor = :accessor")
_PRUNE = sql(
    """delete from vault_secret_id where digest in
        (select digest from vault_secret_id where expires_at < :before order by expires_at limit :limit)""",
    prunes=True,
)


class _Settings(msgspec.Struct):
    metadata: dict[str, str]
    networks: list[str]
    uses: int
    bounds: tuple[tuple[str, ...], ...] = ()


_decode_role = json_decoder(dict[str, object])
_decode_settings = json_decoder(_Settings)


def get(reader: Reader, mount: str, agent: str, name: str) -> LoginRole | None:
    """Return the role `name` of an agent at a login method; None if there is none."""
    return reader.one_as(_GET, _role, mount=mount, agent=agent, name=name)


def get_by_id(reader: Reader, mount: str, role_id: str) -> LoginRole | None:
    """Return the role of a login method with this role ID (for methods other than AppRole, the name of the role); None
    if there is none.
    """
    return reader.one_as(_BY_ID, _role, mount=mount, role_id=role_id)


def only_config(reader: Reader, mount: str) -> LoginRole | None:
    """Return the configuration of a login method if exactly one agent has set one; otherwise None."""
    rows = reader.all(_CONFIGS, mount=mount)
    return _role(rows[0]) if len(rows) == 1 else None


def names(reader: Reader, mount: str, agent: str, *, limit: int) -> list[str]:
    """Return at most `limit` names of the roles of an agent at a mount."""
    return [name for (name,) in reader.all(_NAMES, mount=mount, agent=agent, limit=limit)]


def roles_of_mount(reader: Reader, mount: str, *, limit: int) -> list[LoginRole]:
    """Return at most `limit` roles of all agents at a mount, sorted by name."""
    return [_role(row) for row in reader.all(_ROLES_OF_MOUNT, mount=mount, limit=limit)]


def has_roles(reader: Reader, mount: str) -> bool:
    """Return whether a mount has a role, or the configuration, of any agent."""
    return reader.one(_ANY, mount=mount) is not None


def put(tx: Tx, role: LoginRole) -> None:
    """Insert a role of an agent at a mount, or replace the role ID and the settings of the agent's role
    of this name.
    """
    facts = role._asdict() | {"settings": msgspec.json.encode(role.settings).decode()}
    tx.run(_PUT, **facts)


def delete(tx: Tx, mount: str, agent: str, name: str) -> None:
    """Delete a role of an agent. Its secret IDs stay."""
    tx.run(_DELETE, mount=mount, agent=agent, name=name)


def clear(tx: Tx, mount: str) -> None:
    """Delete all roles of a mount, and the configurations of all agents for it. The secret IDs stay."""
    tx.run(_CLEAR, mount=mount)


def get_secret_id(reader: Reader, digest: bytes) -> SecretId | None:
    """Return a secret ID by the keyed hash of its text; None if there is none."""
    return reader.one_as(_SECRET_ID, _secret_id, digest=digest)


def get_by_accessor(reader: Reader, accessor: str) -> SecretId | None:
    """Return a secret ID by its accessor; None if there is none."""
    return reader.one_as(_BY_ACCESSOR, _secret_id, accessor=accessor)


def secret_ids(reader: Reader, role: LoginRole, *, limit: int) -> list[SecretId]:
    """Return at most `limit` secret IDs of a role; for a role of `ROLE_METHODS`, its authority, which is stored as a
    secret ID.
    """
    rows = reader.all(_OF_ROLE, mount=role.mount, agent=role.agent, role=role.name, limit=limit)
    return [_secret_id(row) for row in rows]


def secret_ids_of_agent(reader: Reader, mount: str, agent: str, *, limit: int) -> list[SecretId]:
    """Return at most `limit` secret IDs of all roles of an agent at a mount, including authorities of roles of
    `ROLE_METHODS`.
    """
    return [_secret_id(row) for row in reader.all(_OF_AGENT, mount=mount, agent=agent, limit=limit)]


def secret_ids_of_mount(reader: Reader, mount: str, *, limit: int) -> list[SecretId]:
    """Return at most `limit` secret IDs of all roles of a mount, including authorities of roles of `ROLE_METHODS`."""
    return [_secret_id(row) for row in reader.all(_OF_MOUNT, mount=mount, limit=limit)]


def insert_secret_id(tx: Tx, digest: bytes, one: SecretId) -> None:
    """Insert a secret ID under a new keyed hash `digest`."""
    settings = _Settings(one.metadata, one.networks, one.uses, one.bounds)
    tx.run(
        _INSERT_ID,
        digest=digest,
        mount=one.mount,
        agent=one.agent,
        role=one.role,
        accessor=one.accessor,
        holding=one.holding,
        settings=msgspec.json.encode(settings).decode(),
        scopes=" ".join(sorted(one.scopes)),
        details=canonical.encode(render_details(one.details)).decode(),
        uses_left=one.uses_left,
        created_at=one.created_at,
        expires_at=one.expires_at,
    )


def set_uses(tx: Tx, digest: bytes, uses_left: int) -> None:
    """Set the number of uses that a secret ID has left (0: no limit, -1: none left)."""
    tx.run(_USE, digest=digest, uses_left=uses_left)


def delete_secret_id(tx: Tx, accessor: str) -> None:
    """Delete the secret ID with this accessor: the password of an AppRole login, or the authority of a role of
    `ROLE_METHODS`.
    """
    tx.run(_DELETE_ID, accessor=accessor)


def prune(tx: Tx, *, limit: int) -> int:
    """Delete up to `limit` secret IDs that have expired, and the roles of up to `limit` decommissioned agents; return
    the number of deleted rows.
    """
    return tx.run(_PRUNE, before=tx.now, limit=limit) + tx.run(_DELETE_ENDED, limit=limit)


def _role(row: Row) -> LoginRole:
    mount, agent, name, role_id, settings = row
    return LoginRole(mount, agent, name, role_id, _decode_role(settings))


def _secret_id(row: Row) -> SecretId:
    mount, agent, role, accessor, holding, text, scopes, details, uses_left, created_at, expires_at = row
    settings = _decode_settings(text)
    return SecretId(
        mount=mount,
        agent=agent,
        role=role,
        accessor=accessor,
        holding=holding,
        metadata=settings.metadata,
        networks=settings.networks,
        uses=settings.uses,
        bounds=settings.bounds,
        scopes=frozenset(scopes.split()),
        details=parse_details(canonical.parse(details.encode())),
        uses_left=uses_left,
        created_at=created_at,
        expires_at=expires_at,
    )
