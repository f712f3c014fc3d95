"""`ostiary lease`: leases of accounts that the server created at databases."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.output import facts, moment, table
from ostiary.cli.session import PAGE, Here

lease = App(name="lease", help="List and revoke leases of credentials.")
_COLUMNS = {
    "lease_id": "LEASE",
    "agent": "AGENT",
    "username": "ACCOUNT",
    "state": "STATE",
    "ends": "ENDS",
    "attempts": "FAILED",
    "error": "LAST ERROR",
}


@lease.command(name="list")
def list_leases(*, stuck: bool = False, limit: int = PAGE, session: Here) -> None:
    """List live leases, and ended leases whose account at the database or at AWS is not removed yet.

    Args:
        stuck: List only ended leases whose account could not be removed in several attempts.
        limit: Largest number of rows.
    """
    rows = session.pages("/leases", "leases", limit=limit, query={"stuck": "true"} if stuck else None)
    empty = "no removal is stuck" if stuck else "no leases"
    session.show(rows, lambda rows: table([_row(row) for row in rows], _COLUMNS, empty=empty))


@lease.command(name="revoke")
def revoke(lease_id: str, /, *, forget: bool = False, session: Here) -> None:
    """Revoke a lease: its account is removed at once, or as soon as the database answers.

    Args:
        lease_id: Id of the lease.
        forget: Delete the lease even if its account may still exist. Remove the account by hand first.
    """
    body = {"lease_id": lease_id, "forget": forget}
    state = "ended" if forget else "revoking"
    session.show(session.api("POST", "/leases/revoke", body), lambda _: facts({"lease": lease_id, "state": state}))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"ends": f"{moment(row['expires_at'])}Z"}
