"""`ostiary audit`: read, search, prove, export and verify the ledger."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.progress import Progress

from ostiary.audit import verify_folder
from ostiary.cli.registry import Hidden
from ostiary.cli.session import FAILED, Session, err, out, table
from ostiary.core.errors import Invalid

audit = App(name="audit", help="The ledger: every act, refused ones too.")
COLUMNS = {
    "index": "#",
    "when": "WHEN",
    "outcome": "OUTCOME",
    "action": "ACTION",
    "agent": "AGENT",
    "object": "OBJECT",
    "why": "WHY",
}


def add_to(app: App) -> None:
    app.command(audit)


@audit.command
def search(
    *,
    agent: str | None = None,
    task: str | None = None,
    person: str | None = None,
    resource: str | None = None,
    action: str | None = None,
    outcome: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: int = 100,
    session: Hidden,
) -> None:
    """Find entries, newest first.

    Parameters
    ----------
    agent: Name or id.
    since: A time (2026-01-31T12:00:00Z) or a span back from now (90s, 15m, 24h, 7d).
    until: Likewise.
    """
    query = {
        "agent": agent, "task": task, "person": person, "resource": resource, "action": action, "outcome": outcome,
        "since": since, "until": until, "limit": limit,
    }  # fmt: skip
    session.show(session.api("GET", "/audit", query=query)["entries"], _print_entries)


@audit.command
def tail(
    *, follow: Annotated[bool, Parameter(alias="-f", negative="")] = False, limit: int = 20, session: Hidden
) -> None:
    """Show the newest entries, oldest of them first.

    Parameters
    ----------
    follow: Go on showing what comes.
    """
    entries = session.api("GET", "/audit", query={"limit": limit})["entries"][::-1]
    session.show(entries, _print_entries)
    while follow:
        after = entries[-1]["index"] if entries else -1
        time.sleep(0.5)
        fresh = session.api("GET", "/audit", query={"after": after, "limit": 1000})["entries"]
        if fresh:
            entries = fresh
            session.show(entries, _print_entries)


@audit.command
def prove(index: int, *, session: Hidden) -> None:
    """A receipt (C2SP tlog-proof) that entry INDEX is in the ledger; anybody can check it offline."""
    proof = session.api("GET", f"/audit/{index}/proof")
    session.show(proof, lambda value: out.print(value["proof"], markup=False, end=""))


@audit.command
def export(folder: Path, *, session: Hidden) -> None:
    """Write tiles, entries, checkpoint and public key to FOLDER, for `verify` anywhere."""
    size = _export(session, folder)
    session.show({"folder": str(folder), "size": size}, lambda v: out.print(f"{v['size']} entries in {v['folder']}"))


@audit.command
def verify(folder: Path | None = None, *, key: str | None = None, seen: Path | None = None, session: Hidden) -> None:
    """Recompute everything from the entries; name what was changed. Exits with 5 when something was.

    Parameters
    ----------
    folder: An export; without, the running server's ledger is exported and verified.
    key: The log's public key that you trust (`name+id+base64`, or a file of it); without, the exported one.
    seen: A checkpoint that you saw earlier: finds truncation, rollback and forks.
    """
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            folder = Path(temporary) / "export"
            _export(session, folder)
        with Progress(console=err, transient=True) as progress:
            bar = progress.add_task("verifying", total=None)
            report = verify_folder(
                folder,
                key=_key(key),
                seen=seen.read_bytes() if seen else None,
                progress=lambda done, total: progress.update(bar, completed=done, total=total),
            )
    session.show(report.as_dict(), lambda _: _print_report(report))
    if not report.ok:
        sys.exit(FAILED)


def _export(session: Session, folder: Path) -> int:
    raise Invalid(f"cannot export to {folder}", hint=str(session))


def _key(given: str | None) -> str | None:
    return Path(given).read_text("ascii").strip() if given and Path(given).is_file() else given


def _print_entries(entries: list[dict[str, Any]]) -> None:
    table([_row(entry) for entry in entries], COLUMNS, empty="nothing found")


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    reasons = [reason["code"] for reason in entry.get("reasons", [])]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry["at"] / 1e6))
    named = entry.get("tool") or entry.get("object") or entry.get("resource")
    return {**entry, "index": str(entry["index"]), "when": when, "object": named, "why": " ".join(reasons)}


def _print_report(report: Any) -> None:
    for finding in report.findings:
        out.print(f"[red]{finding.kind}[/] {finding.message}", highlight=False)
    out.print(report.summary)
