"""JWT-SVIDs (SPIFFE JWT-SVID sections 2 to 4).

This module is stricter than section 3: a token is refused if its header has a parameter that is not in the
specification, or if the token was issued in the future.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ostiary.protocol.errors import Invalid
from ostiary.protocol.jose import InvalidToken, PrivateKey, sign_jwt
from ostiary.protocol.jose.jws import check_times, numeric_date, parse_claims, parse_jws
from ostiaryd.certs.model.bundle import ALGS, TrustBundle
from ostiaryd.certs.model.spiffe_id import SpiffeId, parse_spiffe_id

LIFETIME_S = 300
MAX_AUDIENCES = 8
MAX_AUDIENCE = 512
SECOND = 1_000_000
AHEAD = 10 * SECOND
"""Microseconds by which an issuer's clock may be ahead of this server's clock."""
_HEADERS = frozenset(("alg", "kid", "typ"))


def check_audiences(audiences: Sequence[str]) -> None:
    """Check the audiences of a new JWT-SVID: 1 to `MAX_AUDIENCES`, distinct and not empty. Raises Invalid if the check
    fails.
    """
    if not 1 <= len(audiences) <= MAX_AUDIENCES:
        raise Invalid(f"a JWT-SVID must have 1 to {MAX_AUDIENCES} audiences", hint="state one audience if possible")
    if len(set(audiences)) != len(audiences):
        raise Invalid("an audience of the JWT-SVID is named twice")
    if not all(0 < len(one) <= MAX_AUDIENCE and one.isprintable() and not one.isspace() for one in audiences):
        raise Invalid(f"an audience must have 1 to {MAX_AUDIENCE} printable characters, and not only spaces")


def sign_jwt_svid(
    key: PrivateKey, spiffe_id: str, audiences: Sequence[str], *, now: int, lifetime_s: int = LIFETIME_S
) -> tuple[str, int]:
    """Return a new JWT-SVID without `jti`, and its expiry in microseconds."""
    issued_at = now // SECOND
    claims = {"sub": spiffe_id, "aud": list(audiences), "iat": issued_at, "exp": issued_at + lifetime_s}
    return sign_jwt(key, typ="JWT", claims=claims), (issued_at + lifetime_s) * SECOND


def verify_jwt_svid(
    unverified_token: str, *, audience: str, bundle_of: Callable[[SpiffeId], TrustBundle], now: int
) -> tuple[SpiffeId, dict[str, Any]]:
    """Verify a JWT-SVID for `audience`; return its subject and its claims. Raises InvalidToken for an invalid
    signature, header or claim.

    `bundle_of` returns the bundle of a trust domain, and raises if the trust domain is not trusted. 1. The header must
    have only members of the specification. 2. The subject must be a SPIFFE ID with a path. 3. A key of the subject's
    trust domain must have signed the token. 4. The token must be for the audience and unexpired.
    """
    unverified_jws = parse_jws(unverified_token)
    header = unverified_jws.header
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in ALGS:
        raise InvalidToken("`alg` of the JWT-SVID must be RS, ES or PS with 256, 384 or 512")
    if not header.keys() <= _HEADERS or header.get("typ", "JWT") not in ("JWT", "JOSE"):
        raise InvalidToken(
            "the header of the JWT-SVID may have only `alg`, `kid`, and `typ` with the value JWT or JOSE"
        )
    unverified_claims = parse_claims(unverified_jws.payload)
    try:
        subject = parse_spiffe_id(str(unverified_claims.get("sub")))
    except Invalid as error:
        raise InvalidToken(f"`sub` of the JWT-SVID is not a SPIFFE ID: {error.message}") from None
    if not subject.path:
        raise InvalidToken("`sub` of the JWT-SVID names a trust domain, not a workload")
    authority = bundle_of(subject).find(header.get("kid"), alg)
    authority.verify(alg, unverified_jws.signature, unverified_jws.signing_input)
    claims = unverified_claims
    audiences = [claims["aud"]] if isinstance(claims.get("aud"), str) else claims.get("aud")
    if not isinstance(audiences, list) or audience not in audiences:
        raise InvalidToken("the JWT-SVID is for another audience (`aud`)")
    if now >= numeric_date(claims, "exp"):
        raise InvalidToken("the JWT-SVID has expired")
    check_times({name: claims[name] for name in ("nbf", "iat") if name in claims}, now=now, leeway=AHEAD)
    return subject, claims
