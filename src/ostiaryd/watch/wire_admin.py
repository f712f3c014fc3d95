"""The findings of the detectors, for administrators, as JSON under /api/v1."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import Page, reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, PageBody, Query, Route
from ostiaryd.ledger import flows as ledger
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import READ
from ostiaryd.watch import flows, store
from ostiaryd.watch.model import OPEN_DAYS, Finding, describe_detector, detector_names

SECOND = 1_000_000
DAY = 86_400 * SECOND


class WatchBody(TypedDict):
    """The state of the detectors of this server."""

    phase: str
    pid: int | None
    position: int
    behind: int
    agents: int
    starts: int
    error: str
    failing: dict[str, str]
    unanswered: list[Any]
    budget: Any
    narrowing: Any
    detectors: list[str]


class FindingBody(TypedDict):
    """A finding, with the person's verdict if there is one. Times are in seconds since the epoch."""

    finding_id: str
    at: int
    detector: str
    points: int
    score: float
    proved: bool
    may_narrow: bool
    says: str
    agent: str | None
    task: str | None
    owner: str | None
    resource: str | None
    entries: tuple[int, ...]
    incident: str | None
    verdict: str | None
    judged_by: str | None
    why: str | None


class FindingDetail(FindingBody):
    """A finding with its entries and the present risk scores of its agent and task."""

    about: str
    rests_on: list[dict[str, Any]]
    risk: dict[str, int]


async def status(call: Call) -> Reply:
    """Show the state of the detectors: their position in the ledger, their errors, and their budget of restrictions."""
    world = call.world
    state = world.get_singleton(flows.Watch).state
    size = ledger.get_head(world.db.read())[0].size
    return reply(
        {
            "phase": state.phase,
            "pid": state.pid,
            "position": state.position,
            "behind": max(0, size - state.position),
            "agents": state.agents,
            "starts": state.starts,
            "error": state.error,
            "failing": state.failing,
            "unanswered": list(state.unanswered),
            "budget": world.config.narrow_budget,
            "narrowing": state.narrowing,
            "detectors": detector_names(),
        }
    )


async def list_findings(call: Call) -> Reply:
    """List findings, newest first: of all agents, or with `agent` of one agent.

    `state=open` lists those of the last seven days that no person has judged.
    """
    agent, state, now = call.query_one("agent"), call.query_one("state") or "all", call.world.now()
    if state not in ("open", "all"):
        raise Invalid("`state` must be `open` or `all`")

    def read(reader: Reader, page: Page) -> list[Finding]:
        before = page.after or "~"
        id = "" if agent is None else registry.find_agent(reader, agent).agent_id
        if state == "open":
            since = now - OPEN_DAYS * DAY
            return store.findings.open_findings(reader, since=since, before=before, agent=id, limit=page.limit)
        if not id:
            return store.findings.latest(reader, before=before, limit=page.limit)
        return store.findings.list_findings_of_agent(reader, id, before=before, limit=page.limit)

    return await reply_page(call, "findings", read, lambda _, one: render(one), cursor=lambda one: one.finding_id)


async def explain_finding(call: Call) -> Reply:
    """Explain a finding: the meaning of its detector, and the ledger entries on which it rests."""
    now = call.world.now()

    def read(reader: Reader) -> FindingDetail:
        finding = flows.find_finding(reader, call.params["id"])
        bodies = [(index, ledger.get_entry_body(reader, index)) for index in finding.entries]
        subjects = filter(None, (finding.agent, finding.task))
        return {
            **render(finding),
            "about": describe_detector(finding.detector),
            "rests_on": [{"index": index, **msgspec.json.decode(body)} for index, body in bodies if body is not None],
            "risk": {subject: registry.get_risk(reader, subject).points(now) for subject in subjects},
        }

    return reply(await call.world.db.scan(read))


def render(finding: Finding) -> FindingBody:
    """Return a finding in the JSON form of the API."""
    judgement = finding.judgement
    return {
        "finding_id": finding.finding_id,
        "at": finding.at // SECOND,
        "detector": finding.detector,
        "points": finding.points,
        "score": finding.score,
        "proved": finding.is_proved,
        "may_narrow": finding.may_narrow,
        "says": finding.says,
        "agent": finding.agent or None,
        "task": finding.task,
        "owner": finding.owner,
        "resource": finding.resource,
        "entries": finding.entries,
        "incident": finding.incident,
        "verdict": None if judgement is None else judgement.verdict,
        "judged_by": None if judgement is None else judgement.by,
        "why": None if judgement is None else judgement.why,
    }


ROUTES = (
    Route("GET", "/api/v1/watch", status, READ, answers={200: WatchBody}),
    Route(
        "GET",
        "/api/v1/findings",
        list_findings,
        READ,
        errors=(NOT_FOUND,),
        answers={200: PageBody("findings", FindingBody)},
        query=(
            Query("agent", "Name or id of the agent whose findings are listed."),
            Query(
                "state",
                "`open` for findings without a person's verdict; the default `all` lists all findings.",
                Literal["open", "all"],
            ),
            *PAGE,
        ),
    ),
    Route("GET", "/api/v1/findings/{id}", explain_finding, READ, answers={200: FindingDetail}),
)
