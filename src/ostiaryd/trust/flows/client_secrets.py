"""Client secrets: the weakest credential of an agent or a resource, for programs that support no other (RFC 6749
section 2.3.1).

The server generates the secrets, shows each once and stores its SHA-256; a slow hash is not needed for 256 random bits.
For itself, an agent with a secret gets only bearer tokens, for resources where the agent is exempt. With the consent of
a person, the secret authenticates the agent for codes and refresh tokens. With its secret, a resource introspects the
tokens for its URI, and does nothing else.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256

from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource, Root, is_agent_id, is_resource_id
from ostiaryd.trust import store
from ostiaryd.trust.flows.clients import Client, agent_client, check_active
from ostiaryd.trust.model import SECOND, SECRET_PREFIX, Credentials, InvalidClient, Secret, name_claimed

DEFAULT_LIFETIME_S = 90 * 86_400
LONGEST_LIFETIME_S = 365 * 86_400
MOST = 2
"""Maximum number of unexpired secrets of an agent or a resource, so that a new secret can be put in use before the old
one is revoked.
"""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A new client secret, which is shown once. `holder` is the id of an agent or a resource, which is the client id;
    `expires_at` in microseconds.
    """

    id: str
    holder: str
    secret: str = field(repr=False)
    expires_at: int


def create_secret(act: Act, agent: str, *, lifetime_s: int = DEFAULT_LIFETIME_S) -> NewSecret:
    """Create a client secret for an agent (id or name). Raises NotFound for an unknown agent, Invalid if the lifetime
    is not 60 seconds to 365 days, Conflict if the agent has two unexpired secrets.
    """
    client = registry.find_agent(act.tx, agent)
    registry.fill_entry(act, object=client.agent_id, owner=client.owner, name=client.name, seconds=lifetime_s)
    return _create(act, client.agent_id, lifetime_s, revoke=f"ostiary agent revoke-secret {client.name} ID")


def create_resource_secret(act: Act, resource: str, *, lifetime_s: int = DEFAULT_LIFETIME_S) -> NewSecret:
    """Create a client secret with which a resource (id or name) introspects tokens. Raises NotFound for an unknown
    resource, Invalid if the lifetime is not 60 seconds to 365 days, Conflict if the resource has two unexpired secrets.
    """
    one = registry.find_resource(act.tx, resource)
    registry.fill_entry(act, object=one.resource_id, name=one.name, seconds=lifetime_s)
    return _create(act, one.resource_id, lifetime_s, revoke=f"ostiary resource revoke-secret {one.name} ID")


def _create(act: Act, holder: str, lifetime_s: int, *, revoke: str) -> NewSecret:
    """Create a client secret of the agent or resource with the id `holder`. `revoke` is the command that revokes a
    secret of the holder.

    Raises Invalid if the lifetime is not 60 seconds to 365 days, Conflict if the holder has two secrets that have not
    expired.
    """
    if not 60 <= lifetime_s <= LONGEST_LIFETIME_S:
        raise Invalid(
            f"a client secret must be valid for 60 to {LONGEST_LIFETIME_S} seconds",
            hint="create a new secret before the old one expires",
        )
    for one in store.client_secrets.secrets(act.tx, holder):
        if one.expires_at <= act.now:
            store.client_secrets.delete_secret(act.tx, one.id)
    if len(store.client_secrets.secrets(act.tx, holder)) >= MOST:
        raise Conflict(
            f"the client has {MOST} unexpired client secrets, the maximum",
            hint=f"revoke a secret: {revoke}",
            code="too_many_secrets",
        )
    made = NewSecret(
        act.new_id("cs"), holder, SECRET_PREFIX + jose.b64u(act.tx.random(32)), act.now + lifetime_s * SECOND
    )
    store.client_secrets.add_secret(act.tx, Secret(made.id, holder, _digest(made.secret), act.now, made.expires_at))
    registry.fill_entry(act, object=holder, secret=made.id)
    return made


