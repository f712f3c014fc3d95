"""The tables of the certificate authorities of mounts: issuers with their encrypted keys, roles, settings, and
certificates.

A certificate of an agent ends with its holding. A certificate of an issuer has no holding and ends by its own
revocation.
"""

from __future__ import annotations

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.secrets.model.pki import HOLDING, PkiCertificate, PkiIssuer, PkiRole, PkiSettings
from ostiaryd.secrets.model.sealing import Envelope

KEPT = 86_400 * 1_000_000
"""Microseconds for which a certificate stays stored after its expiry: as long as its holding."""
_ISSUER = """select issuer_id, mount, name, key_type, key_digest, certificate, sealed is not null, created_at,
    revoked_at from pki_issuer """
_ISSUERS = sql(_ISSUER + "where mount = :mount order by created_at, issuer_id")
_GET_ISSUER = sql(_ISSUER + "where issuer_id = :id")
_KEY = sql("select wrapped_key, sealed from pki_issuer where issuer_id = :id and sealed is not null")
_INSERT_ISSUER = sql(
    """insert into pki_issuer (issuer_id, mount, name, key_type, key_digest, certificate, wrapped_key, sealed,
        created_at)
       values (:issuer_id, :mount, :name, :key_type, :key_digest, :certificate, :wrapped_key, :sealed, :created_at)"""
)
_UPDATE_ISSUER = sql(
    """update pki_issuer set name = :name, certificate = :certificate, revoked_at = :revoked_at
       where issuer_id = :issuer_id"""
)
_PUT_KEY = sql("update pki_issuer set wrapped_key = :wrapped_key, sealed = :sealed where issuer_id = :id")
_DELETE_ISSUER = sql("delete from pki_issuer where issuer_id = :id")
_ROLE = sql("select settings from pki_role where mount = :mount and name = :name")
_ROLES = sql("select name from pki_role where mount = :mount order by name limit :limit")
_PUT_ROLE = sql(
    """insert into pki_role (mount, name, settings) values (:mount, :name, :settings)
       on conflict (mount, name) do update set settings = excluded.settings"""
)
_DELETE_ROLE = sql("delete from pki_role where mount = :mount and name = :name")
_SETTINGS = sql("select settings from pki_settings where mount = :mount")
_PUT_SETTINGS = sql(
    """insert into pki_settings (mount, settings) values (:mount, :settings)
       on conflict (mount) do update set settings = excluded.settings"""
)
_ENDED = "coalesce(revoked_at, ended_at)"
_FROM = "from pki_certificate left join holding on holding.id = 'mc_' || serial "
_CERTIFICATE = f"""select serial, mount, issuer, lease, pki_certificate.agent, pki_certificate.task, der, not_after,
    issued_at, {_ENDED}, ended_why {_FROM}"""
_GET = sql(_CERTIFICATE + "where serial = :serial and mount = :mount")
_BY_LEASE = sql(_CERTIFICATE + "where lease = :lease")
_BELOW_LEASE = sql(
    _CERTIFICATE
    + f"where lease >= :first and lease < :end and {_ENDED} is null and not_after > :now order by lease limit :limit"
)
_LIVE_OF_AGENT = sql(
    _CERTIFICATE
    + f"""where pki_certificate.agent = :agent and not_after > :now and {_ENDED} is null
        order by serial desc limit :limit"""
)
_SERIALS = sql("select serial from pki_certificate where mount = :mount order by serial desc limit :limit")
_ENDED_OF_ISSUER = sql(
    f"""select serial, {_ENDED}, coalesce(ended_why, '') {_FROM}
        where issuer = :issuer and not_after > :since and {_ENDED} is not null order by serial"""
)
_LIVE_OF_ISSUER = sql(
    f"""select serial, pki_certificate.agent, pki_certificate.task {_FROM}
        where issuer = :issuer and not_after > :now and {_ENDED} is null and pki_certificate.agent is not null
        order by serial"""
)
_INSERT = sql(
    """insert into pki_certificate (serial, mount, issuer, lease, agent, task, der, not_after, issued_at)
       values (:serial, :mount, :issuer, :lease, :agent, :task, :der, :not_after, :issued_at)"""
)
_REVOKE = sql("update pki_certificate set revoked_at = :now where serial = :serial and revoked_at is null")
_COUNT_ENDED = sql(
    f"select count(*) from holding where kind = '{HOLDING}' and ended_at is not null and ended_at > :since"
)
_LIVE_OF_MOUNT = sql(
    _CERTIFICATE
    + f"""where mount = :mount and pki_certificate.agent is not null and not_after > :now
    and {_ENDED} is null limit :limit"""
)
_PRUNE = sql(
    """delete from pki_certificate where serial in
        (select serial from pki_certificate where not_after < :before order by not_after limit :limit)""",
    prunes=True,
)
_TIDY = sql("delete from pki_certificate where mount = :mount and not_after < :before")
_CLEAR = (
    sql("delete from pki_issuer where mount = :mount"),
    sql("delete from pki_role where mount = :mount"),
    sql("delete from pki_settings where mount = :mount"),
    sql("delete from pki_certificate where mount = :mount"),
)
_COUNT = sql(
    """select count(*) from (select 1 from pki_certificate where mount = :mount
       union all select 1 from pki_issuer where mount = :mount
       union all select 1 from pki_role where mount = :mount limit :limit) as counted"""
)
_decode_role, _decode_settings = json_decoder(PkiRole), json_decoder(PkiSettings)


