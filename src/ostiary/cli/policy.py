"""`ostiary policy` and `ostiary decide`: policy as code, and a single decision request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cyclopts import App
from rich.markup import escape

from ostiary import ambient
from ostiary.agent import ServerRefused
from ostiary.cli.exit_codes import DENIED
from ostiary.cli.files import read_json, read_text
from ostiary.cli.output import facts, out, table
from ostiary.cli.session import PAGE, Here, Session, Source, Word
from ostiary.cli.spans import parse_time
from ostiary.cli.usage import Usage
from ostiary.cli.whatif_report import fetch_report, print_report

policy = App(name="policy", help="Test, activate and list policy sets: folders of Cedar files with tests.")
MIN_HASH, HASH_LENGTH = 4, 43
"""Number of characters of the beginning of a hash that is enough, and of a whole hash."""
SUFFIXES = (
    ".cedar",
    ".cedarschema",
    ".entities.json",
    ".rego",
    ".data.json",
    ".opa.toml",
    ".safeguards.toml",
    ".test.toml",
)


@policy.command(name="put")
def put(
    folder: Path,
    /,
    *,
    whatif: str | None = None,
    max_changes: int | None = None,
    lock_out: bool = False,
    watch: bool = False,
    yes: bool = False,
    session: Here,
) -> None:
    """Put a policy set in force: validate, test and activate the set. The earlier active set stays stored.

    Shows what the set adds, changes and removes, and asks before it removes a safeguard of the server.

    Args:
        folder: Folder with the files: .cedar, .cedarschema, .entities.json, .rego, .data.json, .opa.toml,
            .safeguards.toml, .test.toml.
        whatif: Refuse the set if it would change recorded verdicts since this time: a span before now (24h, 7d) or a
            time.
        max_changes: Largest number of changed verdicts with which `--whatif` accepts the set; by default, 0.
        lock_out: Activate the set even if its policies would refuse your own next token.
        watch: Evaluate the set beside the active set, record its verdicts (`candidate`), and enforce nothing.
        yes: Remove safeguards without a question.
    """
    files = read_files(folder)
    locks, watches = ("true" if flag else None for flag in (lock_out, watch))
    query: dict[str, Any] = {"lock_out": locks, "watch": watches}
    if whatif is None and max_changes is not None:
        raise Usage(
            "`--max-changes` needs `--whatif`",
            hint="give both options: ostiary policy put DIR --whatif 7d --max-changes 10",
        )
    if watch:
        session.show(session.api("POST", "/policies", {"files": files}, query=query), facts)
        return
    tested = session.api("POST", "/policies", {"files": files}, query={"dry_run": "true"})
    if whatif is None:
        made = _switch(session, tested["plan"], "/policies", {"files": files}, query=query, yes=yes)
        session.show(made, facts)
        _print_undo(session, tested["plan"], made)
        return
    report = fetch_report(session, files, since=parse_time(whatif, now=ambient.now()))
    query |= {"whatif": report.pop("ticket"), "max_changes": max_changes}
    if not session.as_json:
        print_report(report)
    try:
        made = _switch(session, tested["plan"], "/policies", {"files": files}, query=query, yes=yes)
    except ServerRefused:
        if session.as_json:
            session.show(report, print_report)
        raise
    session.show({**made, "whatif": report} if session.as_json else made, facts)
    _print_undo(session, tested["plan"], made)


@policy.command(name="unwatch")
def unwatch(*, session: Here) -> None:
    """Stop the evaluation that `ostiary policy put --watch` began beside the active set. The set stays stored."""
    session.show(session.api("DELETE", "/policies/watching"), facts)


@policy.command(name="test")
def test(folder: Path, /, *, session: Here) -> None:
    """Test a policy set: validate it, run its tests, and show what it would change, without storing it.

    Args:
        folder: Folder with the files: .cedar, .cedarschema, .entities.json, .rego, .data.json, .opa.toml,
            .safeguards.toml, .test.toml.
    """
    tested = session.api("POST", "/policies", {"files": read_files(folder)}, query={"dry_run": "true"})
    session.show(tested, lambda tested: _print_tested(tested, folder))


@policy.command(name="list")
def list_sets(*, limit: int = PAGE, session: Here) -> None:
    """List the stored policy sets, newest first.

    Args:
        limit: Largest number of rows.
    """
    columns = {
        "hash": "HASH",
        "active": "ACTIVE",
        "watching": "WATCHING",
        "policies": "POLICIES",
        "safeguards": "SAFEGUARDS",
        "tests": "TESTS",
        "created_at": "CREATED",
    }
    rows = session.pages("/policies", "policies", limit=limit)
    session.show(rows, lambda rows: table(rows, columns, empty="no policy set: ostiary policy put FOLDER"))


@policy.command(name="show")
def show(hash: Word | None = None, /, *, session: Here) -> None:
    """Show the files of a policy set.

    Args:
        hash: Hash of the set; by default, the active set.
    """
    session.show(_fetch(session, hash), _print)


@policy.command(name="export")
def export(folder: Path, /, *, hash: Word | None = None, session: Here) -> None:
    """Export the files of a policy set into a folder. Change them there, then run `ostiary policy put FOLDER`.

    The files do not include the safeguards of the server, which each set extends (`ostiary policy show`).

    Args:
        folder: New folder.
        hash: Hash of the set; by default, the active set.
    """
    exported = _fetch(session, hash)
    folder.mkdir(parents=True)
    for name, text in exported["files"].items():
        place = folder / name
        if not place.resolve().is_relative_to(folder.resolve()):
            raise Usage(f"the set has a file {name!r} outside of its folder", hint="export another set")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
    session.show({"hash": exported["hash"], "folder": str(folder), "files": sorted(exported["files"])}, facts)


@policy.command(name="activate")
def activate(hash: Word, /, *, lock_out: bool = False, yes: bool = False, session: Here) -> None:
    """Activate a stored policy set.

    Shows what the set adds, changes and removes, and asks before it removes a safeguard of the server.

    Args:
        hash: Hash of the set.
        lock_out: Activate the set even if its policies would refuse your own next token.
        yes: Remove safeguards without a question.
    """
    path = f"/policies/{_whole(session, hash)}/activate"
    plan = session.api("POST", path, {}, query={"dry_run": "true"})["plan"]
    made = _switch(session, plan, path, {}, query={"lock_out": "true"} if lock_out else {}, yes=yes)
    session.show(made, facts)
    _print_undo(session, plan, made)


def decide(file: Source, /, *, session: Here) -> None:
    """Request a decision; exits with 4 on a deny.

    Args:
        file: AuthZEN evaluation request in JSON; `-` reads standard input.
    """
    decision = session.api("POST", "/decide", read_json(file))
    session.show(decision, _print_decision)
    if not decision["decision"]:
        sys.exit(DENIED)


def _print_decision(decision: dict[str, Any]) -> None:
    out.print("[green]allow[/]" if decision["decision"] else "[red]deny[/]")
    context = decision.get("context", {})
    for reason in context.get("reasons", []):
        out.print(f"  {reason['message']}", markup=False)
        if reason.get("hint"):
            out.print(f"  {reason['hint']}", style="dim", markup=False)
    facts({"policies": context.get("policies"), "policy set": context.get("policy")})


def _print(shown: dict[str, Any]) -> None:
    for name, text in sorted(shown["files"].items()):
        out.print(f"// {name}", style="dim", markup=False)
        out.print(text, markup=False)
    for id, text in shown["extends"].items():
        out.print(f"// safeguard of the server: {id}", style="dim", markup=False)
        out.print(text, markup=False)
    for id in shown["left_out"]:
        out.print(f"// safeguard of the server that does not apply: {id}", style="dim", markup=False)


def _switch(
    session: Session, plan: dict[str, Any], path: str, body: dict[str, Any], *, query: dict[str, Any], yes: bool
) -> Any:
    """Show the plan, ask before safeguards are removed, and activate the new set. Return the server's answer. Raises
    Usage if the person does not confirm, ServerRefused if the active set is no longer the set with which the plan was
    compared.
    """
    if not session.as_json:
        print_plan(plan)
    if (loses := plan["loses"]) and not yes:
        session.confirm("remove these safeguards?", change=f"safeguards would be removed: {', '.join(loses)}")
    headers = {"if-match": f'"{plan["against"]}"'}
    return session.api("POST", path, {**body, "loses": loses}, query=query, headers=headers)


def print_plan(plan: dict[str, Any]) -> None:
    """Print each policy and file that is added, changed or removed, then the removed safeguards."""
    for item in plan["added"]:
        out.print(f"[green]+[/] {_item(item)}")
    for change in plan["changed"]:
        before, after = change["before"], change["after"]
        was = "" if _kind(before) == _kind(after) else f"; was: {_kind(before)}"
        out.print(f"[yellow]~[/] {_item(after)}{was}")
    for item in plan["removed"]:
        out.print(f"[red]-[/] {_item(item)}")
    for name, does in plan["files"].items():
        sign = {"added": "[green]+[/]", "changed": "[yellow]~[/]", "removed": "[red]-[/]"}[does]
        out.print(f"{sign} {escape(name)}")
    if not (plan["added"] or plan["changed"] or plan["removed"] or plan["files"]):
        out.print("no policy changes", style="dim")
    if kept := [id for id in plan["left_out"] if id not in plan["loses"]]:
        out.print(f"safeguards of the server that do not apply, before or after: {', '.join(kept)}", markup=False)
    if plan["loses"]:
        out.print(f"[red]removed safeguards of the server:[/] {escape(', '.join(plan['loses']))}")


def _item(item: dict[str, Any]) -> str:
    return f"{escape(item['id'])}  {_kind(item)}{', safeguard' if item['safeguard'] else ''}"


def _kind(item: dict[str, Any]) -> str:
    return f"{item['effect']}{', watch only' if item['mode'] == 'watch' else ''}"


def _print_tested(tested: dict[str, Any], folder: Path) -> None:
    print_plan(tested["plan"])
    facts({name: value for name, value in tested.items() if name not in ("plan", "active")})
    words = f"nothing changed; show the recorded verdicts that would change: ostiary whatif {folder}"
    out.print(words, style="dim", markup=False)


def _print_undo(session: Session, plan: dict[str, Any], made: dict[str, Any]) -> None:
    if not session.as_json and made["hash"] != plan["against"]:
        out.print(f"undo: ostiary policy activate {plan['against']}", markup=False)


def _fetch(session: Session, hash: str | None) -> Any:
    if hash is None:
        hash = next(one["hash"] for one in session.pages("/policies", "policies") if one["active"])
    return session.api("GET", f"/policies/{_whole(session, hash)}")


def _whole(session: Session, hash: str) -> str:
    """Return the hash that begins with `hash`: `ostiary doctor` and tables show only the beginning. Other text is
    returned unchanged. Raises Usage if several hashes begin with it.
    """
    if not MIN_HASH <= len(hash) < HASH_LENGTH:
        return hash
    listed = session.pages("/policies", "policies", limit=100 * PAGE)
    matches = [one["hash"] for one in listed if one["hash"].startswith(hash)]
    if len(matches) > 1:
        raise Usage(f"`{hash}` is ambiguous: {', '.join(matches)}", hint="write more characters of the hash")
    return str(matches[0]) if matches else hash


def active_set(session: Session) -> Any:
    """Return the active set: its files, and the safeguards of the server that it extends."""
    return _fetch(session, None)


def active_files(session: Session) -> dict[str, str]:
    """Return the files of the active set by name. Raises Usage if a name, such as `../x`, leads outside of the set's
    folder.
    """
    files: dict[str, str] = active_set(session)["files"]
    for name in files:
        if not Path("/set", name).resolve().is_relative_to("/set"):
            raise Usage(f"the set has a file {name!r} outside of its folder", hint="activate another set")
    return files


def read_files(folder: Path) -> dict[str, str]:
    """Return the texts of the policy files in and below a folder, by their path in the folder. Raises Usage for a
    folder without policy files.
    """
    if not folder.is_dir():
        raise Usage(f"{folder} is not a folder", hint="name the folder of a policy set: ostiary policy export DIR")
    paths = [path for path in sorted(folder.rglob("*")) if path.name.endswith(SUFFIXES) and path.is_file()]
    if not paths:
        raise Usage(f"{folder} has no policy files", hint=f"files end in {', '.join(SUFFIXES)}")
    return {path.relative_to(folder).as_posix(): read_text(path) for path in paths}
