"""Certificates of other parties: every part that the library cannot read is Malformed."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from harness.client_certificates import CLIENT, der, of_unknown_version, self_signed, with_repeated_extension
from ostiary.protocol.certificate import load_certificate, load_pem_certificates
from ostiary.protocol.errors import Malformed

MADE = self_signed(usages=[CLIENT])
GOOD = der(MADE.certificate)


def with_unknown_curve(certificate: x509.Certificate) -> bytes:
    """Name a curve that the library does not know in place of P-256."""
    return der(certificate).replace(bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d03017f"), 1)


def of_year_0(certificate: x509.Certificate) -> bytes:
    """A certificate that begins in a year that no `datetime` has."""
    begin, key = datetime(2050, 1, 1, tzinfo=UTC), ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(certificate.issuer, certificate.subject, key.public_key(), 1)
    made = builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=1)).sign(key, hashes.SHA256())
    return der(made).replace(b"20500101000000Z", b"00000101000000Z")


UNREADABLE: dict[str, Callable[[x509.Certificate], bytes]] = {
    "empty": lambda _: b"",
    "trailing bytes": lambda certificate: der(certificate) + b"\0",
    "unknown version": of_unknown_version,
    "repeated extension": with_repeated_extension,
    "unknown curve": with_unknown_curve,
    "year 0": of_year_0,
}


def test_a_certificate_is_read() -> None:
    assert load_certificate(GOOD) == MADE.certificate
    assert load_pem_certificates(MADE.pem * 2) == [MADE.certificate] * 2
    assert isinstance(load_certificate(GOOD).public_key(), ec.EllipticCurvePublicKey)


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_part_is_malformed(kind: str) -> None:
    unreadable = UNREADABLE[kind](MADE.certificate)
    assert unreadable != GOOD
    with pytest.raises(Malformed):
        load_certificate(unreadable)
    with pytest.raises(Malformed):
        load_pem_certificates(MADE.pem + ssl.DER_cert_to_PEM_cert(unreadable))


def test_text_without_a_certificate_is_malformed() -> None:
    with pytest.raises(Malformed, match="the text contains no certificate in PEM"):
        load_pem_certificates("no certificate")
    with pytest.raises(Malformed, match="a certificate in PEM cannot be read"):
        load_pem_certificates("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
