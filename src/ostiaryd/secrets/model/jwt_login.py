"""Logins by tokens of other issuers: the configuration of a method, its roles, and the checks of claims.

The API is HashiCorp Vault, "JWT/OIDC auth method (API)". Times of claims are microseconds since the epoch; leeways of
roles are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import msgspec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from ostiary.protocol import jose
from ostiary.protocol.certificate import load_pem_certificates
from ostiary.protocol.errors import Invalid
from ostiaryd.secrets.model.request import SECOND, matches_glob

MAX_KEYS = 16
"""Maximum number of public keys in a configuration."""
MAX_VALUES = 64
"""Maximum number of values that a role requires for one claim, and of audiences, claims and mappings of a role."""
MAX_TEXT = 1024
LONGEST_LEEWAY_S = 3600
CLOCK_SKEW_S, MISSING_TIME_S = 60, 150
"""Seconds of leeway of a role whose setting is 0: for clock differences, and for a missing `exp` or `nbf`."""
_TYPES = frozenset({None, "jwt", "at+jwt"})


class JwtConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a JWT login method: the source of the keys that verify tokens, and the requirements of all
    roles.
    """

    oidc_discovery_url: str = ""
    oidc_discovery_ca_pem: str = ""
    jwks_url: str = ""
    jwks_ca_pem: str = ""
    jwt_validation_pubkeys: list[str] = []
    jwt_supported_algs: list[str] = []
    bound_issuer: str = ""
    default_role: str = ""

    @property
    def url(self) -> str:
        """Return the URL of the key set, or of the discovery document that names the key set; an empty text if the
        configuration itself contains the keys.
        """
        return self.jwks_url or self.oidc_discovery_url

    @property
    def ca_pem(self) -> str:
        """Return the certificate authorities, in PEM, of which one must have issued the certificate of the server at
        `url`; an empty text for the authorities of the system.
        """
        return self.jwks_ca_pem or self.oidc_discovery_ca_pem


