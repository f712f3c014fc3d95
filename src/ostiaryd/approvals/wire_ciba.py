"""POST /bc-authorize: CIBA Core 1.0 section 7, mode poll, with `authorization_details` (RFC 9396) and `resource`.

`login_hint` is the name or the id of a person. Signed requests, user codes, other hints, ping and push are not offered.
With `openid` in the scope, the client gets an ID token beside the access token. Section 7.1 requires `openid` of
clients, and does not specify the response to a request without it; this server then issues only the access token.
"""

from __future__ import annotations

import re
from typing import NotRequired, TypedDict

from ostiary.authorization.assurance import PERSON
from ostiaryd.approvals import flows
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import FORM, Content, Route
from ostiaryd.ledger.flows import act
from ostiaryd.tokens.flows.backchannel import INTERVAL_S
from ostiaryd.tokens.model import (
    BackchannelDenied,
    InvalidBindingMessage,
    InvalidRequest,
    UnknownUser,
    Unmet,
    credentials,
    parse_demand,
    parse_details_of,
    read_form,
    required,
)

NOT_OFFERED = ("request", "login_hint_token", "id_token_hint", "user_code", "client_notification_token")
MAX_EXPIRY = 10**9
_SECONDS = re.compile(r"[0-9]{1,12}")
"""Pattern of a number of seconds, limited to 12 digits because Python refuses to parse integers of more than 4,300
digits.
"""


class BackchannelForm(TypedDict):
    """A backchannel authentication request (CIBA Core 1.0 section 7.1)."""

    login_hint: str
    scope: str
    client_id: NotRequired[str]
    client_assertion_type: NotRequired[str]
    client_assertion: NotRequired[str]
    resource: NotRequired[str]
    authorization_details: NotRequired[str]
    binding_message: NotRequired[str]
    requested_expiry: NotRequired[str]
    acr_values: NotRequired[str]


class BackchannelBody(TypedDict):
    """A backchannel authentication response (CIBA Core 1.0 section 7.3)."""

    auth_req_id: str
    expires_in: int
    interval: int


async def bc_authorize(call: Call) -> Reply:
    """Start a backchannel authentication: create an approval request for a person (CIBA section 7)."""
    form = read_form(call.form())
    for name in NOT_OFFERED:
        if name in form:
            raise InvalidRequest(
                f"`{name}` is not supported",
                hint=f"leave out `{name}`, name the person by `login_hint`, and poll the token endpoint",
            )
    demand = parse_demand(form)
    if demand.acr_values and PERSON not in demand.acr_values:
        raise Unmet(
            "none of the requested `acr_values` can be met by a backchannel request",
            hint=f"send {PERSON} as `acr_values`, or leave them out",
        )
    expiry = form.get("requested_expiry")
    if expiry is not None and not (_SECONDS.fullmatch(expiry) and 0 < int(expiry) <= MAX_EXPIRY):
        raise InvalidRequest(f"`requested_expiry` must be a whole number of seconds from 1 to {MAX_EXPIRY}")
    config = call.world.config
    request = flows.Backchannel(
        credentials=credentials(form, call.header(b"authorization"), call.certificate),
        login_hint=required(form, "login_hint"),
        scope=required(form, "scope"),
        resource=form.get("resource"),
        details=parse_details_of(form.get("authorization_details"), classes=config.classes),
        message=form.get("binding_message", ""),
        expiry_s=None if expiry is None else int(expiry),
    )
    id, seconds = await act(
        call.world,
        "approval.ask",
        lambda act: flows.begin_backchannel(act, request, config=config),
        request=call.request_id,
        network=call.network,
    )
    return reply({"auth_req_id": id, "expires_in": seconds, "interval": INTERVAL_S}, headers=[NO_STORE])


ROUTES = (
    Route(
        "POST",
        "/bc-authorize",
        bc_authorize,
        "",
        errors=(
            UnknownUser("no person has this name"),
            InvalidBindingMessage("the message is too long"),
            BackchannelDenied("a person denied the approval request", hint="continue without the denied action"),
        ),
        grants=True,
        body=Content(BackchannelForm, FORM),
        answers={200: BackchannelBody},
    ),
)
