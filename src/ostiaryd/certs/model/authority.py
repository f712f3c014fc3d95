"""Authorities: the root, its intermediates, and their OCSP responders; each has one key and one certificate.

    pending --> active --rotation--> retired --its last certificate has expired--> gone
                   +---------------------+--revocation--> revoked --its own certificate has expired--> gone

At most one root and one intermediate are active. The trust bundle contains all roots. An intermediate that an external
root certifies is pending until its certificate is imported. A new root is pending, and already in the trust bundle, for
some time before it signs. The previous root cross-certifies the new root, for clients that have only the old bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256, sha384
from typing import Any, NamedTuple, NewType

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ostiary.protocol.errors import Invalid
from ostiaryd.certs.model.keys import PrivateKey, PublicKey
from ostiaryd.certs.model.names import CertificateName, NameKind, parse_name

AuthorityId = NewType("AuthorityId", str)
SECOND = 1_000_000
BACKDATED_S = 60
"""Seconds by which the validity of a certificate begins before its issuance, for clients whose clocks are slow."""
ASK_OWNER = "ask the owner of the root for another certificate"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AuthorityKind(StrEnum):
    ROOT = "root"
    INTERMEDIATE = "intermediate"
    RESPONDER = "responder"
    EXTERNAL = "external"
    """an authority between an external root and the intermediate"""


class AuthorityState(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"
    """revoked, a state of intermediates only: the revocation list of the root contains the intermediate, and
    certificates that it issued are refused
    """


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """An authority, valid from `not_before` (inclusive) to `not_after` (exclusive), in microseconds.

    `parent` is the id of the authority that signed its certificate; for a root, the id of the root that cross-certified
    it, or None. The private key is `sealed` (encrypted with the keyring), or in the HSM under the id `hsm_key`. An
    external authority has neither, so this server cannot sign with it. `certificate` is empty while an intermediate is
    pending.
    """

    authority_id: AuthorityId
    kind: AuthorityKind
    state: AuthorityState
    parent: AuthorityId | None
    subject: str
    key_type: str
    certificate: bytes
    cross_certificate: bytes | None = None
    """certificate of a root's key that the previous root signed, for clients that have only the previous root"""
    sealed: bytes | None
    hsm_key: str | None = None
    permitted: tuple[str, ...] = ()
    """names that the authority may certify, such as `dns:example.com`, with all names below (RFC 5280 section
    4.2.1.10); empty: all names
    """
    not_before: int
    not_after: int
    created_at: int
    retired_at: int | None = None
    active_from: int | None = None
    """time (microseconds) from which a pending root may become active"""
    revoked_at: int | None = None
    reason: str = ""
    """reason of the revocation, by its name in X.509"""

    @property
    def has_key(self) -> bool:
        """Return whether the server can sign with the key of the authority."""
        return self.sealed is not None or self.hsm_key is not None


