"""Requests to AWS that follow transactions of the Vault API: credentials of leases, and the server's own key; and the
loop that deletes users.

AWS has no lock for the creation and deletion of a user. The server therefore sends a request that creates a user only
within `CREATE_S` of the lease. A user that does not exist counts as deleted only `TAKEOVER_S` after the lease, so that
no user appears later.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from ostiary.protocol.errors import Invalid, Refused
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.process.running import RunningTasks
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.backends.aws_accounts import AwsAccounts
from ostiaryd.secrets.flows import aws_accounts, leases
from ostiaryd.secrets.flows.seal import Sealed, check_open, read_status
from ostiaryd.secrets.model.aws_account import (
    AWS_MOUNT,
    USERS,
    AwsCredentials,
    AwsRoot,
    CreateCredentials,
    check_root,
    seconds_of,
)
from ostiaryd.secrets.model.backend import BackendFailed
from ostiaryd.secrets.model.lease import CREATE_S, TAKEOVER_S, Lease
from ostiaryd.secrets.model.request import SECOND, Answer
from ostiaryd.secrets.wire_leases import follow, postpone

log = logging.getLogger("ostiary")
DUE_AT_ONCE, AT_ONCE = 500, 8
NEW_KEY_DELAYS_S = (1, 2, 4)
"""Seconds between the attempts to use a new key, which AWS accepts after some seconds."""


class AwsRevokers(RunningTasks):
    """The running deletions of AWS users whose leases have ended, at most one round at a time."""


async def create_credentials(call: Call, upstream: CreateCredentials) -> Answer:
    """Create the credentials of a lease at AWS, and return the response of the Vault API. If Refused is raised, the
    lease has ended, and the server deletes its user at AWS, if one was created.
    """
    world, lease = call.world, upstream.lease
    try:
        made = await _make(world, upstream)
        await follow(call, "lease.issue", partial(leases.confirm_lease, lease=lease))
    except Refused as refusal:
        await follow(call, "lease.abandon", partial(leases.abandon_lease, lease=lease, why=refusal.message))
        raise
    return Answer(
        data={
            "access_key": made.access_key,
            "secret_key": made.secret_key,
            "security_token": made.token or None,
            "session_token": made.token or None,
            "arn": made.arn,
        },
        lease_id=lease.lease_id,
        lease_s=(lease.expires_at - lease.issued_at) // SECOND,
        is_renewable=lease.database == USERS,
    )


async def _make(world: World, upstream: CreateCredentials) -> AwsCredentials:
    lease = upstream.lease

    def check() -> None:
        leases.check_creating(store.leases.get(world.db.read(), lease.lease_id))
        if world.now() > lease.issued_at + CREATE_S * SECOND:
            raise BackendFailed("AWS is too slow", hint="try again")

    accounts = _open(world)
    check()
    if lease.database == USERS:
        return await accounts.create_user(lease.username, upstream.role, check)
    return await accounts.open_session(lease.username, upstream.role, upstream.arn, seconds=seconds_of(lease))


def _open(world: World) -> AwsAccounts:
    """Return a client for AWS, at addresses that the configuration still names. Raises Invalid if no access to AWS is
    stored, Forbidden if the configuration does not name its address, Sealed if the secrets are sealed.
    """
    return _open_with(world, *aws_accounts.open_root(world.db.read(), keys=world.keys))


def _open_with(world: World, root: AwsRoot, secret_key: str) -> AwsAccounts:
    check_root(root, secret_key, permitted=world.config.secret_backends.split())
    return AwsAccounts(root, secret_key, ca_file=world.config.ca_file, now=world.now)


# --- the server's own key


async def rotate_root(call: Call, holding: str) -> Answer:
    """Replace the server's own access key at AWS. `holding`: the id of the token, or of the access key issued by this
    server, with which the caller authenticated; it must still be valid.

    AWS shows a new key only once. At the beginning of the rotation, the server's user at AWS must have no other key; a
    second key that is found later therefore comes from a response that was lost, and is deleted. Raises Invalid if the
    user has a second key, Conflict if a rotation is in progress, Refused if AWS or a check refuses a step. The present
    key then stays in use, and the server repeats a step that was refused later.
    """
    world = call.world
    accounts, root = _open(world), aws_accounts.find_root(world.db.read()).config
    if root.rotation is None and await accounts.list_own_keys() != [root.access_key]:
        raise Invalid("the server's user at AWS has a second access key", hint="delete the other key", code="two_keys")

    def begin(act: Act) -> None:
        registry.check_holder(act.tx, holding, now=act.now)
        aws_accounts.begin_root_rotation(act)

    await follow(call, "lease.begin_rotation", begin)
    await _replace_key(world)
    return Answer(data={"access_key": aws_accounts.find_root(world.db.read()).config.access_key})


async def rotate_due(world: World) -> None:
    """Continue a rotation of the server's own key whose next step is due."""

    def is_due(reader: Reader) -> bool:
        return aws_accounts.find_due_root(reader, now=world.now()) is not None and not read_status(reader).is_sealed

    if not await world.db.scan(is_due):
        return
    if not await world.writer.submit(aws_accounts.claim_root_rotation):
        return
    try:
        await _replace_key(world)
    except Refused as refusal:
        log.warning("the key of this server at AWS was not rotated: %s", refusal.message)


