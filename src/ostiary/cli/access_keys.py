"""`ostiary aws-key`: access keys of agents for the API of AWS Secrets Manager."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.output import facts, moment, table
from ostiary.cli.session import Here

aws_key = App(name="aws-key", help="Create, list and revoke access keys for the API of AWS Secrets Manager.")


@aws_key.command(name="create")
def create_key(agent: str, /, *, network: str, days: int = 30, session: Here) -> None:
    """Create an access key for an agent; the secret key is shown once.

    Args:
        agent: Name or id of the agent; the agent needs a bearer exemption for this server's own API
            (`ostiary agent allow-bearer AGENT --resource ostiary`).
        network: Networks from which the key is accepted, such as 192.0.2.0/24, separated by spaces.
        days: Days until the key expires, 1 to 90.
    """
    body = {"network": network, "ttl": days * 86_400}
    session.show(session.api("POST", f"/agents/{agent}/access-keys", body), lambda row: facts(_row(row)))


@aws_key.command(name="list")
def list_keys(agent: str, /, *, session: Here) -> None:
    """List the access keys of an agent.

    Args:
        agent: Name or id of the agent.
    """
    columns = {"access_key_id": "ACCESS KEY", "network": "NETWORK", "expires_at": "ENDS"}
    empty = "no access keys: ostiary aws-key create AGENT --network NETWORK"
    rows = session.api("GET", f"/agents/{agent}/access-keys")["keys"]
    session.show(rows, lambda rows: table([_row(row) for row in rows], columns, empty=empty))


@aws_key.command(name="revoke")
def revoke_key(agent: str, access_key_id: str, /, *, session: Here) -> None:
    """Revoke an access key: its next request is refused.

    Args:
        agent: Name or id of the agent.
        access_key_id: Id of the access key.
    """
    path = f"/agents/{agent}/access-keys/{access_key_id}"
    shown = {"access_key": access_key_id, "state": "revoked"}
    session.show(session.api("DELETE", path), lambda _: facts(shown))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"created_at": f"{moment(row['created_at'])}Z", "expires_at": f"{moment(row['expires_at'])}Z"}
