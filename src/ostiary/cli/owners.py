"""`ostiary owner` and `ostiary team`: who answers for agents."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.paper import facts, table
from ostiary.cli.session import PAGE, Here, Session

owner = App(name="owner", help="Persons who answer for agents.")
team = App(name="team", help="Teams that answer for agents together.")


@owner.command(name="create")
def create_owner(name: str, /, *, email: str, deputy: str | None = None, session: Here) -> None:
    """Register a person.

    Args:
        name: Lower-case letters, digits, `.`, `_` and `-`; never given to another.
        email: Where the person is reached.
        deputy: Name of the person who takes over the agents when this one leaves.
    """
    session.show(session.api("POST", "/persons", {"name": name, "email": email, "deputy": deputy}), facts)


@owner.command(name="list")
def list_owners(*, limit: int = PAGE, session: Here) -> None:
    """List persons.

    Args:
        limit: How many at most.
    """
    columns = {"name": "NAME", "email": "EMAIL", "state": "STATE", "deputy": "DEPUTY", "person_id": "ID"}
    found = session.pages("/persons", "persons", limit=limit)
    session.show(found, lambda rows: table(rows, columns, empty="nobody yet: ostiary owner create NAME --email E"))


@owner.command(name="show")
def show_owner(name: str, /, *, session: Here) -> None:
    """Show one person.

    Args:
        name: Name or id.
    """
    session.show(session.api("GET", f"/persons/{name}"), facts)


@owner.command(name="deputy")
def set_owner_deputy(name: str, deputy: str | None = None, /, *, session: Here) -> None:
    """Say who takes over when a person leaves.

    Args:
        name: Name or id of the person.
        deputy: Name of the deputy; without, there is none any more.
    """
    _set_deputy(session, f"/persons/{name}", deputy)


@owner.command(name="return")
def return_owner(name: str, /, *, session: Here) -> None:
    """Let a person who left (`ostiary revoke owner NAME`) answer for agents again.

    Args:
        name: Name or id.
    """
    session.show(session.api("POST", f"/persons/{name}/return", {}), facts)


@team.command(name="create")
def create_team(name: str, /, *, member: tuple[str, ...] = (), deputy: str | None = None, session: Here) -> None:
    """Register a team.

    Args:
        name: Lower-case letters, digits, `.`, `_` and `-`; never given to another.
        member: Name of a person in it; may be given several times.
        deputy: Name of the person who takes over when nobody is left in it.
    """
    body: dict[str, Any] = {"name": name, "members": member, "deputy": deputy}
    session.show(session.api("POST", "/teams", body), facts)


@team.command(name="list")
def list_teams(*, limit: int = PAGE, session: Here) -> None:
    """List teams.

    Args:
        limit: How many at most.
    """
    columns = {"name": "NAME", "members": "MEMBERS", "deputy": "DEPUTY", "team_id": "ID"}
    found = session.pages("/teams", "teams", limit=limit)
    session.show(found, lambda rows: table(rows, columns, empty="no team yet: ostiary team create --help"))


@team.command(name="show")
def show_team(name: str, /, *, session: Here) -> None:
    """Show one team.

    Args:
        name: Name or id.
    """
    session.show(session.api("GET", f"/teams/{name}"), facts)


@team.command(name="add")
def add_member(name: str, person: str, /, *, session: Here) -> None:
    """Take a person into a team.

    Args:
        name: Name or id of the team.
        person: Name or id of the person.
    """
    session.show(session.api("PUT", f"/teams/{name}/members/{person}", {}), facts)


@team.command(name="remove")
def remove_member(name: str, person: str, /, *, session: Here) -> None:
    """Take a person out of a team.

    Args:
        name: Name or id of the team.
        person: Name or id of the person.
    """
    session.show(session.api("DELETE", f"/teams/{name}/members/{person}"), facts)


@team.command(name="deputy")
def set_team_deputy(name: str, deputy: str | None = None, /, *, session: Here) -> None:
    """Say who takes over when nobody is left in a team.

    Args:
        name: Name or id of the team.
        deputy: Name of the deputy; without, there is none any more.
    """
    _set_deputy(session, f"/teams/{name}", deputy)


def _set_deputy(session: Session, path: str, deputy: str | None) -> None:
    session.show(session.api("PUT", f"{path}/deputy", {"deputy": deputy}), facts)
