"""Activity for the live view: the agents with the highest risk, open incidents, stops.

Decisions, findings and responses are entries of the ledger: `GET /api/v1/audit?after=INDEX`.
"""

from __future__ import annotations

from typing import Any

from ostiary.provenance.noticing.risk import OVER_AFTER
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.incidents import store as incidents
from ostiaryd.ledger import flows as ledger
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import READ

MAX_DOUBTED = 10


async def show_activity(call: Call) -> Reply:
    """Show the agents with the highest risk in points, the numbers of incidents and stops, and the ledger's size."""
    now = call.world.now()

    def read(reader: Reader) -> dict[str, Any]:
        return {
            "size": ledger.get_head(reader)[0].size,
            "waiting": incidents.count_waiting(reader),
            "stops": len(registry.list_stops(reader)),
            "doubted": [_doubted(reader, subject, points, now) for subject, points in _worst(reader, now)],
        }

    return reply(await call.world.db.scan(read))


def _worst(reader: Reader, now: int) -> list[tuple[str, int]]:
    worst = registry.list_riskiest_agents(reader, since=now - OVER_AFTER, limit=5 * MAX_DOUBTED)
    left = [(subject, points) for subject, risk in worst if (points := risk.points(now))]
    return sorted(left, key=lambda one: -one[1])[:MAX_DOUBTED]


def _doubted(reader: Reader, id: str, points: int, now: int) -> dict[str, Any]:
    agent, waiting = registry.get_agent(reader, id), incidents.waiting(reader, id)
    return {
        "agent": id if agent is None else agent.name,
        "agent_id": id,
        "state": None if agent is None else agent.state,
        "risk": points,
        "held": [one.kind for one in registry.list_restrictions_of_agent(reader, id, now=now)],
        "incident": None if waiting is None else waiting.incident_id,
    }


ROUTES = (Route("GET", "/api/v1/activity", show_activity, READ),)
