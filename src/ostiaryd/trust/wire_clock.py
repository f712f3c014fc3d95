"""The clock of the server under /api/v1/clock. Times are in seconds since the epoch."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ostiary.protocol.errors import Forbidden
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.registry.flows import act_as
from ostiaryd.registry.model import ADMIN, APPROVE, SELF
from ostiaryd.trust import flows
from ostiaryd.trust.flows.clock import ClockBody
from ostiaryd.trust.model import SECOND

MAX_WALL_S = 1 << 40
"""Maximum time that a request may state, in seconds since the epoch, because a JSON number such as `1e999` is parsed as
infinity.
"""


class Confirmation(msgspec.Struct, forbid_unknown_fields=True):
    """The confirmation of the wall clock. `wall` is the time that the operator confirms, in seconds, as `GET
    /api/v1/clock` shows it.
    """

    wall: Annotated[float, Meta(ge=0, le=MAX_WALL_S)]


async def show_clock(call: Call) -> Reply:
    """Show server time, the wall clock, their difference, and whether the server gives out access (`is_granting`)."""
    return reply(flows.show_clock(call.world.now), headers=[NO_STORE])


async def accept_clock(call: Call) -> Reply:
    """Confirm, after a jump, that the wall clock is right.

    Only persons with a key and administrators can do this.
    """
    if not {ADMIN, APPROVE} & call.caller.scopes:
        raise Forbidden("only a person with a key or an administrator can confirm the clock")
    wall = round(call.json(Confirmation).wall * SECOND)
    await flows.accept_clock(call.world, wall=wall, record=lambda action, flow: act_as(call, action, flow))
    return reply(flows.show_clock(call.world.now), headers=[NO_STORE])


ROUTES = (
    Route("GET", "/api/v1/clock", show_clock, SELF, allows_people=True, answers={200: ClockBody}),
    Route(
        "POST",
        "/api/v1/clock/accept",
        accept_clock,
        SELF,
        body=Confirmation,
        allows_people=True,
        answers={200: ClockBody},
    ),
)
