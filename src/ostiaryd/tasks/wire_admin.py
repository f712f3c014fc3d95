"""Tasks as JSON under /api/v1, and the one revoke. Times are seconds since the epoch.

An agent declares, renews, ends and sees its own tasks; who answers for it and administrators do so too.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ostiary.core.bounds import parse_details, render_details
from ostiaryd.ground import outbox
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http import Call, Reply, reply
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import SELF, parse_page
from ostiaryd.tasks import flows
from ostiaryd.tasks.model import DEFAULT_TTL_S, SECOND, State, Task
from ostiaryd.tasks.store import tasks as store


class NewTask(msgspec.Struct, forbid_unknown_fields=True):
    purpose: str
    agent: str | None = None
    """Name or id; the caller itself if left out."""
    bounds: list[Any] = []
    scopes: list[str] | None = None
    on_behalf_of: str | None = None
    ttl: int = DEFAULT_TTL_S


class Renewal(msgspec.Struct, forbid_unknown_fields=True):
    ttl: int = DEFAULT_TTL_S


class End(msgspec.Struct, forbid_unknown_fields=True):
    outcome: Literal["done", "failed", "cancelled"] = "done"


class Revocation(msgspec.Struct, forbid_unknown_fields=True):
    kind: flows.Kind
    id: str


async def start_task(call: Call) -> Reply:
    new = call.json(NewTask)
    bounds = parse_details(new.bounds)
    task = await registry.act_as(
        call,
        "task.start",
        lambda act: flows.start(
            act, agent=new.agent or call.caller.id, purpose=new.purpose, bounds=bounds, scopes=new.scopes,
            on_behalf_of=new.on_behalf_of, ttl_s=new.ttl, unregistered=call.world.config.resources == "any",
            by=call.caller,
        ),
    )  # fmt: skip
    return reply(_render(call.world.db.read(), task, now=call.world.now()), status=201)


async def list_tasks(call: Call) -> Reply:
    """Declared tasks, the newest first: of `?agent=`, or all that exist for those who may read everything."""
    asked = parse_page(call.query_one("limit"), call.query_one("after"))
    agent, now = call.query_one("agent"), call.world.now()

    def read(reader: Reader) -> list[dict[str, Any]]:
        whose = flows.may_list(reader, agent, by=call.caller)
        return [_render(reader, task, now=now) for task in store.page(reader, agent=whose, page=asked)]

    rows = await call.world.db.scan(read)
    return reply({"tasks": rows, "next": rows[-1]["task_id"] if len(rows) == asked.limit else None})


async def show_task(call: Call) -> Reply:
    reader = call.world.db.read()
    task = flows.may_see(reader, call.params["id"], by=call.caller)
    return reply(_render(reader, task, now=call.world.now()))


async def renew_task(call: Call) -> Reply:
    ttl = call.json(Renewal).ttl
    task = await registry.act_as(
        call, "task.renew", lambda act: flows.renew(act, call.params["id"], ttl_s=ttl, by=call.caller)
    )
    return reply(_render(call.world.db.read(), task, now=call.world.now()))


async def end_task(call: Call) -> Reply:
    """End a task; when this is answered, everything given under it is dead."""
    outcome = State(call.json(End).outcome)
    task = await registry.act_as(
        call, "task.end", lambda act: flows.end(act, call.params["id"], outcome, by=call.caller)
    )
    return reply(_render(call.world.db.read(), task, now=call.world.now()))


async def revoke(call: Call) -> Reply:
    """End an agent, a task, a token, a key or an owner with everything derived.

    `seq`: the number in the feed after which a guard denies all of it; `committed_at` (µs): when it was durable.
    """
    asked = call.json(Revocation)

    def run(act: Act) -> tuple[dict[str, int], int]:
        return dict(flows.revoke(act, asked.kind, asked.id, by=call.caller)), outbox.head(act.tx)

    ended, seq = await registry.act_as(call, f"{asked.kind}.revoke", run)
    return reply({"revoked": ended, "seq": seq, "committed_at": call.world.now()})


def _render(reader: Reader, task: Task, *, now: int) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "agent": registry.find_agent(reader, task.agent).name,
        "agent_id": task.agent,
        "purpose": task.purpose,
        "state": task.state_at(now),
        "on_behalf_of": None if task.person is None else registry.find_person(reader, task.person).name,
        "scopes": sorted(task.scopes),
        "bounds": render_details(task.bounds),
        "created_at": task.created_at // SECOND,
        "expires_at": None if task.expires_at is None else task.expires_at // SECOND,
        "ended_at": None if task.ended_at is None else task.ended_at // SECOND,
    }


ROUTES = (
    ("POST", "/api/v1/tasks", start_task, SELF),
    ("GET", "/api/v1/tasks", list_tasks, SELF),
    ("GET", "/api/v1/tasks/{id}", show_task, SELF),
    ("POST", "/api/v1/tasks/{id}/renew", renew_task, SELF),
    ("POST", "/api/v1/tasks/{id}/end", end_task, SELF),
    ("POST", "/api/v1/revoke", revoke, SELF),
)
