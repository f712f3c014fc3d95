"""`ostiary audit`: read, search, prove, export and verify the ledger."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from cyclopts import App, Parameter
from rich.markup import escape
from rich.progress import Progress

from ostiary import ambient
from ostiary.audit import Report, paths_of, verify_folder, write_folder
from ostiary.cli.files import read_bytes, read_json, read_text
from ostiary.cli.names import Names, id_of
from ostiary.cli.paper import err, facts, moment, out
from ostiary.cli.session import FAILED, PAGE, Here, Session, Source, Usage
from ostiary.cli.spans import parse_time
from ostiary.protocol.checkpoint import parse_checkpoint
from ostiary.protocol.errors import Malformed, Refused, Unavailable
from ostiary.protocol.note import parse_note, parse_vkey
from ostiary.protocol.receipt import verify_receipt

R = TypeVar("R", bound=list[dict[str, Any]])
audit = App(name="audit", help="The ledger: every act, the refused ones too.")
_COLOURS = {"ok": "green", "allow": "green", "deny": "red", "refused": "yellow"}
FOLLOW_S = 0.5


@audit.command(name="search")
def search(
    *,
    agent: str | None = None,
    person: str | None = None,
    resource: str | None = None,
    task: str | None = None,
    action: str | None = None,
    outcome: str | None = None,
    data_class: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: int = 100,
    session: Here,
) -> None:
    """Find entries, newest first. Times are in UTC.

    Args:
        agent: Name or id.
        person: Name or id.
        resource: Name or URI.
        task: Id.
        action: What was done, such as token.issue or tool.call.
        outcome: ok, allow, deny, refused or error.
        data_class: Class of data that the tool handles, or that the call touched.
        since: A time (2026-01-31T12:00:00Z) or a span back from now (90s, 15m, 24h, 7d).
        until: Likewise.
        limit: How many at most.
    """
    now = ambient.now()
    query = {
        "agent": id_of(session, "agent", agent),
        "person": id_of(session, "person", person),
        "resource": id_of(session, "resource", resource),
        "task": task,
        "action": action,
        "outcome": outcome,
        "data_class": data_class,
        "since": since and parse_time(since, now=now),
        "until": until and parse_time(until, now=now),
    }
    found = _whole(session.pages("/audit", "entries", limit=limit, query=query, cursor="before"))
    session.show(found, lambda entries: _print_entries(entries, Names(session)))


@audit.command(name="tail")
def tail(
    *,
    follow: Annotated[bool, Parameter(alias="-f")] = False,
    limit: Annotated[int, Parameter(alias="-n")] = 20,
    session: Here,
) -> None:
    """Show the newest entries, oldest of them first. Times are in UTC.

    Args:
        follow: Go on showing what comes, until Ctrl-C.
        limit: How many to begin with.
    """
    names = Names(session)
    entries = _whole(session.pages("/audit", "entries", limit=limit, cursor="before"))[::-1]
    session.show(entries, lambda found: _print_entries(found, names))
    while follow:
        after = entries[-1]["index"] if entries else -1
        time.sleep(FOLLOW_S)
        fresh = _whole(session.api("GET", "/audit", query={"after": after, "limit": PAGE})["entries"])
        if fresh:
            entries = fresh
            session.show(entries, lambda found: _print_entries(found, names))


@audit.command(name="show")
def show(index: int, /, *, session: Here) -> None:
    """Show all that one entry says.

    Args:
        index: Number of the entry.
    """
    entry = session.api("GET", f"/audit/{index}")
    hints = hints_of(entry)
    shown = {"hint": "; ".join(hints)} if hints else {}
    session.show(entry | shown, lambda value: facts({**value, "at": f"{moment(value['at'] / 1e6)}Z"}))


def hints_of(entry: Mapping[str, Any]) -> list[str]:
    """Return the commands that would let a denied call pass, for the operator."""
    resource = str(entry.get("tool") or "").rpartition("/")[0] or "NAME"
    hints = []
    for reason in entry.get("reasons") or []:
        message = str(reason.get("message") or "")
        if (lacking := re.search(r"^agent `([^`]*)` lacks the scope `([^`]*)`", message)) is not None:
            hints.append(f"ostiary agent allow {lacking[1]} {lacking[2]}")
        elif reason.get("code") == "outside_task":
            hints.append("ostiary task start --bounds FILE")
        elif reason.get("code") == "tool_changed":
            hints.append(f"ostiary resource diff {resource} FILE, then ostiary resource accept {resource} FILE")
        elif reason.get("code") == "unknown_tool":
            hints.append(f"ostiary resource catalogue {resource} FILE")
    return list(dict.fromkeys(hints))


@audit.command(name="prove")
def prove(index: int, /, *, session: Here) -> None:
    """Make a receipt (C2SP tlog-proof) that an entry is in the ledger; `audit check` checks it offline.

    Args:
        index: Number of the entry.
    """
    proof = session.api("GET", f"/audit/{index}/proof")
    session.show(proof, lambda value: out.print(value["proof"], markup=False, end=""))


@audit.command(name="check")
def check(receipt: Source, /, *, key: str, session: Here) -> None:
    """Check a receipt without any server; exits with 5 when it does not hold.

    Args:
        receipt: What `audit prove INDEX --json` printed; `-` reads standard input.
        key: The log's public key that you trust (name+id+base64), or a file of it.
    """
    given = read_json(receipt)
    try:
        entry, proof = given["entry"].encode(), given["proof"].encode()
    except (TypeError, KeyError, AttributeError):
        raise Usage(f"{receipt} has no `entry` and `proof`", hint="ostiary audit prove INDEX --json") from None
    trusted = parse_vkey(_key(key))
    try:
        index, checkpoint = verify_receipt(proof, entry=entry, keys=[trusted], origin=trusted.name)
    except Refused as refusal:
        false = {"ok": False, "message": refusal.message}
        session.show(false, lambda value: out.print(f"[red]false[/] {escape(value['message'])}"))
        sys.exit(FAILED)
    said = {"ok": True, "index": index, "size": checkpoint.size, "origin": checkpoint.origin}
    session.show(said, lambda v: out.print(f"[green]verified[/] entry {v['index']} of {v['size']} in {v['origin']}"))


@audit.command(name="export")
def export(folder: Path, /, *, session: Here) -> None:
    """Write tiles, entries, checkpoint and public key, for `audit verify` anywhere.

    Args:
        folder: Where to write; an export there is brought up to date.
    """
    size = _export(session, folder)
    session.show({"folder": str(folder), "size": size}, lambda v: out.print(f"{v['size']} entries in {v['folder']}"))


@audit.command(name="verify")
def verify(folder: Path | None = None, /, *, key: str | None = None, seen: Path | None = None, session: Here) -> None:
    """Recompute everything from the entries and name what was changed; exits with 5 when something was.

    Args:
        folder: An export; without, the running server's ledger is exported and verified.
        key: The log's public key that you trust (name+id+base64), or a file of it; without, the exported one.
        seen: A checkpoint that you saw earlier: finds truncation, rollback and forks.
    """
    trusted = key and _key(key)
    earlier = read_bytes(seen) if seen else None
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            folder = Path(temporary) / "export"
            _export(session, folder)
        elif not folder.is_dir():
            raise Usage(f"{folder} is no folder", hint="ostiary audit export FOLDER")
        with _progress() as progress:
            bar = progress.add_task("verifying", total=None)
            report = verify_folder(
                folder,
                key=trusted,
                seen=earlier,
                progress=lambda done, total: progress.update(bar, completed=done, total=total),
            )
    session.show(_as_dict(report), lambda _: _print_report(report))
    if not report.ok:
        sys.exit(FAILED)


def _whole(entries: R) -> R:
    """Entries, with what the ledger leaves out because it is the rule."""
    entries[:] = [{"outcome": "ok", **entry} for entry in entries]
    return entries


def _export(session: Session, folder: Path) -> int:
    """Fetch what the checkpoint calls for; the number of entries."""

    def fetch(path: str) -> bytes:
        response = session.request("GET", f"/ledger/v1/{path}")
        if response.status_code != 200:
            raise Unavailable(f"the server answers {response.status_code} for {path}")
        return response.content

    note, key = fetch("checkpoint"), fetch("key").decode("ascii")
    size = parse_checkpoint(parse_note(note).text).size
    with _progress() as progress:
        files = ((path, fetch(path)) for path in progress.track(list(paths_of(size)), description="exporting"))
        write_folder(folder, checkpoint=note, key=key, files=files)
    return size


def _progress() -> Progress:
    """For a person who waits."""
    return Progress(console=err, transient=True, disable=not err.is_terminal)


def _key(given: str) -> str:
    """A verification key, or a file of one. Raises Usage."""
    text = given if "+" in given and not Path(given).exists() else read_text(Path(given))
    try:
        parse_vkey(text.strip())
    except Malformed as refusal:
        raise Usage(f"{given} is no verification key: {refusal.message}") from None
    return text.strip()


def _print_entries(entries: list[dict[str, Any]], names: Names) -> None:
    """A line for each entry, never wrapped: `cut` and `grep` work on it."""
    for entry in entries:
        outcome = entry["outcome"]
        who = names(entry.get("agent") or entry.get("person") or entry.get("reporter") or "-")
        what = names(entry.get("tool") or entry.get("object") or entry.get("resource") or "-")
        why = " ".join(reason["code"] for reason in entry.get("reasons", []))
        colour = _COLOURS.get(outcome, "red")
        out.print(
            f"[dim]{entry['index']:>6} {moment(entry['at'] / 1e6)}[/] [{colour}]{outcome:7}[/] {entry['action']:16}"
            f" {escape(who):16} {escape(what)} [{colour}]{escape(why)}[/]"
        )


def _as_dict(report: Report) -> dict[str, Any]:
    checkpoint = report.checkpoint
    return {
        "ok": report.ok,
        "size": checkpoint.size if checkpoint else None,
        "origin": checkpoint.origin if checkpoint else None,
        "trust": report.trust,
        "key_given": report.key_given,
        "seen": report.seen.size if report.seen else None,
        "wrong_entries": report.wrong_count,
        "findings": [msgspec.to_builtins(finding) for finding in report.findings],
    }


def _print_report(report: Report) -> None:
    for finding in report.findings:
        place = f"entry {finding.index}" if finding.index is not None else finding.path or ""
        out.print(f"[red]{finding.kind}[/] [bold]{escape(place)}[/] {escape(finding.message)}")
    if report.wrong_entries is not None:
        first, count = report.wrong_entries
        out.print(f"[red]{count} entries[/] say what no server writes, the first is entry {first}")
    if report.ok and report.checkpoint is not None:
        out.print(f"[green]verified[/] {report.checkpoint.size} entries of {escape(report.checkpoint.origin)}")
    out.print(report.trust, style="dim")