def issuers(reader: Reader, mount: str) -> list[PkiIssuer]:
    """Return the issuers of a mount, the oldest first."""
    return [_issuer(row) for row in reader.all(_ISSUERS, mount=mount)]


def get_issuer(reader: Reader, issuer_id: str) -> PkiIssuer | None:
    """Return an issuer by its id; None if there is none."""
    return reader.one_as(_GET_ISSUER, _issuer, id=issuer_id)


def key_of(reader: Reader, issuer_id: str) -> Envelope | None:
    """Return the encrypted private key of an issuer; None if there is none."""
    row = reader.one(_KEY, id=issuer_id)
    return None if row is None else Envelope(bytes(row[0]), bytes(row[1]))


def put_key(tx: Tx, issuer_id: str, key: Envelope) -> None:
    """Store the encrypted private key of an issuer, in place of an earlier one."""
    tx.run(_PUT_KEY, id=issuer_id, wrapped_key=key.wrapped_key, sealed=key.sealed)


def insert_issuer(tx: Tx, issuer: PkiIssuer, key: Envelope | None) -> None:
    """Insert an issuer with its encrypted key, if it has one."""
    values = msgspec.structs.asdict(issuer)
    del values["has_key"], values["revoked_at"]
    wrapped_key, sealed = (None, None) if key is None else (key.wrapped_key, key.sealed)
    tx.run(_INSERT_ISSUER, wrapped_key=wrapped_key, sealed=sealed, **values)


def update_issuer(tx: Tx, issuer: PkiIssuer) -> None:
    """Replace the name, the certificate and the revocation of an issuer."""
    tx.run(
        _UPDATE_ISSUER,
        issuer_id=issuer.issuer_id,
        name=issuer.name,
        certificate=issuer.certificate,
        revoked_at=issuer.revoked_at,
    )


def delete_issuer(tx: Tx, issuer_id: str) -> None:
    """Delete an issuer with its key. The certificates that it issued stay."""
    tx.run(_DELETE_ISSUER, id=issuer_id)


def role(reader: Reader, mount: str, name: str) -> PkiRole | None:
    """Return the role `name` of a PKI mount; None if there is none."""
    row = reader.one(_ROLE, mount=mount, name=name)
    return None if row is None else _decode_role(row[0])


def roles(reader: Reader, mount: str, *, limit: int) -> list[str]:
    """Return the names of at most `limit` roles of a PKI mount."""
    return [name for (name,) in reader.all(_ROLES, mount=mount, limit=limit)]


def put_role(tx: Tx, mount: str, name: str, role: PkiRole) -> None:
    """Insert or replace a role."""
    tx.run(_PUT_ROLE, mount=mount, name=name, settings=msgspec.json.encode(role).decode())


def delete_role(tx: Tx, mount: str, name: str) -> None:
    """Delete a role, if there is one."""
    tx.run(_DELETE_ROLE, mount=mount, name=name)


def settings(reader: Reader, mount: str) -> PkiSettings:
    """Return the settings of a PKI mount; the defaults if none are stored."""
    row = reader.one(_SETTINGS, mount=mount)
    return PkiSettings() if row is None else _decode_settings(row[0])


def put_settings(tx: Tx, mount: str, settings: PkiSettings) -> None:
    """Replace the settings of a mount."""
    tx.run(_PUT_SETTINGS, mount=mount, settings=msgspec.json.encode(settings).decode())


def insert(tx: Tx, certificate: PkiCertificate) -> None:
    """Insert a new certificate."""
    values = msgspec.structs.asdict(certificate)
    del values["revoked_at"], values["why"]
    tx.run(_INSERT, **values)


def get(reader: Reader, mount: str, serial: str) -> PkiCertificate | None:
    """Return the certificate of a PKI mount with this serial number; None if there is none."""
    return reader.one_as(_GET, _certificate, mount=mount, serial=serial)


