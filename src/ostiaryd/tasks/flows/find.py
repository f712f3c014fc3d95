"""Reads of a task: by its id, and its place in its tree: the tasks above it and under it, its delegation chain, and
whether all of these are live.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec.structs import replace

from ostiary.authorization.claims import Link
from ostiary.protocol.errors import Forbidden, Invalid, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ground.http.pages import Page
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, check_not_stopped
from ostiaryd.tasks import store
from ostiaryd.tasks.model import Task, check_line, standing_agent, standing_task

_PLACE = re.compile(r"([0-9]{1,4}):(\w{1,64})", re.ASCII)


def find_task(reader: Reader, id: str) -> Task:
    """Return a declared task, or the standing task of an agent (for its work without a declared task), in any state.
    Raises NotFound if there is none.
    """
    if (task := store.tasks.get_task(reader, id)) is not None:
        return task
    if id.startswith("tk_") and (agent := registry.get_agent(reader, standing_agent(id))) is not None:
        return standing_task(agent)
    raise NotFound(f"there is no task {id[:70]!a}", hint="`ostiary task list` lists the declared tasks")


def tree(reader: Reader, task: Task, page: Page) -> list[Task]:
    """Return a page of the task and the tasks under it, without their bounds. A parent comes before its children.
    Raises Invalid for a wrong cursor.
    """
    depth, after = _place(page.after)
    is_standing = task.expires_at is None
    first = [task] if is_standing and not page.after else []
    tasks = store.tasks.tree(
        reader, task.task_id, of_standing=is_standing, depth=depth, after=after, limit=page.limit - len(first)
    )
    return first + tasks


def place_of(task: Task) -> str:
    """Return the cursor after this task: a page of `tree` that ends with the task continues there."""
    return f"{task.depth}:{task.task_id}"


def _place(cursor: str) -> tuple[int, str]:
    if not cursor:
        return -1, ""
    if (match := _PLACE.fullmatch(cursor)) is None:
        raise Invalid("`after` is not a cursor", hint="send the `next` of the previous page")
    return int(match[1]), match[2]


def above(reader: Reader, task: Task) -> list[Task]:
    """Return the tasks above a task, the nearest first. The task itself is not included."""
    if task.parent is None:
        return []
    tasks_above = store.tasks.above(reader, task.parent)
    top = tasks_above[-1].parent if tasks_above else task.parent
    if top is not None and (agent := registry.get_agent(reader, standing_agent(top))) is not None:
        tasks_above.append(standing_task(agent))
    return tasks_above


def link_of(agent: Agent, task: str) -> Link:
    """Return an agent and the task under which it acts, as one link of a delegation chain in a token."""
    return Link(
        agent.agent_id,
        agent.epoch,
        task,
        owner=agent.owner,
        segment=agent.segment,
        model=agent.model,
        risk_tier=agent.risk_tier.value,
    )


def restricted_agents(line: Sequence[Agent], *, now: int) -> tuple[str, ...]:
    """Return the ids of those agents of a delegation chain (`line`) that are under a restriction at `now`
    (microseconds).
    """
    return tuple(dict.fromkeys(agent.agent_id for agent in line if agent.restricted_until > now))


def with_chain(reader: Reader, task: Task, doer: Agent, *, now: int) -> Task:
    """Return the task with its delegation chain, as its agent `doer` may use it at `now` (microseconds): with the
    present scopes of all agents in the chain, and ending no later than any of them.

    Raises Forbidden if the task, a task above or its person is stopped, a task or agent above is not live, or the chain
    is no longer permitted (segments, depth).
    """
    tasks = above(reader, task)
    if stops := registry.list_stops(reader):
        named = [("task", one.task_id) for one in (task, *tasks)]
        check_not_stopped(stops, named if task.person is None else [*named, ("owner", task.person)])
    if task.elevated:  # an elevation has no task above
        elevated = task.elevated & store.elevations.get_eligible_scopes(reader, doer.agent_id)
        return replace(task, scopes=task.scopes & (doer.scopes | elevated), elevated=elevated)
    if not tasks:
        return replace(task, scopes=task.scopes & doer.scopes)
    line = [registry.active_agent(reader, one.agent, now=now) for one in tasks]
    for outer in tasks:
        if not outer.is_live(now):
            state = outer.state_at(now)
            raise Forbidden(f"a task above this task has ended: {state}", hint="start a new task", code="task_ended")
    check_line(doer, line)
    ends = [end for end in (task.expires_at, *(agent.expires_at for agent in line)) if end is not None]
    return replace(
        task,
        expires_at=min(ends, default=None),
        scopes=task.scopes.intersection(doer.scopes, *(agent.scopes for agent in line)),
        chain=tuple(link_of(agent, one.task_id) for one, agent in zip(tasks, line, strict=True)),
        restricted=restricted_agents(line, now=now),
    )
