"""Compact JWS and JWT: RFC 7515 sections 3.1, 5 and 7.1, RFC 7519 section 7.2, with the rules of RFC 8725.

Times are integers of microseconds since the epoch, on the wire NumericDates in seconds. A token is expired from the
instant `exp` on. `aud` must name one audience: a string, or a list of one string.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from types import MappingProxyType

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.errors import Malformed
from ostiary.protocol.jose.encoding import b64u, unb64u
from ostiary.protocol.jose.errors import InvalidToken
from ostiary.protocol.jose.keys import PrivateKey, PublicKey

MAX_TOKEN_BYTES = 16 << 10
MAX_HEADER_BYTES = 4 << 10
MAX_DEPTH = 16
MAX_SECONDS = 253402300799  # the end of the year 9999

Header = Mapping[str, object]
_encode = msgspec.json.Encoder().encode


class Jws(msgspec.Struct, frozen=True):
    """The parts of a compact JWS. Parsing does not verify the signature: until the verification, the name of a variable
    with these parts must begin with `unverified_`.
    """

    header: Header
    payload: bytes
    signing_input: bytes
    signature: bytes


@lru_cache(maxsize=1024)  # a token is parsed when it is verified, and again in the act
def parse_jws(unverified_token: str, *, max_bytes: int = MAX_TOKEN_BYTES) -> Jws:
    """Return the parts of a token; nothing is verified. The header must have `alg` and no extension (`crit`, `b64`);
    `alg`, `kid`, `typ` and `cty` must be strings.

    Raises InvalidToken for any other token.
    """
    if len(unverified_token) > max_bytes:
        raise InvalidToken(f"the token is longer than {max_bytes} bytes")
    head, _, signature = unverified_token.rpartition(".")
    protected, dot, payload = head.partition(".")
    if not dot or "." in payload:
        raise InvalidToken("the token is not a valid JWT")
    header = parse_header(protected)
    try:
        return Jws(header, unb64u(payload), head.encode("ascii"), unb64u(signature))
    except Malformed as error:
        raise InvalidToken(f"a part of the token is {error.message}") from None


def verify_jws(
    unverified_token: str,
    *,
    key_for: Callable[[Header], PublicKey],
    typ: Collection[str | None],
    max_bytes: int = MAX_TOKEN_BYTES,
) -> Jws:
    """Return the parts of a token after verifying its signature with the key that `key_for` returns for its header.
    Raises InvalidToken for another type or algorithm, and for an invalid signature.

    `typ`: the accepted types in lower case and without `application/`; None among them accepts a token without type.
    """
    unverified_jws = parse_jws(unverified_token, max_bytes=max_bytes)
    if media_type(unverified_jws.header) not in typ:
        raise InvalidToken(f"the token is not of type {_either(typ)}")
    key = key_for(unverified_jws.header)
    if not key.accepts(unverified_jws.header["alg"]):
        raise InvalidToken(f"the key is for {key.alg}, the token names another algorithm")
    key.verify(unverified_jws.signature, unverified_jws.signing_input)
    return unverified_jws


def verify_jwt(
    unverified_token: str,
    *,
    key_for: Callable[[Header], PublicKey],
    typ: Collection[str | None],
    now: int,
    issuer: str | None = None,
    audience: str | None = None,
    required: Collection[str] = ("exp",),
    leeway: int = 0,
    max_bytes: int = MAX_TOKEN_BYTES,
) -> dict[str, object]:
    """Return the claims of a token with a valid signature, valid times, and the expected issuer and audience. Raises
    InvalidToken if one of these checks fails.

    `now` and `leeway` are microseconds. `typ` as in `verify_jws`. `issuer`, `audience`: None: not checked. `required`:
    names of claims that the token must have.
    """
    payload = verify_jws(unverified_token, key_for=key_for, typ=typ, max_bytes=max_bytes).payload
    claims = parse_claims(payload)
    for name in required:
        if name not in claims:
            raise InvalidToken(f"the token has no claim `{name}`")
    check_times(claims, now=now, leeway=leeway)
    if issuer is not None and claims.get("iss") != issuer:
        raise InvalidToken("the token is from another issuer (`iss`)")
    if audience is not None and claims.get("aud") not in (audience, [audience]):
        raise InvalidToken("the token is for another audience (`aud`)")
    return claims


def sign_jwt(
    key: PrivateKey,
    *,
    typ: str | None,
    claims: Mapping[str, object] | msgspec.Struct,
    header: Mapping[str, object] | None = None,
) -> str:
    """Return a signed token with these claims. `header` adds members to `alg`, `kid` and `typ`."""
    alg, kid = key.public.alg, key.public.kid
    protected = _protect(alg, kid, typ) if header is None else protect({**header, **_fixed(alg, kid, typ)})
    return sign_jws(key, protected=protected, payload=_encode(claims))


def sign_jws(key: PrivateKey, *, protected: str, payload: bytes) -> str:
    """Return a compact JWS. `protected`: the header as `protect` returns it; its `alg` must be the algorithm of the
    key, which this function does not check.
    """
    signing_input = f"{protected}.{b64u(payload)}"
    return f"{signing_input}.{b64u(key.sign(signing_input.encode()))}"


def protect(header: Mapping[str, object]) -> str:
    """Return a header as base64url of its JSON, the form that `sign_jws` takes."""
    return b64u(_encode(header))


def parse_claims(payload: bytes) -> dict[str, object]:
    """Return the claims set, a JSON object. Raises InvalidToken for other content."""
    try:
        claims = canonical.parse(payload, max_depth=MAX_DEPTH)
    except Malformed as error:
        raise InvalidToken(f"the claims: {error.message}") from None
    if not isinstance(claims, dict):
        raise InvalidToken("the claims are not a JSON object")
    return claims


def check_times(claims: Mapping[str, object], *, now: int, leeway: int = 0) -> None:
    """Check `exp`, `nbf` and `iat` where present: RFC 7519 sections 4.1.4 to 4.1.6. Raises InvalidToken if the check
    fails.
    """
    if "exp" in claims and now - leeway >= numeric_date(claims, "exp"):
        raise InvalidToken("the token has expired")
    if "nbf" in claims and now + leeway < numeric_date(claims, "nbf"):
        raise InvalidToken("the token is not valid yet (`nbf`)")
    if "iat" in claims and now + leeway < numeric_date(claims, "iat"):
        raise InvalidToken("the token was issued in the future (`iat`)")


def numeric_date(claims: Mapping[str, object], name: str) -> int:
    """Return a NumericDate as microseconds, rounded down. Raises InvalidToken for a value that is no number or
    out of range.
    """
    value = claims.get(name)
    if type(value) is int and 0 <= value <= MAX_SECONDS:
        return value * 1_000_000
    if type(value) is float and 0 <= value <= MAX_SECONDS:
        return math.floor(value * 1_000_000)
    raise InvalidToken(f"`{name}` is not a number of seconds between 0 and {MAX_SECONDS}")


def media_type(header: Header) -> str | None:
    """Return the `typ` of a header in lower case and without `application/` (RFC 7515 section 4.1.9); None without
    `typ`.
    """
    typ = header.get("typ")
    return typ.lower().removeprefix("application/") if isinstance(typ, str) else None


@lru_cache(maxsize=4096)
def parse_header(unverified_protected: str) -> Header:
    """Return the header of a token after checking its members. `unverified_protected`: the part of the token before the
    first dot (base64url). The result is cached, because the tokens of an issuer have the same header.

    Raises InvalidToken for a malformed header.
    """
    try:
        header = canonical.parse(unb64u(unverified_protected), max_bytes=MAX_HEADER_BYTES, max_depth=MAX_DEPTH)
    except Malformed as error:
        raise InvalidToken(f"the header of the token: {error.message}") from None
    if not isinstance(header, dict):
        raise InvalidToken("the header of the token is not a JSON object")
    for name in ("crit", "b64"):
        if name in header:
            raise InvalidToken(f"the header of the token has an unsupported extension (`{name}`)")
    if "alg" not in header:
        raise InvalidToken("the header of the token has no `alg`")
    for name in ("alg", "kid", "typ", "cty"):
        if not isinstance(header.get(name, ""), str):
            raise InvalidToken(f"`{name}` in the header of the token is not a string")
    return MappingProxyType(header)


@lru_cache(maxsize=256)
def _protect(alg: str, kid: str, typ: str | None) -> str:
    return protect(_fixed(alg, kid, typ))


def _fixed(alg: str, kid: str, typ: str | None) -> dict[str, str]:
    return {"alg": alg, "kid": kid} if typ is None else {"typ": typ, "alg": alg, "kid": kid}


def _either(typ: Collection[str | None]) -> str:
    return " or ".join(sorted(name or "(none)" for name in typ))
