"""Dynamic client registration at `/register` (RFC 7591), and its management at `/register/{client_id}` (RFC 7592)."""

from __future__ import annotations

from functools import partial
from typing import Any, NotRequired, TypedDict

import msgspec

from ostiary.protocol.errors import Malformed, Refused, Unavailable
from ostiaryd.ground.http.buckets import Buckets
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import Route, RouteProtocol
from ostiaryd.ledger.flows import Act, act
from ostiaryd.tokens import flows
from ostiaryd.tokens.wire_errors import OAuthError, render_oauth
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows.registration import InvalidRegistrationToken
from ostiaryd.trust.model import SECOND, name_claimed
from ostiaryd.trust.model.clients import (
    InvalidClientMetadata,
    InvalidRedirectUri,
    InvalidSoftwareStatement,
    OAuthClient,
    UnapprovedSoftwareStatement,
)

COST = 3


class RegistrationBuckets(Buckets):
    """Limit of registrations from a network: 100 at once, then one in 3 seconds."""

    burst, per_second = 100 * COST, 1


class RegistrationBody(TypedDict):
    """A registered client (RFC 7591 section 3.2.1): the members below and all registered metadata of the client."""

    client_id: str
    client_id_issued_at: int
    client_secret: NotRequired[str]
    client_secret_expires_at: NotRequired[int]
    registration_client_uri: str
    registration_access_token: str
    redirect_uris: NotRequired[list[str]]
    client_name: NotRequired[str]
    token_endpoint_auth_method: str
    grant_types: list[str]
    response_types: list[str]
    application_type: str


async def register(call: Call) -> Reply:
    """Register a client (RFC 7591 section 3).

    The body is the metadata of the client, and the response has the registered metadata. If registration is closed,
    send an initial access token as `Authorization: Bearer`.
    """
    unverified, world = _members(call), call.world
    bucket = world.get_singleton(RegistrationBuckets).of(call.network)
    if not bucket.has(COST):
        raise Unavailable("too many registrations from this network", hint=f"try again in {bucket.after_s(COST)} s")
    bucket.take(COST)
    token = _bearer(call)
    made = await act(
        world,
        "client.register",
        lambda act: trust.register_client(
            act, unverified, unverified_token=token, network=call.network, config=world.config
        ),
        request=call.request_id,
        network=call.network,
    )
    return _answer(call, made.client, made.access_token, status=201)


async def read(call: Call) -> Reply:
    """Read a registration (RFC 7592 section 2.1)."""
    token = _bearer(call)
    client = trust.authenticate_registration(call.world.db.read(), call.params["client_id"], token)
    return _answer(call, client, token or "")


async def change(call: Call) -> Reply:
    """Replace the metadata of a registration (RFC 7592 section 2.2)."""
    unverified, token, id = _members(call), _bearer(call), call.params["client_id"]
    changed = await act(
        call.world,
        "client.change",
        lambda act: trust.change_registration(act, id, unverified, unverified_token=token, config=call.world.config),
        request=call.request_id,
        network=call.network,
    )
    return _answer(call, changed, token or "")


async def delete(call: Call) -> Reply:
    """Delete a registration, and end the consents to the client with their tokens (RFC 7592 section 2.3)."""
    token, id = _bearer(call), call.params["client_id"]

    def run(act: Act) -> None:
        act.entry.object = name_claimed(id)
        client = trust.authenticate_registration(act.tx, id, token)
        trust.delete_client(act, client)
        flows.end_client(act, client.client_id, why="client deleted")

    await act(call.world, "client.delete", run, request=call.request_id, network=call.network)
    return Reply(204, headers=[NO_STORE])


def _members(call: Call) -> dict[str, Any]:
    """Return the client metadata in the request body, a JSON object. Raises InvalidClientMetadata for another body,
    UnsupportedMediaType for another `Content-Type`.
    """
    call.expect("application/json")
    try:
        unverified = call.parse_json()
    except Malformed as error:
        raise InvalidClientMetadata(error.message) from None
    if not isinstance(unverified, dict):
        raise InvalidClientMetadata("the body is not a JSON object")
    if b"\\u0000" in call.body:
        raise InvalidClientMetadata("the body contains a null character")
    return unverified


def _bearer(call: Call) -> str | None:
    """Return the Bearer token in the Authorization header; None without the header. Raises InvalidRegistrationToken for
    another scheme.
    """
    if (authorization := call.header(b"authorization")) is None:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidRegistrationToken("the Authorization header must be `Bearer` with the registration token")
    return token.strip()


def _answer(call: Call, client: OAuthClient, access_token: str, *, status: int = 200) -> Reply:
    metadata = msgspec.to_builtins(client.metadata)
    secret = trust.make_client_secret(call.world.keys, client) if client.has_secret else None
    always = ("token_endpoint_auth_method", "grant_types", "response_types")
    body = {
        "client_id": client.client_id,
        "client_id_issued_at": client.created_at // SECOND,
        "registration_client_uri": f"{call.world.config.issuer}/register/{client.client_id}",
        "registration_access_token": access_token,
        **({} if secret is None else {"client_secret": secret, "client_secret_expires_at": 0}),
        **{name: getattr(client.metadata, name) for name in always},
        **metadata,
    }
    return reply(body, status=status, headers=[NO_STORE, (b"pragma", b"no-cache")])


def render_registration(refusal: Refused) -> Reply:
    """Return an OAuth error response for a refusal of the registration endpoint. If the registration token is not
    valid, add a Bearer challenge (RFC 7592 section 2, RFC 6750 section 3).
    """
    answer = render_oauth(refusal)
    if isinstance(refusal, InvalidRegistrationToken):
        answer.headers.append((b"www-authenticate", b'Bearer error="invalid_token"'))
    return answer


REGISTRATION = RouteProtocol("Client registration", render_registration, OAuthError)
_route = partial(Route, scope="", protocol=REGISTRATION, is_cross_origin=True)
_INVALID = (
    InvalidClientMetadata("`jwks` and `jwks_uri` cannot be used together (RFC 7591 section 2)"),
    InvalidRedirectUri("`redirect_uris` is missing"),
    InvalidSoftwareStatement("the software statement has expired"),
    UnapprovedSoftwareStatement("the issuer of the software statement is not trusted"),
    InvalidRegistrationToken("the registration access token is not valid for this client"),
)

ROUTES = (
    _route("POST", "/register", register, errors=_INVALID, body=dict[str, Any], answers={201: RegistrationBody}),
    _route("GET", "/register/{client_id}", read, errors=_INVALID[-1:], answers={200: RegistrationBody}),
    _route(
        "PUT",
        "/register/{client_id}",
        change,
        errors=_INVALID,
        body=dict[str, Any],
        answers={200: RegistrationBody},
    ),
    _route("DELETE", "/register/{client_id}", delete, errors=_INVALID[-1:], stops=True, answers={204: None}),
)
