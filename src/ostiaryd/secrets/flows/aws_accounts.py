"""Operations on the access to AWS, on roles there, and on leases of their credentials."""

from __future__ import annotations

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets.flows.leases import add_lease
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model.aws_account import (
    MAX_ROLES,
    MOUNT,
    OLD_KEY_S,
    SESSIONS,
    SHORTEST_S,
    USERS,
    AwsCredentials,
    AwsCredentialType,
    AwsRole,
    AwsRoot,
    CreateCredentials,
    RootRotation,
    choose_arn,
)
from ostiaryd.secrets.model.database import make_account
from ostiaryd.secrets.model.lease import MAX_ERROR, TAKEOVER_S, LeaseStatements, next_try
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.sealing import Place
from ostiaryd.secrets.store import aws_accounts as store

_PLACE: Place = (MOUNT, "config/root", 1)
_PENDING_PLACE: Place = (MOUNT, "config/pending", 1)
_OBJECT = f"{MOUNT}/config/root"


def put_root(act: Act, config: AwsRoot, secret_key: str) -> None:
    """Store the access to AWS; the times of leases of users stay. Another key ends a rotation that is under way; the
    entry names the keys that it leaves at AWS. Raises Sealed.
    """
    registry.note(act, object=_OBJECT, access_key=config.access_key, region=config.region)
    present = store.root(act.tx)
    if present is not None:
        config = replace(config, lease=present.config.lease, lease_max=present.config.lease_max)
        if config.access_key == present.config.access_key:
            config = replace(config, rotation=present.config.rotation)
        elif present.config.rotation is not None:
            pending = store.root(act.tx, store.PENDING)
            left = [present.config.rotation.old_key, pending.config.access_key if pending is not None else ""]
            registry.note(act, object=_OBJECT, left=[present.config.access_key, *filter(None, left)])
            store.delete_pending(act.tx)
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


# --- the rotation of the server's own key


def begin_root_rotation(act: Act) -> None:
    """Store the intent to replace the server's own key at AWS, which has no other key of its user: a second key is from
    now on one of this rotation. Raises Invalid; Conflict if a rotation is under way.
    """
    present = find_root(act.tx).config
    registry.note(act, object=_OBJECT, access_key=present.access_key)
    if present.rotation is not None:
        raise Conflict("the key is being rotated", hint="the server goes on until it succeeds")
    store.replace_root(act.tx, present, replace(present, rotation=RootRotation(due_at=_take_over(act.tx))))


def find_due_root(reader: Reader, *, now: int) -> AwsRoot | None:
    """Return the access to AWS if a step of its rotation is due; otherwise None."""
    stored = store.root(reader)
    is_due = stored is not None and stored.config.rotation is not None and stored.config.rotation.due_at <= now
    return stored.config if stored is not None and is_due else None


def claim_root_rotation(tx: Tx) -> bool:
    """Claim the step of a rotation that is due; return False without one, or if another process has claimed it."""
    if (config := find_due_root(tx, now=tx.now)) is None or config.rotation is None:
        return False
    return store.replace_root(tx, config, replace(config, rotation=replace(config.rotation, due_at=_take_over(tx))))


def _take_over(tx: Tx) -> int:
    return tx.now + TAKEOVER_S * SECOND


def has_pending_key(reader: Reader) -> bool:
    """Return whether a new key is stored that is not in force yet."""
    return store.root(reader, store.PENDING) is not None


def keep_new_key(act: Act, old_key: str, made: AwsCredentials) -> None:
    """Store a new key, which is not in force yet. Raises Sealed; Conflict if the access was replaced meanwhile."""
    config = _find_rotating(act, old_key)[0]
    registry.note(act, object=_OBJECT, new_key=made.access_key)
    pending = replace(config, access_key=made.access_key, rotation=None)
    store.put_root(act.tx, pending, seal_value(act.tx, made.secret_key.encode(), _PENDING_PLACE), store.PENDING)


def open_pending(reader: Reader, *, keys: Keyring) -> tuple[AwsRoot, str]:
    """Return the access to AWS with the new key. Raises Sealed, Conflict."""
    if (stored := store.root(reader, store.PENDING)) is None:
        raise Conflict("the rotation has ended already")
    return stored.config, open_value(reader, stored.secret_key, _PENDING_PLACE, keys=keys).decode()


def use_new_key(act: Act, old_key: str) -> None:
    """Put the new key in force, and schedule the deletion of the old one. Raises Sealed, Conflict."""
    config, _ = _find_rotating(act, old_key)
    pending, secret_key = open_pending(act.tx, keys=act.tx.keys)
    registry.note(act, object=_OBJECT, new_key=pending.access_key)
    rotation = RootRotation(due_at=act.now + OLD_KEY_S * SECOND, old_key=old_key)
    config = replace(config, access_key=pending.access_key, rotation=rotation)
    store.put_root(act.tx, config, seal_value(act.tx, secret_key.encode(), _PLACE))
    store.delete_pending(act.tx)


def end_root_rotation(act: Act, new_key: str) -> None:
    """Record that the old key is deleted. Raises Conflict."""
    config, _ = _find_rotating(act, new_key)
    store.replace_root(act.tx, config, replace(config, rotation=None))


def fail_root_rotation(act: Act, key: str, why: str) -> None:
    """Record a failed step, and schedule the next attempt. Raises Conflict."""
    config, rotation = _find_rotating(act, key)
    attempts = rotation.attempts + 1
    registry.note(act, object=_OBJECT, attempts=attempts, why=why[:MAX_ERROR])
    failed = replace(rotation, attempts=attempts, due_at=next_try(attempts, now=act.now), error=why[:MAX_ERROR])
    store.replace_root(act.tx, config, replace(config, rotation=failed))


def _find_rotating(act: Act, key: str) -> tuple[AwsRoot, RootRotation]:
    """Return the access to AWS whose key is being rotated. Raises Conflict if another key is in force by now."""
    config = find_root(act.tx).config
    registry.note(act, object=_OBJECT, access_key=key)
    if config.rotation is None or config.access_key != key:
        raise Conflict("the access to AWS was replaced meanwhile")
    return config, config.rotation


# --- roles and leases


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
        MOUNT,
        database=USERS if is_user else SESSIONS,
        role=name,
        username=username,
        statements=LeaseStatements(),
        default_ttl=default,
        max_ttl=longest if is_user else default,
    )
    registry.note(act, object=f"{MOUNT}/creds/{name}", lease=lease.lease_id, username=username)
    return CreateCredentials(lease, role, choose_arn(role, arn))
