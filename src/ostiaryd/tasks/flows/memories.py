"""The memory of a task: first the person's words, then tool outputs as guards report them. The memory ends with the
task.

Tasks under a task with a memory share that memory, so content that one of them reads is known for all. A task with
fewer of the person's words than the task above has a separate memory. This memory begins with the person's words of the
task, and with the records that tools had returned to the tasks above. Untrusted content and labels are stored with the
topmost memory of the tree, and count for every task in the tree. No task can therefore hide untrusted content by
reading it in another task.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from ostiary.protocol.errors import Forbidden
from ostiary.provenance import origins
from ostiary.provenance.intent import Intent
from ostiary.provenance.origins import Memory, Part
from ostiary.provenance.origins.scribe import END
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.tasks import store
from ostiaryd.tasks.model import Task, TaskId


@dataclass(frozen=True, slots=True)
class Remembered:
    """The memory of a task (hashed words of its intent and of tool results, by which guards determine the origin of
    arguments), with the number of changes that were made to it so far.
    """

    memory: Memory
    seq: int

    @property
    def body(self) -> bytes:
        """Return the memory as bytes for the database."""
        return origins.pack(self.memory)


def begin_memory(act: Act, task: Task, intent: Intent, *, above: TaskId | None) -> None:
    """Create the memory of a task that starts now: hashed words of its intent, by which guards determine the origin of
    arguments. `above`: the nearest task above with a memory, of which the new memory takes a part; None if there is
    none.
    """
    outer = None if above is None else store.memories.get(act.tx, above)
    tree = task.task_id if outer is None else outer.tree
    key = _key(act.tx.keys, tree)
    memory = origins.remember(key, intent)
    if outer is not None:
        inherited = [part for part in _parts(outer, key) if part.origin in origins.FOUND and not _is_of_tree(part)]
        memory = origins.add_parts(memory, inherited)
    store.memories.insert(act.tx, task.task_id, tree=tree, body=origins.pack(memory))


def read_memory(reader: Reader, task: Task, keys: Keyring) -> Remembered:
    """Return the memory of a task (hashed words of its intent and of tool results). Raises Forbidden if it has none."""
    own = _check_there(None if task.memory is None else store.memories.get(reader, task.memory))
    key = _key(keys, own.tree)
    memory = origins.unpack(own.body, key=key)
    if own.tree == task.memory:
        return Remembered(memory, own.seq)
    return _with_tree(memory, own.seq, _check_there(store.memories.get(reader, own.tree)), key)


def add_output(act: Act, task: Task, parts: Sequence[Part]) -> Remembered:
    """Add the result of a tool, as hashed words with their origin (`parts`), to the memory of a task, and return the
    changed memory. Raises Forbidden if the task has no memory.
    """
    own = _check_there(None if task.memory is None else store.memories.advance(act.tx, task.memory))
    key = _key(act.tx.keys, own.tree)
    is_top = own.tree == task.memory
    memory = _add(act, task.memory, own, [one for one in parts if is_top or not _is_of_tree(one)], key)
    if is_top:
        return Remembered(memory, own.seq)
    tree = _check_there(store.memories.advance(act.tx, own.tree))
    _add(act, own.tree, tree, [one for one in parts if _is_of_tree(one)], key)
    return _with_tree(memory, own.seq, _check_there(store.memories.get(act.tx, own.tree)), key)


def _add(act: Act, id: TaskId | None, row: store.memories.MemoryRow, parts: Sequence[Part], key: bytes) -> Memory:
    assert id is not None
    memory = origins.add_parts(origins.unpack(row.body, key=key), parts)
    store.memories.write(act.tx, id, origins.pack(memory))
    return memory


def _with_tree(own: Memory, seq: int, tree: store.memories.MemoryRow, key: bytes) -> Remembered:
    """Return the memory of a task joined with the memory of its tree. The number of changes is the sum of both, so that
    it never decreases.
    """
    return Remembered(origins.add_parts(own, [*filter(_is_of_tree, _parts(tree, key))]), seq + tree.seq)


def _parts(row: store.memories.MemoryRow, key: bytes) -> list[Part]:
    """Return the content of a stored memory as parts that can be added to another memory."""
    return [replace(part, words=part.words.removesuffix(END)) for part in origins.unpack(row.body, key=key).parts]


def _is_of_tree(part: Part) -> bool:
    return part.origin == origins.Origin.OUTSIDE or part.kinds in origins.LABEL_ROOM


def _check_there(row: store.memories.MemoryRow | None) -> store.memories.MemoryRow:
    if row is None:
        raise Forbidden(
            "the task has no memory of origins", hint="declare a task with the person's words", code="no_memory"
        )
    return row


def _key(keys: Keyring, tree: TaskId) -> bytes:
    """Return the key for all memories in a tree. All memories in a tree have one key, because tasks copy parts of their
    memories to tasks under them.
    """
    return hmac.digest(keys.secret("nonce"), b"ostiary memory\0" + tree.encode(), "sha256")
