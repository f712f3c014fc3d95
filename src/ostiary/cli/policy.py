"""`ostiary policy` and `ostiary decide`: policy as code, and one question to the decision point."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cyclopts import App

from ostiary.cli.registry import Hidden, _read_json
from ostiary.cli.session import DENIED, facts, out, table
from ostiary.core.errors import Invalid

policy = App(name="policy", help="Policy sets: a folder of Cedar files with their tests. Git is their home.")
SUFFIXES = (".cedar", ".cedarschema", ".test.toml")


def add_to(app: App) -> None:
    app.command(policy)
    app.command(decide)


@policy.command
def put(folder: Path, *, session: Hidden) -> None:
    """Validate, test and activate a policy set; the version before stays on the shelf."""
    session.show(session.api("POST", "/policies", {"files": _files(folder)}), facts)


@policy.command
def test(folder: Path, *, session: Hidden) -> None:
    """Validate a policy set and run its tests; nothing is activated."""
    session.show(session.api("POST", "/policies", {"files": _files(folder)}, query={"dry_run": "true"}), facts)


@policy.command(name="list")
def list_(*, session: Hidden) -> None:
    """List the versions, newest first."""
    columns = {"hash": "HASH", "active": "ACTIVE", "policies": "POLICIES", "created_at": "CREATED"}
    found = session.api("GET", "/policies")["policies"]
    session.show(found, lambda rows: table(rows, columns, empty="no policy set"))


@policy.command
def show(hash: str, *, session: Hidden) -> None:
    """Show the files of one version."""
    found = session.api("GET", f"/policies/{hash}")

    def render(value: dict[str, Any]) -> None:
        for name, text in sorted(value["files"].items()):
            out.print(f"// {name}", style="dim")
            out.print(text, markup=False)

    session.show(found, render)


@policy.command
def activate(hash: str, *, session: Hidden) -> None:
    """Go back, or forward, to a version that is on the shelf."""
    session.show(session.api("POST", f"/policies/{hash}/activate", {}), facts)


def decide(file: Path, *, session: Hidden) -> None:
    """Ask the decision point: FILE is an AuthZEN evaluation request. Exits with 4 on a deny."""
    decision = session.api("POST", "/decide", _read_json(file))

    def render(value: dict[str, Any]) -> None:
        out.print("[green]allow[/]" if value["decision"] else "[red]deny[/]")
        facts(value.get("context", {}))

    session.show(decision, render)
    if not decision["decision"]:
        sys.exit(DENIED)


def _files(folder: Path) -> dict[str, str]:
    """The policy files of a folder, by their path in it."""
    if not folder.is_dir():
        raise Invalid(f"{folder} is not a folder", code="usage")
    found = {
        path.relative_to(folder).as_posix(): path.read_text("utf-8")
        for path in sorted(folder.rglob("*"))
        if path.name.endswith(SUFFIXES) and path.is_file()
    }
    if not found:
        raise Invalid(f"{folder} holds no {', '.join(SUFFIXES)} file", code="usage")
    return found
