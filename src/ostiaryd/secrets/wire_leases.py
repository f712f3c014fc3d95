"""Requests to databases that follow transactions of the Vault API, the loops that remove accounts and rotate passwords,
and leases in the admin API.

An account is created and removed under an advisory lock of its database. It is created only while its lease waits for
the creation, within `CREATE_S`, so that no account appears after the server has found that there is none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypedDict, assert_never

import msgspec

from ostiary.protocol.errors import Conflict, Invalid, Refused, Unavailable
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import Page, reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, EmptyBody, PageBody, Query, Route
from ostiaryd.ground.outbound.database_client import IDLE_S, DatabaseClient
from ostiaryd.ground.outbound.database_driver import DatabaseConflict, DatabaseDown
from ostiaryd.ground.process.running import RunningTasks
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import databases, leases, seal
from ostiaryd.secrets.flows.aws_accounts import put_root
from ostiaryd.secrets.model.aws_account import check_root
from ostiaryd.secrets.model.backend import check_address
from ostiaryd.secrets.model.database import DATABASE_MOUNT, read_connection
from ostiaryd.secrets.model.lease import CREATE_S, STUCK_ATTEMPTS, TAKEOVER_S, Lease
from ostiaryd.secrets.model.request import SECOND, Answer
from ostiaryd.secrets.model.upstream import (
    ConnectAws,
    ConnectDatabase,
    CreateAccount,
    ExtendAccount,
    ListBackend,
    ReadBackend,
    RevokeDue,
    RevokeRoles,
    RotateRole,
    RotateRoot,
    Upstream,
)
from ostiaryd.secrets.store.accounts import statements_of
from ostiaryd.secrets.wire_backends import answer_from_backend

log = logging.getLogger("ostiary")
ENDED_AT_ONCE, DUE_AT_ONCE, BATCH, ROTATED_AT_ONCE = 5000, 2000, 50, 20
OVERLAP = 600 * SECOND
"""Microseconds before the previous search from which ended holdings are searched again, because other servers may have
committed meanwhile.
"""
TRIES = 8


# --- after an act


async def carry_out(call: Call, upstream: Upstream) -> Answer:
    """Carry out the instruction that a transaction of the Vault API left for afterwards, at a database, AWS or a back
    end, and return the response of the API. If Refused is raised, no new credential stays usable: an account that was
    created is removed.
    """
    world = call.world
    match upstream:
        case CreateAccount():
            return await _create_account(call, upstream)
        case ExtendAccount(lease, expires_at):
            return await _extend_account(call, lease, expires_at)
        case ConnectDatabase():
            await _connect(call, upstream)
        case ConnectAws(root, secret_key, holding):
            check_root(root, secret_key, permitted=world.config.secret_backends.split())
            put = partial(put_root, config=root, secret_key=secret_key)
            await follow(call, "lease.connect", partial(_act_still, holding=holding, flow=put))
        case RotateRoot(name):
            password = await _rotate_root(world, name)
            end = partial(databases.end_root_rotation, name=name, password=password)
            await follow(call, "lease.rotate_root", end)
        case RotateRole(name, is_new):
            try:
                await _rotate(world, name, request=call.request_id)
            except Refused as refusal:
                if is_new and not isinstance(refusal, Conflict):
                    await world.writer.submit(lambda tx: store.databases.delete_static(tx, name))
                raise
        case RevokeDue():
            await revoke_due(world)
        case RevokeRoles(mount, roles, is_forced):
            for role in roles:
                await _revoke_role(call, mount, role, is_forgotten=is_forced)
            await revoke_due(world)
        case ReadBackend() | ListBackend():
            return await answer_from_backend(call, upstream)
        case _:
            assert_never(upstream)
    return Answer(status=204)


async def _connect(call: Call, upstream: ConnectDatabase) -> None:
    world, name, body = call.world, upstream.name, upstream.body
    config = read_connection(body, permitted=world.config.secret_databases.split())
    password = body.password or databases.present_password(world.db.read(), name, config, keys=world.keys)
    if body.verify_connection:
        target = databases.target_of(config, password)
        await world.get_singleton(DatabaseClient).run(target, statements_of(config).verify)

    put = partial(databases.put_connection, name=name, config=config, password=password)
    await follow(call, "lease.connect", partial(_act_still, holding=upstream.holding, flow=put))


def _act_still(act: Act, *, holding: str, flow: Callable[[Act], None]) -> None:
    """Run a flow in the act that follows a request to another system, if the caller with this holding may still act.
    Raises NotFound or Forbidden otherwise.
    """
    registry.check_holder(act.tx, holding, now=act.now)
    flow(act)


async def follow(call: Call, action: str, flow: Any) -> Any:
    """Run `flow` in a second transaction of an API request, which records the result of a request to another system,
    and return the result of `flow`. `action`: the action of the ledger entry. Raises the refusals of `flow`.
    """
    return await act(call.world, action, flow, request=call.request_id, network=call.network)


async def _create_account(call: Call, upstream: CreateAccount) -> Answer:
    world, lease, password = call.world, upstream.lease, upstream.password
    stored = databases.find_connection(world.db.read(), lease.database)
    accounts = statements_of(stored.config)
    contended, loop = world.get_singleton(Revokers).contended, asyncio.get_running_loop()

    async def check() -> None:
        if world.now() > lease.issued_at + CREATE_S * SECOND:
            raise DatabaseDown(f"the database did not create the account within {CREATE_S} s", hint="try again")
        leases.check_creating(store.leases.get(world.db.read(), lease.lease_id))

    def create(raw: Any) -> None:
        # a lease whose account was lost is removed like any other
        accounts.lock_for_creation(raw, lease.username, is_alone=lease.role in contended)
        asyncio.run_coroutine_threadsafe(check(), loop).result(CREATE_S)
        accounts.execute(raw, upstream.creation, stored.config, lease.username, password, lease.expires_at)

    try:
        try:
            await _at_database(world, lease.database, create, hidden=password)
        except DatabaseConflict:
            contended.add(lease.role)
            await _at_database(world, lease.database, create, hidden=password, tries=TRIES)
        await follow(call, "lease.issue", partial(leases.confirm_lease, lease=lease))
    except Refused as refusal:
        await follow(call, "lease.abandon", partial(leases.abandon_lease, lease=lease, why=refusal.message))
        await revoke_due(world)
        raise
    return Answer(
        data={"username": lease.username, "password": password},
        lease_id=lease.lease_id,
        lease_s=(lease.expires_at - lease.issued_at) // SECOND,
        is_renewable=True,
    )


async def _extend_account(call: Call, lease: Lease, expires_at: int) -> Answer:
    world = call.world
    stored = databases.find_connection(world.db.read(), lease.database)
    accounts = statements_of(stored.config)
    statements = lease.statements.renewal or accounts.EXTEND

    def extend(raw: Any) -> None:
        accounts.lock(raw, [lease.username])
        accounts.execute(raw, statements, stored.config, lease.username, expires_at=expires_at)

    for left in reversed(range(TRIES)):
        await _at_database(world, lease.database, extend, tries=TRIES)
        try:
            flow = partial(leases.renew_lease, lease=lease, expires_at=expires_at)
            renewed = await follow(call, "lease.renew", flow)
            break
        # extend the account again, so that account and lease have the same end
        except leases.RenewedMeanwhile as refusal:
            if not left:
                raise
            lease = refusal.present
    return Answer(
        lease_id=renewed.lease_id,
        lease_s=(renewed.expires_at - renewed.renewed_at) // SECOND,
        is_renewable=True,
    )


async def _revoke_role(call: Call, mount: str, role: str, *, is_forgotten: bool) -> None:
    """Revoke all leases of a role in several short acts, so that other acts can run between them."""
    after: str | None = ""
    while after is not None:
        flow = partial(leases.revoke_leases_of, mount=mount, role=role, after=after, is_forgotten=is_forgotten)
        after = await follow(call, "lease.end", flow)


async def _at_database(world: World, name: str, work: Any, *, hidden: str = "", tries: int = 1) -> Any:
    """Run `work` at a database that the configuration still names, and return its result. A conflict with another
    transaction is retried, up to `tries` attempts. `hidden`: a password to remove from errors.
    """
    target = databases.find_target(world.db.read(), name, keys=world.keys)
    check_address(target.address, permitted=world.config.secret_databases.split(), setting="secret_databases")
    for left in reversed(range(tries)):
        try:
            return await world.get_singleton(DatabaseClient).run(target, work, hidden=hidden)
        except DatabaseConflict:
            if not left:
                raise
    raise AssertionError("there is at least one try")


# --- revocation


class Revokers(RunningTasks):
    """The running removals of accounts whose leases have ended, by database.

    `since`: the time up to which leases that ended with their token, task or agent were searched. `contended`: roles
    whose statements have conflicted with other transactions.
    """

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.since = 0
        self.contended: set[str] = set()


async def revoke_due(world: World) -> None:
    """Find the leases that have ended, and start the removal of accounts at each database without a running removal."""
    revokers, now = world.get_singleton(Revokers), world.now()
    ended = await world.db.scan(
        lambda reader: store.leases.ended(reader, since=revokers.since, now=now, limit=ENDED_AT_ONCE)
    )
    if ended:
        await world.writer.submit(lambda tx: leases.mark_ended(tx, ended))
    if len(ended) < ENDED_AT_ONCE:
        revokers.since = max(now - OVERLAP, 0)
    by_database: dict[str, list[Lease]] = {}
    for lease in await world.db.scan(
        lambda reader: store.leases.due(reader, DATABASE_MOUNT, now=now, limit=DUE_AT_ONCE)
    ):
        by_database.setdefault(lease.database, []).append(lease)
    for name, due in by_database.items():
        revokers.begin(name, partial(_revoke_all, world, name, due))
    is_sealed = (await world.db.scan(seal.read_status)).is_sealed
    await world.get_singleton(DatabaseClient).close_idle(within_s=0 if is_sealed else IDLE_S)


async def _revoke_all(world: World, name: str, due: Sequence[Lease]) -> None:
    try:
        batches = [due[at : at + BATCH] for at in range(0, len(due), BATCH)]
        await asyncio.gather(*(_revoke_batch(world, name, batch) for batch in batches))
    except Exception:
        log.exception("revoking leases of the database %s failed", name)


async def _revoke_batch(world: World, name: str, due: Sequence[Lease]) -> None:
    """Remove the accounts of these leases in one transaction; if that fails, in one transaction for each account."""
    claimed = await world.writer.submit(lambda tx: leases.claim_leases(tx, due))
    if not claimed:
        return
    try:
        await _remove(world, name, claimed)
    except Refused as refusal:
        if isinstance(refusal, Unavailable) or len(claimed) == 1:
            await postpone(world, [(lease, refusal.message) for lease in claimed])
            return
    else:
        await act(world, "lease.revoke", partial(leases.end_leases, removed=claimed))
        return
    removed, failed = [], []
    for lease in claimed:
        try:
            await _remove(world, name, [lease])
            removed.append(lease)
        except Refused as refusal:
            failed.append((lease, refusal.message))
    if removed:
        await act(world, "lease.revoke", partial(leases.end_leases, removed=removed))
    await postpone(world, failed)


async def postpone(world: World, failed: Sequence[tuple[Lease, str]], *, action: str = "lease.stuck") -> None:
    """Schedule the next attempt of each failed removal. Write a ledger entry (`action`) for the leases that are stuck
    from now on.
    """
    if not failed:
        return
    await world.writer.submit(lambda tx: leases.postpone_leases(tx, failed))
    stuck = [lease for lease, _ in failed if lease.attempts + 1 == STUCK_ATTEMPTS]
    if stuck:
        await act(world, action, partial(leases.tell_stuck, stuck=stuck, why=failed[0][1]))


async def _remove(world: World, name: str, doomed: Sequence[Lease]) -> None:
    """Remove accounts from their database; an account that does not exist counts as removed. Raises Refused if the
    database refuses a statement or cannot be reached.

    A first commit refuses logins of the accounts, so no session can begin after the search for sessions.
    """
    ours = [lease.username for lease in doomed if not lease.statements.revocation]
    usernames = [lease.username for lease in doomed]
    stored = databases.find_connection(world.db.read(), name)
    accounts = statements_of(stored.config)

    def disable(raw: Any) -> None:
        accounts.lock(raw, usernames)
        accounts.disable(raw, ours)

    def remove(raw: Any) -> None:
        accounts.lock(raw, usernames, is_alone=True)
        if ours:
            accounts.remove(raw, ours)
        for lease in doomed:
            if lease.statements.revocation:
                accounts.revoke_by_statements(raw, lease, stored.config)

    if ours:
        await _at_database(world, name, disable, tries=TRIES)
    await _at_database(world, name, remove, tries=TRIES)


# --- rotation


async def rotate_due(world: World) -> None:
    """Change the passwords of at most `ROTATED_AT_ONCE` static roles whose rotation is due. If a rotation fails, the
    present password stays valid.
    """
    now = world.now()
    for name in await world.db.scan(lambda reader: store.databases.due_statics(reader, now=now, limit=ROTATED_AT_ONCE)):
        until = now + TAKEOVER_S * SECOND
        if not await world.writer.submit(
            lambda tx, name=name, until=until: store.databases.claim_static(tx, name, until=until)  # type: ignore[misc]
        ):
            continue
        try:
            await act(world, "lease.begin_rotation", partial(databases.begin_rotation, name=name))
            await _rotate(world, name)
        except Refused as refusal:
            log.warning("the password of the static role %s was not rotated: %s", name, refusal.message)


async def _rotate(world: World, name: str, *, request: str | None = None) -> None:
    role, password = databases.pending_static(world.db.read(), name, keys=world.keys)
    stored = databases.find_connection(world.db.read(), role.database)
    accounts, loop = statements_of(stored.config), asyncio.get_running_loop()

    async def check() -> None:
        databases.check_pending_static(world.db.read(), name, password, keys=world.keys)

    def rotate(raw: Any) -> None:
        # so that an earlier rotation cannot set its password after a later rotation
        accounts.lock(raw, [role.username])
        asyncio.run_coroutine_threadsafe(check(), loop).result(CREATE_S)
        if not accounts.has_account(raw, role.username):
            raise Invalid(f"the database has no user {role.username!a}", hint="create the user first", code="no_user")
        accounts.execute(raw, role.rotation or accounts.ROTATE, stored.config, role.username, password)

    try:
        await _at_database(world, role.database, rotate, hidden=password)
    except Conflict:  # another rotation has replaced the pending password
        raise
    except Refused as refusal:
        fail = partial(databases.fail_rotation, name=name, why=refusal.message)
        await act(world, "lease.rotate_fail", fail, request=request)
        raise
    end = partial(databases.end_rotation, name=name, password=password)
    await act(world, "lease.rotate", end, request=request)


async def _rotate_root(world: World, name: str) -> str:
    """Change the password of a connection's user to the pending password, and return the new password. Raises Refused
    if the database refuses the change or cannot be reached.
    """
    config = databases.find_connection(world.db.read(), name).config
    password, accounts = databases.pending_root(world.db.read(), name, keys=world.keys), statements_of(config)
    loop = asyncio.get_running_loop()

    async def check() -> None:
        databases.check_pending_root(world.db.read(), name, password, keys=world.keys)

    def rotate(raw: Any) -> None:
        accounts.lock(raw, [config.username])
        asyncio.run_coroutine_threadsafe(check(), loop).result(CREATE_S)
        accounts.rotate_own(raw, config, password)

    await _at_database(world, name, rotate, hidden=password)
    # Statements that changed nothing would lock this server out: the new password must open a connection.
    await world.get_singleton(DatabaseClient).run(
        databases.target_of(config, password), accounts.verify, hidden=password
    )
    return password


# --- the admin API


class LeaseBody(TypedDict):
    """A lease. `attempts`: the number of failed attempts to remove the account; `error`: the error of the last one.
    Times are seconds since the epoch.
    """

    lease_id: str
    agent: str
    agent_name: str
    task: str
    database: str
    username: str
    state: str
    issued_at: int
    expires_at: int
    attempts: int
    error: str


class LeaseToRevoke(msgspec.Struct, forbid_unknown_fields=True):
    """A lease to revoke. `forget`: delete the lease even if its account may still exist at the database or AWS."""

    lease_id: str
    forget: bool = False


async def list_leases(call: Call) -> Reply:
    """List leases.

    `stuck=true` selects the ended leases whose account could not be removed after several attempts.
    """
    stuck = call.query_one("stuck")
    if stuck not in (None, "true", "false"):
        raise Invalid("`stuck` must be true or false")
    is_stuck = stuck == "true"

    def read(reader: Reader, page: Page) -> list[Lease]:
        return store.leases.page(reader, page, is_stuck=is_stuck)

    return await reply_page(call, "leases", read, _show, cursor=lambda lease: lease.lease_id)


async def revoke_lease(call: Call) -> Reply:
    """Revoke a lease: the removal of its account is due now, and is repeated until an attempt succeeds."""
    body = call.json(LeaseToRevoke)
    await act_as(
        call,
        "lease.end",
        lambda act: leases.revoke_lease(act, body.lease_id, is_forgotten=body.forget),
    )
    await revoke_due(call.world)
    return reply({})


def _show(reader: Reader, lease: Lease) -> LeaseBody:
    agent = registry.get_agent(reader, lease.agent)
    return {
        "lease_id": lease.lease_id,
        "agent": lease.agent,
        "agent_name": lease.agent if agent is None else agent.name,
        "task": lease.task,
        "database": lease.database,
        "username": lease.username,
        "state": lease.state.value,
        "issued_at": lease.issued_at // SECOND,
        "expires_at": lease.expires_at // SECOND,
        "attempts": lease.attempts,
        "error": lease.error,
    }


ROUTES = (
    Route(
        "GET",
        "/api/v1/leases",
        list_leases,
        READ,
        answers={200: PageBody("leases", LeaseBody)},
        query=(*PAGE, Query("stuck", "`true` lists ended leases whose account could not be removed yet.")),
    ),
    Route(
        "POST",
        "/api/v1/leases/revoke",
        revoke_lease,
        ADMIN,
        body=LeaseToRevoke,
        stops=True,
        answers={200: EmptyBody},
        errors=(NOT_FOUND,),
    ),
)
