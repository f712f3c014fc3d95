"""The rules of client assertions (RFC 7523 as rfc7523bis updates it), and the records of client secrets and PEPs.

The rules are stricter than the drafts: `iat` and `jti` are required, an assertion is valid for at most five minutes,
and each assertion can be used once. A *compatible* client may write its assertions as RFC 7523 and OpenID Connect Core
section 9 allow: an endpoint of this server as audience, the type `JWT`, no `iat`, and a longer lifetime, of which five
minutes count. The setting `client_assertions` makes every client compatible, an exemption makes the named client
compatible (ADR 54).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_network
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from zlib import crc32

import msgspec

from ostiary.protocol import canonical, dpop, jose
from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.errors import Forbidden, Invalid, Malformed, Refused, Unauthenticated
from ostiary.protocol.jose.jws import parse_claims

SECOND = 1_000_000
_CLIENT_ID = re.compile(r"(?:ag|cl|pe|rs)_[0-9a-f]{32}|https://[!-~]{1,992}")
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_TYP = "client-authentication+jwt"
ENROL_TYP = "enrol+jwt"
MAX_ASSERTION_BYTES = 8 << 10
MAX_JTI = 256
MAX_CLAIMED = 200
"""Maximum length of an unverified client id in an entry of the ledger, in characters."""
LONGEST_ASSERTION = 300 * SECOND
SECRET_PREFIX = "ostcs_"
"""Prefix by which secret scanners recognise a leaked client secret."""
USERINFO = "/userinfo"
"""Path of the userinfo endpoint. Its URL is the audience (`aud`) of the tokens for userinfo."""
AUTHENTICATED_ENDPOINTS = ("/token", "/introspect", "/revoke", "/bc-authorize", "/par", "/device_authorization")
"""Paths of the endpoints that accept client assertions."""
SPAN = 16 * SECOND
DIGEST_BYTES = 16
AHEAD = 10 * SECOND
"""Maximum time by which the clock of a client may be ahead of server time, in microseconds."""


class InvalidClient(Unauthenticated):
    """The authentication of the client failed (RFC 6749 section 5.2)."""

    code = "invalid_client"


class NonceNeeded(dpop.UseNonce):
    """The error `use_dpop_nonce`, with the nonce that the client has to use."""

    def __init__(self, nonce: str) -> None:
        super().__init__(
            "the DPoP proof lacks a current nonce of this server",
            hint="send the proof again with the nonce of this response",
        )
        self.nonce = nonce


class AccessRefused(Unauthenticated):
    """The access token or API key is invalid, expired, revoked or for another resource, or its holder may not act now
    (RFC 6750 section 3.1).
    """

    code = "invalid_token"


class InsufficientScope(Forbidden):
    """The access token lacks a required scope (RFC 6750 section 3.1)."""

    code = "insufficient_scope"


class Credentials(msgspec.Struct, frozen=True):
    """The client credentials in a form and its headers; nothing has been verified."""

    unverified_assertion: str | None
    assertion_type: str | None = ASSERTION_TYPE
    client_id: str | None = None
    unverified_secret: str | None = None
    certificate: ClientCertificate | None = None
    """Certificate that the client showed in the TLS handshake."""

    @property
    def has_certificate_alone(self) -> bool:
        """Return whether the request has no other credential than `client_id` and a client certificate (RFC 8705)."""
        is_alone = self.unverified_assertion is None and self.unverified_secret is None
        return is_alone and self.certificate is not None and self.client_id is not None


class Secret(NamedTuple):
    """A client secret as the server stores it: the SHA-256 of the secret, in hexadecimal; times in microseconds.
    `holder` is the id of an agent or a resource.
    """

    id: str
    holder: str
    digest: str
    created_at: int
    expires_at: int


class Spend(msgspec.Struct, frozen=True):
    """A proof or assertion that may be used once: its digest (128 bits), the time from which it is refused as expired,
    and the time at which it was made (both in microseconds).
    """

    digest: bytes
    until: int
    made: int


class Spent:
    """Digests of the used proofs that have not expired, in memory. `seq` is the number of the last proof that was read
    from the disk. `read_in` is the transaction in progress, if it has read all proofs on the disk.

    Digests are grouped by their time of expiry in spans of fixed length, so that all digests of a span are deleted
    together.
    """

    __slots__ = ("_digests", "_spans", "read_in", "seq")

    def __init__(self) -> None:
        self._digests: set[bytes] = set()
        self._spans: defaultdict[int, list[bytes]] = defaultdict(list)
        self.seq = 0
        self.read_in: object = None

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._digests

    def add(self, digest: bytes, until: int) -> None:
        """Add the digest of a used proof. The digest stays at least until `until` (microseconds)."""
        self._digests.add(digest)
        self._spans[until // SPAN].append(digest)

    def add_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add proofs that were read from the disk, as (number, digest, time of expiry). Most are known, because this
        process has added them.
        """
        for seq, digest, until in rows:
            if (digest_bytes := bytes(digest)) not in self._digests:
                self.add(digest_bytes, until)
            self.seq = seq

    def forget(self, *, now: int) -> None:
        """Delete all digests in spans that have ended at `now` (microseconds)."""
        for span in [span for span in self._spans if (span + 1) * SPAN <= now]:
            self._digests.difference_update(self._spans.pop(span))


