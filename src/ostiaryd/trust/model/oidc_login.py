"""Login by an OpenID provider as a relying party: OpenID Connect Core 1.0 sections 3.1 and 5.3, Discovery 1.0.

The server uses the code flow with PKCE (RFC 7636), `state`, `nonce`, and `iss` in the response (RFC 9207). The expected
values of the response are in the attempt, an encrypted cookie of the browser; the server stores nothing for an attempt.

Stricter than Core: an ID token has a single audience, this client; the signature is always checked, with an asymmetric
key, even though the token comes over TLS; `iat` is at most `MAX_AGE` old.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256, sha384, sha512
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ostiary.protocol import jose
from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Malformed, Unavailable
from ostiary.protocol.uri import add_query
from ostiaryd.trust.model import SECOND
from ostiaryd.trust.model.providers import MAX_WORD, OidcSettings, ProviderRefused

ATTEMPT_LIFETIME = 600 * SECOND
LEEWAY = 60 * SECOND
"""Tolerance for the clock of a provider, in microseconds."""
MAX_AGE = 600 * SECOND
MAX_ID_TOKEN = 32 << 10
MAX_ATTEMPT = 8192
MAX_METHODS = 16
_HASHES = {"256": sha256, "384": sha384, "512": sha512}


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """A login at a provider that one browser has started and not finished. `state` is a value that the response must
    repeat; `verifier` is the PKCE code verifier.

    `request` is the id of a SAML request. `asked_again`: the request demanded that the provider authenticates the
    person again. `session` is the id of the session that the browser had at the start; empty for none.
    """

    provider: str
    state: str
    nonce: str
    verifier: str
    return_to: str
    began_at: int
    asked_again: bool = False
    request: str = ""
    session: str = ""


class ProviderMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """The members of a discovery document that a login uses (Discovery 1.0 section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    response_types_supported: tuple[str, ...] = ("code",)
    code_challenge_methods_supported: tuple[str, ...] | None = None
    token_endpoint_auth_signing_alg_values_supported: tuple[str, ...] | None = None
    authorization_response_iss_parameter_supported: bool = False


class TokenAnswer(msgspec.Struct, frozen=True):
    """The response of a provider's token endpoint (Core 3.1.3.3)."""

    access_token: str
    id_token: str


def discovery_url(issuer: str) -> str:
    """Return the URL of the discovery document of an issuer (Discovery 1.0 section 4.1)."""
    return issuer.rstrip("/") + "/.well-known/openid-configuration"


def check_metadata(metadata: ProviderMetadata, *, issuer: str) -> ProviderMetadata:
    """Return the metadata after checking that they belong to `issuer` and that the provider supports the code flow with
    PKCE. Raises Unavailable otherwise.
    """
    if metadata.issuer != issuer:
        named = metadata.issuer[:200]
        raise Unavailable(f"the discovery document names the issuer {named!a}, not {issuer!a}")  # Discovery 4.3
    if "code" not in metadata.response_types_supported:
        raise Unavailable("the provider does not offer the code flow")
    if (
        metadata.code_challenge_methods_supported is not None
        and "S256" not in metadata.code_challenge_methods_supported
    ):
        raise Unavailable("the provider does not offer PKCE with S256")
    return metadata


def seal_attempt(attempt: Attempt, *, secret: bytes, nonce: bytes) -> str:
    """Return the value of the cookie for an attempt, encrypted, so that the browser can neither read nor change it."""
    return jose.b64u(nonce + _aead(secret).encrypt(nonce, _encode(attempt), b"login attempt"))


def open_attempt(unverified_cookie: str | None, *, provider: str, secret: bytes, now: int) -> Attempt:
    """Return the attempt in a cookie. Raises ProviderRefused if the cookie is missing or not valid, if the attempt was
    started at another provider, or if it has expired.
    """
    hint = "start the login again, in one browser"
    if not unverified_cookie or len(unverified_cookie) > MAX_ATTEMPT:
        raise ProviderRefused("this browser has no login in progress", hint=hint, code="no_login_in_progress")
    try:
        sealed = jose.unb64u(unverified_cookie)
        attempt = _decode(_aead(secret).decrypt(sealed[:12], sealed[12:], b"login attempt"))
    except (Malformed, InvalidTag, ValueError):
        raise ProviderRefused("this browser has no login in progress", hint=hint, code="no_login_in_progress") from None
    if attempt.provider != provider:  # prevents mix-up attacks: RFC 9700 section 4.4
        raise ProviderRefused("the response comes from another identity provider", hint=hint, code="mixed_up")
    if not attempt.began_at <= now < attempt.began_at + ATTEMPT_LIFETIME:
        raise ProviderRefused("the login took too long", hint=hint, code="login_expired")
    return attempt


def _aead(secret: bytes) -> AESGCM:
    return AESGCM(secret)


_encode = msgspec.json.Encoder().encode
_decode = json_decoder(Attempt)


def authorization_url(
    metadata: ProviderMetadata,
    settings: OidcSettings,
    attempt: Attempt,
    *,
    redirect_uri: str,
    login_hint: str = "",
    acr_values: tuple[str, ...] = (),
) -> str:
    """Return the URL of the authentication request: Core 3.1.2.1, RFC 7636 section 4.3."""
    challenge = jose.b64u(sha256(attempt.verifier.encode()).digest())
    parameters = {
        "response_type": "code",
        "client_id": settings.client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(settings.scopes),
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    if attempt.asked_again:
        # makes the provider state `auth_time` (Core 3.1.2.1)
        parameters |= {"prompt": settings.reauthenticate, "max_age": "0"}
    if login_hint:
        parameters["login_hint"] = login_hint
    if acr_values:
        parameters["acr_values"] = " ".join(acr_values)
    return add_query(metadata.authorization_endpoint, parameters)


def check_response(answer: Mapping[str, str], attempt: Attempt, metadata: ProviderMetadata) -> str:
    """Return the code in an authentication response. Raises ProviderRefused if one of these conditions does not hold.

    1. `state` must be that of this browser's attempt. 2. `iss` must be the issuer of the provider (RFC 9207 section
    2.4). 3. The response must not be an error.
    """
    if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
        raise ProviderRefused(
            "the response belongs to another login", hint="start the login again, in one browser", code="wrong_state"
        )
    issuer = answer.get("iss")
    if issuer != metadata.issuer and (issuer is not None or metadata.authorization_response_iss_parameter_supported):
        raise ProviderRefused(
            "the response comes from another identity provider", hint="start the login again", code="mixed_up"
        )
    if (error := answer.get("error")) is not None:
        raise ProviderRefused(
            f"the identity provider refused the login ({_word(error)})",
            hint="log in at the provider with another account, or ask the provider's administrator",
            code="provider_refused",
        )
    code = answer.get("code", "")
    if not 0 < len(code) <= 4096:
        raise ProviderRefused(
            "`code` in the response of the identity provider is missing or longer than 4096 characters",
            hint="start the login again",
            code="no_code",
        )
    return code


def _word(text: str) -> str:
    return "".join(one for one in text[:64] if one.isascii() and (one.isalnum() or one in "_-."))


def check_id_token(
    unverified_token: str,
    *,
    keys: jose.JwkSet,
    issuer: str,
    client_id: str,
    nonce: str,
    access_token: str,
    now: int,
) -> dict[str, Any]:
    """Verify an ID token, and return its claims (Core 3.1.3.7). Raises InvalidToken for an invalid signature
    (`unknown_kid` for a key that is not in `keys`), ProviderRefused for wrong claims.

    The provider's key determines the signature algorithm. Symmetric keys and `none` are refused.
    """
    payload = jose.verify_jws(unverified_token, key_for=keys.key_for, typ=(None, "jwt"), max_bytes=MAX_ID_TOKEN)
    claims = jose.parse_claims(payload.payload)
    if claims.get("iss") != issuer:
        raise _invalid("another issuer issued the ID token (`iss`)")
    if claims.get("aud") not in (client_id, [client_id]):
        raise _invalid("the audience of the ID token is not exactly this client (`aud`)")
    if claims.get("azp", client_id) != client_id:
        raise _invalid("the ID token was issued to another client (`azp`)")
    try:
        jose.check_times(claims, now=now, leeway=LEEWAY)
        ends, issued = jose.numeric_date(claims, "exp"), jose.numeric_date(claims, "iat")
    except jose.InvalidToken as error:
        raise _invalid(error.message) from None
    if issued <= now - MAX_AGE - LEEWAY:
        raise _invalid("the ID token is too old (`iat`)")
    if ends <= issued:
        raise _invalid("the ID token expires (`exp`) before its time of issue (`iat`)")
    stated = claims.get("nonce")
    if not isinstance(stated, str) or not hmac.compare_digest(stated.encode(), nonce.encode()):
        raise _invalid("the ID token belongs to another login (`nonce`)")
    if "at_hash" in claims and claims["at_hash"] != hash_access_token(access_token, str(payload.header["alg"])):
        raise _invalid("the ID token belongs to another access token (`at_hash`)")
    check_sub(claims)
    return claims


def check_sub(claims: Mapping[str, Any]) -> str:
    """Return the claim `sub`, 1 to 255 ASCII characters (Core 2). Raises ProviderRefused for any other value."""
    sub = claims.get("sub")
    if not isinstance(sub, str) or not 0 < len(sub) <= MAX_WORD or not sub.isascii() or not sub.isprintable():
        raise _invalid(f"`sub` is not a string of 1 to {MAX_WORD} ASCII characters")
    return sub


def hash_access_token(access_token: str, alg: str) -> str:
    """Return `at_hash` of an ID token: the left half of the access token's digest, in base64url (Core 3.1.3.6). The
    hash function is that of the signature algorithm `alg`; for EdDSA it is SHA-512, as in Ed25519.
    """
    digest = _HASHES.get(alg[-3:], sha512)(access_token.encode()).digest()
    return jose.b64u(digest[: len(digest) // 2])


def authenticated_at(claims: Mapping[str, Any]) -> int | None:
    """Return the claim `auth_time` in microseconds; None if it is missing. Raises ProviderRefused for other values than
    numbers.
    """
    if "auth_time" not in claims:
        return None
    try:
        return jose.numeric_date(claims, "auth_time")
    except jose.InvalidToken as error:
        raise _invalid(error.message) from None


def stated_assurance(claims: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return `acr` and `amr` as the provider states them for a login; each is empty if it is missing."""
    acr, amr = claims.get("acr"), claims.get("amr")
    methods = amr if isinstance(amr, list) and len(amr) <= MAX_METHODS else []
    return (acr if isinstance(acr, str) and len(acr) <= MAX_WORD else ""), tuple(
        one for one in methods if isinstance(one, str) and 0 < len(one) <= MAX_WORD
    )


def verified_email(claims: Mapping[str, Any]) -> str | None:
    """Return the e-mail address if `email_verified` is the boolean true (Core 5.1); otherwise None."""
    email = claims.get("email")
    return email if claims.get("email_verified") is True and isinstance(email, str) else None


def _invalid(message: str) -> ProviderRefused:
    return ProviderRefused(message, hint="start the login again; if that does not help, ask an administrator")
