"""The kill switch for administrators, as JSON under /api/v1."""

from __future__ import annotations

import shlex
from typing import Any

import msgspec

from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import behind, reply_page
from ostiaryd.ground.http.routes import Route
from ostiaryd.ground.outbound import outbox
from ostiaryd.incidents.flows import kills as flows
from ostiaryd.incidents.model.incidents import SECOND
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ, Stop


class Kill(msgspec.Struct, forbid_unknown_fields=True):
    what: flows.Killed
    why: str
    name: str = ""


async def kill(call: Call) -> Reply:
    """Stop a subject until the stop is lifted. `seq`: a guard that has read the feed up to here denies the subject."""
    order = call.json(Kill)

    def run(act: Act) -> dict[str, Any]:
        incident = flows.kill(act, order.what, order.name, why=order.why, by=call.caller)
        lift = f"kill lift {order.what} {shlex.quote(order.name) if order.name else ''}".rstrip()
        undo = f"incident release {incident.incident_id} --as PERSON.json" if incident else lift
        return {
            "incident": incident and incident.incident_id,
            "seq": outbox.head(act.tx),
            "undo": f"ostiary {undo} --reason WHY",
        }

    done = await registry.act_as(call, "kill.start", run)
    return reply(done | {"committed_at": call.world.now()}, status=201)


async def let_go(call: Call) -> Reply:
    """Take a stop back."""
    order = call.json(Kill)

    def run(act: Act) -> int:
        flows.let_go(act, order.what, order.name, why=order.why)
        return outbox.head(act.tx)

    seq = await registry.act_as(call, "kill.end", run)
    return reply({"seq": seq, "committed_at": call.world.now()})


async def list_kills(call: Call) -> Reply:
    """List all stops and their reasons."""
    return await reply_page(
        call,
        "stops",
        lambda reader, page: behind(registry.all_stops(reader), _place)(page),
        lambda _, one: _render(one),
        cursor=_place,
    )


def _place(stop: Stop) -> str:
    return f"{stop.what} {stop.value}"


def _render(stop: Stop) -> dict[str, Any]:
    return {
        "what": stop.what,
        "name": stop.value,
        "since": stop.since / SECOND,
        "by": stop.said_by,
        "why": stop.why,
        "incident": stop.incident,
    }


ROUTES = (
    Route("POST", "/api/v1/kill", kill, ADMIN, body=Kill, stops=True, proves_in_act=True),
    Route("POST", "/api/v1/kill/lift", let_go, ADMIN, body=Kill),
    Route("GET", "/api/v1/kill", list_kills, READ),
)