def revoke_secret(act: Act, agent: str, id: str) -> None:
    """Revoke a client secret, all bearer tokens of its agent, and the bound tokens that the agent got with a secret.
    Raises NotFound for an unknown agent or secret.
    """
    client = registry.find_agent(act.tx, agent)
    registry.fill_entry(act, object=client.agent_id, owner=client.owner, name=client.name, secret=id[:64])
    _delete(act, client.agent_id, id, listing=f"ostiary agent show {client.name}")
    for token in store.exemptions.tokens_of_secrets(act.tx, client.agent_id):
        registry.end_holdings(act, Root.HOLDING, token, why="secret revoked")


def revoke_resource_secret(act: Act, resource: str, id: str) -> None:
    """Revoke a client secret of a resource (id or name). Raises NotFound for an unknown resource or secret."""
    one = registry.find_resource(act.tx, resource)
    registry.fill_entry(act, object=one.resource_id, name=one.name, secret=id[:64])
    _delete(act, one.resource_id, id, listing=f"ostiary resource show {one.name}")


def _delete(act: Act, holder: str, id: str, *, listing: str) -> None:
    """Delete a client secret of `holder`. `listing` is the command that lists the secrets. Raises NotFound if the
    holder has no such secret.
    """
    if id not in {one.id for one in store.client_secrets.secrets(act.tx, holder)}:
        raise NotFound("client secret not found", hint=f"list the secrets: {listing}")
    store.client_secrets.delete_secret(act.tx, id)


def secrets_of(reader: Reader, agent: str) -> list[Secret]:
    """Return the client secrets of an agent (id or name), the oldest first. Raises NotFound for an unknown agent."""
    return store.client_secrets.secrets(reader, registry.find_agent(reader, agent).agent_id)


def secrets_of_resource(reader: Reader, resource: str) -> list[Secret]:
    """Return the client secrets of a resource (id or name), the oldest first. Raises NotFound for an unknown
    resource.
    """
    return store.client_secrets.secrets(reader, registry.find_resource(reader, resource).resource_id)


def secret_holders(reader: Reader) -> list[str]:
    """Return the names of all agents that have a client secret."""
    return sorted(
        registry.find_agent(reader, id).name for id in store.client_secrets.secret_holders(reader) if is_agent_id(id)
    )


def check_secret(act: Act, credentials: Credentials) -> Client:
    """Return the agent whose client id and secret a request contains. Raises InvalidClient for a wrong id or secret,
    and for an agent that is not active.
    """
    client_id = credentials.client_id or ""
    act.entry.object = name_claimed(client_id)
    agent = registry.get_agent(act.tx, client_id) if is_agent_id(client_id) else None
    secret = _find_match(act, None if agent is None else agent.agent_id, credentials)
    assert agent is not None, "an agent has the secret"
    act.entry.object = None
    act.entry.agent, act.entry.owner = agent.agent_id, agent.owner
    check_active(act, agent)
    return agent_client(agent, jkt=None, credential_ends=secret.expires_at)


def check_resource_secret(act: Act, credentials: Credentials) -> Resource:
    """Return the resource whose client id and secret a request contains. Raises InvalidClient for a wrong id or
    secret.
    """
    client_id = credentials.client_id or ""
    act.entry.object = name_claimed(client_id)
    resource = registry.get_resource(act.tx, client_id) if is_resource_id(client_id) else None
    _find_match(act, None if resource is None else resource.resource_id, credentials)
    assert resource is not None, "a resource has the secret"
    act.entry.object, act.entry.reporter = None, resource.resource_id
    return resource


def _find_match(act: Act, holder: str | None, credentials: Credentials) -> Secret:
    """Return the unexpired secret of `holder` that equals the secret of a form. Raises InvalidClient if there is
    none.
    """
    presented = _digest(credentials.unverified_secret or "")
    for one in [] if holder is None else store.client_secrets.secrets(act.tx, holder):
        if hmac.compare_digest(one.digest, presented) and one.expires_at > act.now:
            return one
    hint = "check that the secret is complete and has not expired"
    raise InvalidClient("unknown client or wrong secret", hint=hint)


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
