"""Certificates of other parties (X.509, RFC 5280): decoded completely, and not verified.

The library `cryptography` decodes a certificate lazily, and raises various errors for a wrong version, a repeated
extension, an unknown kind of name, or an unknown kind of key. This module raises Malformed instead of each of them.
"""

from __future__ import annotations

from typing import Literal

from cryptography import x509

from ostiary.protocol.errors import Malformed

KeyType = Literal["P-256", "P-384", "Ed25519", "RSA-2048", "RSA-3072", "RSA-4096"]
"""The types of keys that certificates and certificate authorities can have."""


def load_certificate(der: bytes) -> x509.Certificate:
    """Return a certificate in DER whose extensions, key, names and times can be read. Raises Malformed for any other
    certificate.
    """
    try:
        return _check_readable(x509.load_der_x509_certificate(der))
    except Exception as error:  # noqa: BLE001 because the errors of the library have no class in common
        raise Malformed(f"the certificate cannot be read ({type(error).__name__})") from None


def load_pem_certificates(text: str) -> list[x509.Certificate]:
    """Return the certificates in a PEM text. Raises Malformed if there is none, or if one of them cannot be read
    completely.
    """
    if " CERTIFICATE-----" not in text:
        raise Malformed("the text contains no certificate in PEM")
    try:
        return [_check_readable(one) for one in x509.load_pem_x509_certificates(text.encode())]
    except Exception as error:  # noqa: BLE001 as above
        raise Malformed(f"a certificate in PEM cannot be read ({type(error).__name__})") from None


def _check_readable(certificate: x509.Certificate) -> x509.Certificate:
    _ = certificate.extensions, certificate.public_key(), certificate.subject, certificate.issuer
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc  # a year 0 cannot be represented
    return certificate
