"""Public resources of the certificate authorities of mounts: certificates of issuers, revocation lists, and OCSP.

Relying parties read them without authentication. A revocation list contains each certificate whose holding has ended or
that a stop of the kill switch puts on hold; the list of a revoked issuer contains all its certificates. A list is built
at the first request, and again after a change.
"""

from __future__ import annotations

import asyncio
import re
from base64 import encodebytes
from collections.abc import Iterator
from functools import partial
from ssl import DER_cert_to_PEM_cert
from typing import NamedTuple

from cryptography.x509 import ReasonFlags

from ostiary.protocol.errors import NotFound
from ostiaryd.certs import flows as certs
from ostiaryd.certs.flows.status import TRY_LATER, OcspResponder, OcspSigner, OcspSubject
from ostiaryd.certs.model.authority import BACKDATED_S, read_end
from ostiaryd.certs.model.revocation import RevokedCertificate, build_crl, parse_ocsp_request, reason_flag
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.pki_issuers import IssuerNotFound, chain_of, find_issuer, open_key
from ostiaryd.secrets.flows.seal import Sealed, check_open
from ostiaryd.secrets.model.pki import DEFAULT_REF, PKI_TYPE, PkiCertificate, PkiIssuer
from ostiaryd.secrets.model.request import MAX_PATH, SECOND, NothingStored

CERTIFICATE, CHAIN = "application/pkix-cert", "application/pem-certificate-chain"
CRL, PEM = "application/pkix-crl", "application/x-pem-file"
_LATE = 60 * SECOND
"""microseconds that may pass between the time of a revocation and its commit"""
MAX_LISTS = 1000
"""maximum number of lists in the cache; above this number, all lists are removed and built again when needed"""
_PUBLIC = re.compile(r"(.+?)/(?:issuer/([^/]+)/(pem|der|json|crl|crl/pem|crl/der)|(ca|ca/pem|ca_chain|crl|crl/pem))")
_NAMES = {"der": "ca", "pem": "ca/pem", "crl/der": "crl"}


class PublicResource(NamedTuple):
    """A resource of an issuer that needs no token: its certificate (`ca` in DER, `ca/pem`), its chain (`ca_chain`), its
    revocation list (`crl` in DER, `crl/pem`), or its members as JSON (`json`).
    """

    issuer: PkiIssuer
    name: str


def find_resource(reader: Reader, path: str) -> PublicResource | None:
    """Return the public resource at a path below `/v1/`; None if the path is not that of a public resource of a PKI
    mount. Raises NothingStored if the mount has no such issuer, or the issuer has no certificate yet.
    """
    if (match := _PUBLIC.fullmatch(path)) is None:
        return None
    mount = store.mounts.find(reader, [match[1]])
    if mount is None or mount.type != PKI_TYPE:
        return None
    try:
        issuer = find_issuer(reader, mount.path, match[2] or DEFAULT_REF)
    except IssuerNotFound:
        raise NothingStored("the mount has no such issuer", code="issuer_not_found") from None
    if not issuer.certificate:
        raise NothingStored("the issuer has no certificate yet", code="issuer_not_found")
    name = match[3] or match[4]
    return PublicResource(issuer, _NAMES.get(name, name))


async def render_resource(world: World, resource: PublicResource) -> tuple[bytes, str]:
    """Return a public resource (except `json`) and its media type. For a revocation list, raises NotFound if the issuer
    was deleted or has no private key, and Sealed while the secrets are sealed.
    """
    issuer, name = resource
    if name == "ca":
        return issuer.certificate, CERTIFICATE
    if not name.startswith("crl"):
        chain = [issuer.certificate] if name == "ca/pem" else chain_of(world.db.read(), issuer)
        return "".join(map(DER_cert_to_PEM_cert, chain)).encode(), CHAIN
    der = await world.get_singleton(MountRevocationLists).get(issuer.issuer_id)
    return (der, CRL) if name == "crl" else (encode_crl(der).encode(), PEM)


def render_members(reader: Reader, issuer: PkiIssuer) -> dict[str, object]:
    """Return the public members of an issuer: its id and name, and its certificates in PEM."""
    return {
        "issuer_id": issuer.issuer_id,
        "issuer_name": issuer.name,
        "certificate": DER_cert_to_PEM_cert(issuer.certificate) if issuer.certificate else "",
        "ca_chain": [*map(DER_cert_to_PEM_cert, chain_of(reader, issuer))],
    }


def encode_crl(der: bytes) -> str:
    """Return a revocation list in PEM."""
    return f"-----BEGIN X509 CRL-----\n{encodebytes(der).decode()}-----END X509 CRL-----\n"


def find_ocsp_mount(reader: Reader, path: str) -> tuple[str, str] | None:
    """Return the mount whose OCSP responder has this path, and the rest of the path; None for any other path."""
    mount, separator, rest = path.partition("/ocsp")
    if not separator or rest[:1] not in ("", "/") or len(mount) > MAX_PATH:
        return None
    present = store.mounts.find(reader, [mount])
    return None if present is None or present.type != PKI_TYPE else (mount, rest[1:])


