"""ACME: accounts, orders, authorizations and challenges, and their rules (RFC 8555, 8737, 8738, 9773)."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from typing import Any, Literal, NamedTuple

import msgspec
from cryptography import x509

from ostiary.protocol import canonical, jose
from ostiary.protocol.addresses import check_address
from ostiary.protocol.certificate import load_certificate
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid, Malformed, Refused
from ostiary.protocol.jose import b64u, unb64u
from ostiaryd.certs.model.certificate import RevocationReason
from ostiaryd.certs.model.names import CertificateName, NameKind, make_name

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
KINDS = "urn:ietf:params:acme:error:"
MEDIA_TYPE = "application/jose+json"
ALGORITHMS = ("ES256", "ES384", "EdDSA", "RS256", "PS256")
"""Signature algorithms that account keys and certificate keys may use, the preferred algorithm first."""
MACS = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
"""MAC algorithms of external account bindings, each with its hash function."""
MAX_IDENTIFIERS = 100
MAX_CONTACTS = 10
MAX_PENDING = 300
"""Maximum number of orders of one account that are pending or ready."""
NONCE_LIFETIME = HOUR
ORDER_LIFETIME = DAY
"""Microseconds after its creation within which an order must be finalized."""
MAX_KEY_AUTHORIZATION = 4096
"""Maximum number of bytes of the body that a host serves for http-01. A longer body fails the attempt."""
ACME_TLS = "acme-tls/1"
"""Application protocol (ALPN) with which tls-alpn-01 connects (RFC 8737 section 6.2)."""
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
ChallengeType = Literal["http-01", "dns-01", "tls-alpn-01"]
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
RETRY_S = (1, 3)
"""Seconds before the second and before the third attempt of a validation."""
REASONS = {
    0: RevocationReason.UNSPECIFIED,
    1: RevocationReason.KEY_COMPROMISE,
    3: RevocationReason.AFFILIATION_CHANGED,
    4: RevocationReason.SUPERSEDED,
    5: RevocationReason.CESSATION,
    9: RevocationReason.PRIVILEGE_WITHDRAWN,
}
"""Revocation reasons that a client may state, by their code (RFC 5280 section 5.3.1)."""


class Subproblem(NamedTuple):
    """The problem of one identifier of an ACME order (RFC 8555 section 6.7.1)."""

    type: str
    value: str
    code: str
    message: str


class AcmeRefused(Refused):
    """A refusal as an ACME problem (RFC 8555 section 6.7). `code` is the type of the problem, without the prefix of its
    URN.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 400,
        hint: str = "",
        subproblems: Sequence[Subproblem] = (),
        location: str = "",
        after_s: int = 0,
    ) -> None:
        """Create the refusal. `location`: the URL of an existing account. `after_s`: the seconds after which the client
        may retry; 0: not stated.
        """
        super().__init__(message, hint=hint, code=code)
        self.status, self.subproblems, self.location, self.after_s = status, subproblems, location, after_s


class Unauthorized(AcmeRefused):
    """A refusal because the account may not make the request, or because the response to a challenge is wrong
    (`unauthorized`).
    """

    def __init__(self, message: str, *, status: int = 403, hint: str = "") -> None:
        super().__init__("unauthorized", message, status=status, hint=hint)


class BadAlgorithm(AcmeRefused):
    """A refusal because of the algorithm of a JWS. `algorithms`: the supported algorithms (RFC 8555 section 6.2)."""

    def __init__(self, message: str, algorithms: Iterable[str]) -> None:
        super().__init__("badSignatureAlgorithm", message)
        self.algorithms = list(algorithms)


class StaleNonce(AcmeRefused):
    """A refusal because this server did not issue the nonce, or the nonce has expired. The client retries with a new
    nonce, so the refusal writes no ledger entry.
    """

    is_challenge = True


class AccountStatus(StrEnum):
    VALID = "valid"
    DEACTIVATED = "deactivated"


