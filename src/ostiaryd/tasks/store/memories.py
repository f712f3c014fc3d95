"""Stored memories of tasks: one row for each live task with a separate memory."""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.tasks.model import TaskId

_GET = sql("select tree, seq, body from memory where task = :task")
_INSERT = sql("insert into memory (task, tree, seq, body) values (:task, :tree, 1, :body)")
_ADVANCE = sql("update memory set seq = seq + 1 where task = :task")
_WRITE = sql("update memory set body = :body where task = :task")
_DROP = sql("delete from memory where task = :task")


class MemoryRow(NamedTuple):
    """A stored memory of a task. `tree`: the topmost task with a memory among the tasks above and the task itself."""

    tree: TaskId
    seq: int
    body: bytes


def get(reader: Reader, task: TaskId) -> MemoryRow | None:
    """Return the memory of a task; None if it has none."""
    row = reader.one(_GET, task=task)
    return None if row is None else MemoryRow(row[0], row[1], bytes(row[2]))


def insert(tx: Tx, task: TaskId, *, tree: TaskId, body: bytes) -> None:
    """Insert the memory of a task."""
    tx.send(_INSERT, task=task, tree=tree, body=body)


def advance(tx: Tx, task: TaskId) -> MemoryRow | None:
    """Add 1 to the number of changes of a task's memory, and return the memory, locked until the end of this act; None
    if there is none.
    """
    tx.send(_ADVANCE, task=task)
    return get(tx, task)


def write(tx: Tx, task: TaskId, body: bytes) -> None:
    """Store the memory of a task."""
    tx.send(_WRITE, task=task, body=body)


def drop(tx: Tx, task: TaskId) -> None:
    """Delete the memory of a task."""
    tx.send(_DROP, task=task)
