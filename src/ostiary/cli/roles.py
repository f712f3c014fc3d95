"""`ostiary role`: roles, the permissions of people in the administration API."""

from __future__ import annotations

from cyclopts import App

from ostiary.cli.output import facts, moment, table
from ostiary.cli.session import PAGE, Here, Session

role = App(name="role", help="List, grant and revoke the roles of people.")


@role.command(name="list")
def list_roles(*, limit: int = PAGE, session: Here) -> None:
    """List the roles of persons and teams.

    Args:
        limit: Largest number of rows.
    """
    columns = {"name": "NAME", "role": "ROLE", "by": "GRANTED BY", "at": "SINCE", "subject": "ID"}
    rows = session.pages("/roles", "roles", limit=limit)
    session.show(
        rows,
        lambda rows: table(
            [{**one, "by": one["source"] or "administrator", "at": f"{moment(one['granted_at'])}Z"} for one in rows],
            columns,
            empty="no roles are granted: ostiary role grant NAME ROLE",
        ),
    )


@role.command(name="names")
def list_role_names(*, session: Here) -> None:
    """List the roles that the active policies define."""
    names = session.api("GET", "/roles/names")["roles"]
    session.show(names, lambda names: table([{"role": one} for one in names], {"role": "ROLE"}, empty="no roles"))


@role.command(name="grant")
def grant_role(name: str, role: str, /, *, session: Here) -> None:
    """Grant a role to a person or team.

    Args:
        name: Name or id of the person or team.
        role: viewer, approver, operator, auditor, administrator, or a role of your own policies.
    """
    _done(session, session.api("POST", "/roles", {"subject": name, "role": role}), name, role)


@role.command(name="revoke")
def revoke_role(name: str, role: str, /, *, session: Here) -> None:
    """Revoke a role of a person or team.

    Args:
        name: Name or id of the person or team.
        role: Name of the role.
    """
    _done(session, session.api("DELETE", f"/roles/{name}/{role}"), name, "")


def _done(session: Session, _: object, name: str, role: str) -> None:
    session.show({"name": name, "role": role or "-"}, facts)
