"""`ostiary connected-account`: accounts of people at other providers, whose access tokens agents get."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.output import facts, moment, table
from ostiary.cli.session import PAGE, Here

connected_account = App(
    name="connected-account", help="List and end the accounts that people connected at other providers."
)
_COLUMNS = {
    "account_id": "ACCOUNT",
    "person": "PERSON",
    "provider": "PROVIDER",
    "state": "STATE",
    "connected": "CONNECTED",
    "scopes": "SCOPES",
    "error": "LAST ERROR",
}


@connected_account.command(name="list")
def list_accounts(*, person: str | None = None, limit: int = PAGE, session: Here) -> None:
    """List the connected accounts. A person connects accounts in a browser, on the page /accounts.

    Args:
        person: Name or id of a person; by default, the accounts of all persons.
        limit: Largest number of rows.
    """
    query = {} if person is None else {"person": person}
    rows = session.pages("/connected-accounts", "accounts", limit=limit, query=query)
    session.show(rows, lambda rows: table([_row(row) for row in rows], _COLUMNS, empty="no connected accounts"))


@connected_account.command(name="revoke")
def revoke(account: str, /, *, forget: bool = False, session: Here) -> None:
    """End a connected account: its access tokens end now, and its refresh token is then revoked at the provider.

    Args:
        account: Id of the connected account.
        forget: Delete the account even if the provider has not revoked its token. Revoke the token by hand first.
    """
    path, state = f"/connected-accounts/{account}/revoke", "deleted" if forget else "ending"
    session.show(session.api("POST", path, {"forget": forget}), lambda _: facts({"account": account, "state": state}))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"connected": f"{moment(row['connected_at'])}Z", "scopes": " ".join(row["scopes"])}
