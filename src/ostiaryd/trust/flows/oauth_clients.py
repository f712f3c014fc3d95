"""OAuth clients that send people to the authorization endpoint: those of registered agents, and finding any of them."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ostiary.protocol.errors import NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ground.outbound.fetch import check_named
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.trust.model import InvalidClient
from ostiaryd.trust.model.clients import ClientKind, ClientState, OAuthClient, parse_metadata
from ostiaryd.trust.store import clients as store


def find_oauth_client(reader: Reader, client_id: str) -> OAuthClient | None:
    """Return the record of a client in whatever state; None for an unknown client. One point read."""
    return store.get(reader, client_id)


def get_oauth_client(reader: Reader, client_id: str) -> OAuthClient:
    """Return a client that may act now. Raises InvalidClient."""
    return check_usable(find_oauth_client(reader, client_id))


def check_usable(client: OAuthClient | None) -> OAuthClient:
    """Return a client that is known, approved and not stopped. Raises InvalidClient."""
    if client is None:
        raise InvalidClient("the client is not known", hint="register it, or send the URL of its metadata document")
    if client.state is ClientState.PENDING:
        raise InvalidClient("the client waits for approval", hint=f"ostiary client approve {client.handle}")
    if client.state is ClientState.STOPPED:
        raise InvalidClient("the client is stopped", hint=f"ostiary client show {client.handle}")
    return client


async def resolve_client(world: World, client_id: str) -> OAuthClient:
    """Return the client of an authorization request. Raises InvalidClient, and Unavailable where it cannot be known."""
    return get_oauth_client(world.db.read(), client_id)


def set_agent_client(
    act: Act,
    agent: str,
    *,
    redirect_uris: Collection[str],
    post_logout_redirect_uris: Collection[str] = (),
    backchannel_logout_uri: str = "",
    private: Collection[str] = (),
) -> OAuthClient | None:
    """Set the redirect URIs with which an agent may send people to the authorization endpoint; none removes the client.

    `agent` is an id or a name. `private` are the hosts that the operator opened. Return the client, None if it was
    removed. Raises NotFound, Invalid.
    """
    registered = registry.find_agent(act.tx, agent)
    registry.note(
        act, object=registered.agent_id, owner=registered.owner, name=registered.name, redirect_uris=list(redirect_uris)
    )
    before = store.get(act.tx, registered.agent_id)
    if not redirect_uris:
        if before is not None:
            store.delete(act.tx, registered.agent_id)
        return None
    if backchannel_logout_uri:
        check_named(backchannel_logout_uri, of="`backchannel_logout_uri`", private=private)
    metadata = parse_metadata(
        {
            "redirect_uris": list(redirect_uris),
            "client_name": registered.name,
            "grant_types": ["authorization_code", "refresh_token"],
            "post_logout_redirect_uris": list(post_logout_redirect_uris),
            "backchannel_logout_uri": backchannel_logout_uri,
        }
    )
    metadata = msgspec.structs.replace(metadata, token_endpoint_auth_method="private_key_jwt")  # by its registered keys
    client = OAuthClient(
        client_id=registered.agent_id,
        handle=registered.agent_id,
        kind=ClientKind.AGENT,
        state=ClientState.ACTIVE,
        metadata=metadata,
        digest=metadata.digest(),
        created_at=act.now if before is None else before.created_at,
        changed_at=act.now,
        used_at=act.now,
    )
    store.put(act.tx, client)
    return client


def find_agent_client(reader: Reader, agent: str) -> OAuthClient:
    """Return the client of an agent (id or name). Raises NotFound."""
    registered = registry.find_agent(reader, agent)
    if (client := store.get(reader, registered.agent_id)) is None:
        hint = f"ostiary agent redirect {registered.name} URI"
        raise NotFound(f"`{registered.name}` has no redirect URI", hint=hint)
    return client
