"""Claims about the person for whom a client acts (OpenID Connect Core 1.0 section 5.3)."""

from __future__ import annotations

from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.tokens import store
from ostiaryd.tokens.model.authorization import OPENID
from ostiaryd.tokens.model.id_tokens import claims_about
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import USERINFO, AccessRefused, InsufficientScope


def read_userinfo(act: Act, request: trust.Request, *, config: Config) -> tuple[dict[str, str], str | None]:
    """Return the claims about the person that an access token for userinfo permits, and the next DPoP nonce (None if
    none is due).

    Raises Unauthenticated without a token, AccessRefused for a token that is not valid here, InsufficientScope for a
    token without `openid`, InvalidProof for the proof, NonceNeeded if the proof has no recent nonce.
    """
    access = trust.verify_access(
        request, audience=config.issuer + USERINFO, reader=act.tx, now=act.now, keys=act.tx.keys, config=config
    )
    if access.proof is not None:
        trust.spend_proof(act.tx, access.proof)
    caller = access.caller
    registry.record_caller(act, caller)
    if OPENID not in caller.scopes:
        raise InsufficientScope("the access token lacks the scope `openid`")
    holding = registry.get_holding(act.tx, caller.token or "")
    grant = None if holding is None or holding.parent is None else store.authorization.get_grant(act.tx, holding.parent)
    if grant is None:
        raise AccessRefused("the access token was issued to a client that acts for no person")
    act.entry.person = grant.person
    person = registry.find_person(act.tx, grant.person)
    claims = claims_about(person, scopes=caller.scopes, names=grant.request.userinfo_claims)
    return {"sub": person.person_id, **claims}, access.next_nonce
