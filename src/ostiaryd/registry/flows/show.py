"""Agents as JSON: a summary for lists, the details of one agent, and a change of its state."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import msgspec

from ostiaryd.ground.database import Reader
from ostiaryd.ledger import flows as ledger
from ostiaryd.registry import store
from ostiaryd.registry.flows.agents import undo_stop
from ostiaryd.registry.flows.find import classes_within, find_agent
from ostiaryd.registry.model import Agent, AgentKey, spiffe_id

SECOND = 1_000_000
MAX_KEYS_SHOWN = 100
"""Maximum number of keys that are shown with an agent or a person."""


def seconds(time: int | None) -> int | None:
    """Return a time (microseconds) in seconds since the epoch; None for None."""
    return None if time is None else time // SECOND


def name_of(reader: Reader, owner: str | None) -> str | None:
    """Return the name of the person or team with this id; None for None or an unknown id."""
    row = None if owner is None else store.owners.get_owner(reader, owner)
    return None if row is None else row.name


class StateChange(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request that changes the state of an agent: the reason for the change."""

    why: str = ""


class AgentBody(TypedDict):
    """The summary of an agent, which lists show."""

    agent_id: str
    client_id: str
    name: str
    state: str
    owner: str | None
    owner_id: str
    deputy: str | None
    purpose: str
    kind: str
    provider: str
    model: str
    risk_tier: str
    segment: str
    scopes: list[str]
    max_depth: int
    speaks: bool
    epoch: int
    spiffe_id: str
    created_at: int | None
    expires_at: int | None
    last_used_at: NotRequired[int | None]


class AgentKeyBody(TypedDict):
    """A public key of an agent."""

    kid: str
    agent_id: str
    alg: str
    jwk: dict[str, Any]
    added_at: int | None
    not_after: int | None
    revoked_at: int | None


class AgentDetail(AgentBody):
    """An agent with its newest keys. If `more_keys` is true, the path `/keys` of the agent lists the older keys."""

    undo: str
    data_classes: list[str]
    keys: list[AgentKeyBody]
    more_keys: bool


class MovedAgent(AgentDetail):
    """An agent after a change of its state. `seq`: number of the change in the feed to guards; `committed_at`: time of
    its commit in microseconds.
    """

    seq: int
    committed_at: int


def show_agent_briefly(reader: Reader, agent: Agent, *, trust_domain: str) -> AgentBody:
    """Return the summary of an agent, as lists show it."""
    return {
        "agent_id": agent.agent_id,
        "client_id": agent.agent_id,
        "name": agent.name,
        "state": agent.state,
        "owner": name_of(reader, agent.owner),
        "owner_id": agent.owner,
        "deputy": name_of(reader, agent.deputy),
        "purpose": agent.purpose,
        "kind": agent.kind,
        "provider": agent.provider,
        "model": agent.model,
        "risk_tier": agent.risk_tier,
        "segment": agent.segment,
        "scopes": sorted(agent.scopes),
        "max_depth": agent.max_depth,
        "speaks": agent.speaks,
        "epoch": agent.epoch,
        "spiffe_id": spiffe_id(trust_domain, agent.name),
        "created_at": seconds(agent.created_at),
        "expires_at": seconds(agent.expires_at),
    }


def last_use_of(reader: Reader, agent: Agent) -> int | None:
    """Return the time, in seconds, at which the agent last got a token, started a task, called a tool or used a
    secret; None if never.
    """
    return seconds(ledger.get_last_use(reader, agent.agent_id))


def show_agent_key(key: AgentKey) -> AgentKeyBody:
    """Return the key of an agent as JSON."""
    return {
        "kid": key.jkt,
        "agent_id": key.agent,
        "alg": key.alg,
        "jwk": key.jwk,
        "added_at": seconds(key.added_at),
        "not_after": seconds(key.not_after),
        "revoked_at": seconds(key.revoked_at),
    }


def show_agent_detail(reader: Reader, id_or_name: str, *, trust_domain: str) -> AgentDetail:
    """Return an agent with its newest keys as JSON. Raises NotFound for an unknown agent."""
    agent = find_agent(reader, id_or_name)
    all_keys = store.keys.of_agent(reader, agent.agent_id)
    return {
        **show_agent_briefly(reader, agent, trust_domain=trust_domain),
        "last_used_at": last_use_of(reader, agent),
        "undo": undo_stop(reader, agent),
        "data_classes": sorted(classes_within(reader, agent.scopes)),
        "keys": [show_agent_key(one) for one in all_keys[-MAX_KEYS_SHOWN:]],
        "more_keys": len(all_keys) > MAX_KEYS_SHOWN,
    }


def show_moved_agent(reader: Reader, id_or_name: str, *, trust_domain: str, seq: int, committed_at: int) -> MovedAgent:
    """Return an agent with the number of the change in the feed and the time of its commit, after a change of its
    state. Raises NotFound for an unknown agent.
    """
    detail = show_agent_detail(reader, id_or_name, trust_domain=trust_domain)
    return {**detail, "seq": seq, "committed_at": committed_at}
