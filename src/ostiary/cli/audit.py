"""`ostiary audit`: read, search, prove, export and verify the ledger."""

from __future__ import annotations

import json
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

from ostiary import ambient
from ostiary.agent import ServerRefused
from ostiary.audit import Report, paths_of, verify_folder, write_folder
from ostiary.cli.exit_codes import FAILED
from ostiary.cli.files import read_bytes, read_json, read_text, write_new
from ostiary.cli.names import Names, id_of
from ostiary.cli.output import facts, moment, out, progress, table, value_text
from ostiary.cli.session import PAGE, Here, Session, Source
from ostiary.cli.spans import parse_time
from ostiary.cli.usage import Usage
from ostiary.protocol.checkpoint import parse_checkpoint
from ostiary.protocol.errors import Malformed, Refused, Unavailable
from ostiary.protocol.note import parse_note, parse_vkey
from ostiary.protocol.receipt import verify_receipt

R = TypeVar("R", bound=list[dict[str, Any]])
audit = App(name="audit", help="Search, export and verify the ledger.")

FOLLOW_S = 0.5
_APPROVAL = re.compile(r"ap_[0-9a-f]{32}")


@audit.command(name="search")
def search(
    *,
    agent: str | None = None,
    about: str | None = None,
    person: str | None = None,
    resource: str | None = None,
    task: str | None = None,
    action: str | None = None,
    outcome: str | None = None,
    data_class: str | None = None,
    since: str | None = None,
    until: str | None = None,
    reads: bool = False,
    limit: int = 100,
    receipts: Path | None = None,
    session: Here,
) -> None:
    """Search entries, newest first. Times are in UTC.

    Args:
        agent: Agent that acted: name or id.
        about: Agent to which others did something, such as a stop: name or id.
        person: Person that acted, or for whom an agent acted: name or id.
        resource: Resource of the call or token: name, id or URI.
        task: Id of a task.
        action: Action, such as token.issue or tool.call.
        outcome: ok, allow, deny, refused or error.
        data_class: Data class that the tool handles, or that the call touched.
        since: Start of the period: a time (2026-01-31T12:00:00Z) or a span before now (90s, 15m, 24h, 7d).
        until: End of the period, in the same form.
        reads: Include entries about tokens for this server's own API, such as those of each `ostiary` command. With
            `--action` or `--resource`, these entries are always included.
        limit: Largest number of entries.
        receipts: Write the receipts of the entries to this new file, a bundle for `ostiary audit check`.
    """
    now = ambient.now()
    query = {
        "agent": id_of(session, "agent", agent),
        "about": id_of(session, "agent", about),
        "person": id_of(session, "person", person),
        "resource": id_of(session, "resource", resource),
        "task": task,
        "action": action,
        "outcome": outcome,
        "data_class": data_class,
        "since": since and parse_time(since, now=now),
        "until": until and parse_time(until, now=now),
        "reads": _reads(reads or action is not None or resource is not None),
    }
    if receipts is not None:
        rows = session.pages("/audit/receipts", "receipts", limit=limit, query=query, cursor="before")
        write_new(receipts, json.dumps({"receipts": rows}))
        made = {"file": str(receipts), "receipts": len(rows)}
        session.show(made, lambda v: out.print(f"{v['file']}: {rows.describe()}", markup=False))
        return
    entries = _complete(session.pages("/audit", "entries", limit=limit, query=query, cursor="before", counts=True))
    session.show(entries, lambda entries: _print_entries(entries, Names(session)))


@audit.command(name="tail")
def tail(
    *,
    follow: Annotated[bool, Parameter(alias="-f")] = False,
    limit: Annotated[int, Parameter(alias="-n")] = 20,
    reads: bool = False,
    session: Here,
) -> None:
    """Show the newest entries, in the order of the ledger. Times are in UTC.

    Args:
        follow: Show new entries as they come, until Ctrl-C.
        limit: Number of entries to begin with.
        reads: Include entries about tokens for this server's own API, such as those of each `ostiary` command.
    """
    names, query = Names(session), {"reads": _reads(reads)}
    entries = _complete(session.pages("/audit", "entries", limit=limit, query=query, cursor="before"))[::-1]
    session.show(entries, lambda entries: _print_entries(entries, names))
    while follow:
        after = entries[-1]["index"] if entries else -1
        time.sleep(FOLLOW_S)
        fresh = _complete(session.api("GET", "/audit", query={**query, "after": after, "limit": PAGE})["entries"])
        if fresh:
            entries = fresh
            session.show(entries, lambda entries: _print_entries(entries, names))


