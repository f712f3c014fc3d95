"""Persons, teams and resources as JSON."""

from __future__ import annotations

from typing import Any, TypedDict

from ostiaryd.ground.database import Reader
from ostiaryd.registry import store
from ostiaryd.registry.flows.show import SECOND, name_of, seconds
from ostiaryd.registry.model import Holding, Person, PersonKey, Resource, Team


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
    """A page of the live holdings of an agent. `ends`: the number of holdings that a stop of the agent would end, by
    kind; these include the holdings of all agents to which the agent delegated.
    """

    holdings: list[HoldingBody]
    next: str | None
    ends: dict[str, int]


def holding(holding: Holding) -> HoldingBody:
    """Return a holding in the JSON form of the API."""
    return {
        "id": holding.id,
        "kind": holding.kind,
        "task": holding.task,
        "audience": holding.audience,
        "expires_at": holding.expires_at / SECOND,
    }


def person(reader: Reader, person: Person) -> PersonBody:
    """Return a person in the JSON form of the API."""
    return {
        "person_id": person.person_id,
        "name": person.name,
        "email": person.email,
        "state": person.state,
        "deputy": name_of(reader, person.deputy),
        "created_at": seconds(person.created_at),
    }


def person_key(key: PersonKey) -> PersonKeyBody:
    """Return the key of a person in the JSON form of the API."""
    return {
        "kid": key.jkt,
        "person_id": key.person,
        "alg": key.alg,
        "jwk": key.jwk,
        "added_at": seconds(key.added_at),
        "revoked_at": seconds(key.revoked_at),
    }


def team(reader: Reader, team: Team) -> TeamBody:
    """Return a team in the JSON form of the API."""
    return {
        "team_id": team.team_id,
        "name": team.name,
        "members": [name_of(reader, member) for member in store.owners.list_members(reader, team.team_id)],
        "deputy": name_of(reader, team.deputy),
        "created_at": seconds(team.created_at),
    }


def resource(resource: Resource) -> ResourceBody:
    """Return a resource in the JSON form of the API."""
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
