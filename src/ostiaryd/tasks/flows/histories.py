"""History of a tree of tasks, and of an agent today and yesterday: recorded for each call, in the same order for all
guards.

A history belongs to the topmost task of its tree, and ends with it. The history of a standing task, which never ends,
is kept for `DAYS` days.
"""

from __future__ import annotations

import hmac
from typing import NamedTuple

from ostiary.authorization.budget import DAY_US
from ostiary.provenance.history import Done, Met, PriorHistory, after, created, in_passing, joined
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import Reader, Tx
from ostiaryd.ground.world import World
from ostiaryd.registry.model import AgentId
from ostiaryd.tasks import store
from ostiaryd.tasks.model import Task, standing_id

DAYS = 2
"""Number of days for which the history of an agent is kept, including today."""


class _Place(NamedTuple):
    """The database key of a stored history: the holder (a task or an agent), and the day. The day 0 stands for a
    history that is not divided into days.
    """

    holder: str
    day: int


def read_history(
    reader: Reader, task: Task, keys: Keyring, *, agent: str, now: int, met: Met | None = None
) -> PriorHistory:
    """Return the allowed calls in the tree of a task, and those of `agent` in the last `DAYS` days, which policies
    read. `task` must come from `live` or `with_chain`, because the chain names the first task of the tree.

    `met` are the recipients and payees with whom agents of the agent's owner have dealt, if a policy reads them; the
    result includes them. Within an act, the history is locked until the end of the act.
    """
    of_task, of_agent = _keys_of_histories(task, agent, now=now)
    of_tree, recent = _read(reader, of_task), _read(reader, of_agent)
    key = hmac.digest(keys.secret("nonce"), b"ostiary history\0" + of_task.holder.encode(), "sha256")
    return PriorHistory(key, of_tree.history, recent.history, of_tree.seq + recent.seq, now // DAY_US, met)


def record_call(tx: Tx, task: Task, done: Done, *, agent: str) -> None:
    """Add an allowed call to the history of the task and to that of the agent today, which policies read."""
    of_task, of_agent = _keys_of_histories(task, agent, now=tx.now)
    _add(tx, of_task, done)
    _add(tx, of_agent, in_passing(done))


def record_created(tx: Tx, task: Task, values: tuple[bytes, ...]) -> None:
    """Add the objects that a call created, as hashes of their ids, to the history of the task, for policies."""
    place, _ = _keys_of_histories(task, task.agent, now=tx.now)
    row = store.histories.lock(tx, *place)
    store.histories.write(tx, *place, store.histories.HistoryRow(row.seq + 1, created(row.history, values)))


async def forget_histories(world: World) -> int:
    """Delete histories of days that are no longer recent; return the number of deleted histories."""
    return await world.writer.submit(
        lambda tx: store.histories.prune(tx, before=tx.now // DAY_US - DAYS + 1, limit=1000)
    )


def _keys_of_histories(task: Task, agent: str, *, now: int) -> tuple[_Place, _Place]:
    """Return the keys of two histories: that of the task's tree, and that of the agent."""
    top, agent_of_top = (task.chain[-1].task, task.chain[-1].agent) if task.chain else (task.task_id, task.agent)
    today = now // DAY_US
    return _Place(top, today if top == standing_id(AgentId(agent_of_top)) else 0), _Place(agent, today)


def _read(reader: Reader, place: _Place) -> store.histories.HistoryRow:
    row = store.histories.lock(reader, *place) if isinstance(reader, Tx) else store.histories.get(reader, *place)
    if not place.day:
        return row
    earlier = [store.histories.get(reader, place.holder, place.day - ago) for ago in range(1, DAYS)]
    for one in earlier:
        row = store.histories.HistoryRow(row.seq + one.seq, joined(row.history, one.history))
    return row


def _add(tx: Tx, place: _Place, done: Done) -> None:
    row = store.histories.lock(tx, *place)
    store.histories.write(tx, *place, store.histories.HistoryRow(row.seq + 1, after(row.history, done)))
