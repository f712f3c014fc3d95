"""`ostiary client`: OAuth clients that registered themselves or have a metadata document."""

from __future__ import annotations

from typing import Literal

from cyclopts import App

from ostiary.cli.output import facts, table
from ostiary.cli.session import PAGE, Here

client = App(name="client", help="List, approve and stop OAuth clients that no administrator registered.")

State = Literal["pending", "active", "stopped"]


@client.command(name="list")
def list_clients(*, state: State | None = None, limit: int = PAGE, session: Here) -> None:
    """List OAuth clients, including agents for which people log in.

    Args:
        state: State of the clients.
        limit: Largest number of rows.
    """
    columns = {"id": "ID", "name": "NAME", "kind": "KIND", "state": "STATE", "client_id": "CLIENT ID"}
    rows = session.pages("/clients", "clients", limit=limit, query={"state": state})
    session.show(
        rows,
        lambda rows: table(rows, columns, empty="no clients; MCP clients register themselves: ostiary client --help"),
    )


@client.command(name="show")
def show(id: str, /, *, session: Here) -> None:
    """Show an OAuth client.

    Args:
        id: Id of the record, from `ostiary client list`.
    """
    session.show(session.api("GET", f"/clients/{id}"), facts)


@client.command(name="approve")
def approve(id: str, /, *, session: Here) -> None:
    """Approve a client that waits for approval, or let a stopped client act again.

    Args:
        id: Id of the record.
    """
    session.show(session.api("POST", f"/clients/{id}/approve", {}), facts)


@client.command(name="stop")
def stop(id: str, /, *, session: Here) -> None:
    """Stop a client for all people, and end their consents to it. Undo: `ostiary client approve`.

    Args:
        id: Id of the record.
    """
    session.show(session.api("POST", f"/clients/{id}/stop", {}), facts)


@client.command(name="delete")
def delete(id: str, /, *, session: Here) -> None:
    """Delete a client, and end the consents to it.

    Args:
        id: Id of the record.
    """
    session.show(session.api("DELETE", f"/clients/{id}"), facts)


@client.command(name="invite")
def invite(*, days: int = 1, uses: int = 1, session: Here) -> None:
    """Create an initial access token, with which clients register themselves. The token is shown once.

    Args:
        days: Days until the token expires, at most 90.
        uses: Number of registrations for which the token can be used.
    """
    session.show(session.api("POST", "/client-invitations", {"ttl": days * 86_400, "uses": uses}), facts)
