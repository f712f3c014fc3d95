"""`ostiary trust-anchor`: authorities whose certificates authenticate clients (mutual TLS, RFC 8705)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App

from ostiary.cli.files import read_text
from ostiary.cli.paper import facts, moment, table
from ostiary.cli.session import Here

anchor = App(name="trust-anchor", help="Trust authorities to sign the certificates of clients.")
_COLUMNS = {"name": "NAME", "subject": "SUBJECT", "ends": "ENDS", "thumbprint": "THUMBPRINT"}


@anchor.command(name="add")
def add(name: str, certificate: Path, /, *, session: Here) -> None:
    """Trust an authority. An agent then authenticates with a certificate of it: `ostiary agent mutual-tls`.

    Args:
        name: Name of the trust anchor: lower-case letters, digits, `.`, `_` and `-`.
        certificate: PEM file of the certificate of the authority, a root or an intermediate one.
    """
    body = {"name": name, "certificate": read_text(certificate)}
    session.show(session.api("POST", "/trust-anchors", body), lambda row: facts(_row(row)))


@anchor.command(name="list")
def list_anchors(*, session: Here) -> None:
    """List trust anchors."""
    rows = session.api("GET", "/trust-anchors")["anchors"]
    empty = "no trust anchor: ostiary trust-anchor add NAME FILE"
    session.show(rows, lambda rows: table([_row(row) for row in rows], _COLUMNS, empty=empty))


@anchor.command(name="remove")
def remove(name: str, /, *, session: Here) -> None:
    """Remove a trust anchor: certificates of this authority get no further tokens.

    Args:
        name: Name or thumbprint of the trust anchor.
    """
    rows = session.api("DELETE", f"/trust-anchors/{name}")["anchors"]
    session.show(rows, lambda rows: table([_row(row) for row in rows], _COLUMNS, empty="no trust anchor is left"))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"ends": f"{moment(row['not_after'])}Z"}
