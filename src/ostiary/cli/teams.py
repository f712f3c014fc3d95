"""`ostiary team`: the teams that are accountable for agents."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.output import facts, table
from ostiary.cli.session import PAGE, Here

team = App(name="team", help="Create and change the teams that are accountable for agents.")


@team.command(name="create")
def create_team(name: str, /, *, member: tuple[str, ...] = (), deputy: str | None = None, session: Here) -> None:
    """Register a team.

    Args:
        name: Lower-case letters, digits, `.`, `_` and `-`; a name cannot be reused.
        member: Name of a member; may be given several times.
        deputy: Name of the person who becomes the owner of the team's agents when the last member leaves.
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
    """Set the deputy, who becomes the owner of a team's agents when the last member leaves.

    Args:
        name: Name or id of the team.
        deputy: Name of the deputy; without it, the deputy is removed.
    """
    session.show(session.api("PUT", f"/teams/{name}/deputy", {"deputy": deputy}), facts)
