"""Certificate status for relying parties: OCSP responses and revocation lists, current at each request.

A certificate is revoked if its holding has ended or its authority was revoked. A certificate is on hold
(`certificateHold`) while a stop of the kill switch applies to its holder. Both states are computed at each request, so
a revocation takes effect with its commit, and a hold ends when the stop is lifted.

A response without a nonce is signed at the first request and cached until half of its validity has passed, or until the
status of its certificate changes. Each request reads the status, so no cached response outlives a revocation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

from cryptography import x509
from cryptography.x509 import ocsp

from ostiary.protocol.errors import NotFound, Unavailable
from ostiaryd.certs import store
from ostiaryd.certs.flows.authorities import Issuer, find_authority, find_responder, open_issuer, parsed
from ostiaryd.certs.flows.holders import find_hold
from ostiaryd.certs.flows.issuing import distribution_point
from ostiaryd.certs.flows.revoking import find_bar
from ostiaryd.certs.model.authority import BACKDATED_S, SECOND, Authority, AuthorityKind
from ostiaryd.certs.model.certificate import SHARDS, serial_text, shard_of
from ostiaryd.certs.model.keys import PrivateKey
from ostiaryd.certs.model.revocation import (
    CEASED,
    HOLD,
    OcspRequest,
    RevokedCertificate,
    build_crl,
    build_ocsp_answer,
    hashes_of_issuer,
    parse_ocsp_request,
    reason_flag,
    refuse_ocsp,
)
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry

OCSP_VALIDITY = 600 * SECOND
CRL_VALIDITY = 3600 * SECOND
MAX_KEPT = 65_536
"""number of new responses in the cache at which the older responses are discarded; the cache has at most twice as
many
"""
_LATE = 60 * SECOND
"""microseconds that may pass between the time of a revocation and its commit"""


class _Kept(NamedTuple):
    answer: bytes
    until: int


class OcspSubject(NamedTuple):
    """The certificate that an OCSP request asks about: its issuer, its revocation (None if it is not revoked), and a
    function that returns the responder's certificate and key. The function raises Unavailable while the key cannot be
    used.
    """

    issuer: x509.Certificate
    revoked: RevokedCertificate | None
    open_responder: Callable[[], OcspSigner]


class OcspSigner(NamedTuple):
    """The certificate and the key of an OCSP responder, and the expiry of the certificate in microseconds."""

    certificate: x509.Certificate
    key: PrivateKey
    not_after: int


class OcspResponder:
    """The OCSP responder of one server process, with a cache of responses."""

    live_per_s = 500
    """Maximum number of responses with a nonce per second, since each such response needs a signature of its own. Above
    this rate, the responses have no nonce (RFC 9654).
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._new: dict[tuple[object, ...], _Kept] = {}
        self._old = self._new.copy()
        self._second = self._signed = 0

    def answer(self, unverified_request: bytes) -> bytes:
        """Return the OCSP response to a request, both in DER. Raises Malformed for a malformed request."""
        return self._answer(parse_ocsp_request(unverified_request), self._find)

    def _find(self, reader: Reader, serial: str, now: int) -> OcspSubject | None:
        """Return the certificate with this serial number; None if this server did not issue the certificate."""
        if (status := store.certificates.status(reader, serial)) is None:
            return None
        authority = find_authority(reader, status.authority)
        if status.ended_at is not None:
            revoked: RevokedCertificate | None = RevokedCertificate(serial, status.ended_at, reason_flag(status.why))
        else:
            revoked = find_bar(reader, serial, authority, status.holder, status.task, now=now)

        def open_responder() -> OcspSigner:
            responder = open_issuer(reader, find_responder(reader, authority), keys=self._world.keys)
            return OcspSigner(responder.certificate, responder.key, responder.authority.not_after)

        return OcspSubject(parsed(authority.certificate), revoked, open_responder)

    def _answer(self, request: OcspRequest, find: Callable[[Reader, str, int], OcspSubject | None]) -> bytes:
        now = self._world.now()
        if (subject := find(self._world.db.read(), request.serial, now)) is None:
            return _UNAUTHORIZED
        is_live = request.nonce is not None and self._may_sign(now)
        key = (request.algorithm, request.name_hash, request.key_hash, request.serial, subject.revoked)
        kept = self._new.get(key) or self._old.get(key)
        if kept is not None and now < kept.until and not is_live:
            return kept.answer
        if hashes_of_issuer(subject.issuer, request.algorithm) != (request.name_hash, request.key_hash):
            return _UNAUTHORIZED
        try:
            if is_live:
                return _sign(request, subject, now=now)
            answer = _sign(request._replace(nonce=None), subject, now=now)
        except Unavailable:  # the key of the responder is in an HSM that cannot be reached, or the vault is sealed
            return TRY_LATER
        self._keep(key, _Kept(answer, now + OCSP_VALIDITY // 2))
        return answer

    def _may_sign(self, now: int) -> bool:
        second = now // SECOND
        if second != self._second:
            self._second, self._signed = second, 0
        self._signed += 1
        return self._signed <= self.live_per_s

    def _keep(self, key: tuple[object, ...], kept: _Kept) -> None:
        if len(self._new) >= MAX_KEPT:
            self._new, self._old = {}, self._new
        self._new[key] = kept


def _sign(request: OcspRequest, subject: OcspSubject, *, now: int) -> bytes:
    responder = subject.open_responder()
    return build_ocsp_answer(
        request,
        subject.revoked,
        responder=responder.certificate,
        responder_key=responder.key,
        this_update=now,
        next_update=min(now + OCSP_VALIDITY, responder.not_after),
        nonce=request.nonce,
    )


MALFORMED = refuse_ocsp(ocsp.OCSPResponseStatus.MALFORMED_REQUEST)
"""The OCSP response to a request that cannot be read."""
TRY_LATER = refuse_ocsp(ocsp.OCSPResponseStatus.TRY_LATER)
"""The OCSP response while the key of the responder cannot be used."""
_UNAUTHORIZED = refuse_ocsp(ocsp.OCSPResponseStatus.UNAUTHORIZED)
"""The OCSP response about a certificate that this server did not issue (RFC 5019 section 2.2.3); never `good`."""


class _Crl(NamedTuple):
    der: bytes
    until: int
    since: int
    number: int
    """number of revocations after `since` (microseconds) when the list was built"""
    others: tuple[object, ...]
    """stops of the kill switch, revoked authorities and expired agents when the list was built; a change makes the list
    outdated
    """


class RevocationLists:
    """The revocation lists of one server process. Each is built at the first request, and built again after a
    revocation, after a change of the stops of the kill switch, and after half of its validity.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._kept: dict[tuple[str, int | None], _Crl] = {}
        self._building = asyncio.Lock()

    async def get(self, authority_id: str, shard: int | None) -> bytes:
        """Return the complete revocation list of an authority, or, with `shard`, one partition of the list, in DER.
        Raises NotFound for an unknown authority or partition, and for an authority without a key on this server or
        without a certificate.
        """
        reader = self._world.db.read()
        authority = find_authority(reader, authority_id)
        is_partition = shard is not None and 0 <= shard < SHARDS and authority.kind is AuthorityKind.INTERMEDIATE
        if not authority.has_key or not authority.certificate or not (shard is None or is_partition):
            raise NotFound("revocation list not found")
        key = (authority.authority_id, shard)
        async with self._building:
            kept = self._kept.get(key)
            if kept is None or not self._is_fresh(kept):
                kept = await self._world.db.scan(lambda reader: self._build(reader, authority, shard))
                self._kept[key] = kept
        return kept.der

    def _is_fresh(self, crl: _Crl) -> bool:
        """Return whether a cached list is not too old, and no revocation was committed since the list was built."""
        reader = self._world.db.read()
        return (
            self._world.now() < crl.until
            and store.certificates.count_revoked(reader, since=crl.since) == crl.number
            and _others(reader, now=self._world.now()) == crl.others
        )

    def _build(self, reader: Reader, authority: Authority, shard: int | None) -> _Crl:
        now = self._world.now()
        since = now - _LATE
        count, others = store.certificates.count_revoked(reader, since=since), _others(reader, now=now)
        issuer: Issuer = open_issuer(reader, authority, keys=self._world.keys)
        revoked = list(_list_revoked(reader, authority, shard, now=now))
        config = self._world.config
        # certificates that were issued before a change of `status_url` name the public URL
        urls = list(dict.fromkeys((config.status_base, config.public_url)))
        der = build_crl(
            issuer.certificate,
            issuer.key,
            revoked,
            number=now,
            this_update=max(now - BACKDATED_S * SECOND, authority.not_before),
            next_update=min(now + CRL_VALIDITY, authority.not_after),
            partition=None if shard is None else distribution_point(urls, authority.authority_id, shard),
        )
        return _Crl(der, now + CRL_VALIDITY // 2, since, count, others)


def _others(reader: Reader, *, now: int) -> tuple[object, ...]:
    revoked = [one.authority_id for one in store.authorities.authorities(reader) if one.revoked_at is not None]
    return registry.list_stops(reader), revoked, registry.list_expired(reader, now=now)


def _list_revoked(reader: Reader, authority: Authority, shard: int | None, *, now: int) -> Iterator[RevokedCertificate]:
    """Yield each certificate of an authority, or of the partition `shard`, that is revoked or on hold, once.

    A certificate that expired more than `CRL_VALIDITY` ago is left out.
    """
    since = now - CRL_VALIDITY
    for serial, of, at, why in store.certificates.revoked(reader, since=since, shard=shard):
        if of == authority.authority_id:
            yield RevokedCertificate(serial, at, reason_flag(why))
    expired = dict.fromkeys(registry.list_expired(reader, now=now))
    for id in expired:
        for certificate in store.certificates.list_live(reader, id, now=now, limit=store.certificates.ALL):
            if certificate.authority == authority.authority_id and shard in (None, shard_of(certificate.serial)):
                bar = find_bar(reader, certificate.serial, authority, id, certificate.task, now=now)
                yield bar or RevokedCertificate(certificate.serial, now, CEASED)
    for one in store.authorities.authorities(reader):
        if one.parent == authority.authority_id and one.revoked_at is not None and one.not_after > since:
            serial = serial_text(parsed(one.certificate).serial_number)
            yield RevokedCertificate(serial, one.revoked_at, reason_flag(one.reason))
    if authority.revoked_at is None and not registry.list_stops(reader):
        return
    hold_of = cache(partial(find_hold, reader))
    for serial, holder, task in store.certificates.in_force(reader, authority.authority_id, now=now, shard=shard):
        if holder in expired:
            continue
        if authority.revoked_at is not None:
            yield RevokedCertificate(serial, authority.revoked_at, reason_flag(authority.reason))
        elif (stop := hold_of(holder, task)) is not None:
            yield RevokedCertificate(serial, stop.since, HOLD)