def get_by_lease(reader: Reader, lease: str) -> PkiCertificate | None:
    """Return the certificate with this lease id; None if there is none."""
    return reader.one_as(_BY_LEASE, _certificate, lease=lease)


def below_lease(reader: Reader, prefix: str, *, now: int, limit: int) -> list[PkiCertificate]:
    """Return at most `limit` certificates in force whose lease ids are below the path `prefix`."""
    rows = reader.all(_BELOW_LEASE, first=f"{prefix}/", end=f"{prefix}0", now=now, limit=limit)
    return [_certificate(row) for row in rows]


def list_certificates(reader: Reader, agent: str, *, now: int, limit: int) -> list[PkiCertificate]:
    """Return at most `limit` of the newest certificates of an agent that are in force at `now` (microseconds)."""
    return [_certificate(row) for row in reader.all(_LIVE_OF_AGENT, agent=agent, now=now, limit=limit)]


def live_of_mount(reader: Reader, mount: str, *, now: int, limit: int) -> list[PkiCertificate]:
    """Return at most `limit` certificates of agents that the issuers of a mount issued and that are in force at `now`
    (microseconds).
    """
    return [_certificate(row) for row in reader.all(_LIVE_OF_MOUNT, mount=mount, now=now, limit=limit)]


def ended_of_issuer(reader: Reader, issuer: str, *, since: int) -> list[tuple[str, int, str]]:
    """Return (serial number, time in microseconds, reason) of each revoked certificate of an issuer that expires after
    `since` (microseconds).
    """
    return [(serial, at, why) for serial, at, why in reader.all(_ENDED_OF_ISSUER, issuer=issuer, since=since)]


def live_of_issuer(reader: Reader, issuer: str, *, now: int) -> list[tuple[str, str, str | None]]:
    """Return (serial number, agent, task) of each certificate that an issuer has signed for an agent and that is in
    force at `now` (microseconds).
    """
    return [(serial, agent, task) for serial, agent, task in reader.all(_LIVE_OF_ISSUER, issuer=issuer, now=now)]


def serials(reader: Reader, mount: str, *, limit: int) -> list[str]:
    """Return at most `limit` serial numbers of the newest certificates of a mount."""
    return [serial for (serial,) in reader.all(_SERIALS, mount=mount, limit=limit)]


def revoke(tx: Tx, serial: str) -> None:
    """Mark a certificate as revoked."""
    tx.run(_REVOKE, serial=serial, now=tx.now)


def count_ended(reader: Reader, *, since: int) -> int:
    """Return the number of certificates of agents, of all PKI mounts, that were revoked, or ended with their agent or
    task, after `since` (microseconds).
    """
    row = reader.one(_COUNT_ENDED, since=since)
    assert row is not None
    return int(row[0])


def prune(tx: Tx, *, limit: int) -> int:
    """Delete up to `limit` certificates that expired more than a day ago; return the number of deleted certificates."""
    return tx.run(_PRUNE, before=tx.now - KEPT, limit=limit)


def tidy(tx: Tx, mount: str, *, before: int) -> int:
    """Delete the certificates of a mount that expired before `before` (microseconds); return the number of deleted
    certificates.
    """
    return tx.run(_TIDY, mount=mount, before=before)


def count(reader: Reader, mount: str, *, limit: int) -> int:
    """Return the total number of issuers, roles and certificates of a mount, counted up to `limit`."""
    row = reader.one(_COUNT, mount=mount, limit=limit)
    assert row is not None
    return int(row[0])


def clear(tx: Tx, mount: str) -> None:
    """Delete all issuers, roles, settings and certificates of a mount."""
    for statement in _CLEAR:
        tx.run(statement, mount=mount)


def _issuer(row: Row) -> PkiIssuer:
    issuer_id, mount, name, key_type, key_digest, certificate, has_key, created_at, revoked_at = row
    return PkiIssuer(
        issuer_id=issuer_id,
        mount=mount,
        name=name,
        key_type=key_type,
        key_digest=key_digest,
        certificate=bytes(certificate),
        has_key=bool(has_key),
        created_at=created_at,
        revoked_at=revoked_at,
    )


def _certificate(row: Row) -> PkiCertificate:
    serial, mount, issuer, lease, agent, task, der, not_after, issued_at, ended_at, why = row
    return PkiCertificate(
        serial=serial,
        mount=mount,
        issuer=issuer,
        lease=lease,
        agent=agent,
        task=task,
        der=bytes(der),
        not_after=not_after,
        issued_at=issued_at,
        revoked_at=ended_at,
        why=why or "",
    )
