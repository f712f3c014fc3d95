"""Stored eligible scopes of agents, and granted elevations. Each elevation is a task with additional scopes."""

from __future__ import annotations

from ostiaryd.ground.database import Reader, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.registry.model import AgentId
from ostiaryd.tasks.model import Elevation, TaskId

_ELIGIBLE = sql("select scopes from eligible where agent = :agent")
_SET_ELIGIBLE = sql(
    """insert into eligible (agent, scopes) values (:agent, :scopes)
       on conflict (agent) do update set scopes = excluded.scopes"""
)
_INSERT = sql(
    """insert into elevation (task, is_break_glass, approval, granted_at)
       values (:task, :is_break_glass, :approval, :granted_at)"""
)
_SELECT = """select elevation.task, is_break_glass, approval, granted_at
       from elevation join task on task_id = elevation.task """
_LIST = sql(_SELECT + "where elevation.task < :before order by elevation.task desc limit :limit")
_OF_AGENT = sql(
    _SELECT + "where agent = :agent and elevated <> '' and task_id < :before order by task_id desc limit :limit"
)
_LIVE = sql(
    _SELECT + "where agent = :agent and elevated <> '' and state = 'live' and expires_at > :now order by task_id"
)
_GLASS = sql(
    _SELECT + "where is_break_glass = 1 and state = 'live' and expires_at > :now order by task_id limit :limit"
)
_LAST = "tk_z"  # sorts after every id in every collation


def get_eligible_scopes(reader: Reader, agent: AgentId) -> frozenset[str]:
    """Return the scopes that an agent may request temporarily."""
    row = reader.one(_ELIGIBLE, agent=agent)
    return frozenset() if row is None else frozenset(row[0].split())


def set_eligible(tx: Tx, agent: AgentId, scopes: frozenset[str]) -> None:
    """Set the scopes that an agent may request temporarily."""
    tx.touch("eligible", agent)
    tx.send(_SET_ELIGIBLE, agent=agent, scopes=" ".join(sorted(scopes)))


def insert(tx: Tx, elevation: Elevation) -> None:
    """Insert a row for a granted elevation. Its task is inserted separately."""
    tx.send(
        _INSERT,
        task=elevation.task,
        is_break_glass=int(elevation.is_break_glass),
        approval=elevation.approval,
        granted_at=elevation.granted_at,
    )


def list_elevations(reader: Reader, *, agent: AgentId | None, page: Page) -> list[Elevation]:
    """Return a page of the elevations of an agent, or of all agents for None, the newest first."""
    before = page.after or _LAST
    if agent is None:
        rows = reader.all(_LIST, before=before, limit=page.limit)
    else:
        rows = reader.all(_OF_AGENT, agent=agent, before=before, limit=page.limit)
    return [_elevation(*row) for row in rows]


def live_of_agent(reader: Reader, agent: AgentId, *, now: int) -> list[TaskId]:
    """Return the ids of the tasks of an agent's live elevations."""
    return [row[0] for row in reader.all(_LIVE, agent=agent, now=now)]


def list_emergency_elevations(reader: Reader, *, now: int, limit: int) -> list[Elevation]:
    """Return at most `limit` live elevations with break-glass access."""
    return [_elevation(*row) for row in reader.all(_GLASS, now=now, limit=limit)]


def _elevation(task: str, is_break_glass: int, approval: str | None, granted_at: int) -> Elevation:
    return Elevation(TaskId(task), bool(is_break_glass), approval, granted_at)
