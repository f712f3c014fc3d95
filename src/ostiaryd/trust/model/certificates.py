"""Client authentication by certificate: mutual TLS for OAuth (RFC 8705).

A client of the method `tls_client_auth` is identified by the subject in its certificate, which leads to a trust anchor:
the distinguished name, or one alternative name. A client of `self_signed_tls_client_auth` is identified by the
certificates that it registered.

Stricter than RFC 8705 section 2.1: the certificate must have exactly one alternative name of the registered kind, so
that one certificate cannot identify two clients. Stricter than section 2.2: a self-signed certificate is accepted only
while it is valid.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from ostiary.protocol import jose
from ostiary.protocol.certificate import load_certificate, load_pem_certificates
from ostiary.protocol.client_certificate import MAX_CERTIFICATE, MAX_CHAIN, ClientCertificate
from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.uri import MAX_URI

TLS_CLIENT_AUTH, SELF_SIGNED = "tls_client_auth", "self_signed_tls_client_auth"
MAX_ANCHORS = 100
MAX_CERTIFICATES = 10
"""Maximum number of registered certificates of one client."""
MAX_ADMITTED = 1000
"""Maximum number of registered certificates of all agents together, and of all other clients together, because a TLS
listener loads each certificate.
"""
_SECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_CHECK_TIME = 0x200000
_PATH_FLAGS = crypto.X509StoreFlags.PARTIAL_CHAIN | crypto.X509StoreFlags.POLICY_CHECK | _NO_CHECK_TIME
"""Flags for OpenSSL. It checks certificate policies without accepting any, so a path that requires a policy is refused
(RFC 5280 section 6.1.1).
"""
_WEAK = (hashes.MD5, hashes.SHA1)
_DNS = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")


class SubjectKind(StrEnum):
    """The kind of the expected subject of a client's certificate, by its member in the client metadata (RFC 8705
    section 2.1.2).
    """

    DN = "tls_client_auth_subject_dn"
    DNS = "tls_client_auth_san_dns"
    URI = "tls_client_auth_san_uri"
    IP = "tls_client_auth_san_ip"
    EMAIL = "tls_client_auth_san_email"


class CertificateClient(NamedTuple):
    """The method by which a client authenticates by certificate. `kind` and `value` are the expected subject; both are
    empty for registered certificates.

    `is_bound`: every access token of the client is bound to its certificate (RFC 8705 section 3.4).
    """

    client: str
    method: str
    kind: str
    value: str
    is_bound: bool
    since: int


class TrustAnchor(NamedTuple):
    """An authority whose certificates authenticate clients. `is_own`: the authority is a root of this server."""

    digest: str
    name: str
    certificate: str
    is_own: bool
    added_at: int


class InvalidCertificate(Invalid):
    """The certificate of a client or of a trust anchor is not accepted."""

    code = "invalid_certificate"


def digest_of(certificate: x509.Certificate) -> str:
    """Return the digest `x5t#S256` of a certificate: SHA-256 in base64url."""
    return jose.b64u(sha256(certificate.public_bytes(Encoding.DER)).digest())


def parse_pem(text: str) -> x509.Certificate:
    """Return the certificate in a PEM text that contains exactly one. Raises InvalidCertificate for other text."""
    if len(text) > 2 * MAX_CERTIFICATE:
        raise InvalidCertificate(
            f"the text with the certificate is longer than {2 * MAX_CERTIFICATE} characters",
            hint="send one `CERTIFICATE` block",
        )
    try:
        [certificate] = load_pem_certificates(text)
    except (ValueError, Malformed):
        raise InvalidCertificate(
            "the text does not contain exactly one certificate in PEM", hint="send one `CERTIFICATE` block"
        ) from None
    return certificate


def parse_chain(text: str) -> ClientCertificate:
    """Return the client certificate in a PEM text: the first certificate, with the following ones as its chain. Raises
    InvalidCertificate for other text, and for a chain that is too long.
    """
    if len(text) > (longest := 2 * MAX_CERTIFICATE * (MAX_CHAIN + 1)):
        raise InvalidCertificate(f"the text with the certificate is longer than {longest} characters")
    try:
        leaf, *chain = load_pem_certificates(text)
    except (ValueError, Malformed):
        raise InvalidCertificate("the certificate is not readable PEM", hint="send `CERTIFICATE` blocks") from None
    if len(chain) > MAX_CHAIN:
        raise InvalidCertificate(f"more than {MAX_CHAIN} certificates follow the first certificate")
    ders = [one.public_bytes(Encoding.DER) for one in (leaf, *chain)]
    return ClientCertificate(ders[0], tuple(ders[1:]))


def render_pem(certificate: x509.Certificate) -> str:
    """Return a certificate in PEM."""
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def check_anchor(certificate: x509.Certificate, *, now: int) -> None:
    """Check that a certificate belongs to an authority and can sign client certificates at `now` (microseconds). Raises
    InvalidCertificate if not.
    """
    if not _is_authority(certificate):
        raise InvalidCertificate(
            "the certificate is not that of an authority",
            hint="name the certificate of the authority that signs the client certificates: it has CA:TRUE in"
            " `basicConstraints`",
        )
    check_time(certificate, now=now)
    _check_strength(certificate, of="the authority")


def check_time(certificate: x509.Certificate, *, now: int) -> None:
    """Check that a certificate is valid at `now` (microseconds). Raises InvalidCertificate otherwise."""
    if now < _micros(certificate.not_valid_before_utc):
        raise InvalidCertificate("the certificate is not valid yet", hint="compare the clocks of both machines")
    if now >= expiry_of(certificate):
        raise InvalidCertificate("the certificate has expired", hint="renew the certificate")


def expiry_of(certificate: x509.Certificate) -> int:
    """Return the expiry of a certificate in microseconds: the end of its last valid second (RFC 5280 section
    4.1.2.5).
    """
    return _micros(certificate.not_valid_after_utc) + _SECOND


def _micros(at: datetime) -> int:
    return int((at - _EPOCH).total_seconds()) * _SECOND


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints, usage = _extension(certificate, x509.BasicConstraints), _extension(certificate, x509.KeyUsage)
    return constraints is not None and constraints.ca and (usage is None or usage.key_cert_sign)


def _extension(certificate: x509.Certificate, kind: type[Any]) -> Any:
    """Return the value of an extension; None if the certificate does not have the extension."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _check_strength(certificate: x509.Certificate, *, of: str) -> None:
    """Check that the key and the signature algorithm of a certificate are strong enough. `of` names the certificate in
    errors. Raises InvalidCertificate if the check fails.
    """
    key = certificate.public_key()
    is_strong = isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
    is_strong |= isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048
    is_strong |= isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size >= 256
    if not is_strong:
        hint = "use RSA with at least 2048 bits, an elliptic curve with at least 256 bits, or Ed25519"
        raise InvalidCertificate(f"{of} has a weak key", hint=hint)
    try:
        algorithm = certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        hint = "sign the certificate with SHA-256"
        raise InvalidCertificate(f"{of} is signed with an algorithm that cannot be read", hint=hint) from None
    if isinstance(algorithm, _WEAK):
        raise InvalidCertificate(f"{of} is signed with MD5 or SHA-1", hint="sign the certificate with SHA-256")


