"""Tasks and revocation as JSON under /api/v1. Times are in seconds since the epoch.

An agent, its owner and administrators can see, renew and end the agent's tasks and the tasks under them. Tasks are
started by `policy.wire_tasks`.
"""

from __future__ import annotations

from typing import Literal, TypedDict

import msgspec

from ostiary.protocol.errors import Forbidden, Invalid, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.edge import Call, Reply, reply
from ostiaryd.ground.http.pages import Page, reply_page
from ostiaryd.ground.http.routes import NOT_FOUND, PAGE, Either, PageBody, Query, Route
from ostiaryd.ground.outbound import outbox
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.flows.show import MovedAgent, StateChange, show_moved_agent
from ostiaryd.registry.model import ADMIN, SELF
from ostiaryd.tasks import flows, store
from ostiaryd.tasks.flows.deleted_task import PrunedTask
from ostiaryd.tasks.flows.show import TaskBody, TaskDetail
from ostiaryd.tasks.model import DEFAULT_TTL_S, Task, TaskState


class Renewal(msgspec.Struct, forbid_unknown_fields=True):
    ttl: int = DEFAULT_TTL_S


class End(msgspec.Struct, forbid_unknown_fields=True):
    outcome: Literal["done", "failed", "cancelled"] = "done"


class AccessRevocation(msgspec.Struct, forbid_unknown_fields=True):
    kind: flows.RevokedKind
    id: str


class RevocationBody(TypedDict):
    """The number of ended objects by kind. The change has the number `seq` in the feed, and was committed at
    `committed_at` (microseconds).
    """

    revoked: dict[str, int]
    seq: int
    committed_at: int
    state: str
    undo: str


async def list_tasks(call: Call) -> Reply:
    """List declared tasks, the newest first.

    Listed are the tasks of `agent`; without `agent`, those of the caller, or all tasks for callers that may read
    everything. `state=live` lists only live tasks, of all agents.
    """
    agent, state, now = call.query_one("agent"), call.query_one("state"), call.world.now()
    if state not in (None, "live"):
        raise Invalid("`state` can only be `live`")
    if state and agent:
        raise Invalid("`state` cannot be combined with `agent`", hint="send only one of the two")

    def read(reader: Reader, page: Page) -> list[Task]:
        chosen = flows.may_list(reader, agent, by=call.caller)
        if state and chosen is not None:
            raise Forbidden(
                "only callers that may read everything may list the live tasks of all agents",
                hint="leave `state` out to list your own tasks",
            )
        return store.tasks.live_page(reader, page) if state else store.tasks.page(reader, agent=chosen, page=page)

    return await reply_page(
        call,
        "tasks",
        read,
        lambda reader, task: flows.show_briefly(reader, task, now=now),
        cursor=lambda task: task.task_id,
    )


async def show_task(call: Call) -> Reply:
    """Show a task. A task that was deleted after its end is shown from the ledger, with the state `pruned`.

    The setting `task_history_days` determines when ended tasks are deleted.
    """
    id, by, now = call.params["id"], call.caller, call.world.now()
    reader = call.world.db.read()
    try:
        return reply(flows.show(reader, flows.find_visible(reader, id, by=by), now=now))
    except NotFound:
        return reply(await call.world.db.scan(lambda reader: flows.show_pruned(reader, id, by=by)))


async def show_tree(call: Call) -> Reply:
    """List a task with all tasks under it. A parent comes before its children."""
    now = call.world.now()

    def read(reader: Reader, page: Page) -> list[Task]:
        return flows.tree(reader, flows.find_visible(reader, call.params["id"], by=call.caller), page)

    return await reply_page(
        call, "tasks", read, lambda reader, task: flows.show_briefly(reader, task, now=now), cursor=flows.place_of
    )


async def renew_task(call: Call) -> Reply:
    """Extend the lifetime of a task."""
    ttl = call.json(Renewal).ttl
    task = await registry.act_as(
        call, "task.renew", lambda act: flows.renew(act, call.params["id"], ttl_s=ttl, by=call.caller)
    )
    return reply(flows.show(call.world.db.read(), task, now=call.world.now()))


async def end_task(call: Call) -> Reply:
    """End a task and revoke everything that was granted under it."""
    outcome = TaskState(call.json(End).outcome)
    task = await registry.act_as(
        call, "task.end", lambda act: flows.end(act, call.params["id"], outcome, by=call.caller)
    )
    return reply(flows.show(call.world.db.read(), task, now=call.world.now()))


async def decommission_agent(call: Call) -> Reply:
    """Decommission an agent. Its tasks and the tasks that it delegated end as cancelled."""
    name, why = call.params["name"], call.json(StateChange).why

    def run(act: Act) -> int:
        flows.decommission_agent(act, name, why=why, by=call.caller)
        return outbox.highest_number(act.tx)

    seq = await registry.act_as(call, "agent.decommission", run)
    committed_at, domain = call.world.now(), call.world.config.trust_domain
    reader = call.world.db.read()
    return reply(show_moved_agent(reader, name, trust_domain=domain, seq=seq, committed_at=committed_at))


async def revoke(call: Call) -> Reply:
    """Revoke an agent, a task, a token, a key or an owner, with everything derived from it.

    A guard that has applied the change with the number `seq` of the feed denies all calls with the revoked objects. The
    change was committed at `committed_at` (microseconds). `state` is the present state of the object; `undo` is the
    command that undoes the revocation, empty if there is none.
    """
    order = call.json(AccessRevocation)

    def run(act: Act) -> tuple[dict[str, int], int]:
        return dict(flows.revoke(act, order.kind, order.id, by=call.caller)), outbox.highest_number(act.tx)

    ended, seq = await registry.act_as(call, f"{order.kind}.revoke", run)
    committed_at = call.world.now()
    state, undo = flows.revoked_state(call.world.db.read(), order.kind, order.id)
    return reply({"revoked": ended, "seq": seq, "committed_at": committed_at, "state": state, "undo": undo})


ROUTES = (
    Route(
        "GET",
        "/api/v1/tasks",
        list_tasks,
        SELF,
        errors=(NOT_FOUND,),
        answers={200: PageBody("tasks", TaskBody)},
        query=(
            Query("agent", "Name or id of the agent whose tasks are listed."),
            Query("state", "`live`: list only live tasks, of all agents.", Literal["live"]),
            *PAGE,
        ),
    ),
    Route("GET", "/api/v1/tasks/{id}", show_task, SELF, answers={200: Either(TaskDetail, PrunedTask)}),
    Route("GET", "/api/v1/tasks/{id}/tree", show_tree, SELF, answers={200: PageBody("tasks", TaskBody)}, query=PAGE),
    Route("POST", "/api/v1/tasks/{id}/renew", renew_task, SELF, body=Renewal, grants=True, answers={200: TaskDetail}),
    Route(
        "POST",
        "/api/v1/tasks/{id}/end",
        end_task,
        SELF,
        body=End,
        stops=True,
        proves_in_act=True,
        answers={200: TaskDetail},
    ),
    Route(
        "POST",
        "/api/v1/revoke",
        revoke,
        SELF,
        body=AccessRevocation,
        stops=True,
        proves_in_act=True,
        answers={200: RevocationBody},
    ),
    Route(
        "POST",
        "/api/v1/agents/{name}/decommission",
        decommission_agent,
        ADMIN,
        body=StateChange,
        stops=True,
        proves_in_act=True,
        answers={200: MovedAgent},
    ),
)