class Assertion(msgspec.Struct, frozen=True):
    """A client assertion whose claims are valid; its signature is not verified yet."""

    client_id: str
    spend: Spend


def name_claimed(client_id: str) -> str | None:
    """Return an unverified client id as a ledger entry may contain it, without the query of a URL. Return None if the
    text does not have the form of a client id.

    A text of another form may be a secret in the wrong field, and so may the query of a URL.
    """
    url = client_id.partition("?")[0]
    if not _CLIENT_ID.fullmatch(client_id) or "@" in url:
        return None
    return url[:MAX_CLAIMED]


def parse_assertion(credentials: Credentials) -> jose.Jws:
    """Return the parsed client assertion of a form; its signature and claims are not checked. Raises InvalidClient for
    a missing or malformed assertion.
    """
    if credentials.unverified_secret is not None:
        hint = (
            "send `client_assertion` (private_key_jwt); a client secret is accepted only with the grant "
            "client_credentials and on the consent of a person"
        )
        raise InvalidClient("client secrets are not accepted for this request", hint=hint)
    if credentials.unverified_assertion is None:
        hint = "send `client_assertion` (private_key_jwt), or `client_id` with a client certificate (mutual TLS)"
        raise InvalidClient("the client did not authenticate", hint=hint)
    if credentials.assertion_type != ASSERTION_TYPE:
        raise InvalidClient("`client_assertion_type` is not supported", hint=f"send {ASSERTION_TYPE}")
    try:
        unverified_jws = jose.parse_jws(credentials.unverified_assertion, max_bytes=MAX_ASSERTION_BYTES)
    except jose.InvalidToken as error:
        raise InvalidClient(f"the client assertion: {error.message}") from None
    return unverified_jws


def check_assertion_type(header: jose.Header, *, is_compatible: Callable[[], bool]) -> None:
    """Check that `typ` is `client-authentication+jwt` or absent (rfc7523bis section 4). Raises InvalidClient otherwise.

    A compatible client may also send `JWT`, which most libraries put into every header. Every other type is refused, so
    that no JWT that a client signs for another purpose is accepted as an assertion.
    """
    typ = jose.media_type(header)
    if "typ" not in header or typ == ASSERTION_TYP or (typ == "jwt" and is_compatible()):
        return
    raise InvalidClient(
        f"`typ` of the client assertion is not {ASSERTION_TYP}",
        hint='set or omit `typ`; a server with `client_assertions = "compatible"` also accepts JWT',
    )


