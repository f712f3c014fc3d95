"""Leases at `sys/leases` (HashiCorp Vault, "/sys/leases").

lookup, renew, revoke              the caller's own leases; decided like a request for the credentials of the lease
lookup (LIST)                      the mounts that have leases; certificates are not among them
lookup/PREFIX (LIST)               ids of leases of all agents
revoke-prefix/PREFIX, revoke-force/PREFIX    leases of all agents

PREFIX is `database/creds` or `database/creds/ROLE`, the same for `aws` and `oauth`, or the beginning of lease ids of a
PKI mount, such as `pki/issue/ROLE`. In policies, the last two lines are the actions `list_secrets` and `delete_secret`
on the resource `sys/leases/PREFIX`.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from msgspec import Struct

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import account_tokens, leases, pki, pki_issuers
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.model.aws_account import AWS_MOUNT, SESSIONS
from ostiaryd.secrets.model.connected_account import OAUTH_MOUNT
from ostiaryd.secrets.model.database import DATABASE_MOUNT
from ostiaryd.secrets.model.lease import Lease
from ostiaryd.secrets.model.mount import prefixes
from ostiaryd.secrets.model.pki import PKI_TYPE
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

PREFIX = "sys/leases/"
OWN = frozenset(f"{PREFIX}{kind}" for kind in ("lookup", "renew", "revoke"))
"""The paths at which the body names a lease of the caller. Policies decide as for the credentials of the lease."""
MAX_LISTED = 10_000
MAX_ID = 200


class _LeaseBody(Struct):
    lease_id: str = ""
    increment: int | str | None = None


def find_operation(reader: Reader, request: VaultRequest) -> tuple[str, Operation]:
    """Return the mount and the operation by which policies decide about a request below `sys/leases/`. The mount is
    `sys` for a request about all leases below a path.

    Raises NothingStored for an unknown path, UnsupportedOperation for a method that the path does not support;
    Malformed for members of wrong types, Invalid for a lease id of another form.
    """
    kind, _, rest = check_path(request.path).removeprefix(PREFIX).partition("/")
    prefix = rest.removesuffix("/")
    is_of_pki = find_pki_mount(reader, prefix) is not None
    if kind == "lookup" and request.method is VaultMethod.LIST and not prefix:
        return "sys", Operation(SecretAction.LIST, "leases/", "list", _list_mounts)
    if kind == "lookup" and request.method is VaultMethod.LIST:
        run = partial(_list_certificates if is_of_pki else _list, prefix)
        return "sys", Operation(SecretAction.LIST, f"leases/{prefix}/", "list", run)
    if kind not in _OWN and kind not in ("revoke-prefix", "revoke-force"):
        raise NothingStored("no handler for route", code="no_route")
    if request.method is not VaultMethod.WRITE:
        raise UnsupportedOperation("unsupported operation")
    if kind in ("revoke-prefix", "revoke-force"):
        is_forced = kind == "revoke-force"
        run = partial(_revoke_certificates, prefix) if is_of_pki else partial(_revoke_all, prefix, is_forced=is_forced)
        return "sys", Operation(SecretAction.DELETE, f"leases/{prefix}/", kind, run)
    body = request.read_body(_LeaseBody)
    lease_id = body.lease_id or rest
    if kind in _ON_CERTIFICATE and (own := find_pki_mount(reader, lease_id)) is not None:
        run = partial(_ON_CERTIFICATE[kind], lease_id=check_path(lease_id))
        return own, Operation(SecretAction.USE, lease_id[len(own) + 1 :].rpartition("/")[0], kind, run)
    mount, _, below = lease_id.partition("/")
    path, _, number = below.rpartition("/")
    if mount not in _MOUNTS and lease_id:  # decided like a lease of a PKI mount, so the refusal tells of no mount
        check_path(lease_id)
        return mount, Operation(SecretAction.USE, path, kind, _refuse_id)
    if not path.startswith("creds/") or not number or len(lease_id) > MAX_ID:
        raise _wrong_id()
    check_path(lease_id)
    run = partial(_OWN[kind], lease_id=lease_id, body=body)
    if mount != OAUTH_MOUNT:
        return mount, Operation(SecretAction.READ, path, kind, run)
    find_scopes = partial(account_tokens.find_scopes_of_lease, lease_id=lease_id)
    return mount, Operation(SecretAction.TOKEN, path, kind, run, find_scopes)


def _wrong_id() -> Invalid:
    return Invalid("invalid lease", hint="send the `lease_id` that came with the credentials")


def _refuse_id(act: Act) -> Answer:
    raise _wrong_id()


class _Prefix(NamedTuple):
    """A prefix of lease ids: the leases of a mount, or the leases of one role of the mount (`role` is not empty)."""

    mount: str
    role: str

    def roles(self, act: Act) -> list[str]:
        """Return the names of the roles whose leases have this prefix."""
        return [self.role] if self.role else store.leases.roles(act.tx, self.mount, limit=MAX_LISTED)


_MOUNTS = (DATABASE_MOUNT, OAUTH_MOUNT, AWS_MOUNT)
"""The mounts whose leases can be listed. The certificates of a PKI mount have leases too: `find_pki_mount` finds the
mount of a lease id or a prefix. Such a mount is not in the list of the mounts that have leases.
"""


def _parse_prefix(prefix: str) -> _Prefix:
    mount, _, rest = prefix.partition("/")
    creds, _, role = rest.partition("/")
    if mount not in _MOUNTS or (rest and creds != "creds") or "/" in role:
        words = "the prefix must be MOUNT, MOUNT/creds or MOUNT/creds/ROLE"
        raise Invalid(words, hint=f"the mounts are {', '.join(_MOUNTS)}; for a revocation also each PKI mount")
    return _Prefix(mount, role)


def _lookup(act: Act, lease_id: str, body: _LeaseBody) -> Answer:
    lease = leases.find_own(act, lease_id)
    max_end = leases.find_max_end(act.tx, lease)
    return Answer(
        data={
            "expire_time": render_time(lease.expires_at),
            "id": lease.lease_id,
            "issue_time": render_time(lease.issued_at),
            "last_renewal": render_time(lease.renewed_at) or None,
            "renewable": _is_renewable(lease) and max_end is not None and act.now < max_end,
            "ttl": (lease.expires_at - act.now) // SECOND,
        }
    )


def _renew(act: Act, lease_id: str, body: _LeaseBody) -> Answer:
    increment = None if body.increment in (None, "", 0) else parse_duration(body.increment, field="increment")
    lease, expires_at = leases.plan_renewal(act, lease_id, increment)
    if not _is_renewable(lease):
        raise Invalid("access tokens and AWS sessions cannot be renewed", hint="request new credentials")
    if lease.mount == DATABASE_MOUNT:
        return Answer(upstream=ExtendAccount(lease, expires_at))
    renewed = leases.renew_lease(act, lease, expires_at)
    return Answer(lease_id=lease_id, lease_s=(renewed.expires_at - act.now) // SECOND, is_renewable=True)


def _is_renewable(lease: Lease) -> bool:
    """Return whether a lease can be extended. Access tokens and AWS sessions cannot: their end is fixed at
    their issue.
    """
    return lease.mount != OAUTH_MOUNT and lease.database != SESSIONS


def _revoke(act: Act, lease_id: str, body: _LeaseBody) -> Answer:
    if leases.has_ended(act, lease_id):
        act.entry.object = lease_id
        return Answer(status=204)
    leases.revoke_leases(act, [leases.find_own(act, lease_id)], why="revoked by its holder")
    return Answer(upstream=RevokeDue())


def _list_mounts(act: Act) -> Answer:
    act.entry.object = PREFIX
    names = [f"{mount}/" for mount in sorted(_MOUNTS) if store.leases.roles(act.tx, mount, limit=1)]
    if not names:
        raise NothingStored("there is no lease")
    return Answer(data={"keys": names})


def _list(unparsed: str, act: Act) -> Answer:
    prefix = _parse_prefix(unparsed)
    act.entry.object = f"{PREFIX}{prefix.mount}/creds/{prefix.role}"
    if prefix.role:
        role_leases = store.leases.of_role(act.tx, prefix.mount, prefix.role, limit=MAX_LISTED)
        names = [lease.lease_id.rpartition("/")[2] for lease in role_leases]
    else:
        names = [f"{role}/" for role in prefix.roles(act)]
    if not names:
        raise NothingStored("there is no lease")
    return Answer(data={"keys": names})


def _revoke_all(unparsed: str, act: Act, *, is_forced: bool) -> Answer:
    prefix = _parse_prefix(unparsed)
    act.entry.object = f"{PREFIX}{prefix.mount}/creds/{prefix.role}"
    return Answer(upstream=RevokeRoles(prefix.mount, prefix.roles(act), is_forced))


def find_pki_mount(reader: Reader, lease_path: str) -> str | None:
    """Return the path of the PKI mount to which `lease_path`, a lease id or a prefix of lease ids, belongs; None if it
    belongs to no PKI mount.
    """
    mount = store.mounts.find(reader, prefixes(lease_path))
    return mount.path if mount is not None and mount.type == PKI_TYPE else None


def _lookup_certificate(act: Act, lease_id: str) -> Answer:
    certificate = pki.find_own_lease(act, lease_id)
    return Answer(
        data={
            "expire_time": render_time(certificate.not_after),
            "id": lease_id,
            "issue_time": render_time(certificate.issued_at),
            "last_renewal": None,
            "renewable": False,
            "ttl": (certificate.not_after - act.now) // SECOND,
        }
    )


def _renew_certificate(act: Act, lease_id: str) -> Answer:
    pki.find_own_lease(act, lease_id)
    raise Invalid("lease is not renewable", hint="request another certificate")


def _revoke_certificate(act: Act, lease_id: str) -> Answer:
    pki_issuers.end_certificate(act, pki.find_own_lease(act, lease_id))
    return Answer(status=204)


def _list_certificates(prefix: str, act: Act) -> Answer:
    lease_ids = [one.lease or "" for one in pki.list_leases(act.tx, prefix, now=act.now)]
    below = [one.removeprefix(f"{prefix}/").partition("/") for one in lease_ids]
    if not below:
        raise NothingStored("there is no lease")
    return Answer(data={"keys": list(dict.fromkeys(f"{name}{slash}" for name, slash, _ in below))})


def _revoke_certificates(prefix: str, act: Act) -> Answer:
    """Revoke the certificates whose lease ids are below the path `prefix`, or the certificate with the lease id
    `prefix`.
    """
    pki.revoke_leases(act, prefix)
    return Answer(status=204)


_ON_CERTIFICATE = {"lookup": _lookup_certificate, "renew": _renew_certificate, "revoke": _revoke_certificate}
_OWN = {"lookup": _lookup, "renew": _renew, "revoke": _revoke}
