"""CIBA, mode poll (OpenID Connect Client-Initiated Backchannel Authentication Core 1.0): a person approves a request on
another device, and the agent that sent the request gets a token to act for the person.

The package `approvals` stores the approval request. This module stores the client's `auth_req_id`. After the approval,
a task begins on behalf of the person, with the scopes and bounds that the person has seen. The client gets a token of
the task, and an ID token if it requested `openid`.
"""

from __future__ import annotations

from hashlib import sha256

from ostiary.authorization import assurance
from ostiary.authorization.bounds import parse_details
from ostiary.authorization.claims import parse_scope
from ostiary.protocol import dpop
from ostiary.protocol.errors import Forbidden
from ostiary.protocol.jose import b64u, sign_jwt
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Tx
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from ostiaryd.tokens import store
from ostiaryd.tokens.flows.grants import Granted
from ostiaryd.tokens.flows.mint import Authenticated, Issued, Proved, TokenAccess, authenticate, consult_policies, mint
from ostiaryd.tokens.flows.target import choose_target
from ostiaryd.tokens.model import (
    SECOND,
    Backchannel,
    ExpiredToken,
    InvalidGrant,
    Pending,
    SlowDown,
    UnauthorizedClient,
    Wish,
    lifetime,
    narrow_details,
    scopes_at,
)
from ostiaryd.tokens.model.id_tokens import ID_TOKEN_S, ID_TOKEN_TYP, IdToken, alg_of
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import Credentials
from ostiaryd.trust.model.oidc_login import hash_access_token

DAY = 86_400 * SECOND
INTERVAL_S = 5
SLOWER_S = 5


def store_backchannel_request(
    act: Act, *, approval: str, client: str, person: str, wish: Wish, digest: str, expires_at: int
) -> str:
    """Store a request of `client` for the agreement of `person` (CIBA), and return its `auth_req_id`.

    `approval` is the id of the approval request that the person will answer. An earlier backchannel request about the
    same approval request is replaced.
    """
    id = b64u(act.tx.random(32))
    store.backchannel.put_backchannel(
        act.tx,
        Backchannel(
            request=_request(id),
            approval=approval,
            client=client,
            person=person,
            wish=wish,
            digest=digest,
            interval_s=INTERVAL_S,
            expires_at=expires_at,
        ),
    )
    return id


def note_poll(tx: Tx, auth_req_id: str, *, slower: bool) -> None:
    """Record that the client polled now. If `slower`, increase the minimum interval between polls by 5 seconds."""
    store.backchannel.note_poll(tx, _request(auth_req_id), more_s=SLOWER_S if slower else 0)


async def forget_requests(world: World) -> None:
    """Delete backchannel requests that expired more than a day ago."""
    await world.writer.submit(lambda tx: store.backchannel.prune_backchannel(tx, before=tx.now - DAY))