def check_assertion(
    unverified_jws: jose.Jws,
    *,
    client_id: str | None,
    issuer: str,
    mtls_base: str = "",
    now: int,
    is_compatible: Callable[[str], bool],
) -> Assertion:
    """Check the claims of an assertion at the time `now` (microseconds), and return the assertion. Raises InvalidClient
    if a claim is missing or wrong. `mtls_base`: URL of the endpoints for clients with certificates; empty if that is
    the issuer.

    The caller must check the type, the signature and replay. The only audience is the issuer identifier, as a string or
    as a list with one member (rfc7523bis section 4). A client for whose id `is_compatible` returns true may name
    endpoints of this server as well (RFC 7523 section 3), but no other audience, and may omit `iat`.
    """
    try:
        claims = parse_claims(unverified_jws.payload)
        ends = jose.numeric_date(claims, "exp")
        begins = jose.numeric_date(claims, "iat") if "iat" in claims else None
        valid_from = jose.numeric_date(claims, "nbf") if "nbf" in claims else 0
    except jose.InvalidToken as error:
        raise InvalidClient(f"the client assertion: {error.message}") from None
    subject, jti = claims.get("sub"), claims.get("jti")
    if not isinstance(subject, str) or not _CLIENT_ID.fullmatch(subject):
        raise InvalidClient("`sub` of the client assertion is not a client id")
    if claims.get("iss") != subject:
        raise InvalidClient("`iss` of the client assertion differs from `sub`")
    if client_id is not None and client_id != subject:
        raise InvalidClient("`client_id` differs from the client of the assertion")
    audience = claims.get("aud")
    if audience not in (issuer, [issuer]) and not (_is_ours(audience, issuer, mtls_base) and is_compatible(subject)):
        raise InvalidClient(
            "the client assertion has another audience than this issuer", hint=f"`aud` must be {issuer}"
        )
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI:
        raise InvalidClient(f"`jti` of the client assertion is not a string of 1 to {MAX_JTI} characters")
    if begins is None:
        if not is_compatible(subject):
            raise InvalidClient("the client assertion has no `iat`", hint="add `iat`")
        if ends > now + AHEAD + LONGEST_ASSERTION:
            raise InvalidClient(
                "the client assertion has no `iat` and expires in more than 300 seconds", hint="add `iat`"
            )
        begins = ends - LONGEST_ASSERTION
    if ends > begins + LONGEST_ASSERTION and is_compatible(subject):
        ends = begins + LONGEST_ASSERTION
    if not begins < ends <= begins + LONGEST_ASSERTION:
        raise InvalidClient("the lifetime of the client assertion must be more than 0 and at most 300 seconds")
    if now >= ends:
        raise InvalidClient(f"the client assertion expired {_seconds(now - ends)} ago", hint=CLOCK_HINT)
    if (ahead := max(begins, valid_from) - now) > AHEAD:
        raise InvalidClient(
            f"the client assertion becomes valid in {_seconds(ahead)}; the server accepts at most {AHEAD // SECOND} s",
            hint=CLOCK_HINT,
        )
    return Assertion(subject, Spend(sha256(f"{subject}|{jti}".encode()).digest()[:DIGEST_BYTES], ends, begins))


CLOCK_HINT = "compare the clock of the client with the `Date` header of this response"


def _is_ours(audience: object, issuer: str, mtls_base: str) -> bool:
    """Return whether every audience is this server: its issuer identifier or an endpoint that accepts assertions.

    For an issuer without a path, a final slash is accepted: URL libraries add a slash, and RFC 3986 section 6.2.3
    treats both as the same.
    """
    ours = {issuer, *(base + path for base in (issuer, mtls_base) if base for path in AUTHENTICATED_ENDPOINTS)}
    if not urlsplit(issuer).path:
        ours.add(f"{issuer}/")
    members = audience if isinstance(audience, list) else [audience]
    return bool(members) and all(isinstance(one, str) and one in ours for one in members)


def _seconds(microseconds: int) -> str:
    """Return a time difference as text in seconds, rounded up: `7 s`."""
    return f"{-(-microseconds // SECOND)} s"


def spend_of(proof: dpop.Proof) -> Spend:
    """Return the record by which a DPoP proof is marked as used (RFC 9449 section 11.1)."""
    return Spend(proof.digest[:DIGEST_BYTES], proof.iat + dpop.WINDOW + 1, proof.iat)


@lru_cache(maxsize=4096)
def public_key(jwk: str) -> jose.PublicKey:
    """Return the public key of a client, parsed from its registered JWK. The result is cached, because parsing the
    elliptic curve point is expensive.
    """
    return jose.parse_public_jwk(canonical.parse(jwk))


