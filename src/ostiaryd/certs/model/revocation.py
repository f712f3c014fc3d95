"""Revocation lists (RFC 5280 section 5) and OCSP (RFC 6960, RFC 9654): parsing requests, and signing responses."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from ostiary.protocol.errors import Malformed
from ostiaryd.certs.model.authority import hash_for, instant
from ostiaryd.certs.model.certificate import RevocationReason, serial_text
from ostiaryd.certs.model.keys import PrivateKey

OCSP_REQUEST, OCSP_RESPONSE = "application/ocsp-request", "application/ocsp-response"
MAX_OCSP_BYTES = 1024
"""Maximum number of bytes of an OCSP request. A request about one certificate with a nonce and without the requester's
certificate has less than 300 bytes.
"""
MAX_NONCE = 128
_HASHES: dict[str, type[hashes.SHA1 | hashes.SHA256]] = {"sha1": hashes.SHA1, "sha256": hashes.SHA256}


class RevokedCertificate(NamedTuple):
    """A revoked certificate: its serial number, the time of the revocation in microseconds, and the reason."""

    serial: str
    at: int
    reason: x509.ReasonFlags


class OcspRequest(NamedTuple):
    """An OCSP request about one certificate. The hashes of name and key identify the issuer."""

    algorithm: str
    name_hash: bytes
    key_hash: bytes
    serial: str
    nonce: bytes | None


def decode_ocsp_path(text: str) -> bytes:
    """Return the bytes of the OCSP request in a URL path (RFC 6960 appendix A.1); no bytes if the path is not
    Base64.

    The path may begin with a further slash, have a space in place of a plus sign, or lack the padding, as old clients
    and proxies send it.
    """
    base64 = unquote(text).lstrip("/").replace(" ", "+").rstrip("=")
    try:
        return b64decode(base64 + "=" * (-len(base64) % 4), validate=True)
    except (binascii.Error, ValueError):
        return b""


def parse_ocsp_request(der: bytes) -> OcspRequest:
    """Return the content of an OCSP request about one certificate. A request about several certificates is refused (RFC
    5019 section 2.1.1).

    The limit on the size of a request also limits the cost of its parsing. Raises Malformed for any other request.
    """
    if len(der) > MAX_OCSP_BYTES:
        raise Malformed(f"the OCSP request is over {MAX_OCSP_BYTES} bytes")
    try:
        request = ocsp.load_der_ocsp_request(der)
        algorithm = request.hash_algorithm.name
        nonce: bytes | None = None
        for extension in request.extensions:
            if isinstance(extension.value, x509.OCSPNonce):
                nonce = extension.value.nonce
            elif extension.critical:
                raise Malformed("a critical extension of the OCSP request is not understood")
        if _IS_CRITICAL in der and _has_critical_extension_of_certificate(der):
            raise Malformed("a critical extension for the certificate of the OCSP request is not understood")
        serial = request.serial_number
        parsed = OcspRequest(algorithm, request.issuer_name_hash, request.issuer_key_hash, "", nonce)
    except NotImplementedError:
        raise Malformed("the OCSP request is not about exactly one certificate") from None
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise Malformed("the OCSP request cannot be read") from None
    if nonce is not None and not 1 <= len(nonce) <= MAX_NONCE:
        raise Malformed(f"the nonce of the OCSP request must have 1 to {MAX_NONCE} bytes")
    if algorithm not in _HASHES:
        raise Malformed(f"the OCSP request uses the hash {algorithm} instead of one of {', '.join(_HASHES)}")
    if not 0 <= serial < 1 << 160:
        raise Malformed("the serial number in the OCSP request is negative, or has more than 20 bytes")
    return parsed._replace(serial=serial_text(serial))


_IS_CRITICAL = bytes.fromhex("0101ff")
"""The DER bytes that mark a critical extension; a request without these bytes has no critical extension, but other data
can contain the same bytes.
"""
_SEQUENCE, _EXTENSIONS = 0x30, 0xA0


def _has_critical_extension_of_certificate(der: bytes) -> bool:
    """Return whether an OCSP request has a critical extension in its only `Request` (`singleRequestExtensions`, RFC
    6960 section 4.1.1).

    The X.509 library parses the request, but does not give access to these extensions.
    """
    [(_, whole)] = _list_elements(der)
    content = _list_elements(whole)[0][1]
    [(_, request)] = _list_elements(next(part for tag, part in _list_elements(content) if tag == _SEQUENCE))
    lists = [part for tag, part in _list_elements(request) if tag == _EXTENSIONS]
    extensions = [one for part in lists for _, some in _list_elements(part) for _, one in _list_elements(some)]
    return any(_list_elements(one)[1][0] == _IS_CRITICAL[0] for one in extensions)


def _list_elements(der: bytes) -> list[tuple[int, bytes]]:
    """Return the (tag, content) of each element in a sequence of DER elements."""
    elements, at = list[tuple[int, bytes]](), 0
    while at < len(der):
        tag, size, begin = der[at], der[at + 1], at + 2
        if size & 0x80:
            begin += size & 0x7F
            size = int.from_bytes(der[at + 2 : begin])
        at = begin + size
        elements.append((tag, der[begin:at]))
    return elements


@lru_cache(maxsize=64)
def hashes_of_issuer(certificate: x509.Certificate, algorithm: str) -> tuple[bytes, bytes]:
    """Return the hash of an issuer's name and the hash of its key, by which OCSP requests identify the issuer."""
    same = ocsp.OCSPRequestBuilder().add_certificate(certificate, certificate, _HASHES[algorithm]()).build()
    digest = hashes.Hash(_HASHES[algorithm]())
    digest.update(certificate.subject.public_bytes())
    return digest.finalize(), same.issuer_key_hash


