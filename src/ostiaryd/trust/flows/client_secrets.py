"""Client secrets: the weakest credential of an agent, for clients that support no other (RFC 6749 section 2.3.1).

The server generates the secrets, shows each once and stores its SHA-256; a slow hash is not needed for 256 random bits.
For itself, an agent with a secret gets only bearer tokens, for resources where the agent is exempt. With the consent of
a person, the secret authenticates the agent for codes and refresh tokens.
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
from ostiaryd.registry.model import Root
from ostiaryd.trust import store
from ostiaryd.trust.flows.clients import Client, agent_client, check_active
from ostiaryd.trust.model import SECOND, SECRET_PREFIX, Credentials, InvalidClient, Secret, name_claimed

DEFAULT_LIFETIME_S = 90 * 86_400
LONGEST_LIFETIME_S = 365 * 86_400
MOST = 2
"""Maximum number of unexpired secrets of an agent, so that a new secret can be put in use before the old one is
revoked.
"""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A new client secret, which is shown once; `expires_at` in microseconds."""

    id: str
    agent: str
    secret: str = field(repr=False)
    expires_at: int


def create_secret(act: Act, agent: str, *, lifetime_s: int = DEFAULT_LIFETIME_S) -> NewSecret:
    """Create a client secret for an agent (id or name).

    Raises NotFound; Invalid if the lifetime is not 60 seconds to 365 days; Conflict if the agent has two secrets that
    have not expired.
    """
    client = registry.find_agent(act.tx, agent)
    registry.note(act, object=client.agent_id, owner=client.owner, name=client.name, seconds=lifetime_s)
    if not 60 <= lifetime_s <= LONGEST_LIFETIME_S:
        raise Invalid(
            f"a client secret must be valid for 60 to {LONGEST_LIFETIME_S} seconds",
            hint="create a new secret before the old one expires",
        )
    for one in store.secrets(act.tx, client.agent_id):
        if one.expires_at <= act.now:
            store.delete_secret(act.tx, one.id)
    if len(store.secrets(act.tx, client.agent_id)) >= MOST:
        hint = f"revoke a secret: ostiary agent revoke-secret {client.name} ID"
        raise Conflict(f"the agent has {MOST} client secrets", hint=hint, code="too_many_secrets")
    made = NewSecret(
        act.new_id("cs"), client.agent_id, SECRET_PREFIX + jose.b64u(act.tx.random(32)), act.now + lifetime_s * SECOND
    )
    store.add_secret(act.tx, Secret(made.id, made.agent, _digest(made.secret), act.now, made.expires_at))
    registry.note(act, object=client.agent_id, secret=made.id)
    return made


def revoke_secret(act: Act, agent: str, id: str) -> None:
    """Revoke a client secret, the bearer tokens of its agent, and the bound tokens that the agent got by a secret.
    Raises NotFound.
    """
    client = registry.find_agent(act.tx, agent)
    registry.note(act, object=client.agent_id, owner=client.owner, name=client.name, secret=id[:64])
    if id not in {one.id for one in store.secrets(act.tx, client.agent_id)}:
        raise NotFound("client secret not found", hint=f"list the secrets: ostiary agent show {client.name}")
    store.delete_secret(act.tx, id)
    for token in store.tokens_of_secrets(act.tx, client.agent_id):
        registry.end_holdings(act, Root.HOLDING, token, why="secret revoked")


def secrets_of(reader: Reader, agent: str) -> list[Secret]:
    """Return the client secrets of an agent (id or name), the oldest first. Raises NotFound."""
    return store.secrets(reader, registry.find_agent(reader, agent).agent_id)


def secret_holders(reader: Reader) -> list[str]:
    """Return the names of all agents that have a client secret."""
    return sorted(registry.find_agent(reader, id).name for id in store.secret_holders(reader))


def check_secret(act: Act, credentials: Credentials) -> Client:
    """Return the client after verifying the client id and the secret of a form. Raises InvalidClient."""
    client_id, presented = credentials.client_id or "", _digest(credentials.unverified_secret or "")
    act.entry.object = name_claimed(client_id)
    agent = registry.get_agent(act.tx, client_id) if client_id.startswith("ag_") else None
    digests = [] if agent is None else store.secrets(act.tx, agent.agent_id)
    secrets = [one for one in digests if hmac.compare_digest(one.digest, presented) and one.expires_at > act.now]
    if agent is None or not secrets:
        hint = "check that the secret is complete and has not expired"
        raise InvalidClient("unknown client or wrong secret", hint=hint)
    act.entry.object = None
    act.entry.agent, act.entry.owner = agent.agent_id, agent.owner
    check_active(act, agent)
    return agent_client(agent, jkt=None, credential_ends=secrets[0].expires_at)


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
