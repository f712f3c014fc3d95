"""Holders of a task: the running copies of its agent that work on it."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.tasks.model import Holder, TaskId

_LIVING = sql(
    """select holder, since, beat_at from holder where task = :task and beat_at > :after order by since, holder"""
)
_PUT = sql(
    """insert into holder (task, holder, since, beat_at) values (:task, :holder, :now, :now)
       on conflict (task, holder) do update set beat_at = excluded.beat_at"""
)
_DROP = sql("delete from holder where task = :task and holder = :holder")
_DROP_SILENT = sql("delete from holder where task = :task and beat_at <= :before")
_BEAT = sql("update task set beat_until = :until where task_id = :task")


def list_live(reader: Reader, task: TaskId, *, after: int) -> list[Holder]:
    """Return the holders of a task that have sent a heartbeat after `after` (microseconds)."""
    return [Holder(*row) for row in reader.all(_LIVING, task=task, after=after)]


def put(tx: Tx, task: TaskId, holder: str, *, until: int) -> None:
    """Record a heartbeat of a holder. Without a further heartbeat, the task stays live until `until` (microseconds)."""
    tx.send(_PUT, task=task, holder=holder, now=tx.now)
    tx.send(_BEAT, task=task, until=until)


def drop(tx: Tx, task: TaskId, holder: str) -> None:
    """Delete a holder (a running copy of the agent) of a task."""
    tx.send(_DROP, task=task, holder=holder)


def drop_silent(tx: Tx, task: TaskId, *, before: int) -> None:
    """Delete the holders of a task whose last heartbeat is at or before `before` (microseconds)."""
    tx.send(_DROP_SILENT, task=task, before=before)
