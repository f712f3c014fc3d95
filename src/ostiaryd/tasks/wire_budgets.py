"""Daily limits of agents (UTC), as JSON under /api/v1. Limits are as in `ostiary.authorization.budget`."""

from __future__ import annotations

from typing import Any, TypedDict

import msgspec

from ostiary.authorization.budget import parse_limits
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ
from ostiaryd.tasks import flows
from ostiaryd.tasks.model.budget import Balance


class Allowance(msgspec.Struct, forbid_unknown_fields=True):
    limits: list[Any]
    """The daily limits of the agent, which replace all its earlier daily limits. An empty list removes them."""


class AllowanceBody(TypedDict):
    """The daily budgets of an agent, with the units that are left today."""

    budgets: list[Balance]


async def set_allowance(call: Call) -> Reply:
    """Set the daily budgets of an agent. Units that were used today still count."""
    limits = parse_limits(call.json(Allowance).limits, classes=call.world.config.classes)
    await registry.act_as(call, "agent.budget", lambda act: flows.set_allowance(act, call.params["name"], limits))
    return await show_allowance(call)


async def show_allowance(call: Call) -> Reply:
    """Show the daily budgets of an agent, with the units that are left today."""
    reader = call.world.db.read()
    agent = registry.find_agent(reader, call.params["name"])
    return reply({"budgets": flows.balances(reader, flows.allowance(reader, agent), now=call.world.now())})


ROUTES = (
    Route("PUT", "/api/v1/agents/{name}/budget", set_allowance, ADMIN, body=Allowance, answers={200: AllowanceBody}),
    Route("GET", "/api/v1/agents/{name}/budget", show_allowance, READ, answers={200: AllowanceBody}),
)
