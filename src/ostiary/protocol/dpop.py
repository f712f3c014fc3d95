"""DPoP proofs: RFC 9449. Making a proof (section 4.2), checking it (section 4.3), nonces (sections 8 and 9).

The parts of a proof are checked in the order of cost: form, `htm`, `htu`, times, `ath`, key, nonce, and then the
signature. This module does not detect that a proof is used twice: the caller must remember `Proof.digest` until the
time of the proof is outside of the accepted window. Differs from the RFC: `iat` must be in the window even if the
proof has a fresh nonce. Times are in microseconds.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Literal

import msgspec

from ostiary.protocol.errors import Malformed, Unauthenticated
from ostiary.protocol.jose import (
    InvalidKey,
    InvalidToken,
    Jws,
    PrivateKey,
    PublicKey,
    b64u,
    media_type,
    numeric_date,
    parse_claims,
    parse_header,
    parse_jws,
    parse_public_jwk,
    protect,
    sign_jws,
    unb64u,
)
from ostiary.protocol.uri import normalise_uri

TYP = "dpop+jwt"
MAX_PROOF_BYTES = 4 << 10
MAX_JTI = 256
MAX_NONCE = 256
WINDOW = 60_000_000
SKEW = 10_000_000
"""Tolerance for a client clock that is ahead of the server's, in microseconds."""

Purpose = Literal[b"as", b"rs"]


class InvalidProof(Unauthenticated):
    """The DPoP proof is missing, malformed, or for another request, key or token (RFC 9449 sections 5 and 7.1)."""

    code = "invalid_dpop_proof"


class UseNonce(Unauthenticated):
    """The DPoP proof needs a recent nonce of the server; the response carries one (RFC 9449 sections 8 and 9)."""

    code = "use_dpop_nonce"
    is_challenge = True


class Proof(msgspec.Struct, frozen=True):
    """A checked proof: the sender of one request holds the private half of `key`."""

    jkt: str
    """RFC 7638 thumbprint of the key"""
    jti: str
    iat: int
    """time at which the proof was made, in microseconds since the epoch"""
    key: PublicKey

    @property
    def digest(self) -> bytes:
        """Return the digest of the key and the `jti`, by which callers remember used proofs. Because the digest
        includes the key, a client cannot use up the `jti` values of another client.

        Stricter than section 11.1, which also includes the URI: a URI has many spellings, and a proof could be used
        once for each of them.
        """
        return sha256(f"{self.jkt}|{self.jti}".encode()).digest()


