"""Certificates of agents, persons and servers: their records, and how they are built."""

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
"""kind of the holdings that stand for certificates"""
SERIAL_DIGITS = 32
SHARDS = 16
"""partitions of the revocation list of an authority"""
_USAGES: dict[Usage, x509.ObjectIdentifier] = {
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "email": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "code": ExtendedKeyUsageOID.CODE_SIGNING,
}


class Reason(StrEnum):
    """The reasons of a revocation that people and clients may state (RFC 5280 section 5.3.1)."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a certificate whose sender has proved possession of the key (`parse_csr`).

    The holder is an agent, a person, or the server itself (neither). `lifetime_s` is at most that of the profile; None:
    as long as the profile says. `replaces` is the serial of the certificate that this one renews.
    """

    profile: str
    public_key: bytes
    names: tuple[CertificateName, ...] = ()
    agent: str | None = None
    task: str | None = None
    person: str | None = None
    lifetime_s: int | None = None
    client_jkt: str | None = None
    """thumbprint of the key with which the caller proved itself: the certificate ends with that key"""
    replaces: str | None = None
    has_subject: bool = True
    """False for a certificate with an empty subject: ACME clients take a common name for the name of a host"""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The record of a certificate. Times in microseconds: it counts from `not_before` until `not_after`, exclusively.

    `holder` is an agent or a person, None for the server.
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
        """The SHA-256 of the certificate in base64url, as `x5t#S256` has it."""
        return thumbprint(self.der)

    def is_in_force(self, now: int) -> bool:
        """Return whether the certificate is neither revoked nor outside its validity at `now`."""
        return self.revoked_at is None and self.not_before <= now < self.not_after


class IssuedCertificate(NamedTuple):
    """A new certificate, with the chain up to the root, which is left out: DER each, the certificate first."""

    certificate: Certificate
    chain: tuple[bytes, ...]


def thumbprint(der: bytes) -> str:
    """Return the SHA-256 of a certificate in base64url."""
    return b64u(sha256(der).digest())


def holding_id(serial: str) -> str:
    """Return the id of the holding that stands for a certificate."""
    return f"ct_{serial}"


def make_serial(now: int, random: bytes) -> str:
    """Return a serial number as 32 hexadecimal digits: the milliseconds, and 80 random bits.

    Serials rise with time, so that new rows are neighbours in the database however many there are.
    """
    if len(random) != 10:
        raise ValueError("a serial takes 10 random bytes")
    return f"{now // 1000:012x}{random.hex()}"


def parse_serial(text: str) -> str:
    """Return a serial in its one spelling, from hexadecimal digits with or without colons. Raises Invalid."""
    digits = text.replace(":", "").lower()
    if not digits or len(digits) > 40 or any(digit not in "0123456789abcdef" for digit in digits):
        raise Invalid(f"{text[:64]!a} is not a serial number", hint="serial numbers are hexadecimal")
    return serial_text(int(digits, 16))


def serial_text(number: int) -> str:
    """Return the serial number of a certificate as records have it."""
    return f"{number:0{SERIAL_DIGITS}x}"


def shard_of(serial: str) -> int:
    """Return the partition of the revocation list that has the certificate."""
    return int(serial[-1], 16) % SHARDS


def encode_names(names: Sequence[CertificateName]) -> str:
    """Return names as a record stores them."""
    return " ".join(map(str, names))


@lru_cache(maxsize=4096)
def decode_names(text: str) -> tuple[CertificateName, ...]:
    """Return names from their stored form."""
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
    """Return a certificate in DER. All names are alternative names.

    The subject is an identifier, or empty; then the names are critical (RFC 5280 section 4.2.1.6).
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
