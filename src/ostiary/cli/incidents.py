"""`ostiary incident`: what was noticed of an agent and done about it, and what a person says to that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclopts import App
from rich.markup import escape

from ostiary.agent import ServerRefused
from ostiary.cli.names import Names
from ostiary.cli.paper import facts, moment, out, table
from ostiary.cli.session import PAGE, Here, Session

incident = App(name="incident", help="What was noticed of agents: list, show, take, release, narrow, decommission.")
COLUMNS = {
    "incident_id": "ID", "state": "STATE", "agent": "AGENT", "agent_state": "IS", "owner": "OWNER", "risk": "RISK",
    "opened_at": "SINCE", "says": "BECAUSE",
}  # fmt: skip


@incident.command(name="list")
def list_incidents(*, all: bool = False, limit: int = PAGE, as_: Path | None = None, session: Here) -> None:
    """List what waits for a person, the newest first.

    Args:
        all: The closed ones too.
        limit: How many at most.
        as_: Credential of the person who asks; the administrator's otherwise.
    """
    session.act_as(as_)
    query = {"state": "all" if all else "open"}
    found = session.pages("/incidents", "incidents", limit=limit, query=query)
    session.show(found, lambda rows: table(rows, COLUMNS, empty="nothing waits for a person"))


@incident.command(name="show")
def show(id: str, /, *, as_: Path | None = None, session: Here) -> None:
    """Explain an incident: what was noticed, what was done, and how far it may reach.

    Args:
        id: Its id, `in_..`.
        as_: Credential of the person who asks; the administrator's otherwise.
    """
    session.act_as(as_)
    names = Names(session)
    session.show(session.api("GET", f"/incidents/{id}"), lambda value: _show(value, names))


@incident.command(name="take")
def take(id: str, /, *, reason: str, as_: Path | None = None, session: Here) -> None:
    """Say that you work on it: it no longer counts against how many agents may be stopped without a person.

    Args:
        id: Its id, `in_..`.
        reason: Why; it goes on record.
        as_: Credential of the person who says it (`ostiary person create`); else that of OSTIARY_CREDENTIAL.
    """
    _say(session, id, "take", {"reason": reason}, as_)


@incident.command(name="release")
def release(id: str, /, *, reason: str, real: bool = False, as_: Path | None = None, session: Here) -> None:
    """Let the agent act again: what was done is taken back, and nobody doubts it any more. It ends `narrow`, too.

    Args:
        id: Its id, `in_..`.
        reason: Why; it goes on record.
        real: There was something all the same; otherwise the detectors hear that it was a false alarm.
        as_: Credential of the person who says it; nobody who answers for the agent.
    """
    _say(session, id, "release", {"reason": reason, "is_real": real}, as_)


@incident.command(name="narrow")
def narrow(id: str, /, *, reason: str, hours: int = 24, as_: Path | None = None, session: Here) -> None:
    """Let the agent act again, but only read for a while, or until `release`.

    Args:
        id: Its id, `in_..`.
        reason: Why; it goes on record.
        hours: For how long, at most a week.
        as_: Credential of the person who says it; nobody who answers for the agent.
    """
    _say(session, id, "narrow", {"reason": reason, "hours": hours}, as_)


@incident.command(name="decommission")
def decommission(id: str, /, *, reason: str, as_: Path | None = None, session: Here) -> None:
    """End the agent for good, with its tasks.

    Args:
        id: Its id, `in_..`.
        reason: Why; it goes on record.
        as_: Credential of the person who says it (`ostiary person create`); else that of OSTIARY_CREDENTIAL.
    """
    _say(session, id, "decommission", {"reason": reason}, as_)


def _say(session: Session, id: str, verb: str, said: Mapping[str, Any], credential: Path | None) -> None:
    session.act_as(credential)
    try:
        done = session.api("POST", f"/incidents/{id}/{verb}", said)
    except ServerRefused as refusal:
        if refusal.code != "insufficient_scope":
            raise
        hint = "--as FILE: what `ostiary person create NAME --generate-key FILE` wrote"
        raise ServerRefused("only a person has a say in an incident", hint=hint, code=refusal.code) from None
    session.show(done, _print_said)


def _print_said(done: Mapping[str, Any]) -> None:
    out.print(f"[bold]{escape(done['agent'])}[/] is {done['agent_state']}; the incident is {done['state']}")


def _show(value: Mapping[str, Any], names: Names) -> None:
    facts(
        {
            "id": value["incident_id"],
            "state": value["state"],
            "agent": f"{value['agent']} ({value['agent_state']}), of {value['owner']}",
            "risk": f"{value['risk']} at most, {value['risk_now']} now",
            "since": f"{moment(value['opened_at'])}Z",
            "closed": value["closed_at"] and f"{moment(value['closed_at'])}Z, by {value['person']}: {value['why']}",
            "taken": None if value["closed_at"] else value["person"] and f"by {value['person']}: {value['why']}",
        }
    )
    _heading("noticed, the newest first")
    for one in value["findings"]:
        on = f" (entries {', '.join(map(str, one['entries']))})" if one["entries"] else ""
        _line(one["at"], f"{one['detector']}, {one['points']} points: {one['says']}{on}")
    _heading("done about it" if value["acts"] else "nothing was done about it")
    for one in value["acts"]:
        by = f" ({', '.join(map(names, one['policies']))})" if one["policies"] else ""
        _line(one["at"], f"{one['response']} {one['outcome']}: {one['says']}{by}")
    blast = value["blast"]
    _heading("touched within the day before" + (", the last of it" if blast["is_cut"] else ""))
    for one in blast["touched"]:
        classes = f", {' '.join(one['data_classes'])}" if one["data_classes"] else ""
        out.print(f"    {one['tool']}  {one['allowed']} allowed, {one['denied']} denied{classes}", markup=False)
    _heading("how far it may reach")
    alike = blast["alike"]
    facts(
        {
            "it may": " ".join(blast["reachable"]["scopes"]),
            "data": " ".join(blast["reachable"]["data_classes"]),
            "gave work to": " ".join(blast["delegated_to"]),
            "works for": " ".join(blast["acted_for"]),
            "same owner": " ".join(alike["owner"]),
            "same model": " ".join(alike["model"]),
            "same tools": " ".join(alike["tool"]),
        }
    )


def _heading(text: str) -> None:
    out.print(text, style="bold", markup=False)


def _line(at: float, text: str) -> None:
    out.print(f"    {moment(at)}Z  {' '.join(text.split())}", markup=False)
