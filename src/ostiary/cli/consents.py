"""`ostiary consent`: consents of people to actions of agents on their behalf."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.output import facts, moment, table
from ostiary.cli.session import Here

consent = App(name="consent", help="List and revoke consents of people.")


@consent.command(name="list")
def list_consents(*, person: str | None = None, limit: int = 100, session: Here) -> None:
    """List the consents that were not withdrawn.

    Args:
        person: Name or id of the person; all people by default.
        limit: Largest number of rows.
    """
    query = {"person": person} if person is not None else {}
    rows = session.pages("/consents", "consents", limit=limit, query=query)
    columns = {
        "consent_id": "CONSENT",
        "person": "PERSON",
        "client": "CLIENT",
        "agent": "AGENT",
        "scopes": "SCOPES",
        "until": "UNTIL",
    }
    session.show(
        rows,
        lambda rows: table(
            [_row(row) for row in rows], columns, empty="no consents; people give them when they sign in to a client"
        ),
    )


@consent.command(name="revoke")
def revoke(consent: str, /, *, session: Here) -> None:
    """Revoke a consent: its tokens, refresh tokens and tasks end at once.

    Args:
        consent: Id of the consent (`co_...`).
    """
    session.show(session.api("POST", f"/consents/{consent}/revoke", {}), lambda one: facts(_row(one)))


def _row(one: dict[str, Any]) -> dict[str, str]:
    return {
        "consent_id": one["consent_id"],
        "person": one["person"],
        "client": one["client_name"],
        "agent": one["agent"],
        "scopes": " ".join(one["scopes"]),
        "until": "revoked" if one["ended_at"] is not None else f"{moment(one['expires_at'])}Z",
    }
