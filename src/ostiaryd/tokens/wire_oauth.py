"""POST /token, /introspect, /revoke (RFC 6749 section 3.2, RFC 7662, RFC 7009): strict forms, one table of errors."""

from __future__ import annotations

import re

from ostiary.core import bounds, canonical, claims, dpop
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
from ostiaryd.ground.http import NO_STORE, Call, Reply, TooLarge, UnsupportedMediaType, reply
from ostiaryd.ledger.flows import act
from ostiaryd.tokens import flows
from ostiaryd.tokens.flows import Grant
from ostiaryd.tokens.model import (
    CLIENT_CREDENTIALS,
    InvalidGrant,
    InvalidRequest,
    InvalidTarget,
    UnsupportedGrantType,
    UnsupportedResponseType,
)
from ostiaryd.trust.model import Credentials, InvalidClient, NonceNeeded

MAX_VALUE = 16 << 10
MAX_DETAILS_DEPTH = 8
Form = dict[str, str]

ERRORS: dict[type[Refused], tuple[str, int]] = {
    InvalidRequest: ("invalid_request", 400),
    InvalidClient: ("invalid_client", 401),
    InvalidGrant: ("invalid_grant", 400),
    UnsupportedGrantType: ("unsupported_grant_type", 400),
    UnsupportedResponseType: ("unsupported_response_type", 400),
    claims.InvalidScope: ("invalid_scope", 400),
    InvalidTarget: ("invalid_target", 400),
    bounds.InvalidDetails: ("invalid_authorization_details", 400),
    dpop.InvalidProof: ("invalid_dpop_proof", 400),
    dpop.UseNonce: ("use_dpop_nonce", 400),
    TooLarge: ("invalid_request", 413),
    UnsupportedMediaType: ("invalid_request", 415),
    Malformed: ("invalid_request", 400),
    Unauthenticated: ("invalid_client", 401),
    Forbidden: ("access_denied", 400),
    NotFound: ("invalid_request", 400),
    Conflict: ("invalid_request", 400),
    Invalid: ("invalid_request", 400),
    Unavailable: ("temporarily_unavailable", 503),
    Refused: ("invalid_request", 400),
}
"""How OAuth says a refusal: the nearest class in its ancestry counts. RFC 6749 5.2, 8707 2, 9396 5, 9449 5 and 8."""

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
    body = {"error": error, "error_description": _UNSPEAKABLE.sub("'", words)}
    return reply(body, status=status, headers=headers)


async def token(call: Call) -> Reply:
    """RFC 6749 section 4.4, with `resource` (RFC 8707), `authorization_details` (RFC 9396) and our own `task`."""
    form = read_form(call)
    grant = _parse_grant(form, authorization=call.header(b"authorization"), unverified_proof=call.header(b"dpop"))
    config = call.world.config
    issued = await act(
        call.world, "token.issue", lambda act: flows.issue(act, grant, config=config), request=call.request_id
    )
    body: dict[str, object] = {
        "access_token": issued.access_token,
        "token_type": "DPoP" if issued.is_bound else "Bearer",
        "expires_in": issued.expires_in,
        "scope": issued.scope,
    }
    if issued.details:
        body["authorization_details"] = issued.details
    headers = [NO_STORE, (b"pragma", b"no-cache")]
    if issued.next_nonce is not None:
        headers.append((b"dpop-nonce", issued.next_nonce.encode()))
    return reply(body, headers=headers)


def read_form(call: Call) -> Form:
    """The form, each parameter once and an empty one as if it were not there (RFC 6749 section 3.2).

    Raises InvalidRequest, and InvalidTarget for more than one `resource`.
    """
    form = call.form()
    if len(form.get("resource", ())) > 1:
        raise InvalidTarget("a token is for one resource", hint="ask once for each")
    for name, values in form.items():
        if len(values) > 1:
            raise InvalidRequest(f"the parameter {name[:50]!a} was sent {len(values)} times", hint="send it once")
        if len(values[0]) > MAX_VALUE:
            raise InvalidRequest(f"the parameter {name[:50]!a} is longer than {MAX_VALUE} characters")
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


def _parse_grant(form: Form, *, authorization: str | None, unverified_proof: str | None) -> Grant:
    if "grant_type" not in form:
        raise InvalidRequest("`grant_type` is missing")
    if form["grant_type"] != CLIENT_CREDENTIALS:
        raise UnsupportedGrantType("this grant type is not offered", hint=CLIENT_CREDENTIALS)
    return Grant(
        credentials=credentials(form, authorization),
        unverified_proof=unverified_proof,
        scope=form.get("scope", ""),
        resource=form.get("resource"),
        task=form.get("task"),
        details=_parse_details(form.get("authorization_details")),
    )


def _parse_details(text: str | None) -> tuple[bounds.ToolDetail, ...]:
    if text is None:
        return ()
    try:
        value = canonical.parse(text, max_bytes=MAX_VALUE, max_depth=MAX_DETAILS_DEPTH)
    except Malformed as error:
        raise bounds.InvalidDetails(f"`authorization_details`: {error.message}") from None
    return bounds.parse_details(value)


ROUTES = (("POST", "/token", token, ""),)