@audit.command(name="show")
def show(index: int, /, *, session: Here) -> None:
    """Show an entry with the names behind its ids, and the answers to its approvals.

    Args:
        index: Number of the entry.
    """
    [entry] = _complete([session.api("GET", f"/audit/{index}")])
    hints = hints_of(entry)
    shown = entry | ({"hint": "; ".join(hints)} if hints else {})
    session.show(shown, lambda value: _print_entry(value, Names(session), _answers(session, entry)))


def hints_of(entry: Mapping[str, Any]) -> list[str]:
    """Return the commands by which an operator could let such a denied call pass, one for each reason of the entry that
    has a known command.
    """
    resource = str(entry.get("tool") or "").rpartition("/")[0] or "NAME"
    hints = []
    for reason in entry.get("reasons") or []:
        message = str(reason.get("message") or "")
        if (lacking := re.search(r"^(agent|the task) `([^`]*)` lacks the scope `([^`]*)`", message)) is not None:
            is_agent, scope = lacking[1] == "agent", lacking[3]
            start = f"ostiary task start --agent AGENT --purpose WORDS --scope {scope}"
            hints.append(f"ostiary agent allow {lacking[2]} {scope}" if is_agent else start)
        elif reason.get("code") == "outside_task":
            hints.append("ostiary task start --agent AGENT --purpose WORDS --bounds FILE")
        elif reason.get("code") == "tool_changed":
            hints.append(f"ostiary resource diff {resource} FILE, then ostiary resource accept {resource} FILE")
        elif reason.get("code") == "unknown_tool":
            hints.append(f"ostiary resource catalogue {resource} FILE")
    return list(dict.fromkeys(hints))


@audit.command(name="prove")
def prove(index: int, /, *, session: Here) -> None:
    """Prove that an entry is in the ledger: print the proof (C2SP tlog-proof); with `--json` the receipt, which is the
    entry with its proof, for `ostiary audit check`.

    Args:
        index: Number of the entry.
    """
    proof = session.api("GET", f"/audit/{index}/proof")
    session.show(proof, lambda value: out.print(value["proof"], markup=False, end=""))


@audit.command(name="checkpoints")
def list_checkpoints(*, limit: int = PAGE, session: Here) -> None:
    """List the signed checkpoints that the server has kept, at most one an hour, newest first.

    With `--json`, the list contains the checkpoints themselves, as signed notes (C2SP).

    Args:
        limit: Largest number of rows.
    """
    rows = session.pages("/audit/checkpoints", "checkpoints", limit=limit)
    shown = [{"size": row["size"], "kept_at": row["at"] / 1_000_000} for row in rows]
    session.show(rows, lambda _: table(shown, {"size": "ENTRIES", "kept_at": "KEPT"}, empty="no checkpoint kept yet"))


