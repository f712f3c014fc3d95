"""`ostiary watch`: the detectors and their findings about the behaviour of agents."""

from __future__ import annotations

from typing import Any

from cyclopts import App
from rich.markup import escape

from ostiary.cli.names import Names
from ostiary.cli.output import facts, moment, out, table
from ostiary.cli.session import Here

watch = App(name="watch", help="List and explain findings about the behaviour of agents.")
watch.command("ostiaryd.watch.wire_replay:replay", name="replay", help="Run the detectors over recorded entries.")


@watch.command(name="status")
def status(*, session: Here) -> None:
    """Show the state of the detectors, and their position in the ledger."""
    session.show(session.api("GET", "/watch"), _print_status)


@watch.command(name="findings")
def findings(*, agent: str | None = None, limit: int = 50, session: Here) -> None:
    """List findings, newest first.

    Args:
        agent: Name or id of an agent.
        limit: Largest number of rows.
    """
    names = Names(session)
    rows = session.pages("/findings", "findings", limit=limit, query={"agent": agent})
    session.show(rows, lambda rows: _print_findings(rows, names))


@watch.command(name="explain")
def explain(finding: str, /, *, session: Here) -> None:
    """Explain a finding, with the ledger entries behind it.

    Args:
        finding: Id of the finding, from `ostiary watch findings`.
    """
    names = Names(session)
    session.show(session.api("GET", f"/findings/{finding}"), lambda value: _print_finding(value, names))


def _print_status(value: dict[str, Any]) -> None:
    lines = {name: value[name] for name in ("phase", "position", "behind", "agents", "starts", "error", "unanswered")}
    narrowing = value["narrowing"]
    rare = narrowing.get("rare_from", 0)
    facts(
        lines
        | {
            "error budget": f"{value['budget']} of 10,000 tasks may be narrowed by mistake",
            "tasks": f"{narrowing.get('trials', 0):g} in the statistics",
            "narrows": f"from {rare:g} points on" if rare else "not yet: statistical detectors only inform",
        }
    )
    rows = [{"detector": name, "failing": value["failing"].get(name, "")} for name in value["detectors"]]
    table(rows, {"detector": "DETECTOR", "failing": "ERROR"}, empty="no detectors")


def _print_findings(rows: list[dict[str, Any]], names: Names) -> None:
    columns = {
        "finding_id": "ID",
        "at": "TIME",
        "detector": "DETECTOR",
        "points": "POINTS",
        "subject": "SUBJECT",
        "says": "FINDING",
    }
    shown = [
        row
        | {"at": f"{moment(row['at'])}Z", "subject": names(row["agent"] or row["resource"] or "")}
        | {"says": names.in_text(row["says"])}
        for row in rows
    ]
    table(shown, columns, empty="no findings: ostiary watch status shows whether the detectors run")


def _print_finding(value: dict[str, Any], names: Names) -> None:
    out.print(escape(names.in_text(value["says"])), style="bold")
    out.print(escape(value["about"]), style="dim")
    shown = {
        name: value[name]
        for name in ("finding_id", "detector", "points", "score", "may_narrow", "task", "resource", "incident")
    }
    shown |= {"agent": names.with_id(value["agent"]), "owner": names.with_id(value["owner"])}
    shown |= {"verdict": value["verdict"], "judged by": names.with_id(value["judged_by"]), "reason": value["why"]}
    facts(shown | {"risk now": ", ".join(f"{names(id)} {points}" for id, points in value["risk"].items())})
    rows = [
        {
            "index": str(entry["index"]),
            "at": f"{moment(entry['at'] / 1e6)}Z",
            "action": entry["action"],
            "outcome": entry.get("outcome", "ok"),
            "tool": entry.get("tool", ""),
            "reasons": " ".join(reason["code"] for reason in entry.get("reasons", [])),
        }
        for entry in value["rests_on"]
    ]
    columns = {
        "index": "ENTRY",
        "at": "TIME",
        "action": "ACTION",
        "outcome": "OUTCOME",
        "tool": "TOOL",
        "reasons": "REASONS",
    }
    table(rows, columns, empty="")
