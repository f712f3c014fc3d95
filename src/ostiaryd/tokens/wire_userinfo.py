"""GET and POST /userinfo (OpenID Connect Core 1.0 section 5.3). The access token is in the `Authorization` header, or,
for clients that know no other way, in the form of a POST (RFC 6750 section 2.2).
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from ostiary.protocol import dpop
from ostiary.protocol.errors import Unauthenticated
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import FORM, Route
from ostiaryd.ledger.flows import act
from ostiaryd.tokens import flows
from ostiaryd.tokens.model import InvalidRequest, read_form
from ostiaryd.tokens.wire_errors import OAUTH
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import USERINFO, AccessRefused, InsufficientScope, NonceNeeded, challenge


class UserinfoBody(TypedDict):
    """Claims about a person (OpenID Connect Core 1.0 section 5.3.2)."""

    sub: str
    name: NotRequired[str]
    preferred_username: NotRequired[str]
    email: NotRequired[str]


async def userinfo(call: Call) -> Reply:
    """Return the claims about the person for whom the client acts (OpenID Connect Core 1.0 section 5.3)."""
    config = call.world.config
    unverified_proof = call.header(b"dpop", twice=dpop.InvalidProof)
    authorization = call.header(b"authorization")
    if (unverified_token := _token_in_form(call)) is not None:
        if authorization is not None:
            hint = "send the token only in the header"
            raise InvalidRequest("the access token was sent in the header `Authorization` and in the form", hint=hint)
        authorization = f"Bearer {unverified_token}"
    request = trust.Request(call.method, call.uri, authorization, unverified_proof, call.certificate)
    try:
        claims, next_nonce = await act(
            call.world,
            "userinfo.read",
            lambda act: flows.read_userinfo(act, request, config=config),
            request=call.request_id,
            network=call.network,
        )
    except (Unauthenticated, InsufficientScope, dpop.InvalidProof, NonceNeeded) as refusal:
        call.answer_headers += challenge(refusal, resource=config.issuer + USERINFO, accepts_bearer=True)
        # respond with a challenge, as a resource does (RFC 9449 section 7.1)
        if isinstance(refusal, (dpop.InvalidProof, NonceNeeded)):
            raise AccessRefused(refusal.message, hint=refusal.hint, code=refusal.code) from None
        if type(refusal) is Unauthenticated:
            raise AccessRefused(refusal.message, hint=refusal.hint) from None
        raise
    nonce = [] if next_nonce is None else [(b"dpop-nonce", next_nonce.encode())]
    return reply(claims, headers=[NO_STORE, *nonce])


def _token_in_form(call: Call) -> str | None:
    """Return the access token in the form of a POST; None without a form or without a token."""
    is_form = (call.header(b"content-type") or "").partition(";")[0].strip().lower() in FORM
    return read_form(call.form()).get("access_token") if not call.is_read and is_form else None


_ERRORS = (
    AccessRefused("the token has ended"),
    InsufficientScope("the access token lacks the scope `openid`"),
)
ROUTES = tuple(
    Route(
        method,
        USERINFO,
        userinfo,
        "",
        protocol=OAUTH,
        errors=_ERRORS,
        answers={200: UserinfoBody},
        is_cross_origin=True,
    )
    for method in ("GET", "POST")
)
