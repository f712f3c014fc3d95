"""The claims of an access token: RFC 9068 (`at+jwt`), with `cnf` of RFC 7800 and RFC 9449, `act` of RFC 8693 section
4.1.

Times in the claims are in seconds, as transmitted; arguments of functions are in microseconds. Unknown claims are
ignored. Ostiary's own claims are `task`, `policy` (the hash of the policy set at issue), `owner`, `segment`, `model`,
`risk_tier` and `epoch` (of the agent), `registration` (of a client that no administrator registered), `budgets` (to
which calls are charged), `memory` (of the origins of values), and `chain`: the agents through which the authority was
delegated. If any task or agent of the chain ends, the token ends; policies decide about each agent of the chain.
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
"""maximum number of links in a chain, which does not include the holder of the token"""
MAX_SCOPES = 256
MAX_SCOPE = 256
"""maximum number of characters of a scope"""
SHORT_SCOPE = 256
"""Maximum length in characters of a `scope` parameter whose parsed form is cached, because clients repeat their
scopes.
"""
MAX_BEARER_S = 300
"""Maximum lifetime of a token that is not bound to a key, in seconds."""
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3


SCOPE_ALIASES = {"ssf.read": "ostiary:ssf.read", "ssf.manage": "ostiary:ssf.manage"}
"""Alternative names of scopes (CAEP interoperability profile 1.0), each with the name that is stored and signed."""


class InvalidScope(Invalid):
    """A scope that is malformed or exceeds the available scopes (RFC 6749 section 5.2)."""

    code = "invalid_scope"


class Confirmation(msgspec.Struct, frozen=True, omit_defaults=True):
    """The key or the certificate to which a token is bound; a token that is bound to neither has no confirmation."""

    jkt: str | None = None
    """JWK thumbprint of the DPoP key; None without one."""
    certificate: str | None = msgspec.field(default=None, name="x5t#S256")
    """Digest of the client certificate (RFC 8705 section 3.1); None without one."""


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A party that acts for the subject. `act` is the party that acted before."""

    sub: str
    act: Actor | None = None


class Link(msgspec.Struct, frozen=True, array_like=True):
    """An agent of the delegation chain that delegated authority, with its task, its attributes, and its epoch at the
    time of the delegation. An increase of the agent's epoch invalidates all earlier tokens.
    """

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
    """time of the holder's authentication at the level `acr`, in seconds; for a token with a chain, the
    earliest time among all links
    """
    cnf: Confirmation | None = None
    authorization_details: list[dict[str, object]] = []
    """see RFC 9396; `bounds.parse_details` parses them"""
    act: Actor | None = None
    may_act: Actor | None = None
    """the party that may exchange the token for another one (RFC 8693 section 4.4); None: no party may"""
    policy: str = ""
    owner: str = ""
    segment: str = ""
    model: str = ""
    risk_tier: str = ""
    epoch: int = 0
    registration: str = ""
    """type of registration of a client that no administrator registered: `document` or `dynamic`"""
    chain: list[Link] = []
    """the agents behind the holder, the newest first; the holder is not included"""
    budgets: Annotated[list[Budget], Meta(max_length=MAX_BUDGETS)] = []
    """the budgets to which calls with the token are charged"""
    memory: str = ""
    """id of the task whose memory guards read and write (`ostiary.decision.recall`): the task of the token, or a task
    above it; empty if none of them has an intent
    """


def parse_access(claims: dict[str, object]) -> AccessClaims:
    """Return the typed claims of a verified token. `aud` may be a list of one audience. Raises InvalidToken for claims
    that are missing or of another type.
    """
    aud = claims.get("aud")
    if isinstance(aud, list) and len(aud) == 1:
        claims = {**claims, "aud": aud[0]}
    try:
        return convert(claims, AccessClaims)
    except msgspec.ValidationError as error:
        raise InvalidToken(f"the claims of the access token: {str(error)[:200]}") from None
    except RecursionError:
        raise InvalidToken("the claims of the access token are nested too deeply") from None


_TIMES = ("exp", "iat", "nbf", "auth_time")


