"""Stored persons, teams and their members."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.registry.model import Owner, OwnerId, Person, PersonId, PersonState, Team, TeamId, is_person_id

_PERSON = "select person_id, name, email, deputy, state, created_at from person "
_TEAM = "select team_id, name, deputy, created_at from team "
_PERSON_BY_ID = sql(_PERSON + "where person_id = :key", steady=True)
_PERSON_BY_NAME = sql(_PERSON + "where name = :key", steady=True)
_PERSONS = sql(_PERSON + "where person_id > :after order by person_id limit :limit")
_TEAM_BY_ID = sql(_TEAM + "where team_id = :key")
_TEAM_BY_NAME = sql(_TEAM + "where name = :key")
_TEAMS = sql(_TEAM + "where team_id > :after order by team_id limit :limit")
_INSERT_PERSON = sql(
    """insert into person (person_id, name, email, deputy, state, created_at)
       values (:id, :name, :email, :deputy, :state, :created_at)"""
)
_INSERT_TEAM = sql("insert into team (team_id, name, deputy, created_at) values (:id, :name, :deputy, :created_at)")
_SET_STATE = sql("update person set state = :state where person_id = :id")
_END_LOGINS = sql("update person set logins_since = :now where person_id = :id")
_SET_PERSON_DEPUTY = sql("update person set deputy = :deputy where person_id = :id")
_SET_TEAM_DEPUTY = sql("update team set deputy = :deputy where team_id = :id")
_ADD_MEMBER = sql("insert into member (team, person) values (:team, :person) on conflict do nothing")
_REMOVE_MEMBER = sql("delete from member where team = :team and person = :person")
_MEMBERS = sql("select person from member where team = :team order by person")
_IS_MEMBER = sql("select 1 from member where team = :team and person = :person")
_LEAVE_TEAMS = sql("delete from member where person = :person returning team")
_TEAMS_RESTING_ON = sql(
    _TEAM
    + """where team_id in (select team from member where person = :person)
         and not exists (select 1 from member other join person on person.person_id = other.person
             where other.team = team.team_id and other.person <> :person and person.state = 'active')
         order by team_id"""
)
_HAS_ACTIVE_MEMBER = sql(
    """select 1 from member join person on person.person_id = member.person
       where member.team = :team and person.state = 'active' limit 1"""
)


def insert_person(tx: Tx, person: Person) -> None:
    """Insert a person."""
    tx.touch("person", person.person_id)
    tx.send(
        _INSERT_PERSON,
        id=person.person_id,
        name=person.name,
        email=person.email,
        deputy=person.deputy,
        state=person.state.value,
        created_at=person.created_at,
    )


def insert_team(tx: Tx, team: Team) -> None:
    """Insert a team."""
    tx.touch("team", team.team_id)
    tx.send(_INSERT_TEAM, id=team.team_id, name=team.name, deputy=team.deputy, created_at=team.created_at)


def get_person(reader: Reader, id_or_name: str) -> Person | None:
    """Return a person by id or name; None if there is none."""
    by_id = is_person_id(id_or_name)
    return reader.one_as(_PERSON_BY_ID if by_id else _PERSON_BY_NAME, _person, key=id_or_name)


def team(reader: Reader, id_or_name: str) -> Team | None:
    """Return a team by id or name; None if there is none."""
    by_id = id_or_name.startswith("te_")
    row = reader.one(_TEAM_BY_ID if by_id else _TEAM_BY_NAME, key=id_or_name)
    return None if row is None else _team(row)


def get_owner(reader: Reader, id_or_name: str) -> Owner | None:
    """Return the person or team with this id or name; None if there is none."""
    return get_person(reader, id_or_name) or team(reader, id_or_name)


def persons(reader: Reader, page: Page) -> list[Person]:
    """Return a page of persons, in the order of their ids."""
    return [_person(row) for row in reader.all(_PERSONS, after=page.after, limit=page.limit)]


def teams(reader: Reader, page: Page) -> list[Team]:
    """Return a page of teams, in the order of their ids."""
    return [_team(row) for row in reader.all(_TEAMS, after=page.after, limit=page.limit)]


def set_person_state(tx: Tx, id: PersonId, state: PersonState) -> None:
    """Set the state of a person."""
    tx.touch("person", id)
    tx.send(_SET_STATE, id=id, state=state.value)


def end_logins(tx: Tx, id: PersonId) -> None:
    """Make all present sessions, passwords, passkeys and setup links of a person invalid: the package `trust` compares
    their times with the time stored here.
    """
    tx.send(_END_LOGINS, id=id, now=tx.now)


def set_deputy(tx: Tx, owner: Owner, deputy: PersonId | None) -> None:
    """Set the deputy of an owner."""
    tx.touch("person" if isinstance(owner, Person) else "team", owner.id)
    tx.send(_SET_PERSON_DEPUTY if isinstance(owner, Person) else _SET_TEAM_DEPUTY, id=owner.id, deputy=deputy)


def add_member(tx: Tx, team: TeamId, person: PersonId) -> int:
    """Add a member; return 0 if the person is already a member, otherwise 1."""
    tx.touch("member", f"{team} {person}")
    return tx.run(_ADD_MEMBER, team=team, person=person)


def remove_member(tx: Tx, team: TeamId, person: PersonId) -> int:
    """Remove a member; return 0 if the person is not a member, otherwise 1."""
    tx.touch("member", f"{team} {person}")
    return tx.run(_REMOVE_MEMBER, team=team, person=person)


def list_members(reader: Reader, team: TeamId) -> list[PersonId]:
    """Return the ids of the members of a team."""
    return [row[0] for row in reader.all(_MEMBERS, team=team)]


def leave_teams(tx: Tx, person: PersonId) -> int:
    """Remove a person from all teams; return the number of these teams."""
    left = tx.all(_LEAVE_TEAMS, person=person)
    for (team,) in left:
        tx.touch("member", f"{team} {person}")
    return len(left)


def teams_resting_on(reader: Reader, person: PersonId) -> list[Team]:
    """Return the teams whose only active member is this person."""
    return [_team(row) for row in reader.all(_TEAMS_RESTING_ON, person=person)]


def is_member(reader: Reader, team: OwnerId, person: str) -> bool:
    """Return whether a person is a member of a team."""
    return reader.one(_IS_MEMBER, team=team, person=person) is not None


def has_active_member(reader: Reader, team: TeamId) -> bool:
    """Return whether a team has an active member."""
    return reader.one(_HAS_ACTIVE_MEMBER, team=team) is not None


def _person(row: Row) -> Person:
    id, name, email, deputy, state, created_at = row
    return Person(person_id=id, name=name, email=email, deputy=deputy, state=PersonState(state), created_at=created_at)


def _team(row: Row) -> Team:
    id, name, deputy, created_at = row
    return Team(team_id=id, name=name, deputy=deputy, created_at=created_at)
