"""Elevation as JSON under /api/v1. Times are seconds since the epoch."""

from __future__ import annotations

from typing import TypedDict

import msgspec

from ostiary.protocol.errors import Forbidden
from ostiaryd.approvals import flows
from ostiaryd.approvals.flows.elevate import ElevationBody
from ostiaryd.approvals.flows.show import ApprovalBody
from ostiaryd.approvals.model import Question
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import NO_STORE, Call, Reply, reply
from ostiaryd.ground.http.pages import Page, reply_page
from ostiaryd.ground.http.routes import PAGE, PageBody, Route
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows.external_pdp import act_with_answers
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, READ, SELF, Agent
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.flows.show import TaskDetail
from ostiaryd.tasks.model import Elevation, Task


class Eligible(msgspec.Struct, forbid_unknown_fields=True):
    """All scopes that an agent may request for a limited time; scopes that are left out are no longer among them."""

    scopes: list[str]
    undeclared: bool = False
    """True if the scopes may contain scopes that no resource declares."""


class EligibleBody(TypedDict):
    """The scopes that an agent may request for a limited time (elevation)."""

    agent: str
    scopes: list[str]


async def request_elevation(call: Call) -> Reply:
    """Request additional scopes for a limited time, as the agent that needs them.

    The status is 201 with the task of the elevation, or 202 with the approval request that waits for a person. After
    the approval, the agent sends the same request again, and the elevation begins.
    """
    requested = call.json(flows.ElevationRequest)

    def request(act: Act) -> tuple[Task | None, Question | None]:
        return flows.request(act, requested, by=call.caller, config=call.world.config)

    task, question = await act_with_answers(
        call.world, lambda retry: registry.act_as(call, "elevation.request", request, again=retry)
    )
    reader, now = call.world.db.read(), call.world.now()
    if task is not None:
        return reply(tasks.show(reader, task, now=now), status=201, headers=[NO_STORE])
    assert question is not None
    return reply(flows.show_briefly(reader, question, now=now), status=202, headers=[NO_STORE])


async def list_elevations(call: Call) -> Reply:
    """List elevations, the newest first. An agent sees only its own; callers that may read everything see all."""
    now, by = call.world.now(), call.caller

    def read(reader: Reader, page: Page) -> list[Elevation]:
        if not by.may_read and by.kind != "agent":
            raise Forbidden(
                "only agents and callers that may read everything can list elevations",
                hint=f"request a token with the scope {READ}",
            )
        agent = None if by.may_read else registry.find_agent(reader, by.id).agent_id
        return tasks.list_elevations(reader, agent=agent, page=page)

    return await reply_page(
        call,
        "elevations",
        read,
        lambda reader, one: flows.show_elevation(reader, one, now=now),
        cursor=lambda one: one.task,
    )


async def show_eligible(call: Call) -> Reply:
    """Show the scopes that an agent may request for a limited time."""
    reader = call.world.db.read()
    agent = registry.find_agent(reader, call.params["name"])
    return reply({"agent": agent.name, "scopes": sorted(tasks.get_eligible_scopes(reader, agent.agent_id))})


async def set_eligible(call: Call) -> Reply:
    """Set the scopes that an agent may request for a limited time.

    A running elevation of the agent ends if it has a scope that is no longer among these.
    """
    body = call.json(Eligible)

    def allow(act: Act) -> tuple[Agent, frozenset[str]]:
        before = tasks.get_eligible_scopes(act.tx, registry.find_agent(act.tx, call.params["name"]).agent_id)
        agent, scopes = tasks.set_eligible(act, call.params["name"], body.scopes)
        if not body.undeclared:
            registry.check_declared(act.tx, scopes - before)
        return agent, scopes

    agent, scopes = await registry.act_as(call, "elevation.allow", allow)
    return reply({"agent": agent.name, "scopes": sorted(scopes)})


ROUTES = (
    Route(
        "POST",
        "/api/v1/elevations",
        request_elevation,
        SELF,
        body=flows.ElevationRequest,
        grants=True,
        answers={201: TaskDetail, 202: ApprovalBody},
    ),
    Route(
        "GET",
        "/api/v1/elevations",
        list_elevations,
        SELF,
        answers={200: PageBody("elevations", ElevationBody)},
        query=PAGE,
    ),
    Route("GET", "/api/v1/agents/{name}/eligible", show_eligible, READ, answers={200: EligibleBody}),
    Route("PUT", "/api/v1/agents/{name}/eligible", set_eligible, ADMIN, body=Eligible, answers={200: EligibleBody}),
)