class JwtRole(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a role that determine which claims it accepts. A leeway of 0 stands for the default leeway, -1
    for none.
    """

    user_claim: str = ""
    user_claim_json_pointer: bool = False
    groups_claim: str = ""
    bound_audiences: list[str] = []
    bound_subject: str = ""
    bound_claims: dict[str, Any] = {}
    bound_claims_type: str = "string"
    claim_mappings: dict[str, str] = {}
    clock_skew_leeway: int = 0
    expiration_leeway: int = 0
    not_before_leeway: int = 0
    token_bound_cidrs: list[str] = []


def check_config(config: JwtConfig) -> None:
    """Check a configuration, except whether the server may connect to its URL. Raises Malformed for certificate
    authorities that cannot be read, Invalid for another member that is not valid.
    """
    sources = (config.oidc_discovery_url, config.jwks_url, config.jwt_validation_pubkeys)
    if sum(map(bool, sources)) != 1:
        raise Invalid(
            "exactly one of `jwt_validation_pubkeys`, `jwks_url` or `oidc_discovery_url` must be set",
        )
    for name, url in (("oidc_discovery_ca_pem", "oidc_discovery_url"), ("jwks_ca_pem", "jwks_url")):
        if getattr(config, name) and not getattr(config, url):
            raise Invalid(f"`{name}` is set without `{url}`", hint=f"leave `{name}` out, or set `{url}`")
    if len(config.jwt_validation_pubkeys) > MAX_KEYS:
        raise Invalid(f"`jwt_validation_pubkeys` may have at most {MAX_KEYS} keys")
    if unknown := set(config.jwt_supported_algs) - jose.ALGS:
        raise Invalid(
            f"unsupported signing algorithm: {min(unknown)[:64]!a}", hint=f"use one of {', '.join(sorted(jose.ALGS))}"
        )
    read_public_keys(tuple(config.jwt_validation_pubkeys))
    if config.ca_pem:
        load_pem_certificates(config.ca_pem)


@lru_cache(maxsize=64)
def read_public_keys(texts: tuple[str, ...]) -> tuple[jose.PublicKey, ...]:
    """Return the public keys in texts in PEM. An RSA key is returned once for each of its algorithms. Raises Invalid
    for a text that is no supported public key.
    """
    keys: list[jose.PublicKey] = []
    for text in texts:
        try:
            members = jose.render_public_jwk(load_pem_public_key(text.encode()))
        except (ValueError, jose.InvalidKey):  # the error of the library may quote the text
            raise Invalid("`jwt_validation_pubkeys` has a text that is not a supported public key in PEM") from None
        algs: tuple[str | None, ...] = ("RS256", "PS256") if members["kty"] == "RSA" else (None,)
        keys += (jose.parse_public_jwk(members if alg is None else {**members, "alg": alg}) for alg in algs)
    return tuple(keys)


def check_role(role: JwtRole) -> None:
    """Check the settings of a role of a JWT login method. Raises Invalid without a user claim or without any bound on
    the token, and for a member that is not valid.
    """
    if not role.user_claim:
        raise Invalid("a user claim must be defined on the role", hint="set `user_claim`")
    if not (role.bound_audiences or role.bound_subject or role.bound_claims or role.token_bound_cidrs):
        raise Invalid(
            "must have at least one bound constraint when creating/updating a role",
            hint="set bound_audiences, bound_subject, bound_claims or token_bound_cidrs",
        )
    if role.bound_claims_type not in ("string", "glob"):
        raise Invalid("invalid `bound_claims_type`", hint="use string or glob")
    for name in ("clock_skew_leeway", "expiration_leeway", "not_before_leeway"):
        if not -1 <= getattr(role, name) <= LONGEST_LEEWAY_S:
            raise Invalid(f"`{name}` must be -1 to {LONGEST_LEEWAY_S} seconds")
    for name in ("bound_audiences", "bound_claims", "claim_mappings"):
        if len(getattr(role, name)) > MAX_VALUES:
            raise Invalid(f"`{name}` may have at most {MAX_VALUES} members")
    for value in role.bound_claims.values():
        values = value if isinstance(value, list) else [value]
        if not 0 < len(values) <= MAX_VALUES or not all(isinstance(one, (str, int, float, bool)) for one in values):
            raise Invalid(
                "a value of `bound_claims` must be a text, a number, true, false, or a list of 1 to"
                f" {MAX_VALUES} of these"
            )
        if role.bound_claims_type == "glob" and not all(isinstance(one, str) for one in values):
            raise Invalid("with `bound_claims_type` glob, the values of `bound_claims` must be texts")
    targets = list(role.claim_mappings.values())
    if "role" in targets or len(set(targets)) < len(targets):
        raise Invalid("`claim_mappings` must not have the metadata key `role`, or a metadata key twice")


def verify_token(
    unverified_token: str, keys: tuple[jose.PublicKey, ...] | jose.JwkSet, config: JwtConfig
) -> dict[str, object]:
    """Verify the signature of a token with the keys, and return its claims. The times and the audience are not checked
    here.

    Raises InvalidToken if the configuration does not permit the algorithm, or no key verifies the signature; with the
    code `unknown_kid` if `keys` is a key set without a key for the token, so that the caller can fetch the set again.
    """
    header = jose.parse_jws(unverified_token).header
    if config.jwt_supported_algs and header["alg"] not in config.jwt_supported_algs:
        raise jose.InvalidToken("the algorithm of the token is not in `jwt_supported_algs`")
    if isinstance(keys, jose.JwkSet):
        return jose.parse_claims(jose.verify_jws(unverified_token, key_for=keys.key_for, typ=_TYPES).payload)
    for key in filter(lambda key: key.accepts(header["alg"]), keys):
        try:
            jws = jose.verify_jws(unverified_token, key_for=partial(_choose, key), typ=_TYPES)
        except jose.InvalidToken:
            continue  # another key may have signed the token
        return jose.parse_claims(jws.payload)
    raise jose.InvalidToken("no key of the configuration verifies the signature")


def _choose(key: jose.PublicKey, header: jose.Header) -> jose.PublicKey:
    """Return `key` whatever `kid` the header has, since a key in PEM has no `kid`."""
    return key


def check_claims(role: JwtRole, claims: Mapping[str, object], *, issuer: str, now: int) -> tuple[str, dict[str, str]]:
    """Check the claims of a verified token against a role; return the user, and the metadata that the role maps from
    claims. Raises InvalidToken for a token that has expired or is not valid yet, and for a claim that is missing or
    that the role does not admit.

    `issuer`: the required `iss`; empty: any.
    """
    _check_times(role, claims, now=now)
    if "cnf" in claims:
        raise jose.InvalidToken("the token is bound to a key (cnf), which a login does not prove")
    if issuer and claims.get("iss") != issuer:
        raise jose.InvalidToken("invalid issuer (iss) claim")
    if role.bound_subject and claims.get("sub") != role.bound_subject:
        raise jose.InvalidToken("invalid subject (sub) claim")
    audiences = _as_list(claims.get("aud", []))
    if audiences and not role.bound_audiences:
        raise jose.InvalidToken("audience claim found in JWT but no audiences bound to the role")
    if role.bound_audiences and not any(one in audiences for one in role.bound_audiences):
        raise jose.InvalidToken("aud claim does not match any bound audience")
    for name, expected in role.bound_claims.items():
        actual = find_claim(claims, name)
        if actual is None:
            raise jose.InvalidToken(f"claim {name[:100]!a} is missing")
        is_glob = role.bound_claims_type == "glob"
        if not any(_matches(one, other, is_glob=is_glob) for one in _as_list(expected) for other in _as_list(actual)):
            raise jose.InvalidToken(f"claim {name[:100]!a} does not match any associated bound claim values")
    user = find_claim(claims, role.user_claim) if role.user_claim_json_pointer else claims.get(role.user_claim)
    if not isinstance(user, str) or not 0 < len(user) <= MAX_TEXT:
        raise jose.InvalidToken(f"claim {role.user_claim[:100]!a} is not a text of 1 to {MAX_TEXT} characters")
    if role.groups_claim:
        groups = _as_list(find_claim(claims, role.groups_claim))
        if not all(isinstance(one, str) for one in groups):
            raise jose.InvalidToken(f"claim {role.groups_claim[:100]!a} is missing, or is not a list of texts")
    metadata: dict[str, str] = {}
    for name, target in role.claim_mappings.items():
        value = find_claim(claims, name)
        if value is not None and (not isinstance(value, str) or len(value) > MAX_TEXT):
            raise jose.InvalidToken(f"claim {name[:100]!a} is not a text of at most {MAX_TEXT} characters")
        if isinstance(value, str):
            metadata[target] = value
    return user, metadata


def find_claim(claims: Mapping[str, object], name: str) -> object | None:
    """Return the claim `name`; a name that begins with a slash is a JSON pointer (RFC 6901). Return None if the token
    has no such claim.
    """
    if not name.startswith("/"):
        return claims.get(name)
    value: object = claims
    for part in name[1:].split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isascii() and part.isdecimal() and len(part) < 10:
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def _check_times(role: JwtRole, claims: Mapping[str, object], *, now: int) -> None:
    """Check the times of a token. The token must have `exp`, `nbf` or `iat`; a missing `exp` or `nbf` is computed from
    the others. Raises InvalidToken if the token has none of the three, has expired, or is not valid yet.
    """
    times = {name: jose.numeric_date(claims, name) for name in ("iat", "nbf", "exp") if name in claims}
    if not times:
        raise jose.InvalidToken("no issued at (iat), not before (nbf), or expiration time (exp) claims in token")
    skew = _leeway(role.clock_skew_leeway, CLOCK_SKEW_S)
    end = times.get("exp", max(times.values()) + _leeway(role.expiration_leeway, MISSING_TIME_S))
    begin = times.get("nbf", times.get("iat", end - _leeway(role.not_before_leeway, MISSING_TIME_S)))
    if now - skew >= end:
        raise jose.InvalidToken("the token has expired")
    if now + skew < max(begin, times.get("iat", begin)):
        raise jose.InvalidToken("the token is not valid yet (`nbf`, `iat`)")


def _leeway(seconds: int, default: int) -> int:
    return max(seconds or default, 0) * SECOND


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _matches(expected: object, actual: object, *, is_glob: bool) -> bool:
    """Return whether the value of a claim equals the expected value. 1 equals 1.0, and neither equals `true`.
    `is_glob`: `*` in `expected` stands for any text.
    """
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if is_glob and isinstance(expected, str):
        return isinstance(actual, str) and matches_glob(expected, actual)
    return expected == actual
