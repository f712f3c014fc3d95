"""`ostiary ca`: the certificate authority of the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from ostiary.cli.certificates import Reason
from ostiary.cli.files import read_text, write_new
from ostiary.cli.output import facts, moment, out, table
from ostiary.cli.session import Here
from ostiary.cli.usage import Usage
from ostiary.protocol.certificate import KeyType

ca = App(name="ca", help="Create, rotate, revoke and import certificate authorities.")


@ca.command(name="init")
def init(*, key_type: KeyType | None = None, permit: tuple[str, ...] = (), session: Here) -> None:
    """Create the root and the intermediate authority. Without this command, the first certificate creates both.

    Args:
        key_type: Type of both keys.
        permit: DNS name such as example.com; may be given several times. The intermediate then certifies no other DNS
            names than the given ones and names below them. Names of other kinds are not limited.
    """
    permitted = [name if ":" in name else f"dns:{name}" for name in permit]
    body = {"key_type": key_type, "permitted": permitted}
    session.show(session.api("POST", "/authorities", body), _print_authority)


@ca.command(name="show")
def show(*, session: Here) -> None:
    """List the authorities: roots, intermediates and their OCSP responders, with the end of their certificates."""
    columns = {"kind": "KIND", "state": "STATE", "key_type": "KEY", "subject": "SUBJECT", "ends": "ENDS", "id": "ID"}
    rows = session.pages("/authorities", "authorities")
    session.show(rows, lambda rows: table([_row(row) for row in rows], columns, empty="no authority: ostiary ca init"))


@ca.command(name="rotate")
def rotate(
    kind: Literal["intermediate", "root"] = "intermediate",
    /,
    *,
    key_type: KeyType | None = None,
    overlap: int = 600,
    session: Here,
) -> None:
    """Replace the intermediate, or the root and the intermediate. Certificates of the old authorities stay valid.

    A new root is in the trust bundle at once, and signs after the overlap.

    Args:
        kind: The authority to replace.
        key_type: Type of the new key; by default, the type of the replaced key.
        overlap: Seconds for which a new root is published before it signs, 0 to 2592000.
    """
    body = {"kind": kind, "key_type": key_type, "overlap": overlap}
    session.show(session.api("POST", "/authorities/rotate", body), _print_authority)


@ca.command(name="revoke")
def revoke(authority: str, /, *, reason: Reason = "unspecified", session: Here) -> None:
    """Revoke an intermediate and all its certificates; a new intermediate replaces an active one.

    Under the root of your company, no new intermediate is created, and the owner of the root must revoke the
    intermediate too.

    Args:
        authority: Id of the intermediate, as `ostiary ca show` prints it.
        reason: Reason (RFC 5280), such as keyCompromise.
    """
    answer = session.api("POST", f"/authorities/{authority}/revoke", {"reason": reason})
    session.show(answer, _print_revoked)


@ca.command(name="request")
def request(*, key_type: KeyType | None = None, write: Path, session: Here) -> None:
    """Create the key of an intermediate that the root of your company certifies, and write the request for it.

    Args:
        key_type: Type of the key.
        write: File for the request (PKCS #10, PEM).
    """
    answer = session.api("POST", "/authorities/request", {"key_type": key_type})
    write_new(write, answer["request"])
    session.show(answer, _print_authority)


@ca.command(name="import")
def import_chain(chain: Path, /, *, session: Here) -> None:
    """Install the certificate of the requested intermediate; it replaces the present intermediate.

    Args:
        chain: PEM file: the certificate of the intermediate, then the authorities above it, the root last.
    """
    session.show(session.api("POST", "/authorities/import", {"chain": read_text(chain)}), _print_authority)


@ca.command(name="export")
def export(*, write: Path | None = None, chain: bool = False, session: Here) -> None:
    """Print the trust bundle: the certificates of all roots that clients must trust, in PEM.

    Args:
        write: New file for the certificates, which are then not printed.
        chain: Instead of the trust bundle, export the active intermediate and the authorities above it without the
            root.
    """
    rows = session.pages("/authorities", "authorities")
    text = _chain(rows) if chain else "".join(row["certificate"] for row in rows if row["kind"] == "root")
    if not text:
        missing = "active intermediate" if chain else "root"
        hint = "`ostiary ca show` lists the authorities; `ostiary ca init` creates what is missing"
        raise Usage(f"the server has no {missing}, so there is nothing to export", hint=hint)
    if write is None:
        session.show({"certificates": text}, lambda value: out.print(value["certificates"].rstrip(), markup=False))
    else:
        write_new(write, text)


def _chain(rows: list[dict[str, Any]]) -> str:
    by_id = {row["authority_id"]: row for row in rows}
    at = next((row for row in rows if row["kind"] == "intermediate" and row["state"] == "active"), None)
    text = ""
    while at is not None and at["kind"] != "root":
        text += at["certificate"]
        at = by_id.get(at["parent"])
    return text


def _row(one: dict[str, Any]) -> dict[str, str]:
    return {
        "kind": one["kind"],
        "state": one["state"],
        "key_type": one["key_type"] if one["has_key"] else f"{one['key_type']} (elsewhere)",
        "subject": one["subject"],
        "ends": f"{moment(one['not_after'])}Z" if one["certificate"] else "-",
        "id": one["authority_id"],
    }


def _print_revoked(one: dict[str, Any]) -> None:
    new = one["replaced_by"]
    shown = {name: one[name] for name in ("authority_id", "subject", "state", "reason")}
    facts({**shown, "replaced_by": "-" if new is None else new["authority_id"]})


def _print_authority(one: dict[str, Any]) -> None:
    shown = {name: value for name, value in one.items() if name not in ("certificate", "request")}
    facts({**shown, "not_before": f"{moment(one['not_before'])}Z", "not_after": f"{moment(one['not_after'])}Z"})
