"""The chain of an intermediate that an external root certified: checks that fail if clients would refuse every
certificate of the intermediate (RFC 5280 section 6.1).
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from ostiary.protocol.errors import Invalid
from ostiaryd.certs.model.authority import (
    ASK_OWNER,
    check_constraints,
    is_permitted,
    microseconds,
    read_end,
    read_permitted,
)
from ostiaryd.certs.model.keys import PublicKey, parse_public_key
from ostiaryd.certs.model.names import CertificateName, NameKind

MAX_CHAIN = 5
"""maximum number of certificates in an imported chain"""
_TLS = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH})


def check_chain(chain: Sequence[x509.Certificate], *, now: int) -> tuple[str, ...]:
    """Check a chain from an intermediate of this server to its root. Return the DNS names that all certificates of the
    chain permit; empty if no certificate limits the names.

    1. Each certificate is signed by the next one, the root by its own key. Each certificate belongs to an authority,
    and is valid at `now` (microseconds). 2. No certificate has a path length below the number of authorities under it,
    an unknown critical extension, an `extendedKeyUsage` without TLS clients and servers, or name constraints other than
    permitted DNS names. 3. The intermediate may sign revocation lists, and states its key identifier, which its
    certificates repeat.

    Raises Invalid for a chain that breaks one of these rules, or does not have 2 to `MAX_CHAIN` certificates.
    """
    if not 2 <= len(chain) <= MAX_CHAIN:
        raise Invalid(f"the chain must have 2 to {MAX_CHAIN} certificates, from the intermediate to the root")
    permitted: tuple[str, ...] = ()
    for place, certificate in enumerate(chain):
        _check_authority(certificate, chain[min(place + 1, len(chain) - 1)], now=now)
        _check_limits(certificate, chain[:place])
        check_constraints(certificate)
        permitted = _intersect(permitted, read_permitted(certificate))
    extensions = chain[0].extensions
    if not extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
        raise Invalid(
            f"the certificate `{_name(chain[0])}` does not allow revocation lists (`cRLSign`)", hint=ASK_OWNER
        )
    if not any(isinstance(one.value, x509.SubjectKeyIdentifier) for one in extensions):
        raise Invalid(f"the certificate `{_name(chain[0])}` has no subjectKeyIdentifier", hint=ASK_OWNER)
    return permitted


def public_key_of(certificate: x509.Certificate) -> PublicKey:
    """Return the public key of a certificate. Raises BadKey if keys of its type are not certified."""
    return parse_public_key(certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _check_authority(certificate: x509.Certificate, issuer: x509.Certificate, *, now: int) -> None:
    """Check that a certificate is an authority's, valid now, and signed by `issuer`. Raises Invalid otherwise."""
    name = _name(certificate)
    try:
        certificate.verify_directly_issued_by(issuer)
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        raise Invalid(f"the certificate `{name}` has no basicConstraints or no keyUsage") from None
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise Invalid(
            f"the certificate `{name}` is not signed by the next one",
            hint="order the certificates from the intermediate to the root",
        ) from None
    if not (is_authority and usage.key_cert_sign):
        raise Invalid(f"the certificate `{name}` is not of an authority")
    if not microseconds(certificate.not_valid_before_utc) <= now < read_end(certificate):
        raise Invalid(f"the certificate `{name}` is not valid now")
    public_key_of(certificate)


def _check_limits(certificate: x509.Certificate, below: Sequence[x509.Certificate]) -> None:
    """Check that a certificate permits the authorities `below` it in the chain, and TLS certificates that these
    authorities issue. Raises Invalid otherwise.
    """
    counted = sum(one.subject != one.issuer for one in below)  # RFC 5280 section 4.2.1.9: without self-issued
    for extension in certificate.extensions:
        match extension.value:
            case x509.BasicConstraints(path_length=int(length)) if length < counted:
                problem = f"allows {length} authorities below it (pathLenConstraint), and the chain has {counted}"
            case x509.ExtendedKeyUsage() as usages if (
                not set(usages) >= _TLS and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usages
            ):
                problem = "does not allow TLS clients and TLS servers (extendedKeyUsage)"
            case x509.UnrecognizedExtension() if extension.critical:
                problem = f"has the unknown critical extension {extension.oid.dotted_string}"
            case _:
                continue
        raise Invalid(f"the certificate `{_name(certificate)}` {problem}", hint=ASK_OWNER)


def _intersect(some: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """Return the DNS names that two name constraints both permit; an empty constraint permits every name. Raises
    Invalid if the constraints have no name in common.
    """
    if not (some and others):
        return some or others
    both = dict.fromkeys(
        one
        for ones, limit in ((some, others), (others, some))
        for one in ones
        if is_permitted(limit, CertificateName(NameKind.DNS, one.removeprefix("dns:")))
    )
    if not both:
        raise Invalid("the name constraints of the chain have no name in common", hint=ASK_OWNER)
    return tuple(both)


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:100]
