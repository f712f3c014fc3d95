"""Tasks: start, renew, end. A task only narrows what its agent has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from ostiary.core.bounds import ToolDetail
from ostiary.core.errors import Conflict, Forbidden, Invalid, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import LONGEST_TOKEN, Agent, AgentId, Caller, Person, Root, check_text, parse_scopes
from ostiaryd.registry.store import agents
from ostiaryd.tasks.flows.reach import check_reach
from ostiaryd.tasks.model import (
    DEFAULT_TTL_S,
    State,
    Task,
    TaskDelta,
    TaskId,
    check_ttl,
    end_state,
    standing_agent,
    standing_task,
)
from ostiaryd.tasks.store import tasks as store

MAX_LIVE = 1000


def start(
    act: Act,
    *,
    agent: str,
    purpose: str,
    bounds: Sequence[ToolDetail] = (),
    scopes: list[str] | None = None,
    on_behalf_of: str | None = None,
    ttl_s: int = DEFAULT_TTL_S,
    unregistered: bool = True,
    by: Caller | None = None,
) -> Task:
    """Declare a task of an agent (name or id), on behalf of a person (name or id), for `ttl_s` seconds.

    `unregistered` says whether bounds may name https resources that are not registered. Raises Invalid, NotFound,
    Forbidden (not your agent, an agent that is not active, more than the agent has), Conflict (too many live tasks).
    """
    doer = registry.active_agent(act.tx, agent, now=act.now)
    task = Task(
        task_id=TaskId(act.new_id("tk")),
        agent=doer.agent_id,
        person=None,
        purpose=check_text(purpose, of="purpose"),
        scopes=doer.scopes if scopes is None else parse_scopes(scopes),
        bounds=tuple(bounds),
        state=State.LIVE,
        created_at=act.now,
        expires_at=_until(doer, act.now + check_ttl(ttl_s)),
    )
    registry.note(act, object=task.task_id, owner=doer.owner, agent=doer.agent_id, purpose=task.purpose)
    _check_own(act.tx, by, doer)
    if on_behalf_of is not None:
        task = replace(task, person=_behalf(act, on_behalf_of, doer, by=by).person_id)
        act.entry.person = act.entry.person or task.person
    if extra := task.scopes - doer.scopes:
        raise Forbidden(f"the agent does not have {' '.join(sorted(extra))}", hint="a task only narrows", code="widens")
    check_reach(act.tx, task, unregistered=unregistered)
    if store.count_live(act.tx, doer.agent_id, now=act.now) >= MAX_LIVE:
        raise Conflict(f"`{doer.name}` has {MAX_LIVE} live tasks", hint="end some first", code="too_many_tasks")
    store.insert(act.tx, task)
    return task


def renew(act: Act, id: str, *, ttl_s: int = DEFAULT_TTL_S, by: Caller | None = None) -> Task:
    """Move the end of a live task to `ttl_s` seconds from now; never to an earlier one. Raises as `live` does."""
    task, doer = _own(act, id, by=by)
    live(act.tx, id, now=act.now)
    until = _until(doer, act.now + check_ttl(ttl_s))
    registry.note(act, object=task.task_id, was=task.expires_at, until=until)
    if task.expires_at is None or until < task.expires_at:
        raise Invalid("renewing never shortens", hint="end the task instead")
    store.renew(act.tx, task.task_id, expires_at=until)
    return replace(task, expires_at=until)


def end(act: Act, id: str, outcome: State = State.DONE, *, by: Caller | None = None) -> Task:
    """End a task; everything that was given under it dies with this act. Raises NotFound, Forbidden, Conflict."""
    task, _ = _own(act, id, by=by)
    registry.note(act, object=task.task_id, outcome=outcome.value)
    if task.expires_at is None:
        raise Conflict("a standing task ends with its agent", hint="suspend the agent instead", code="standing_task")
    state = end_state(task.state_at(act.now), outcome)
    end_task(act, task, state)
    return replace(task, state=state, ended_at=act.now)


def expire(act: Act, id: str) -> Task:
    """What a task's date does."""
    task = find_task(act.tx, id)
    registry.note(act, object=task.task_id, agent=task.agent)
    if task.state_at(act.now) is not State.EXPIRED or task.state is not State.LIVE:
        raise Conflict("the end of this task has not come, or is past")
    end_task(act, task, State.EXPIRED)
    return replace(task, state=State.EXPIRED, ended_at=act.now)


