"""Certificates of agents, persons and servers: their records, and their X.509 form."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from ostiary.protocol.errors import Invalid
from ostiary.protocol.jose import b64u
from ostiaryd.certs.model.authority import (
    SIGNING_USAGE,
    AuthorityId,
    instant,
    last_second,
    signature_scheme,
    subject_of,
)
from ostiaryd.certs.model.keys import PrivateKey, check_public_key
from ostiaryd.certs.model.names import CertificateName, NameKind
from ostiaryd.certs.model.profiles import Usage

HOLDING = "certificate"
"""kind of the holdings that are certificates"""
SERIAL_DIGITS = 32
SHARDS = 16
"""number of partitions of each authority's revocation list"""
_USAGES: dict[Usage, x509.ObjectIdentifier] = {
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "email": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "code": ExtendedKeyUsageOID.CODE_SIGNING,
}


class RevocationReason(StrEnum):
    """The revocation reasons that callers may state (RFC 5280 section 5.3.1)."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a certificate, whose sender has proved possession of the private key (`parse_csr`).

    The holder is `agent` or `person`; if both are None, the server itself. `lifetime_s`: None requests the lifetime of
    the profile, which is also the maximum. `replaces` is the serial number of the certificate that the new certificate
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
    """thumbprint of the key with which the caller authenticated; the certificate ends when this key is revoked"""
    replaces: str | None = None
    has_subject: bool = True
    """False for a certificate with an empty subject, because ACME clients treat a common name as a host name"""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A stored certificate, valid from `not_before` (inclusive) to `not_after` (exclusive), in microseconds since the
    epoch.

    `holder` is the id of an agent or a person; None for the server.
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
        """Return the SHA-256 of the certificate in base64url, as in the claim `x5t#S256`."""
        return thumbprint(self.der)

    def is_in_force(self, now: int) -> bool:
        """Return whether the certificate is not revoked, and `now` (microseconds) is within its validity."""
        return self.revoked_at is None and self.not_before <= now < self.not_after


class IssuedCertificate(NamedTuple):
    """A new certificate, and its chain in DER: the certificates of the authorities from the issuer up, without the
    root.
    """

    certificate: Certificate
    chain: tuple[bytes, ...]


@lru_cache(maxsize=128)
def thumbprint(der: bytes) -> str:
    """Return the SHA-256 of a certificate in base64url. Cached, because one issuance needs it several times."""
    return b64u(sha256(der).digest())


def holding_id(serial: str) -> str:
    """Return the id of the holding (the record of an issued credential, which ends with its holder) of the certificate
    with this serial number.
    """
    return f"ct_{serial}"


def make_serial(now: int, random: bytes) -> str:
    """Return a serial number of 32 hexadecimal digits: the time `now` in milliseconds, and 80 random bits (10 bytes).

    Serial numbers increase with time, so new database rows are stored side by side.
    """
    if len(random) != 10:
        raise ValueError("a serial number needs 10 random bytes")
    return f"{now // 1000:012x}{random.hex()}"


def parse_serial(text: str) -> str:
    """Return a serial number in its normal form: hexadecimal digits in lower case. The text may have colons. Raises
    Invalid for other text.
    """
    digits = text.replace(":", "").lower()
    if not digits or len(digits) > 40 or any(digit not in "0123456789abcdef" for digit in digits):
        raise Invalid(f"{text[:64]!a} is not a serial number", hint="serial numbers are hexadecimal")
    return serial_text(int(digits, 16))


def serial_text(number: int) -> str:
    """Return the serial number of an X.509 certificate as records store it: 32 hexadecimal digits."""
    return f"{number:0{SERIAL_DIGITS}x}"


def shard_of(serial: str) -> int:
    """Return the number of the partition of the revocation list that contains the certificate with this
    serial number.
    """
    return int(serial[-1], 16) % SHARDS


@lru_cache(maxsize=4096)
def encode_names(names: tuple[CertificateName, ...]) -> str:
    """Return names as the text that records store."""
    return " ".join(map(str, names))


@lru_cache(maxsize=4096)
def decode_names(text: str) -> tuple[CertificateName, ...]:
    """Return the names in the text that records store. The names are not checked again."""
    stored = (name.partition(":") for name in text.split())
    return tuple(CertificateName(NameKind(kind), value) for kind, _, value in stored)


def build_certificate(
    *,
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    serial: str,
    subject: str | x509.Name,
    public_key: bytes,
    names: tuple[CertificateName, ...],
    usages: tuple[Usage, ...],
    not_before: int,
    not_after: int,
    locations: bytes = b"",
    key_usage: x509.KeyUsage = SIGNING_USAGE,
) -> bytes:
    """Return a signed certificate in DER (RFC 5280 section 4.1). All names are subject alternative names.

    The subject is an identifier, a distinguished name, or empty. If it is empty, the extension with the names is
    critical (RFC 5280 section 4.2.1.6). `locations` are further extensions (`encode_extension`). The builder of
    `cryptography` makes the same bytes in three times the time.
    """
    issuer_name, issuer_key_id = _encode_issuer(issuer)
    algorithm, sign = signature_scheme(issuer_key)
    limits = _SIGNING_ONLY if key_usage is SIGNING_USAGE else encode_extension(key_usage, is_critical=True)
    extensions = _der(
        _SEQUENCE,
        _encode_first_extensions(limits, usages, names, has_subject=bool(subject)),
        check_public_key(public_key).key_id,
        issuer_key_id,
        locations,
    )
    content = _der(
        _SEQUENCE,
        _VERSION_3,
        _encode_integer(int(serial, 16)),
        algorithm,
        issuer_name,
        _encode_validity(not_before, not_after),
        _encode_subject(subject),
        public_key,
        _der(_EXTENSIONS, extensions),
    )
    signature = _der(_BIT_STRING, b"\0", sign(content))
    return _der(_SEQUENCE, content, algorithm, signature)


def encode_extension(value: x509.ExtensionType, *, is_critical: bool = False) -> bytes:
    """Return an extension in DER. Each number in the identifier of the extension must be below 128, so that it takes
    one byte.
    """
    first, second, *arcs = map(int, value.oid.dotted_string.split("."))
    identifier = _der(_OBJECT_IDENTIFIER, bytes((40 * first + second, *arcs)))
    return _der(_SEQUENCE, identifier, _TRUE if is_critical else b"", _der(_OCTET_STRING, value.public_bytes()))


_INTEGER, _BIT_STRING, _OCTET_STRING, _OBJECT_IDENTIFIER, _SEQUENCE, _EXTENSIONS = 0x02, 0x03, 0x04, 0x06, 0x30, 0xA3
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_TRUE, _VERSION_3 = bytes.fromhex("0101ff"), bytes.fromhex("a003020102")


def _der(tag: int, *parts: bytes) -> bytes:
    """Return an element in DER (X.690 section 8.1): its tag, its length, and the parts of its content."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return b"%c%c%b" % (tag, size, content)
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return b"%c%c%b%b" % (tag, 0x80 | len(length), length, content)


