"""The overview for people: numbers of agents, decisions, open questions and incidents, guards, and the next steps."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Literal, NotRequired, TypedDict

from ostiary.authorization.assurance import KEY
from ostiary.provenance.noticing.risk import OVER_AFTER
from ostiaryd.approvals import flows as approvals
from ostiaryd.feed import flows as feed
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.http.routes import Route
from ostiaryd.incidents import store as incidents
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.model import decode_entry
from ostiaryd.policy import flows as policy
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import READ, Mode, Resource
from ostiaryd.watch import flows as watch
from ostiaryd.watch.model import OPEN_DAYS

SECOND = 1_000_000
BUCKET_S, BUCKETS = 10, 6
DAY = 86_400 * SECOND
MAX_CHANGES = 1000
"""Number up to which the entries of an action are counted."""
MAX_DECISIONS = 20_000
"""Number up to which the decisions of a bucket are counted."""
MAX_RISKS = 5000
MAX_FINDINGS = 1000
"""Number up to which open findings are counted."""
MAX_STEPS = 3
HIGH, RAISED = 60, 20
"""Points from which a risk score is high, and raised."""
CHANGES = (
    *("agent.create", "agent.suspend", "agent.resume", "agent.quarantine", "agent.release", "agent.decommission"),
    *("incident.open", "approval.ask", "policy.activate", "policy.weaken", "resource.create", "kill.start"),
    *("role.grant", "elevation.grant", "elevation.break_glass", "person.login"),
)
"""Actions that the overview counts over the last day."""


class AgentsBody(TypedDict):
    """Agents by state, and the number with a risk score from 60 (`high`) and from 20 points (`raised`)."""

    total: int
    state: dict[str, int]
    high: int
    raised: int


class DecisionsBody(TypedDict):
    """Decisions per second over the last minute, and their numbers in parts of `part_s` seconds, the oldest first."""

    allowed_per_s: float
    denied_per_s: float
    part_s: int
    allowed: list[int]
    denied: list[int]


class GuardsBody(TypedDict):
    """Connected guards, guards without the newest change, and resources with a key but without a guard."""

    connected: int
    behind: int
    missing: list[str]


class CheckpointBody(TypedDict):
    """The size of the ledger, and the time of its newest entry in seconds since the epoch; null for an empty ledger."""

    size: int
    at: float | None


class StepBody(TypedDict):
    """A useful next step: its kind, the number of objects that it is about, and the step in words."""

    kind: Literal["incidents", "approvals", "guards", "stops", "risk", "pending", "watching", "resource", "agent"]
    count: int
    says: str


class OverviewBody(TypedDict):
    """The state of the server at a glance; `changes` has the number of entries by action since `since`.

    A member is left out if the caller may not read its list.
    """

    now: float
    agents: NotRequired[AgentsBody]
    decisions: NotRequired[DecisionsBody]
    approvals: NotRequired[int]
    incidents: NotRequired[int]
    findings: NotRequired[int]
    stops: NotRequired[int]
    guards: NotRequired[GuardsBody]
    checkpoint: CheckpointBody
    since: float
    changes: dict[str, int]
    steps: list[StepBody]


async def show_overview(call: Call) -> Reply:
    """Show the state of the server at a glance, and at most three useful next steps.

    `changes` counts the last 24 hours, each action up to 1,000; `findings` those of the last seven days that no person
    has judged, up to 1,000. The numbers of agents are at most five seconds old. A
    person gets those members, changes and steps whose lists the role policies let the person read.
    """
    world, caller, now = call.world, call.caller, call.world.now()
    counts = await world.keep(registry.AgentCounts).read()
    guards = world.keep(feed.Guards)
    await guards.refresh()
    connected = guards.all

    def read(reader: Reader) -> OverviewBody:
        areas = policy.list_readable_areas(
            reader, caller, {"activity", "feeds", *policy.AREAS.values()}, now=now, acr=caller.acr or KEY
        )
        newest = ledger.search_entries(reader, {}, limit=1)
        body: OverviewBody = {
            "now": now / SECOND,
            "checkpoint": {
                "size": ledger.get_head(reader)[0].size,
                "at": decode_entry(newest[0][1]).at / SECOND if newest else None,
            },
            "since": (now - DAY) / SECOND,
            "changes": _count_changes(reader, policy.list_families(areas), now),
            "steps": [],
        }
        if "agents" in areas:
            body["agents"] = _count_agents(reader, counts["state"], now)
        if "activity" in areas:
            body["decisions"] = _decisions(reader, now)
        if "approvals" in areas:
            body["approvals"] = approvals.count_open_questions(reader, now=now)
        if "incidents" in areas:
            body["incidents"] = incidents.count_waiting(reader)
        if "findings" in areas:
            body["findings"] = watch.count_open_findings(reader, since=now - OPEN_DAYS * DAY, most=MAX_FINDINGS)
        if "kill" in areas:
            body["stops"] = len(registry.list_stops(reader))
        resources = registry.list_resources(reader, Page(1000, "")) if "resources" in areas else None
        if resources is not None and "feeds" in areas:
            served = {guard.resource_id for guard in connected}
            body["guards"] = {
                "connected": len(connected),
                "behind": sum(guard.applied_at(guard.position) is None for guard in connected),
                "missing": [one.name for one in resources if one.jkt is not None and one.resource_id not in served],
            }
        body["steps"] = _next_steps(body, resources)
        return body

    return reply(await world.db.scan(read), headers=[NO_STORE])


def _count_agents(reader: Reader, by_state: dict[str, int], now: int) -> AgentsBody:
    worst = registry.list_riskiest_agents(reader, since=now - OVER_AFTER, limit=MAX_RISKS)
    points = [risk.points(now) for _, risk in worst]
    return {
        "total": sum(by_state.values()),
        "state": by_state,
        "high": sum(one >= HIGH for one in points),
        "raised": sum(one >= RAISED for one in points),
    }


def _count_changes(reader: Reader, families: Collection[str], now: int) -> dict[str, int]:
    since = ledger.count_entries_before(reader, now - DAY)
    actions = [action for action in CHANGES if action.partition(".")[0] in families]
    counts = {action: ledger.count_actions(reader, action, since, most=MAX_CHANGES) for action in actions}
    return {action: count for action, count in counts.items() if count}


def _decisions(reader: Reader, now: int) -> DecisionsBody:
    """Return the decisions of the last minute. The entries of a time are a range of indexes."""
    times = [now - part * BUCKET_S * SECOND for part in range(BUCKETS, 0, -1)]
    edges = [*(ledger.count_entries_before(reader, at) for at in times), ledger.get_head(reader)[0].size]
    parts = list(itertools.pairwise(edges))
    allowed, denied = (
        [ledger.count_outcomes(reader, outcome, start, stop, most=MAX_DECISIONS) for start, stop in parts]
        for outcome in ("allow", "deny")
    )
    return {
        "allowed_per_s": sum(allowed) / (BUCKET_S * BUCKETS),
        "denied_per_s": sum(denied) / (BUCKET_S * BUCKETS),
        "part_s": BUCKET_S,
        "allowed": allowed,
        "denied": denied,
    }


def _next_steps(body: OverviewBody, resources: Sequence[Resource] | None) -> list[StepBody]:
    """Return the most useful steps, the most urgent first. `resources` is None if the caller may not read them."""
    steps: list[StepBody] = [
        {"kind": "incidents", "count": body.get("incidents", 0), "says": "Decide on the open incidents."},
        {"kind": "approvals", "count": body.get("approvals", 0), "says": "Answer the approval requests that wait."},
    ]
    if (guards := body.get("guards")) is not None:
        count = len(guards["missing"]) + guards["behind"]
        says = "Start the guards that are not connected, or do not have the newest change."
        steps.append({"kind": "guards", "count": count, "says": says})
    steps.append({"kind": "stops", "count": body.get("stops", 0), "says": "Lift the stops whose reason is gone."})
    agents = body.get("agents")
    if agents is not None:
        says = "Look at the agents with a high risk score."
        steps.append({"kind": "risk", "count": agents["high"], "says": says})
    if resources is not None:
        says = "Protect a first tool server with a guard."
        steps.append({"kind": "resource", "count": int(not resources), "says": says})
    if agents is not None:
        says = "Register a first agent with an owner."
        steps.append({"kind": "agent", "count": int(agents["total"] < 2), "says": says})
    if resources is not None:
        count = sum(one.mode is Mode.WATCH for one in resources)
        steps.append({"kind": "watching", "count": count, "says": "Enforce the rules at resources that only watch."})
    if agents is not None:
        says = "Register a key for the agents that have none."
        steps.append({"kind": "pending", "count": agents["state"].get("pending", 0), "says": says})
    return [step for step in steps if step["count"]][:MAX_STEPS]


ROUTES = (Route("GET", "/api/v1/overview", show_overview, READ, answers={200: OverviewBody}),)
