"""`ostiary audit`: read, search, prove, export and verify the ledger."""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter
from rich.markup import escape
from rich.progress import Progress

from ostiary.audit import Report, paths_of, verify_folder, write_folder
from ostiary.cli.registry import Hidden
from ostiary.cli.session import FAILED, Session, err, out
from ostiary.core.checkpoint import parse_checkpoint
from ostiary.core.errors import Unavailable
from ostiary.core.note import parse_note

audit = App(name="audit", help="The ledger: every act, refused ones too.")
_COLOURS = {"ok": "green", "allow": "green", "deny": "red", "refused": "yellow"}


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
    entries = session.api("GET", "/audit", query=query)["entries"]
    session.show(entries, lambda found: _print_entries(found, _names(session)))


@audit.command
def tail(
    *, follow: Annotated[bool, Parameter(alias="-f", negative="")] = False, limit: int = 20, session: Hidden
) -> None:
    """Show the newest entries, oldest of them first.

    Parameters
    ----------
    follow: Go on showing what comes.
    """
    names = {} if session.as_json else _names(session)
    entries = session.api("GET", "/audit", query={"limit": limit})["entries"][::-1]
    session.show(entries, lambda found: _print_entries(found, names))
    while follow:
        after = entries[-1]["index"] if entries else -1
        time.sleep(0.5)
        fresh = session.api("GET", "/audit", query={"after": after, "limit": 1000})["entries"]
        if fresh:
            entries = fresh
            session.show(entries, lambda found: _print_entries(found, names))


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
    session.show(_as_dict(report), lambda _: _print_report(report))
    if not report.ok:
        sys.exit(FAILED)


def _export(session: Session, folder: Path) -> int:
    """Fetch what the checkpoint calls for; the number of entries."""

    with session.agent() as agent, Progress(console=err, transient=True) as progress:

        def fetch(path: str) -> bytes:
            response = agent.request("GET", f"{session.url}/ledger/v1/{path}", resource=f"{agent.issuer}/api/v1")
            if response.status_code != 200:
                raise Unavailable(f"the server answers {response.status_code} for {path}")
            return response.content

        note, key = fetch("checkpoint"), fetch("key").decode("ascii")
        size = parse_checkpoint(parse_note(note).text).size
        paths = list(paths_of(size))
        files = ((path, fetch(path)) for path in progress.track(paths, description="exporting"))
        write_folder(folder, checkpoint=note, key=key, files=files)
    return size


def _key(given: str | None) -> str | None:
    return Path(given).read_text("ascii").strip() if given and Path(given).is_file() else given


def _names(session: Session) -> dict[str, str]:
    """The names of agents by id, for people."""
    agents = session.api("GET", "/agents", query={"limit": 1000})["agents"]
    return {agent["agent_id"]: agent["name"] for agent in agents}


def _print_entries(entries: list[dict[str, Any]], names: dict[str, str]) -> None:
    """A line an entry, never wrapped: `cut` and `grep` work on it."""
    for entry in entries:
        when = datetime.fromtimestamp(entry["at"] / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")
        outcome = entry.get("outcome", "ok")
        agent = entry.get("agent") or entry.get("person") or entry.get("reporter") or "-"
        named = entry.get("tool") or entry.get("object") or entry.get("resource") or "-"
        why = " ".join(reason["code"] for reason in entry.get("reasons", []))
        colour = _COLOURS.get(outcome, "red")
        out.print(
            f"[dim]{entry['index']:>6} {when}[/] [{colour}]{outcome:7}[/] {entry['action']:16}"
            f" {escape(names.get(agent, agent)):16} {escape(names.get(named, named))} [{colour}]{escape(why)}[/]"
        )


def _as_dict(report: Report) -> dict[str, Any]:
    checkpoint = report.checkpoint
    return {
        "ok": report.ok,
        "size": checkpoint.size if checkpoint else None,
        "origin": checkpoint.origin if checkpoint else None,
        "trust": report.trust,
        "seen": report.seen.size if report.seen else None,
        "findings": [msgspec.to_builtins(finding) for finding in report.findings],
    }


def _print_report(report: Report) -> None:
    for finding in report.findings:
        place = f"entry {finding.index}" if finding.index is not None else finding.path or ""
        out.print(f"[red]{finding.kind}[/] [bold]{escape(place)}[/] {escape(finding.message)}")
    if report.ok and report.checkpoint is not None:
        out.print(f"[green]verified[/] {report.checkpoint.size} entries of {escape(report.checkpoint.origin)}")
    out.print(report.trust, style="dim")
