"""The report of `ostiary whatif`: recorded verdicts that a policy set would change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostiary.cli.output import out, progress, table
from ostiary.cli.session import Session
from ostiary.protocol.errors import Unavailable

SHOWN = 50
"""Maximum number of groups in the table; `--json` prints all."""
_COLUMNS = {
    "direction": "VERDICT",
    "count": "COUNT",
    "agents": "AGENTS",
    "who": "SUBJECT",
    "what": "RESOURCE",
    "before": "BY",
    "after": "THEN BY",
    "example": "ENTRY",
}


def fetch_report(
    session: Session, files: Mapping[str, str], *, since: int, until: int | None = None, by: str = ""
) -> dict[str, Any]:
    """Return the report of the server, and show the progress. The member `ticket` proves the report to `ostiary policy
    put --whatif`. `by`: group the changes by `agent` or `owner` too. Raises Unavailable if the server ends its answer
    before the report, ServerRefused if the server refuses the request.
    """
    question = {"files": files, "since": since, "until": until, "by": by}
    with progress() as shown:
        bar = shown.add_task("replaying", total=None)
        for line in session.lines("/policies/whatif", question):
            if "report" in line:
                return {**line["report"], "entries": line["entries"], "ticket": line["ticket"]}
            shown.update(bar, completed=line["done"], total=line["of"])
    raise Unavailable("the server ended its answer before the report", hint="run the command again")


def print_report(report: dict[str, Any]) -> None:
    """Print the groups, the largest first, then the decisions that could not be replayed, then the totals."""
    changes = report["changes"]
    rows = [{**change, "after": change["after"] or change["because"]} for change in changes[:SHOWN]]
    if rows:
        table(rows, _COLUMNS, empty="")
    hidden = sum(change["count"] for change in changes[SHOWN:]) + report["ungrouped"]
    if hidden:
        out.print(f"{hidden} more change, in smaller groups: --json has the largest 500", style="dim", markup=False)
    for why, count in report["unknown"].items():
        out.print(f"[yellow]not known[/] {count}: {why}")
    out.print(
        f"{report['replayed']} decisions replayed, {report['changed']} would change: "
        f"{report['to_deny']} to deny, {report['to_allow']} to allow",
        markup=False,
    )
    if rows:
        out.print(f"next: ostiary audit show {rows[0]['example']}", markup=False)