@audit.command(name="check")
def check(receipt: Source, /, *, key: str, session: Here) -> None:
    """Check a receipt, or a bundle of receipts, offline; exits with 5 if a receipt does not verify.

    Args:
        receipt: Output of `ostiary audit prove INDEX --json`, or a bundle from `ostiary audit search --receipts` or the
            console; `-` reads standard input.
        key: Trusted public key of the log (name+id+base64), or a file of it.
    """
    hint = "create a receipt: ostiary audit prove INDEX --json > FILE"
    content, trusted = read_json(receipt, hint=hint), parse_vkey(_key(key))
    unverified = content.get("receipts", [content]) if isinstance(content, dict) else None
    if not isinstance(unverified, list) or not unverified:
        raise Usage(f"{receipt} has no receipt", hint=hint)
    indexes = []
    for place, one in enumerate(unverified):
        try:
            entry, proof = one["entry"].encode(), one["proof"].encode()
        except (TypeError, KeyError, AttributeError):
            raise Usage(f"{receipt} has no `entry` and `proof`", hint=hint) from None
        try:
            index, checkpoint = verify_receipt(proof, entry=entry, keys=[trusted], origin=trusted.name)
        except Refused as refusal:
            where = f"receipt {place + 1} of {len(unverified)}: " if len(unverified) > 1 else ""
            false = {"ok": False, "message": where + refusal.message}
            session.show(false, lambda value: out.print(f"[red]false[/] {escape(value['message'])}"))
            sys.exit(FAILED)
        indexes.append(index)
    if "receipts" in content:
        checked = {"ok": True, "indexes": indexes, "origin": trusted.name}
        session.show(checked, lambda v: out.print(f"[green]verified[/] {len(v['indexes'])} entries of {v['origin']}"))
    else:
        checked = {"ok": True, "index": index, "size": checkpoint.size, "origin": checkpoint.origin}
        session.show(
            checked, lambda v: out.print(f"[green]verified[/] entry {v['index']} of {v['size']} in {v['origin']}")
        )


@audit.command(name="export")
def export(folder: Path, /, *, session: Here) -> None:
    """Export tiles, entries, checkpoint and public key, for `ostiary audit verify` on any machine.

    Args:
        folder: Folder of the export; an earlier export in it is updated.
    """
    size = _export(session, folder)
    session.show({"folder": str(folder), "size": size}, lambda v: out.print(f"{v['size']} entries in {v['folder']}"))


@audit.command(name="verify")
def verify(
    folder: Path | None = None,
    /,
    *,
    key: str | None = None,
    earlier_checkpoint: Annotated[Path | None, Parameter(name="--seen")] = None,
    session: Here,
) -> None:
    """Verify the ledger: recompute its tree, and report what differs; exits with 5 if anything is wrong.

    Args:
        folder: Folder of an export; without it, the command exports the ledger of the running server.
        key: Trusted public key of the log (name+id+base64), or a file of it; by default, the exported key.
        earlier_checkpoint: File of an earlier checkpoint, which shows truncation, rollback and forks.
    """
    trusted = key and _key(key)
    earlier = read_bytes(earlier_checkpoint) if earlier_checkpoint else None
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            folder = Path(temporary) / "export"
            _export(session, folder)
        elif not folder.is_dir():
            raise Usage(f"{folder} is not a folder", hint="create an export: ostiary audit export FOLDER")
        with progress() as shown:
            bar = shown.add_task("verifying", total=None)
            report = verify_folder(
                folder,
                key=trusted,
                earlier_note=earlier,
                progress=lambda done, total: shown.update(bar, completed=done, total=total),
            )
    session.show(_as_dict(report), lambda _: _print_report(report))
    if not report.ok:
        sys.exit(FAILED)


def _complete(entries: R) -> R:
    """Add `outcome` to each entry that has none, because the ledger does not store the default outcome `ok`. Return
    the same list.
    """
    entries[:] = [{"outcome": "ok", **entry} for entry in entries]
    return entries


def _reads(are_shown: bool) -> str | None:
    """Return the value of the filter for reads; None, the server's default, includes reads."""
    return None if are_shown else "no"


def _export(session: Session, folder: Path) -> int:
    """Fetch the files of the present checkpoint into a folder, and return the number of entries."""

    def fetch(path: str) -> bytes:
        response = session.request("GET", f"/ledger/v1/{path}")
        if response.status_code != 200:
            raise Unavailable(f"the server answers {response.status_code} for {path}", hint="run the export again")
        return response.content

    note, key = fetch("checkpoint"), fetch("key").decode("ascii")
    size = parse_checkpoint(parse_note(note).text).size
    with progress() as shown:
        files = ((path, fetch(path)) for path in shown.track(list(paths_of(size)), description="exporting"))
        write_folder(folder, checkpoint=note, key=key, files=files)
    return size


