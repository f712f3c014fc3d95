"""`ostiary acme`: keys with which ACME clients such as certbot create their accounts."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.output import facts, moment, table
from ostiary.cli.session import PAGE, Here
from ostiary.cli.usage import Usage

acme = App(name="acme", help="Create, list and revoke the account keys of ACME clients.")
key = App(name="key", help="Create, list and revoke keys of external account bindings.")
acme.command(key)


@key.command(name="create")
def create_key(
    *,
    agent: str = "",
    person: str = "",
    name: tuple[str, ...] = (),
    profile: str = "server",
    days: int = 30,
    session: Here,
) -> None:
    """Create a key with which an ACME client creates one account; the HMAC key is shown once.

    The certificates of the account belong to the agent or the person, and end with the agent or the person.

    Args:
        agent: Name or id of the agent that the account is for.
        person: Name or id of the person that the account is for.
        name: Pattern of names that the account may order, such as dns:*.example.com; may be given several times.
        profile: Profile of the certificates: server, agent, or a profile in the server's configuration.
        days: Days until the key expires, 1 to 366; the ACME client must create the account before that.
    """
    if bool(agent) is bool(person):
        raise Usage(
            "give exactly one of `--agent` and `--person`", hint="for an agent: ostiary acme key create --agent NAME"
        )
    holder = {"agent": agent} if agent else {"person": person}
    body = {**holder, "names": list(name), "profile": profile, "days": days}
    session.show(session.api("POST", "/acme/keys", body), _print_issued)


@key.command(name="list")
def list_keys(*, limit: int = PAGE, session: Here) -> None:
    """List the keys of ACME clients with their accounts, including used and revoked keys.

    Args:
        limit: Largest number of rows.
    """
    columns = {"kid": "KID", "name": "HOLDER", "profile": "PROFILE", "names": "NAMES", "state": "STATE", "ends": "ENDS"}
    rows = session.pages("/acme/keys", "keys", limit=limit)
    session.show(
        rows,
        lambda rows: table([_row(row) for row in rows], columns, empty="no keys: ostiary acme key create --agent NAME"),
    )


@key.command(name="revoke")
def revoke_key(kid: str, /, *, session: Here) -> None:
    """Revoke a key of an ACME client, and deactivate the account that was created with it.

    Certificates of the account stay valid.

    Args:
        kid: Id of the key.
    """
    session.show(session.api("POST", f"/acme/keys/{kid}/revoke", {}), lambda one: facts(_row(one)))


def _print_issued(made: dict[str, Any]) -> None:
    facts(
        {
            "kid": made["kid"],
            "hmac_key": made["hmac_key"],
            "directory": made["directory"],
            "holder": made["name"],
            "expires_at": f"{moment(made['expires_at'])}Z",
        }
    )


def _row(one: dict[str, Any]) -> dict[str, str]:
    state = "revoked" if one["revoked_at"] is not None else "used" if one["account"] is not None else "unused"
    return {
        "kid": one["kid"],
        "name": one["name"],
        "profile": one["profile"],
        "names": " ".join(one["names"]),
        "account": one["account"] or "",
        "state": state,
        "ends": f"{moment(one['expires_at'])}Z",
    }