# --- the subject of `tls_client_auth`


def check_subject(members: Mapping[str, str]) -> tuple[SubjectKind, str]:
    """Return the kind and the canonical form of the expected subject that the client metadata contain (members of RFC
    8705 section 2.1.2).

    Raises InvalidCertificate, also if there is no subject or more than one.
    """
    named = [(kind, members[kind]) for kind in SubjectKind if members.get(kind)]
    if len(named) != 1:
        hint = f"send exactly one of {', '.join(SubjectKind)}"
        raise InvalidCertificate(
            f"`{TLS_CLIENT_AUTH}` needs exactly one subject, but {len(named)} were sent", hint=hint
        )
    [(kind, text)] = named
    if len(text) > MAX_URI:
        raise InvalidCertificate(f"`{kind}` has more than {MAX_URI} characters")
    try:
        value = _canonical(kind, text)
    except ValueError:
        raise InvalidCertificate(f"`{kind}` {text[:100]!a} is not valid", hint=_HINTS[kind]) from None
    return kind, value


NAME_ATTRIBUTES = {
    NameOID.COMMON_NAME: "CN",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.COUNTRY_NAME: "C",
    NameOID.STREET_ADDRESS: "STREET",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.USER_ID: "UID",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.GIVEN_NAME: "givenName",
    NameOID.SURNAME: "SN",
}
"""Short names of attribute types: those of RFC 4514 section 3, and others that client certificates often contain."""
_HINTS = {
    SubjectKind.DN: "such as `CN=reports,O=Example` (RFC 4514)",
    SubjectKind.DNS: "such as `reports.example.org`",
    SubjectKind.URI: "such as `spiffe://example.org/agent/reports`",
    SubjectKind.IP: "such as `192.0.2.1` or `2001:db8::1`",
    SubjectKind.EMAIL: "such as `reports@example.org`",
}


