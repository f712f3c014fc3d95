"""Introspection and revocation of tokens: RFC 7662 and RFC 7009."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ostiary.authorization.claims import AccessClaims, check_access
from ostiary.decision.access.stops import names_of
from ostiary.protocol import jose
from ostiary.protocol.jose import PublicKey
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, Root, find_stop, is_resource_id
from ostiaryd.tokens import store
from ostiaryd.tokens.flows.consents import end_grant
from ostiaryd.tokens.flows.restrictions import restrict_claims
from ostiaryd.tokens.model import InvalidGrant
from ostiaryd.tokens.model.refresh import read_refresh_token
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import AccessRefused, Credentials, InvalidClient


@dataclass(frozen=True, slots=True)
class Asker:
    """The authenticated client that introspects or revokes a token: its id, and whether it has the administrator's
    scope.
    """

    id: str
    is_admin: bool


def asker_by_assertion(act: Act, credentials: Credentials, *, config: Config) -> Asker:
    """Authenticate, by its client assertion, the client that wants to introspect or revoke a token. Raises
    InvalidClient for an invalid assertion.
    """
    client = trust.authenticate_client(act, credentials, config=config)
    return Asker(client.id, ADMIN in client.scopes)


def asker_by_secret(act: Act, credentials: Credentials) -> Asker:
    """Authenticate an agent or a resource that wants to introspect or revoke a token, by its client secret. With a
    secret, no agent has the rights of an administrator. Raises InvalidClient for a wrong secret.
    """
    if is_resource_id(credentials.client_id or ""):
        return Asker(trust.check_resource_secret(act, credentials).resource_id, False)
    return Asker(trust.check_secret(act, credentials).id, False)


def asker_by_client(
    act: Act, credentials: Credentials, keys: Sequence[PublicKey] | None, *, config: Config, accepts_public: bool
) -> Asker:
    """Authenticate a client that no administrator registered and that wants to introspect or revoke a token, by the
    keys `keys` of its metadata, or by its secret or certificate. With `accepts_public`, a public client is accepted
    without authentication; introspection needs authentication (RFC 7662 section 2.1). Raises InvalidClient if the
    authentication fails.
    """
    proved = trust.authenticate_oauth_client(act, credentials, keys, config=config)
    if proved.client.is_public and not accepts_public:
        raise InvalidClient(
            "a public client cannot introspect tokens", hint="register with a key or a client secret (RFC 7591)"
        )
    trust.spend(act, proved.assertion)
    return Asker(proved.client.client_id, False)


def asker_by_token(act: Act, request: trust.Request, *, config: Config) -> Asker:
    """Authenticate the caller that wants to introspect or revoke a token, by an access token for this server's API.
    Raises AccessRefused for an invalid token, InvalidProof or NonceNeeded for its DPoP proof.
    """
    access = trust.verify_access(
        request, audience=config.api, reader=act.tx, now=act.now, keys=act.tx.keys, config=config
    )
    if access.proof is not None:
        trust.spend_proof(act.tx, access.proof)
    registry.record_caller(act, access.caller)
    return Asker(access.caller.id, access.caller.is_admin)


def introspect(act: Act, unverified_token: str, *, asker: Asker, config: Config) -> AccessClaims | None:
    """Return the claims of a token, within the present restrictions of its agents, if the token is live, no stop of the
    kill switch applies to it, and `asker` may see it; otherwise None.

    A client sees its own tokens and the tokens that name it in `may_act`. A resource sees the tokens for its URI. An
    administrator sees all tokens (RFC 7662 section 4).
    """
    try:
        claims = trust.verify_token(unverified_token, keys=act.tx.keys)
        check_access(claims, issuer=config.issuer, audience=claims.aud, now=act.now)
        holder = trust.live_caller(act.tx, claims, now=act.now)
    except (AccessRefused, jose.InvalidToken):
        return None
    # at its own API, the server decides about stops: an administrator can always lift them
    if claims.aud != config.api and (stops := registry.list_stops(act.tx)) and find_stop(stops, names_of(claims)):
        return None
    own = (holder.id, claims.may_act and claims.may_act.sub)
    is_resource = _guards(act, asker, claims.aud)
    if not (asker.is_admin or asker.id in own or _got(act, asker, claims) or is_resource):
        return None
    act.entry.object, act.entry.token = holder.id, claims.jti
    return restrict_claims(act, claims, counts=is_resource, config=config)


def revoke(act: Act, unverified_token: str, *, asker: Asker) -> None:
    """Revoke the caller's own token, and everything that derives from it. For an invalid or ended token, do nothing.

    Revoking a refresh token ends its grant, with all access tokens of the grant. Raises InvalidGrant for a token of
    another client (RFC 7009 section 2.1).
    """
    refresh_token = read_refresh_token(act.tx.keys.keyed_hash("refresh token"), unverified_token)
    if refresh_token is not None:
        _revoke_grant(act, refresh_token.grant, asker=asker)
        return
    try:
        claims = trust.verify_token(unverified_token, keys=act.tx.keys)
    except AccessRefused:
        return
    act.entry.object = claims.jti
    if asker.id not in (claims.client_id, _client_of_grant(act, claims.jti)):
        raise InvalidGrant("the token was issued to another client")
    registry.end_holdings(act, Root.HOLDING, claims.jti, why="revoked by its client")


def _revoke_grant(act: Act, id: str, *, asker: Asker) -> None:
    if (grant := store.authorization.get_grant(act.tx, id)) is None:
        return
    act.entry.object = grant.grant_id
    if grant.client_id != asker.id:
        raise InvalidGrant("the token was issued to another client")
    act.entry.person = grant.person
    end_grant(act, grant.grant_id, grant.task, why="revoked by its client")


def _client_of_grant(act: Act, token: str) -> str | None:
    """Return the id of the client under whose grant a token was issued; None if the token does not come from a grant.
    In the token of a client that no administrator registered, `client_id` is the agent that acts for the person.
    """
    holding = registry.get_holding(act.tx, token)
    grant = None if holding is None or holding.parent is None else store.authorization.get_grant(act.tx, holding.parent)
    return None if grant is None else grant.client_id


def _got(act: Act, asker: Asker, claims: AccessClaims) -> bool:
    return asker.id == _client_of_grant(act, claims.jti)


def _guards(act: Act, asker: Asker, audience: str) -> bool:
    if not is_resource_id(asker.id):
        return False
    resource = registry.get_resource(act.tx, asker.id)
    return resource is not None and resource.uri == audience
