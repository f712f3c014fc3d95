"""Roles of persons and teams."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.registry.model.role import RoleAssignment

_COLUMNS = "subject, role, source, granted_at"
_ADD = sql(
    """insert into role_assignment (subject, role, source, granted_at) values (:subject, :role, :source, :now)
       on conflict (subject, role, source) do nothing"""
)
_REMOVE = sql("delete from role_assignment where subject = :subject and role = :role and source = :source")
_OF_SUBJECT = sql(f"select {_COLUMNS} from role_assignment where subject = :subject order by role, source")
_OF_SOURCE = sql(f"select {_COLUMNS} from role_assignment where source = :source order by subject, role")
_PAGE = sql(
    f"""select {_COLUMNS} from role_assignment where subject || ' ' || role || ' ' || source > :after
        order by subject || ' ' || role || ' ' || source limit :limit"""
)
_OF_PERSON = sql(
    """select distinct role from role_assignment where subject = :person
       or subject in (select team from member where person = :person) order by role""",
    steady=True,
)
_HOLDER = sql(
    """select 1 from role_assignment a join person on person_id = a.subject
       where a.role = :role and state = 'active'
       union all
       select 1 from role_assignment a join member on team = a.subject join person on person_id = member.person
       where a.role = :role and state = 'active' limit 1""",
    steady=True,
)


def _key(subject: str, role: str, source: str) -> str:
    return f"{subject} {role} {source}"


def add(tx: Tx, subject: str, role: str, source: str) -> int:
    """Add a role assignment. Return 1, or 0 if the person or team already has the role from this source (an
    administrator, or an identity provider).
    """
    tx.touch("role", _key(subject, role, source))
    return tx.run(_ADD, subject=subject, role=role, source=source, now=tx.now)


def remove(tx: Tx, subject: str, role: str, source: str) -> int:
    """Remove a role assignment. Return 1, or 0 if the person or team does not have the role from this source (an
    administrator, or an identity provider).
    """
    tx.touch("role", _key(subject, role, source))
    return tx.run(_REMOVE, subject=subject, role=role, source=source)


def of_subject(reader: Reader, subject: str) -> list[RoleAssignment]:
    """Return the assignments of a person or team."""
    return [RoleAssignment(*row) for row in reader.all(_OF_SUBJECT, subject=subject)]


def of_source(reader: Reader, source: str) -> list[RoleAssignment]:
    """Return the assignments that one source made."""
    return [RoleAssignment(*row) for row in reader.all(_OF_SOURCE, source=source)]


def list_person_roles(reader: Reader, person: str) -> frozenset[str]:
    """Return the names of a person's roles, including those of the person's teams."""
    return frozenset(role for (role,) in reader.all(_OF_PERSON, person=person))


def list_roles(reader: Reader, page: Page) -> list[RoleAssignment]:
    """Return a page of all assignments, in the order of `role_cursor`."""
    return [RoleAssignment(*row) for row in reader.all(_PAGE, after=page.after, limit=page.limit)]


def role_cursor(one: RoleAssignment) -> str:
    """Return the cursor of an assignment: the position from which the next page of `list_roles` continues."""
    return _key(one.subject, one.role, one.source)


def has_holder(reader: Reader, role: str) -> bool:
    """Return whether an active person has the role, directly or as a member of a team."""
    return reader.one(_HOLDER, role=role) is not None
