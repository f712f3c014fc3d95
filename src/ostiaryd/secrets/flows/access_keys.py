"""Access keys: credentials of agents for the API of AWS Secrets Manager. A key is limited to networks, and expires.

An access key is a holding of its agent. Its secret key verifies signatures and is never sent, so it is stored
encrypted, not hashed.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

from ostiary.authorization.assurance import SECRET
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiary.protocol.proxies import is_within, parse_networks
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Holding, HoldingId, Root
from ostiaryd.secrets.flows.callers import TokenRefused, VaultCaller, find_live
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.sigv4 import WINDOW, SignatureRefused, SignedRequest
from ostiaryd.secrets.store import access_keys as store
from ostiaryd.secrets.store.access_keys import AccessKey
from ostiaryd.tasks.model import standing_id
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import DIGEST_BYTES, Spend

KIND = "access_key"
MOST = 2
"""Maximum number of access keys of an agent, so that a new key can be in use before the old one is revoked."""
LONGEST_S = 90 * 86_400
MAX_NETWORKS = 16


class NewAccessKey(NamedTuple):
    """An access key with its secret key, which is shown only once."""

    key: AccessKey
    secret: str

    def __repr__(self) -> str:
        """Return only the id: the secret key is secret."""
        return f"NewAccessKey({self.key.id})"


def create_access_key(act: Act, agent: str, *, network: str, lifetime_s: int, config: Config) -> NewAccessKey:
    """Create an access key for an agent that may use bearer credentials at this server.

    Raises NotFound, Invalid, Conflict.
    """
    act.check_granting()
    holder = registry.find_agent(act.tx, agent)
    registry.note(act, object=holder.agent_id, owner=holder.owner, name=holder.name, network=network[:200])
    try:
        networks = parse_networks(network)
    except ValueError as error:
        raise Invalid(f"`network`: {error}", hint="such as 192.0.2.0/24") from None
    if not 0 < len(networks) <= MAX_NETWORKS:
        raise Invalid(f"`network` has 1 to {MAX_NETWORKS} networks, such as 192.0.2.0/24")
    if not 60 <= lifetime_s <= LONGEST_S:
        raise Invalid(f"an access key is valid for 60 to {LONGEST_S} seconds")
    _check_exempt(act, holder.agent_id, holder.name, config)
    if sum(_is_live(act, one) for one in store.of_agent(act.tx, holder.agent_id)) >= MOST:
        raise Conflict(f"the agent has {MOST} access keys", hint=f"ostiary aws-key list {holder.name}")
    id = "OSTK" + base64.b32encode(act.tx.random(10)).decode()
    secret = base64.b64encode(act.tx.random(30)).decode()
    envelope = seal_value(act.tx, secret.encode(), ("aws", id, 1))
    key = AccessKey(id, holder.agent_id, network, envelope, act.now, act.now + lifetime_s * SECOND)
    registry.add_holding(
        act,
        Holding(
            id=HoldingId(id),
            kind=KIND,
            agent=holder.agent_id,
            task=standing_id(holder.agent_id),
            audience=config.api,
            expires_at=key.expires_at,
        ),
    )
    store.insert(act.tx, key)
    registry.note(act, object=holder.agent_id, access_key=id)
    return NewAccessKey(key, secret)


def list_access_keys(reader: Reader, agent: str) -> list[AccessKey]:
    """Return the access keys of an agent, given by id or name. Raises NotFound."""
    return store.of_agent(reader, registry.find_agent(reader, agent).agent_id)


def revoke_access_key(act: Act, agent: str, id: str) -> None:
    """Revoke an access key of an agent, given by id or name. Raises NotFound, also for a key of another agent."""
    act.entry.object = id[:64]
    key = store.get(act.tx, id)
    if key is None or key.agent != registry.find_agent(act.tx, agent).agent_id:
        raise NotFound("the access key does not exist", hint="ostiary aws-key list AGENT")
    registry.note(act, object=key.agent, access_key=id)
    registry.end_holdings(act, Root.HOLDING, id, why="revoked")
    store.delete(act.tx, id)


def authenticate_signed(
    act: Act, request: SignedRequest, *, address: str, is_change: bool, config: Config
) -> VaultCaller:
    """Return the agent that signed a request, and record the agent in the ledger entry.

    A request that changes something is accepted once. A read may be repeated while its time is valid, because two equal
    reads in one second have the same signature.

    Raises SignatureRefused, TokenRefused, Forbidden, NotFound.
    """
    key = store.get(act.tx, request.key_id)
    if key is None or not _is_live(act, key):
        raise TokenRefused(
            "the access key is unknown, has ended or was revoked", hint="ostiary aws-key create AGENT --network NETWORK"
        )
    secret = open_value(act.tx, key.secret, ("aws", key.id, 1), keys=act.tx.keys).decode()
    if not request.has_signature_of(secret):
        raise SignatureRefused("the signature is not that of the access key", hint="check the secret key")
    act.entry.agent, act.entry.token = key.agent, key.id
    if not is_within(address, parse_networks(key.network)):
        raise TokenRefused("the access key is bound to other networks", hint="create one for this network")
    if is_change:
        digest = bytes.fromhex(request.unverified_signature)[:DIGEST_BYTES]
        is_retry = act.again is not None
        if not is_retry and not trust.is_first_use(act.tx, Spend(digest, request.signed_at + WINDOW + SECOND)):
            raise SignatureRefused("the request was sent before", hint="sign it again")
    agent, task = find_live(act, key.agent, None)
    _check_exempt(act, agent.agent_id, agent.name, config)
    act.entry.owner, act.entry.task = agent.owner, task.task_id
    return VaultCaller(agent, task, agent.scopes & task.scopes, SECRET, (), key.id)


def _is_live(act: Act, key: AccessKey) -> bool:
    holding = registry.get_holding(act.tx, key.id)
    return act.now < key.expires_at and holding is not None and holding.is_live(act.now)


def _check_exempt(act: Act, agent: str, name: str, config: Config) -> None:
    resource = registry.get_resource_by_uri(act.tx, config.api)
    if resource is None or not trust.may_have_bearer(
        act.tx, registry.find_agent(act.tx, agent).agent_id, resource.resource_id, registration=""
    ):
        raise TokenRefused(
            "the agent may not have bearer credentials for this server",
            hint=f"ostiary agent allow-bearer {name} --resource ostiary",
            code="not_exempt",
        )


async def forget_access_keys(world: World) -> None:
    """Delete access keys that have expired."""
    await world.writer.submit(store.prune)