class OrderStatus(StrEnum):
    PENDING = "pending"
    READY = "ready"
    VALID = "valid"
    INVALID = "invalid"


class AuthorizationStatus(StrEnum):
    """The stored status of an authorization. While the server validates a challenge, the status is `processing`;
    clients see it as `pending`.
    """

    PENDING = "pending"
    PROCESSING = "processing"
    VALID = "valid"
    INVALID = "invalid"
    DEACTIVATED = "deactivated"


class Problem(NamedTuple):
    """The reason why an ACME authorization or order became invalid, in the form in which the server stores the reason
    and shows it to clients.
    """

    kind: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeKey:
    """A MAC key for an external account binding. `holder` is the agent or person for whom the key creates an account.
    Times are microseconds since the epoch.
    """

    kid: str
    holder: str
    profile: str
    names: tuple[str, ...]
    """patterns of the names that the account may order (`certs.model.names`); if empty, only the profile and the
    policies limit the names
    """
    sealed: bytes = field(repr=False)
    created_at: int
    expires_at: int
    account: str | None
    revoked_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeAccount:
    """An ACME account. `holder` is the agent or person that holds the account's certificates."""

    account_id: str
    jkt: str
    jwk: dict[str, str]
    holder: str
    kid: str
    contacts: tuple[str, ...]
    status: AccountStatus
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An ACME order. `not_after` is the end that the client requests for the certificate, `serial` the serial number of
    the issued certificate, and `replaces` the ARI identifier of the certificate to replace.

    Times are microseconds since the epoch.
    """

    order_id: str
    account: str
    status: OrderStatus
    identifiers: tuple[CertificateName, ...]
    not_after: int | None
    replaces: str | None
    created_at: int
    expires_at: int
    problem: Problem | None = None
    serial: str | None = None

    def status_at(self, now: int) -> str:
        """Return the status of the order at `now` (microseconds). An order that was not finalized before its expiry is
        invalid.
        """
        is_open = self.status in (OrderStatus.PENDING, OrderStatus.READY)
        return OrderStatus.INVALID if is_open and now >= self.expires_at else self.status


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """The authorization of one identifier in one order. `challenge` is the challenge type that the client chose; empty
    before the choice.
    """

    authorization_id: str
    order: str
    account: str
    identifier: CertificateName
    status: AuthorizationStatus
    expires_at: int
    token: str
    challenge: ChallengeType | Literal[""]
    problem: Problem | None
    validated_at: int | None
    attempts: int
    due_at: int

    @property
    def challenge_types(self) -> tuple[ChallengeType, ...]:
        """Return the challenge types with which a client can prove control of the identifier."""
        if self.identifier.kind is NameKind.IP:
            return ("http-01", "tls-alpn-01")  # RFC 8738 section 7
        return ("dns-01",) if self.identifier.is_wildcard else ("http-01", "dns-01", "tls-alpn-01")

    def status_at(self, now: int) -> str:
        """Return the status of the authorization that a client sees at `now` (microseconds)."""
        is_open = self.status in (
            AuthorizationStatus.PENDING,
            AuthorizationStatus.PROCESSING,
            AuthorizationStatus.VALID,
        )
        if is_open and now >= self.expires_at:
            return "expired" if self.status is AuthorizationStatus.VALID else "invalid"
        return "pending" if self.status is AuthorizationStatus.PROCESSING else self.status


# --- requests


class UnverifiedJws(NamedTuple):
    """The parts of a JWS in its flattened form. The signature is not verified yet."""

    alg: str
    nonce: str
    url: str
    kid: str
    jwk: object
    payload: bytes
    signing_input: bytes
    signature: bytes

    def verify(self, jwk: object) -> jose.PublicKey:
        """Verify the signature with the public key `jwk`, and return the key. Raises AcmeRefused if the signature is
        wrong, or the key is unusable or not for the algorithm of the JWS.
        """
        key = _parse_key_with(msgspec.json.encode(jwk), self.alg)
        try:
            key.verify(self.signature, self.signing_input)
        except jose.InvalidToken:
            raise AcmeRefused("malformed", "the signature of the request is wrong") from None
        return key


@lru_cache(maxsize=1024)
def _parse_key_with(jwk: bytes, alg: str) -> jose.PublicKey:
    """Return the public key of a JWK for signatures with the algorithm `alg`. The result is cached, because an order
    takes seven or more requests with one key. Raises AcmeRefused if the key cannot be used with the algorithm.
    """
    key = parse_key(msgspec.json.decode(jwk))
    try:
        return jose.parse_public_jwk({**key.bare_jwk, "alg": alg})
    except jose.InvalidKey:
        raise BadAlgorithm(f"the key cannot be used for signatures with {alg[:20]!a}", ALGORITHMS) from None


class _Flattened(msgspec.Struct):
    """A JWS in its flattened JSON form (RFC 7515 section 7.2.2)."""

    protected: str
    payload: str
    signature: str
    header: Any = msgspec.UNSET
    signatures: Any = msgspec.UNSET


class _Header(msgspec.Struct):
    alg: str
    url: str
    nonce: Any = ""
    kid: Any = ""
    jwk: Any = None


def parse_jws(body: object, *, of: str = "the request", macs: bool = False, has_nonce: bool = True) -> UnverifiedJws:
    """Return the parts of a flattened JWS. Raises AcmeRefused for another form, another kind of algorithm, an
    unsupported extension, a missing or a forbidden nonce, or not exactly one of `kid` and `jwk`.

    `of`: the object that must be the JWS, for the error. `macs`: whether the algorithm must be a MAC, as in an external
    account binding; otherwise it must be a signature algorithm. `has_nonce`: whether a nonce is required; otherwise a
    nonce is refused.
    """
    try:
        jws = convert(body, _Flattened)
        value = canonical.parse(unb64u(jws.protected), max_bytes=16 << 10, max_depth=8)
        header = convert(value, _Header)
        payload, signature = unb64u(jws.payload), unb64u(jws.signature)
    except (msgspec.ValidationError, Malformed) as error:
        raise AcmeRefused("malformed", f"{of} is not a flattened JWS with a valid protected header: {error}") from None
    assert isinstance(value, dict)
    for name in ("header", "signatures"):
        if getattr(jws, name) is not msgspec.UNSET:
            raise AcmeRefused("malformed", f"{of} must not have the member `{name}` (RFC 8555 section 6.2)")
    for name in ("crit", "b64"):
        if name in value:
            raise AcmeRefused("malformed", f"{of} has an unsupported extension (`{name}`)")
    algorithms = tuple(MACS) if macs else ALGORITHMS
    if header.alg not in algorithms:
        raise BadAlgorithm(f"the algorithm {header.alg[:20]!a} is not one of {', '.join(algorithms)}", algorithms)
    if ("nonce" in value) is not has_nonce or not isinstance(header.nonce, str):
        rule = "must have a `nonce` that is a string" if has_nonce else "must not have a `nonce`"
        raise AcmeRefused("malformed", f"{of} {rule}")
    is_kid = isinstance(header.kid, str) and header.kid != ""
    if is_kid is not ("kid" in value) or is_kid is ("jwk" in value):
        raise AcmeRefused("malformed", f"{of} must have exactly one of `kid` (a text that is not empty) and `jwk`")
    signing_input = f"{jws.protected}.{jws.payload}".encode()
    return UnverifiedJws(
        header.alg, header.nonce, header.url, header.kid, header.jwk, payload, signing_input, signature
    )


def parse_key(jwk: object) -> jose.PublicKey:
    """Return the public key of an account from its JWK. Raises AcmeRefused if the key is malformed, weak or of an
    unsupported type.
    """
    try:
        return jose.parse_public_jwk(jwk)
    except jose.InvalidKey as error:
        raise AcmeRefused("badPublicKey", error.message, hint=error.hint) from None


def check_binding(binding: object, *, url: str, jwk: Mapping[str, str], mac_key: bytes) -> None:
    """Check that an external account binding is valid: the MAC key has signed the account's key for this URL (RFC 8555
    section 7.3.4). Raises AcmeRefused otherwise.
    """
    jws = parse_jws(binding, of="externalAccountBinding", macs=True, has_nonce=False)
    if not hmac.compare_digest(hmac.digest(mac_key, jws.signing_input, MACS[jws.alg]), jws.signature):
        raise Unauthorized("the MAC of the external account binding is wrong")
    if jws.url != url:
        raise AcmeRefused("malformed", "the external account binding is for another URL")
    try:
        bound = jose.parse_public_jwk(canonical.parse(jws.payload, max_bytes=16 << 10, max_depth=4))
    except (Malformed, jose.InvalidKey):
        raise AcmeRefused("malformed", "the payload of the external account binding is not a key") from None
    if bound.thumbprint != jose.parse_public_jwk(dict(jwk)).thumbprint:
        raise AcmeRefused(
            "malformed",
            "the payload of the external account binding is not the key of this account",
            hint="sign the public key of the account, which signs the request, with the MAC key",
        )


def binding_kid(binding: object) -> str:
    """Return the id of the MAC key that an external account binding names. The MAC is not verified. Raises AcmeRefused
    if the binding is malformed.
    """
    return parse_jws(binding, of="externalAccountBinding", macs=True, has_nonce=False).kid


def make_nonce(secret: bytes, *, now: int, random: bytes) -> str:
    """Return a new nonce: the time in seconds and `random`, with a MAC by `secret`. `now`: in microseconds. `random`:
    exactly 8 bytes.
    """
    body = (now // SECOND).to_bytes(8) + random
    return b64u(body + hmac.digest(secret, body, "sha256")[:16])


def check_nonce(secret: bytes, nonce: str, *, now: int) -> int:
    """Return the expiry of a nonce in microseconds. Raises StaleNonce if this server did not issue the nonce, or the
    nonce has expired.
    """
    try:
        raw = unb64u(nonce)
    except Malformed:
        raw = b""
    body, tag = raw[:16], raw[16:]
    if len(raw) != 32 or not hmac.compare_digest(hmac.digest(secret, body, "sha256")[:16], tag):
        raise StaleNonce("badNonce", "this server did not issue the nonce")
    ends = int.from_bytes(body[:8]) * SECOND + NONCE_LIFETIME
    if now >= ends:
        raise StaleNonce("badNonce", "the nonce has expired")
    return ends


# --- accounts and orders


def check_contacts(contacts: Sequence[str]) -> tuple[str, ...]:
    """Return the contacts if there are at most 10, each a `mailto:` URL with one address. Raises AcmeRefused
    otherwise.
    """
    if len(contacts) > MAX_CONTACTS:
        raise AcmeRefused("invalidContact", f"an account may have at most {MAX_CONTACTS} contacts")
    for contact in contacts:
        scheme, _, address = contact.partition(":")
        if scheme.lower() != "mailto":
            raise AcmeRefused("unsupportedContact", f"the contact {contact[:100]!a} is not a `mailto:` URL")
        try:
            check_address(address, name="the contact")
        except Invalid as error:
            raise AcmeRefused("invalidContact", error.message) from None
        if "?" in address or "," in address or "%" in address:
            raise AcmeRefused("invalidContact", "a contact must be one address, without header fields")
    return tuple(contacts)


def parse_identifiers(identifiers: Sequence[tuple[str, str]]) -> tuple[CertificateName, ...]:
    """Return the names of an order, each once, because some clients state a name twice, for example also in upper case.
    Raises AcmeRefused, with a subproblem for each invalid identifier.
    """
    if not 1 <= len(identifiers) <= MAX_IDENTIFIERS:
        raise AcmeRefused("malformed", f"an order must have 1 to {MAX_IDENTIFIERS} identifiers")
    names: list[CertificateName] = []
    wrong: list[Subproblem] = []
    for type, value in identifiers:
        try:
            names.append(_identifier(type, value))
        except AcmeRefused as refusal:
            wrong.append(Subproblem(type[:20], value[:253], refusal.code, refusal.message))
    if wrong:
        codes = {one.code for one in wrong}
        raise AcmeRefused(
            codes.pop() if len(codes) == 1 else "compound",
            "; ".join(one.message for one in wrong[:5]),
            subproblems=wrong if len(identifiers) > 1 else (),
        )
    return tuple(dict.fromkeys(names))


def _identifier(type: str, value: str) -> CertificateName:
    """Return an identifier as a name. Raises AcmeRefused for a type other than `dns` and `ip`
    (`unsupportedIdentifier`), or a malformed value (`malformed`).
    """
    if type not in (NameKind.DNS, NameKind.IP):
        message = f"identifiers of the type {type[:20]!a} are not supported"
        raise AcmeRefused("unsupportedIdentifier", message, hint="use the type dns or ip")
    try:
        name = make_name(NameKind(type), value)
    except Invalid as error:
        raise AcmeRefused("malformed", error.message, hint=error.hint) from None
    if name.kind is NameKind.IP and name.value != value:  # RFC 8738 section 3
        raise AcmeRefused("malformed", f"{value[:64]!a} is not in normal form: write {name.value}")
    return name


def parse_instant(text: str, *, name: str) -> int:
    """Return the time that an RFC 3339 text states, in microseconds. Raises AcmeRefused for other text, or a time
    without a zone.
    """
    try:
        moment = datetime.fromisoformat(text.upper()) if _RFC3339.fullmatch(text) else None
    except ValueError:
        moment = None
    if moment is None:
        raise AcmeRefused("malformed", f"`{name}` is not a time with a zone (RFC 3339)")
    return int(moment.timestamp()) * SECOND


def render_instant(at: int) -> str:
    """Return a time (microseconds since the epoch) as RFC 3339 text in UTC."""
    return datetime.fromtimestamp(at // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- challenges


def key_authorization(token: str, thumbprint: str) -> str:
    """Return the key authorization for the token of a challenge and the thumbprint of the account's key. The key
    authorization proves that the holder of the account's key responds to the challenge (RFC 8555 section 8.1).
    """
    return f"{token}.{thumbprint}"


def dns_value(authorization: str) -> str:
    """Return the value that the TXT record of dns-01 must have for a key authorization (RFC 8555 section 8.4)."""
    return b64u(sha256(authorization.encode()).digest())


def proven_host(name: CertificateName) -> str:
    """Return the host whose control must be proved: the name, without the label `*` of a wildcard."""
    return name.value.removeprefix("*.")


def server_name(name: CertificateName) -> str:
    """Return the TLS server name (SNI) of a tls-alpn-01 validation: RFC 8737 section 3, RFC 8738 section 6."""
    return ip_address(name.value).reverse_pointer if name.kind is NameKind.IP else name.value


def check_http_answer(body: bytes, authorization: str) -> None:
    """Check that the response to http-01 is the key authorization, with optional white space at the end. Raises
    AcmeRefused otherwise.
    """
    if not hmac.compare_digest(body.rstrip(), authorization.encode()):
        raise AcmeRefused("incorrectResponse", "the server does not answer with the key authorization", status=403)


def check_dns_answer(texts: Iterable[bytes], authorization: str) -> None:
    """Check that one of the TXT records is the value of dns-01 for the key authorization. Raises AcmeRefused
    otherwise.
    """
    expected = dns_value(authorization).encode()
    if not any(hmac.compare_digest(text, expected) for text in texts):
        raise AcmeRefused("incorrectResponse", "no TXT record has the digest of the key authorization", status=403)


def check_tls_answer(der: bytes, protocol: str | None, name: CertificateName, authorization: str) -> None:
    """Check the certificate that a TLS server presented for tls-alpn-01 (RFC 8737 section 3). Raises AcmeRefused if the
    check fails.

    The certificate must name only the host, and its critical extension `acmeIdentifier` must have the digest of the key
    authorization.
    """
    if protocol != ACME_TLS:
        raise Unauthorized(f"the server did not negotiate the protocol {ACME_TLS}")
    try:
        extensions = load_certificate(der).extensions
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        proof = extensions.get_extension_for_oid(ACME_IDENTIFIER)
    except Malformed as error:
        raise Unauthorized(error.message) from None
    except x509.ExtensionNotFound:
        raise Unauthorized("the certificate lacks subject alternative names or `acmeIdentifier`") from None
    assert isinstance(proof.value, x509.UnrecognizedExtension)
    named: CertificateName | None = None
    match names:
        case [x509.DNSName(value=host)]:
            named = CertificateName(NameKind.DNS, host.lower())
        case [x509.IPAddress(value=address)]:
            named = CertificateName(NameKind.IP, str(address))
    if named != name:
        raise Unauthorized("the certificate does not name exactly the identifier")
    expected = b"\x04\x20" + sha256(authorization.encode()).digest()
    if not proof.critical or not hmac.compare_digest(proof.value.value, expected):
        raise Unauthorized("`acmeIdentifier` is not a critical extension with the digest of the key authorization")


# --- certificates


def check_requested_names(order: Order, requested: Sequence[CertificateName]) -> None:
    """Check that a certificate signing request has exactly the names of the order. Raises AcmeRefused (`badCSR`)
    otherwise.
    """
    if set(requested) != set(order.identifiers):
        raise AcmeRefused("badCSR", "the names of the certificate signing request are not those of the order")


def render_certificate_id(key_identifier: bytes, serial: int) -> str:
    """Return the ARI identifier of a certificate (RFC 9773 section 4.1)."""
    return f"{b64u(key_identifier)}.{b64u(serial.to_bytes(serial.bit_length() // 8 + 1))}"


def certificate_id_of(der: bytes) -> str:
    """Return the ARI identifier (RFC 9773) of a certificate in DER, which has an authority key identifier."""
    certificate = x509.load_der_x509_certificate(der)
    issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return render_certificate_id(issuer or b"", certificate.serial_number)


def parse_certificate_id(text: str) -> tuple[bytes, int]:
    """Return the issuer's key identifier and the serial number from an ARI identifier. Raises AcmeRefused for other
    text.
    """
    issuer, _, serial = text.partition(".")
    try:
        parsed = unb64u(issuer), int.from_bytes(unb64u(serial))
    except Malformed:
        parsed = b"", 0
    if not parsed[0] or not 0 < parsed[1] < 1 << 160 or render_certificate_id(*parsed) != text:
        raise AcmeRefused("malformed", "the certificate identifier is not KEY.SERIAL in base64url (RFC 9773)")
    return parsed


def renewal_window(*, not_before: int, not_after: int, is_ended: bool, now: int) -> tuple[int, int]:
    """Return the window (start, end) in microseconds in which a client should renew a certificate (RFC 9773).

    The window begins after two thirds of the lifetime and takes a twelfth of the lifetime, so that renewals are spread
    over time. If the certificate is not accepted any more (`is_ended`), the window is in the past, so that clients
    renew at once.
    """
    life = not_after - not_before
    if is_ended:
        return now - 2 * HOUR, now - HOUR
    start = not_before + life * 2 // 3
    return start, max(start + life // 12, start + 2 * SECOND)


def poll_after_s(*, not_before: int, not_after: int) -> int:
    """Return the number of seconds after which a client should ask for the renewal window again: a 24th of the
    certificate's lifetime, but from 1 minute to 6 hours.
    """
    return min(max((not_after - not_before) // SECOND // 24, 60), 6 * 3600)
