"""The server's access to AWS, the roles whose credentials the server creates there, and the leases of these
credentials.
"""

from __future__ import annotations

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.leases import add_lease
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model.aws_account import (
    AWS_MOUNT,
    MAX_ROLES,
    MAX_SESSION_NAME,
    MAX_USER_NAME,
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

_PLACE: Place = (AWS_MOUNT, "config/root", 1)
_PENDING_PLACE: Place = (AWS_MOUNT, "config/pending", 1)
_OBJECT = f"{AWS_MOUNT}/config/root"


def put_root(act: Act, config: AwsRoot, secret_key: str) -> None:
    """Store the server's access to AWS: its access key, the region and the endpoints. The stored lease times
    (`put_lease_times`) stay.

    If `config` has another access key, a rotation in progress ends, and the ledger entry names the keys that the
    rotation leaves at AWS. Raises Sealed if the secrets are sealed.
    """
    registry.fill_entry(act, object=_OBJECT, access_key=config.access_key, region=config.region)
    present = store.aws_accounts.root(act.tx)
    if present is not None:
        config = replace(config, lease=present.config.lease, lease_max=present.config.lease_max)
        if config.access_key == present.config.access_key:
            config = replace(config, rotation=present.config.rotation)
        elif present.config.rotation is not None:
            pending = store.aws_accounts.root(act.tx, store.aws_accounts.PENDING)
            left = [present.config.rotation.old_key, pending.config.access_key if pending is not None else ""]
            registry.fill_entry(act, object=_OBJECT, left=[present.config.access_key, *filter(None, left)])
            store.aws_accounts.delete_pending(act.tx)
    store.aws_accounts.put_root(act.tx, config, seal_value(act.tx, secret_key.encode(), _PLACE))


def put_lease_times(act: Act, lease: int, lease_max: int) -> None:
    """Store the default and the maximum lifetime, in microseconds, of leases of AWS users. Raises Invalid if the server
    has no access to AWS.
    """
    registry.fill_entry(act, object=f"{AWS_MOUNT}/config/lease", lease=lease // SECOND, lease_max=lease_max // SECOND)
    stored = find_root(act.tx)
    store.aws_accounts.put_root(act.tx, replace(stored.config, lease=lease, lease_max=lease_max), stored.secret_key)


def find_root(reader: Reader) -> store.aws_accounts.StoredRoot:
    """Return the server's access to AWS: the configuration and its encrypted secret key. Raises Invalid if it is not
    configured.
    """
    if (stored := store.aws_accounts.root(reader)) is None:
        raise Invalid("the access to AWS is not configured", hint="write aws/config/root", code="no_root")
    return stored


def open_root(reader: Reader, *, keys: Keyring) -> tuple[AwsRoot, str]:
    """Return the server's access to AWS, and its secret key. Raises Invalid if there is none, Sealed while the secrets
    are sealed, Conflict if the stored key cannot be decrypted.
    """
    stored = find_root(reader)
    return stored.config, open_value(reader, stored.secret_key, _PLACE, keys=keys).decode()


# --- the rotation of the server's own key


def begin_root_rotation(act: Act) -> None:
    """Record that a rotation of the server's own access key at AWS begins.

    The caller has checked that the server's user has no other key, so a second key at AWS belongs to this rotation from
    now on. Raises Invalid if the access to AWS is not configured; Conflict if a rotation is in progress.
    """
    present = find_root(act.tx).config
    registry.fill_entry(act, object=_OBJECT, access_key=present.access_key)
    if present.rotation is not None:
        raise Conflict(
            "a rotation of the key is in progress", hint="wait: the server repeats the rotation until it succeeds"
        )
    store.aws_accounts.replace_root(act.tx, present, replace(present, rotation=RootRotation(due_at=_take_over(act.tx))))


def find_due_root(reader: Reader, *, now: int) -> AwsRoot | None:
    """Return the server's access to AWS if a step of its key's rotation is due; otherwise None."""
    stored = store.aws_accounts.root(reader)
    is_due = stored is not None and stored.config.rotation is not None and stored.config.rotation.due_at <= now
    return stored.config if stored is not None and is_due else None


def claim_root_rotation(tx: Tx) -> bool:
    """Claim the next step of the rotation of the server's own key for this process. Return False if no step is due, or
    another process has the claim.
    """
    if (config := find_due_root(tx, now=tx.now)) is None or config.rotation is None:
        return False
    return store.aws_accounts.replace_root(
        tx, config, replace(config, rotation=replace(config.rotation, due_at=_take_over(tx)))
    )


def _take_over(tx: Tx) -> int:
    return tx.now + TAKEOVER_S * SECOND


def has_pending_key(reader: Reader) -> bool:
    """Return whether the rotation has stored a new key that is not in use yet."""
    return store.aws_accounts.root(reader, store.aws_accounts.PENDING) is not None


def keep_new_key(act: Act, old_key: str, made: AwsCredentials) -> None:
    """Store the new key of a rotation, which is not in use yet. `old_key`: the id of the key that must still be in use.
    Raises Sealed if the secrets are sealed; Conflict if the access to AWS was replaced meanwhile.
    """
    config = _find_rotating(act, old_key)[0]
    registry.fill_entry(act, object=_OBJECT, new_key=made.access_key)
    pending = replace(config, access_key=made.access_key, rotation=None)
    store.aws_accounts.put_root(
        act.tx, pending, seal_value(act.tx, made.secret_key.encode(), _PENDING_PLACE), store.aws_accounts.PENDING
    )


def open_pending(reader: Reader, *, keys: Keyring) -> tuple[AwsRoot, str]:
    """Return the access to AWS with the rotation's new key, and the new secret key. Raises Sealed while the secrets are
    sealed, Conflict if the rotation has ended.
    """
    if (stored := store.aws_accounts.root(reader, store.aws_accounts.PENDING)) is None:
        raise Conflict("the rotation has ended already")
    return stored.config, open_value(reader, stored.secret_key, _PENDING_PLACE, keys=keys).decode()


def use_new_key(act: Act, old_key: str) -> None:
    """Use the rotation's new key from now on, and schedule the deletion of `old_key` at AWS. Raises Sealed while the
    secrets are sealed, Conflict if the rotation has ended or `old_key` is not the key in use.
    """
    config, _ = _find_rotating(act, old_key)
    pending, secret_key = open_pending(act.tx, keys=act.tx.keys)
    registry.fill_entry(act, object=_OBJECT, new_key=pending.access_key)
    rotation = RootRotation(due_at=act.now + OLD_KEY_S * SECOND, old_key=old_key)
    config = replace(config, access_key=pending.access_key, rotation=rotation)
    store.aws_accounts.put_root(act.tx, config, seal_value(act.tx, secret_key.encode(), _PLACE))
    store.aws_accounts.delete_pending(act.tx)


def end_root_rotation(act: Act, new_key: str) -> None:
    """Record that the old key of a rotation is deleted at AWS, so the rotation has ended. Raises Conflict if the
    rotation has ended already, or `new_key` is not the key in use.
    """
    config, _ = _find_rotating(act, new_key)
    store.aws_accounts.replace_root(act.tx, config, replace(config, rotation=None))


def fail_root_rotation(act: Act, key: str, why: str) -> None:
    """Record that a step of the rotation failed because of `why`, and schedule the next attempt. Raises Conflict if the
    rotation has ended, or `key` is not the key in use.
    """
    config, rotation = _find_rotating(act, key)
    attempts = rotation.attempts + 1
    registry.fill_entry(act, object=_OBJECT, attempts=attempts, why=why[:MAX_ERROR])
    failed = replace(rotation, attempts=attempts, due_at=next_try(attempts, now=act.now), error=why[:MAX_ERROR])
    store.aws_accounts.replace_root(act.tx, config, replace(config, rotation=failed))


def _find_rotating(act: Act, key: str) -> tuple[AwsRoot, RootRotation]:
    """Return the access to AWS and its rotation. Raises Conflict if `key` is not the key in use any more."""
    config = find_root(act.tx).config
    registry.fill_entry(act, object=_OBJECT, access_key=key)
    if config.rotation is None or config.access_key != key:
        raise Conflict("the access to AWS was replaced meanwhile")
    return config, config.rotation


# --- roles and leases


def put_role(act: Act, name: str, role: AwsRole) -> None:
    """Store a role whose leases are credentials at AWS. Raises Conflict for a new role if the server has the maximum
    number of roles.
    """
    registry.fill_entry(act, object=f"{AWS_MOUNT}/roles/{name}", type=role.credential_type.value)
    if (
        store.aws_accounts.role(act.tx, name) is None
        and len(store.aws_accounts.roles(act.tx, limit=MAX_ROLES)) >= MAX_ROLES
    ):
        raise Conflict(f"the server has {MAX_ROLES} AWS roles, which is the limit", hint="delete a role of `aws/roles`")
    store.aws_accounts.put_role(act.tx, name, role)


def begin_lease(act: Act, name: str, *, is_session: bool, arn: str, ttl: int | None) -> CreateCredentials:
    """Store the lease of new credentials for the caller that the act's ledger entry names; return the credentials that
    the server must create at AWS after the transaction.

    `is_session`: whether the path of the request is `sts/ROLE` (not `creds/ROLE`). `arn`: the ARN of the role to
    assume; empty: the only ARN of the role. `ttl`: the requested lifetime in microseconds; None: the default. Raises
    Invalid without an access to AWS, for an unknown role, for a role of users at `sts/ROLE`, for an `arn` that the role
    does not have, and for a `ttl` out of range; Conflict for too many leases.
    """
    act.check_granting()
    if (role := store.aws_accounts.role(act.tx, name)) is None:
        raise Invalid(f"unknown role: {name}", code="no_role")
    root, agent = find_root(act.tx).config, act.entry.agent
    assert agent is not None  # the caller was authenticated in this act
    is_user = role.credential_type is AwsCredentialType.USER
    if is_user and is_session:
        raise Invalid(
            "the role creates users, and `aws/sts` creates only sessions", hint=f"read aws/creds/{name} instead"
        )
    shortest, longest = (SECOND, root.lease_max) if is_user else (SHORTEST_S * SECOND, role.max_ttl)
    if ttl is not None and not shortest <= ttl <= longest:
        raise Invalid(f"`ttl` must be {shortest // SECOND} to {longest // SECOND} seconds")
    default = ttl or (root.lease if is_user else role.default_ttl)
    username = make_account(
        registry.find_agent(act.tx, agent).name,
        name,
        longest=MAX_USER_NAME if is_user else MAX_SESSION_NAME,
        now=act.now,
        random=act.tx.random,
    )
    lease = add_lease(
        act,
        AWS_MOUNT,
        database=USERS if is_user else SESSIONS,
        role=name,
        username=username,
        statements=LeaseStatements(),
        default_ttl=default,
        max_ttl=longest if is_user else default,
    )
    registry.fill_entry(act, object=f"{AWS_MOUNT}/creds/{name}", lease=lease.lease_id, username=username)
    return CreateCredentials(lease, role, choose_arn(role, arn))
