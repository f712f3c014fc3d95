"""Leases of credentials. Each lease is a holding of its agent, so it ends with the agent, the task, the key, the owner,
and the Vault token of its login.

`wire_leases` (databases) and `wire_aws_accounts` (AWS) create and remove the account at the other system. The functions
of this module store the intention before that, and the result afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Holding, HoldingId, Root
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.databases import check_permitted, find_connection
from ostiaryd.secrets.model.database import DATABASE_MOUNT, SERVERS, make_account, make_password
from ostiaryd.secrets.model.lease import (
    KIND,
    MAX_ERROR,
    TAKEOVER_S,
    Lease,
    LeaseState,
    LeaseStatements,
    choose_end,
    next_try,
)
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.token import TOKEN_KIND
from ostiaryd.secrets.model.upstream import CreateAccount

MAX_LEASES = 10_000
"""Maximum number of leases of one agent."""
REVOKED_AT_ONCE = 200
"""Maximum number of leases that one transaction revokes, so that others wait only for milliseconds."""
NAMED = 100
"""Maximum number of leases whose ids a ledger entry names."""


class RenewedMeanwhile(Conflict):
    """Another renewal extended the lease at the same time, so the account at the database may have the end of either
    renewal.

    `present` is the lease as the other renewal left it.
    """

    code = "renewed_meanwhile"

    def __init__(self, present: Lease) -> None:
        super().__init__("another renewal of the lease was in progress", hint="renew the lease again")
        self.present = present


def begin_lease(act: Act, role_name: str) -> CreateAccount:
    """Store the lease of new database credentials for the caller that the act's ledger entry names; return the account
    that the server must create at the database after the transaction.

    Raises Invalid for an unknown role, and for a role that its connection does not allow; Conflict for too many leases.
    """
    act.check_granting()
    role = store.databases.role(act.tx, role_name)
    if role is None:
        raise Invalid(f"unknown role: {role_name}", code="no_role")
    stored = find_connection(act.tx, role.database)
    check_permitted(stored, role_name)
    agent = act.entry.agent
    assert agent is not None  # the caller was authenticated in this act
    lease = add_lease(
        act,
        DATABASE_MOUNT,
        database=role.database,
        role=role_name,
        username=make_account(
            registry.find_agent(act.tx, agent).name,
            role_name,
            longest=SERVERS[stored.config.kind].max_account,
            now=act.now,
            random=act.tx.random,
        ),
        statements=LeaseStatements(revocation=role.revocation, renewal=role.renewal),
        default_ttl=role.default_ttl,
        max_ttl=role.max_ttl,
    )
    registry.fill_entry(
        act, object=f"{DATABASE_MOUNT}/creds/{role_name}", lease=lease.lease_id, username=lease.username
    )
    return CreateAccount(lease, make_password(act.tx.random), role.creation)


def add_lease(
    act: Act,
    mount: str,
    *,
    database: str,
    role: str,
    username: str,
    statements: LeaseStatements,
    default_ttl: int,
    max_ttl: int,
) -> Lease:
    """Store a lease for the caller that the act's ledger entry names, and its holding, with which the lease ends when
    the agent or the task is stopped; return the lease.

    `default_ttl`, `max_ttl`: microseconds. If the caller uses a Vault token, the lease ends at the latest with this
    token. Raises Conflict for too many leases.
    """
    agent, task, token = act.entry.agent, act.entry.task, act.entry.token
    assert agent is not None  # the caller was authenticated in this act
    assert task is not None
    assert token is not None
    if store.leases.count_of_agent(act.tx, agent, limit=MAX_LEASES) >= MAX_LEASES:
        raise Conflict(
            f"the agent has {MAX_LEASES} leases, which is the limit",
            hint="revoke leases that are not needed",
            code="too_many_leases",
        )
    login = registry.get_holding(act.tx, token)
    assert login is not None
    has_token = login.kind == TOKEN_KIND
    max_at = min(act.now + max_ttl, login.expires_at) if has_token else act.now + max_ttl
    lease = Lease(
        lease_id=f"{mount}/creds/{role}/{act.tx.random(16).hex()}",
        holding=act.new_id("le"),
        agent=agent,
        task=task,
        database=database,
        role=role,
        username=username,
        statements=statements,
        state=LeaseState.CREATING,
        issued_at=act.now,
        renewed_at=None,
        expires_at=min(act.now + default_ttl, max_at),
        max_at=max_at,
        due_at=act.now + TAKEOVER_S * SECOND,
    )
    registry.add_holding(
        act,
        Holding(
            id=HoldingId(lease.holding),
            kind=KIND,
            agent=AgentId(agent),
            task=task,
            parent=login.id if has_token else None,
            client_jkt=login.client_jkt or login.jkt,
            expires_at=max_at,
        ),
    )
    store.leases.insert(act.tx, lease)
    return lease


def check_creating(present: Lease | None) -> None:
    """Check that the account of a lease is still to be created: `present`, the stored lease, is in the state
    `creating`. Raises Conflict otherwise, and for None (the lease was deleted).
    """
    if present is None or present.state is not LeaseState.CREATING:
        raise Conflict(
            "the lease ended while its account was created", hint="request new credentials", code="lease_ended"
        )


def confirm_lease(act: Act, lease: Lease) -> None:
    """Mark a lease as live after its account was created. Raises Conflict if the lease has ended meanwhile, and
    Forbidden if its agent or task was stopped.
    """
    _note_lease(act, lease)
    holding = registry.get_holding(act.tx, lease.holding)
    if holding is None or not holding.is_live(act.now) or not store.leases.confirm(act.tx, lease.lease_id):
        raise Conflict(
            "the lease ended while its account was created", hint="request new credentials", code="lease_ended"
        )
    registry.check_holder(act.tx, lease.holding, now=act.now)


def abandon_lease(act: Act, lease: Lease, why: str) -> None:
    """End a lease whose account may have been created or not, because of the error `why`, and schedule the removal of
    the account.
    """
    _note_lease(act, lease)
    registry.fill_entry(act, object=lease.lease_id, why=why[:MAX_ERROR])
    store.leases.revoke(act.tx, lease.lease_id)
    _end_holding(act, lease, why="the account of the lease was not created")


def find_own(act: Act, lease_id: str) -> Lease:
    """Return a live lease of the caller that the act's ledger entry names. Raises Invalid if the lease is unknown or
    ended, or belongs to another agent.
    """
    act.entry.object = lease_id[:200]
    lease = store.leases.get(act.tx, lease_id)
    if lease is None or lease.agent != act.entry.agent or not _is_live(act, lease):
        raise Invalid("invalid lease", hint="the lease is unknown, has ended, or belongs to another agent")
    return lease


def has_ended(act: Act, lease_id: str) -> bool:
    """Return whether a lease of the caller that the act's ledger entry names is not live any more; False for an unknown
    lease, and for a lease of another agent.
    """
    lease = store.leases.get(act.tx, lease_id)
    return lease is not None and lease.agent == act.entry.agent and not _is_live(act, lease)


def _is_live(act: Act, lease: Lease) -> bool:
    holding = registry.get_holding(act.tx, lease.holding)
    is_in_time = lease.state is LeaseState.LIVE and act.now < lease.expires_at
    return is_in_time and holding is not None and holding.is_live(act.now)


def plan_renewal(act: Act, lease_id: str, increment_us: int | None) -> tuple[Lease, int]:
    """Return a lease of the caller, and the end (microseconds) that the lease would get if it were renewed now by
    `increment_us` (microseconds). None or 0 stands for the duration that the last renewal, or the issue, gave the
    lease. Raises Invalid if the lease is unknown, has ended, belongs to another agent or has reached its maximum
    lifetime, or if its role has been deleted.
    """
    act.check_granting()
    lease = find_own(act, lease_id)
    if (max_end := find_max_end(act.tx, lease)) is None:
        raise Invalid("the role of the lease has been deleted", hint="request credentials of another role")
    lease = replace(lease, max_at=max_end)
    default = lease.expires_at - (lease.renewed_at or lease.issued_at)
    return lease, choose_end(lease, increment_us, default_ttl=default, now=act.now)


def find_max_end(reader: Reader, lease: Lease) -> int | None:
    """Return the latest end (microseconds) that a renewal can give a lease now. For a database lease, the present
    maximum lifetime of its role counts, even if it was lowered after the issue; None if the role has been deleted.
    """
    if lease.mount != DATABASE_MOUNT:
        return lease.max_at
    role = store.databases.role(reader, lease.role)
    return None if role is None else min(lease.max_at, lease.issued_at + role.max_ttl)


def renew_lease(act: Act, lease: Lease, expires_at: int) -> Lease:
    """Store the new end (`expires_at`, microseconds) of a lease whose account was extended, and return the lease.
    Raises RenewedMeanwhile if another renewal has extended the lease since `lease` was read; Conflict if the lease has
    ended.
    """
    _note_lease(act, lease)
    present = store.leases.get(act.tx, lease.lease_id)
    if present is None or not _is_live(act, present):
        raise Conflict("the lease has ended meanwhile", hint="request new credentials", code="lease_ended")
    if present.renewed_at != lease.renewed_at:
        raise RenewedMeanwhile(present)
    store.leases.renew(act.tx, lease.lease_id, expires_at=expires_at)
    return replace(lease, expires_at=expires_at, renewed_at=act.now)


def revoke_leases(act: Act, leases: Iterable[Lease], *, why: str) -> None:
    """End leases because of `why`, and schedule the removal of their accounts."""
    for lease in leases:
        store.leases.revoke(act.tx, lease.lease_id)
        _end_holding(act, lease, why=why)


def revoke_lease(act: Act, lease_id: str, *, is_forgotten: bool = False) -> None:
    """End a lease by its id, and make the removal of its account due now, even if the next attempt was scheduled for
    later.

    `is_forgotten`: delete the lease even if its account may still exist. A lease whose account is being created is not
    deleted; the server then removes the account afterwards. Raises NotFound for an unknown lease.
    """
    act.entry.object = lease_id[:200]
    if (lease := store.leases.get(act.tx, lease_id)) is None:
        raise NotFound("lease not found", hint="list the leases with `ostiary lease list`")
    registry.fill_entry(act, object=lease_id, username=lease.username, database=lease.database, forgotten=is_forgotten)
    revoke_leases(act, [lease], why="revoked")
    store.leases.retry(act.tx, lease_id)
    if is_forgotten and lease.state is not LeaseState.CREATING:
        store.leases.delete(act.tx, lease)


def revoke_leases_of(act: Act, *, mount: str, role: str, after: str, is_forgotten: bool) -> str | None:
    """End at most `REVOKED_AT_ONCE` leases of a role, with ids after `after`. Return the last of these ids if more
    leases may follow; otherwise None.

    `is_forgotten`: delete the leases even if their accounts may still exist, except leases whose account is being
    created.
    """
    next_leases = store.leases.of_role(act.tx, mount, role, after=after, limit=REVOKED_AT_ONCE)
    registry.fill_entry(act, object=f"{mount}/creds/{role}", count=len(next_leases), forgotten=is_forgotten)
    revoke_leases(act, next_leases, why="revoked by prefix")
    for lease in next_leases if is_forgotten else ():
        if lease.state is not LeaseState.CREATING:
            store.leases.delete(act.tx, lease)
    return next_leases[-1].lease_id if len(next_leases) == REVOKED_AT_ONCE else None


def end_leases(act: Act, removed: Sequence[Lease]) -> None:
    """Delete leases whose accounts were removed at the database or at AWS. The leases must belong to one database, or
    all to AWS users.
    """
    registry.fill_entry(
        act,
        object=removed[0].config,
        count=len(removed),
        leases=[lease.lease_id for lease in removed[:NAMED]],
    )
    for lease in removed:
        store.leases.delete(act.tx, lease)
        _end_holding(act, lease, why="lease ended")


def tell_stuck(act: Act, stuck: Sequence[Lease], why: str) -> None:
    """Write into the act's ledger entry that the accounts of ended leases could not be removed because of `why`."""
    registry.fill_entry(
        act,
        object=stuck[0].config,
        count=len(stuck),
        why=why[:MAX_ERROR],
        leases=[lease.lease_id for lease in stuck[:NAMED]],
    )


