"""The overview for people: numbers of agents, decisions, open questions and incidents, guards, and the next steps."""

from __future__ import annotations

import itertools
from typing import Literal, TypedDict

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
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import READ, Mode

SECOND = 1_000_000
BUCKET_S, BUCKETS = 10, 6
DAY = 86_400 * SECOND
MAX_CHANGES = 1000
"""Number up to which the entries of an action are counted."""
MAX_DECISIONS = 20_000
"""Number up to which the decisions of a bucket are counted."""
MAX_RISKS = 5000
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
    """The state of the server at a glance; `changes` has the number of entries by action since `since`."""

    now: float
    agents: AgentsBody
    decisions: DecisionsBody
    approvals: int
    incidents: int
    stops: int
    guards: GuardsBody
    checkpoint: CheckpointBody
    since: float
    changes: dict[str, int]
    steps: list[StepBody]


async def show_overview(call: Call) -> Reply:
    """Show the state of the server at a glance, and at most three useful next steps.

    `changes` counts the last 24 hours, each action up to 1,000. The numbers of agents are at most five seconds old.
    """
    world, now = call.world, call.world.now()
    counts = await world.keep(registry.AgentCounts).read()
    guards = world.keep(feed.Guards)
    await guards.refresh()
    connected = guards.all

    def read(reader: Reader) -> OverviewBody:
        worst = registry.list_riskiest_agents(reader, since=now - OVER_AFTER, limit=MAX_RISKS)
        points = [risk.points(now) for _, risk in worst]
        served = {guard.resource_id for guard in connected}
        resources = registry.list_resources(reader, Page(1000, ""))
        newest = ledger.search_entries(reader, {}, limit=1)
        since = ledger.count_entries_before(reader, now - DAY)
        changes = {action: ledger.count_actions(reader, action, since, most=MAX_CHANGES) for action in CHANGES}
        body: OverviewBody = {
            "now": now / SECOND,
            "agents": {
                "total": sum(counts["state"].values()),
                "state": counts["state"],
                "high": sum(one >= HIGH for one in points),
                "raised": sum(one >= RAISED for one in points),
            },
            "decisions": _decisions(reader, now),
            "approvals": approvals.count_open_questions(reader, now=now),
            "incidents": incidents.count_waiting(reader),
            "stops": len(registry.list_stops(reader)),
            "guards": {
                "connected": len(connected),
                "behind": sum(guard.applied_at(guard.position) is None for guard in connected),
                "missing": [one.name for one in resources if one.jkt is not None and one.resource_id not in served],
            },
            "checkpoint": {
                "size": ledger.get_head(reader)[0].size,
                "at": decode_entry(newest[0][1]).at / SECOND if newest else None,
            },
            "since": (now - DAY) / SECOND,
            "changes": {action: count for action, count in changes.items() if count},
            "steps": [],
        }
        body["steps"] = _next_steps(
            body, watching=sum(one.mode is Mode.WATCH for one in resources), resources=len(resources)
        )
        return body

    return reply(await world.db.scan(read), headers=[NO_STORE])


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


def _next_steps(body: OverviewBody, *, watching: int, resources: int) -> list[StepBody]:
    """Return the most useful steps, the most urgent first."""
    agents, pending = body["agents"], body["agents"]["state"].get("pending", 0)
    steps: list[StepBody] = [
        {"kind": "incidents", "count": body["incidents"], "says": "Decide on the open incidents."},
        {"kind": "approvals", "count": body["approvals"], "says": "Answer the approval requests that wait."},
        {
            "kind": "guards",
            "count": len(body["guards"]["missing"]) + body["guards"]["behind"],
            "says": "Start the guards that are not connected, or do not have the newest change.",
        },
        {"kind": "stops", "count": body["stops"], "says": "Lift the stops whose reason is gone."},
        {"kind": "risk", "count": agents["high"], "says": "Look at the agents with a high risk score."},
        {"kind": "resource", "count": int(not resources), "says": "Protect a first tool server with a guard."},
        {"kind": "agent", "count": int(agents["total"] < 2), "says": "Register a first agent with an owner."},
        {"kind": "watching", "count": watching, "says": "Enforce the rules at resources that only watch."},
        {"kind": "pending", "count": pending, "says": "Register a key for the agents that have none."},
    ]
    return [step for step in steps if step["count"]][:MAX_STEPS]


ROUTES = (Route("GET", "/api/v1/overview", show_overview, READ, answers={200: OverviewBody}),)
