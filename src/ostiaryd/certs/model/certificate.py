"""Certificates of agents, persons and servers: their records, and their X.509 form."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from ostiary.protocol.errors import Invalid
from ostiary.protocol.jose import b64u
from ostiaryd.certs.model.authority import SIGNING_USAGE, AuthorityId, hash_for, instant, last_second, subject_of
from ostiaryd.certs.model.keys import PrivateKey, parse_public_key
from ostiaryd.certs.model.names import CertificateName, parse_name
from ostiaryd.certs.model.profiles import Usage

HOLDING = "certificate"
"""kind of the holdings that belong to certificates"""
SERIAL_DIGITS = 32
SHARDS = 16
"""number of partitions of an authority's revocation list"""
_USAGES: dict[Usage, x509.ObjectIdentifier] = {
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "email": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "code": ExtendedKeyUsageOID.CODE_SIGNING,
}


class Reason(StrEnum):
    """The revocation reasons that persons and clients may state (RFC 5280 section 5.3.1)."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a certificate. The sender has proved possession of the private key (`parse_csr`).

    The holder is an agent, a person, or the server itself (neither). `lifetime_s` is at most the lifetime of the
    profile; None: the lifetime of the profile. `replaces` is the serial number of the certificate that the new one
    renews.
    """

    profile: str
    public_key: bytes
    names: tuple[CertificateName, ...] = ()
    agent: str | None = None
    task: str | None = None
    person: str | None = None
    lifetime_s: int | None = None
    client_jkt: str | None = None
    """thumbprint of the key with which the caller authenticated; the certificate ends with that key"""
    replaces: str | None = None
    has_subject: bool = True
    """false for a certificate with an empty subject, because ACME clients treat a common name as a host name"""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a certificate, which is valid from `not_before` (inclusive) to `not_after` (exclusive), in
    microseconds.

    `holder` is an agent or a person; None for the server.
    """

    serial: str
    authority: AuthorityId
    profile: str
    holder: str | None
    task: str | None
    names: tuple[CertificateName, ...]
    key_type: str
    key_digest: str
    der: bytes
    not_before: int
    not_after: int
    issued_at: int
    revoked_at: int | None = None
    reason: str = ""

    @property
    def thumbprint(self) -> str:
        """The SHA-256 of the certificate in base64url, as in `x5t#S256`."""
        return thumbprint(self.der)

    def is_in_force(self, now: int) -> bool:
        """Return whether the certificate is not revoked and is within its validity at `now`."""
        return self.revoked_at is None and self.not_before <= now < self.not_after


class IssuedCertificate(NamedTuple):
    """A new certificate and its chain in DER, from the issuer up, without the root."""

    certificate: Certificate
    chain: tuple[bytes, ...]


def thumbprint(der: bytes) -> str:
    """Return the SHA-256 of a certificate in base64url."""
    return b64u(sha256(der).digest())


def holding_id(serial: str) -> str:
    """Return the id of the holding that belongs to a certificate."""
    return f"ct_{serial}"


def make_serial(now: int, random: bytes) -> str:
    """Return a serial number of 32 hexadecimal digits: the time in milliseconds, and 80 random bits.

    Serial numbers increase with time, so that new database rows are next to each other.
    """
    if len(random) != 10:
        raise ValueError("a serial takes 10 random bytes")
    return f"{now // 1000:012x}{random.hex()}"


def parse_serial(text: str) -> str:
    """Return a serial number in its normal form, from hexadecimal digits with or without colons. Raises Invalid."""
    digits = text.replace(":", "").lower()
    if not digits or len(digits) > 40 or any(digit not in "0123456789abcdef" for digit in digits):
        raise Invalid(f"{text[:64]!a} is not a serial number", hint="serial numbers are hexadecimal")
    return serial_text(int(digits, 16))


def serial_text(number: int) -> str:
    """Return the serial number of a certificate in the form that records use."""
    return f"{number:0{SERIAL_DIGITS}x}"


def shard_of(serial: str) -> int:
    """Return the partition of the revocation list that is responsible for a certificate."""
    return int(serial[-1], 16) % SHARDS


def encode_names(names: Sequence[CertificateName]) -> str:
    """Return names in the form that records use."""
    return " ".join(map(str, names))


@lru_cache(maxsize=4096)
def decode_names(text: str) -> tuple[CertificateName, ...]:
    """Return names from the form that records use."""
    return tuple(map(parse_name, text.split()))


def build_certificate(
    *,
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    serial: str,
    subject: str,
    public_key: bytes,
    names: Sequence[CertificateName],
    usages: Sequence[Usage],
    not_before: int,
    not_after: int,
    locations: Sequence[x509.ExtensionType] = (),
) -> bytes:
    """Return a signed certificate in DER. All names are subject alternative names.

    The subject is an identifier, or empty. If it is empty, the extension with the names is critical (RFC 5280 section
    4.2.1.6).
    """
    key = parse_public_key(public_key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject_of(subject) if subject else x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(int(serial, 16))
        .not_valid_before(instant(not_before))
        .not_valid_after(last_second(not_after))
        .add_extension(_LEAF, critical=True)
        .add_extension(SIGNING_USAGE, critical=True)
        .add_extension(_extended(tuple(usages)), critical=False)
        .add_extension(x509.SubjectAlternativeName([name.encode() for name in names]), critical=not subject)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_authority_key_id(issuer), critical=False)
    )
    for location in locations:
        builder = builder.add_extension(location, critical=False)
    return builder.sign(issuer_key, hash_for(issuer_key)).public_bytes(Encoding.DER)


@lru_cache(maxsize=64)
def _extended(usages: tuple[Usage, ...]) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage([_USAGES[usage] for usage in usages])


@lru_cache(maxsize=64)
def _authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


_LEAF = x509.BasicConstraints(ca=False, path_length=None)