async def _replace_key(world: World) -> None:
    """Do the next steps of the rotation of the server's own key: create and use a new key, or delete the old key."""
    root = aws_accounts.find_root(world.db.read()).config
    key, old_key = root.access_key, root.rotation.old_key if root.rotation is not None else ""
    try:
        if old_key:
            await _open(world).delete_own_key(old_key)
            await act(world, "lease.end_rotation", partial(aws_accounts.end_root_rotation, new_key=key))
            return
        if not aws_accounts.has_pending_key(world.db.read()):
            await _create_key(world, key)
        await _try_new_key(world)
        await act(world, "lease.rotate_root", partial(aws_accounts.use_new_key, old_key=key))
    except Refused as refusal:
        fail = partial(aws_accounts.fail_root_rotation, key=key, why=refusal.message)
        await act(world, "lease.rotate_fail", fail)
        raise


async def _create_key(world: World, key: str) -> None:
    accounts = _open(world)
    for lost in await accounts.list_own_keys():
        if lost != key:
            await accounts.delete_own_key(lost)
    made = await accounts.create_key()
    try:
        await act(world, "lease.keep_key", partial(aws_accounts.keep_new_key, old_key=key, made=made))
    except Refused:
        await accounts.delete_own_key(made.access_key)
        raise


async def _try_new_key(world: World) -> None:
    """Wait until AWS accepts the new key, which takes some seconds. Raises Refused if AWS does not."""
    accounts = _open_with(world, *aws_accounts.open_pending(world.db.read(), keys=world.keys))
    for delay in NEW_KEY_DELAYS_S:
        try:
            return await accounts.check_key()
        except BackendFailed:
            await asyncio.sleep(delay)
    return await accounts.check_key()


# --- revocation


async def revoke_due(world: World) -> None:
    """Start the deletion of the AWS users whose leases have ended, unless such a deletion is running."""
    now = world.now()
    if due := await world.db.scan(lambda reader: store.leases.due(reader, AWS_MOUNT, now=now, limit=DUE_AT_ONCE)):
        world.get_singleton(AwsRevokers).begin("aws", partial(_revoke_all, world, due))


async def _revoke_all(world: World, due: list[Lease]) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def revoke(lease: Lease) -> None:
        async with places:
            await _revoke(world, lease)

    try:
        check_open(world.db.read())
        await asyncio.gather(*(revoke(lease) for lease in due))
    except Sealed:
        return  # the server's key at AWS is encrypted, too: users are deleted after an unseal
    except Exception:
        log.exception("revoking credentials in AWS failed")


async def _revoke(world: World, lease: Lease) -> None:
    """Delete the user of a lease. The session of a lease is not ended: AWS ends it at its expiry."""
    claimed = await world.writer.submit(lambda tx: leases.claim_leases(tx, [lease]))
    if not claimed:
        return
    settled_at = lease.issued_at + TAKEOVER_S * SECOND
    try:
        if lease.database == USERS:
            accounts = _open(world)
            if not await accounts.has_user(lease.username) and world.now() < settled_at:
                await world.writer.submit(
                    lambda tx: store.leases.postpone(tx, lease.lease_id, attempts=0, due_at=settled_at, error="")
                )
                return
            await accounts.delete_user(lease.username)
    except Sealed:
        raise
    except Refused as refusal:
        await postpone(world, [(lease, refusal.message)])
        return
    await act(world, "lease.revoke", partial(leases.end_leases, removed=claimed))
