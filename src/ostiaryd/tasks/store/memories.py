"""What tasks remember of where values came from: one row for a task that has a memory of its own, while it lives."""

from __future__ import annotations

from typing import NamedTuple

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.tasks.model import TaskId

_GET = sql("select tree, seq, body from memory where task = :task")
_INSERT = sql("insert into memory (task, tree, seq, body) values (:task, :tree, 1, :body)")
_ADVANCE = sql("update memory set seq = seq + 1 where task = :task")
_WRITE = sql("update memory set body = :body where task = :task")
_DROP = sql("delete from memory where task = :task")


class Row(NamedTuple):
    """`tree`: the task at which the memory began that this one comes from."""

    tree: TaskId
    seq: int
    body: bytes


def get(reader: Reader, task: TaskId) -> Row | None:
    row = reader.one(_GET, task=task)
    return None if row is None else Row(row[0], row[1], bytes(row[2]))


def insert(tx: Tx, task: TaskId, *, tree: TaskId, body: bytes) -> None:
    tx.run(_INSERT, task=task, tree=tree, body=body)


def advance(tx: Tx, task: TaskId) -> Row | None:
    """Take the next number; until this act ends nobody else does. None where there is no memory any more."""
    tx.run(_ADVANCE, task=task)
    return get(tx, task)


def write(tx: Tx, task: TaskId, body: bytes) -> None:
    tx.run(_WRITE, task=task, body=body)


def drop(tx: Tx, task: TaskId) -> None:
    tx.run(_DROP, task=task)