def make_proof(
    key: PrivateKey,
    *,
    method: str,
    uri: str,
    now: int,
    jti: str,
    nonce: str | None = None,
    access_token: str | None = None,
) -> str:
    """Return the value of a `DPoP` header. `jti`: a text with at least 96 random bits, new for each proof; `now` in
    microseconds. Raises Malformed for a `uri` that is not an absolute http(s) URI.
    """
    claims: dict[str, object] = {"jti": jti, "htm": method, "htu": normalise_uri(uri), "iat": now // 1_000_000}
    if nonce is not None:
        claims["nonce"] = nonce
    if access_token is not None:
        claims["ath"] = hash_token(access_token)
    return sign_jws(key, protected=_protect(key), payload=msgspec.json.encode(claims))


def check_proof(
    unverified_proof: str,
    *,
    method: str,
    uri: str | tuple[str, ...],
    now: int,
    nonces: Callable[[str | None], bool] | None = None,
    access_token: str | None = None,
    jkt: str | None = None,
    window_us: int = WINDOW,
    skew_us: int = SKEW,
    verify: Callable[[PublicKey, bytes, bytes], None] = PublicKey.verify,
) -> Proof:
    """Check the proof that the sender of this request holds the key. Raises InvalidProof if the proof is not valid for
    this request, UseNonce if it lacks a current nonce.

    `unverified_proof`: the value of the `DPoP` header, which must occur once. `uri`: the requested URI with the
    server's configured name, or several URIs if the server has several names; the `Host` header must not be used. Query
    and fragment are ignored. `nonces`: function that returns whether the nonce in the proof (None: no nonce) is a fresh
    nonce of this server; without the function, no nonce is required. `access_token`: the token of the request, whose
    hash the proof must have (`ath`); None: not checked. `jkt`: thumbprint of the expected key, such as `cnf.jkt` of the
    access token; None: any key. `verify`: function that verifies the signature, for callers that may have verified it
    before.
    """
    key, unverified_jws = parse_proof(unverified_proof)
    try:
        claims = parse_claims(unverified_jws.payload)
        proof = Proof(key.thumbprint, _jti(claims), numeric_date(claims, "iat"), key)
        ends = numeric_date(claims, "exp") if "exp" in claims else None
        begins = numeric_date(claims, "nbf") if "nbf" in claims else None
    except (InvalidToken, InvalidKey) as error:
        raise InvalidProof(f"the DPoP proof: {error.message}") from None
    if claims.get("htm") != method:
        raise InvalidProof("the DPoP proof is for another method (`htm`)", hint=f"`htm` must be {method[:16]}")
    uris, htu = (uri,) if isinstance(uri, str) else uri, claims.get("htu")
    if htu not in uris and not any(_same_target(htu, one) for one in uris):
        hint = f"`htu` must be {uris[0]}" if uris else ""
        raise InvalidProof("the DPoP proof is for another URI (`htu`)", hint=hint)
    if not now - window_us <= proof.iat <= now + skew_us:
        off = proof.iat - now
        raise InvalidProof(
            f"`iat` of the DPoP proof is {abs(off) / 1e6:.0f} s {'ahead' if off > 0 else 'ago'}; accepted are"
            f" {window_us // 1_000_000} s ago to {skew_us // 1_000_000} s ahead",
            hint="compare the clock of the client with the `Date` header of this answer",
        )
    if ends is not None and now >= ends:
        raise InvalidProof("the DPoP proof has expired (`exp`)", hint="make a new proof for each request")
    if begins is not None and now + skew_us < begins:
        raise InvalidProof("the DPoP proof is not valid yet (`nbf`)", hint="make a new proof for each request")
    if access_token is not None and claims.get("ath") != hash_token(access_token):
        hint = "make a new proof whose `ath` is the hash of the access token of the request"
        raise InvalidProof("the DPoP proof is for another access token (`ath`)", hint=hint)
    if jkt is not None and jkt != proof.jkt:
        raise InvalidProof(
            "the DPoP proof is signed by another key than the token names",
            hint="sign the proof with the key of the token request",
        )
    if nonces is not None and not nonces(_nonce(claims)):
        hint = "repeat the request with the nonce in the header `DPoP-Nonce` of this answer"
        raise UseNonce("the DPoP proof lacks a current nonce of this server", hint=hint)
    try:
        verify(key, unverified_jws.signature, unverified_jws.signing_input)
    except InvalidToken as error:
        raise InvalidProof(f"the DPoP proof: {error.message}") from None
    return proof


def parse_proof(unverified_proof: str) -> tuple[PublicKey, Jws]:
    """Return the key in a proof, and the parts of the proof; nothing is verified. Raises InvalidProof for a malformed
    proof.
    """
    try:
        unverified_jws = parse_jws(unverified_proof, max_bytes=MAX_PROOF_BYTES)
        return _proof_key(unverified_proof.partition(".")[0]), unverified_jws
    except (InvalidToken, InvalidKey) as error:
        raise InvalidProof(f"the DPoP proof: {error.message}") from None


def check_shown(
    unverified_proof: str, *, resource: str, ath: str, jkt: str, now: int, window_us: int, skew_us: int = SKEW
) -> Proof:
    """Check the proof with which a guard shows the server that the holder of the key `jkt` called the guard's resource
    with the token whose digest is `ath`; return the checked proof. Times are in microseconds. Raises InvalidProof for
    any other proof.

    The `htu` of the proof must be the URI `resource` or a URI below it; `htm` may be any method. The proof says nothing
    about the arguments of the call.
    """
    try:
        claims = parse_claims(parse_jws(unverified_proof, max_bytes=MAX_PROOF_BYTES).payload)
    except InvalidToken as error:
        raise InvalidProof(f"the DPoP proof: {error.message}") from None
    method, uri = claims.get("htm"), claims.get("htu")
    if not isinstance(method, str) or not isinstance(uri, str) or not _is_below(uri, resource):
        raise InvalidProof("the DPoP proof is for another resource (`htu`)")
    if not hmac.compare_digest(str(claims.get("ath")).encode(errors="surrogatepass"), ath.encode()):
        raise InvalidProof("the DPoP proof is for another access token (`ath`)")
    return check_proof(unverified_proof, method=method, uri=uri, now=now, jkt=jkt, window_us=window_us, skew_us=skew_us)


@lru_cache(maxsize=1024)  # each token is sent with many requests
def hash_token(access_token: str) -> str:
    """Return the `ath` of a token: base64url(SHA-256), RFC 9449 section 4.2."""
    return b64u(sha256(access_token.encode(errors="surrogatepass")).digest())


def make_nonce(secret: bytes, purpose: Purpose, now: int) -> str:
    """Return a nonce that the server need not store: the time `now` (microseconds), and a MAC over purpose and time. A
    nonce for one purpose (`as`: authorization server, `rs`: resource server) is not accepted for the other.
    """
    time8 = now.to_bytes(8)
    return b64u(time8 + _mac(secret, purpose, time8))


def is_fresh_nonce(secret: bytes, purpose: Purpose, nonce: str | None, now: int, lifetime_us: int) -> bool:
    """Return whether `make_nonce` made the nonce for this purpose, less than `lifetime_us` ago."""
    if nonce is None or len(nonce) != 32:
        return False
    made_at = _time_of(secret, purpose, nonce)
    return made_at is not None and 0 <= now - made_at < lifetime_us


@lru_cache(maxsize=64)  # many requests send the same nonce for minutes
def _time_of(secret: bytes, purpose: Purpose, nonce: str) -> int | None:
    """Return the time at which `make_nonce` made the nonce; None if it did not make the nonce for this purpose."""
    try:
        raw = unb64u(nonce)
    except Malformed:
        return None
    time8, mac = raw[:8], raw[8:]
    return int.from_bytes(time8) if hmac.compare_digest(mac, _mac(secret, purpose, time8)) else None


def _mac(secret: bytes, purpose: Purpose, time8: bytes) -> bytes:
    return hmac.digest(secret, purpose + b"|" + time8, "sha256")[:16]


@lru_cache(maxsize=256)
def _protect(key: PrivateKey) -> str:
    return protect({"typ": TYP, "alg": key.public.alg, "jwk": key.public.bare_jwk})


@lru_cache(maxsize=4096)
def _proof_key(unverified_protected: str) -> PublicKey:
    """Return the public key in the header of a proof. The result is cached, because all proofs of a client have the
    same header.

    A proof is the only token that contains its own key, so its header may also name the algorithm. The caller compares
    the thumbprint of the key with the expected thumbprint. Raises InvalidProof for a header without a usable key.
    """
    header = parse_header(unverified_protected)
    if media_type(header) != TYP:
        raise InvalidToken(f"the type is not {TYP}")
    jwk = header.get("jwk")
    if not isinstance(jwk, dict):
        raise InvalidToken("the header has no `jwk`")
    key = parse_public_jwk({"alg": header["alg"], **jwk})
    if not key.accepts(header["alg"]):
        raise InvalidToken(f"the key is for {key.alg}, the header names another algorithm")
    return key


def _jti(claims: dict[str, object]) -> str:
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI:
        raise InvalidToken(f"`jti` is not a string of 1 to {MAX_JTI} characters")
    return jti


def _nonce(claims: dict[str, object]) -> str | None:
    nonce = claims.get("nonce")
    if nonce is None or (isinstance(nonce, str) and len(nonce) <= MAX_NONCE):
        return nonce
    raise InvalidProof(f"the nonce of the DPoP proof is not a string of at most {MAX_NONCE} characters")


def _is_below(uri: str, resource: str) -> bool:
    """Return whether `uri` equals the URI `resource`, or is a path below it."""
    try:
        target, top = normalise_uri(uri), normalise_uri(resource).rstrip("/")
    except Malformed:
        return False
    return target == top or target.startswith(f"{top}/")


def _same_target(htu: object, uri: str) -> bool:
    if not isinstance(htu, str):
        return False
    try:
        return normalise_uri(htu) == normalise_uri(uri)
    except Malformed:
        return False
