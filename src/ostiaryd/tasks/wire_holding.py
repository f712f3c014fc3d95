"""Holders of a task, as JSON under /api/v1: for the running copies of its agent."""

from __future__ import annotations

from typing import Literal

import msgspec

from ostiaryd.ground.database.writer import isolated
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.routes import EmptyBody, Route
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import SELF
from ostiaryd.tasks import flows
from ostiaryd.tasks.flows.show import TaskDetail
from ostiaryd.tasks.model import TaskState


class Hold(msgspec.Struct, forbid_unknown_fields=True):
    holder: str


class Leave(msgspec.Struct, forbid_unknown_fields=True):
    holder: str
    outcome: Literal["done", "failed", "cancelled"] = "done"
    """Outcome of the task if this is its last holder."""


async def hold_task(call: Call) -> Reply:
    """Hold one of the agent's own tasks that has a heartbeat, as a running copy of the agent.

    Then call the operation `beat` within each heartbeat interval; otherwise this copy no longer holds the task. The
    task is lost when no copy has sent a heartbeat for an interval.
    """
    holder, id = call.json(Hold).holder, call.params["id"]
    task = await registry.act_as(call, "task.hold", lambda act: flows.add_holder(act, id, holder, by=call.caller))
    return reply(flows.show(call.world.db.read(), task, now=call.world.now()))


async def beat_task(call: Call) -> Reply:
    """Send a heartbeat for a held task."""
    holder, id = call.json(Hold).holder, call.params["id"]
    await call.world.writer.submit(isolated(lambda tx: flows.record_heartbeat(tx, id, holder, by=call.caller)))
    return reply({})


async def leave_task(call: Call) -> Reply:
    """Leave a held task. If the task has `end_with_last`, it ends when its last holder leaves."""
    left, id = call.json(Leave), call.params["id"]
    task = await registry.act_as(
        call,
        "task.leave",
        lambda act: flows.remove_holder(act, id, left.holder, TaskState(left.outcome), by=call.caller),
    )
    return reply(flows.show(call.world.db.read(), task, now=call.world.now()))


ROUTES = (
    Route("POST", "/api/v1/tasks/{id}/hold", hold_task, SELF, body=Hold, answers={200: TaskDetail}),
    Route("POST", "/api/v1/tasks/{id}/beat", beat_task, SELF, body=Hold, answers={200: EmptyBody}),
    Route("POST", "/api/v1/tasks/{id}/leave", leave_task, SELF, body=Leave, answers={200: TaskDetail}),
)
