"""Declared tasks; standing tasks have no row."""

from __future__ import annotations

from functools import lru_cache

from ostiary.authorization.bounds import parse_details, render_details
from ostiary.protocol import canonical
from ostiaryd.ground.database import Read, Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.registry.model import AgentId, PersonId
from ostiaryd.tasks.model import Task, TaskId, TaskState

_COLUMNS = """task_id, agent, person, purpose, scopes, bounds, state, created_at, expires_at, ended_at, parent, depth,
    heartbeat, beat_until, ends_with_last, intent, memory, elevated"""
_SELECT = f"select {_COLUMNS} from task "
_GET = sql(_SELECT + "where task_id = :id", lasting=True, keys="id")
_BRIEF = _COLUMNS.replace(" bounds,", " '[]' as bounds,")
"""Columns of a task without its bounds, which may be as long as a token."""
_LIST = sql(f"select {_BRIEF} from task where task_id < :before order by task_id desc limit :limit")
_OF_AGENT = sql(
    f"select {_BRIEF} from task where agent = :agent and task_id < :before order by task_id desc limit :limit"
)
_LIVE = sql(f"select {_BRIEF} from task where state = 'live' and task_id < :before order by task_id desc limit :limit")
_LIVE_OF_AGENT = sql(_SELECT + "where agent = :agent and state = 'live' order by task_id")
_LIVE_FOR_PERSON = sql(_SELECT + "where person = :person and state = 'live' order by task_id")
_LIVE_UNDER = sql(_SELECT + "where parent = :parent and state = 'live' order by task_id")
_COUNT_LIVE = sql(
    """select count(*) from task
       where agent = :agent and person is null and state = 'live' and parent is null and expires_at > :now"""
)
_COUNT_LIVE_FOR = sql(
    """select count(*) from task
       where agent = :agent and person = :person and state = 'live' and parent is null and expires_at > :now"""
)
_COUNT_UNDER = sql("select count(*) from task where parent = :parent and state = 'live' and expires_at > :now")
_DUE = sql(
    """select task_id from task where state = 'live' and expires_at <= :now and not exists
           (select 1 from task above where above.task_id = task.parent and above.state = 'live'
                and above.expires_at <= :now)
       order by expires_at limit :limit"""
)
_SILENT = sql(
    """select task_id from task
       where state = 'live' and beat_until is not null and beat_until <= :now order by beat_until limit :limit"""
)
_ENDED = sql(
    """select task_id, ended_at from task where ended_at > :since and not exists
           (select 1 from task above where above.task_id = task.parent and above.ended_at = task.ended_at)
       order by ended_at, task_id"""
)
_INSERT = sql(
    """insert into task
           (task_id, agent, person, purpose, scopes, bounds, state, created_at, expires_at, parent, depth,
            heartbeat, beat_until, ends_with_last, intent, memory, elevated)
       values (:id, :agent, :person, :purpose, :scopes, :bounds, :state, :created_at, :expires_at, :parent, :depth,
            :heartbeat, :beat_until, :ends_with_last, :intent, :memory, :elevated)""",
    keys="id",
)
_END = sql(
    """with recursive tree (id) as (
           select task_id from task where task_id = :id and state = 'live'
           union all select task.task_id from tree join task on task.parent = tree.id where task.state = 'live')
       update task set state = case when task_id = :id then :state else :under end, ended_at = :now
       where task_id in (select id from tree) returning task_id, memory"""
)
_END_ALL = sql("update task set state = :state, ended_at = :now where state = 'live' returning task_id")
_ABOVE = sql(
    f"""with recursive line (id, step) as (
           select cast(:id as text), 0
           union all select task.parent, step + 1 from line join task on task.task_id = line.id
           where task.parent is not null)
       select {_COLUMNS} from line join task on task_id = id order by step""",
    lasting=True,
)
_BELOW = f"""union all select task.task_id from tree join task on task.parent = tree.id)
       select {_BRIEF} from task where task_id in (select id from tree)
           and (depth > :depth or (depth = :depth and task_id > :after)) order by depth, task_id limit :limit"""
_TREE = sql(f"with recursive tree (id) as (select task_id from task where task_id = :id {_BELOW}")
_TREES_UNDER = sql(
    f"with recursive tree (id) as (select task_id from task where parent = :id and state = 'live' {_BELOW}"
)
_RENEW = sql("update task set expires_at = :expires_at where task_id = :id")
_LAST = "tk_z"  # sorts after every id in every collation


def insert(tx: Tx, task: Task) -> None:
    """Insert a task."""
    tx.touch("task", task.task_id)
    tx.late(
        _INSERT,
        (
            task.task_id,
            task.agent,
            task.person,
            task.purpose,
            " ".join(sorted(task.scopes)),
            canonical.encode(render_details(task.bounds)).decode(),
            task.state.value,
            task.created_at,
            task.expires_at,
            task.parent,
            task.depth,
            task.heartbeat,
            task.beat_until,
            int(task.ends_with_last),
            task.intent,
            task.memory,
            " ".join(sorted(task.elevated)),
        ),
    )


def get_task(reader: Reader, id: str) -> Task | None:
    """Return a task; None if there is none."""
    return reader.one_as(_GET, _task, id=id)


def live_page(reader: Reader, page: Page) -> list[Task]:
    """Return live tasks of all agents, the newest first. Their `bounds` are not read and always empty."""
    return [_task(row) for row in reader.all(_LIVE, before=page.after or _LAST, limit=page.limit)]