def _canonical(kind: SubjectKind, text: str) -> str:
    """Return a subject of this kind in its canonical form, so that equal subjects are equal texts. Raises ValueError
    for a malformed subject.
    """
    match kind:
        case SubjectKind.DN:
            if not _prepare(parsed := _parse_name(text)):
                raise ValueError
            return parsed.rfc4514_string()
        case SubjectKind.DNS:
            if not _DNS.fullmatch(name := text.lower().rstrip(".")):
                raise ValueError
            return name
        case SubjectKind.IP:
            return str(ip_address(text))
        case SubjectKind.EMAIL:
            local, at, host = text.rpartition("@")
            if not (local and at and _DNS.fullmatch(host.lower())):
                raise ValueError
            return f"{local}@{host.lower()}"
        case SubjectKind.URI:
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*:[!-~]+", text):
                raise ValueError
            return text


_ATTRIBUTES = {name: oid for oid, text in NAME_ATTRIBUTES.items() for name in (text, text.lower(), text.upper())}
"""Attribute types by their short names, in the usual spelling, in lower case and in upper case (RFC 4512
section 2.5).
"""


def _parse_name(text: str) -> x509.Name:
    """Return a distinguished name, parsed from text (RFC 4514); spaces after commas are ignored. Raises ValueError for
    other text.
    """
    return x509.Name.from_rfc4514_string(re.sub(r"(?<!\\), +", ",", text), _ATTRIBUTES)


def _prepare(name: x509.Name) -> list[frozenset[tuple[str, str]]]:
    """Return a distinguished name in a form for comparison, which ignores case and repeated spaces (RFC 4517 section
    4.2.15, RFC 4518).
    """
    return [
        frozenset(
            (one.oid.dotted_string, " ".join(unicodedata.normalize("NFKC", str(one.value)).casefold().split()))
            for one in part
        )
        for part in name.rdns
    ]


_ALTERNATIVES: dict[SubjectKind, type[x509.GeneralName]] = {
    SubjectKind.DNS: x509.DNSName,
    SubjectKind.URI: x509.UniformResourceIdentifier,
    SubjectKind.IP: x509.IPAddress,
    SubjectKind.EMAIL: x509.RFC822Name,
}


def check_match(certificate: x509.Certificate, kind: SubjectKind, value: str) -> None:
    """Check that a certificate has the expected subject, and no second subject of the same kind. Raises
    InvalidCertificate if not.
    """
    if kind is SubjectKind.DN:
        if _prepare(certificate.subject) != _prepare(_parse_name(value)):
            raise InvalidCertificate(
                "the subject of the certificate differs from the subject that is registered for the client"
            )
        return
    names = _extension(certificate, x509.SubjectAlternativeName)
    of_kind = [] if names is None else names.get_values_for_type(_ALTERNATIVES[kind])
    if len(of_kind) != 1:
        raise InvalidCertificate(f"the certificate has {len(of_kind)} alternative names for `{kind}` instead of one")
    try:
        is_same = _canonical(kind, str(of_kind[0])) == value
    except ValueError:
        is_same = False
    if not is_same:
        raise InvalidCertificate(
            "the alternative name of the certificate differs from the name that is registered for the client"
        )


# --- the path to a trust anchor


def check_path(
    leaf: x509.Certificate, shown: ClientCertificate, anchors: Iterable[x509.Certificate], *, now: int
) -> x509.Certificate:
    """Return the trust anchor to which the certificate `leaf` of a client leads, after OpenSSL has verified the path
    (RFC 5280 section 6). The path may use the other certificates that the client sent. `now` is in microseconds. Raises
    InvalidCertificate if the certificate leads to no trust anchor, or a certificate of the path is expired, weak or not
    for client authentication.
    """
    store = crypto.X509Store()
    store.set_flags(_PATH_FLAGS)
    for anchor in anchors:
        store.add_cert(crypto.X509.from_cryptography(anchor))
    try:
        sent = [load_certificate(der) for der in shown.chain]
        others = [crypto.X509.from_cryptography(one) for one in sent]
        context = crypto.X509StoreContext(store, crypto.X509.from_cryptography(leaf), others)
        path = [one.to_cryptography() for one in context.get_verified_chain()]
    except crypto.X509StoreContextError as error:
        hint = "ostiary trust-anchor list"
        raise InvalidCertificate(f"the certificate leads to no trust anchor: {str(error)[:100]}", hint=hint) from None
    except (ValueError, Malformed):
        raise InvalidCertificate("the certificate chain cannot be read") from None
    for one in path:
        check_time(one, now=now)
    for one in path[:-1]:
        _check_strength(one, of="the certificate")
        _check_usage(one)
    return path[-1]


