"""Declared tasks; standing tasks have no row."""

from __future__ import annotations

from ostiary.core import canonical
from ostiary.core.bounds import parse_details, render_details
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.registry.model import AgentId, Page, PersonId
from ostiaryd.tasks.model import State, Task, TaskId

_SELECT = (
    """select task_id, agent, person, purpose, scopes, bounds, state, created_at, expires_at, ended_at from task """
)
_GET = sql(_SELECT + "where task_id = :id")
_LIST = sql(_SELECT + "where task_id < :before order by task_id desc limit :limit")
_OF_AGENT = sql(_SELECT + "where agent = :agent and task_id < :before order by task_id desc limit :limit")
_LIVE_OF_AGENT = sql(_SELECT + "where agent = :agent and state = 'live' order by task_id")
_LIVE_FOR_PERSON = sql(_SELECT + "where person = :person and state = 'live' order by task_id")
_COUNT_LIVE = sql("select count(*) from task where agent = :agent and state = 'live' and expires_at > :now")
_DUE = sql("select task_id from task where state = 'live' and expires_at <= :now order by expires_at limit :limit")
_ENDED = sql("select task_id, ended_at from task where ended_at > :since order by ended_at, task_id")
_INSERT = sql(
    """insert into task (task_id, agent, person, purpose, scopes, bounds, state, created_at, expires_at)
       values (:id, :agent, :person, :purpose, :scopes, :bounds, :state, :created_at, :expires_at)"""
)
_END = sql("update task set state = :state, ended_at = :now where task_id = :id")
_RENEW = sql("update task set expires_at = :expires_at where task_id = :id")
_LAST = "tk_z"  # sorts after every id in every collation


def insert(tx: Tx, task: Task) -> None:
    tx.run(
        _INSERT, id=task.task_id, agent=task.agent, person=task.person, purpose=task.purpose,
        scopes=" ".join(sorted(task.scopes)), bounds=canonical.encode(render_details(task.bounds)).decode(),
        state=task.state.value,
        created_at=task.created_at, expires_at=task.expires_at,
    )  # fmt: skip


def get(reader: Reader, id: str) -> Task | None:
    row = reader.one(_GET, id=id)
    return None if row is None else _task(row)


def page(reader: Reader, *, agent: AgentId | None, page: Page) -> list[Task]:
    """The newest first."""
    before = page.after or _LAST
    if agent is None:
        return [_task(row) for row in reader.all(_LIST, before=before, limit=page.limit)]
    return [_task(row) for row in reader.all(_OF_AGENT, agent=agent, before=before, limit=page.limit)]


def live_of_agent(reader: Reader, agent: AgentId) -> list[Task]:
    return [_task(row) for row in reader.all(_LIVE_OF_AGENT, agent=agent)]


def live_for_person(reader: Reader, person: PersonId) -> list[Task]:
    return [_task(row) for row in reader.all(_LIVE_FOR_PERSON, person=person)]


def count_live(reader: Reader, agent: AgentId, *, now: int) -> int:
    row = reader.one(_COUNT_LIVE, agent=agent, now=now)
    assert row is not None
    return int(row[0])


def end(tx: Tx, id: TaskId, state: State) -> None:
    tx.run(_END, id=id, state=state.value, now=tx.now)


def renew(tx: Tx, id: TaskId, *, expires_at: int) -> None:
    tx.run(_RENEW, id=id, expires_at=expires_at)


def due(reader: Reader, *, now: int, limit: int) -> list[TaskId]:
    """Tasks whose end has come and that are not marked as ended, the longest overdue first."""
    return [row[0] for row in reader.all(_DUE, now=now, limit=limit)]


def ended(reader: Reader, *, since: int) -> list[tuple[TaskId, int]]:
    """Tasks ended after `since`: (id, when)."""
    return [(id, at) for id, at in reader.all(_ENDED, since=since)]


def _task(row: Row) -> Task:
    id, agent, person, purpose, scopes, bounds, state, created_at, expires_at, ended_at = row
    return Task(
        task_id=id, agent=agent, person=person, purpose=purpose, scopes=frozenset(scopes.split()),
        bounds=parse_details(canonical.parse(bounds)),
        state=State(state), created_at=created_at, expires_at=expires_at, ended_at=ended_at,
    )  # fmt: skip
