"""`ostiary trust-anchor`: authorities whose certificates authenticate clients (mutual TLS, RFC 8705)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cyclopts import App

from ostiary.cli.exit_codes import FAILED
from ostiary.cli.files import read_text
from ostiary.cli.output import facts, moment, table
from ostiary.cli.session import Here, Word

anchor = App(name="trust-anchor", help="Trust authorities to sign the certificates of clients.")
_COLUMNS = {"name": "NAME", "subject": "SUBJECT", "ends": "ENDS", "thumbprint": "THUMBPRINT"}


@anchor.command(name="add")
def add(name: str, certificate: Path, /, *, session: Here) -> None:
    """Trust an authority. `ostiary agent mutual-tls` then lets an agent authenticate with a certificate that it signed.

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


@anchor.command(name="test")
def try_anchor(name: Word, /, *, certificate: Path | None = None, agent: str = "", session: Here) -> None:
    """Check a trust anchor now, and whether it would accept a certificate. Nothing changes.

    Args:
        name: Name or thumbprint of the trust anchor.
        certificate: PEM file of the certificate of a client, followed by its chain.
        agent: Agent that would authenticate with the certificate: name or id.
    """
    pem = "" if certificate is None else read_text(certificate)
    tested = session.api("POST", f"/trust-anchors/{name}/test", {"certificate": pem, "agent": agent})
    tried = tested["certificate"] or {}
    shown = {
        "name": tested["name"],
        "ends": f"{moment(tested['not_after'])}Z",
        "authority": tested["failed"] or "accepted",
        "clients by subject": tested["clients"],
        "certificate": tried.get("subject"),
        "verdict": tried and (tried["refused"] or "accepted"),
    }
    session.show(tested, lambda _: facts(shown))
    if tested["failed"] or tried.get("refused"):
        sys.exit(FAILED)


@anchor.command(name="remove")
def remove(name: Word, /, *, session: Here) -> None:
    """Remove a trust anchor: agents get no further tokens with certificates of this authority.

    Args:
        name: Name or thumbprint of the trust anchor.
    """
    rows = session.api("DELETE", f"/trust-anchors/{name}")["anchors"]
    session.show(rows, lambda rows: table([_row(row) for row in rows], _COLUMNS, empty="no trust anchor is left"))


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"ends": f"{moment(row['not_after'])}Z"}
