"""Registered objects as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ostiaryd.ground.database import Reader
from ostiaryd.ledger import flows as ledger
from ostiaryd.registry.model import Agent, AgentKey, Person, PersonKey, Resource, Team, spiffe_id
from ostiaryd.registry.store import owners

SECOND = 1_000_000
MAX_KEYS_SHOWN = 100
"""beside the agent itself"""


def seconds(time: int | None) -> int | None:
    """Return a time in seconds since the epoch; None stays None."""
    return None if time is None else time // SECOND


def name_of(reader: Reader, owner: str | None) -> str | None:
    """The name behind the id of a person or a team."""
    found = None if owner is None else owners.owner(reader, owner)
    return None if found is None else found.name


def person(reader: Reader, person: Person) -> dict[str, Any]:
    """Return a person as JSON."""
    return {
        "person_id": person.person_id,
        "name": person.name,
        "email": person.email,
        "state": person.state,
        "deputy": name_of(reader, person.deputy),
        "created_at": seconds(person.created_at),
    }


def person_key(key: PersonKey) -> dict[str, Any]:
    """Return the key of a person as JSON."""
    return {
        "kid": key.jkt,
        "person_id": key.person,
        "alg": key.alg,
        "jwk": key.jwk,
        "added_at": seconds(key.added_at),
        "revoked_at": seconds(key.revoked_at),
    }


def team(reader: Reader, team: Team) -> dict[str, Any]:
    """Return a team as JSON."""
    return {
        "team_id": team.team_id,
        "name": team.name,
        "members": [name_of(reader, member) for member in owners.members(reader, team.team_id)],
        "deputy": name_of(reader, team.deputy),
        "created_at": seconds(team.created_at),
    }


def agent(reader: Reader, agent: Agent, *, trust_domain: str) -> dict[str, Any]:
    """Return an agent as JSON."""
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


def last_use(reader: Reader, agent: Agent) -> dict[str, int | None]:
    """Return when the agent acted last: got a token, started a task, or called a tool."""
    return {"last_used_at": seconds(ledger.get_last_use(reader, agent.agent_id))}


def recent_keys(found: Sequence[AgentKey]) -> dict[str, Any]:
    """The newest keys of one agent; `more_keys`: there are older ones, which `/keys` lists."""
    return {"keys": [key(one) for one in found[-MAX_KEYS_SHOWN:]], "more_keys": len(found) > MAX_KEYS_SHOWN}


def key(key: AgentKey) -> dict[str, Any]:
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


def resource(resource: Resource) -> dict[str, Any]:
    """Return a resource as JSON."""
    return {
        "resource_id": resource.resource_id,
        "name": resource.name,
        "uri": resource.uri,
        "mode": resource.mode,
        "segment": resource.segment,
        "kid": resource.jkt,
        "catalogue_hash": resource.catalogue_hash,
        "catalogue_version": resource.catalogue_version,
        "catalogue_proposed": resource.is_proposed,
        "created_at": seconds(resource.created_at),
    }
