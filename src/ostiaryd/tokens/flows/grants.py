"""Grants: the exchange of authorization codes (RFC 6749 section 4.1.3), and refresh tokens (section 6).

Each grant has its own task on behalf of the person, and is a holding under that task. The tokens of the grant are
holdings under the grant: they end when the person, the agent, the consent or the task ends, or when a code or refresh
token is reused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ostiary.authorization import assurance
from ostiary.authorization.bounds import ToolDetail
from ostiary.authorization.claims import InvalidScope, parse_scope, render_scope
from ostiary.protocol import dpop
from ostiary.protocol.errors import Forbidden, NotFound
from ostiary.protocol.jose import sign_jwt
from ostiaryd.ground.config import Config
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentId, Holding, HoldingId, Root
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec
from ostiaryd.tokens import store
from ostiaryd.tokens.flows.authorization import key_of
from ostiaryd.tokens.flows.consents import check_person, end_grant
from ostiaryd.tokens.flows.mint import (
    Authenticated,
    Identified,
    Issued,
    Proved,
    Sender,
    TokenAccess,
    consult_policies,
    identify,
    mint,
)
from ostiaryd.tokens.flows.target import choose_target
from ostiaryd.tokens.model import (
    SECOND,
    InvalidGrant,
    InvalidTarget,
    Target,
    is_origin_of,
    lifetime,
    narrow_details,
)
from ostiaryd.tokens.model.authorization import OFFLINE, OPENID, check_verifier
from ostiaryd.tokens.model.consent import Consent
from ostiaryd.tokens.model.id_tokens import (
    ID_TOKEN_S,
    ID_TOKEN_TYP,
    IdToken,
    alg_of,
    claims_about,
)
from ostiaryd.tokens.model.refresh import (
    GRANT_KIND,
    PersonGrant,
    Use,
    judge_use,
    make_refresh_token,
    read_refresh_token,
)
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows.clients import Client, agent_client
from ostiaryd.trust.model import USERINFO
from ostiaryd.trust.model.clients import AUTHORIZATION_CODE, REFRESH_TOKEN, OAuthClient
from ostiaryd.trust.model.oidc_login import hash_access_token

MAX_GRANTS = 20
"""Maximum number of live grants on one consent. A further grant ends the least recently used grant."""


_BEGIN = "begin with a new authorization request"


class Reused(InvalidGrant):
    """Raised if the client sent a code or a refresh token that was used before. The caller must then end the grant with
    the id `grant` by `end_reused`.
    """

    def __init__(self, message: str, *, grant: str) -> None:
        super().__init__(message, hint=_BEGIN)
        self.grant = grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The tokens that a grant gives to its client. `refresh_token`: None if the client gets none; `id_token`: None
    without the scope `openid`; `identity`: the granted scopes of OpenID Connect.
    """

    access: Issued
    refresh_token: str | None = field(repr=False)
    id_token: str | None = field(repr=False)
    identity: frozenset[str]


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The parsed parameters of a token request with an authorization code, a device code or a refresh token. Nothing in
    the request has been verified.
    """

    sender: Sender
    secret: str = ""
    """The authorization code, device code or refresh token."""
    verifier: str = ""
    redirect_uri: str | None = None
    scope: str = ""
    resource: str | None = None
    task: str | None = None
    """Id of the task of an earlier grant that continues with this new login of its person. None starts a new task."""


def redeem_code(act: Act, token_request: TokenRequest, *, config: Config) -> Granted:
    """Redeem an authorization code, and return the tokens of its grant.

    1. The client proves its identity, and the key that the tokens will be bound to. 2. The code is the client's own,
    unused and not expired. 3. The verifier matches the challenge. 4. The consent is in force. 5. A task begins for the
    person, and the grant is a holding under it. 6. The tokens are issued.

    Raises InvalidClient, InvalidProof or NonceNeeded at step 1; InvalidGrant at steps 2 to 4, or Reused for a code that
    was used before; InvalidTarget, InvalidScope or Forbidden (`access_denied`) at steps 5 and 6.
    """
    proofs = identify(act, token_request.sender, config=config, grant_type=AUTHORIZATION_CODE)
    key = key_of(token_request.secret)
    code = store.authorization.get_code(act.tx, key)
    is_device = code is not None and not code.request.redirect_uri  # a device redeems its device code instead
    if code is None or is_device or code.request.client_id != proofs.client.client_id:
        raise InvalidGrant("the code is not valid, or was issued to another client", hint=_BEGIN)
    if proofs.client.is_public and not code.request.code_challenge:  # the client dropped its authentication since
        raise InvalidGrant("a client without authentication needs PKCE", hint=_BEGIN)
    if token_request.redirect_uri not in (None, code.request.redirect_uri):
        raise InvalidGrant("`redirect_uri` differs from that of the authorization request")
    registered = proofs.client.metadata.redirect_uris
    if token_request.redirect_uri is None and OPENID in code.request.identity and len(registered) > 1:
        raise InvalidGrant(
            "`redirect_uri` is missing", hint="send `redirect_uri`: OpenID Connect Core 1.0 section 3.1.3.2 requires it"
        )
    # before the check for reuse: a thief who has only the code cannot end the grant
    check_verifier(token_request.verifier, code.request.code_challenge)
    return _redeem(act, token_request, key, code, proofs, config=config)


def redeem_approved(act: Act, token_request: TokenRequest, key: str, proofs: Identified, *, config: Config) -> Granted:
    """Redeem the authorization code with the database key `key`, and return the tokens of its grant. The caller has
    checked that the code belongs to the client. Raises as `redeem_code` does.
    """
    if (code := store.authorization.get_code(act.tx, key)) is None:
        raise InvalidGrant("the consent was withdrawn", hint=_BEGIN)
    return _redeem(act, token_request, key, code, proofs, config=config)


def _redeem(
    act: Act,
    token_request: TokenRequest,
    key: str,
    code: store.authorization.Code,
    proofs: Identified,
    *,
    config: Config,
) -> Granted:
    if (consent := store.consents.get(act.tx, code.consent)) is None:
        raise InvalidGrant("the consent was withdrawn", hint=_BEGIN)
    registry.fill_entry(act, object=consent.consent_id)
    act.entry.person = consent.person
    if code.used_at is not None:
        raise Reused("the code was used before", grant=code.grant_id or "")
    if act.now >= code.expires_at:
        raise InvalidGrant("the code has expired", hint=_BEGIN)
    if code.request.jkt and code.request.jkt != proofs.possession.jkt:
        raise InvalidGrant("the code is bound to another DPoP key", hint="prove the key of the authorization request")
    client = _client_of(act, consent.agent, proofs)
    return _begin(act, token_request, consent, code, client, proofs, key=key, config=config)


def _begin(
    act: Act,
    token_request: TokenRequest,
    consent: Consent,
    code: store.authorization.Code,
    client: Client,
    proofs: Identified,
    *,
    key: str,
    config: Config,
) -> Granted:
    """Begin the task and the grant of a code, mark the code as used, and return the tokens. Raises InvalidGrant if the
    consent was narrowed, or if the session has ended.
    """
    _check_consent(act, consent, proofs.client)
    bounds, identity = code.request.bounds(classes=config.classes), code.request.identity
    if not consent.allows(code.request.scopes | identity, bounds):
        raise InvalidGrant("the consent was narrowed after the code was issued", hint=_BEGIN)
    person = registry.find_person(act.tx, consent.person)
    is_refreshed = REFRESH_TOKEN in proofs.client.metadata.grant_types
    is_offline = OFFLINE in identity or OPENID not in identity
    ends = [consent.expires_at]
    if not is_refreshed:
        ends.append(act.now + config.token_lifetime_s * SECOND)
    if OPENID in identity:
        session = trust.get_session(act.tx, code.session, now=act.now)
        if session is None and not is_offline:
            raise InvalidGrant("the session has ended", hint=_BEGIN)
        if session is not None:
            store.logout.put_client(act.tx, session.id, consent.client_id, expires_at=session.expires_at)
            ends += [] if is_offline else [session.expires_at]
    seconds = lifetime(now=act.now, longest=config.token_lifetime_s + max(ends), ends=ends)
    if token_request.task is None:
        task = _start(act, consent, code.request.scopes, bounds, person.name, seconds=seconds, config=config)
    else:
        task = _continue(act, token_request.task, consent, code, config=config)
    _make_room(act, consent)
    grant = PersonGrant(
        grant_id=act.new_id("gr"),
        consent=consent.consent_id,
        client_id=consent.client_id,
        agent=consent.agent,
        person=consent.person,
        session=code.session,
        task=task.task_id,
        request=code.request,
        acr=code.acr,
        amr=code.amr,
        authenticated_at=code.authenticated_at,
        jkt=proofs.possession.binding,
        is_offline=is_offline,
        sequence=0,
        rotated_at=act.now,
        created_at=act.now,
        expires_at=min(task.expires_at or 0, act.now + seconds * SECOND),
    )
    store.authorization.use_code(act.tx, key, grant_id=grant.grant_id)
    store.authorization.put_grant(act.tx, grant)
    holding = Holding(
        id=HoldingId(grant.grant_id),
        kind=GRANT_KIND,
        agent=AgentId(grant.agent),
        task=task.task_id,
        jkt=proofs.possession.bound_to,
        client_jkt=client.jkt,
        expires_at=grant.expires_at,
    )
    registry.insert_holding(act.tx, holding)
    return _issue(act, token_request, grant, task, client, proofs, is_refreshed=is_refreshed, config=config)


def _start(
    act: Act,
    consent: Consent,
    scopes: frozenset[str],
    bounds: tuple[ToolDetail, ...],
    person: str,
    *,
    seconds: int,
    config: Config,
) -> Task:
    """Begin and return the task of a grant, with the scopes and bounds that the person agreed to, for `seconds`. Raises
    InvalidGrant if the task cannot start, for example because the agent has lost a scope.
    """
    try:
        return tasks.start(
            act,
            TaskSpec(
                agent=consent.agent,
                purpose=f"what {person} agreed to for {consent.client_name}",
                scopes=sorted(scopes),
                bounds=bounds,
                on_behalf_of=consent.person,
                ttl_s=seconds,
                unregistered=config.resources == "any",
                is_counted=False,
            ),
        )
    except (Forbidden, NotFound) as error:
        raise InvalidGrant(error.message, hint=error.hint) from None


def _make_room(act: Act, consent: Consent) -> None:
    """Delete or end grants of a consent until one more grant fits below `MAX_GRANTS`.

    First, grants that have ended are deleted. If too many are live, the grants whose refresh tokens were used least
    recently end.
    """
    if store.authorization.count_grants(act.tx, consent.consent_id) < MAX_GRANTS:
        return
    grants = sorted(
        store.authorization.grants_of_consent(act.tx, consent.consent_id), key=lambda grant: grant.rotated_at
    )
    live = [grant for grant in grants if _is_live(registry.get_holding(act.tx, grant.grant_id), act.now)]
    kept = live[max(0, len(live) - MAX_GRANTS + 1) :]
    for grant in grants:
        if grant not in kept:
            end_grant(act, grant.grant_id, grant.task, why="too many grants")
            store.authorization.delete_grant(act.tx, grant.grant_id)


def _is_live(holding: Holding | None, now: int) -> bool:
    return holding is not None and holding.is_live(now)


def _continue(act: Act, id: str, consent: Consent, code: store.authorization.Code, *, config: Config) -> Task:
    """Return the task of an earlier grant on the same consent, for a new grant with the login of `code`.

    The task keeps its memory, budgets and delegated parts. The earlier grants of the task end, because their login is
    older. Raises InvalidGrant for a task that has ended or belongs to another consent, and for other scopes or bounds
    than those of the task.
    """
    earlier = [grant for grant in store.authorization.grants_of_consent(act.tx, consent.consent_id) if grant.task == id]
    if not earlier:
        raise InvalidGrant("`task` does not belong to this consent", hint="leave out `task` to begin a new task")
    try:
        task = tasks.live(act.tx, id, now=act.now)
    except (Forbidden, NotFound) as error:
        raise InvalidGrant(error.message, hint=error.hint) from None
    if task.scopes != code.request.scopes or task.bounds != code.request.bounds(classes=config.classes):
        raise InvalidGrant(
            "the code has other scopes or bounds than the task", hint="request the scopes and bounds of the task"
        )
    for grant in earlier:
        registry.end_holdings(act, Root.HOLDING, grant.grant_id, why="task continued")
    return task


def refresh(act: Act, token_request: TokenRequest, *, config: Config) -> Granted:
    """Return new tokens of a grant, and rotate its refresh token.

    1. The client proves its identity. 2. The refresh token is genuine, belongs to a grant of the client that is in
    force, and is bound to the key that the client proved. 3. The token is the current one, or the previous one if the
    client lost the last response. 4. The tokens are issued, no wider than the grant. Raises as `redeem_code` does.
    """
    proofs = identify(act, token_request.sender, config=config, grant_type=REFRESH_TOKEN)
    possession = proofs.possession
    token = read_refresh_token(act.tx.keys.keyed_hash("refresh token"), token_request.secret)
    stored = None if token is None else store.authorization.get_live_grant(act.tx, token.grant, now=act.now)
    if token is None or stored is None or stored[0].client_id != proofs.client.client_id:
        raise InvalidGrant("the refresh token is not valid, or was issued to another client", hint=_BEGIN)
    grant, is_live = stored
    client = _client_of(act, grant.agent, proofs)
    registry.fill_entry(act, object=grant.grant_id)
    act.entry.person = grant.person
    if not is_live:
        raise InvalidGrant("the grant has ended", hint=_BEGIN)
    if proofs.client.is_public and grant.jkt != possession.binding:
        raise InvalidGrant(
            "the refresh token is bound to another key", hint="prove the key of the first request of this grant"
        )
    if grant.jkt and not possession.is_bound:
        hint = "send the header `DPoP`, or connect with the client certificate"
        raise InvalidGrant("the tokens of this grant are bound to a key, and the request proves none", hint=hint)
    consent = store.consents.get(act.tx, grant.consent)
    if consent is None:
        raise InvalidGrant("the consent was withdrawn", hint=_BEGIN)
    _check_consent(act, consent, proofs.client)
    # the key of a public client was compared above; every other client authenticated with a key or a secret
    is_proved = bool(grant.jkt) or not proofs.client.is_public
    network = act.entry.network or ""
    use = judge_use(grant, token.sequence, is_proved=is_proved, network=network, now=act.now)
    if use is Use.REUSE:
        raise Reused("the refresh token was used before", grant=grant.grant_id)
    if use is Use.FIRST:
        grant = store.authorization.rotate(act.tx, grant, network=network)
    try:
        task = tasks.live(act.tx, grant.task, now=act.now)
    except (Forbidden, NotFound) as error:
        raise InvalidGrant(error.message, hint=error.hint) from None
    return _issue(act, token_request, grant, task, client, proofs, is_refreshed=True, config=config)


def _client_of(act: Act, agent_id: str, proofs: Identified) -> Client:
    """Return the client that gets the tokens of a grant: its agent. Raises InvalidGrant if the agent is not active."""
    if proofs.agent is not None and proofs.agent.id == agent_id:
        return proofs.agent
    try:
        agent = registry.active_agent(act.tx, agent_id, now=act.now)
    except Forbidden as error:
        raise InvalidGrant(error.message, hint=error.hint) from None
    act.entry.agent, act.entry.owner = agent.agent_id, agent.owner
    return agent_client(agent, jkt=proofs.jkt, credential_ends=None, registration=proofs.client.registration)


def end_reused(act: Act, grant_id: str) -> None:
    """End a grant whose code or refresh token was used again (RFC 9700 section 4.14.2).

    If the grant was deleted after its end, do nothing.
    """
    registry.fill_entry(act, object=grant_id)
    if (grant := store.authorization.get_grant(act.tx, grant_id)) is None:
        return
    registry.fill_entry(act, object=grant.grant_id, client=grant.client_id)
    act.entry.agent, act.entry.person = grant.agent, grant.person
    end_grant(act, grant.grant_id, grant.task, why="reused")


def check_task(act: Act, task: Task) -> None:
    """Check that the person's consent still covers a task, with the checks of a refresh. A task that was not started on
    a consent passes. Raises InvalidGrant if the consent or the client is no longer in force.
    """
    if task.person is None:
        return
    grant = store.authorization.grant_of_task(act.tx, task.task_id, person=task.person, client_id=task.agent)
    consent = None if grant is None else store.consents.get(act.tx, grant.consent)
    if consent is None:
        return
    if (client := trust.get_oauth_client(act.tx, consent.client_id)) is None:
        raise InvalidGrant("the client no longer has a redirect URI", hint=_BEGIN)
    _check_consent(act, consent, client)


def _check_consent(act: Act, consent: Consent, client: OAuthClient) -> None:
    """Check that a consent is in force, that the client has not changed its metadata since the consent, and that role
    policies still permit it. Raises InvalidGrant otherwise.
    """
    if consent.ended_at is not None:
        raise InvalidGrant("the consent was withdrawn", hint=_BEGIN)
    if not consent.is_live(act.now):
        raise InvalidGrant("the consent has expired", hint=_BEGIN)
    if consent.digest != client.digest:
        hint = "begin with a new authorization request; the person is asked again"
        raise InvalidGrant("the client has changed its name, keys or redirect URIs since the consent", hint=hint)
    try:
        check_person(act.tx, client, person=consent.person, uri=consent.resource, scopes=consent.scopes, now=act.now)
    except Forbidden as error:
        raise InvalidGrant(error.message, hint=error.hint) from None


def _issue(
    act: Act,
    token_request: TokenRequest,
    grant: PersonGrant,
    task: Task,
    client: Client,
    proofs: Identified,
    *,
    is_refreshed: bool,
    config: Config,
) -> Granted:
    """Issue and return the tokens of a grant, no wider than the present access of its task. Raises InvalidScope or
    InvalidTarget for access beyond the grant, InvalidProof if a required DPoP proof is missing, InvalidGrant if less
    than a second of the task is left.
    """
    possession, proved = proofs.possession, Proved(grant.acr, grant.authenticated_at // SECOND, grant.amr)
    if not possession.is_bound:
        proved = Proved(assurance.BEARER, grant.authenticated_at // SECOND)
    target, scope = _narrow(act, token_request, grant, task, config=config)
    longest = config.token_lifetime_s
    details = () if target.resource is None else narrow_details((), task=task.bounds, target=target)
    access = TokenAccess(target, scope, details)
    policy = ""
    if possession.jkt is None and proofs.client.metadata.dpop_bound_access_tokens:  # RFC 9449 section 5.2
        hint = "send the header `DPoP`"
        raise dpop.InvalidProof("the client registered `dpop_bound_access_tokens`, and sent no DPoP proof", hint=hint)
    if not possession.is_bound:
        longest = min(longest, config.bearer_lifetime_s)
        _check_exempt(act, client, target)
    if target.resource is not None:
        assert client.agent is not None, "the client of a grant is an agent"
        policy = consult_policies(act, client, task, access, acr=proved.acr)
    issued = mint(
        act,
        Authenticated(client, possession, proved),
        access,
        task=task,
        parent=grant.grant_id,
        policy=policy,
        seconds=lifetime(now=act.now, longest=longest, ends=(client.ends, task.expires_at, grant.expires_at)),
        config=config,
    )
    refresh_token = make_refresh_token(act.tx.keys.keyed_hash("refresh token"), grant.grant_id, grant.sequence)
    identity = grant.request.identity
    return Granted(
        access=issued,
        refresh_token=refresh_token if is_refreshed else None,
        id_token=_make_id_token(act, grant, proofs.client, issued, config=config) if OPENID in identity else None,
        identity=identity,
    )


def _narrow(
    act: Act, token_request: TokenRequest, grant: PersonGrant, task: Task, *, config: Config
) -> tuple[Target, frozenset[str]]:
    """Return the target and the scopes of the access token that a grant issues. The target is the resource of the
    grant, or the userinfo endpoint. Raises InvalidScope or InvalidTarget if the person did not consent to the scope or
    the target.
    """
    userinfo, request, uri = Target(config.issuer + USERINFO), grant.request, token_request.resource
    scopes, identity = parse_scope(token_request.scope), request.identity
    if extra := scopes - request.scopes - identity:
        hint = "begin with a new authorization request for more scopes"
        raise InvalidScope(f"the person did not consent to the scopes {render_scope(extra)}", hint=hint)
    if uri is not None and request.resource is not None and is_origin_of(uri, request.resource):
        uri = request.resource
    if uri not in (None, request.resource, userinfo.uri):
        raise InvalidTarget("the person did not consent to this resource", hint=_BEGIN)
    is_about_person = request.resource is None or uri == userinfo.uri or (scopes and not scopes - identity)
    if is_about_person:
        if OPENID not in identity:
            raise InvalidTarget(
                "the person did not consent to the scope `openid`",
                hint="begin with a new authorization request for `openid`",
            )
        return userinfo, (identity & scopes or identity) | {OPENID}
    target = choose_target(act, request.resource, requested=frozenset(), available=task.scopes, config=config)
    return target, task.scopes & scopes if scopes else task.scopes


def _check_exempt(act: Act, client: Client, target: Target) -> None:
    """Check that a client may have a token that is bound to no key for the target. Every client may have one for
    userinfo (ADR 80). Raises InvalidProof otherwise.
    """
    if target.resource is not None and not trust.may_have_bearer(
        act.tx, client.id, target.resource.resource_id, registration=client.registration
    ):
        name = target.resource.name
        raise dpop.InvalidProof(
            f"the DPoP proof is missing, and `{name}` accepts no bearer token of this client",
            hint="send the header `DPoP`",
        )


def _make_id_token(act: Act, grant: PersonGrant, client: OAuthClient, issued: Issued, *, config: Config) -> str:
    """Return the ID token of a grant (OpenID Connect Core 1.0 sections 2, 3.1.3.6 and 12.2)."""
    alg = alg_of(client)
    person = registry.find_person(act.tx, grant.person)
    claims = IdToken(
        iss=config.issuer,
        sub=grant.person,
        aud=grant.client_id,
        exp=act.now // SECOND + ID_TOKEN_S,
        iat=act.now // SECOND,
        auth_time=grant.authenticated_at // SECOND,
        sid=grant.session,
        nonce=grant.request.nonce if grant.sequence == 0 else "",
        acr=grant.acr,
        amr=grant.amr,
        at_hash=hash_access_token(issued.access_token, alg),
        **claims_about(person, scopes=grant.request.identity, names=grant.request.id_token_claims),
    )
    return sign_jwt(act.tx.keys.signer("token", alg), typ=ID_TOKEN_TYP, claims=claims)
