"""POST /token, /introspect, /revoke (RFC 6749 section 3.2, RFC 7662, RFC 7009): strict forms, one table of errors."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from ostiary.core import assurance, bounds, canonical, claims, dpop
from ostiary.core.assurance import StepUp
from ostiary.core.claims import AccessClaims
from ostiary.core.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
)
from ostiaryd.ground.config import Config
from ostiaryd.ground.http import NO_STORE, Call, Failed, Reply, TooLarge, UnsupportedMediaType, reply
from ostiaryd.ledger.flows import Act, act
from ostiaryd.policy.flows.elsewhere import act_asking
from ostiaryd.tokens import flows
from ostiaryd.tokens.flows import Asker, Exchange, Grant, Issued
from ostiaryd.tokens.model import (
    ACCESS_TOKEN,
    CLIENT_CREDENTIALS,
    GRANT_TYPES,
    TOKEN_EXCHANGE,
    InvalidGrant,
    InvalidRequest,
    InvalidTarget,
    UnauthorizedClient,
    Unmet,
    UnsupportedGrantType,
    UnsupportedResponseType,
)
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import AccessRefused, Credentials, InvalidClient, NonceNeeded, challenge

T = TypeVar("T")
MAX_VALUE = 16 << 10
MAX_DETAILS_DEPTH = 8
Form = dict[str, str]

ERRORS: dict[type[Refused], tuple[str, int]] = {
    InvalidRequest: ("invalid_request", 400),
    InvalidClient: ("invalid_client", 401),
    AccessRefused: ("", 401),
    InvalidGrant: ("invalid_grant", 400),
    UnauthorizedClient: ("unauthorized_client", 400),
    Unmet: ("unmet_authentication_requirements", 400),
    UnsupportedGrantType: ("unsupported_grant_type", 400),
    UnsupportedResponseType: ("unsupported_response_type", 400),
    claims.InvalidScope: ("invalid_scope", 400),
    InvalidTarget: ("invalid_target", 400),
    bounds.InvalidDetails: ("invalid_authorization_details", 400),
    dpop.InvalidProof: ("invalid_dpop_proof", 400),
    dpop.UseNonce: ("use_dpop_nonce", 400),
    Failed: ("server_error", 500),
    TooLarge: ("invalid_request", 413),
    UnsupportedMediaType: ("invalid_request", 415),
    Malformed: ("invalid_request", 400),
    Unauthenticated: ("invalid_client", 401),
    Forbidden: ("access_denied", 400),
    NotFound: ("invalid_request", 404),
    Conflict: ("invalid_request", 400),
    Invalid: ("invalid_request", 400),
    Unavailable: ("temporarily_unavailable", 503),
    Refused: ("invalid_request", 400),
}
"""How OAuth says a refusal: the nearest class in its ancestry counts, and "" is the refusal's own code.

