"""`ostiary owner` and `ostiary team`: the persons and teams that are accountable for agents."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.paper import facts, table
from ostiary.cli.session import PAGE, Here, Session

owner = App(name="owner", help="Create and list the persons that are accountable for agents.")
team = App(name="team", help="Create and change the teams that are accountable for agents.")


@owner.command(name="create")
def create_owner(name: str, /, *, email: str, deputy: str | None = None, session: Here) -> None:
    """Register a person.

    Args:
        name: Lower-case letters, digits, `.`, `_` and `-`; a name cannot be reused.
        email: Mail address of the person.
        deputy: Name of the person who takes over the agents when this person leaves.
    """
    session.show(session.api("POST", "/persons", {"name": name, "email": email, "deputy": deputy}), facts)


@owner.command(name="list")
def list_owners(*, limit: int = PAGE, session: Here) -> None:
    """List persons.

    Args:
        limit: Largest number of rows.
    """
    columns = {"name": "NAME", "email": "EMAIL", "state": "STATE", "deputy": "DEPUTY", "person_id": "ID"}
    rows = session.pages("/persons", "persons", limit=limit)
    session.show(rows, lambda rows: table(rows, columns, empty="no persons: ostiary owner create NAME --email E"))


@owner.command(name="show")
def show_owner(name: str, /, *, session: Here) -> None:
    """Show a person.

    Args:
        name: Name or id.
    """
    session.show(session.api("GET", f"/persons/{name}"), facts)


@owner.command(name="deputy")
def set_owner_deputy(name: str, deputy: str | None = None, /, *, session: Here) -> None:
    """Set the deputy, who takes over the agents when a person leaves.

    Args:
        name: Name or id of the person.
        deputy: Name of the deputy; without, the deputy is removed.
    """
    _set_deputy(session, f"/persons/{name}", deputy)


@owner.command(name="return")
def return_owner(name: str, /, *, session: Here) -> None:
    """Return a person who left (`ostiary revoke owner NAME`): the person can be accountable for agents again.

    Args:
        name: Name or id.
    """
    session.show(session.api("POST", f"/persons/{name}/return", {}), facts)


@team.command(name="create")
def create_team(name: str, /, *, member: tuple[str, ...] = (), deputy: str | None = None, session: Here) -> None:
    """Register a team.

    Args:
        name: Lower-case letters, digits, `.`, `_` and `-`; a name cannot be reused.
        member: Name of a member; may be given several times.
        deputy: Name of the person who takes over when the last member leaves.
    """
    body: dict[str, Any] = {"name": name, "members": member, "deputy": deputy}
    session.show(session.api("POST", "/teams", body), facts)


@team.command(name="list")
def list_teams(*, limit: int = PAGE, session: Here) -> None:
    """List teams.

    Args:
        limit: Largest number of rows.
    """
    columns = {"name": "NAME", "members": "MEMBERS", "deputy": "DEPUTY", "team_id": "ID"}
    rows = session.pages("/teams", "teams", limit=limit)
    session.show(rows, lambda rows: table(rows, columns, empty="no teams: ostiary team create --help"))


@team.command(name="show")
def show_team(name: str, /, *, session: Here) -> None:
    """Show a team.

    Args:
        name: Name or id.
    """
    session.show(session.api("GET", f"/teams/{name}"), facts)


@team.command(name="add")
def add_member(name: str, person: str, /, *, session: Here) -> None:
    """Add a person to a team.

    Args:
        name: Name or id of the team.
        person: Name or id of the person.
    """
    session.show(session.api("PUT", f"/teams/{name}/members/{person}", {}), facts)


@team.command(name="remove")
def remove_member(name: str, person: str, /, *, session: Here) -> None:
    """Remove a person from a team.

    Args:
        name: Name or id of the team.
        person: Name or id of the person.
    """
    session.show(session.api("DELETE", f"/teams/{name}/members/{person}"), facts)


@team.command(name="deputy")
def set_team_deputy(name: str, deputy: str | None = None, /, *, session: Here) -> None:
    """Set the deputy, who takes over the agents when the last member of a team leaves.

    Args:
        name: Name or id of the team.
        deputy: Name of the deputy; without, the deputy is removed.
    """
    _set_deputy(session, f"/teams/{name}", deputy)


def _set_deputy(session: Session, path: str, deputy: str | None) -> None:
    session.show(session.api("PUT", f"{path}/deputy", {"deputy": deputy}), facts)
