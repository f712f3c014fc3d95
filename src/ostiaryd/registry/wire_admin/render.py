"""Persons, teams, agents and resources as JSON."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from ostiaryd.ground.database import Reader
from ostiaryd.ledger import flows as ledger
from ostiaryd.registry.model import Agent, AgentKey, Holding, Person, PersonKey, Resource, Team, spiffe_id
from ostiaryd.registry.store import owners

SECOND = 1_000_000
MAX_KEYS_SHOWN = 100
"""Maximum number of keys that are shown with an agent or a person."""


def seconds(time: int | None) -> int | None:
    """Return a time (microseconds) in seconds since the epoch; None for None."""
    return None if time is None else time // SECOND


def name_of(reader: Reader, owner: str | None) -> str | None:
    """Return the name of the person or team with this id; None for None or an unknown id."""
    row = None if owner is None else owners.owner(reader, owner)
    return None if row is None else row.name


class PersonBody(TypedDict):
    """A person, who can own agents."""

    person_id: str
    name: str
    email: str | None
    state: str
    deputy: str | None
    created_at: int | None


class PersonKeyBody(TypedDict):
    """A public key of a person."""

    kid: str
    person_id: str
    alg: str
    jwk: dict[str, Any]
    added_at: int | None
    revoked_at: int | None


class TeamBody(TypedDict):
    """A team, which can own agents."""

    team_id: str
    name: str
    members: list[str | None]
    deputy: str | None
    created_at: int | None


class AgentBody(TypedDict):
    """An agent as in lists."""

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
    """An agent after a change of its state. The change has the number `seq` in the feed, and was committed at
    `committed_at` (microseconds).
    """

    seq: int
    committed_at: int


class ResourceBody(TypedDict):
    """A protected resource, without its catalogue."""

    resource_id: str
    name: str
    uri: str
    mode: str
    segment: str
    kid: str | None
    catalogue_hash: str | None
    catalogue_version: int
    catalogue_proposed: bool
    created_at: int | None


class RevokedBody(TypedDict):
    """Numbers of objects that ended with the revoked object, by kind."""

    revoked: dict[str, int]


class HoldingBody(TypedDict):
    """A live holding of an agent, such as a token or a lease. Times are in seconds since the epoch."""

    id: str
    kind: str
    task: str | None
    audience: str | None
    expires_at: float


class HoldingsBody(TypedDict):
    """A page of the live holdings of an agent. It also states how many holdings of each kind a stop of the agent would
    end; these include the holdings of all agents to which it delegated.
    """

    holdings: list[HoldingBody]
    next: str | None
    ends: dict[str, int]


def holding(holding: Holding) -> HoldingBody:
    """Return a holding as JSON."""
    return {
        "id": holding.id,
        "kind": holding.kind,
        "task": holding.task,
        "audience": holding.audience,
        "expires_at": holding.expires_at / SECOND,
    }


def person(reader: Reader, person: Person) -> PersonBody:
    """Return a person as JSON."""
    return {
        "person_id": person.person_id,
        "name": person.name,
        "email": person.email,
        "state": person.state,
        "deputy": name_of(reader, person.deputy),
        "created_at": seconds(person.created_at),
    }


def person_key(key: PersonKey) -> PersonKeyBody:
    """Return the key of a person as JSON."""
    return {
        "kid": key.jkt,
        "person_id": key.person,
        "alg": key.alg,
        "jwk": key.jwk,
        "added_at": seconds(key.added_at),
        "revoked_at": seconds(key.revoked_at),
    }


def team(reader: Reader, team: Team) -> TeamBody:
    """Return a team as JSON."""
    return {
        "team_id": team.team_id,
        "name": team.name,
        "members": [name_of(reader, member) for member in owners.members(reader, team.team_id)],
        "deputy": name_of(reader, team.deputy),
        "created_at": seconds(team.created_at),
    }


def agent(reader: Reader, agent: Agent, *, trust_domain: str) -> AgentBody:
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


def last_use(reader: Reader, agent: Agent) -> int | None:
    """Return the time at which the agent last got a token, started a task or called a tool, in seconds;
    None if never.
    """
    return seconds(ledger.get_last_use(reader, agent.agent_id))


def key(key: AgentKey) -> AgentKeyBody:
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


def resource(resource: Resource) -> ResourceBody:
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