def redeem(
    act: Act, credentials: Credentials, unverified_proof: str | None, *, auth_req_id: str, config: Config
) -> Granted:
    """Issue and return an access token for the agent to act for the person who approved the backchannel request
    `auth_req_id`, and an ID token if the client requested one.

    1. The client proves its identity, and its key. 2. The request is the client's own, and approved. 3. The approval is
    spent. 4. A task begins for the person, within the access that the person saw and within the agent's present access.
    5. The policies permit the token.

    Raises InvalidClient, UnauthorizedClient, InvalidProof or NonceNeeded at step 1; InvalidGrant, Pending, SlowDown,
    ExpiredToken or, if the person denied, Forbidden (`access_denied`) at steps 2 and 3; InvalidTarget, InvalidDetails
    or Forbidden (`access_denied`) at steps 4 and 5.
    """
    client, possession, _ = authenticate(act, credentials, unverified_proof, config=config)
    if client.agent is None:
        raise UnauthorizedClient("only agents can send a backchannel request")
    if not possession.is_bound:
        raise dpop.InvalidProof(
            "the DPoP proof is missing",
            hint="send a proof in the header `DPoP`: a token on a person's approval must be bound to a key",
        )
    request = store.backchannel.backchannel(act.tx, _request(auth_req_id))
    if request is None or request.client != client.id:
        raise InvalidGrant("this client has no backchannel request with this `auth_req_id`")
    registry.fill_entry(act, object=request.approval)
    answered_at = _check_answered(request, now=act.now)
    _spend(act, request)

    wish = request.wish
    task = tasks.start(
        act,
        TaskSpec(
            agent=client.id,
            purpose=wish.message or "approved by the person at `/bc-authorize`",
            scopes=wish.scope.split(),
            bounds=parse_details(wish.details, classes=config.classes),
            on_behalf_of=request.person,
            unregistered=config.resources == "any",
        ),
    )
    scopes = parse_scope(wish.scope)
    target = choose_target(act, wish.resource, requested=scopes, available=task.scopes, config=config)
    scope = scopes_at(target, scopes, available=task.scopes)
    access = TokenAccess(target, scope, narrow_details((), task=task.bounds, target=target))
    policy = consult_policies(act, client, task, access, acr=assurance.PERSON)
    seconds = lifetime(now=act.now, longest=config.token_lifetime_s, ends=(client.ends, task.expires_at))
    issued = mint(
        act,
        Authenticated(client, possession, Proved(assurance.PERSON, answered_at // SECOND)),
        access,
        task=task,
        policy=policy,
        seconds=seconds,
        config=config,
    )
    id_token = _make_id_token(act, request, answered_at, issued, config=config) if wish.is_openid else None
    return Granted(access=issued, refresh_token=None, id_token=id_token, identity=frozenset())


def _make_id_token(act: Act, request: Backchannel, answered_at: int, issued: Issued, *, config: Config) -> str:
    """Return the ID token of a backchannel request (CIBA section 10.1). It has no claims about the person other than
    `sub`, because the person approved none.
    """
    alg = alg_of(trust.get_oauth_client(act.tx, request.client))
    claims = IdToken(
        iss=config.issuer,
        sub=request.person,
        aud=request.client,
        exp=act.now // SECOND + ID_TOKEN_S,
        iat=act.now // SECOND,
        auth_time=answered_at // SECOND,
        acr=assurance.PERSON,
        at_hash=hash_access_token(issued.access_token, alg),
    )
    return sign_jwt(act.tx.keys.signer("token", alg), typ=ID_TOKEN_TYP, claims=claims)


def _check_answered(request: Backchannel, *, now: int) -> int:
    """Return the time at which the person approved, in microseconds. Raises Pending or SlowDown before the answer,
    ExpiredToken after the end of the request, and Forbidden if the person denied.
    """
    if request.answered_at is not None and not request.is_approved:
        raise Forbidden("the person denied the request", code="access_denied")
    if now >= request.expires_at:
        raise ExpiredToken("the request has expired", hint="send a new request")
    if request.answered_at is not None:
        return request.answered_at
    if now - request.polled_at < request.interval_s * SECOND:
        raise SlowDown(
            f"the client polls too often: poll at most once in {request.interval_s} s",
            hint=f"from now on, wait {SLOWER_S} s longer between two polls",
        )
    raise Pending("the person has not answered yet")


def _spend(act: Act, request: Backchannel) -> None:
    """Mark the approval of a backchannel request as spent. Raises InvalidGrant if it was spent before, ExpiredToken if
    it has expired.
    """
    try:
        policy.spend_approval(act, request.approval, digest=request.digest, call=request.request)
    except Forbidden as error:
        kind = ExpiredToken if error.code == "approval_ended" else InvalidGrant
        raise kind(error.message) from None


def _request(auth_req_id: str) -> str:
    """Return the digest of an `auth_req_id`, under which the request is stored. The digest does not reveal the id."""
    return b64u(sha256(auth_req_id.encode()).digest())
