"""ID tokens (OpenID Connect Core 1.0 section 2) and logout tokens (Back-Channel Logout 1.0 section 2.4).

Their `typ` differs from that of access tokens (`at+jwt`), so that no verifier accepts one for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from ostiary.protocol.jose import Header, InvalidToken, PublicKey, verify_jws
from ostiary.protocol.jose.jws import parse_claims
from ostiaryd.registry.model import Person
from ostiaryd.tokens.model.authorization import PERSON_CLAIMS
from ostiaryd.trust.model.clients import ID_TOKEN_ALGS, OAuthClient

ID_TOKEN_TYP = "JWT"
LOGOUT_TYP = "logout+jwt"
ID_TOKEN_S = 3600
"""Lifetime of an ID token, in seconds."""
LOGOUT_TOKEN_S = 120
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


class IdToken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    iss: str
    sub: str
    aud: str
    exp: int
    iat: int
    auth_time: int
    sid: str = ""
    nonce: str = ""
    acr: str = ""
    amr: tuple[str, ...] = ()
    at_hash: str = ""
    name: str = ""
    preferred_username: str = ""
    email: str = ""


class LogoutToken(msgspec.Struct, frozen=True, kw_only=True):
    iss: str
    sub: str
    aud: str
    iat: int
    exp: int
    jti: str
    sid: str
    events: dict[str, dict[str, str]]


def alg_of(client: OAuthClient | None) -> str:
    """Return the signature algorithm for ID tokens and logout tokens of a client."""
    alg = "" if client is None else client.metadata.id_token_signed_response_alg
    return alg or ID_TOKEN_ALGS[0]


def claims_about(person: Person, *, scopes: Collection[str], names: Collection[str]) -> dict[str, str]:
    """Return the claims about a person that are in the requested scopes (section 5.4) or in `names`, the individually
    requested claims (section 5.5). A claim for which the record of the person has no value is left out.
    """
    values = {"name": person.name, "preferred_username": person.name, "email": person.email}
    return {
        name: value
        for name, scope in PERSON_CLAIMS.items()
        if (value := values[name]) is not None and (scope in scopes or name in names)
    }


def read_id_token_hint(
    unverified_token: str, *, keys: Callable[[str], PublicKey | None], issuer: str
) -> dict[str, object]:
    """Verify an ID token of this server and return its claims. An expired token is accepted (section 3.1.2.1). Raises
    InvalidToken for a token of another server, for an invalid signature, and (code `unknown_kid`) for a key that this
    server never had or has deleted.
    """

    def key_for(header: Header) -> PublicKey:
        if (key := keys(str(header.get("kid")))) is None:
            raise InvalidToken(
                "the signing key of the ID token is unknown: another server issued it, or it is too old",
                code="unknown_kid",
            )
        return key

    claims = parse_claims(verify_jws(unverified_token, key_for=key_for, typ=(ID_TOKEN_TYP.lower(),)).payload)
    if claims.get("iss") != issuer or not isinstance(claims.get("sub"), str) or not isinstance(claims.get("aud"), str):
        raise InvalidToken("another server issued the ID token")
    return claims
