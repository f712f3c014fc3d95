"""Tasks that ended long ago are deleted; their history stays in the ledger, and no denial depends on their rows."""

from __future__ import annotations

from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import (
    agent_caller,
    call_admin_api,
    create_holding,
    person_caller,
    register_agent,
    run_act,
)
from ostiary.protocol.errors import Forbidden, NotFound
from ostiary.provenance.intent import parse_intent
from ostiaryd.ground.database import sql
from ostiaryd.ground.process.clock import MARGIN
from ostiaryd.ground.world import World
from ostiaryd.registry.model import Caller
from ostiaryd.tasks import flows
from ostiaryd.tasks.flows.ending import DAY
from ostiaryd.tasks.model import Task, TaskSpec
from ostiaryd.tasks.store import tasks as store
from tests.tasks.task_fixtures import live, start

HELD = {
    name: sql(f"select count(*) from {name}")
    for name in ("task", "holder", "elevation", "memory", "budget", "account", "intent", "history")
}


def counts(world: World) -> dict[str, int]:
    reader = world.db.read()
    rows = {name: reader.one(statement) for name, statement in HELD.items()}
    return {name: 0 if row is None else row[0] for name, row in rows.items()}


def gone(world: World, *some: Task) -> list[bool]:
    return [store.get_task(world.db.read(), one.task_id) is None for one in some]


async def end(world: World, one: Task) -> None:
    await run_act(world, lambda a: flows.end(a, one.task_id), "task.end")


async def begin(world: World, **more: Any) -> Task:
    """Start a task with the ledger entry that the API would write."""
    given = {"agent": "bot", "purpose": "to sort the mail"} | more
    return await run_act(world, lambda a: flows.start(a, TaskSpec(**given)), "task.start")


@pytest.mark.parametrize(("more", "is_gone"), [(0, False), (1, True)])
async def test_a_task_is_deleted_thirty_days_after_its_end(
    world: World, clock: Clock, more: int, is_gone: bool
) -> None:
    await register_agent(world)
    task, lives = await begin(world), await begin(world, ttl_s=30 * 86_400)
    await end(world, task)
    clock.advance(us=30 * DAY + MARGIN - 1)
    assert await flows.prune_ended(world) == 0
    clock.advance(us=1 + more)
    assert await flows.prune_ended(world) == int(is_gone)
    assert gone(world, task, lives) == [is_gone, False]


async def test_a_deleted_task_leaves_only_its_ledger_entries(world: World, clock: Clock) -> None:
    bot = await register_agent(world, scopes=["files:read"])
    intent = parse_intent({"words": "Sort my mail"})
    budget = ({"kind": "calls", "limit": 3},)
    body = {"purpose": "to sort", "heartbeat": 60, "budget": list(budget), "agent": "bot"}
    _, made = await call_admin_api(world, "POST", "/tasks", body)
    await call_admin_api(world, "POST", f"/tasks/{made['task_id']}/hold", {"holder": "a"}, by=agent_caller(bot))
    spoken = await begin(world, intent=intent)
    before = counts(world)
    assert (before["task"], before["budget"], before["intent"], before["memory"]) == (2, 1, 1, 1)
    for id in (made["task_id"], spoken.task_id):
        await call_admin_api(world, "POST", f"/tasks/{id}/end", {})
    clock.advance(us=31 * DAY)
    assert await flows.prune_ended(world) == 2
    assert counts(world) == dict.fromkeys(HELD, 0)

    id = made["task_id"]
    for by in (
        agent_caller(bot),
        person_caller(bot.owner),
        agent_caller(await register_agent(world, "reader"), "ostiary:read"),
    ):
        status, shown = await call_admin_api(world, "GET", f"/tasks/{id}", by=by)
        assert (status, shown["state"], shown["agent"], shown["purpose"]) == (200, "pruned", "bot", "to sort")
        assert shown["outcome"] == "done"
        assert [one["action"] for one in shown["history"]][-1] == "task.start"
        assert "task.end" in [one["action"] for one in shown["history"]]
    other = await register_agent(world, "other", owner="bob")
    for by in (agent_caller(other), person_caller(other.owner)):
        assert (await call_admin_api(world, "GET", f"/tasks/{id}", by=by))[0] == 403
    assert (await call_admin_api(world, "GET", "/tasks/tk_" + "0" * 32))[0] == 404