def instant(time: int) -> datetime:
    """Return a time in microseconds since the epoch as a datetime, rounded down to whole seconds, as X.509 needs it."""
    return _EPOCH + timedelta(seconds=time // SECOND)


def last_second(end: int) -> datetime:
    """Return the `notAfter` of a certificate that ends at `end` (microseconds, exclusive): the last whole second of its
    validity (RFC 5280 section 4.1.2.5).
    """
    return instant(end - SECOND)


def microseconds(time: datetime) -> int:
    """Return a time in a certificate as microseconds since the epoch."""
    return round((time - _EPOCH).total_seconds()) * SECOND


def read_begin(certificate: x509.Certificate) -> int:
    """Return the beginning of a certificate's validity in microseconds since the epoch."""
    return microseconds(certificate.not_valid_before_utc)


def read_end(certificate: x509.Certificate) -> int:
    """Return the end of a certificate's validity (exclusive) in microseconds since the epoch."""
    return microseconds(certificate.not_valid_after_utc) + SECOND


def hash_for(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | None:
    """Return the hash function for signatures with a key; None for Ed25519."""
    match key:
        case ec.EllipticCurvePrivateKey():
            return _ECDSA[key.curve.key_size].algorithm
        case rsa.RSAPrivateKey():
            return hashes.SHA256()
        case ed25519.Ed25519PrivateKey():
            return None


@lru_cache(maxsize=64)
def signature_scheme(key: PrivateKey) -> tuple[bytes, Callable[[bytes], bytes]]:
    """Return the AlgorithmIdentifier in DER of the signatures of an authority (RFC 5758 section 3.2, RFC 4055
    section 5, RFC 8410), and the function that signs a text. Cached, since an authority has one key.
    """
    match key:
        case ec.EllipticCurvePrivateKey():
            identifier, digest, algorithm = _ECDSA[key.curve.key_size]
            ecdsa = ec.ECDSA(Prehashed(algorithm))
            return identifier, lambda text: key.sign(digest(text).digest(), ecdsa)
        case rsa.RSAPrivateKey():
            return _RSA_SHA256, lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        case ed25519.Ed25519PrivateKey():
            return _ED25519, key.sign


class _Ecdsa(NamedTuple):
    identifier: bytes
    digest: Callable[[bytes], Any]
    algorithm: hashes.SHA256 | hashes.SHA384


_ECDSA = {
    256: _Ecdsa(bytes.fromhex("300a06082a8648ce3d040302"), sha256, hashes.SHA256()),
    384: _Ecdsa(bytes.fromhex("300a06082a8648ce3d040303"), sha384, hashes.SHA384()),
}
"""The signatures of keys on an elliptic curve, by the length of the curve in bits. `identifier`: the
AlgorithmIdentifier in DER.
"""
_RSA_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
_ED25519 = bytes.fromhex("300506032b6570")


def subject_of(text: str) -> x509.Name:
    """Return the X.509 name whose only attribute is the common name `text`."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def build_authority_certificate(
    *,
    subject: x509.Name,
    key: PublicKey,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    issuer_key_id: x509.SubjectKeyIdentifier | None,
    serial: int,
    not_before: int,
    not_after: int,
    path_length: int | None,
    permitted: Sequence[str] = (),
    trust_domain: str = "",
    locations: Sequence[x509.ExtensionType] = (),
) -> bytes:
    """Return the certificate of a root or an intermediate in DER (RFC 5280 section 4.2)."""
    own_id = x509.SubjectKeyIdentifier.from_public_key(key)
    authority_id = own_id if issuer_key_id is None else issuer_key_id
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(instant(not_before))
        .not_valid_after(last_second(not_after))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(own_id, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_id), critical=False)
    )
    if trust_domain:
        spiffe = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
        builder = builder.add_extension(x509.SubjectAlternativeName([spiffe]), critical=False)
    if permitted:
        subtrees = [x509.DNSName(text.removeprefix("dns:")) for text in permitted]
        builder = builder.add_extension(x509.NameConstraints(subtrees, None), critical=True)
    for location in locations:
        builder = builder.add_extension(location, critical=False)
    return builder.sign(issuer_key, hash_for(issuer_key)).public_bytes(Encoding.DER)


def build_responder_certificate(
    *,
    subject: str,
    key: PublicKey,
    issuer: x509.Certificate,
    issuer_key: PrivateKey,
    serial: int,
    not_before: int,
    not_after: int,
) -> bytes:
    """Return the certificate of a delegated OCSP responder in DER (RFC 6960 section 4.2.2.2)."""
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject_of(subject))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(instant(not_before))
        .not_valid_after(last_second(not_after))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(SIGNING_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=False)
        .add_extension(x509.OCSPNoCheck(), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False)
    )
    return builder.sign(issuer_key, hash_for(issuer_key)).public_bytes(Encoding.DER)


def check_permitted(permitted: Sequence[str]) -> tuple[str, ...]:
    """Return the names to which a new authority is limited, in their normal form. Raises Invalid for a name that is not
    a DNS name, or is a wildcard.
    """
    names = tuple(map(parse_name, permitted))
    if wrong := [name for name in names if name.kind is not NameKind.DNS or name.is_wildcard]:
        message = f"an authority can be limited to DNS names without `*`, and not to {str(wrong[0])[:100]!a}"
        raise Invalid(message, hint="write a name as dns:example.com, which includes the names below")
    return tuple(map(str, names))


def check_constraints(certificate: x509.Certificate) -> None:
    """Check that the name constraints in the certificate of another authority are permitted DNS names, which may begin
    with a dot. Raises Invalid otherwise.
    """
    for text in read_permitted(certificate):
        try:
            check_permitted([text.replace("dns:.", "dns:", 1)])
        except Invalid:
            name, host = certificate.subject.rfc4514_string()[:100], text.removeprefix("dns:")[:100]
            raise Invalid(
                f"the name constraints of `{name}` permit {host!a}, which is not a DNS name", hint=ASK_OWNER
            ) from None


def read_permitted(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names that the certificate of an authority permits; empty if it permits every name. Raises Invalid
    for other kinds of name constraints.

    A name may begin with a dot, which RFC 5280 does not define for DNS names: it permits only the names below.
    """
    try:
        limits = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return ()
    permitted = limits.permitted_subtrees or []
    if limits.excluded_subtrees or any(not isinstance(one, x509.DNSName) for one in permitted):
        raise Invalid("the certificate has name constraints other than permitted DNS names", hint=ASK_OWNER)
    hosts = [one.value.lower() for one in permitted]
    return () if "" in hosts else tuple(f"dns:{host}" for host in hosts)


def is_permitted(permitted: Sequence[str], name: CertificateName) -> bool:
    """Return whether an authority that is limited to `permitted` may certify the name. The limit applies only to DNS
    names (RFC 5280).

    A limit that begins with a dot does not permit the name after the dot, because OpenSSL, Go and other verifiers
    refuse that name.
    """
    if not permitted or name.kind is not NameKind.DNS:
        return True
    hosts = (text.removeprefix("dns:") for text in permitted)
    return any(name.value == host or name.value.endswith(f".{host.removeprefix('.')}") for host in hosts)


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


_CA_USAGE = _key_usage(is_authority=True)
SIGNING_USAGE = _key_usage(is_authority=False)