def postpone_leases(tx: Tx, failed: Iterable[tuple[Lease, str]]) -> None:
    """Record the error of each failed removal, and schedule the next attempt."""
    for lease, why in failed:
        attempts = lease.attempts + 1
        due_at = next_try(attempts, now=tx.now)
        store.leases.postpone(tx, lease.lease_id, attempts=attempts, due_at=due_at, error=why[:MAX_ERROR])


def claim_leases(tx: Tx, due: Iterable[Lease]) -> list[Lease]:
    """Claim the removal of the accounts of leases for this process; return the leases that no other process has
    claimed.
    """
    return [lease for lease in due if store.leases.claim(tx, lease.lease_id, until=tx.now + TAKEOVER_S * SECOND)]


def mark_ended(tx: Tx, lease_ids: Iterable[str]) -> None:
    """Schedule the removal of the accounts of these leases. The leases have expired, or ended with their agent, task or
    token.
    """
    for lease_id in lease_ids:
        store.leases.revoke(tx, lease_id)


def _note_lease(act: Act, lease: Lease) -> None:
    act.entry.agent, act.entry.task = lease.agent, lease.task
    registry.fill_entry(act, object=lease.lease_id, username=lease.username)


def _end_holding(act: Act, lease: Lease, *, why: str) -> None:
    """End the holding of a lease. Guards get no message, because guards do not use leases."""
    holding = registry.get_holding(act.tx, lease.holding)
    if holding is not None and holding.is_live(act.now):
        registry.end_holdings(act, Root.HOLDING, lease.holding, why=why, stopped=frozenset({AgentId(lease.agent)}))
