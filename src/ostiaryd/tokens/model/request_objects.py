"""Request objects: authorization requests that a client signs (RFC 9101, OpenID Connect Core 1.0 section 6.1).

Only the parameters in the object count. The object names its client, this server and an end, so that it is worth
nothing to another client, at another server or later.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ostiary.protocol import jose
from ostiary.protocol.errors import Refused
from ostiaryd.tokens.model.grants import MAX_VALUE, SECOND
from ostiaryd.trust.model import AHEAD

REQUEST_OBJECT_TYPES = (None, "jwt", "oauth-authz-req+jwt")
LONGEST_REQUEST_OBJECT = 3600 * SECOND
_CLAIMS = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti", "sub"})
"""Claims of the JWT itself; all other claims are parameters."""


class InvalidRequestObject(Refused):
    """The request object is not valid (RFC 9101 section 7)."""

    code = "invalid_request_object"


class RequestKeys(msgspec.Struct, frozen=True):
    """The keys with which a client signs its request objects, and the only algorithm that it registered (empty for the
    algorithm of each key).
    """

    keys: tuple[jose.PublicKey, ...]
    alg: str = ""

    def key_for(self, header: jose.Header) -> jose.PublicKey:
        """Return the key that a header names. Raises InvalidToken unless exactly one registered key fits the header."""
        kid, alg = header.get("kid"), str(header["alg"])
        named = [key for key in self.keys if kid in (None, key.kid, key.thumbprint) and key.accepts(alg)]
        if len(named) != 1 or self.alg not in ("", alg):
            raise jose.InvalidToken("not exactly one registered key of the client has this `kid` and this `alg`")
        return named[0]


def read_request_object(
    unverified: str, *, client_id: str, keys: RequestKeys, issuer: str, now: int
) -> dict[str, list[str]]:
    """Return the parameters of a request object after verifying it at the time `now` (microseconds). Raises
    InvalidRequestObject for an invalid signature, wrong claims or a forbidden parameter.
    """
    try:
        claims = jose.verify_jwt(
            unverified,
            key_for=keys.key_for,
            typ=REQUEST_OBJECT_TYPES,
            now=now,
            issuer=client_id,
            leeway=AHEAD,
            max_bytes=MAX_VALUE,
        )
        _check_bounds(claims, client_id=client_id, issuer=issuer, now=now)
    except jose.InvalidToken as error:
        hint = f"`iss` and `client_id` must be the client, `aud` {issuer}, and `exp` at most an hour ahead"
        raise InvalidRequestObject(f"`request`: {error.message}", hint=hint) from None
    for name in ("request", "request_uri"):
        if name in claims:
            raise InvalidRequestObject(f"`request`: a request object cannot have the parameter `{name}`")
    return {name: _spell(name, value) for name, value in claims.items() if name not in _CLAIMS and value is not None}


def _check_bounds(claims: Mapping[str, object], *, client_id: str, issuer: str, now: int) -> None:
    """Check that a request object is of this client and for this server, and valid for at most an hour. Raises
    InvalidToken if not.
    """
    audience = claims.get("aud")
    if issuer not in (audience if isinstance(audience, list) else [audience]):
        raise jose.InvalidToken(f"`aud` does not name {issuer}")
    if claims.get("client_id") != client_id:
        raise jose.InvalidToken("`client_id` does not name the client of the request")
    if claims.get("sub") == client_id:
        raise jose.InvalidToken("`sub` names the client, which only a client assertion may do")
    if jose.numeric_date(claims, "exp") > now + LONGEST_REQUEST_OBJECT + AHEAD:
        raise jose.InvalidToken("`exp` is more than an hour ahead")
    if "nbf" in claims and jose.numeric_date(claims, "nbf") < now - LONGEST_REQUEST_OBJECT:
        raise jose.InvalidToken("`nbf` is more than an hour ago")


def _spell(name: str, value: object) -> list[str]:
    """Return the values that a parameter would have in a form. In a request object, `claims`, `authorization_details`
    and numbers are JSON values; in a form they are text.
    """
    if isinstance(value, str):
        return [value]
    if name == "resource" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    return [msgspec.json.encode(value).decode()]
