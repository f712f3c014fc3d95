"""The claims of an access token: RFC 9068 (`at+jwt`), with `cnf` of RFC 7800 and RFC 9449, `act` of RFC 8693 section
4.1.

Times in the claims are seconds, as on the wire; arguments of functions are microseconds. Unknown claims are ignored.
Our own claims: `task`, `policy` (the hash of the policy set at issue), `owner`, `segment`, `model`, `risk_tier` and
`epoch` (of the agent), `budgets` (counting its calls), `memory` (of the origins of values), and `chain`: the agents
through which the authority came, so that a token ends with every task and every agent of its chain, and policies are
asked about each of them.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated

import msgspec
from msgspec import Meta

from ostiary.authorization.budget import MAX_BUDGETS, Budget
from ostiary.protocol.client_certificate import ClientCertificate
from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid
from ostiary.protocol.jose import MAX_SECONDS, InvalidToken

ACCESS_TYP = "at+jwt"
MAX_ACTORS = 8
MAX_LINKS = MAX_ACTORS - 1
"""links in a chain; the holder of the token is not one of them"""
MAX_SCOPES = 256
SHORT_SCOPE = 256
"""Characters of a `scope` parameter that is parsed once, since clients repeat theirs."""
MAX_BEARER_S = 300
"""Longest life of a token that is bound to no key, in seconds."""
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")  # RFC 6749 section 3.3


SCOPE_ALIASES = {"ssf.read": "ostiary:ssf.read", "ssf.manage": "ostiary:ssf.manage"}
"""Other names of scopes (CAEP interoperability profile 1.0), each with the name that is stored and signed."""


class InvalidScope(Invalid):
    """A scope that is malformed or wider than the available ones: RFC 6749 section 5.2."""

    code = "invalid_scope"


class Confirmation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The key that a token is bound to."""

    jkt: str | None = None
    """JWK thumbprint of the DPoP key"""
    certificate: str | None = msgspec.field(default=None, name="x5t#S256")
    """digest of the client certificate: RFC 8705 section 3.1"""


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """The party that acts for the subject; `act` is the party that acted before."""

    sub: str
    act: Actor | None = None


class Link(msgspec.Struct, frozen=True, array_like=True):
    """An agent that delegated authority: its epoch at that time, its task, and its attributes."""

    agent: str
    epoch: int
    task: str
    owner: str = ""
    segment: str = ""
    model: str = ""
    risk_tier: str = ""


class AccessClaims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    iss: str
    sub: str
    client_id: str
    aud: str
    exp: int
    iat: int
    jti: str
    nbf: int | None = None
    scope: str = ""
    task: str = ""
    acr: str = ""
    amr: list[str] = []
    auth_time: int | None = None
    """time of the holder's authentication at the level `acr`; for a token with a chain, the earliest
    time of all links
    """
    cnf: Confirmation | None = None
    authorization_details: list[dict[str, object]] = []
    """RFC 9396; `bounds.parse_details` reads them"""
    act: Actor | None = None
    may_act: Actor | None = None
    """RFC 8693 section 4.4: who may exchange it"""
    policy: str = ""
    owner: str = ""
    segment: str = ""
    model: str = ""
    risk_tier: str = ""
    epoch: int = 0
    registration: str = ""
    """class of the registration of a client that no administrator registered: `document` or `dynamic`"""
    chain: list[Link] = []
    """the newest first; who holds the token is not in it"""
    budgets: Annotated[list[Budget], Meta(max_length=MAX_BUDGETS)] = []
    """the budgets that count its calls"""
    memory: str = ""
    """the task whose memory guards read and write (`ostiary.decision.recall`); empty: no intent was declared"""


def parse_access(claims: dict[str, object]) -> AccessClaims:
    """The claims set of a verified token, typed. `aud` may be a list of one. Raises InvalidToken."""
    aud = claims.get("aud")
    if isinstance(aud, list) and len(aud) == 1:
        claims = {**claims, "aud": aud[0]}
    try:
        return convert(claims, AccessClaims)
    except msgspec.ValidationError as error:
        raise InvalidToken(f"the claims of the access token: {str(error)[:200]}") from None
    except RecursionError:
        raise InvalidToken("the claims of the access token are nested too deeply") from None


