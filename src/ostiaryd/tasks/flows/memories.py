"""The memory of a task: begun with what the person said, told by guards what tools returned, gone when the task ends.

Tasks under one that has a memory share it, so that nothing which one of them reads is unknown to another. Only a task
that was given less of what the person said has one of its own: it begins with that, and with the records and the
content from outside that tools had returned above until then.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from ostiary.core import origins
from ostiary.core.errors import Forbidden
from ostiary.core.intent import Intent
from ostiary.core.origins import Memory, Part
from ostiaryd.ground.database import Reader
from ostiaryd.ground.keyring import Keyring
from ostiaryd.ledger.flows import Act
from ostiaryd.tasks.model import Task, TaskId
from ostiaryd.tasks.store import memories as store


@dataclass(frozen=True, slots=True)
class Remembered:
    """A memory, and how often it has changed."""

    memory: Memory
    seq: int

    @property
    def body(self) -> bytes:
        return origins.pack(self.memory)


def begin_memory(act: Act, task: Task, intent: Intent, *, above: TaskId | None) -> None:
    """The memory of a task that has just started; `above`: that which tasks above it share."""
    outer = None if above is None else store.get(act.tx, above)
    tree = task.task_id if outer is None else outer.tree
    key = _key(act.tx.keys, tree)
    memory = origins.remember(key, intent)
    if outer is not None:
        seen = [part for part in origins.unpack(outer.body, key=key).parts if part.origin in origins.FOUND]
        memory = origins.learned(memory, seen)
    store.insert(act.tx, task.task_id, tree=tree, body=origins.pack(memory))


def recall(reader: Reader, task: Task, keys: Keyring) -> Remembered:
    """What a task remembers. Raises Forbidden where it has no memory."""
    return _found(None if task.memory is None else store.get(reader, task.memory), keys)


def tell(act: Act, task: Task, parts: Sequence[Part]) -> Remembered:
    """Add what a tool returned, after all that was told before. Raises Forbidden where there is no memory."""
    before = _found(None if task.memory is None else store.advance(act.tx, task.memory), act.tx.keys)
    told = Remembered(origins.learned(before.memory, parts), before.seq)
    assert task.memory is not None
    store.write(act.tx, task.memory, told.body)
    return told


def _found(row: store.Row | None, keys: Keyring) -> Remembered:
    if row is None:
        raise Forbidden("that task remembers nothing", hint="nobody said what it is for", code="no_memory")
    return Remembered(origins.unpack(row.body, key=_key(keys, row.tree)), row.seq)


def _key(keys: Keyring, tree: TaskId) -> bytes:
    """Of all tasks in one tree, since they hand on what they remember."""
    return hmac.digest(keys.secret("nonce"), b"ostiary memory\0" + tree.encode(), "sha256")
