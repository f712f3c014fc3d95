"""Workloads of agents as JSON under /api/v1, for administrators."""

from __future__ import annotations

from typing import Any, TypedDict

from ostiaryd.certs.flows import workloads
from ostiaryd.certs.model.workload import Selectors, Workload
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, PageBody, Query, Route
from ostiaryd.registry.flows import act_as, find_agent
from ostiaryd.registry.model import ADMIN, READ, spiffe_id

SECOND = 1_000_000


class WorkloadBody(TypedDict):
    """A workload of an agent: the processes that match its selectors act for the agent."""

    workload_id: str
    agent: str
    agent_id: str
    spiffe_id: str
    selectors: dict[str, Any]
    created_at: int


async def add_workload(call: Call) -> Reply:
    """Register a workload of an agent. Processes that match all its selectors get the agent's SVIDs."""
    selectors, config = call.json(Selectors), call.world.config
    made = await act_as(
        call,
        "workload.add",
        lambda act: workloads.add_workload(act, call.params["id"], selectors, config=config),
    )
    return reply(_render(call, call.world.db.read(), made), status=201)


async def list_workloads(call: Call) -> Reply:
    """List the workloads of all agents, or of the agent that `agent` names."""
    agent = call.query_one("agent")
    return await reply_page(
        call,
        "workloads",
        lambda reader, page: workloads.list_workloads(reader, page, agent=agent),
        lambda reader, one: _render(call, reader, one),
        cursor=lambda one: one.workload_id,
    )


async def remove_workload(call: Call) -> Reply:
    """Remove a workload. Its processes lose the agent's SVIDs at once."""
    removed = await act_as(call, "workload.remove", lambda act: workloads.remove_workload(act, call.params["id"]))
    return reply(_render(call, call.world.db.read(), removed))


def _render(call: Call, reader: Reader, workload: Workload) -> WorkloadBody:
    agent = find_agent(reader, workload.agent)
    return {
        "workload_id": workload.workload_id,
        "agent": agent.name,
        "agent_id": agent.agent_id,
        "spiffe_id": spiffe_id(call.world.config.trust_domain, agent.name),
        "selectors": workloads.render_selectors(workload.selectors),
        "created_at": workload.created_at // SECOND,
    }


ROUTES = (
    Route("POST", "/api/v1/agents/{id}/workloads", add_workload, ADMIN, body=Selectors, answers={201: WorkloadBody}),
    Route(
        "GET",
        "/api/v1/workloads",
        list_workloads,
        READ,
        answers={200: PageBody("workloads", WorkloadBody)},
        query=(*PAGE, Query("agent", "Name or id of an agent.")),
        errors=(NOT_FOUND,),
    ),
    Route("DELETE", "/api/v1/workloads/{id}", remove_workload, ADMIN, stops=True, answers={200: WorkloadBody}),
)