def page(reader: Reader, *, agent: AgentId | None, page: Page) -> list[Task]:
    """Return a page of the tasks of an agent, or of all agents for None, the newest first. Their `bounds` are not read
    and always empty.
    """
    before = page.after or _LAST
    if agent is None:
        return [_task(row) for row in reader.all(_LIST, before=before, limit=page.limit)]
    return [_task(row) for row in reader.all(_OF_AGENT, agent=agent, before=before, limit=page.limit)]


def list_live_tasks(reader: Reader, agent: AgentId) -> list[Task]:
    """Return the live tasks of an agent."""
    return [_task(row) for row in reader.all(_LIVE_OF_AGENT, agent=agent)]


def live_and_delegated(reader: Reader, agent: AgentId, standing: TaskId) -> list[Task]:
    """Return the live tasks of an agent, then those directly under its standing task."""
    own, under = reader.each(Read(_LIVE_OF_AGENT, {"agent": agent}), Read(_LIVE_UNDER, {"parent": standing}))
    return [_task(row) for row in (*own, *under)]


def live_for_person(reader: Reader, person: PersonId) -> list[Task]:
    """Return the live tasks on behalf of a person."""
    return [_task(row) for row in reader.all(_LIVE_FOR_PERSON, person=person)]


def above(reader: Reader, id: TaskId) -> list[Task]:
    """Return a task and the tasks above it, the nearest first. A standing task has no row, and is not included."""
    return [_task(row) for row in reader.all(_ABOVE, id=id)]


def tree(reader: Reader, id: TaskId, *, of_standing: bool, depth: int, after: str, limit: int) -> list[Task]:
    """Return a task and the tasks under it, ordered by depth and id, after the position given by `depth` and the id
    `after`, without their bounds.

    With `of_standing`, `id` is a standing task, which has no row: return the live tasks directly under it, and all
    tasks under those.
    """
    statement = _TREES_UNDER if of_standing else _TREE
    return [_task(row) for row in reader.all(statement, id=id, depth=depth, after=after, limit=limit)]


def count_live(reader: Reader, agent: AgentId, *, person: PersonId | None, now: int) -> int:
    """Return the number of live tasks of an agent for a person (None for tasks without a person) that have no task
    above.
    """
    if person is None:
        row = reader.one(_COUNT_LIVE, agent=agent, now=now)
    else:
        row = reader.one(_COUNT_LIVE_FOR, agent=agent, person=person, now=now)
    assert row is not None
    return int(row[0])


def count_under(reader: Reader, parent: TaskId, *, now: int) -> int:
    """Return the number of live tasks directly under a task."""
    row = reader.one(_COUNT_UNDER, parent=parent, now=now)
    assert row is not None
    return int(row[0])


def end(tx: Tx, id: TaskId, state: TaskState, *, under: TaskState) -> tuple[int, list[TaskId]]:
    """End a task with `state`, and all live tasks under it with the state `under`; return the number of ended tasks,
    and the ids of those with a separate memory.
    """
    rows = tx.all(_END, id=id, state=state.value, under=under.value, now=tx.now)
    for ended, _ in rows:
        tx.touch("task", ended)
    return len(rows), [ended for ended, memory in rows if memory == ended]


def end_all_tasks(tx: Tx, state: TaskState) -> int:
    """End every live declared task; return the number of ended tasks."""
    ended = tx.all(_END_ALL, state=state.value, now=tx.now)
    for (id,) in ended:
        tx.touch("task", id)
    return len(ended)


def renew(tx: Tx, id: TaskId, *, expires_at: int) -> None:
    """Set the end of a task to `expires_at` (microseconds)."""
    tx.touch("task", id)
    tx.send(_RENEW, id=id, expires_at=expires_at)


def due(reader: Reader, *, now: int, limit: int) -> list[TaskId]:
    """Return the ids of at most `limit` tasks that have expired and are not ended yet, the earliest first. Of nested
    tasks only the topmost is returned.
    """
    return [row[0] for row in reader.all(_DUE, now=now, limit=limit)]


def list_silent(reader: Reader, *, now: int, limit: int) -> list[TaskId]:
    """Return the ids of at most `limit` tasks that are not ended yet although their holders have sent no heartbeat for
    too long, the longest silent first.
    """
    return [row[0] for row in reader.all(_SILENT, now=now, limit=limit)]


def list_ended_tasks(reader: Reader, *, since: int) -> list[tuple[TaskId, int]]:
    """Return the tasks that ended after `since` (microseconds), as (id, time). Of tasks that ended together, only the
    topmost is returned.
    """
    return [(id, at) for id, at in reader.all(_ENDED, since=since)]


@lru_cache(maxsize=4096)
def _task(row: Row) -> Task:
    id, agent, person, purpose, scopes, bounds, state, created_at, expires_at, ended_at, parent, depth, *others = row
    return Task(
        task_id=id,
        agent=agent,
        person=person,
        purpose=purpose,
        scopes=frozenset(scopes.split()),
        bounds=() if bounds == "[]" else parse_details(canonical.parse(bounds)),
        state=TaskState(state),
        created_at=created_at,
        expires_at=expires_at,
        ended_at=ended_at,
        parent=parent,
        depth=depth,
        heartbeat=others[0],
        beat_until=others[1],
        ends_with_last=bool(others[2]),
        intent=others[3],
        memory=others[4],
        elevated=frozenset(others[5].split()),
    )
