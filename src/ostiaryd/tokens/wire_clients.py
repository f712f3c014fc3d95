"""Clients that no administrator registered, for administrators: list, approve, stop, delete, invite."""

from __future__ import annotations

from typing import NotRequired, TypedDict

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import reply_page
from ostiaryd.ground.http.routes import PAGE, EmptyBody, PageBody, Query, Route
from ostiaryd.ledger.flows import Act
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.tokens import flows
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import SECOND
from ostiaryd.trust.model.clients import ClientState, OAuthClient


class Invitation(msgspec.Struct, forbid_unknown_fields=True):
    """Lifetime of an initial access token in seconds, and the number of clients that can register with it."""

    ttl: int = 86_400
    uses: int = 1


class InvitationBody(TypedDict):
    """An initial access token (RFC 7591 section 3); it is shown once."""

    id: str
    initial_access_token: str
    expires_at: int
    uses: int


class RegisteredClientBody(TypedDict):
    """An OAuth client. `digest` changes with its name, its redirect URIs or its keys; people then have to consent
    again.
    """

    id: str
    client_id: str
    kind: str
    state: str
    name: str
    host: NotRequired[str]
    redirect_uris: list[str]
    token_endpoint_auth_method: str
    digest: str
    network: str
    created_at: int
    changed_at: int
    used_at: int | None


async def list_clients(call: Call) -> Reply:
    """List the OAuth clients, including agents. The parameter `state` selects clients in one state."""
    state = call.query_one("state") or ""
    if state not in ("", *ClientState):
        raise Invalid(f"`state` must be one of {', '.join(ClientState)}")
    return await reply_page(
        call,
        "clients",
        lambda reader, page: trust.page_clients(reader, page, state=state),
        lambda _, client: _show(client),
        cursor=lambda client: client.handle,
    )


async def show_client(call: Call) -> Reply:
    """Show an OAuth client by its record id."""
    return reply(_show(trust.find_client(call.world.db.read(), call.params["id"])))


async def approve(call: Call) -> Reply:
    """Approve a client that waits for approval, or let a stopped client act again."""
    return reply(_show(await act_as(call, "client.approve", lambda act: trust.approve_client(act, call.params["id"]))))


async def stop(call: Call) -> Reply:
    """Stop a client, and end the consents to it with their tokens."""

    def run(act: Act) -> OAuthClient:
        client = trust.stop_client(act, call.params["id"])
        flows.end_client(act, client.client_id, why="client stopped")
        return client

    return reply(_show(await act_as(call, "client.stop", run)))


async def delete(call: Call) -> Reply:
    """Delete a client, and end the consents to it with their tokens.

    A client that is identified by a metadata document is added again at its next request. To exclude such a client,
    stop it.
    """

    def run(act: Act) -> None:
        client = trust.find_client(act.tx, call.params["id"])
        trust.delete_client(act, client)
        flows.end_client(act, client.client_id, why="client deleted")

    await act_as(call, "client.delete", run)
    return reply({})


async def invite(call: Call) -> Reply:
    """Create an initial access token. A client with this token can register even if registration is closed.

    Only this response shows the token.
    """
    new = call.json(Invitation)
    made = await act_as(
        call,
        "client.invite",
        lambda act: trust.create_registration_token(act, lifetime_s=new.ttl, uses=new.uses),
    )
    body: InvitationBody = {
        "id": made.id,
        "initial_access_token": made.token,
        "expires_at": made.expires_at // SECOND,
        "uses": made.uses,
    }
    return reply(body, status=201, headers=[NO_STORE])


def _show(client: OAuthClient) -> RegisteredClientBody:
    body: RegisteredClientBody = {
        "id": client.handle,
        "client_id": client.client_id,
        "kind": client.kind.value,
        "state": client.state.value,
        "name": client.name,
        "redirect_uris": list(client.metadata.redirect_uris),
        "token_endpoint_auth_method": client.metadata.token_endpoint_auth_method,
        "digest": client.digest,
        "network": client.network,
        "created_at": client.created_at // SECOND,
        "changed_at": client.changed_at // SECOND,
        "used_at": None if client.used_at is None else client.used_at // SECOND,
    }
    if client.host:
        body["host"] = client.host
    return body


ROUTES = (
    Route(
        "GET",
        "/api/v1/clients",
        list_clients,
        READ,
        answers={200: PageBody("clients", RegisteredClientBody)},
        query=(Query("state", "State in which the listed clients are.", ClientState), *PAGE),
    ),
    Route("GET", "/api/v1/clients/{id}", show_client, READ, answers={200: RegisteredClientBody}),
    Route("POST", "/api/v1/clients/{id}/approve", approve, ADMIN, answers={200: RegisteredClientBody}),
    Route("POST", "/api/v1/clients/{id}/stop", stop, ADMIN, stops=True, answers={200: RegisteredClientBody}),
    Route("DELETE", "/api/v1/clients/{id}", delete, ADMIN, stops=True, answers={200: EmptyBody}),
    Route("POST", "/api/v1/client-invitations", invite, ADMIN, body=Invitation, answers={201: InvitationBody}),
)
