"""Daily limits of agents (UTC), as JSON under /api/v1. Limits are as in `ostiary.authorization.budget`."""

from __future__ import annotations

from typing import Any

import msgspec

from ostiary.authorization.budget import parse_limits
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.tasks import flows


class Allowance(msgspec.Struct, forbid_unknown_fields=True):
    limits: list[Any]
    """All limits from now on; an empty list removes them."""


async def set_allowance(call: Call) -> Reply:
    """Say what an agent may do on each day; what it has used today still counts."""
    limits = parse_limits(call.json(Allowance).limits, classes=call.world.config.classes)
    await registry.act_as(call, "agent.budget", lambda act: flows.set_allowance(act, call.params["name"], limits))
    return _show(call)


async def show_allowance(call: Call) -> Reply:
    """Show the daily limits of an agent, and what is left of them today."""
    return _show(call)


def _show(call: Call) -> Reply:
    reader = call.world.db.read()
    agent = registry.find_agent(reader, call.params["name"])
    return reply({"budgets": flows.balances(reader, flows.allowance(reader, agent), now=call.world.now())})


ROUTES = (
    Route("PUT", "/api/v1/agents/{name}/budget", set_allowance, ADMIN, body=Allowance),
    Route("GET", "/api/v1/agents/{name}/budget", show_allowance, READ),
)
