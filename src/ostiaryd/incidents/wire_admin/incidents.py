"""Incidents as JSON under /api/v1. Times are seconds since the epoch.

Persons with a key and callers that may read everything see all incidents; only persons decide.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypedDict

import msgspec

from ostiary.protocol.errors import Forbidden, Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, Wire, reply
from ostiaryd.ground.http.pages import reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, PageBody, Query, Route
from ostiaryd.ground.outbound import outbox
from ostiaryd.incidents import store
from ostiaryd.incidents.flows import blast, exposure
from ostiaryd.incidents.flows import incidents as flows
from ostiaryd.incidents.model.incidents import MAX_FINDINGS, SECOND, Did, Incident, Verb
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, APPROVE, SELF, Caller
from ostiaryd.watch import flows as watch
from ostiaryd.watch.model import Finding


class IncidentAnswer(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    hours: int = 24
    is_real: bool | None = None


class IncidentBody(TypedDict):
    """An incident, as lists show it. Times are seconds since the epoch."""

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
    """A response of the server to the findings of an incident."""

    at: float
    response: str
    outcome: str
    policies: tuple[str, ...]
    says: str
    task: str | None


class IncidentDetail(IncidentBody):
    """An incident with its findings, responses and reach."""

    findings: list[IncidentFinding]
    acts: list[ResponseBody]
    blast: dict[str, Any]


class AnsweredIncident(IncidentBody):
    """An incident after a person's answer; `seq` in the feed and `committed_at` (microseconds) locate the change."""

    seq: int
    committed_at: int


class RotatedSecrets(TypedDict):
    """The paths whose values change within seconds, the number of revoked leases, and the paths of the values that a
    person has to replace.
    """

    rotating: list[str]
    revoked: int
    to_replace: list[str]


async def list_incidents(call: Call) -> Reply:
    """List incidents, newest first."""
    _check_may_see(call.caller)
    now = call.world.now()
    state = call.query_one("state") or "all"
    if state not in ("open", "all"):
        raise Invalid("`state` is `open` or `all`")

    return await reply_page(
        call,
        "incidents",
        lambda reader, page: store.page(reader, is_waiting=state == "open", page=page),
        lambda reader, one: _brief(reader, one, now=now),
        cursor=lambda one: one.incident_id,
        headers=[NO_STORE],
    )


async def show_incident(call: Call) -> Reply:
    """Show an incident with its findings, responses and reach."""
    _check_may_see(call.caller)
    now = call.world.now()

    def read(reader: Reader) -> IncidentDetail:
        incident = flows.find_incident(reader, call.params["id"])
        findings = watch.list_findings_of_incident(reader, incident.incident_id, limit=MAX_FINDINGS)
        return {
            **_brief(reader, incident, now=now),
            "findings": [_finding(one) for one in findings],
            "acts": [_did(one) for one in store.acts(reader, incident.incident_id)],
            "blast": blast.blast(reader, incident, now=now),
        }

    return reply(await call.world.db.scan(read), headers=[NO_STORE])


def say(verb: Verb) -> Wire:
    """Return the route function with which a person makes a decision."""

    async def wire(call: Call) -> Reply:
        answer, id = call.json(IncidentAnswer), call.params["id"]

        def run(act: Act) -> tuple[IncidentBody, int]:
            incident = flows.close(
                act, id, verb, why=answer.reason, by=call.caller, hours=answer.hours, is_real=answer.is_real
            )
            return _brief(act.tx, incident, now=act.now), outbox.head(act.tx)

        incident, seq = await registry.act_as(call, f"incident.{verb}", run)
        body: AnsweredIncident = {**incident, "seq": seq, "committed_at": call.world.now()}
        return reply(body, headers=[NO_STORE])

    wire.__doc__ = f"{verb.capitalize()} an incident, with a reason."
    return wire


async def rotate_secrets(call: Call) -> Reply:
    """Rotate the secrets that the agent read, and revoke its leases; the answer lists the values that remain."""
    id = call.params["id"]
    done = await registry.act_as(call, "incident.rotate", lambda act: exposure.rotate_secrets(act, id))
    revoked, after = 0, ""
    while leases := exposure.find_leases(call.world.db.read(), id, after=after):  # short acts let others in between
        await registry.act_as(call, "incident.rotate", partial(exposure.revoke_leases, id=id, next_leases=leases))
        revoked, after = revoked + len(leases), leases[-1].lease_id
    body: RotatedSecrets = {"rotating": done.rotating, "revoked": revoked, "to_replace": done.to_replace}
    return reply(body, headers=[NO_STORE])


def _check_may_see(by: Caller) -> None:
    """Check that the caller may read incidents. Raises Forbidden."""
    if not (by.may_read or (by.kind == "person" and APPROVE in by.scopes)):
        raise Forbidden("incidents are for people with a key, and for callers with the scope `ostiary:read`")


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


ROUTES = (
    Route(
        "GET",
        "/api/v1/incidents",
        list_incidents,
        SELF,
        allows_people=True,
        answers={200: PageBody("incidents", IncidentBody)},
        query=(Query("state", "`open` for incidents that wait; `all` by default.", Literal["open", "all"]), *PAGE),
    ),
    Route("GET", "/api/v1/incidents/{id}", show_incident, SELF, allows_people=True, answers={200: IncidentDetail}),
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
            say(verb),
            APPROVE,
            body=IncidentAnswer,
            answers={200: AnsweredIncident},
            stops=verb in (Verb.NARROW, Verb.DECOMMISSION),
        )
        for verb in Verb
    ),
)