def challenge(
    refusal: Refused, *, resource: str, scope: str = "", accepts_bearer: bool = False
) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell the client how to authenticate: RFC 6750 section 3, RFC 9449 section 7.1, RFC 9728
    section 5.1. There is a challenge of the scheme DPoP, with `accepts_bearer` also one of the scheme Bearer; none for
    a refusal that does not concern the credentials.
    """
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(refusal, NonceNeeded):
        headers.append((b"dpop-nonce", refusal.nonce.encode()))
    if isinstance(refusal, (Unauthenticated, InsufficientScope, Malformed)):
        code = "invalid_request" if isinstance(refusal, Malformed) else refusal.code
        # no error code if the request had no token
        claims = {} if type(refusal) is Unauthenticated else {"error": code}
        claims |= {"scope": scope} if scope else {}
        place = {"resource_metadata": metadata_url(resource)}
        if accepts_bearer and not isinstance(refusal, (dpop.InvalidProof, NonceNeeded)):
            headers.append((b"www-authenticate", _render_challenge("Bearer", claims | place)))
        algs = {"algs": " ".join(sorted(jose.ALGS))}
        headers.append((b"www-authenticate", _render_challenge("DPoP", claims | algs | place)))
    return headers


def _render_challenge(scheme: str, claims: Mapping[str, str]) -> bytes:
    return (f"{scheme} " + ", ".join(f'{name}="{value}"' for name, value in claims.items())).encode()


def metadata_url(resource: str) -> str:
    """Return the URL of the metadata of a resource: `/.well-known/oauth-protected-resource` is inserted between host
    and path (RFC 9728 section 3.1).
    """
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}"


PEP_KEY_PREFIX = "ostiary_pep_"
_PEP_KEY = re.compile(PEP_KEY_PREFIX + r"[0-9a-f]{64}[0-9a-f]{8}")
MAX_PEPS = 1000
"""Maximum number of PEPs that are not revoked."""
MAX_PEP_KEYS = 2
"""Maximum number of live keys of a PEP: the current key and, during a rotation, the earlier key."""
MAX_PEP_NETWORKS = 32
MAX_PEP_DAYS = 366
MAX_PEP_OVERLAP_H = 168
PEP_USE_INTERVAL = 3600 * SECOND
"""Minimum time between two recorded uses of an API key, in microseconds."""


class Pep(NamedTuple):
    """A static policy enforcement point: an AuthZEN gateway that authenticates by an API key. `networks`, from which
    the key is accepted, are separated by spaces; times are in microseconds.
    """

    pep_id: str
    name: str
    networks: str
    created_at: int
    revoked_at: int | None


class PepKey(NamedTuple):
    """An API key of a PEP, without its secret; times in microseconds."""

    key_id: str
    created_at: int
    expires_at: int
    used_at: int | None


def render_pep_key(secret: bytes) -> str:
    """Return an API key as text: a prefix that secret scanners recognise, then 256 random bits and their CRC-32, both
    in hexadecimal.
    """
    return f"{PEP_KEY_PREFIX}{secret.hex()}{crc32(secret):08x}"


def is_pep_key(text: str) -> bool:
    """Return whether a text has the form of an API key of a PEP, with the right checksum. The key need not exist."""
    if not _PEP_KEY.fullmatch(text):
        return False
    digits = text.removeprefix(PEP_KEY_PREFIX)
    return render_pep_key(bytes.fromhex(digits[:64])) == text


def check_networks(unverified_networks: Collection[str]) -> str:
    """Return networks in their canonical form, separated by spaces. Raises Invalid for a malformed network, and for
    none or too many.
    """
    if not 1 <= len(unverified_networks) <= MAX_PEP_NETWORKS:
        raise Invalid(
            f"a PEP must have 1 to {MAX_PEP_NETWORKS} networks",
            hint="name at least one network; join more networks to fewer, larger ones",
        )
    try:
        networks = {ip_network(text) for text in unverified_networks}
    except ValueError as error:
        raise Invalid(
            f"`networks`: {str(error)[:100]}",
            hint="use an address or a network without host bits, such as 10.1.2.3, 10.1.2.0/24 or 2001:db8::/64",
        ) from None
    return " ".join(sorted(map(str, networks)))


def check_pep_days(days: int) -> None:
    """Check the number of days for which an API key is valid. Raises Invalid outside of 1 to MAX_PEP_DAYS."""
    if not 1 <= days <= MAX_PEP_DAYS:
        raise Invalid(f"an API key must be valid for 1 to {MAX_PEP_DAYS} days")


def check_pep_overlap(hours: int) -> None:
    """Check for how many hours an older API key stays valid after a new key was issued. Raises Invalid outside of 0 to
    MAX_PEP_OVERLAP_H.
    """
    if not 0 <= hours <= MAX_PEP_OVERLAP_H:
        raise Invalid(f"the overlap of two API keys must be 0 to {MAX_PEP_OVERLAP_H} hours")
