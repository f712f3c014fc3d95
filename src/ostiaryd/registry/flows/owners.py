"""Persons and teams: registration, deputies, and membership."""

from __future__ import annotations

from dataclasses import replace

from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import store
from ostiaryd.registry.flows.callers import fill_entry
from ostiaryd.registry.flows.find import find_owner, find_person, find_team
from ostiaryd.registry.model import Owner, Person, PersonId, PersonState, Team, TeamId, check_email, check_name

MAX_MEMBERS = 1000


def create_person(act: Act, *, name: str, email: str | None = None, deputy: str | None = None) -> Person:
    """Register and return a person. `deputy` is the name or id of the person who takes over the agents when this person
    leaves.
    """
    person = Person(
        person_id=PersonId(act.new_id("pe")),
        name=_free_name(act, name),
        email=None if email is None else check_email(email),
        deputy=_deputy(act, deputy),
        state=PersonState.ACTIVE,
        created_at=act.now,
    )
    fill_entry(act, object=person.person_id, name=person.name, deputy=person.deputy)
    store.owners.insert_person(act.tx, person)
    return person


def create_team(act: Act, *, name: str, members: list[str], deputy: str | None = None) -> Team:
    """Register and return a team of persons. `deputy` is the name or id of the person who takes over the agents when
    the team has no active member left.
    """
    if len(members) > MAX_MEMBERS:
        raise Invalid(f"a team has at most {MAX_MEMBERS} members, not {len(members)}")
    team = Team(
        team_id=TeamId(act.new_id("te")), name=_free_name(act, name), deputy=_deputy(act, deputy), created_at=act.now
    )
    persons = [active_person(act, member).person_id for member in members]
    fill_entry(act, object=team.team_id, name=team.name, deputy=team.deputy, members=len(persons))
    store.owners.insert_team(act.tx, team)
    for member in persons:
        store.owners.add_member(act.tx, team.team_id, member)
    return team


def set_deputy(act: Act, id_or_name: str, deputy: str | None) -> Owner:
    """Set the person who takes over the agents when this person leaves or this team has no active member left (None: no
    deputy), and return the owner. Raises NotFound for an unknown owner or person, Conflict for a deputy who is not
    active, Invalid for a person who would be their own deputy.
    """
    owner = find_owner(act.tx, id_or_name)
    to = _deputy(act, deputy)
    fill_entry(act, object=owner.id, name=owner.name, was=owner.deputy, deputy=to)
    if to == owner.id:
        raise Invalid("a person cannot be their own deputy")
    store.owners.set_deputy(act.tx, owner, to)
    return replace(owner, deputy=to)


def add_member(act: Act, team: str, person: str) -> Team:
    """Add a person to a team, and return the team. If the person is already a member, nothing changes. Raises NotFound
    for an unknown team or person, Conflict for a full team or a person who is not active.
    """
    into, member = find_team(act.tx, team), active_person(act, person)
    fill_entry(act, object=into.team_id, member=member.person_id)
    members = store.owners.list_members(act.tx, into.team_id)
    if member.person_id not in members and len(members) >= MAX_MEMBERS:
        raise Conflict(f"the team `{into.name}` has {MAX_MEMBERS} members, the maximum")
    store.owners.add_member(act.tx, into.team_id, member.person_id)
    return into


def remove_member(act: Act, team: str, person: str) -> Team:
    """Remove a person from a team, and return the team. Raises Conflict if the person is not a member, or is the last
    active member of a team that owns agents.
    """
    out_of, member = find_team(act.tx, team), find_person(act.tx, person)
    fill_entry(act, object=out_of.team_id, member=member.person_id)
    if not store.owners.remove_member(act.tx, out_of.team_id, member.person_id):
        raise Conflict(f"`{member.name}` is not in the team `{out_of.name}`")
    if not store.owners.has_active_member(act.tx, out_of.team_id) and store.agents.list_agents_of_owner(
        act.tx, out_of.team_id
    ):
        raise Conflict(f"the team `{out_of.name}` owns agents and would be empty", hint="add another member first")
    return out_of


def set_membership(act: Act, team: str, person: PersonId, *, is_member: bool) -> None:
    """Add a person to a team (id or name), or remove the person.

    Nothing changes if the membership is already as requested, if the team is unknown or full, or if a team that owns
    agents would become empty.
    """
    into = store.owners.team(act.tx, team)
    if into is None or store.owners.is_member(act.tx, into.team_id, person) == is_member:
        return
    if is_member and len(store.owners.list_members(act.tx, into.team_id)) < MAX_MEMBERS:
        store.owners.add_member(act.tx, into.team_id, person)
    elif not is_member:
        store.owners.remove_member(act.tx, into.team_id, person)
        if not store.owners.has_active_member(act.tx, into.team_id) and store.agents.list_agents_of_owner(
            act.tx, into.team_id
        ):
            store.owners.add_member(act.tx, into.team_id, person)


def active_person(act: Act, id_or_name: str) -> Person:
    """Return an active person. Raises NotFound for an unknown person, and Conflict if the person has left or is
    suspended.
    """
    person = find_person(act.tx, id_or_name)
    if not person.is_active:
        raise Conflict(f"`{person.name}` {person.absence}", hint=person.return_hint, code=person.absence_code)
    return person


def is_answerable(act: Act, owner: Owner) -> bool:
    """Return whether an owner can be accountable for an agent: an active person, or a team with an active member."""
    if isinstance(owner, Person):
        return owner.is_active
    return store.owners.has_active_member(act.tx, owner.team_id)


def _deputy(act: Act, id_or_name: str | None) -> PersonId | None:
    return None if id_or_name is None else active_person(act, id_or_name).person_id


def _free_name(act: Act, unverified_name: str) -> str:
    name = check_name(unverified_name)
    if store.owners.get_owner(act.tx, name) is not None:
        raise Conflict(
            f"the name `{name}` is taken", hint="names cannot be reused, even after deletion", code="name_taken"
        )
    return name
