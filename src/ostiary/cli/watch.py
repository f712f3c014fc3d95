"""`ostiary watch`: what is noticed about how agents behave."""

from __future__ import annotations

from typing import Any

from cyclopts import App
from rich.markup import escape

from ostiary.cli.names import Names
from ostiary.cli.paper import facts, moment, out, table
from ostiary.cli.session import Here

watch = App(name="watch", help="What is noticed about how agents behave.")
watch.command("ostiaryd.watch.wire_replay:replay", name="replay", help="What would be noticed in recorded entries.")


@watch.command(name="status")
def status(*, session: Here) -> None:
    """Show whether the detectors are at work, and how far they are."""
    session.show(session.api("GET", "/watch"), _print_status)


@watch.command(name="findings")
def findings(*, agent: str | None = None, limit: int = 50, session: Here) -> None:
    """List what was noticed, the newest first.

    Args:
        agent: Name or id of an agent.
        limit: How many at most.
    """
    names = Names(session)
    found = session.pages("/findings", "findings", limit=limit, query={"agent": agent})
    session.show(found, lambda rows: _print_findings(rows, names))


@watch.command(name="explain")
def explain(finding: str, /, *, session: Here) -> None:
    """Say why something was noticed, with the entries on which it rests.

    Args:
        finding: As `ostiary watch findings` shows it.
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
            "budget": f"{value['budget']} of 10,000 tasks may be narrowed by mistake",
            "tasks": f"{narrowing.get('trials', 0):g} remembered",
            "narrows": f"from {rare:g} points on" if rare else "not yet: statistical detectors only inform",
        }
    )
    rows = [{"detector": name, "failing": value["failing"].get(name, "")} for name in value["detectors"]]
    table(rows, {"detector": "DETECTOR", "failing": "FAILS"}, empty="there are no detectors")


def _print_findings(rows: list[dict[str, Any]], names: Names) -> None:
    columns = {"finding_id": "ID", "at": "AT", "detector": "DETECTOR", "points": "POINTS", "who": "WHO", "says": "SAYS"}
    shown = [
        row
        | {"at": moment(row["at"]), "points": str(row["points"]), "who": names(row["agent"] or row["resource"] or "")}
        for row in rows
    ]
    table(shown, columns, empty="nothing was noticed")


def _print_finding(value: dict[str, Any], names: Names) -> None:
    out.print(escape(value["says"]), style="bold")
    out.print(escape(value["about"]), style="dim")
    shown = {
        name: value[name]
        for name in ("finding_id", "detector", "points", "score", "may_narrow", "task", "resource", "incident")
    }
    shown |= {"agent": names(value["agent"] or ""), "owner": names(value["owner"] or "")}
    shown |= {"verdict": value["verdict"], "judged_by": names(value["judged_by"] or ""), "why": value["why"]}
    facts(shown | {"risk now": " ".join(f"{names(who)} {points}" for who, points in value["risk"].items())})
    rows = [
        {"index": str(entry["index"]), "at": moment(entry["at"] / 1e6), "action": entry["action"],
         "outcome": entry.get("outcome", "ok"), "tool": entry.get("tool", ""),
         "why": " ".join(reason["code"] for reason in entry.get("reasons", []))}
        for entry in value["rests_on"]
    ]  # fmt: skip
    columns = {"index": "ENTRY", "at": "AT", "action": "ACTION", "outcome": "OUTCOME", "tool": "TOOL", "why": "WHY"}
    table(rows, columns, empty="")