def _key(key_or_file: str) -> str:
    """Return the verification key `key_or_file`, or the key in the file with this path. Raises Usage if neither is a
    verification key.
    """
    is_key = "+" in key_or_file and not Path(key_or_file).exists()
    text = key_or_file if is_key else read_text(Path(key_or_file))
    try:
        parse_vkey(text.strip())
    except Malformed as refusal:
        hint = "a key has the form name+id+base64"
        raise Usage(f"{key_or_file} is not a verification key: {refusal.message}", hint=hint) from None
    return text.strip()


def _print_entries(entries: list[dict[str, Any]], names: Names) -> None:
    """Print a row for each entry."""
    columns = {
        "index": "ENTRY",
        "time": "TIME",
        "outcome": "OUTCOME",
        "action": "ACTION",
        "subject": "SUBJECT",
        "object": "OBJECT",
        "reasons": "REASONS",
    }
    rows = [
        {
            "index": entry["index"],
            "time": f"{moment(entry['at'] / 1e6)}Z",
            "outcome": entry["outcome"],
            "action": entry["action"],
            "subject": names(entry.get("agent") or entry.get("person") or entry.get("reporter") or "-"),
            "object": names(entry.get("tool") or entry.get("object") or entry.get("resource") or "-"),
            "reasons": " ".join(reason["code"] for reason in entry.get("reasons", [])),
        }
        for entry in entries
    ]
    table(rows, columns, empty="no entries")


def _answers(session: Session, entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the persons who answered each approval in the entry, with their reasons, by approval."""
    shown: dict[str, str] = {}
    for id in sorted(set(_APPROVAL.findall(json.dumps(entry)))):
        try:
            question = session.api("GET", f"/approvals/{id}")
        except ServerRefused:
            continue  # deleted after its time, or not for this caller: the entry's id stays on the screen
        answers = [
            f"{'approved' if one['says'] == 'approve' else 'denied'} by {one['person']}: {one['reason']}"
            for one in question.get("answers", [])
        ]
        shown[f"approval {id}"] = "; ".join(answers) or question["state"]
    return shown


def _print_entry(entry: Mapping[str, Any], names: Names, answers: Mapping[str, str]) -> None:
    """Print an entry: a line for each member, names before ids, reasons in words, one line for each argument
    and detail.
    """
    simple: dict[str, Any] = {"entry": entry["index"], "time": f"{moment(entry['at'] / 1e6)}Z"}
    nested = ("reasons", "arguments", "result", "detail", "rows")
    for name, value in entry.items():
        if name in ("index", "at", *nested):
            continue
        if isinstance(value, list):
            simple[name] = ", ".join(names.with_id(str(item)) for item in value)
        else:
            simple[name] = names.with_id(str(value))
    for place, reason in enumerate(entry.get("reasons", [])):
        message = names.in_text(reason.get("message", ""))
        simple["reason" if place == 0 else f"reason {place + 1}"] = ": ".join(filter(None, (reason["code"], message)))
    for name in nested[1:]:
        for key, value in (entry.get(name) or {}).items():
            simple[f"{name.removesuffix('s')} {key}"] = names.in_text(value_text(value))
    facts({**simple, **answers})


def _as_dict(report: Report) -> dict[str, Any]:
    checkpoint = report.checkpoint
    return {
        "ok": report.ok,
        "size": checkpoint.size if checkpoint else None,
        "origin": checkpoint.origin if checkpoint else None,
        "trust": report.trust,
        "key_given": report.key_given,
        "seen": report.earlier.size if report.earlier else None,
        "wrong_entries": report.wrong_count,
        "findings": [msgspec.to_builtins(finding) for finding in report.findings],
    }


def _print_report(report: Report) -> None:
    for finding in report.findings:
        place = f"entry {finding.index}" if finding.index is not None else finding.path or ""
        out.print(f"[red]{finding.kind}[/] [bold]{escape(place)}[/] {escape(finding.message)}")
    if report.wrong_entries is not None:
        first, count = report.wrong_entries
        out.print(f"[red]{count} entries[/] have content that no server writes; the first is entry {first}")
    if report.ok and report.checkpoint is not None:
        out.print(f"[green]verified[/] {report.checkpoint.size} entries of {escape(report.checkpoint.origin)}")
    out.print(report.trust, style="dim")
