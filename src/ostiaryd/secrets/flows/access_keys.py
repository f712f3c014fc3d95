"""Access keys: credentials of agents for the API of AWS Secrets Manager. A key is limited to networks, and expires.

An access key is a holding of its agent. The server needs the secret key to verify signatures, so the secret key is
stored encrypted instead of hashed. The secret key is sent only once, at its creation.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

from ostiary.authorization.assurance import SECRET
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiary.protocol.proxies import is_within_networks, parse_networks
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Holding, HoldingId, Root
from ostiaryd.secrets import store
from ostiaryd.secrets.flows.callers import TokenRefused, VaultCaller, find_live
from ostiaryd.secrets.flows.seal import open_value, seal_value
from ostiaryd.secrets.model.request import SECOND
from ostiaryd.secrets.model.sigv4 import WINDOW, RequestRepeated, SignatureRefused, SignedRequest
from ostiaryd.secrets.store.access_keys import AccessKey
from ostiaryd.tasks.model import standing_id
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model import DIGEST_BYTES, Spend

KIND = "access_key"
MOST = 2
"""Maximum number of access keys of one agent: two, so that a new key can be in use before the old key is revoked."""
LONGEST_S = 90 * 86_400
MAX_NETWORKS = 16


class NewAccessKey(NamedTuple):
    """A new access key with its secret key, which the server shows only once."""

    key: AccessKey
    secret: str

    def __repr__(self) -> str:
        """Return a text with only the id of the key, because the secret key is secret."""
        return f"NewAccessKey({self.key.id})"


def create_access_key(act: Act, agent: str, *, network: str, lifetime_s: int, config: Config) -> NewAccessKey:
    """Create an access key for the AWS API of this server, for an agent that may use bearer credentials here (a bearer
    exemption); return it with its secret key.

    `network`: networks with spaces between, from which the key is accepted. `lifetime_s`: seconds. Raises NotFound for
    an unknown agent, Invalid if `network` or `lifetime_s` is malformed or out of range; Sealed if the secrets are
    sealed; TokenRefused if the agent has no bearer exemption; Conflict if it has `MOST` access keys.
    """
    act.check_granting()
    holder = registry.find_agent(act.tx, agent)
    registry.fill_entry(act, object=holder.agent_id, owner=holder.owner, name=holder.name, network=network[:200])
    try:
        networks = parse_networks(network)
    except ValueError as error:
        raise Invalid(f"`network`: {error}", hint="write a network as 192.0.2.0/24") from None
    if not 0 < len(networks) <= MAX_NETWORKS:
        raise Invalid(f"`network` must have 1 to {MAX_NETWORKS} networks, such as 192.0.2.0/24")
    if not 60 <= lifetime_s <= LONGEST_S:
        raise Invalid(f"the lifetime of an access key must be 60 to {LONGEST_S} seconds")
    _check_exempt(act, holder.agent_id, holder.name, config)
    if sum(_is_live(act, one) for one in store.access_keys.of_agent(act.tx, holder.agent_id)) >= MOST:
        raise Conflict(
            f"the agent has {MOST} access keys, which is the limit",
            hint=f"revoke a key; see `ostiary aws-key list {holder.name}`",
        )
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
    store.access_keys.insert(act.tx, key)
    registry.fill_entry(act, object=holder.agent_id, access_key=id)
    return NewAccessKey(key, secret)


def list_access_keys(reader: Reader, agent: str) -> list[AccessKey]:
    """Return the access keys of the agent with the id or name `agent`. Raises NotFound for an unknown agent."""
    return store.access_keys.of_agent(reader, registry.find_agent(reader, agent).agent_id)


def revoke_access_key(act: Act, agent: str, id: str) -> None:
    """Revoke the access key `id` of the agent with the id or name `agent`. Raises NotFound if the agent or the key is
    unknown, or the key belongs to another agent.
    """
    act.entry.object = id[:64]
    key = store.access_keys.get(act.tx, id)
    if key is None or key.agent != registry.find_agent(act.tx, agent).agent_id:
        raise NotFound("access key not found", hint="list the keys with `ostiary aws-key list AGENT`")
    registry.fill_entry(act, object=key.agent, access_key=id)
    registry.end_holdings(act, Root.HOLDING, id, why="revoked")
    store.access_keys.delete(act.tx, id)


def authenticate_signed(
    act: Act, request: SignedRequest, *, address: str, is_change: bool, config: Config
) -> VaultCaller:
    """Authenticate a request to the AWS API by the signature of an access key; return the caller, and write it into the
    act's ledger entry.

    `is_change`: the request changes something, so it is accepted only once. A read may be repeated while its time is
    valid, because two equal reads in one second have the same signature. Raises SignatureRefused for a wrong signature,
    RequestRepeated for a repeated change, TokenRefused for an access key that is unknown, has ended, was revoked or is
    not valid from `address`, or whose agent lost its bearer exemption; NotFound or Forbidden if the agent may not act,
    and Sealed while the secrets are sealed.
    """
    key = store.access_keys.get(act.tx, request.key_id)
    if key is None or not _is_live(act, key):
        raise TokenRefused(
            "the access key is unknown, has ended or was revoked",
            hint="create a new access key: ostiary aws-key create AGENT --network NETWORK",
        )
    secret = open_value(act.tx, key.secret, ("aws", key.id, 1), keys=act.tx.keys).decode()
    if not request.has_signature_of(secret):
        raise SignatureRefused(
            "the signature was not made with this access key's secret key",
            hint="check the secret access key of the client",
        )
    act.entry.agent, act.entry.token = key.agent, key.id
    if not is_within_networks(address, key.network):
        raise TokenRefused(
            "the access key is not valid from this network",
            hint="create an access key for this network: ostiary aws-key create AGENT --network NETWORK",
        )
    if is_change:
        digest = bytes.fromhex(request.unverified_signature)[:DIGEST_BYTES]
        is_retry = act.again is not None
        spend = Spend(digest, request.signed_at + WINDOW + SECOND, request.signed_at)
        if not is_retry and not trust.is_first_use(act.tx, spend):
            raise RequestRepeated("the request was sent before", hint="sign the request again, a second later")
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
            hint=f"run: ostiary agent allow-bearer {name} --resource ostiary",
            code="not_exempt",
        )


async def forget_access_keys(world: World) -> None:
    """Delete expired access keys of all agents, at most 1,000 in one call."""
    await world.writer.submit(store.access_keys.prune)