RFC 6749 section 5.2, RFC 6750 3.1, RFC 8707 2, RFC 9396 5, RFC 9449 5, 7.1 and 8, RFC 9470 5.
"""

_UNSPEAKABLE = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")  # what `error_description` cannot say: RFC 6749 5.2


def render_oauth(refusal: Refused) -> Reply:
    """`{"error", "error_description"}`; the hint is part of the description."""
    error, status = next(ERRORS[kind] for kind in type(refusal).__mro__ if kind in ERRORS)
    words = f"{refusal.message}; {refusal.hint}" if refusal.hint else refusal.message
    headers = [NO_STORE]
    if isinstance(refusal, NonceNeeded):
        headers.append((b"dpop-nonce", refusal.nonce.encode()))
    if isinstance(refusal, InvalidClient) and refusal.scheme:
        headers.append((b"www-authenticate", refusal.scheme.encode()))
    body = {"error": error or refusal.code, "error_description": _UNSPEAKABLE.sub("'", words)}
    return reply(body, status=status, headers=headers)


async def token(call: Call) -> Reply:
    """RFC 6749 section 4.4 and RFC 8693, with `resource` (RFC 8707) and `authorization_details` (RFC 9396)."""
    form = read_form(call)
    authorization, unverified_proof = call.header(b"authorization"), call.header(b"dpop")
    config = call.world.config
    issuing: Callable[[Act], Issued]
    if form.get("grant_type") == TOKEN_EXCHANGE:
        asked = _parse_exchange(form, authorization=authorization, unverified_proof=unverified_proof, config=config)
        action, issuing = "token.exchange", lambda act: flows.exchange(act, asked, config=config)
    else:
        grant = _parse_grant(form, authorization=authorization, unverified_proof=unverified_proof, config=config)
        action, issuing = "token.issue", lambda act: flows.issue(act, grant, config=config)
    issued = await act_asking(
        call.world, lambda again: act(call.world, action, issuing, request=call.request_id, again=again)
    )
    body: dict[str, object] = {
        "access_token": issued.access_token,
        "token_type": "DPoP" if issued.is_bound else "Bearer",
        "expires_in": issued.expires_in,
        "scope": issued.scope,
    }
    if form["grant_type"] == TOKEN_EXCHANGE:
        body["issued_token_type"] = ACCESS_TOKEN
    if issued.details:
        body["authorization_details"] = issued.details
    if issued.balances:
        body["budgets"] = issued.balances
    headers = [NO_STORE, (b"pragma", b"no-cache")]
    if issued.next_nonce is not None:
        headers.append((b"dpop-nonce", issued.next_nonce.encode()))
    return reply(body, headers=headers)


async def introspect(call: Call) -> Reply:
    """RFC 7662 section 2, for clients, guards and administrators; whoever may not know hears that it is not active."""
    form = read_form(call)
    unverified_token = _required(form, "token")
    find = _asker(call, form)
    config = call.world.config

    def run(act: Act) -> AccessClaims | None:
        return flows.introspect(act, unverified_token, asker=find(act), config=config)

    found = await _with_challenge(call, act(call.world, "token.introspect", run, request=call.request_id))
    if found is None:
        return reply({"active": False}, headers=[NO_STORE])
    body = {"active": True, "token_type": "Bearer" if found.cnf is None else "DPoP", **msgspec.to_builtins(found)}
    return reply(body, headers=[NO_STORE])


async def revoke(call: Call) -> Reply:
    """RFC 7009 section 2: 200 whether or not there was anything to end."""
    form = read_form(call)
    unverified_token = _required(form, "token")
    find = _asker(call, form)

    def run(act: Act) -> None:
        flows.revoke(act, unverified_token, asker=find(act))

    await _with_challenge(call, act(call.world, "token.revoke", run, request=call.request_id))
    return Reply(200, headers=[NO_STORE])


def _asker(call: Call, form: Form) -> Callable[[Act], Asker]:
    """How the flow learns who asks: by an access token in the Authorization header, or by a client assertion."""
    config = call.world.config
    authorization = call.header(b"authorization")
    if authorization is not None and "client_assertion" not in form and authorization[:6].lower() != "basic ":
        request = trust.Request(call.method, call.uri, authorization, call.header(b"dpop"))
        return lambda act: flows.asker_by_token(act, request, config=config)
    given = credentials(form, authorization)
    return lambda act: flows.asker_by_assertion(act, given, config=config)


async def _with_challenge(call: Call, acting: Awaitable[T]) -> T:
    """Where an access token was the credential, its refusal is that of a resource (RFC 9449 section 7.1)."""
    try:
        return await acting
    except (AccessRefused, dpop.InvalidProof, dpop.UseNonce) as refusal:
        call.answer_headers += challenge(refusal, resource=call.world.config.api)
        raise AccessRefused(refusal.message, hint=refusal.hint, code=refusal.code) from None


def _required(form: Form, name: str) -> str:
    if name not in form:
        raise InvalidRequest(f"`{name}` is missing")
    return form[name]


def read_form(call: Call) -> Form:
    """The form, each parameter once and an empty one as if it were not there (RFC 6749 section 3.2).

    Raises InvalidRequest, and InvalidTarget for more than one `resource`.
    """
    form = call.form()
    if len(form.get("resource", ())) > 1 or len(form.get("audience", ())) > 1:
        raise InvalidTarget("a token is for one resource", hint="ask once for each")
    for name, values in form.items():
        if len(values) > 1:
            raise InvalidRequest(f"the parameter {name[:50]!a} was sent {len(values)} times", hint="send it once")
        if len(values[0]) > MAX_VALUE:
            raise InvalidRequest(f"the parameter {name[:50]!a} is longer than {MAX_VALUE} characters")
        if "\0" in values[0]:
            raise InvalidRequest(f"the parameter {name[:50]!a} has a NUL in it")
    return {name: values[0] for name, values in form.items() if values[0]}


def credentials(form: Form, authorization: str | None) -> Credentials:
    """What the form authenticates its client with.

    Raises InvalidRequest for two ways at once, InvalidClient for a way that is not offered: passwords are not (RFC 9700
    section 2.5).
    """
    in_body = "client_assertion" in form or "client_secret" in form
    if authorization is not None:
        if in_body:
            raise InvalidRequest("the client authenticates in two ways", hint="once is enough: `client_assertion`")
        scheme = "Basic" if authorization[:6].lower() == "basic " else "DPoP"
        raise InvalidClient("clients authenticate with private_key_jwt", hint="`client_assertion`", scheme=scheme)
    if "client_secret" in form:
        raise InvalidClient("clients authenticate with private_key_jwt", hint="passwords are not taken")
    return Credentials(form.get("client_assertion"), form.get("client_assertion_type"), form.get("client_id"))


def _parse_grant(form: Form, *, authorization: str | None, unverified_proof: str | None, config: Config) -> Grant:
    if "grant_type" not in form:
        raise InvalidRequest("`grant_type` is missing")
    if form["grant_type"] != CLIENT_CREDENTIALS:
        raise UnsupportedGrantType("this grant type is not offered", hint=" or ".join(GRANT_TYPES))
    return Grant(
        credentials=credentials(form, authorization),
        unverified_proof=unverified_proof,
        scope=form.get("scope", ""),
        resource=form.get("resource"),
        task=form.get("task"),
        details=_parse_details(form.get("authorization_details"), config=config),
        demand=_parse_demand(form),
    )


def _parse_exchange(form: Form, *, authorization: str | None, unverified_proof: str | None, config: Config) -> Exchange:
    """RFC 8693 section 2.1, of the token types only the one that we issue."""
    for name in ("subject_token", "subject_token_type"):
        _required(form, name)
    if ("actor_token" in form) is not ("actor_token_type" in form):
        raise InvalidRequest("`actor_token` and `actor_token_type` come together")
    for name in ("subject_token_type", "actor_token_type", "requested_token_type"):
        if form.get(name, ACCESS_TOKEN) != ACCESS_TOKEN:
            raise InvalidRequest(f"`{name}` is not one that we take", hint=ACCESS_TOKEN)
    if "task" in form:
        raise InvalidRequest("the task is that of the subject token", hint=f"`task` goes with {CLIENT_CREDENTIALS}")
    return Exchange(
        credentials=credentials(form, authorization),
        unverified_proof=unverified_proof,
        unverified_subject=form["subject_token"],
        unverified_actor=form.get("actor_token"),
        scope=form.get("scope", ""),
        resource=form.get("resource"),
        audience=form.get("audience"),
        details=_parse_details(form.get("authorization_details"), config=config),
        demand=_parse_demand(form),
    )


def _parse_demand(form: Form) -> StepUp:
    """RFC 9470 section 4: what the token shall say of how the client proved itself."""
    try:
        values = assurance.parse_acr_values(form.get("acr_values", ""))
        return StepUp(values, assurance.parse_max_age(form["max_age"]) if "max_age" in form else None)
    except Invalid as error:
        raise InvalidRequest(error.message) from None


def _parse_details(text: str | None, *, config: Config) -> tuple[bounds.ToolDetail, ...]:
    if text is None:
        return ()
    try:
        value = canonical.parse(text, max_bytes=MAX_VALUE, max_depth=MAX_DETAILS_DEPTH)
    except Malformed as error:
        raise bounds.InvalidDetails(f"`authorization_details`: {error.message}") from None
    return bounds.parse_details(value, classes=config.classes)


ROUTES = (
    ("POST", "/token", token, ""),
    ("POST", "/introspect", introspect, ""),
    ("POST", "/revoke", revoke, ""),
)
