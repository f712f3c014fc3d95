"""Credentials in AWS that follow acts of the vault, and the loop that deletes users there.

AWS has no lock under which a user is created and deleted. A request that creates is sent within `CREATE_S` of the
lease, and a user that does not exist counts as deleted only `TAKEOVER_S` after the lease: so no user appears later.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from ostiary.protocol.errors import Refused
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.process.running import RunningTasks
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.secrets.backends.aws_accounts import AwsAccounts
from ostiaryd.secrets.flows import aws_accounts, leases
from ostiaryd.secrets.flows.seal import Sealed, check_open
from ostiaryd.secrets.model.aws_account import (
    ROLE_PREFIX,
    USERS,
    AwsCredentials,
    CreateCredentials,
    check_root,
    seconds_of,
)
from ostiaryd.secrets.model.backend import BackendFailed
from ostiaryd.secrets.model.lease import CREATE_S, STUCK_ATTEMPTS, TAKEOVER_S, Lease
from ostiaryd.secrets.model.request import SECOND, Answer
from ostiaryd.secrets.store import leases as store

log = logging.getLogger("ostiary")
DUE_AT_ONCE, AT_ONCE = 500, 8


class AwsRevokers(RunningTasks):
    """The running round of deletions."""


async def create_credentials(call: Call, upstream: CreateCredentials) -> Answer:
    """Make the credentials of a lease. Raises Refused; then the lease has ended, and its user is deleted."""
    world, lease = call.world, upstream.lease
    try:
        made = await _make(world, upstream)
        await _follow(call, "lease.issue", partial(leases.confirm_lease, lease=lease))
    except Refused as refusal:
        await _follow(call, "lease.abandon", partial(leases.abandon_lease, lease=lease, why=refusal.message))
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
        leases.check_creating(store.get(world.db.read(), lease.lease_id))
        if world.now() > lease.issued_at + CREATE_S * SECOND:
            raise BackendFailed("AWS is too slow", hint="try again")

    accounts = _open(world)
    check()
    if lease.database == USERS:
        return await accounts.create_user(lease.username, upstream.role, check)
    return await accounts.open_session(lease.username, upstream.role, upstream.arn, seconds=seconds_of(lease))


def _open(world: World) -> AwsAccounts:
    """Return the access to AWS, at addresses that the configuration names now. Raises Invalid, Forbidden, Sealed."""
    root, secret_key = aws_accounts.open_root(world.db.read(), keys=world.keys)
    check_root(root, secret_key, permitted=world.config.secret_backends.split())
    return AwsAccounts(root, secret_key, ca_file=world.config.ca_file, now=world.now)


async def _follow(call: Call, action: str, flow: partial[None]) -> None:
    await act(call.world, action, flow, request=call.request_id, network=call.network)


# --- revocation


async def revoke_due(world: World) -> None:
    """Start the deletion of users whose leases have ended, unless it runs."""
    now = world.now()
    if due := await world.db.scan(lambda reader: store.due_of(reader, ROLE_PREFIX, now=now, limit=DUE_AT_ONCE)):
        world.keep(AwsRevokers).begin("aws", partial(_revoke_all, world, due))


async def _revoke_all(world: World, due: list[Lease]) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def revoke(lease: Lease) -> None:
        async with places:
            await _revoke(world, lease)

    try:
        check_open(world.db.read())
        await asyncio.gather(*(revoke(lease) for lease in due))
    except Sealed:
        return  # the key of the server at AWS is a secret too: users are deleted once the secrets are open
    except Exception:
        log.exception("revoking credentials in AWS failed")


async def _revoke(world: World, lease: Lease) -> None:
    """Delete the user of a lease; nothing ends a session before its time."""
    claimed = await world.writer.submit(lambda tx: leases.claim_leases(tx, [lease]))
    if not claimed:
        return
    settled_at = lease.issued_at + TAKEOVER_S * SECOND
    try:
        if lease.database == USERS:
            accounts = _open(world)
            if not await accounts.has_user(lease.username) and world.now() < settled_at:
                await world.writer.submit(
                    lambda tx: store.postpone(tx, lease.lease_id, attempts=0, due_at=settled_at, error="")
                )
                return
            await accounts.delete_user(lease.username)
    except Sealed:
        raise
    except Refused as refusal:
        why = refusal.message
        await world.writer.submit(lambda tx: leases.postpone_leases(tx, [(lease, why)]))
        if lease.attempts + 1 == STUCK_ATTEMPTS:
            await act(world, "lease.stuck", partial(leases.tell_stuck, stuck=[lease], why=why))
        return
    await act(world, "lease.revoke", partial(leases.end_leases, removed=claimed))
