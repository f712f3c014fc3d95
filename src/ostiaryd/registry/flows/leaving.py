"""Departure of an owner: the holdings of the owner's agents end, the agents pass to a deputy, and agents without a
deputy are suspended.

A suspended person cannot act until resumed, but keeps teams, agents, roles and keys.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.callers import fill_entry
from ostiaryd.registry.flows.feed import queue_for_guards
from ostiaryd.registry.flows.find import find_owner, find_person
from ostiaryd.registry.flows.holdings import end_holdings
from ostiaryd.registry.flows.person_keys import end_person
from ostiaryd.registry.flows.roles import end_roles
from ostiaryd.registry.model import Agent, AgentDelta, Owner, Person, PersonState, Root, Verb, next_state

_WHY = "owner left"
_NO_HEIR = "nobody"
"""Value in the entry in place of the new owner, for an agent without a deputy, which was suspended."""


def revoke_owner(act: Act, id_or_name: str) -> Counter[str]:
    """Mark an owner (person or team) as left, with all consequences; return the number of ended objects by kind. Raises
    NotFound if there is none.

    1. A person is marked as left, leaves every team, and loses all keys and logins. A team that loses its last active
    member is revoked in the same way. 2. All holdings of all agents of the owner end, and the epoch of each agent
    rises, so that its earlier tokens are invalid. 3. Each agent passes to its own deputy, or to the deputy of its
    owner, if that person is active; otherwise it is suspended.
    """
    owner = find_owner(act.tx, id_or_name)
    fill_entry(act, object=owner.id, owner=owner.id, name=owner.name, why=_WHY)
    ended: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    everybody = list_leaving(act.tx, owner)
    if isinstance(owner, Person):
        store.owners.set_person_state(act.tx, owner.person_id, PersonState.LEFT)
        store.owners.leave_teams(act.tx, owner.person_id)
        store.owners.end_logins(act.tx, owner.person_id)
        end_person(act, owner.person_id, why="person left")
    for gone in everybody:
        end_roles(act, gone.id)
        owned = store.agents.list_agents_of_owner(act.tx, gone.id)
        stopped = frozenset(agent.agent_id for agent in owned)
        ended += end_holdings(act, Root.OWNER, gone.id, why=_WHY, stopped=stopped)
        passed += Counter(_pass_on(act, gone, agent) for agent in owned)
    fill_entry(act, object=owner.id, ended=dict(ended), passed_to=dict(passed))
    return ended


def return_person(act: Act, id_or_name: str) -> Person:
    """Make a person active again who has left, and return the person. Agents that passed to a deputy stay there.

    Raises NotFound for an unknown person, Conflict for a suspended person.
    """
    person = find_person(act.tx, id_or_name)
    fill_entry(act, object=person.person_id, name=person.name, was=person.state.value)
    if person.state is PersonState.SUSPENDED:
        raise Conflict(f"`{person.name}` is suspended", hint=person.return_hint)
    return _set_state(act, person, PersonState.ACTIVE)


def suspend_person(act: Act, id_or_name: str, *, why: str = "") -> Person:
    """Suspend and return an active person, and end the person's tokens and unused approvals. Raises NotFound for an
    unknown person, Conflict for a person who is not active.

    The caller must also end the person's sessions and consents in the same act: `ostiaryd.tokens.flows.suspend_person`.
    """
    person = find_person(act.tx, id_or_name)
    fill_entry(act, object=person.person_id, name=person.name, why=why)
    if not person.is_active:
        raise Conflict(f"`{person.name}` {person.absence}", hint=person.return_hint, code=person.absence_code)
    end_person(act, person.person_id, why="person suspended", keeps_keys=True)
    return _set_state(act, person, PersonState.SUSPENDED)


def resume_person(act: Act, id_or_name: str, *, why: str = "") -> Person:
    """Resume and return a suspended person, who can sign in again. Ended sessions and consents are not restored.

    Raises NotFound for an unknown person, Conflict for a person who is not suspended.
    """
    person = find_person(act.tx, id_or_name)
    fill_entry(act, object=person.person_id, name=person.name, why=why)
    if person.state is not PersonState.SUSPENDED:
        hint = "the person is active" if person.is_active else person.return_hint
        raise Conflict(f"`{person.name}` is not suspended", hint=hint, code="wrong_state")
    return _set_state(act, person, PersonState.ACTIVE)


def _set_state(act: Act, person: Person, state: PersonState) -> Person:
    store.owners.set_person_state(act.tx, person.person_id, state)
    return replace(person, state=state)


def list_leaving(reader: Reader, owner: Owner) -> list[Owner]:
    """Return the owners that leave together with this owner: the owner itself, and each team of which this owner is the
    last active member.
    """
    if not isinstance(owner, Person):
        return [owner]
    return [owner, *store.owners.teams_resting_on(reader, owner.person_id)]


def _pass_on(act: Act, gone: Owner, agent: Agent) -> str:
    """Transfer an agent of a leaving owner to its deputy, or suspend it if there is no active deputy. Return the id of
    the new owner, or `_NO_HEIR`.
    """
    deputies = (store.owners.get_person(act.tx, id) for id in (agent.deputy, gone.deputy) if id is not None)
    heir = next((person for person in deputies if person is not None and person.is_active), None)
    state = agent.state if heir is not None else next_state(agent.state, Verb.REVOKE)
    if heir is not None:
        deputy = agent.deputy if agent.deputy != heir.person_id else None
        store.agents.set_owner(act.tx, agent.agent_id, heir.person_id, deputy)
    store.agents.set_state(act.tx, agent.agent_id, state, epoch=agent.epoch + 1)
    queue_for_guards(act, AgentDelta(agent.agent_id, state, agent.epoch + 1))
    return _NO_HEIR if heir is None else heir.person_id
