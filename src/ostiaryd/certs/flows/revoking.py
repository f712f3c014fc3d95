"""Revocation of single certificates, and the check that a certificate is in force."""

from __future__ import annotations

from ostiary.protocol.certificate import load_certificate
from ostiary.protocol.errors import Conflict, Forbidden, Malformed, NotFound
from ostiaryd.certs import store
from ostiaryd.certs.flows.authorities import find_authority
from ostiaryd.certs.flows.holders import find_hold
from ostiaryd.certs.model.authority import Authority
from ostiaryd.certs.model.certificate import Certificate, RevocationReason, holding_id, parse_serial, serial_text
from ostiaryd.certs.model.revocation import CEASED, HOLD, RevokedCertificate, reason_flag
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller, Root, is_person_id

FORGOTTEN_AT_ONCE = 1000


def find_certificate(reader: Reader, serial: str, *, now: int) -> Certificate:
    """Return a certificate by its serial number in hexadecimal. Raises Invalid for a malformed number, NotFound for a
    certificate that is unknown or expired more than a day ago.
    """
    if (certificate := store.certificates.get(reader, parse_serial(serial), now=now)) is None:
        raise NotFound("certificate not found", hint="list the certificates with `ostiary cert list`")
    return certificate


def find_presented(reader: Reader, unverified_der: bytes, *, now: int) -> Certificate | None:
    """Return the record of a certificate that a client presents; None if this server did not issue the certificate, or
    if the certificate expired more than a day ago.
    """
    try:
        serial = serial_text(load_certificate(unverified_der).serial_number)
    except Malformed:
        return None
    certificate = store.certificates.get(reader, serial, now=now)
    return certificate if certificate is not None and certificate.der == unverified_der else None


def is_live(reader: Reader, certificate: Certificate, *, now: int) -> bool:
    """Return whether a certificate is accepted at `now` (microseconds): it is in force, its authority is not revoked,
    and its holder is active and not stopped.
    """
    if not certificate.is_in_force(now) or not _is_active(reader, certificate.holder, now=now):
        return False
    authority = find_authority(reader, certificate.authority)
    return find_bar(reader, certificate.serial, authority, certificate.holder, certificate.task, now=now) is None


def _is_active(reader: Reader, holder: str | None, *, now: int) -> bool:
    if holder is None:
        return True
    if is_person_id(holder):
        person = registry.get_person(reader, holder)
        return person is not None and person.is_active
    agent = registry.get_agent(reader, holder)
    return agent is not None and agent.is_active(now)


def find_bar(
    reader: Reader, serial: str, authority: Authority, holder: str | None, task: str | None, *, now: int
) -> RevokedCertificate | None:
    """Return why an unexpired certificate is not accepted: its authority was revoked, its holder has expired, or a stop
    of the kill switch puts the certificate on hold. Return None if no such reason applies.
    """
    if authority.revoked_at is not None:
        return RevokedCertificate(serial, authority.revoked_at, reason_flag(authority.reason))
    return find_bar_of_holder(reader, serial, holder, task, now=now)


def find_bar_of_holder(
    reader: Reader, serial: str, holder: str | None, task: str | None, *, now: int
) -> RevokedCertificate | None:
    """Return why an unexpired certificate is not accepted because of its holder or task, whichever authority issued it.
    Return None if no such reason applies.
    """
    agent = None if holder is None or is_person_id(holder) else registry.get_agent(reader, holder)
    if agent is not None and agent.expires_at is not None and agent.expires_at <= now:
        return RevokedCertificate(serial, agent.expires_at, CEASED)
    if (stop := find_hold(reader, holder, task)) is not None:
        return RevokedCertificate(serial, stop.since, HOLD)
    return None


def revoke(act: Act, serial: str, reason: RevocationReason, *, by: Caller | None = None) -> Certificate:
    """Revoke a certificate, end the tokens that were obtained with it (`Root.CERTIFICATE`), and return its record.

    A key that is reported as compromised is never certified again.

    `by` is the caller, None for the server itself. Agents and persons can revoke their own certificates, owners the
    certificates of their agents, and administrators all certificates. Raises NotFound for an unknown certificate,
    Forbidden for any other caller, and Conflict (`already_revoked`) for a revoked certificate.
    """
    certificate = find_certificate(act.tx, serial, now=act.now)
    registry.fill_entry(
        act, object=certificate.serial, holder=certificate.holder, thumbprint=certificate.thumbprint, why=reason.value
    )
    check_concerned(act.tx, certificate, by=by)
    if certificate.revoked_at is not None:
        raise Conflict("the certificate is revoked already", code="already_revoked")
    store.certificates.revoke(act.tx, certificate.serial, reason=reason.value)
    registry.end_holdings(act, Root.CERTIFICATE, holding_id(certificate.serial), why=reason.value)
    if reason is RevocationReason.KEY_COMPROMISE:
        store.certificates.block_key(
            act.tx, certificate.key_digest, reason="its holder reported the key as compromised"
        )
    return certificate


def check_concerned(reader: Reader, certificate: Certificate, *, by: Caller | None) -> None:
    """Check that the caller is the certificate's holder, an owner of the agent that holds the certificate, an
    administrator, or the server (None). Raises Forbidden otherwise.
    """
    if by is None or by.is_admin or by.id == certificate.holder:
        return
    agent = registry.get_agent(reader, certificate.holder or "")
    if agent is None or not registry.answers_for(reader, by.id, agent):
        raise Forbidden("the certificate belongs to another holder")


async def forget(world: World) -> None:
    """Delete certificates that expired more than a day ago, in small batches."""
    while (
        await world.writer.submit(lambda tx: store.certificates.prune(tx, limit=FORGOTTEN_AT_ONCE)) == FORGOTTEN_AT_ONCE
    ):
        pass