def check_access(claims: AccessClaims, *, issuer: str, audience: str, now: int, leeway: int = 0) -> None:
    """Check the issuer and the audience of a token, that the token is valid at `now`, and that its claims are within
    their limits. `now`, `leeway`: microseconds.

    The function does not check the signature, the key binding, or revocation. Raises InvalidToken if a check fails.
    """
    if claims.iss != issuer:
        raise InvalidToken("the token is from another issuer (`iss`)", hint=f"get a token of {issuer}")
    if claims.aud != audience:
        raise InvalidToken("the token is for another audience (`aud`)", hint=f"get a token for {audience}")
    if not (claims.sub and claims.client_id and claims.jti):
        empty = "sub" if not claims.sub else "client_id" if not claims.client_id else "jti"
        raise InvalidToken(f"`{empty}` is empty")
    times = (claims.exp, claims.iat, claims.nbf or 0, claims.auth_time or 0)
    if min(times) < 0 or max(times) > MAX_SECONDS:
        wrong = next(name for name, one in zip(_TIMES, times, strict=True) if not 0 <= one <= MAX_SECONDS)
        raise InvalidToken(f"`{wrong}` is not a number of seconds between 0 and {MAX_SECONDS}")
    if now - leeway >= claims.exp * 1_000_000:
        raise InvalidToken("the token has expired", hint="get a new token")
    if now + leeway < claims.iat * 1_000_000:
        raise InvalidToken("the token was issued in the future (`iat`)")
    if claims.nbf is not None and now + leeway < claims.nbf * 1_000_000:
        raise InvalidToken("the token is not valid yet (`nbf`)")
    if claims.epoch < 0:
        raise InvalidToken("`epoch` is negative")
    if len(claims.chain) > MAX_LINKS:
        raise InvalidToken(f"`chain` has more than {MAX_LINKS} links")
    if claims.act is not None and len(actors(claims)) > MAX_ACTORS:
        raise InvalidToken(f"more than {MAX_ACTORS} actors")


def check_certificate(cnf: Confirmation, shown: ClientCertificate | None) -> None:
    """Check that the client presented the certificate to which its token is bound, if any (RFC 8705 section 3). Raises
    InvalidToken if not.
    """
    if cnf.certificate is None:
        return
    if shown is None:
        hint = "connect with the certificate to which the token is bound (mutual TLS)"
        raise InvalidToken("the token is bound to a client certificate, and none was shown", hint=hint)
    if not hmac.compare_digest(cnf.certificate.encode(), shown.thumbprint.encode()):
        raise InvalidToken("the token is bound to another client certificate", hint="get a new token")


def actors(claims: AccessClaims) -> tuple[str, ...]:
    """Return the actors of a token, the newest first."""
    chain, actor = [], claims.act
    while actor is not None:
        chain.append(actor.sub)
        actor = actor.act
    return tuple(chain)


def acting(agents: Sequence[str], *, person: str | None) -> tuple[str, Actor | None]:
    """Return the claims `sub` and `act` of a token. `agents`: the acting agents, the newest first, each acting for the
    next. The last agent acts for `person`, or for itself if `person` is None.
    """
    subject, behind = (agents[-1], agents[:-1]) if person is None else (person, agents)
    actor = None
    for agent in reversed(behind):
        actor = Actor(agent, actor)
    return subject, actor


def scopes(claims: AccessClaims) -> frozenset[str]:
    """Return the scopes of a token. Raises InvalidScope for malformed scopes."""
    return parse_scope(claims.scope)


def parse_scope(text: str) -> frozenset[str]:
    """Return the scopes in a `scope` parameter, separated by single spaces; none for the empty text.

    Raises InvalidScope for other text.
    """
    return _parse_short_scope(text) if len(text) <= SHORT_SCOPE else _parse_scope(text)


def _parse_scope(text: str) -> frozenset[str]:
    tokens = text.split(" ") if text else []
    if len(tokens) > MAX_SCOPES:
        raise InvalidScope(f"more than {MAX_SCOPES} scopes")
    if any(len(token) > MAX_SCOPE for token in tokens):
        raise InvalidScope(f"a scope has more than {MAX_SCOPE} characters")
    if not all(map(_SCOPE_TOKEN.fullmatch, tokens)):
        raise InvalidScope(
            "a scope must be printable ASCII without space, quote and backslash",
            hint="separate scopes by one space each",
        )
    return frozenset(tokens)


_parse_short_scope = lru_cache(maxsize=1024)(_parse_scope)


def render_scope(scopes: frozenset[str]) -> str:
    """Return scopes as one string, sorted and separated by spaces."""
    return " ".join(sorted(scopes))
