"""OAuth clients for administrators: the redirect URIs of agents."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import EmptyBody, Route
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.trust import flows
from ostiaryd.trust.model import SECOND
from ostiaryd.trust.model.clients import OAuthClient


class AgentClient(msgspec.Struct, forbid_unknown_fields=True):
    """The redirect URIs of an agent, and the URL at which the agent receives logout tokens."""

    redirect_uris: list[str]
    post_logout_redirect_uris: list[str] = []
    backchannel_logout_uri: str = ""


class ClientBody(TypedDict):
    """An OAuth client. `digest` changes if its name, its redirect URIs or its keys change."""

    id: str
    client_id: str
    kind: str
    state: str
    name: str
    redirect_uris: list[str]
    post_logout_redirect_uris: list[str]
    backchannel_logout_uri: str
    token_endpoint_auth_method: str
    digest: str
    created_at: int
    changed_at: int
    used_at: int | None


async def set_agent_client(call: Call) -> Reply:
    """Set the redirect URIs of an agent, so that the agent can send people to the authorization endpoint."""
    new, name = call.json(AgentClient), call.params["name"]
    await act_as(
        call,
        "client.set",
        lambda act: flows.set_agent_client(
            act,
            name,
            redirect_uris=new.redirect_uris,
            post_logout_redirect_uris=new.post_logout_redirect_uris,
            backchannel_logout_uri=new.backchannel_logout_uri,
            private=call.world.config.private,
        ),
    )
    return await show_agent_client(call)


async def show_agent_client(call: Call) -> Reply:
    """Show the redirect URIs of an agent."""
    return reply(_show(flows.find_agent_client(call.world.db.read(), call.params["name"])))


async def remove_agent_client(call: Call) -> Reply:
    """Remove the redirect URIs of an agent; its authorization requests are refused from then on."""
    name = call.params["name"]
    await act_as(call, "client.set", lambda act: flows.set_agent_client(act, name, redirect_uris=()))
    return reply({})


def _show(client: OAuthClient) -> ClientBody:
    metadata = client.metadata
    return {
        "id": client.handle,
        "client_id": client.client_id,
        "kind": client.kind.value,
        "state": client.state.value,
        "name": client.name,
        "redirect_uris": list(metadata.redirect_uris),
        "post_logout_redirect_uris": list(metadata.post_logout_redirect_uris),
        "backchannel_logout_uri": metadata.backchannel_logout_uri,
        "token_endpoint_auth_method": metadata.token_endpoint_auth_method,
        "digest": client.digest,
        "created_at": client.created_at // SECOND,
        "changed_at": client.changed_at // SECOND,
        "used_at": None if client.used_at is None else client.used_at // SECOND,
    }


ROUTES = (
    Route("GET", "/api/v1/agents/{name}/client", show_agent_client, READ, answers={200: ClientBody}),
    Route("PUT", "/api/v1/agents/{name}/client", set_agent_client, ADMIN, body=AgentClient, answers={200: ClientBody}),
    Route("DELETE", "/api/v1/agents/{name}/client", remove_agent_client, ADMIN, stops=True, answers={200: EmptyBody}),
)
