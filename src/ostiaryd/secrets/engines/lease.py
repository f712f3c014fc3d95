"""Leases at `sys/leases` (HashiCorp Vault, "/sys/leases").

lookup, renew, revoke              of the caller's own leases; decided like the credentials that they are for
lookup/PREFIX (LIST)               ids of leases of all agents
revoke-prefix/PREFIX, revoke-force/PREFIX    leases of all agents

PREFIX is `database/creds`, or `database/creds/ROLE`. Policies see the last two lines as `list_secrets` and
`delete_secret` on the resource `sys/leases/PREFIX`.
"""

from __future__ import annotations

from functools import partial

from msgspec import Struct

from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets.flows import leases as flows
from ostiaryd.secrets.flows.databases import MOUNT
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.model.request import (
    SECOND,
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    check_path,
    parse_duration,
    render_time,
)
from ostiaryd.secrets.model.upstream import ExtendAccount, RevokeDue, RevokeRoles
from ostiaryd.secrets.store import leases as store

PREFIX = "sys/leases/"
MAX_LISTED = 10_000
MAX_ID = 200


class _LeaseBody(Struct):
    lease_id: str = ""
    increment: int | str | None = None


def find_operation(request: VaultRequest) -> tuple[str, Operation]:
    """Return the mount and the operation of a request below `sys/leases/`.

    Raises UnsupportedOperation, NothingStored, Malformed, Invalid.
    """
    kind, _, rest = check_path(request.path).removeprefix(PREFIX).partition("/")
    prefix = rest.removesuffix("/")
    if kind == "lookup" and request.method is VaultMethod.LIST:
        role = _role_of(prefix)
        return "sys", Operation(SecretAction.LIST, f"leases/{prefix}/", "list", partial(_list, role=role))
    if kind not in _OWN and kind not in ("revoke-prefix", "revoke-force"):
        raise NothingStored("no handler for route", code="no_route")
    if request.method is not VaultMethod.WRITE:
        raise UnsupportedOperation("unsupported operation")
    if kind in ("revoke-prefix", "revoke-force"):
        is_forced = kind == "revoke-force"
        run = partial(_revoke_all, role=_role_of(prefix), is_forced=is_forced)
        return "sys", Operation(SecretAction.DELETE, f"leases/{prefix}/", kind, run)
    body = request.read_body(_LeaseBody)
    lease_id = body.lease_id or rest
    mount, _, below = lease_id.partition("/")
    path, _, number = below.rpartition("/")
    if mount != MOUNT or not path.startswith("creds/") or not number or len(lease_id) > MAX_ID:
        raise Invalid("invalid lease", hint="`lease_id` comes with the credentials")
    check_path(lease_id)
    return MOUNT, Operation(SecretAction.READ, path, kind, partial(_OWN[kind], lease_id=lease_id, body=body))


def _role_of(prefix: str) -> str:
    """Return the role of a prefix; empty for all roles. Raises Invalid."""
    if prefix in (MOUNT, f"{MOUNT}/creds"):
        return ""
    mount, _, role = prefix.partition("/creds/")
    if mount != MOUNT or not role or "/" in role:
        raise Invalid("the prefix is not database/creds or database/creds/ROLE")
    return role


def _lookup(act: Act, lease_id: str, body: _LeaseBody) -> Answer:
    lease = flows.find_own(act, lease_id)
    return Answer(
        data={
            "expire_time": render_time(lease.expires_at),
            "id": lease.lease_id,
            "issue_time": render_time(lease.issued_at),
            "last_renewal": render_time(lease.renewed_at) or None,
            "renewable": act.now < lease.max_at,
            "ttl": (lease.expires_at - act.now) // SECOND,
        }
    )


def _renew(act: Act, lease_id: str, body: _LeaseBody) -> Answer:
    increment = None if body.increment in (None, "", 0) else parse_duration(body.increment, field="increment")
    return Answer(upstream=ExtendAccount(*flows.plan_renewal(act, lease_id, increment)))


def _revoke(act: Act, lease_id: str, body: _LeaseBody) -> Answer:
    flows.revoke_leases(act, [flows.find_own(act, lease_id)], why="revoked by its holder")
    return Answer(upstream=RevokeDue())


def _list(act: Act, role: str) -> Answer:
    act.entry.object = f"{PREFIX}{MOUNT}/creds/{role}"
    if role:
        names = [lease.lease_id.rpartition("/")[2] for lease in store.of_role(act.tx, role, limit=MAX_LISTED)]
    else:
        names = [f"{one}/" for one in store.roles(act.tx, limit=MAX_LISTED)]
    if not names:
        raise NothingStored("there is no lease")
    return Answer(data={"keys": names})


def _revoke_all(act: Act, role: str, is_forced: bool) -> Answer:
    act.entry.object = f"{PREFIX}{MOUNT}/creds/{role}"
    roles = [role] if role else store.roles(act.tx, limit=MAX_LISTED)
    return Answer(upstream=RevokeRoles(roles, is_forced))


_OWN = {"lookup": _lookup, "renew": _renew, "revoke": _revoke}
