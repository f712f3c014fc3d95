"""Operations on the access to AWS, on roles there, and on leases of their credentials."""

from __future__ import annotations

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets.flows.leases import add_lease
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model.aws_account import (
    MAX_ROLES,
    MOUNT,
    ROLE_PREFIX,
    SESSIONS,
    SHORTEST_S,
    USERS,
    AwsCredentialType,
    AwsRole,
    AwsRoot,
    CreateCredentials,
    choose_arn,
)
from ostiaryd.secrets.model.database import make_account
from ostiaryd.secrets.model.lease import LeaseStatements
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.sealing import Place
from ostiaryd.secrets.store import aws_accounts as store

_PLACE: Place = (MOUNT, "config/root", 1)


def put_root(act: Act, config: AwsRoot, secret_key: str) -> None:
    """Store the access to AWS; the times of leases of users stay. Raises Sealed."""
    registry.note(act, object=f"{MOUNT}/config/root", access_key=config.access_key, region=config.region)
    present = store.root(act.tx)
    if present is not None:
        config = replace(config, lease=present.config.lease, lease_max=present.config.lease_max)
    store.put_root(act.tx, config, seal_value(act.tx, secret_key.encode(), _PLACE))


def put_lease_times(act: Act, lease: int, lease_max: int) -> None:
    """Store the times of leases of users, in microseconds. Raises Invalid."""
    registry.note(act, object=f"{MOUNT}/config/lease", lease=lease // SECOND, lease_max=lease_max // SECOND)
    stored = find_root(act.tx)
    store.put_root(act.tx, replace(stored.config, lease=lease, lease_max=lease_max), stored.secret_key)


def find_root(reader: Reader) -> store.StoredRoot:
    """Return the access to AWS. Raises Invalid before it is configured."""
    if (stored := store.root(reader)) is None:
        raise Invalid("the access to AWS is not configured", hint="write aws/config/root", code="no_root")
    return stored


def open_root(reader: Reader, *, keys: Keyring) -> tuple[AwsRoot, str]:
    """Return the access to AWS with its secret key. Raises Invalid, Sealed, Conflict."""
    stored = find_root(reader)
    return stored.config, open_value(reader, stored.secret_key, _PLACE, keys=keys).decode()


def put_role(act: Act, name: str, role: AwsRole) -> None:
    """Store a role. Raises Conflict."""
    registry.note(act, object=f"{MOUNT}/roles/{name}", type=role.credential_type.value)
    if store.role(act.tx, name) is None and len(store.roles(act.tx, limit=MAX_ROLES)) >= MAX_ROLES:
        raise Conflict(f"there are {MAX_ROLES} roles", hint="delete a role")
    store.put_role(act.tx, name, role)


def begin_lease(act: Act, name: str, *, is_session: bool, arn: str, ttl: int | None) -> CreateCredentials:
    """Store the lease of new credentials for the caller that the ledger entry names. AWS makes them afterwards.

    Raises Invalid for an unknown role, or for another type than that of the path; Conflict for too many leases.
    """
    act.check_granting()
    if (role := store.role(act.tx, name)) is None:
        raise Invalid(f"unknown role: {name}", code="no_role")
    root, agent = find_root(act.tx).config, act.entry.agent
    assert agent is not None  # the caller was authenticated in this act
    is_user = role.credential_type is AwsCredentialType.USER
    if is_user and is_session:
        raise Invalid("the role makes users, which have no session", hint=f"read aws/creds/{name}")
    shortest, longest = (SECOND, root.lease_max) if is_user else (SHORTEST_S * SECOND, role.max_ttl)
    if ttl is not None and not shortest <= ttl <= longest:
        raise Invalid(f"`ttl` must be {shortest // SECOND} to {longest // SECOND} seconds")
    default = ttl or (root.lease if is_user else role.default_ttl)
    username = make_account(
        registry.find_agent(act.tx, agent).name,
        name,
        kind="postgresql" if is_user else "mysql",  # the name of a session has at most 32 letters, as in MySQL
        now=act.now,
        random=act.tx.random,
    )
    lease = add_lease(
        act,
        f"{MOUNT}/creds/{name}",
        database=USERS if is_user else SESSIONS,
        role=ROLE_PREFIX + name,
        username=username,
        statements=LeaseStatements(),
        default_ttl=default,
        max_ttl=longest if is_user else default,
    )
    registry.note(act, object=f"{MOUNT}/creds/{name}", lease=lease.lease_id, username=username)
    return CreateCredentials(lease, role, choose_arn(role, arn))
