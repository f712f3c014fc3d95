"""The table of authorities: their encrypted keys and their certificates."""

from __future__ import annotations

from functools import lru_cache

from ostiaryd.certs.model.authority import Authority, AuthorityId, AuthorityKind, AuthorityState
from ostiaryd.ground.database import Reader, Row, Tx, sql

_SELECT = """select authority_id, kind, state, parent, subject, key_type, certificate, cross_certificate,
    sealed, permitted, not_before, not_after, created_at, retired_at, active_from, revoked_at, reason,
    hsm_key from authority """
_IN_ORDER = "order by created_at, authority_id"
_ALL = sql(_SELECT + _IN_ORDER, steady=True)
_ACTIVE = sql(_SELECT + f"where kind = :kind and state = 'active' {_IN_ORDER} limit 1", steady=True)
_GET = sql(_SELECT + "where authority_id = :id", steady=True)
_ROOTS = sql(
    """select certificate from authority where kind = 'root'
       order by state <> 'active', created_at desc, authority_id""",
    steady=True,
)
_INSERT = sql(
    """insert into authority (authority_id, kind, state, parent, subject, key_type, certificate, cross_certificate,
        sealed, permitted, not_before, not_after, created_at, active_from, hsm_key)
       values (:authority_id, :kind, :state, :parent, :subject, :key_type, :certificate, :cross_certificate,
        :sealed, :permitted, :not_before, :not_after, :created_at, :active_from, :hsm_key)"""
)
_CERTIFY = sql(
    """update authority set certificate = :certificate, parent = :parent, permitted = :permitted,
        not_before = :not_before, not_after = :not_after where authority_id = :id"""
)
_STATE = sql("update authority set state = :state, retired_at = :retired_at where authority_id = :id")
_REVOKE = sql(
    "update authority set state = 'revoked', revoked_at = :revoked_at, reason = :reason where authority_id = :id"
)
_UNCROSS = sql("update authority set cross_certificate = null, parent = null where parent = :id and kind = 'root'")
_DELETE = sql("delete from authority where authority_id = :id")


def insert(tx: Tx, authority: Authority) -> None:
    """Insert an authority."""
    tx.touch("authority", authority.authority_id)
    tx.run(
        _INSERT,
        authority_id=authority.authority_id,
        kind=authority.kind,
        state=authority.state,
        parent=authority.parent,
        subject=authority.subject,
        key_type=authority.key_type,
        certificate=authority.certificate,
        cross_certificate=authority.cross_certificate,
        sealed=authority.sealed,
        permitted=" ".join(authority.permitted),
        not_before=authority.not_before,
        not_after=authority.not_after,
        created_at=authority.created_at,
        active_from=authority.active_from,
        hsm_key=authority.hsm_key,
    )


def get(reader: Reader, id: str) -> Authority | None:
    """Return an authority by its id; None if there is none."""
    return reader.one_as(_GET, _authority, id=id)


def active(reader: Reader, kind: AuthorityKind) -> Authority | None:
    """Return the active authority of a kind; None if there is none."""
    return reader.one_as(_ACTIVE, _authority, kind=kind.value)


def authorities(reader: Reader) -> list[Authority]:
    """Return all authorities, the oldest first."""
    return [_authority(row) for row in reader.all(_ALL)]


def trust_bundle(reader: Reader) -> tuple[bytes, ...]:
    """Return the certificates in DER of all roots that clients must trust, the active root first, then the newest."""
    return tuple([bytes(der) for (der,) in reader.all(_ROOTS)])


def certify(tx: Tx, authority: Authority) -> None:
    """Store the certificate, the parent, the permitted names and the validity of an authority that was pending."""
    tx.touch("authority", authority.authority_id)
    tx.run(
        _CERTIFY,
        id=authority.authority_id,
        certificate=authority.certificate,
        parent=authority.parent,
        permitted=" ".join(authority.permitted),
        not_before=authority.not_before,
        not_after=authority.not_after,
    )


def set_state(tx: Tx, id: AuthorityId, state: AuthorityState) -> None:
    """Change the state of an authority."""
    tx.touch("authority", id)
    tx.run(_STATE, id=id, state=state, retired_at=tx.now if state is AuthorityState.RETIRED else None)


def revoke(tx: Tx, id: AuthorityId, *, reason: str) -> None:
    """Mark an authority as revoked."""
    tx.touch("authority", id)
    tx.run(_REVOKE, id=id, revoked_at=tx.now, reason=reason)


def delete(tx: Tx, id: AuthorityId) -> None:
    """Delete an authority, and the cross-certificate that the authority signed for the next root."""
    for one in authorities(tx):
        if one.kind is AuthorityKind.ROOT and one.parent == id:
            tx.touch("authority", one.authority_id)
    tx.touch("authority", id)
    tx.run(_UNCROSS, id=id)
    tx.run(_DELETE, id=id)


@lru_cache(maxsize=256)
def _authority(row: Row) -> Authority:
    id, kind, state, parent, subject, key_type, certificate, cross, sealed, permitted, *times = row
    not_before, not_after, created_at, retired_at, active_from, revoked_at, reason, hsm_key = times
    return Authority(
        authority_id=id,
        kind=AuthorityKind(kind),
        state=AuthorityState(state),
        parent=parent,
        subject=subject,
        key_type=key_type,
        certificate=bytes(certificate),
        cross_certificate=None if cross is None else bytes(cross),
        sealed=None if sealed is None else bytes(sealed),
        permitted=tuple(permitted.split()),
        not_before=not_before,
        not_after=not_after,
        created_at=created_at,
        retired_at=retired_at,
        active_from=active_from,
        revoked_at=revoked_at,
        reason=reason or "",
        hsm_key=hsm_key,
    )
