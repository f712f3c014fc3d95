"""Finds an object by an unverified id or name. Each function returns the object, or raises NotFound or Forbidden."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ostiary.authorization.catalogue import classes_at
from ostiary.protocol.errors import Forbidden, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.pages import Page
from ostiaryd.registry import store
from ostiaryd.registry.model import (
    ADMIN,
    APPROVE,
    READ,
    Agent,
    AgentState,
    Holding,
    Owner,
    Person,
    Resource,
    Team,
    check_not_stopped,
    is_person_id,
    names_of_agent,
)

_SHOWN = 70


def has_agents(reader: Reader) -> bool:
    """Return whether any agent was ever registered at this server."""
    return bool(store.agents.list_agents(reader, Page(1, "")))


def is_privileged(reader: Reader, id: str) -> bool:
    """Return whether a client is privileged: an active person, the guard of a resource, or an agent with a scope to
    administer, to read or to approve.
    """
    if is_person_id(id):
        return (person := store.owners.get_person(reader, id)) is not None and person.is_active
    if id.startswith("rs_"):
        return store.resources.get_resource(reader, id) is not None
    agent = store.agents.get_agent(reader, id) if id.startswith("ag_") else None
    return agent is not None and not agent.scopes.isdisjoint((ADMIN, READ, APPROVE))


def find_agent(reader: Reader, id_or_name: str) -> Agent:
    """Return an agent by id or name. Raises NotFound if there is none."""
    if (agent := store.agents.get_agent(reader, id_or_name)) is None:
        raise NotFound(f"there is no agent {id_or_name[:_SHOWN]!a}", hint="`ostiary agent list` shows all")
    return agent


def active_agent(reader: Reader, id_or_name: str, *, now: int) -> Agent:
    """Return an agent if it may act at `now` (microseconds). Raises NotFound for an unknown agent, and Forbidden
    otherwise, with a code such as `agent_suspended` or `stopped`.
    """
    agent = find_agent(reader, id_or_name)
    if agent.is_active(now):
        check_not_stopped(store.stops.list_stops(reader), names_of_agent(agent))
        return agent
    state = agent.state if agent.state is not AgentState.ACTIVE else "expired"
    hint = (
        "register its first key"
        if agent.state is AgentState.PENDING
        else "ask the owner of the agent, or an administrator"
    )
    raise Forbidden(f"the agent `{agent.name}` is {state}", hint=hint, code=f"agent_{state}")


def check_holder(reader: Reader, holding: str, *, now: int) -> None:
    """Check that the agent that authenticated with a holding (an access token, a lease) may still act at `now`
    (microseconds). For an act or a response that follows a request to another system, during which the holding may have
    ended.

    Raises NotFound for an unknown agent, and Forbidden otherwise, with the code `holding_ended` if the holding has
    ended.
    """
    present = store.holdings.get_holding(reader, holding)
    if present is None or not present.is_live(now):
        raise Forbidden(
            "the token or the lease ended while another system answered", hint="log in again", code="holding_ended"
        )
    active_agent(reader, present.agent, now=now)
    if present.task is not None:
        check_not_stopped(store.stops.list_stops(reader), [("task", present.task)])


def find_token(reader: Reader, id: str, resource: Resource, *, now: int) -> tuple[Holding, str]:
    """Return the holding and the task (id) of a live token for this resource. Raises Forbidden (`foreign_token`) for
    any other id, and for a token without a task.
    """
    token = store.holdings.get_holding(reader, id)
    if token is None or token.audience != resource.uri or token.task is None or not token.is_live(now):
        raise Forbidden("the token is unknown or ended, is for another resource, or has no task", code="foreign_token")
    return token, token.task


def find_person(reader: Reader, id_or_name: str) -> Person:
    """Return a person by id or name. Raises NotFound if there is none."""
    if (person := store.owners.get_person(reader, id_or_name)) is None:
        raise NotFound(
            f"there is no person {id_or_name[:_SHOWN]!a}",
            hint="`ostiary person list` shows all, and `ostiary person create NAME --email ADDRESS` adds a person",
        )
    return person


def find_team(reader: Reader, id_or_name: str) -> Team:
    """Return a team by id or name. Raises NotFound if there is none."""
    if (team := store.owners.team(reader, id_or_name)) is None:
        raise NotFound(f"there is no team {id_or_name[:_SHOWN]!a}", hint="`ostiary team list` shows all")
    return team


def find_owner(reader: Reader, id_or_name: str) -> Owner:
    """Return a person or a team. Raises NotFound if there is none."""
    if (owner := store.owners.get_owner(reader, id_or_name)) is None:
        raise NotFound(
            f"there is no person or team {id_or_name[:_SHOWN]!a}",
            hint="`ostiary person list` shows all, and `ostiary person create NAME --email ADDRESS` adds a person",
        )
    return owner


def find_resource(reader: Reader, id_or_name: str) -> Resource:
    """Return a resource by id or name. Raises NotFound if there is none."""
    if (resource := store.resources.get_resource(reader, id_or_name)) is None:
        raise NotFound(f"there is no resource {id_or_name[:_SHOWN]!a}", hint="`ostiary resource list` shows all")
    return resource


def classes_within(reader: Reader, scopes: frozenset[str]) -> frozenset[str]:
    """Return the data classes of all tools that need one of these scopes, as the catalogues of the resources state
    them.
    """
    classes: set[str] = set()
    for name in {scope.partition(":")[0] for scope in scopes}:
        resource = store.resources.get_resource(reader, name)
        text = None if resource is None else store.resources.get_catalogue(reader, resource.resource_id)
        if text is not None:
            classes |= classes_at(text, scopes)
    return frozenset(classes)


def reading_holder(reader: Reader, *, holding: str, agent: str) -> AbstractContextManager[None]:
    """Run a block that reads a holding (such as a token), the agent that holds it, and the stops of the kill switch. On
    PostgreSQL, the reads take one round trip.
    """
    return reader.ahead(store.holdings.read_of(holding), store.agents.read_of(agent), store.stops.read_of_stops())