def build_ocsp_answer(
    request: OcspRequest,
    revoked: RevokedCertificate | None,
    *,
    responder: x509.Certificate,
    responder_key: PrivateKey,
    this_update: int,
    next_update: int,
    nonce: bytes | None = None,
) -> bytes:
    """Return a signed OCSP response in DER: `revoked` with the time and reason; `good` if `revoked` is None."""
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        issuer_name_hash=request.name_hash,
        issuer_key_hash=request.key_hash,
        serial_number=int(request.serial, 16),
        algorithm=_HASHES[request.algorithm](),
        cert_status=ocsp.OCSPCertStatus.GOOD if revoked is None else ocsp.OCSPCertStatus.REVOKED,
        this_update=instant(this_update),
        next_update=instant(next_update),
        revocation_time=None if revoked is None else instant(revoked.at),
        revocation_reason=None if revoked is None or revoked.reason is _UNSPECIFIED else revoked.reason,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, responder).certificates([responder])
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.sign(responder_key, hash_for(responder_key)).public_bytes(Encoding.DER)


HOLD = x509.ReasonFlags.certificate_hold
"""revocation reason while a stop of the kill switch applies (RFC 5280 section 5.3.1); when the stop is lifted, the
certificate is valid again
"""
CEASED = x509.ReasonFlags.cessation_of_operation
"""revocation reason of a certificate whose holder or task has ended"""
_UNSPECIFIED = x509.ReasonFlags.unspecified


def refuse_ocsp(status: ocsp.OCSPResponseStatus) -> bytes:
    """Return an OCSP response with an error status. Such a response has no signature (RFC 6960 section 2.3)."""
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)


def reason_flag(why: str) -> x509.ReasonFlags:
    """Return the X.509 flag of a revocation reason; `CEASED` for the reason of a holding that ended with its agent or
    task.
    """
    return x509.ReasonFlags(why) if why in _STATED else CEASED


_STATED = frozenset((*(reason.value for reason in RevocationReason), x509.ReasonFlags.ca_compromise.value))


def build_crl(
    issuer: x509.Certificate,
    key: PrivateKey,
    revoked: Sequence[RevokedCertificate],
    *,
    number: int,
    this_update: int,
    next_update: int,
    partition: x509.DistributionPoint | None = None,
) -> bytes:
    """Return a signed revocation list in DER. With `partition`, the list names its distribution point, since it is only
    one partition (RFC 5280 section 5.2.5).
    """
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    entries = [_entry(one) for one in revoked]
    builder = (
        x509.CertificateRevocationListBuilder(revoked_certificates=entries)  # adding them one by one is quadratic
        .issuer_name(issuer.subject)
        .last_update(instant(this_update))
        .next_update(instant(next_update))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    if partition is not None:
        point = x509.IssuingDistributionPoint(
            full_name=partition.full_name,
            relative_name=None,
            only_contains_user_certs=True,
            only_contains_ca_certs=False,
            only_some_reasons=None,
            indirect_crl=False,
            only_contains_attribute_certs=False,
        )
        builder = builder.add_extension(point, critical=True)
    return builder.sign(key, hash_for(key)).public_bytes(Encoding.DER)


def _entry(revoked: RevokedCertificate) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder().serial_number(int(revoked.serial, 16)).revocation_date(instant(revoked.at))
    )
    if revoked.reason is not _UNSPECIFIED:
        builder = builder.add_extension(x509.CRLReason(revoked.reason), critical=False)
    return builder.build()
