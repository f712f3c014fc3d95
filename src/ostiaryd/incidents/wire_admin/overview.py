"""The overview for people: numbers of agents, decisions, open approval requests, incidents and guards, and the next
steps.
"""

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
from ostiaryd.incidents import store
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
"""Number at which the count of entries of one action stops."""
MAX_DECISIONS = 20_000
"""Number at which the count of decisions in one part of the last minute stops."""
MAX_RISKS = 5000
MAX_FINDINGS = 1000
"""Number at which the count of findings without a judgement stops."""
MAX_STEPS = 3
HIGH, RAISED = 60, 20
"""Points from which a risk score counts as high (60), and as raised (20)."""
CHANGES = (
    *("agent.create", "agent.suspend", "agent.resume", "agent.quarantine", "agent.release", "agent.decommission"),
    *("incident.open", "approval.ask", "policy.activate", "policy.weaken", "resource.create", "kill.start"),
    *("role.grant", "elevation.grant", "elevation.break_glass", "person.login"),
)
"""Actions whose entries of the last 24 hours the overview counts, without refused attempts."""


class AgentsBody(TypedDict):
    """The numbers of agents by state, and the numbers of agents with a risk score of at least 60 points (`high`) and at
    least 20 points (`raised`).
    """

    total: int
    state: dict[str, int]
    high: int
    raised: int


class DecisionsBody(TypedDict):
    """Decisions per second over the last minute, and the numbers of decisions in each part of `part_s` seconds of that
    minute, the oldest first.
    """

    allowed_per_s: float
    denied_per_s: float
    part_s: int
    allowed: list[int]
    denied: list[int]


class GuardsBody(TypedDict):
    """The number of connected guards, the number of guards that have received a change which is not in force there yet
    (`behind`), and the names of resources with a guard's key but without a connected guard (`missing`).
    """

    connected: int
    behind: int
    missing: list[str]


class CheckpointBody(TypedDict):
    """The number of entries of the ledger, and the time of the newest entry in seconds since the epoch; null for an
    empty ledger.
    """

    size: int
    at: float | None


class StepBody(TypedDict):
    """A suggested next step for the administrator: its kind, the number of objects that it is about, and a sentence."""

    kind: Literal["incidents", "approvals", "guards", "stops", "risk", "pending", "watching", "resource", "agent"]
    count: int
    says: str


class OverviewBody(TypedDict):
    """The state of the server at a glance. `changes`: the number of entries since `since`, by action.

    If the caller may not read the list behind a member, the member is left out.
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

    `changes` counts the acts of the last 24 hours that were not refused, for some actions such as registrations, stops
    and logins, each up to 1,000. `findings` counts the findings of the last seven days without a judgement, up to
    1,000. The numbers of agents are at most five seconds old. A person gets only the members, changes and steps whose
    lists the person's roles permit.
    """
    world, caller, now = call.world, call.caller, call.world.now()
    counts = await world.get_singleton(registry.AgentCounts).read()
    guards = world.get_singleton(feed.Guards)
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
            body["incidents"] = store.count_waiting(reader)
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
    """Return the rate and the numbers of decisions in the last minute.

    The entries of a span of time have consecutive indexes, so the search uses indexes.
    """
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
    """Return the most useful next steps, the most urgent first. `resources` is None if the caller may not read
    resources.
    """
    steps: list[StepBody] = [
        {"kind": "incidents", "count": body.get("incidents", 0), "says": "Decide on the open incidents."},
        {"kind": "approvals", "count": body.get("approvals", 0), "says": "Answer the open approval requests."},
    ]
    if (guards := body.get("guards")) is not None:
        count = len(guards["missing"]) + guards["behind"]
        says = "Start the guards that are not connected, and check the guards that lack the newest change."
        steps.append({"kind": "guards", "count": count, "says": says})
    steps.append(
        {"kind": "stops", "count": body.get("stops", 0), "says": "Lift the stops that are no longer necessary."}
    )
    agents = body.get("agents")
    if agents is not None:
        says = "Review the agents with a high risk score."
        steps.append({"kind": "risk", "count": agents["high"], "says": says})
    if resources is not None:
        says = "Protect a first tool server with a guard."
        steps.append({"kind": "resource", "count": int(not resources), "says": says})
    if agents is not None:
        says = "Register a first agent with an owner."
        steps.append({"kind": "agent", "count": int(agents["total"] < 2), "says": says})
    if resources is not None:
        count = sum(one.mode is Mode.WATCH for one in resources)
        steps.append({"kind": "watching", "count": count, "says": "Switch resources from watch mode to enforcement."})
    if agents is not None:
        says = "Register a key for the agents without a key."
        steps.append({"kind": "pending", "count": agents["state"].get("pending", 0), "says": says})
    return [step for step in steps if step["count"]][:MAX_STEPS]


ROUTES = (Route("GET", "/api/v1/overview", show_overview, READ, answers={200: OverviewBody}),)
