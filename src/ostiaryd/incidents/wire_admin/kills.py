"""The kill switch for administrators, as JSON under /api/v1."""

from __future__ import annotations

import shlex
from typing import Any, TypedDict

import msgspec

from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import reply_short_list
from ostiaryd.ground.http.routes import PAGE, PageBody, Route
from ostiaryd.ground.outbound import outbox
from ostiaryd.incidents.flows import kills
from ostiaryd.incidents.model.incidents import SECOND
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ, Stop


class Kill(msgspec.Struct, forbid_unknown_fields=True):
    """The subject of a stop. `name`: the name or id of an agent, an owner or a resource, the id of a task, or the name
    of a segment or a model; empty for `everything`. `why`: the reason.
    """

    target_kind: kills.Killed = msgspec.field(name="what")
    why: str
    name: str = ""


class KillBody(TypedDict):
    """A new stop. `incident`: its incident if an agent was stopped, otherwise null. `seq`: the number of the change in
    the guards' feed. `committed_at`: the time of the commit in microseconds. `undo`: the command that lifts the stop.
    """

    incident: str | None
    seq: int
    undo: str
    committed_at: int


class LiftBody(TypedDict):
    """A lifted stop: `seq`, the number of the change in the guards' feed, and `committed_at`, the time of its commit in
    microseconds.
    """

    seq: int
    committed_at: int


class StopBody(TypedDict):
    """A stop that is in force."""

    what: str
    name: str
    since: float
    by: str | None
    why: str
    incident: str | None


async def kill(call: Call) -> Reply:
    """Stop an agent, a task, an owner's agents, a resource, a segment, a model, or everything.

    The stop lasts until an administrator lifts it, for an agent until a person decides about its incident.

    From the change number `seq` of the feed on, a guard denies every stopped call.
    """
    order = call.json(Kill)

    def run(act: Act) -> dict[str, Any]:
        incident = kills.kill(act, order.target_kind, order.name, why=order.why, by=call.caller)
        lift = f"kill lift {order.target_kind} {shlex.quote(order.name) if order.name else ''}".rstrip()
        undo = f"incident release {incident.incident_id} --as PERSON.json" if incident else lift
        return {
            "incident": incident and incident.incident_id,
            "seq": outbox.highest_number(act.tx),
            "undo": f"ostiary {undo} --reason WHY",
        }

    done = await registry.act_as(call, "kill.start", run)
    return reply(done | {"committed_at": call.world.now()}, status=201)


async def let_go(call: Call) -> Reply:
    """Lift a stop: guards accept the stopped tokens again, unless the tokens have ended meanwhile."""
    order = call.json(Kill)

    def run(act: Act) -> int:
        kills.let_go(act, order.target_kind, order.name, why=order.why)
        return outbox.highest_number(act.tx)

    seq = await registry.act_as(call, "kill.end", run)
    return reply({"seq": seq, "committed_at": call.world.now()})


async def list_kills(call: Call) -> Reply:
    """List the stops that are in force, with their reasons."""
    return await reply_short_list(
        call,
        "stops",
        registry.list_stops,
        lambda _, one: _render(one),
        cursor=_place,
    )


def _place(stop: Stop) -> str:
    return f"{stop.target_kind} {stop.value}"


def _render(stop: Stop) -> StopBody:
    return {
        "what": stop.target_kind,
        "name": stop.value,
        "since": stop.since / SECOND,
        "by": stop.said_by,
        "why": stop.why,
        "incident": stop.incident,
    }


ROUTES = (
    Route("POST", "/api/v1/kill", kill, ADMIN, body=Kill, stops=True, proves_in_act=True, answers={201: KillBody}),
    Route("POST", "/api/v1/kill/lift", let_go, ADMIN, body=Kill, answers={200: LiftBody}),
    Route("GET", "/api/v1/kill", list_kills, READ, answers={200: PageBody("stops", StopBody)}, query=PAGE),
)
