"""The table of certificates, by serial number. A certificate ends with its holding; a certificate of the server has no
holding and ends by its own revocation.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from ostiaryd.certs.model.certificate import SERIAL_DIGITS, Certificate, decode_names, encode_names
from ostiaryd.certs.model.keys import CheckedKey
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page

KEPT = 86_400 * 1_000_000
"""Microseconds for which a certificate stays stored after its expiry: as long as its holding
(`registry.flows.expiry`).
"""
_ENDED = "coalesce(revoked_at, ended_at)"
_FROM = "from certificate left join holding on holding.id = 'ct_' || serial "
_SELECT = f"""select serial, authority, profile, holder, certificate.task, names, key_type, key_digest, der, not_before,
    not_after, issued_at, {_ENDED}, coalesce(reason, ended_why) {_FROM}"""
_GET = sql(_SELECT + "where serial = :serial and not_after > :since")
_PAGE = sql(_SELECT + "where serial < :before order by serial desc limit :limit")
_OF_HOLDER = sql(_SELECT + "where holder = :holder and serial < :before order by serial desc limit :limit")
_LIVE_OF_HOLDER = sql(
    _SELECT + f"where holder = :holder and not_after > :now and {_ENDED} is null order by serial desc limit :limit"
)
_INSERT = sql(
    """insert into certificate (serial, authority, profile, holder, task, names, key_type, key_digest, der, not_before,
        not_after, issued_at, replaces)
       values (:serial, :authority, :profile, :holder, :task, :names, :key_type, :key_digest, :der, :not_before,
        :not_after, :issued_at, :replaces)""",
    keys="serial key_digest",
)
_REVOKE = sql(
    "update certificate set revoked_at = :now, reason = :reason where serial = :serial and revoked_at is null"
)
_HOLDER = sql(
    "select coalesce(holder, '') from certificate where serial = :serial and not_after > :since", keys="serial"
)
_KEY_USE = sql(
    """select (select reason from blocked_key where digest = :key_digest),
        exists (select 1 from certificate where key_digest = :key_digest and coalesce(holder, '') < :holder)
        or exists (select 1 from certificate where key_digest = :key_digest and coalesce(holder, '') > :holder),
        coalesce((select agent from agent_key where jkt = :jkt), (select resource_id from resource where jkt = :jkt),
            (select person from person_key where jkt = :jkt))""",
    keys="key_digest",
)
_STATUS = sql(
    f"select authority, holder, certificate.task, {_ENDED}, coalesce(reason, ended_why) {_FROM} where serial = :serial"
)
_IN_FORCE = sql(
    f"""select serial, holder, certificate.task {_FROM}
        where authority = :authority and not_after > :now and {_ENDED} is null and serial > :after
         and (:digit = '' or substr(serial, {SERIAL_DIGITS}) = :digit)
        order by serial limit :limit"""
)
_COUNT = sql(
    """select (select count(*) from certificate where revoked_at is not null and revoked_at > :since)
        + (select count(*) from holding where kind = 'certificate' and ended_at is not null and ended_at > :since)"""
)
_REVOKED = sql(
    f"""select serial, authority, ended_at, coalesce(reason, ended_why) from holding
        join certificate on serial = substr(id, 4)
        where kind = 'certificate' and ended_at is not null and not_after > :since
         and (:digit = '' or substr(serial, {SERIAL_DIGITS}) = :digit)
       union
       select serial, authority, revoked_at, reason from certificate
        where revoked_at is not null and holder is null and not_after > :since
         and (:digit = '' or substr(serial, {SERIAL_DIGITS}) = :digit)"""
)
_PRUNE = sql(
    """delete from certificate where serial in
        (select serial from certificate where not_after < :before order by not_after limit :limit)""",
    prunes=True,
)
_RECENT = sql("select serial from certificate where authority = :authority and not_after > :since limit 1")
_FAILED = sql(
    "update certificate set failed_renewals = failed_renewals + 1 where serial = :serial and holder = :holder"
)
LAST_PART = 6
"""A renewal is overdue if less than one sixth (1 / `LAST_PART`) of the lifetime is left. Clients renew after two thirds
of the lifetime, and retry.
"""
_COLUMNS = f"""serial, authority, profile, holder, certificate.task, names, key_type, key_digest, der, not_before,
    not_after, issued_at, {_ENDED}, coalesce(reason, ended_why)"""
_HELD = f"{_ENDED} is null and not_after > :now and holder is not null and (:is_warned = 1 or warned_at is null)"
_REPLACED = """exists (select 1 from certificate newer left join holding renewed on renewed.id = 'ct_' || newer.serial
    where newer.holder = certificate.holder and newer.serial > certificate.serial
    and newer.profile = certificate.profile and newer.names = certificate.names and renewed.ended_at is null)"""
_OVERDUE = sql(
    f"""select {_COLUMNS}, failed_renewals {_FROM}
        where {_HELD} and not_after < :until and (not_after - :now) * {LAST_PART} < not_after - not_before
        and (replaces is not null or not_after - not_before >= :long)
        and (certificate.task is null or certificate.task = 'tk_' || substr(holder, 4)) and not {_REPLACED}
        order by not_after limit :limit"""
)
_FAILING = sql(
    f"""select {_COLUMNS}, failed_renewals {_FROM}
        where {_HELD} and failed_renewals >= :failures and failed_renewals > 0 and not {_REPLACED}
        order by serial limit :limit"""
)
_WARN = sql("update certificate set warned_at = :now where serial = :serial and warned_at is null")
_BY_PROFILE = sql(
    f"""select profile, count(*), sum(case when failed_renewals > 0 then 1 else 0 end) {_FROM}
        where not_after > :now and {_ENDED} is null group by profile"""
)
_BLOCK = sql(
    "insert into blocked_key (digest, reason, blocked_at) values (:digest, :reason, :now) on conflict do nothing"
)
_LAST = "g"
"""a text that sorts after each serial number, because serial numbers are hexadecimal"""
ALL = 1 << 62


class CertificateStatus(NamedTuple):
    """The status of a certificate, from its row and its holding. `ended_at`: the time of its revocation, or of the end
    of its holding; None before both.
    """

    authority: str
    holder: str | None
    task: str | None
    ended_at: int | None
    why: str


class KeyUse(NamedTuple):
    """The use of a key: the reason why it is blocked (None if it is not), and whether a certificate with the key
    belongs to another holder. `owner` is the id of the agent, resource or person that registered the key, even if the
    key was revoked (None if it was never registered).
    """

    why_blocked: str | None
    has_other_holder: bool
    owner: str | None


def insert(tx: Tx, certificate: Certificate, *, replaces: str | None = None) -> None:
    """Insert a new certificate. `replaces`: the serial number of the certificate that it replaces."""
    tx.late(
        _INSERT,
        (
            certificate.serial,
            certificate.authority,
            certificate.profile,
            certificate.holder,
            certificate.task,
            encode_names(certificate.names),
            certificate.key_type,
            certificate.key_digest,
            certificate.der,
            certificate.not_before,
            certificate.not_after,
            certificate.issued_at,
            replaces,
        ),
    )


def get(reader: Reader, serial: str, *, now: int) -> Certificate | None:
    """Return a certificate by its serial number; None if there is none, or if it expired more than a day before `now`
    (microseconds).
    """
    return reader.one_as(_GET, _certificate, serial=serial, since=now - KEPT)


def page(reader: Reader, page: Page, *, holder: str | None = None) -> list[Certificate]:
    """Return a page of the certificates of a holder, or of all certificates, the newest first."""
    before = page.after or _LAST
    if holder is None:
        rows = reader.all(_PAGE, before=before, limit=page.limit)
    else:
        rows = reader.all(_OF_HOLDER, holder=holder, before=before, limit=page.limit)
    return [_certificate(row) for row in rows]


def list_live(reader: Reader, holder: str, *, now: int, limit: int) -> list[Certificate]:
    """Return at most `limit` of the newest certificates of an agent or a person that are in force at `now`
    (microseconds).
    """
    return [_certificate(row) for row in reader.all(_LIVE_OF_HOLDER, holder=holder, now=now, limit=limit)]


def revoke(tx: Tx, serial: str, *, reason: str) -> int:
    """Mark a certificate as revoked. Return 1, or 0 if the certificate was revoked before."""
    return tx.run(_REVOKE, serial=serial, reason=reason, now=tx.now)


def find_holder(reader: Reader, serial: str, *, now: int) -> str | None:
    """Return the id of the certificate's holder, an empty text for the server; None if the certificate is unknown, or
    expired more than a day before `now` (microseconds).
    """
    row = reader.one(_HOLDER, serial=serial, since=now - KEPT)
    return None if row is None else str(row[0])


def find_key_use(reader: Reader, key: CheckedKey, *, holder: str) -> KeyUse:
    """Return the present use of a key. Every holder except `holder` (empty: the server) counts as another holder."""
    row = reader.one(_KEY_USE, key_digest=key.digest, jkt=key.jkt, holder=holder)
    assert row is not None
    return KeyUse(row[0], bool(row[1]), row[2])


def status(reader: Reader, serial: str) -> CertificateStatus | None:
    """Return the status of a certificate; None if the serial number is unknown."""
    row = reader.one(_STATUS, serial=serial)
    return None if row is None else CertificateStatus(row[0], row[1], row[2], row[3], row[4] or "")


def in_force(
    reader: Reader, authority: str, *, now: int, after: str = "", shard: int | None = None, limit: int = ALL
) -> list[tuple[str, str | None, str | None]]:
    """Return (serial number, holder, task) of at most `limit` certificates of an authority that are in force at `now`
    (microseconds), sorted, with serial numbers after `after`. `shard`: only the certificates of this partition of the
    revocation list.
    """
    rows = reader.all(_IN_FORCE, authority=authority, now=now, after=after, digit=_digit(shard), limit=limit)
    return [(serial, holder, task) for serial, holder, task in rows]


def count_revoked(reader: Reader, *, since: int) -> int:
    """Return the number of revocations with a time after `since` (microseconds). A revocation that is committed after
    its time increases the number, too.
    """
    row = reader.one(_COUNT, since=since)
    assert row is not None
    return int(row[0])


def revoked(reader: Reader, *, since: int, shard: int | None = None) -> list[tuple[str, str, int, str]]:
    """Return (serial number, authority, time in microseconds, reason) of each revoked certificate that expires after
    `since`. `shard`: only the certificates of this partition of the revocation list.
    """
    rows = reader.all(_REVOKED, since=since, digit=_digit(shard))
    return [(serial, authority, at, why or "") for serial, authority, at, why in rows]


def _digit(shard: int | None) -> str:
    """Return the last digit of the serial numbers of a partition; empty if `shard` is None, for all partitions."""
    return "" if shard is None else f"{shard:x}"


def has_recent(reader: Reader, authority: str, *, now: int) -> bool:
    """Return whether the authority has a certificate that is unexpired, or that expired less than a day ago."""
    return reader.one(_RECENT, authority=authority, since=now - KEPT) is not None


def prune(tx: Tx, *, limit: int) -> int:
    """Delete up to `limit` certificates that expired more than a day ago; return the number of deleted certificates."""
    return tx.run(_PRUNE, before=tx.now - KEPT, limit=limit)


def count_failed_renewal(tx: Tx, serial: str, *, holder: str) -> None:
    """Count a failed renewal of a certificate, if `holder` is its holder."""
    tx.run(_FAILED, serial=serial, holder=holder)


def neglected(
    reader: Reader, *, now: int, until: int, long: int, failures: int, limit: int, is_warned: bool = False
) -> list[tuple[Certificate, int]]:
    """Return neglected certificates (`renewals.list_neglected`), at most `limit` for each of the two reasons, each
    certificate with its number of failed renewals.

    `until`, `long`: microseconds; the latest end, and the shortest lifetime, of a certificate whose renewal is overdue.
    `failures`: the number of failed renewals. `is_warned`: include certificates for which a warning was sent.
    """
    some = {"now": now, "limit": limit, "is_warned": int(is_warned)}
    rows = [
        *reader.all(_FAILING, failures=failures, **some),
        *reader.all(_OVERDUE, until=until, long=long, **some),
    ]
    return [(_certificate(row[:-1]), row[-1]) for row in {row[0]: row for row in rows}.values()]


def mark_warned(tx: Tx, serial: str) -> bool:
    """Record that a warning about a certificate was sent. Return False if a warning was sent before."""
    return tx.run(_WARN, serial=serial, now=tx.now) == 1


def count_certificates(reader: Reader, *, now: int) -> tuple[Counter[str], int]:
    """Return the number of certificates in force by profile, and the number of certificates in force with a failed
    renewal.
    """
    rows = reader.all(_BY_PROFILE, now=now)
    return Counter({profile: count for profile, count, _ in rows}), sum(failed for *_, failed in rows)


def block_key(tx: Tx, digest: str, *, reason: str) -> None:
    """Block a key, so that it is never certified again."""
    tx.run(_BLOCK, digest=digest, reason=reason, now=tx.now)


def _certificate(row: Row) -> Certificate:
    (serial, authority, profile, holder, task, names, key_type, digest, der, begins, ends, issued, revoked, why) = row
    return Certificate(
        serial=serial,
        authority=authority,
        profile=profile,
        holder=holder,
        task=task,
        names=decode_names(names),
        key_type=key_type,
        key_digest=digest,
        der=bytes(der),
        not_before=begins,
        not_after=ends,
        issued_at=issued,
        revoked_at=revoked,
        reason=why or "",
    )
