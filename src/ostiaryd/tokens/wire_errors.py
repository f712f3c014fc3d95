"""The form of refusals of OAuth endpoints: one table of errors (RFC 6749 section 5.2)."""

from __future__ import annotations

import re
from functools import wraps
from typing import TypedDict

from ostiary.authorization import bounds, claims
from ostiary.protocol import dpop
from ostiary.protocol.errors import (
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
)
from ostiaryd.ground.database.pin import InRecovery
from ostiaryd.ground.http.edge import NO_STORE, Call, Failed, Reply, TooLarge, UnsupportedMediaType, Wire, reply
from ostiaryd.ground.http.routes import RouteProtocol
from ostiaryd.tokens.model import (
    BackchannelDenied,
    ExpiredToken,
    InvalidBindingMessage,
    InvalidGrant,
    InvalidRequest,
    InvalidTarget,
    Pending,
    SlowDown,
    UnauthorizedClient,
    UnknownUser,
    Unmet,
    UnsupportedGrantType,
    UnsupportedResponseType,
)
from ostiaryd.tokens.model.authorization import (
    ConsentRequired,
    LoginRequired,
    RegistrationNotSupported,
    RequestNotSupported,
    RequestUriNotSupported,
)
from ostiaryd.tokens.model.request_objects import InvalidRequestObject
from ostiaryd.trust.flows.registration import InvalidRegistrationToken
from ostiaryd.trust.model import AccessRefused, InsufficientScope, InvalidClient, NonceNeeded
from ostiaryd.trust.model.clients import (
    InvalidClientMetadata,
    InvalidRedirectUri,
    InvalidSoftwareStatement,
    UnapprovedSoftwareStatement,
)


class OAuthError(TypedDict):
    """A refusal of an OAuth endpoint (RFC 6749 section 5.2)."""

    error: str
    error_description: str


ERRORS: dict[type[Refused], tuple[str, int]] = {
    InvalidRequest: ("invalid_request", 400),
    InvalidClient: ("invalid_client", 401),
    InvalidRegistrationToken: ("", 401),
    InvalidRedirectUri: ("", 400),
    InvalidClientMetadata: ("", 400),
    InvalidSoftwareStatement: ("", 400),
    UnapprovedSoftwareStatement: ("", 400),
    AccessRefused: ("", 401),
    InsufficientScope: ("insufficient_scope", 403),
    InvalidGrant: ("invalid_grant", 400),
    UnauthorizedClient: ("unauthorized_client", 400),
    Unmet: ("unmet_authentication_requirements", 400),
    UnsupportedGrantType: ("unsupported_grant_type", 400),
    UnknownUser: ("unknown_user_id", 400),
    InvalidBindingMessage: ("invalid_binding_message", 400),
    BackchannelDenied: ("access_denied", 403),
    Pending: ("authorization_pending", 400),
    SlowDown: ("slow_down", 400),
    ExpiredToken: ("expired_token", 400),
    UnsupportedResponseType: ("unsupported_response_type", 400),
    LoginRequired: ("login_required", 400),
    ConsentRequired: ("consent_required", 400),
    InvalidRequestObject: ("invalid_request_object", 400),
    RequestNotSupported: ("request_not_supported", 400),
    RequestUriNotSupported: ("request_uri_not_supported", 400),
    RegistrationNotSupported: ("registration_not_supported", 400),
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
    InRecovery: ("", 503),
    Refused: ("invalid_request", 400),
}
"""Refusal class: OAuth error code and HTTP status. For a class that is not listed, its nearest base class applies. An
empty error code stands for the refusal's own `code`.

RFC 6749 section 5.2, RFC 6750 3.1, RFC 8707 2, RFC 9396 5, RFC 9449 5, 7.1 and 8, RFC 9470 5, CIBA 11 and 13.
"""

# `error_description` allows no other characters (RFC 6749 section 5.2)
_UNSPEAKABLE = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


def describe_error(refusal: Refused) -> tuple[str, str]:
    """Return `error` and `error_description` of a refusal. The description includes the hint."""
    error, _ = next(ERRORS[kind] for kind in type(refusal).__mro__ if kind in ERRORS)
    words = f"{refusal.message}; {refusal.hint}" if refusal.hint else refusal.message
    return error or refusal.code, _UNSPEAKABLE.sub("'", words)


def render_oauth(refusal: Refused) -> Reply:
    """Return the JSON response `{"error", "error_description"}` for a refusal, with the HTTP status of `ERRORS`."""
    _, status = next(ERRORS[kind] for kind in type(refusal).__mro__ if kind in ERRORS)
    error, description = describe_error(refusal)
    headers = [NO_STORE]
    if isinstance(refusal, NonceNeeded):
        headers.append((b"dpop-nonce", refusal.nonce.encode()))
    return reply({"error": error, "error_description": description}, status=status, headers=headers)


def challenges_clients(wire: Wire) -> Wire:
    """Wrap the wire function (HTTP handler) of an endpoint at which clients authenticate. If a client that sent an
    Authorization header is refused, the response has a challenge of the same scheme (RFC 6749 section 5.2).
    """

    @wraps(wire)
    async def run(call: Call) -> Reply:
        try:
            return await wire(call)
        except InvalidClient:
            if (authorization := call.header(b"authorization")) is not None:
                is_basic = authorization.partition(" ")[0].lower() == "basic"
                call.answer_headers.append((b"www-authenticate", b'Basic realm="ostiary"' if is_basic else b"DPoP"))
            raise

    return run


OAUTH = RouteProtocol("OAuth", render_oauth, OAuthError)
