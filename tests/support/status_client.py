"""The status of certificates as relying parties read it: questions to OCSP, and revocation lists that were verified."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from starlette.types import ASGIApp

from ostiaryd.certs.model import IssuedCertificate
from tests.support.api_fixtures import send
from tests.support.certificate_fixtures import read

GOOD, REVOKED = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED


def question(
    issued: IssuedCertificate, *, nonce: bytes | None = None, algorithm: hashes.SHA1 | hashes.SHA256 | None = None
) -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        read(issued.certificate.der), read(issued.chain[0]), algorithm or hashes.SHA256()
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


async def post(app: ASGIApp, body: bytes) -> ocsp.OCSPResponse:
    answer = await send(app, "POST", "/ocsp", headers=[("content-type", "application/ocsp-request")], body=body)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/ocsp-response")
    return ocsp.load_der_ocsp_response(answer.body)


async def get_crl(app: ASGIApp, url: str) -> x509.CertificateRevocationList:
    answer = await send(app, "GET", url)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/pkix-crl")
    return x509.load_der_x509_crl(answer.body)


async def list_revoked(app: ASGIApp, issued: IssuedCertificate) -> dict[str, x509.ReasonFlags | None]:
    """Return the serial numbers and reasons in the complete list of the issuer, after verifying it."""
    crl = await get_crl(app, f"/ca/{issued.certificate.authority}/crl")
    key = read(issued.chain[0]).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(key)
    return {f"{one.serial_number:032x}": reason_of(one) for one in crl}


def reason_of(entry: x509.RevokedCertificate) -> x509.ReasonFlags | None:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return None