class MountOcspResponder(OcspResponder):
    """The OCSP responder for the mounts of one server process. The issuer of a certificate signs the response about the
    certificate.
    """

    live_per_s = 50  # the key of an issuer may be RSA, whose signatures take milliseconds

    def answer_at(self, mount: str, unverified_request: bytes) -> bytes:
        """Return the OCSP response to a request about a certificate of `mount`, both in DER; while the secrets are
        sealed, the response `tryLater`. Raises Malformed if the request is malformed.
        """
        try:
            check_open(self._world.db.read())
        except Sealed:
            return TRY_LATER
        request = parse_ocsp_request(unverified_request)
        return self._answer(request, partial(self._find_in, mount))

    def _find_in(self, mount: str, reader: Reader, serial: str, now: int) -> OcspSubject | None:
        certificate = store.pki.get(reader, mount, serial)
        issuer = None if certificate is None else store.pki.get_issuer(reader, certificate.issuer)
        if certificate is None or issuer is None or not issuer.has_key or not issuer.certificate:
            return None
        return OcspSubject(
            issuer.x509,
            _find_revocation(reader, issuer, certificate, now=now),
            lambda: OcspSigner(issuer.x509, open_key(reader, issuer, keys=self._world.keys), read_end(issuer.x509)),
        )


def _find_revocation(
    reader: Reader, issuer: PkiIssuer, certificate: PkiCertificate, *, now: int
) -> RevokedCertificate | None:
    """Return why a certificate is not accepted: its revocation, the revocation of its issuer, or a stop or expiry of
    its holder; None if it is accepted.
    """
    if certificate.revoked_at is not None:
        return RevokedCertificate(certificate.serial, certificate.revoked_at, reason_flag(certificate.why))
    if issuer.revoked_at is not None:
        return RevokedCertificate(certificate.serial, issuer.revoked_at, ReasonFlags.ca_compromise)
    return certs.find_bar_of_holder(reader, certificate.serial, certificate.agent, certificate.task, now=now)


class _List(NamedTuple):
    der: bytes
    until: int
    since: int
    state: tuple[object, ...]


class MountRevocationLists:
    """The revocation lists of the mounts of one server process."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kept: dict[str, _List] = {}
        self._building = asyncio.Lock()

    async def get(self, issuer_id: str) -> bytes:
        """Return the revocation list of an issuer in DER. Raises NotFound if the issuer was deleted or has no private
        key, Sealed while the secrets are sealed.
        """
        reader = self._world.db.read()
        check_open(reader)
        issuer = store.pki.get_issuer(reader, issuer_id)
        if issuer is None or not issuer.has_key:
            raise NotFound("revocation list not found")
        async with self._building:
            kept = self._kept.get(issuer_id)
            if kept is None or not self._is_fresh(kept, issuer):
                kept = await self._world.db.scan(lambda reader: self._build(reader, issuer))
                if len(self._kept) >= MAX_LISTS:
                    self._kept.clear()
                self._kept[issuer_id] = kept
        return kept.der

    def _is_fresh(self, kept: _List, issuer: PkiIssuer) -> bool:
        now, reader = self._world.now(), self._world.db.read()
        return now < kept.until and _read_state(reader, issuer, since=kept.since, now=now) == kept.state

    def _build(self, reader: Reader, issuer: PkiIssuer) -> _List:
        now, certificate = self._world.now(), issuer.x509
        since, expiry = now - _LATE, store.pki.settings(reader, issuer.mount).expiry * SECOND
        state = _read_state(reader, issuer, since=since, now=now)
        der = build_crl(
            certificate,
            open_key(reader, issuer, keys=self._world.keys),
            list(_list_revoked(reader, issuer, since=now - expiry, now=now)),
            number=now,
            this_update=now - BACKDATED_S * SECOND,
            next_update=min(now + expiry, max(read_end(certificate), now + SECOND)),
        )
        until = now + min(expiry, store.pki.KEPT) // 2  # afterwards, holdings of the count may be deleted
        return _List(der, until, since, state)


def _read_state(reader: Reader, issuer: PkiIssuer, *, since: int, now: int) -> tuple[object, ...]:
    """Return all values on which a revocation list depends, except the time; if a value changes, the list must be built
    again.
    """
    settings, ended = store.pki.settings(reader, issuer.mount), store.pki.count_ended(reader, since=since)
    return issuer, settings, ended, registry.list_stops(reader), registry.list_expired(reader, now=now)


def _list_revoked(reader: Reader, issuer: PkiIssuer, *, since: int, now: int) -> Iterator[RevokedCertificate]:
    for serial, at, why in store.pki.ended_of_issuer(reader, issuer.issuer_id, since=since):
        yield RevokedCertificate(serial, at, reason_flag(why))
    if issuer.revoked_at is None and not registry.list_stops(reader) and not registry.list_expired(reader, now=now):
        return
    for serial, agent, task in store.pki.live_of_issuer(reader, issuer.issuer_id, now=now):
        if issuer.revoked_at is not None:
            yield RevokedCertificate(serial, issuer.revoked_at, ReasonFlags.ca_compromise)
        elif (bar := certs.find_bar_of_holder(reader, serial, agent, task, now=now)) is not None:
            yield bar