async def test_a_deleted_task_cannot_be_used_renewed_ended_or_delegated(world: World, clock: Clock) -> None:
    bot = await register_agent(world, scopes=["files:read"])
    task = await begin(world, budget=())
    await end(world, task)
    clock.advance(us=31 * DAY)
    await flows.prune_ended(world)
    with pytest.raises(NotFound):
        live(world, task.task_id)
    by: Caller = agent_caller(bot)
    for path, body in (("renew", {"ttl": 60}), ("end", {})):
        assert (await call_admin_api(world, "POST", f"/tasks/{task.task_id}/{path}", body, by=by))[0] == 404
    with pytest.raises(NotFound):
        await start(world, parent=task.task_id)


async def test_a_task_is_deleted_after_its_child_tasks_and_its_tokens(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    whole = await begin(world)
    part = await begin(world, parent=whole.task_id)
    held = await begin(world)
    await create_holding(world, agent, "tok_1", seconds=40 * 86_400, task=held.task_id)
    await end(world, whole)
    await world.writer.submit(lambda tx: tx.run(_END_ALONE, id=held.task_id, now=tx.now))
    clock.advance(us=31 * DAY)
    assert await flows.prune_ended(world) == 2, "the part first, then the whole"
    assert gone(world, whole, part, held) == [True, True, False]
    clock.advance(us=10 * DAY)
    assert await flows.prune_ended(world) == 1


_END_ALONE = sql("update task set state = 'done', ended_at = :now where task_id = :id")


async def test_a_task_with_a_live_child_task_is_not_deleted(world: World, clock: Clock) -> None:
    """No act leads to this state. With a shortened chain, the end of the parent would be forgotten."""
    await register_agent(world)
    whole = await begin(world, ttl_s=30 * 86_400)
    part = await begin(world, parent=whole.task_id, ttl_s=30 * 86_400)
    await world.writer.submit(lambda tx: tx.run(_END_ALONE, id=whole.task_id, now=tx.now))
    clock.advance(us=29 * DAY)
    await world.writer.submit(lambda tx: tx.run(_LONG_AGO, id=whole.task_id))
    assert await flows.prune_ended(world) == 0
    with pytest.raises(Forbidden) as refused:
        live(world, part.task_id)
    assert refused.value.code == "task_ended"


_LONG_AGO = sql("update task set ended_at = 1 where task_id = :id")


async def test_a_task_of_an_open_incident_is_not_deleted(world: World, clock: Clock) -> None:
    """The persons for whom the task acted may not release the incident, and the row of the task names them."""
    bot = await register_agent(world)
    task = await begin(world)
    await end(world, task)
    await world.writer.submit(lambda tx: tx.run(_INCIDENT, agent=bot.agent_id, owner=bot.owner))
    await world.writer.submit(lambda tx: tx.run(_FINDING, agent=bot.agent_id, task=task.task_id))
    clock.advance(us=31 * DAY)
    assert await flows.prune_ended(world) == 0
    await world.writer.submit(lambda tx: tx.run(_CLOSE, now=tx.now))
    assert await flows.prune_ended(world) == 0
    clock.advance(us=31 * DAY)
    assert await flows.prune_ended(world) == 1


_INCIDENT = sql(
    """insert into incident (incident_id, agent, owner, state, opened_at, heard_at, risk, says)
       values ('in_1', :agent, :owner, 'open', 1, 1, 1, 'x')"""
)
_FINDING = sql(
    """insert into finding (finding_id, at, detector, points, says, agent, task, entries, incident)
       values ('fi_1', 1, 'd', 1, 'x', :agent, :task, '', 'in_1')"""
)
_CLOSE = sql("update incident set state = 'released', closed_at = :now where incident_id = 'in_1'")