def check_access(claims: AccessClaims, *, issuer: str, audience: str, now: int, leeway: int = 0) -> None:
    """Check that the token is of that issuer, for that audience, and in time. `now`, `leeway`: microseconds.

    Says nothing about its signature, its key binding, or whether it was revoked. Raises InvalidToken.
    """
    if claims.iss != issuer:
        raise InvalidToken("the token is of another issuer (`iss`)")
    if claims.aud != audience:
        raise InvalidToken("the token is for another audience (`aud`)")
    for name in ("sub", "client_id", "jti"):
        if not getattr(claims, name):
            raise InvalidToken(f"`{name}` is empty")
    for name in ("exp", "iat", "nbf", "auth_time"):
        if not 0 <= (getattr(claims, name) or 0) <= MAX_SECONDS:
            raise InvalidToken(f"`{name}` is not a number of seconds between 0 and {MAX_SECONDS}")
    if now - leeway >= claims.exp * 1_000_000:
        raise InvalidToken("the token has expired")
    if now + leeway < claims.iat * 1_000_000:
        raise InvalidToken("the token was issued in the future (`iat`)")
    if claims.nbf is not None and now + leeway < claims.nbf * 1_000_000:
        raise InvalidToken("the token is not valid yet (`nbf`)")
    if claims.epoch < 0:
        raise InvalidToken("`epoch` is negative")
    if len(claims.chain) > MAX_LINKS:
        raise InvalidToken(f"`chain` has more than {MAX_LINKS} links")
    if len(actors(claims)) > MAX_ACTORS:
        raise InvalidToken(f"more than {MAX_ACTORS} actors")


def check_certificate(cnf: Confirmation, shown: ClientCertificate | None) -> None:
    """Check that the client of a request has shown the certificate that its token is bound to, if it is bound to one
    (RFC 8705 section 3). Raises InvalidToken.
    """
    if cnf.certificate is None:
        return
    if shown is None:
        hint = "connect with that certificate (mutual TLS)"
        raise InvalidToken("the token is bound to a client certificate, and none was shown", hint=hint)
    if not hmac.compare_digest(cnf.certificate.encode(), shown.thumbprint.encode()):
        raise InvalidToken("the token is bound to another client certificate", hint="get a new token")


def actors(claims: AccessClaims) -> tuple[str, ...]:
    """Return the actors, the newest first."""
    chain, actor = [], claims.act
    while actor is not None:
        chain.append(actor.sub)
        actor = actor.act
    return tuple(chain)


def acting(agents: Sequence[str], *, person: str | None) -> tuple[str, Actor | None]:
    """`sub` and `act` of a token: agents, the newest first, act each for the next, and the last for a person or for
    itself.
    """
    subject, behind = (agents[-1], agents[:-1]) if person is None else (person, agents)
    actor = None
    for agent in reversed(behind):
        actor = Actor(agent, actor)
    return subject, actor


def scopes(claims: AccessClaims) -> frozenset[str]:
    """Return the scopes of a token. Raises InvalidScope."""
    return parse_scope(claims.scope)


def parse_scope(text: str) -> frozenset[str]:
    """The tokens of a `scope` parameter, which are separated by one space each; none for the empty text.

    Raises InvalidScope.
    """
    return _parse_short_scope(text) if len(text) <= SHORT_SCOPE else _parse_scope(text)


def _parse_scope(text: str) -> frozenset[str]:
    tokens = text.split(" ") if text else []
    if len(tokens) > MAX_SCOPES:
        raise InvalidScope(f"more than {MAX_SCOPES} scopes")
    if not all(map(_SCOPE_TOKEN.fullmatch, tokens)):
        raise InvalidScope("a scope is not printable ASCII without space, quote and backslash, or is too long")
    return frozenset(tokens)


_parse_short_scope = lru_cache(maxsize=1024)(_parse_scope)


def render_scope(scopes: frozenset[str]) -> str:
    """Return scopes as one string, sorted."""
    return " ".join(sorted(scopes))


def narrow_scope(outer: frozenset[str], requested: frozenset[str]) -> frozenset[str]:
    """Return the requested part of `outer`: all of it if nothing is requested. Raises InvalidScope for
    a wider request.
    """
    if extra := requested - outer:
        raise InvalidScope(f"not available to this request: {render_scope(extra)}")
    return requested or outer
