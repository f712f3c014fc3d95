"""`ostiary incident`: findings about an agent, the responses to them, and the decision of a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclopts import App
from rich.markup import escape

from ostiary.agent import ServerRefused
from ostiary.cli.names import Names
from ostiary.cli.output import facts, moment, out, table
from ostiary.cli.session import PAGE, Here, Session

incident = App(name="incident", help="List incidents and decide about them: take, release, narrow, decommission.")
TIMELINE_COLUMNS = {
    "at": "TIME",
    "agent": "AGENT",
    "kind": "KIND",
    "action": "ACTION",
    "outcome": "OUTCOME",
    "person": "PERSON",
    "index": "ENTRY",
    "says": "DETAILS",
}
COLUMNS = {
    "incident_id": "ID",
    "state": "STATE",
    "agent": "AGENT",
    "agent_state": "IS",
    "owner": "OWNER",
    "risk": "RISK",
    "opened_at": "SINCE",
    "says": "BECAUSE",
}


@incident.command(name="list")
def list_incidents(*, all: bool = False, limit: int = PAGE, as_: Path | None = None, session: Here) -> None:
    """List the incidents that wait for a person, newest first.

    Args:
        all: List closed incidents too.
        limit: Largest number of rows.
        as_: Credential of the person who asks; by default, the administrator's.
    """
    session.act_as(as_)
    query = {"state": "all" if all else "open"}
    rows = session.pages("/incidents", "incidents", limit=limit, query=query)
    session.show(rows, lambda rows: table(rows, COLUMNS, empty="no incident waits for a person"))


@incident.command(name="show")
def show(id: str, /, *, as_: Path | None = None, session: Here) -> None:
    """Show an incident: the findings, the responses, and the resources that the agent can reach.

    Args:
        id: Id of the incident, `in_..`.
        as_: Credential of the person who asks; by default, the administrator's.
    """
    session.act_as(as_)
    names = Names(session)
    session.show(session.api("GET", f"/incidents/{id}"), lambda value: _show(value, names))


@incident.command(name="timeline")
def show_timeline(
    id: str, /, *, agent: str | None = None, limit: int = 100, as_: Path | None = None, session: Here
) -> None:
    """Show the acts of an incident's agent and of connected agents, the findings and the responses, newest first.

    Connected agents are the agents to and from which the agent delegated, and agents of the same owner or model.

    Args:
        id: Id of the incident, `in_..`.
        agent: Only the rows of this agent: name or id.
        limit: Least number of rows: whole pages of the timeline are read until they have so many rows.
        as_: Credential of the person who asks; by default, the administrator's.
    """
    session.act_as(as_)
    rows = session.pages(f"/incidents/{id}/timeline", "rows", limit=limit, query={"agent": agent})
    session.show(rows, lambda rows: table(rows, TIMELINE_COLUMNS, empty="nothing happened around the incident"))


@incident.command(name="note")
def add_note(id: str, text: str, /, *, as_: Path | None = None, session: Here) -> None:
    """Add a note to an incident, open or closed. Nothing else changes.

    Args:
        id: Id of the incident, `in_..`.
        text: The note, at most 2,000 characters; it is recorded in the ledger.
        as_: Credential of the person who writes (`ostiary person create`); by default, that in OSTIARY_CREDENTIAL.
    """
    session.act_as(as_)
    written = _post_as_person(session, f"/incidents/{id}/notes", {"text": text})
    session.show(written, lambda note: out.print(f"note {note['number']} by {note['person']}", markup=False))


@incident.command(name="take")
def take(id: str, /, *, reason: str, as_: Path | None = None, session: Here) -> None:
    """Take an incident: record that you work on it. The incident stays open.

    Args:
        id: Id of the incident, `in_..`.
        reason: Reason; it is recorded in the ledger.
        as_: Credential of the person who decides (`ostiary person create`); by default, that in OSTIARY_CREDENTIAL.
    """
    _decide(session, id, "take", {"reason": reason}, as_)


@incident.command(name="release")
def release(id: str, /, *, reason: str, real: bool = False, as_: Path | None = None, session: Here) -> None:
    """Release the agent of an incident: undo the responses, reset the risk score, and end `ostiary incident narrow`.

    Args:
        id: Id of the incident, `in_..`.
        reason: Reason; it is recorded in the ledger.
        real: The findings were right; without this option, the detectors count them as a false alarm.
        as_: Credential of the person who decides, who must not be accountable for the agent.
    """
    _decide(session, id, "release", {"reason": reason, "is_real": real}, as_)


@incident.command(name="narrow")
def narrow(id: str, /, *, reason: str, hours: int = 24, as_: Path | None = None, session: Here) -> None:
    """Restrict the agent of an incident to reads until the time is over, or until `ostiary incident release`.

    Args:
        id: Id of the incident, `in_..`.
        reason: Reason; it is recorded in the ledger.
        hours: Hours until the restriction ends, at most 168.
        as_: Credential of the person who decides, who must not be accountable for the agent.
    """
    _decide(session, id, "narrow", {"reason": reason, "hours": hours}, as_)


@incident.command(name="decommission")
def decommission(id: str, /, *, reason: str, as_: Path | None = None, session: Here) -> None:
    """Decommission the agent of an incident, and end the agent's tasks. This cannot be undone.

    Args:
        id: Id of the incident, `in_..`.
        reason: Reason; it is recorded in the ledger.
        as_: Credential of the person who decides (`ostiary person create`); by default, that in OSTIARY_CREDENTIAL.
    """
    _decide(session, id, "decommission", {"reason": reason}, as_)


@incident.command(name="rotate-secrets")
def rotate_secrets(id: str, /, *, as_: Path | None = None, session: Here) -> None:
    """Rotate the secrets that the agent of an incident read, and revoke the agent's leases.

    The command lists the secrets that a person has to replace.

    Args:
        id: Id of the incident, `in_..`.
        as_: Credential of the person who orders the rotation; by default, the administrator's.
    """
    session.act_as(as_)
    session.show(session.api("POST", f"/incidents/{id}/rotate-secrets"), _print_rotation)


def _print_rotation(done: Mapping[str, Any]) -> None:
    facts(
        {
            "rotating": " ".join(done["rotating"]),
            "revoked leases": done["revoked"],
            "to be replaced by a person": " ".join(done["to_replace"]),
        }
    )


def _decide(session: Session, id: str, verb: str, body: Mapping[str, Any], credential: Path | None) -> None:
    session.act_as(credential)
    session.show(_post_as_person(session, f"/incidents/{id}/{verb}", body), _print_decided)


def _post_as_person(session: Session, path: str, body: Mapping[str, Any]) -> Any:
    try:
        return session.api("POST", path, body)
    except ServerRefused as refusal:
        if refusal.code != "insufficient_scope":
            raise
        hint = (
            "--as FILE: the key of a person, from `ostiary person add-key NAME --generate-key FILE`, "
            "or from `ostiary person create NAME --generate-key FILE` for a new person"
        )
        raise ServerRefused("only a person can work on an incident", hint=hint, code=refusal.code) from None


def _print_decided(done: Mapping[str, Any]) -> None:
    out.print(f"[bold]{escape(done['agent'])}[/] is {done['agent_state']}; the incident is {done['state']}")


def _entries(indices: list[int]) -> str:
    return f"{'entry' if len(indices) == 1 else 'entries'} {', '.join(map(str, indices))}"


def _show(value: Mapping[str, Any], names: Names) -> None:
    facts(
        {
            "id": value["incident_id"],
            "state": value["state"],
            "agent": f"{value['agent']} ({value['agent_state']}), owner {value['owner']}",
            "risk score": f"{value['risk']} at its peak, {value['risk_now']} now",
            "opened": f"{moment(value['opened_at'])}Z",
            "closed": value["closed_at"] and f"{moment(value['closed_at'])}Z, by {value['person']}: {value['why']}",
            "taken": None if value["closed_at"] else value["person"] and f"by {value['person']}: {value['why']}",
        }
    )
    _heading("findings, newest first")
    for one in value["findings"]:
        on = f" ({_entries(one['entries'])})" if one["entries"] else ""
        _line(one["at"], f"{one['detector']}, {one['points']} points: {names.in_text(one['says'])}{on}")
    _heading("responses" if value["acts"] else "no response")
    for one in value["acts"]:
        by = f" ({', '.join(map(names, one['policies']))})" if one["policies"] else ""
        _line(one["at"], f"{one['response']} {one['outcome']}: {names.in_text(one['says'])}{by}")
    if value["notes"]:
        _heading("notes")
    for one in value["notes"]:
        _line(one["at"], f"{one['person']}: {one['text']}")
    blast = value["blast"]
    _heading("calls since a day before" + (", the last of them" if blast["is_cut"] else ""))
    for one in blast["touched"]:
        classes = f", {' '.join(one['data_classes'])}" if one["data_classes"] else ""
        out.print(f"    {one['tool']}  {one['allowed']} allowed, {one['denied']} denied{classes}", markup=False)
    secrets = blast["secrets"]
    _heading("secrets that it read" if secrets["read"] else "no secret read")
    for one in secrets["read"]:
        state = "a canary" if one["is_canary"] else "replaced since" if one["is_renewed"] else "to be replaced"
        _line(one["read_at"], f"{one['path']}, {state}")
    for one in secrets["leases"]:
        out.print(f"    holds {one['lease_id']} until {moment(one['expires_at'])}Z", markup=False)
    _heading("reach")
    alike = blast["alike"]
    facts(
        {
            "scopes": " ".join(blast["reachable"]["scopes"]),
            "data classes": " ".join(blast["reachable"]["data_classes"]),
            "certificates": " ".join(one["serial"] for one in blast["certificates"]),
            "delegated to": " ".join(map(names, blast["delegated_to"])),
            "acts for": " ".join(map(names, blast["acted_for"])),
            "same owner": " ".join(map(names, alike["owner"])),
            "same model": " ".join(map(names, alike["model"])),
            "same tools": " ".join(map(names, alike["tool"])),
        }
    )


def _heading(text: str) -> None:
    out.print(text, style="bold", markup=False)


def _line(at: float, text: str) -> None:
    out.print(f"    {moment(at)}Z  {' '.join(text.split())}", markup=False)