async def expire_due(world: World, *, limit: int = 100) -> int:
    """Mark tasks whose date has come, each in its own act; how many."""
    due = await world.db.scan(lambda reader: store.due(reader, now=world.now(), limit=limit))
    return await registry.act_on_each(world, "task.expire", expire, due)


def may_see(reader: Reader, id: str, *, by: Caller) -> Task:
    """A task, for its agent, for who answers for it, and for who may read everything. Raises NotFound, Forbidden."""
    task = find_task(reader, id)
    if not by.may_read:
        _check_own(reader, by, registry.find_agent(reader, task.agent))
    return task


def may_list(reader: Reader, agent: str | None, *, by: Caller) -> AgentId | None:
    """Whose tasks to list for that caller, who asked for those of `agent`; None: all. Raises NotFound, Forbidden."""
    if agent is None and by.may_read:
        return None
    doer = registry.find_agent(reader, agent or by.id)
    if not by.may_read:
        _check_own(reader, by, doer)
    return doer.agent_id


def live(reader: Reader, id: str, *, now: int) -> Task:
    """A task under which something may happen at that instant, no wider and no longer than its agent is now.

    Raises NotFound, and Forbidden for a task that ended, an agent that is not active, a person who has left.
    """
    task = find_task(reader, id)
    doer = registry.active_agent(reader, task.agent, now=now)
    if not task.is_live(now):
        raise Forbidden(f"the task is over: {task.state_at(now)}", hint="start another", code="task_ended")
    if task.person is not None and not registry.find_person(reader, task.person).is_active:
        raise Forbidden("the person on whose behalf this is done has left", code="person_left")
    return replace(task, scopes=task.scopes & doer.scopes)


def find_task(reader: Reader, id: str) -> Task:
    """A declared task, or the standing task of an agent, whatever its state. Raises NotFound."""
    if (task := store.get(reader, id)) is not None:
        return task
    if id.startswith("tk_") and (agent := agents.get(reader, standing_agent(id))) is not None:
        return standing_task(agent)
    raise NotFound(f"there is no task {id[:70]!a}", hint="`ostiary task list` shows those that were declared")


def end_task(act: Act, task: Task, state: State) -> Counter[str]:
    """Mark it, end everything under it, tell the guards; what was ended, by kind."""
    store.end(act.tx, task.task_id, state)
    registry.tell(act, TaskDelta(task.task_id, act.now + LONGEST_TOKEN))
    return registry.end_holdings(act, Root.TASK, task.task_id, why=f"task {state}")


def _own(act: Act, id: str, *, by: Caller | None) -> tuple[Task, Agent]:
    """The task and its agent, if it is the caller's to change."""
    task = find_task(act.tx, id)
    doer = registry.find_agent(act.tx, task.agent)
    registry.note(act, object=task.task_id, owner=doer.owner, agent=doer.agent_id)
    _check_own(act.tx, by, doer)
    return task, doer


def _check_own(reader: Reader, caller: Caller | None, agent: Agent) -> None:
    """Raises Forbidden unless it is the agent itself, who answers for it, an administrator, or the server (None)."""
    if caller is None or caller.is_admin or caller.id == agent.agent_id:
        return
    if not registry.answers_for(reader, caller.id, agent):
        raise Forbidden("this is another agent's task", hint="agents declare and end their own tasks only")


def _behalf(act: Act, id_or_name: str, agent: Agent, *, by: Caller | None) -> Person:
    """The person for whom; without an administrator, somebody who answers for the agent. Raises NotFound, Forbidden."""
    person = registry.find_person(act.tx, id_or_name)
    if not person.is_active:
        raise Forbidden(f"`{person.name}` has left", code="person_left")
    if by is not None and not by.is_admin and not registry.answers_for(act.tx, person.person_id, agent):
        raise Forbidden(
            f"`{person.name}` does not answer for `{agent.name}`", hint="an administrator may declare this task"
        )
    return person


def _until(agent: Agent, wanted: int) -> int:
    """No task outlives its agent."""
    return wanted if agent.expires_at is None else min(wanted, agent.expires_at)