def _encode_integer(number: int) -> bytes:
    return _der(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1))


@lru_cache(maxsize=256)
def _encode_validity(not_before: int, not_after: int) -> bytes:
    return _der(_SEQUENCE, _encode_time(instant(not_before)), _encode_time(last_second(not_after)))


def _encode_time(time: datetime) -> bytes:
    """Return a time of a validity in DER: UTCTime until 2049, then GeneralizedTime (RFC 5280 section 4.1.2.5)."""
    if time.year < 2050:
        return _der(_UTC_TIME, f"{time:%y%m%d%H%M%SZ}".encode())
    return _der(_GENERALIZED_TIME, f"{time:%Y%m%d%H%M%SZ}".encode())


@lru_cache(maxsize=4096)
def _encode_subject(subject: str | x509.Name) -> bytes:
    if isinstance(subject, str):
        subject = subject_of(subject) if subject else x509.Name([])
    return subject.public_bytes()


@lru_cache(maxsize=4096)
def _encode_first_extensions(
    limits: bytes, usages: tuple[Usage, ...], names: tuple[CertificateName, ...], *, has_subject: bool
) -> bytes:
    """Return, in DER, the extensions of a certificate up to the 20 bytes of the identifier of its key. `limits`: the
    extension with the usages of the key.
    """
    extended, alternative = b"", b""
    if usages:
        extended = encode_extension(x509.ExtendedKeyUsage([_USAGES[usage] for usage in usages]))
    if names:
        general = x509.SubjectAlternativeName([name.encode() for name in names])
        alternative = encode_extension(general, is_critical=not has_subject)
    return _NO_AUTHORITY + limits + extended + alternative + _KEY_ID_BEGIN


@lru_cache(maxsize=64)
def _encode_issuer(issuer: x509.Certificate) -> tuple[bytes, bytes]:
    """Return, in DER, the name of an issuer, and the extension with the identifier of the issuer's key."""
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    key_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    return issuer.subject.public_bytes(), encode_extension(key_id)


_KEY_ID_BEGIN = bytes.fromhex("301d0603551d0e04160414")
"""The extension with the identifier of the subject's key, up to the 20 bytes of the identifier."""
_SIGNING_ONLY = encode_extension(SIGNING_USAGE, is_critical=True)
_NO_AUTHORITY = encode_extension(x509.BasicConstraints(ca=False, path_length=None), is_critical=True)
