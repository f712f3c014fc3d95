"""The table of leases, and of the requests to other systems that are due for each.

The column `role` contains `MOUNT/ROLE`, such as `aws/reader`; for leases of databases, it contains only the role.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.secrets.model.connected_account import OAUTH_MOUNT
from ostiaryd.secrets.model.database import DATABASE_MOUNT
from ostiaryd.secrets.model.lease import STUCK_ATTEMPTS, Lease, LeaseState, LeaseStatements

_COLUMNS = ", ".join(Lease.__struct_fields__)
_GET = sql(f"select {_COLUMNS} from lease where lease_id = :id")
_INSERT = sql(f"insert into lease ({_COLUMNS}) values ({', '.join(f':{name}' for name in Lease.__struct_fields__)})")
_DELETE = sql("delete from lease where lease_id = :id")
_DELETE_TOKEN = sql("delete from account_token where lease_id = :id")
_CONFIRM = sql("update lease set state = 'live' where lease_id = :id and state = 'creating'")
_CONFIRM_UNTIL = sql(
    """update lease set state = 'live', expires_at = :expires_at, max_at = :expires_at
       where lease_id = :id and state = 'creating'"""
)
_RENEW = sql("update lease set expires_at = :expires_at, renewed_at = :now where lease_id = :id and state = 'live'")
_REVOKE = sql(
    """update lease set state = 'revoking', due_at = :now, attempts = 0
       where lease_id = :id and state <> 'revoking'"""
)
_POSTPONE = sql("update lease set attempts = :attempts, due_at = :due_at, error = :error where lease_id = :id")
_EXPIRED = sql(
    "select lease_id from lease where state = 'live' and expires_at <= :now order by expires_at limit :limit"
)
_ENDED = sql(
    """select lease_id from holding cross join lease
       where lease.holding = holding.id and holding.kind = 'lease' and holding.ended_at is not null
       and holding.ended_at >= :since and lease.state = 'live' limit :limit"""
)
_DUE = sql(
    f"""select {_COLUMNS} from lease where state <> 'live' and due_at <= :now and lease_id like :pattern
        order by due_at limit :limit"""
)
_CLAIM = sql(
    """update lease set state = 'revoking', due_at = :until
       where lease_id = :id and state <> 'live' and due_at <= :now"""
)
_RETRY = sql("update lease set due_at = :now where lease_id = :id and state = 'revoking'")
_OF_ROLE = sql(f"select {_COLUMNS} from lease where role = :role and lease_id > :after order by lease_id limit :limit")
_ROLES = sql("select distinct role from lease where lease_id like :pattern order by role limit :limit")
_STUCK = sql(
    f"""select {_COLUMNS} from lease where state <> 'live' and state = 'revoking' and attempts >= :attempts
        and lease_id > :after
        order by lease_id limit :limit"""
)
_PAGE = sql(f"select {_COLUMNS} from lease where lease_id > :after order by lease_id limit :limit")
_LIST_OF_AGENT = sql(
    f"select {_COLUMNS} from lease where agent = :agent and lease_id > :after order by lease_id limit :limit"
)
_OF_AGENT = sql("select count(*) from (select 1 as one from lease where agent = :agent limit :limit) as counted")
_OF_DATABASE = sql(
    """select count(*) from (select 1 as one from lease where database = :name and lease_id like :pattern limit 1)
       as counted"""
)
_decode_statements = json_decoder(LeaseStatements)


def get(reader: Reader, lease_id: str) -> Lease | None:
    """Return the lease with this id; None if there is none."""
    return reader.one_as(_GET, _lease, id=lease_id)


def insert(tx: Tx, lease: Lease) -> None:
    """Insert a lease with a new id."""
    values = {
        **msgspec.structs.asdict(lease),
        "role": _stored_role(lease.mount, lease.role),
        "statements": msgspec.json.encode(lease.statements).decode(),
    }
    tx.run(_INSERT, **values)


def delete(tx: Tx, lease: Lease) -> None:
    """Delete a lease whose account is removed, or whose access token is no longer usable."""
    tx.run(_DELETE, id=lease.lease_id)
    if lease.mount == OAUTH_MOUNT:
        tx.run(_DELETE_TOKEN, id=lease.lease_id)


def confirm(tx: Tx, lease_id: str) -> bool:
    """Mark a lease as live. Return False if the lease is not in the state `creating`."""
    return tx.run(_CONFIRM, id=lease_id) == 1


def confirm_until(tx: Tx, lease_id: str, *, expires_at: int) -> bool:
    """Mark a lease as live until `expires_at` (microseconds), which also becomes its maximum end. Return False if the
    lease is not in the state `creating`.
    """
    return tx.run(_CONFIRM_UNTIL, id=lease_id, expires_at=expires_at) == 1


def renew(tx: Tx, lease_id: str, *, expires_at: int) -> bool:
    """Set the end (microseconds) of a live lease, and record the renewal. Return False if the lease is not live."""
    return tx.run(_RENEW, id=lease_id, expires_at=expires_at, now=tx.now) == 1


def revoke(tx: Tx, lease_id: str) -> bool:
    """Schedule the removal of a lease's account. Return False if the removal is scheduled already, or the lease is
    unknown.
    """
    return tx.run(_REVOKE, id=lease_id, now=tx.now) == 1


def claim(tx: Tx, lease_id: str, *, until: int) -> bool:
    """Claim the due removal of a lease's account for this process until `until` (microseconds); a lease whose creation
    was not confirmed in time becomes `revoking`. Return False if no removal is due, or another process has the claim.
    """
    return tx.run(_CLAIM, id=lease_id, now=tx.now, until=until) == 1


def retry(tx: Tx, lease_id: str) -> None:
    """Make the next attempt to remove the account of a lease due now. Do nothing if the removal is not scheduled."""
    tx.run(_RETRY, id=lease_id, now=tx.now)


def postpone(tx: Tx, lease_id: str, *, attempts: int, due_at: int, error: str) -> None:
    """Record the error of a failed attempt, the number of attempts, and the time (`due_at`, microseconds) of the next
    attempt.
    """
    tx.run(_POSTPONE, id=lease_id, attempts=attempts, due_at=due_at, error=error)


def ended(reader: Reader, *, since: int, now: int, limit: int) -> list[str]:
    """Return the ids of live leases: at most `limit` that have expired, then at most `limit` whose holding has ended
    since `since` (microseconds). An id can occur twice.
    """
    expired = [str(id) for (id,) in reader.all(_EXPIRED, now=now, limit=limit)]
    return expired + [str(id) for (id,) in reader.all(_ENDED, since=since, limit=limit)]


def due(reader: Reader, mount: str, *, now: int, limit: int) -> list[Lease]:
    """Return at most `limit` leases of a mount whose account must be removed now, or whose account's creation was not
    confirmed in time.
    """
    return [_lease(row) for row in reader.all(_DUE, pattern=f"{mount}/%", now=now, limit=limit)]


def of_role(reader: Reader, mount: str, role: str, *, after: str = "", limit: int) -> list[Lease]:
    """Return at most `limit` leases of a role with ids after `after`, sorted by id."""
    return [_lease(row) for row in reader.all(_OF_ROLE, role=_stored_role(mount, role), after=after, limit=limit)]


def roles(reader: Reader, mount: str, *, limit: int) -> list[str]:
    """Return at most `limit` names of roles of a mount that have leases."""
    return [str(role).rpartition("/")[2] for (role,) in reader.all(_ROLES, pattern=f"{mount}/%", limit=limit)]


def page(reader: Reader, page: Page, *, is_stuck: bool) -> list[Lease]:
    """Return a page of all leases; with `is_stuck`, of the leases whose account could not be removed after several
    attempts.
    """
    if is_stuck:
        return [_lease(row) for row in reader.all(_STUCK, attempts=STUCK_ATTEMPTS, after=page.after, limit=page.limit)]
    return [_lease(row) for row in reader.all(_PAGE, after=page.after, limit=page.limit)]


def count_of_agent(reader: Reader, agent: str, *, limit: int) -> int:
    """Return the number of leases of an agent, counted up to `limit`."""
    return _number(reader.one(_OF_AGENT, agent=agent, limit=limit))


def list_leases_of_agent(reader: Reader, agent: str, *, after: str = "", limit: int) -> list[Lease]:
    """Return at most `limit` leases of an agent with ids after `after`, sorted by id, including leases that are
    being created or revoked.
    """
    return [_lease(row) for row in reader.all(_LIST_OF_AGENT, agent=agent, after=after, limit=limit)]


def has_any(reader: Reader, database: str) -> bool:
    """Return whether a database connection has leases. Leases of access tokens are not counted, although a provider may
    have the same name.
    """
    return _number(reader.one(_OF_DATABASE, name=database, pattern=f"{DATABASE_MOUNT}/%")) > 0


def _stored_role(mount: str, role: str) -> str:
    return role if mount == DATABASE_MOUNT else f"{mount}/{role}"


def _number(row: Sequence[object] | None) -> int:
    assert row is not None  # a count has a row
    return int(str(row[0]))


def _lease(row: Row) -> Lease:
    values = dict(zip(Lease.__struct_fields__, row, strict=True))
    values["role"] = str(values["role"]).rpartition("/")[2]
    values["state"] = LeaseState(values["state"])
    values["statements"] = _decode_statements(values["statements"])
    return Lease(**values)
