"""`ostiary policy` and `ostiary decide`: policy as code, and one question to the decision point."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cyclopts import App

from ostiary import ambient
from ostiary.agent import ServerRefused
from ostiary.cli.files import read_json, read_text
from ostiary.cli.paper import facts, out, table
from ostiary.cli.replayed import print_report, replayed
from ostiary.cli.session import DENIED, PAGE, Here, Session, Source, Usage, Word
from ostiary.cli.spans import parse_time

policy = App(name="policy", help="Policy sets: a folder of Cedar files with their tests. Git is their home.")
SUFFIXES = (".cedar", ".cedarschema", ".entities.json", ".rego", ".data.json", ".opa.toml", ".test.toml")


@policy.command(name="put")
def put(
    folder: Path,
    /,
    *,
    whatif: str | None = None,
    max_changes: int | None = None,
    lock_out: bool = False,
    watch: bool = False,
    session: Here,
) -> None:
    """Validate, test and activate a policy set; the one before stays on the shelf.

    Args:
        folder: Where its files are: .cedar, .cedarschema, .entities.json, .rego, .data.json, .opa.toml, .test.toml.
        whatif: Refuse it where verdicts since then would change, or cannot be replayed: a span (24h, 7d) or a time.
        max_changes: How many of them may, none if it is not said.
        lock_out: Though it would give you no other token.
        watch: Let it decide beside the active set, be on record (`candidate`), and enforce nothing.
    """
    files = read_files(folder)
    locks, watches = ("true" if flag else None for flag in (lock_out, watch))
    if whatif is None:
        if max_changes is not None:
            raise Usage("--max-changes counts what --whatif finds", hint="ostiary policy put DIR --whatif 7d")
        session.show(
            session.api("POST", "/policies", {"files": files}, query={"lock_out": locks, "watch": watches}), facts
        )
        return
    found = replayed(session, files, since=parse_time(whatif, now=ambient.now()))
    query = {"whatif": found.pop("ticket"), "max_changes": max_changes, "lock_out": locks, "watch": watches}
    if not session.as_json:
        print_report(found)
    try:
        made = session.api("POST", "/policies", {"files": files}, query=query)
    except ServerRefused:
        if session.as_json:
            session.show(found, print_report)
        raise
    session.show({**made, "whatif": found} if session.as_json else made, facts)


@policy.command(name="unwatch")
def unwatch(*, session: Here) -> None:
    """Let no set watch any more; it stays on the shelf."""
    session.show(session.api("DELETE", "/policies/watching"), facts)


@policy.command(name="test")
def test(folder: Path, /, *, session: Here) -> None:
    """Validate a policy set and run its tests; nothing is kept.

    Args:
        folder: Where its files are: .cedar, .cedarschema, .entities.json, .rego, .data.json, .opa.toml, .test.toml.
    """
    session.show(session.api("POST", "/policies", {"files": read_files(folder)}, query={"dry_run": "true"}), facts)


@policy.command(name="list")
def list_sets(*, limit: int = PAGE, session: Here) -> None:
    """List the sets on the shelf, newest first.

    Args:
        limit: How many at most.
    """
    columns = {
        "hash": "HASH",
        "active": "ACTIVE",
        "watching": "WATCHING",
        "policies": "POLICIES",
        "tests": "TESTS",
        "created_at": "CREATED",
    }
    found = session.pages("/policies", "policies", limit=limit)
    session.show(found, lambda rows: table(rows, columns, empty="no policy set"))


@policy.command(name="show")
def show(hash: Word | None = None, /, *, session: Here) -> None:
    """Show the files of a set.

    Args:
        hash: Of the set; without, the active one.
    """
    session.show(_fetch(session, hash), _print)


@policy.command(name="export")
def export(folder: Path, /, *, hash: Word | None = None, session: Here) -> None:
    """Write the files of a set, to begin with or to compare.

    Args:
        folder: A new folder.
        hash: Of the set; without, the active one.
    """
    found = _fetch(session, hash)
    folder.mkdir(parents=True)
    for name, text in found["files"].items():
        place = folder / name
        if not place.resolve().is_relative_to(folder.resolve()):
            raise Usage(f"the set has a file {name!r} outside of its folder")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, "utf-8")
    session.show({"hash": found["hash"], "folder": str(folder), "files": sorted(found["files"])}, facts)


@policy.command(name="activate")
def activate(hash: Word, /, *, lock_out: bool = False, session: Here) -> None:
    """Go back, or forward, to a set on the shelf.

    Args:
        hash: Of the set.
        lock_out: Though it would give you no other token.
    """
    query = {"lock_out": "true"} if lock_out else {}
    session.show(session.api("POST", f"/policies/{hash}/activate", {}, query=query), facts)


def decide(file: Source, /, *, session: Here) -> None:
    """Ask the decision point; exits with 4 on a deny.

    Args:
        file: An AuthZEN evaluation request in JSON; `-` reads standard input.
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


def _print(found: dict[str, Any]) -> None:
    for name, text in sorted(found["files"].items()):
        out.print(f"// {name}", style="dim", markup=False)
        out.print(text, markup=False)


def _fetch(session: Session, hash: str | None) -> Any:
    if hash is None:
        hash = next(one["hash"] for one in session.pages("/policies", "policies", limit=PAGE) if one["active"])
    return session.api("GET", f"/policies/{hash}")


def active_files(session: Session) -> dict[str, str]:
    """The files of the active set, by their names, none of which leads out of its folder. Raises Usage."""
    files: dict[str, str] = _fetch(session, None)["files"]
    for name in files:
        if not Path("/set", name).resolve().is_relative_to("/set"):
            raise Usage(f"the set has a file {name!r} outside of its folder")
    return files


def read_files(folder: Path) -> dict[str, str]:
    """The policy files of a folder, by their path in it."""
    if not folder.is_dir():
        raise Usage(f"{folder} is no folder")
    found = [path for path in sorted(folder.rglob("*")) if path.name.endswith(SUFFIXES) and path.is_file()]
    if not found:
        raise Usage(f"{folder} has no {', '.join(SUFFIXES)} file in it")
    return {path.relative_to(folder).as_posix(): read_text(path) for path in found}
