"""Holders of a task: running copies of its agent send heartbeats, and the task is lost when all heartbeats have
stopped.
"""

from __future__ import annotations

import re

from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Caller
from ostiaryd.tasks import store
from ostiaryd.tasks.flows.ending import end_task
from ostiaryd.tasks.flows.find import find_task
from ostiaryd.tasks.flows.tasks import live
from ostiaryd.tasks.model import Holder, Task, TaskState, end_state

MAX_HOLDERS = 100
_HOLDER = re.compile(r"ho_[0-9a-f]{32}")


def add_holder(act: Act, id: str, holder: str, *, by: Caller) -> Task:
    """Add a holder (a running copy of the agent) to a live task of the caller, and return the task.

    Raises NotFound for an unknown task, Forbidden for an ended task or the task of another agent, Conflict for a task
    without heartbeat or with too many holders, Invalid for the id of the holder.
    """
    task, heartbeat = _live_task_of_caller(act.tx, id, holder, now=act.now, by=by)
    registry.fill_entry(act, object=task.task_id, holder=holder)
    store.holders.drop_silent(act.tx, task.task_id, before=act.now - heartbeat)
    others = [one for one in holders(act.tx, task, now=act.now) if one.holder != holder]
    if len(others) >= MAX_HOLDERS:
        raise Conflict(f"the task has {MAX_HOLDERS} holders, the maximum", code="too_many_holders")
    store.holders.put(act.tx, task.task_id, holder, until=act.now + heartbeat)
    return live(act.tx, id, now=act.now)


def record_heartbeat(tx: Tx, id: str, holder: str, *, by: Caller) -> None:
    """Record the heartbeat of a holder (a running copy of the agent) of a task. Nothing else changes, so no ledger
    entry is written. Raises the errors of `add_holder`, and NotFound if the holder left or its last heartbeat is too
    old.
    """
    task, heartbeat = _live_task_of_caller(tx, id, holder, now=tx.now, by=by)
    if holder not in [one.holder for one in holders(tx, task, now=tx.now)]:
        raise NotFound(
            "this holder left the task, or its last heartbeat is too old", hint="hold the task again", code="no_holder"
        )
    store.holders.put(tx, task.task_id, holder, until=tx.now + heartbeat)


def remove_holder(act: Act, id: str, holder: str, outcome: TaskState, *, by: Caller) -> Task:
    """Remove a holder (a running copy of the agent) from a task, and return the task. If the task has `ends_with_last`,
    the task ends with `outcome` when its last holder leaves. Raises the errors of `add_holder`.
    """
    task, _ = _live_task_of_caller(act.tx, id, holder, now=act.now, by=by)
    registry.fill_entry(act, object=task.task_id, holder=holder)
    state = end_state(task.state, outcome)
    store.holders.drop(act.tx, task.task_id, holder)
    if task.ends_with_last and not holders(act.tx, task, now=act.now):
        registry.fill_entry(act, object=task.task_id, outcome=state.value)
        end_task(act, task, state)
    return find_task(act.tx, id)


def holders(reader: Reader, task: Task, *, now: int) -> list[Holder]:
    """Return the holders of a task whose last heartbeat is not older than the task's heartbeat interval."""
    return [] if task.heartbeat is None else store.holders.list_live(reader, task.task_id, after=now - task.heartbeat)


def _live_task_of_caller(reader: Reader, id: str, holder: str, *, now: int, by: Caller) -> tuple[Task, int]:
    """Return a live task of the caller, and its heartbeat interval in microseconds. Raises the errors of
    `add_holder`.
    """
    if not _HOLDER.fullmatch(holder):
        raise Invalid(
            "`holder` must be `ho_` followed by 32 hexadecimal digits", hint="create a random id for each running copy"
        )
    task = find_task(reader, id)
    if task.agent != by.id:
        raise Forbidden("the task belongs to another agent", hint="only the agent itself can hold its tasks")
    live(reader, id, now=now)
    if task.heartbeat is None:
        raise Conflict(
            "this task has no heartbeat",
            hint="start a task with a heartbeat: ostiary task start --agent AGENT --purpose WORDS --heartbeat SECONDS",
            code="no_heartbeat",
        )
    return task, task.heartbeat
