"""`ostiary pep`: static policy enforcement points, AuthZEN gateways that hold an API key instead of a key pair."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from ostiary.cli.output import facts, moment, table
from ostiary.cli.session import Here, Session
from ostiary.cli.usage import Usage

pep = App(name="pep", help="Create, rotate and revoke API keys of AuthZEN gateways.")


@pep.command(name="create")
def create(name: str, /, *, network: tuple[str, ...] = (), days: int = 90, session: Here) -> None:
    """Create a static PEP and its API key, for the AuthZEN endpoints alone; the key is shown once.

    The gateway sends the key as `Authorization: Bearer KEY`.

    Args:
        name: Name of the PEP; it cannot be reused, even after revocation.
        network: Address or network (CIDR) that requests come from; may be given several times.
        days: Days until the key ends, 1 to 366.
    """
    if not network:
        raise Usage("`--network` is required", hint=f"ostiary pep create {name} --network 10.1.2.3")
    body = {"name": name, "networks": list(network), "days": days}
    session.show(session.api("POST", "/peps", body), _print_issued)


@pep.command(name="list")
def list_peps(*, session: Here) -> None:
    """List static PEPs with the end and the last use of their newest key."""
    columns = {"name": "NAME", "networks": "NETWORKS", "state": "STATE", "ends": "ENDS", "used": "LAST USED"}
    rows = session.pages("/peps", "peps")
    session.show(
        rows, lambda rows: table([_row(row) for row in rows], columns, empty="no PEP: ostiary pep create NAME")
    )


@pep.command(name="show")
def show(name: str, /, *, session: Here) -> None:
    """Show a static PEP and its keys, without their secrets.

    Args:
        name: Name or id.
    """
    session.show(session.api("GET", f"/peps/{name}"), lambda one: facts(_row(one)))


@pep.command(name="rotate")
def rotate(name: str, /, *, days: int = 90, overlap: int = 24, session: Here) -> None:
    """Rotate the key of a PEP: issue another key, shown once; the older key ends after the overlap.

    Args:
        name: Name or id.
        days: Days until the new key ends, 1 to 366.
        overlap: Hours until the older key ends, 0 to 168; 0 ends it now.
    """
    body = {"days": days, "overlap_h": overlap}
    session.show(session.api("POST", f"/peps/{name}/rotate", body), _print_issued)


@pep.command(name="revoke")
def revoke(name: str, /, *, session: Here) -> None:
    """Revoke a PEP and all its keys now.

    Args:
        name: Name or id.
    """
    _print_pep(session, session.api("POST", f"/peps/{name}/revoke", {}))


def _print_pep(session: Session, answer: dict[str, Any]) -> None:
    session.show(answer, lambda one: facts(_row(one)))


def _print_issued(made: dict[str, Any]) -> None:
    facts({**made, "networks": " ".join(made["networks"]), "expires_at": f"{moment(made['expires_at'])}Z"})


def _row(one: dict[str, Any]) -> dict[str, str]:
    """Return a PEP as a row of the table, with the end and the last use of its newest key."""
    newest = one["keys"][-1] if one["keys"] else None
    count = len(one["keys"])
    used = [key["used_at"] for key in one["keys"] if key["used_at"] is not None]
    return {
        "pep_id": one["pep_id"],
        "name": one["name"],
        "networks": " ".join(one["networks"]),
        "state": "revoked" if one["revoked_at"] is not None else f"{count} key{'' if count == 1 else 's'}",
        "ends": "-" if newest is None else f"{moment(newest['expires_at'])}Z",
        "used": f"{moment(max(used))}Z" if used else "never",
    }
