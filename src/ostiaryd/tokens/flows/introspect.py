"""Introspection and revocation of tokens: RFC 7662 and RFC 7009."""

from __future__ import annotations

from dataclasses import dataclass

from ostiary.authorization.claims import AccessClaims, check_access
from ostiary.protocol import jose
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, Root
from ostiaryd.tokens.model import InvalidGrant
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import AccessRefused, Credentials


@dataclass(frozen=True, slots=True)
class Asker:
    """The client that asks about a token, proved by a client assertion or by an access token for our own API."""

    id: str
    is_admin: bool


def asker_by_assertion(act: Act, credentials: Credentials, *, config: Config) -> Asker:
    """Raises InvalidClient."""
    client = trust.authenticate_client(act, credentials, config=config)
    return Asker(client.id, ADMIN in client.scopes)


def asker_by_token(act: Act, request: trust.Request, *, config: Config) -> Asker:
    """Raises AccessRefused, InvalidProof, NonceNeeded."""
    access = trust.verify_access(
        request, audience=config.api, reader=act.tx, now=act.now, keys=act.tx.keys, config=config
    )
    if access.proof is not None:
        trust.spend_proof(act.tx, access.proof)
    registry.note_caller(act, access.caller)
    return Asker(access.caller.id, access.caller.is_admin)


def introspect(act: Act, unverified_token: str, *, asker: Asker, config: Config) -> AccessClaims | None:
    """Return the claims of a live token that this client may see; None for every other token.

    A client sees its own tokens and the tokens that name it in `may_act`. The guard of a resource sees the tokens for
    its resource. An administrator sees all tokens (RFC 7662 section 4).
    """
    try:
        claims = trust.verify_token(unverified_token, keys=act.tx.keys)
        check_access(claims, issuer=config.issuer, audience=claims.aud, now=act.now)
        holder = trust.live_caller(act.tx, claims, now=act.now)
    except (AccessRefused, jose.InvalidToken):
        return None
    own = (holder.id, claims.may_act and claims.may_act.sub)
    if not (asker.is_admin or asker.id in own or _guards(act, asker, claims.aud)):
        return None
    act.entry.object, act.entry.token = holder.id, claims.jti
    return claims


def revoke(act: Act, unverified_token: str, *, asker: Asker) -> None:
    """End the asker's own token, and what derives from it. A token that is none, or has ended, is no error.

    Raises InvalidGrant for a token of another client (RFC 7009 section 2.1).
    """
    try:
        claims = trust.verify_token(unverified_token, keys=act.tx.keys)
    except AccessRefused:
        return
    act.entry.object = claims.jti
    if claims.client_id != asker.id:
        raise InvalidGrant("the token was issued to another client")
    registry.end_holdings(act, Root.HOLDING, claims.jti, why="revoked by its client")


def _guards(act: Act, asker: Asker, audience: str) -> bool:
    if not asker.id.startswith("rs_"):
        return False
    resource = registry.get_resource(act.tx, asker.id)
    return resource is not None and resource.uri == audience
