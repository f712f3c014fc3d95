"""The end of a task: in the same act, all tasks under it end, and everything that was issued under any of them."""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import LONGEST_TOKEN, Root
from ostiaryd.tasks import store
from ostiaryd.tasks.flows.budgets import give_up
from ostiaryd.tasks.flows.find import find_task
from ostiaryd.tasks.model import Task, TaskDelta, TaskState

DAY = 86_400_000_000
PRUNED_AT_ONCE = 100


def end_task(act: Act, task: Task, state: TaskState) -> Counter[str]:
    """Set the state of a task, end all tasks under it and their holdings (such as tokens), and return the number of
    ended objects by kind. The tasks under it become expired if `state` is expired, otherwise cancelled. If the task has
    ended before, nothing changes.

    Guards are only notified of the task itself, because every token under it contains the task.
    """
    under = TaskState.EXPIRED if state is TaskState.EXPIRED else TaskState.CANCELLED
    give_up(act, task)
    count, remembering = store.tasks.end(act.tx, task.task_id, state, under=under)
    if not count:
        return Counter()
    for one in remembering:
        store.memories.drop(act.tx, one)
    store.histories.drop(act.tx, task.task_id)
    registry.queue_for_guards(act, TaskDelta(task.task_id, act.now + LONGEST_TOKEN))
    ended = registry.end_holdings(act, Root.TASK, task.task_id, why=f"task {state}")
    ended["task"] = count
    if count > 1:
        registry.fill_entry(act, object=act.entry.object or task.task_id, ended=dict(ended))
    return ended


def expire(act: Act, id: str) -> Task:
    """End a task that has expired, or whose holders (running copies of the agent) have all stopped sending heartbeats,
    and return it. Raises NotFound for an unknown task, and Conflict for a task that is still live or has already ended.
    """
    task = find_task(act.tx, id)
    registry.fill_entry(act, object=task.task_id, agent=task.agent)
    state = task.state_at(act.now)
    if task.state is not TaskState.LIVE:
        raise Conflict(f"the task has already ended: {state}")
    if state is TaskState.LIVE:
        raise Conflict("the task has not expired")
    registry.fill_entry(act, object=task.task_id, outcome=state.value)
    end_task(act, task, state)
    return replace(task, state=state, ended_at=act.now)


async def expire_due(world: World, *, limit: int = 100) -> int:
    """End at most `limit` expired and at most `limit` lost tasks, each in a separate act; return the number of ended
    tasks.
    """
    now = world.now()
    due = await world.db.scan(
        lambda reader: [
            *store.tasks.due(reader, now=now, limit=limit),
            *store.tasks.list_silent(reader, now=now, limit=limit),
        ]
    )
    return await registry.act_on_each(world, "task.expire", expire, list(dict.fromkeys(due)))


async def prune_ended(world: World) -> int:
    """Delete tasks that ended longer ago than `task_history_days`, in small batches; return the number of deleted
    tasks. With 0 days, tasks are kept forever. The ledger keeps the entries about deleted tasks. No access changes, so
    no ledger entry is written.
    """
    if not world.config.task_history_days:
        return 0
    before, total = world.now.horizon - world.config.task_history_days * DAY, 0
    while pruned := await world.writer.submit(lambda tx: store.pruning.prune(tx, before=before, limit=PRUNED_AT_ONCE)):
        total += len(pruned)
    return total
