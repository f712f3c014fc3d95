"""POST /token, /introspect, /revoke (RFC 6749 section 3.2, RFC 7662, RFC 7009): strict forms, one table of errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NotRequired, Required, TypedDict, TypeVar

import msgspec

from ostiary.authorization import bounds, claims
from ostiary.authorization.claims import AccessClaims
from ostiary.protocol import dpop
from ostiary.protocol.errors import (
    Forbidden,
    NotFound,
    Refused,
)
from ostiaryd.ground.config import Config
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import FORM, Content, EmptyBody, Route
from ostiaryd.ledger.flows import Act, act
from ostiaryd.policy.flows.external_pdp import act_with_answers
from ostiaryd.registry.model import is_agent_id, is_resource_id
from ostiaryd.tokens import flows
from ostiaryd.tokens.flows import Asker, Exchange, Grant, Granted, Issued
from ostiaryd.tokens.flows.mint import Sender, token_type_of
from ostiaryd.tokens.model import (
    ACCESS_TOKEN,
    CIBA,
    CLIENT_CREDENTIALS,
    TOKEN_EXCHANGE,
    ExpiredToken,
    Form,
    InvalidGrant,
    InvalidRequest,
    InvalidTarget,
    Pending,
    SlowDown,
    UnauthorizedClient,
    Unmet,
    UnsupportedGrantType,
    credentials,
    parse_demand,
    parse_details_of,
    read_form,
    required,
    resolve_aliases,
    spell_scope,
)
from ostiaryd.tokens.wire_errors import OAUTH, challenges_clients
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import AccessRefused, Credentials, InvalidClient, NonceNeeded, challenge
from ostiaryd.trust.model.clients import AUTHORIZATION_CODE, DEVICE_CODE, REFRESH_TOKEN, ClientKind

T = TypeVar("T")


class ClientForm(TypedDict, total=False):
    """Members by which a client authenticates (RFC 7523 section 2.2, RFC 6749 section 2.3.1)."""

    client_id: str
    client_secret: str
    client_assertion_type: str
    client_assertion: str


class TokenForm(ClientForm, total=False):
    """A token request: RFC 6749 sections 4.1.3, 4.4 and 6, RFC 8693, RFC 8628 section 3.4, CIBA section 10."""

    grant_type: Required[str]
    scope: str
    resource: str
    audience: str
    task: str
    authorization_details: str
    acr_values: str
    max_age: str
    subject_token: str
    subject_token_type: str
    actor_token: str
    actor_token_type: str
    requested_token_type: str
    auth_req_id: str
    code: str
    code_verifier: str
    redirect_uri: str
    refresh_token: str
    device_code: str


class TokenQueryForm(ClientForm, total=False):
    """A token to introspect (RFC 7662) or to revoke (RFC 7009)."""

    token: Required[str]
    token_type_hint: str


class TokenBody(TypedDict):
    """A token response (RFC 6749 section 5.1)."""

    access_token: str
    token_type: Literal["DPoP", "Bearer"]
    expires_in: int
    scope: str
    issued_token_type: NotRequired[str]
    authorization_details: NotRequired[list[dict[str, Any]]]
    budgets: NotRequired[list[Any]]
    refresh_token: NotRequired[str]
    id_token: NotRequired[str]


class IntrospectionBody(TypedDict):
    """An introspection response (RFC 7662 section 2.2); an active token has its claims too."""

    active: bool
    token_type: NotRequired[Literal["DPoP", "Bearer"]]


@challenges_clients
async def token(call: Call) -> Reply:
    """Issue tokens: authorization code, refresh token, device code, client credentials, token exchange, CIBA.

    RFC 6749 sections 4.1.3, 4.4 and 6, RFC 8628 section 3.4, RFC 8693 and CIBA section 10, with `resource` (RFC 8707)
    and `authorization_details` (RFC 9396).
    """
    form = read_form(call.form())
    if (redeem := GRANT_TYPES.get(required(form, "grant_type"))) is None:
        raise UnsupportedGrantType("the server does not support this `grant_type`", hint=" or ".join(GRANT_TYPES))
    return await redeem(call, form)


async def _issue(call: Call, form: Form) -> Reply:
    """Return the token that a client requests for itself (client credentials)."""
    config = call.world.config
    client, unverified_proof = _credentials(call, form)
    grant = Grant(
        credentials=client,
        unverified_proof=unverified_proof,
        scope=resolve_aliases(form.get("scope", "")),
        resource=form.get("resource"),
        task=form.get("task"),
        details=parse_details_of(form.get("authorization_details"), classes=config.classes),
        demand=parse_demand(form),
    )
    await trust.verify_ahead(call.world, client, unverified_proof)
    issued = await _act(call, "token.issue", lambda act: flows.issue(act, grant, config=config))
    return _answer(issued, requested=form.get("scope", ""))


async def _exchange(call: Call, form: Form) -> Reply:
    """Return the token for which a client exchanges another access token (RFC 8693)."""
    config = call.world.config
    client, unverified_proof = _credentials(call, form)
    request = _parse_exchange(form, client, unverified_proof=unverified_proof, config=config)
    await trust.verify_ahead(call.world, client, unverified_proof)
    issued = await _act(call, "token.exchange", lambda act: flows.exchange(act, request, config=config))
    return _answer(issued, requested=form.get("scope", ""), exchanged=True)


def _credentials(call: Call, form: Form) -> tuple[Credentials, str | None]:
    """Return the unverified client credentials and the unverified DPoP proof of a request. Raises InvalidRequest for
    two authentications at once, InvalidProof for two proofs.
    """
    unverified = credentials(form, call.header(b"authorization"), call.certificate)
    return unverified, call.header(b"dpop", twice=dpop.InvalidProof)


async def _act(call: Call, action: str, issue: Callable[[Act], T]) -> T:
    """Run an act that issues tokens, and return its result. If policies need answers of external decision points, fetch
    the answers and run the act again.
    """
    world, id, network = call.world, call.request_id, call.network
    return await act_with_answers(
        world, lambda retry: act(world, action, issue, request=id, again=retry, network=network)
    )


def _answer(
    issued: Issued, *, requested: str = "", exchanged: bool = False, extra: Mapping[str, str] = MappingProxyType({})
) -> Reply:
    body: dict[str, object] = {
        **extra,
        "access_token": issued.access_token,
        "token_type": issued.token_type,
        "expires_in": issued.expires_in,
        "scope": spell_scope(issued.scope, requested=requested),
    }
    if exchanged:
        body["issued_token_type"] = ACCESS_TOKEN
    if issued.details:
        body["authorization_details"] = issued.details
    if issued.balances:
        body["budgets"] = issued.balances
    headers = [NO_STORE, (b"pragma", b"no-cache")]
    if issued.next_nonce is not None:
        headers.append((b"dpop-nonce", issued.next_nonce.encode()))
    return reply(body, headers=headers)


async def _redeem_answer(call: Call, form: Form) -> Reply:
    """Return the response to a token request with `auth_req_id`: a token if the person has approved (CIBA section 10.1,
    mode poll). If the request is still pending, record the poll and raise the refusal.
    """
    client, unverified_proof = _credentials(call, form)
    id, world = required(form, "auth_req_id"), call.world
    await trust.verify_ahead(world, client, unverified_proof)

    def redeem(act: Act) -> Granted:
        return flows.redeem(act, client, unverified_proof, auth_req_id=id, config=world.config)

    try:
        granted = await _act(call, "token.backchannel", redeem)
    except Pending as waits:
        slower = isinstance(waits, SlowDown)
        await world.writer.submit(lambda tx: flows.note_poll(tx, id, slower=slower))
        raise
    return _answer_grant(granted, requested="")


async def read_sender(call: Call, form: Form) -> Sender:
    """Return the client id in a form and the unverified credentials of the request. For a client that is not an agent,
    its metadata document and its keys are fetched if the stored ones are missing or old; an agent is read later, in the
    act. Raises InvalidClient for an unknown client, InvalidRequest for a parameter; Unavailable if the document or the
    keys cannot be fetched.
    """
    unverified = credentials(form, call.header(b"authorization"), call.certificate)
    client_id = trust.claimed_client_id(unverified)
    keys = await trust.find_client_keys(
        call.world, client_id, unverified, network=call.network, request_id=call.request_id
    )
    return Sender(client_id, unverified, call.header(b"dpop", twice=dpop.InvalidProof), keys)


async def _redeem_consent(call: Call, form: Form, *, secret: str, action: str, redeem: Callable[..., Granted]) -> Reply:
    """Return the tokens for an authorization code, a refresh token or a device code, which is in the parameter
    `secret`. `redeem` is the flow that issues the tokens. A reused code or refresh token revokes its grant (RFC 6749
    section 4.1.2, RFC 9700 section 4.14.2).
    """
    world = call.world
    token_request = flows.TokenRequest(
        sender=await read_sender(call, form),
        secret=required(form, secret),
        verifier=form.get("code_verifier", ""),
        redirect_uri=form.get("redirect_uri"),
        scope=resolve_aliases(form.get("scope", "")),
        resource=form.get("resource"),
        task=form.get("task") if form["grant_type"] == AUTHORIZATION_CODE else None,
    )
    await trust.verify_ahead(world, token_request.sender.credentials, token_request.sender.unverified_proof)
    try:
        granted = await _act(call, action, lambda act: redeem(act, token_request, config=world.config))
    except Pending as waits:
        slower = isinstance(waits, SlowDown)
        await world.writer.submit(lambda tx: flows.note_device_poll(tx, token_request.secret, slower=slower))
        raise
    except flows.Reused as reused:
        end = partial(flows.end_reused, grant_id=reused.grant)
        await act(world, "token.reuse", end, request=call.request_id, network=call.network)
        raise
    return _answer_grant(granted, requested=token_request.scope)


def _answer_grant(granted: Granted, *, requested: str) -> Reply:
    extra = {"refresh_token": granted.refresh_token, "id_token": granted.id_token}
    return _answer(
        granted.access, requested=requested, extra={name: value for name, value in extra.items() if value is not None}
    )


@challenges_clients
async def introspect(call: Call) -> Reply:
    """Introspect a token, for clients, resources and administrators (RFC 7662 section 2).

    A token that the caller may not see is reported as not active.
    """
    form = read_form(call.form())
    unverified_token = required(form, "token")
    find = await _client_asker(call, form, accepts_public=False) or _asker(call, form)
    config = call.world.config

    def run(act: Act) -> AccessClaims | None:
        return flows.introspect(act, unverified_token, asker=find(act), config=config)

    claims = await _with_challenge(
        call, act(call.world, "token.introspect", run, request=call.request_id, network=call.network)
    )
    if claims is None:
        return reply({"active": False}, headers=[NO_STORE])
    body = {"active": True, "token_type": token_type_of(claims), **msgspec.to_builtins(claims)}
    return reply(body, headers=[NO_STORE])


@challenges_clients
async def revoke(call: Call) -> Reply:
    """Revoke a token (RFC 7009 section 2).

    The status is 200 even if the token was not active. The body is an empty object, because some client libraries
    parse the body of every answer as JSON.
    """
    form = read_form(call.form())
    unverified_token = required(form, "token")
    find = await _client_asker(call, form, accepts_public=True) or _asker(call, form)

    def run(act: Act) -> None:
        flows.revoke(act, unverified_token, asker=find(act))

    await _with_challenge(call, act(call.world, "token.revoke", run, request=call.request_id, network=call.network))
    return reply({}, headers=[NO_STORE])


def _asker(call: Call, form: Form) -> Callable[[Act], Asker]:
    """Return a function that authenticates the caller inside an act: by the access token in the Authorization header,
    or by a client assertion.
    """
    config = call.world.config
    authorization = call.header(b"authorization")
    if authorization is not None and "client_assertion" not in form and authorization[:6].lower() != "basic ":

        def by_token(act: Act) -> Asker:
            unverified_proof = call.header(b"dpop", twice=dpop.InvalidProof)
            request = trust.Request(call.method, call.uri, authorization, unverified_proof, call.certificate)
            return flows.asker_by_token(act, request, config=config)

        return by_token
    client = credentials(form, authorization, call.certificate)
    return lambda act: flows.asker_by_assertion(act, client, config=config)


async def _client_asker(call: Call, form: Form, *, accepts_public: bool) -> Callable[[Act], Asker] | None:
    """Return a function that authenticates, inside an act, a client that no administrator registered, or an agent or
    a resource with a secret; None for every other caller. With `accepts_public`, a public client need not authenticate.
    """
    authorization = call.header(b"authorization")
    is_basic = authorization is not None and authorization[:6].lower() == "basic "
    if not is_basic and "client_id" not in form and "client_assertion" not in form:
        return None
    unverified = credentials(form, authorization, call.certificate)
    try:
        client_id = trust.claimed_client_id(unverified)
    except InvalidClient:  # no error here: the act refuses the client too, and records the refusal
        return None
    client = trust.get_oauth_client(call.world.db.read(), client_id)
    if unverified.unverified_secret is not None and (is_agent_id(client_id) or is_resource_id(client_id)):
        return lambda act: flows.asker_by_secret(act, unverified)
    if client is None or client.kind is ClientKind.AGENT:
        return None
    keys = await trust.find_client_keys(call.world, client_id, unverified, network=call.network)
    config = call.world.config
    return lambda act: flows.asker_by_client(act, unverified, keys, config=config, accepts_public=accepts_public)


async def _with_challenge(call: Call, acting: Awaitable[T]) -> T:
    """Return the result of `acting`. If it refuses the access token of the request, respond with a DPoP or Bearer
    challenge, as a resource does (RFC 9449 section 7.1).
    """
    try:
        return await acting
    except (AccessRefused, dpop.InvalidProof, dpop.UseNonce) as refusal:
        call.answer_headers += challenge(refusal, resource=call.world.config.api)
        raise AccessRefused(refusal.message, hint=refusal.hint, code=refusal.code) from None


def _parse_exchange(form: Form, client: Credentials, *, unverified_proof: str | None, config: Config) -> Exchange:
    """Parse the parameters of RFC 8693 section 2.1; access tokens are the only supported token type."""
    for name in ("subject_token", "subject_token_type"):
        required(form, name)
    if ("actor_token" in form) is not ("actor_token_type" in form):
        raise InvalidRequest("send both `actor_token` and `actor_token_type`, or neither")
    for name in ("subject_token_type", "actor_token_type", "requested_token_type"):
        if form.get(name, ACCESS_TOKEN) != ACCESS_TOKEN:
            raise InvalidRequest(f"`{name}` is not supported", hint=ACCESS_TOKEN)
    if "task" in form:
        raise InvalidRequest(
            "leave out `task`: the new token has the task of the subject token",
            hint=f"`task` can only be sent with the grant type {CLIENT_CREDENTIALS}",
        )
    return Exchange(
        credentials=client,
        unverified_proof=unverified_proof,
        unverified_subject=form["subject_token"],
        unverified_actor=form.get("actor_token"),
        scope=resolve_aliases(form.get("scope", "")),
        resource=form.get("resource"),
        audience=form.get("audience"),
        details=parse_details_of(form.get("authorization_details"), classes=config.classes),
        demand=parse_demand(form),
    )


GRANT_TYPES: Mapping[str, Callable[[Call, Form], Awaitable[Reply]]] = {
    AUTHORIZATION_CODE: partial(_redeem_consent, secret="code", action="token.code", redeem=flows.redeem_code),
    REFRESH_TOKEN: partial(_redeem_consent, secret="refresh_token", action="token.refresh", redeem=flows.refresh),
    DEVICE_CODE: partial(_redeem_consent, secret="device_code", action="token.device", redeem=flows.redeem_device),
    CLIENT_CREDENTIALS: _issue,
    TOKEN_EXCHANGE: _exchange,
    CIBA: _redeem_answer,
}
"""Each supported grant type with the function that answers its token requests. The metadata list these grant types."""

CLIENT_ERRORS: tuple[Refused, ...] = (
    InvalidClient("the client is unknown, or its assertion is not valid"),
    NonceNeeded("AAAAAAAAAAA"),
    dpop.InvalidProof("the DPoP proof is not valid"),
)
GRANT_ERRORS: tuple[Refused, ...] = (
    *CLIENT_ERRORS,
    InvalidGrant("the subject token is not valid"),
    UnauthorizedClient("the agent is suspended"),
    UnsupportedGrantType("the server does not support this `grant_type`", hint=" or ".join(GRANT_TYPES)),
    claims.InvalidScope("no scope `files:read`"),
    InvalidTarget("a token can be for only one `resource` or `audience`", hint="send one request for each"),
    bounds.InvalidDetails("`authorization_details` is not a list"),
    Unmet("no registered key of the client reaches this level", hint="register a second key"),
    Pending("the person has not answered"),
    SlowDown("the person has not answered", hint="wait 5 seconds longer between two polls"),
    ExpiredToken("the request has expired"),
    Forbidden("the person denied the request", code="access_denied"),
    NotFound("the task does not exist"),
)

ROUTES = (
    Route(
        "POST",
        "/token",
        token,
        "",
        errors=GRANT_ERRORS,
        protocol=OAUTH,
        body=Content(TokenForm, FORM),
        answers={200: TokenBody},
        is_cross_origin=True,
    ),
    Route(
        "POST",
        "/introspect",
        introspect,
        "",
        errors=CLIENT_ERRORS,
        protocol=OAUTH,
        body=Content(TokenQueryForm, FORM),
        answers={200: IntrospectionBody},
    ),
    Route(
        "POST",
        "/revoke",
        revoke,
        "",
        errors=CLIENT_ERRORS,
        stops=True,
        protocol=OAUTH,
        body=Content(TokenQueryForm, FORM),
        answers={200: EmptyBody},
        is_cross_origin=True,
    ),
)
