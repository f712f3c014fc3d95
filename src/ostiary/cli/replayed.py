"""What a policy set would change of recorded verdicts: asked of the server, and how it looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.progress import Progress

from ostiary.cli.paper import err, out, table
from ostiary.cli.session import Session
from ostiary.protocol.errors import Unavailable

SHOWN = 50
"""groups that people see; JSON has all"""
_COLUMNS = {
    "direction": "VERDICT", "count": "COUNT", "agents": "AGENTS", "who": "WHO", "what": "WHAT", "before": "BY",
    "after": "THEN BY", "example": "ENTRY",
}  # fmt: skip


def replayed(
    session: Session, files: Mapping[str, str], *, since: int, until: int | None = None, by: str = ""
) -> dict[str, Any]:
    """The report of the server, with its ticket. Raises ServerRefused, Unavailable."""
    asked = {"files": files, "since": since, "until": until, "by": by}
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        bar = progress.add_task("replaying", total=None)
        for said in session.lines("/policies/whatif", asked):
            if "report" in said:
                return {**said["report"], "entries": said["entries"], "ticket": said["ticket"]}
            progress.update(bar, completed=said["done"], total=said["of"])
    raise Unavailable("the server ended its answer before the report", hint="ask again")


def print_report(found: dict[str, Any]) -> None:
    """The groups, the largest first; then what is not known; then all in one line."""
    changes = found["changes"]
    rows = [{**change, "after": change["after"] or change["because"]} for change in changes[:SHOWN]]
    if rows:
        table(rows, _COLUMNS, empty="")
    hidden = sum(change["count"] for change in changes[SHOWN:]) + found["ungrouped"]
    if hidden:
        out.print(f"{hidden} more change, in smaller groups: --json has the largest 500", style="dim", markup=False)
    for why, count in found["unknown"].items():
        out.print(f"[yellow]not known[/] {count}: {why}")
    out.print(
        f"{found['replayed']} decisions replayed, {found['changed']} would change: "
        f"{found['to_deny']} to deny, {found['to_allow']} to allow",
        markup=False,
    )
    if rows:
        out.print(f"next: ostiary audit show {rows[0]['example']}", markup=False)
