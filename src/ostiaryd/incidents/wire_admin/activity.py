"""Activity for the live view: the agents with the highest risk scores, and the numbers of open incidents and stops.

Decisions, findings and responses are entries of the ledger: `GET /api/v1/audit?after=INDEX`.
"""

from __future__ import annotations

from typing import TypedDict

from ostiary.provenance.noticing.risk import OVER_AFTER
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.incidents import store
from ostiaryd.ledger import flows as ledger
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import READ

MAX_DOUBTED = 10


class RiskBody(TypedDict):
    """An agent and its risk score. `held`: the kinds of its restrictions in force, such as `throttle`; `incident`: its
    open incident.
    """

    agent: str
    agent_id: str
    state: str | None
    risk: int
    held: list[str]
    incident: str | None


class ActivityBody(TypedDict):
    """The agents with the highest risk scores, and the numbers of open incidents (`waiting`), of stops, and of entries
    of the ledger (`size`).
    """

    size: int
    waiting: int
    stops: int
    doubted: list[RiskBody]


async def show_activity(call: Call) -> Reply:
    """Show the agents with the highest risk scores, and the numbers of open incidents, stops and entries."""
    now = call.world.now()

    def read(reader: Reader) -> ActivityBody:
        return {
            "size": ledger.get_head(reader)[0].size,
            "waiting": store.count_waiting(reader),
            "stops": len(registry.list_stops(reader)),
            "doubted": [_doubted(reader, subject, points, now) for subject, points in _worst(reader, now)],
        }

    return reply(await call.world.db.scan(read))


def _worst(reader: Reader, now: int) -> list[tuple[str, int]]:
    worst = registry.list_riskiest_agents(reader, since=now - OVER_AFTER, limit=5 * MAX_DOUBTED)
    left = [(subject, points) for subject, risk in worst if (points := risk.points(now))]
    return sorted(left, key=lambda one: -one[1])[:MAX_DOUBTED]


def _doubted(reader: Reader, id: str, points: int, now: int) -> RiskBody:
    agent, waiting = registry.get_agent(reader, id), store.find_open(reader, id)
    return {
        "agent": id if agent is None else agent.name,
        "agent_id": id,
        "state": None if agent is None else agent.state,
        "risk": points,
        "held": [one.kind for one in registry.list_restrictions_of_agent(reader, id, now=now)],
        "incident": None if waiting is None else waiting.incident_id,
    }


ROUTES = (Route("GET", "/api/v1/activity", show_activity, READ, answers={200: ActivityBody}),)