def _check_usage(certificate: x509.Certificate) -> None:
    """Check that the extended key usage of a certificate, if stated, allows client authentication. Raises
    InvalidCertificate if not.
    """
    usages = _extension(certificate, x509.ExtendedKeyUsage)
    allowed = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if usages is not None and not any(usage in usages for usage in allowed):
        raise InvalidCertificate(
            "the extended key usage of the certificate does not allow client authentication",
            hint="add the extended key usage clientAuth",
        )


def check_self_signed(certificate: x509.Certificate, *, now: int) -> None:
    """Check a self-signed certificate that a client wants to register. `now` is in microseconds. Raises
    InvalidCertificate if the certificate is not self-signed, has expired or is weak.
    """
    try:
        certificate.verify_directly_issued_by(certificate)
    except Exception as error:  # noqa: BLE001 because the library raises an error of its own for each kind of key
        hint = f"register the subject of the certificate instead: `{TLS_CLIENT_AUTH}`"
        raise InvalidCertificate(f"the certificate is not signed by its own key ({type(error).__name__})", hint=hint)  # noqa: B904
    if now >= expiry_of(certificate):
        raise InvalidCertificate("the certificate has expired", hint="renew the certificate")
    _check_strength(certificate, of="the certificate")


def read_jwk_certificates(jwks: object) -> list[x509.Certificate]:
    """Return the certificates of a JWK Set: from each key the first certificate in `x5c` (RFC 7517 section 4.7).

    Raises InvalidCertificate, also if a JWK and its certificate have different keys.
    """
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    certificates: list[x509.Certificate] = []
    for key in keys if isinstance(keys, list) else ():
        chain = key.get("x5c") if isinstance(key, dict) else None
        if not isinstance(chain, list) or not chain or not isinstance(chain[0], str):
            raise InvalidCertificate("a key of `jwks` has no certificate", hint="add `x5c` (RFC 8705 section 2.2.2)")
        try:
            certificate = load_certificate(b64decode(chain[0][: 2 * MAX_CERTIFICATE], validate=True))
        except (ValueError, Malformed):
            raise InvalidCertificate("`x5c` contains no certificate in DER, in base64") from None
        try:
            jwk_thumbprint = jose.parse_public_jwk(key).thumbprint
        except jose.InvalidKey as error:
            raise InvalidCertificate(f"the JWK with `x5c` contains no usable key: {error.message}") from None
        if jwk_thumbprint != key_thumbprint(certificate):
            raise InvalidCertificate("the certificate in `x5c` has another key than its JWK")
        certificates.append(certificate)
    if not 1 <= len(certificates) <= MAX_CERTIFICATES:
        raise InvalidCertificate(f"a client must register 1 to {MAX_CERTIFICATES} certificates")
    return certificates


def key_thumbprint(certificate: x509.Certificate) -> str:
    """Return the RFC 7638 thumbprint of the key of a certificate. If this server does not support the kind of key as a
    JWK, return the SHA-256 of the SubjectPublicKeyInfo instead.
    """
    key = certificate.public_key()
    try:
        return jose.parse_public_jwk(jose.render_public_jwk(key)).thumbprint
    except jose.InvalidKey:
        return jose.b64u(sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest())


def same_names(one: x509.Certificate, others: Sequence[x509.Certificate]) -> bool:
    """Return whether the subject of the certificate `one` equals the subject of one of the certificates `others`."""
    return any(_prepare(one.subject) == _prepare(other.subject) for other in others)


def parse_shown(shown: ClientCertificate) -> x509.Certificate:
    """Return the client certificate of a TLS handshake, parsed. Raises InvalidCertificate for an unreadable one."""
    return _load(shown.der)


@lru_cache(maxsize=1024)
def _load(der: bytes) -> x509.Certificate:
    try:
        return load_certificate(der)
    except Malformed as error:
        raise InvalidCertificate(error.message) from None
