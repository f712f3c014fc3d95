"""Incidents as JSON under /api/v1. Times are seconds since the epoch.

Persons with a key and callers with the scope `ostiary:read` see all incidents; only persons decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, TypedDict

import msgspec

from ostiary.authorization.assurance import KEY
from ostiary.protocol.errors import Forbidden, Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, Wire, reply
from ostiaryd.ground.http.pages import parse_page, reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, PageBody, Query, Route
from ostiaryd.ground.outbound import outbox
from ostiaryd.incidents import store
from ostiaryd.incidents.flows import blast, exposure, incidents, timeline
from ostiaryd.incidents.model.incidents import MAX_FINDINGS, SECOND, Did, Incident, IncidentNote, Verb
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, APPROVE, SELF, Caller
from ostiaryd.watch import flows as watch
from ostiaryd.watch.model import Finding


class IncidentAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """The decision of a person about an incident. `hours`: the duration of the restriction to reading. `is_real`:
    whether the findings were real; null stands for false if the agent is released, and otherwise for true.
    """

    reason: str
    hours: int = 24
    is_real: bool | None = None


class NewIncidentNote(msgspec.Struct, forbid_unknown_fields=True):
    """A note: 1 to 2,000 characters."""

    text: str


class IncidentBody(TypedDict):
    """An incident, as lists show it."""

    incident_id: str
    state: str
    agent: str
    agent_id: str
    agent_state: str | None
    owner: str | None
    says: str
    risk: int
    risk_now: int
    opened_at: float
    closed_at: float | None
    person: str | None
    why: str | None


class IncidentFinding(TypedDict):
    """A finding that belongs to an incident."""

    finding_id: str
    at: float
    detector: str
    points: int
    says: str
    task: str | None
    entries: tuple[int, ...]


class ResponseBody(TypedDict):
    """A response to the findings of an incident: carried out, or not carried out for the reason in `says`."""

    at: float
    response: str
    outcome: str
    policies: tuple[str, ...]
    says: str
    task: str | None


class IncidentNoteBody(TypedDict):
    """A note of a person about an incident."""

    number: int
    at: float
    person: str
    text: str


class IncidentDetail(IncidentBody):
    """An incident with its findings, its responses (`acts`), its notes and its blast radius (`blast`)."""

    findings: list[IncidentFinding]
    acts: list[ResponseBody]
    notes: list[IncidentNoteBody]
    blast: dict[str, Any]


class TimelineAgent(TypedDict):
    """An agent of a timeline. `relation`: `incident` for the incident's own agent, otherwise the reason why the agent
    is in the timeline.
    """

    agent: str
    agent_id: str
    state: str
    relation: timeline.Relation


class TimelineRow(TypedDict):
    """A row of a timeline. `index`: the index of the ledger entry. `action`: the entry's action, the finding's detector
    or the response.
    """

    at: float
    kind: timeline.RowKind
    agent: str
    says: str
    action: str | None
    outcome: str | None
    person: str | None
    index: int | None


class TimelineBody(TypedDict):
    """The agents of a timeline, and a page of its rows, newest first. `next` is the cursor of the next page."""

    connected: list[TimelineAgent]
    rows: list[TimelineRow]
    next: str | None


class AnsweredIncident(IncidentBody):
    """An incident after a person's decision. `seq` is the number of the change in the guards' feed, `committed_at` the
    time of its commit in microseconds.
    """

    seq: int
    committed_at: int


class RotatedSecrets(TypedDict):
    """The paths of secrets whose rotation has started, the number of revoked leases, and the paths of secrets that a
    person must replace.
    """

    rotating: list[str]
    revoked: int
    to_replace: list[str]


async def list_incidents(call: Call) -> Reply:
    """List incidents, the newest first."""
    _check_may_see(call.caller)
    now = call.world.now()
    state = call.query_one("state") or "all"
    if state not in ("open", "all"):
        raise Invalid("`state` must be `open` or `all`")

    return await reply_page(
        call,
        "incidents",
        lambda reader, page: store.page(reader, is_waiting=state == "open", page=page),
        lambda reader, one: _brief(reader, one, now=now),
        cursor=lambda one: one.incident_id,
        headers=[NO_STORE],
    )


async def show_incident(call: Call) -> Reply:
    """Show an incident with its findings, responses, notes and blast radius."""
    _check_may_see(call.caller)
    now = call.world.now()

    def read(reader: Reader) -> IncidentDetail:
        incident = incidents.find_incident(reader, call.params["id"])
        findings = watch.list_findings_of_incident(reader, incident.incident_id, limit=MAX_FINDINGS)
        return {
            **_brief(reader, incident, now=now),
            "findings": [_finding(one) for one in findings],
            "acts": [_did(one) for one in store.list_responses(reader, incident.incident_id)],
            "notes": [_note(reader, one) for one in store.list_notes(reader, incident.incident_id)],
            "blast": blast.blast(reader, incident, now=now),
        }

    return reply(await call.world.db.scan(read), headers=[NO_STORE])


async def show_timeline(call: Call) -> Reply:
    """Show a page of the timeline of an incident, newest first.

    The timeline has the agent of the incident, the agents to which it delegated tasks or that delegated tasks to it,
    and agents of the same owner or model. The timeline begins a day before the incident, and ends an hour after the
    incident's end. Only callers that may read the ledger see entries, and only callers that may read findings see
    findings outside the incident. A page has at most `limit` entries (200 at most), the responses and notes of the same
    span of time, and the newest 20 findings of each agent.
    """
    caller, now = call.caller, call.world.now()
    _check_may_see(caller)
    page = parse_page(call.query_one("limit"), call.query_one("after"))
    if page.after and not (page.after.isascii() and page.after.isdigit() and len(page.after) <= 18):
        raise Invalid("`after` is not a cursor", hint="send the `next` of the previous page")
    before, chosen = int(page.after) if page.after else None, call.query_one("agent")

    def read(reader: Reader) -> TimelineBody:
        incident = incidents.find_incident(reader, call.params["id"])
        areas = policy.list_readable_areas(reader, caller, ("audit", "findings"), now=now, acr=caller.acr or KEY)
        sight = timeline.Sight("audit" in areas, "findings" in areas, f"{call.world.config.issuer}/api/v1")
        agents = timeline.list_connected_agents(reader, incident)
        shown = agents if chosen is None else timeline.choose_agent(agents, chosen)
        limit = min(page.limit, timeline.MAX_ENTRIES)
        rows = timeline.read_timeline(reader, incident, shown, sight=sight, limit=limit, before=before)
        names: dict[str, str] = {one.agent.agent_id: one.agent.name for one in agents}
        return {
            "connected": [
                {
                    "agent": one.agent.name,
                    "agent_id": one.agent.agent_id,
                    "state": one.agent.state,
                    "relation": one.relation,
                }
                for one in agents
            ],
            "rows": [_row(reader, one, names) for one in rows.events],
            "next": None if rows.next is None else str(rows.next),
        }

    return reply(await call.world.db.scan(read), headers=[NO_STORE])


async def add_note(call: Call) -> Reply:
    """Add a note to an open or closed incident."""
    new, id = call.json(NewIncidentNote), call.params["id"]
    written = await registry.act_as(
        call, "incident.note", lambda act: incidents.add_note(act, id, new.text, by=call.caller)
    )
    return reply(_note(call.world.db.read(), written), status=201)


_SUMMARIES = {
    Verb.TAKE: "Take an incident, in order to work on it.",
    Verb.RELEASE: "Release the agent of an incident, and close the incident.",
    Verb.NARROW: "Restrict the agent of an incident to reading for some hours, and close the incident.",
    Verb.DECOMMISSION: "Decommission the agent of an incident, and close the incident.",
}


def make_decision_handler(verb: Verb) -> Wire:
    """Return the wire function (HTTP handler) by which a person decides about an incident with the verb `verb`."""

    async def wire(call: Call) -> Reply:
        answer, id = call.json(IncidentAnswer), call.params["id"]

        def run(act: Act) -> tuple[IncidentBody, int]:
            incident = incidents.close(
                act, id, verb, why=answer.reason, by=call.caller, hours=answer.hours, is_real=answer.is_real
            )
            return _brief(act.tx, incident, now=act.now), outbox.highest_number(act.tx)

        incident, seq = await registry.act_as(call, f"incident.{verb}", run)
        body: AnsweredIncident = {**incident, "seq": seq, "committed_at": call.world.now()}
        return reply(body, headers=[NO_STORE])

    wire.__doc__ = _SUMMARIES[verb]
    return wire


async def rotate_secrets(call: Call) -> Reply:
    """Rotate the secrets that the incident's agent read, and revoke the agent's leases.

    The response lists the secrets that a person must replace.
    """
    id = call.params["id"]
    done = await registry.act_as(call, "incident.rotate", lambda act: exposure.rotate_secrets(act, id))
    revoked, after = 0, ""
    # short acts let other requests run in between
    while leases := exposure.find_leases(call.world.db.read(), id, after=after):
        await registry.act_as(call, "incident.rotate", partial(exposure.revoke_leases, id=id, next_leases=leases))
        revoked, after = revoked + len(leases), leases[-1].lease_id
    body: RotatedSecrets = {"rotating": done.rotating, "revoked": revoked, "to_replace": done.to_replace}
    return reply(body, headers=[NO_STORE])


def _check_may_see(by: Caller) -> None:
    """Check that the caller may read incidents. Raises Forbidden otherwise."""
    if not (by.may_read or (by.kind == "person" and APPROVE in by.scopes)):
        raise Forbidden(
            "only persons, and callers with the scope `ostiary:read`, may read incidents",
            hint="read incidents as a person, or ask an administrator for the scope `ostiary:read`",
        )


def _brief(reader: Reader, incident: Incident, *, now: int) -> IncidentBody:
    agent, owner = registry.get_agent(reader, incident.agent), registry.get_owner(reader, incident.owner)
    person = None if incident.person is None else registry.get_person(reader, incident.person)
    return {
        "incident_id": incident.incident_id,
        "state": incident.state,
        "agent": incident.agent if agent is None else agent.name,
        "agent_id": incident.agent,
        "agent_state": None if agent is None else agent.state,
        "owner": incident.owner if owner is None else owner.name,
        "says": incident.says,
        "risk": incident.risk,
        "risk_now": registry.get_risk(reader, incident.agent).points(now),
        "opened_at": incident.opened_at / SECOND,
        "closed_at": incident.closed_at and incident.closed_at / SECOND,
        "person": incident.person if person is None else person.name,
        "why": incident.why,
    }


def _finding(finding: Finding) -> IncidentFinding:
    return {
        "finding_id": finding.finding_id,
        "at": finding.at / SECOND,
        "detector": finding.detector,
        "points": finding.points,
        "says": finding.says,
        "task": finding.task,
        "entries": finding.entries,
    }


def _did(did: Did) -> ResponseBody:
    return {
        "at": did.at / SECOND,
        "response": did.response,
        "outcome": did.outcome,
        "policies": did.policies,
        "says": did.says,
        "task": did.task,
    }


def _note(reader: Reader, note: IncidentNote) -> IncidentNoteBody:
    return {
        "number": note.number,
        "at": note.at / SECOND,
        "person": _name_person(reader, note.person),
        "text": note.says,
    }


def _row(reader: Reader, event: timeline.Event, names: Mapping[str, str]) -> TimelineRow:
    return {
        "at": event.at / SECOND,
        "kind": event.kind,
        "agent": names[event.agent],
        "says": event.says,
        "action": event.action,
        "outcome": event.outcome,
        "person": None if event.person is None else _name_person(reader, event.person),
        "index": event.entry,
    }


def _name_person(reader: Reader, id: str) -> str:
    person = registry.get_person(reader, id)
    return id if person is None else person.name


ROUTES = (
    Route(
        "GET",
        "/api/v1/incidents",
        list_incidents,
        SELF,
        allows_people=True,
        answers={200: PageBody("incidents", IncidentBody)},
        query=(
            Query(
                "state",
                "`open` lists only incidents that no person has closed; `all` is the default.",
                Literal["open", "all"],
            ),
            *PAGE,
        ),
    ),
    Route("GET", "/api/v1/incidents/{id}", show_incident, SELF, allows_people=True, answers={200: IncidentDetail}),
    Route(
        "GET",
        "/api/v1/incidents/{id}/timeline",
        show_timeline,
        SELF,
        allows_people=True,
        answers={200: TimelineBody},
        query=(Query("agent", "Name or id of a connected agent: show only the rows of that agent."), *PAGE),
    ),
    Route(
        "POST",
        "/api/v1/incidents/{id}/notes",
        add_note,
        APPROVE,
        body=NewIncidentNote,
        answers={201: IncidentNoteBody},
    ),
    Route(
        "POST",
        "/api/v1/incidents/{id}/rotate-secrets",
        rotate_secrets,
        ADMIN,
        stops=True,
        answers={200: RotatedSecrets},
        errors=(NOT_FOUND,),
    ),
    *(
        Route(
            "POST",
            f"/api/v1/incidents/{{id}}/{verb}",
            make_decision_handler(verb),
            APPROVE,
            body=IncidentAnswer,
            answers={200: AnsweredIncident},
            stops=verb in (Verb.NARROW, Verb.DECOMMISSION),
        )
        for verb in Verb
    ),
)
