"""Tasks: start, renew, end. A task can only narrow the access of its agent, and of the task above it."""

from __future__ import annotations

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Forbidden, Invalid
from ostiary.protocol.nearest import nearest_hint
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentId, Caller, Person, check_text, parse_scopes
from ostiaryd.tasks import store
from ostiaryd.tasks.flows.budgets import create_budget
from ostiaryd.tasks.flows.ending import end_task
from ostiaryd.tasks.flows.find import above, find_task, with_chain
from ostiaryd.tasks.flows.intents import note_intent, record_intent
from ostiaryd.tasks.flows.memories import begin_memory
from ostiaryd.tasks.flows.reach import bounds_of, check_reach
from ostiaryd.tasks.model import (
    DEFAULT_TTL_S,
    Task,
    TaskId,
    TaskSpec,
    TaskState,
    check_heartbeat,
    check_size,
    check_ttl,
    end_state,
    put_under,
)

MAX_LIVE = 1000
ELEVATION_ENDED = "elevation_ended"
"""The reason code of requests under an elevation that has ended."""


def start(act: Act, spec: TaskSpec) -> Task:
    """Start and return a declared task. The caller of this function must have checked the policies.

    Raises Forbidden if `spec.by` is neither the agent (with a task above: the agent of that task), nor that agent's
    owner, nor an administrator; if the agent is not active; or if the task would have more access than the agent or the
    task above. Raises Conflict for too many live tasks; Invalid, TaskTooLarge, NotFound, InvalidDetails, InvalidIntent
    or InvalidBudget for a member of `spec`.
    """
    doer = registry.active_agent(act.tx, spec.agent, now=act.now)
    heartbeat = check_heartbeat(spec.heartbeat_s, ends_with_last=spec.ends_with_last)
    task = Task(
        task_id=TaskId(act.new_id("tk")),
        agent=doer.agent_id,
        person=None,
        purpose=check_text(spec.purpose, of="purpose"),
        scopes=doer.scopes if spec.scopes is None else parse_scopes(spec.scopes),
        bounds=tuple(spec.bounds),
        state=TaskState.LIVE,
        created_at=act.now,
        expires_at=_end_of_task(act.now + check_ttl(spec.ttl_s), doer),
        heartbeat=heartbeat,
        beat_until=None if heartbeat is None else act.now + heartbeat,
        ends_with_last=spec.ends_with_last,
    )
    registry.fill_entry(
        act,
        object=task.task_id,
        owner=doer.owner,
        agent=doer.agent_id,
        purpose=task.purpose,
        parent=(spec.parent or "")[:64],
    )
    if spec.parent is None:
        _check_own(act.tx, spec.by, doer)
    if extra := task.scopes - doer.scopes:
        # The caller may not learn the scopes of the receiver, so they are not in the error.
        near = nearest_hint(min(extra), doer.scopes) if spec.parent is None else ""
        hint = "; ".join(filter(None, (near, "leave these scopes out: a task has no more access than its parent")))
        raise Forbidden(f"the agent lacks the scopes {' '.join(sorted(extra))}", hint=hint, code="widens")
    if spec.on_behalf_of is not None:
        task = replace(task, person=_find_person(act, spec.on_behalf_of, doer, by=spec.by).person_id)
    if spec.parent is not None:
        task = _narrow_to_parent(act, task, doer, spec.parent, is_whole=spec.scopes is None, by=spec.by)
    act.entry.person = act.entry.person or task.person
    if spec.intent is not None:
        task = record_intent(act, task, spec.intent, doer, by=spec.by)
    note_intent(act, task)
    if spec.data_classes is not None:
        task = replace(task, bounds=bounds_of(act.tx, task, classes=spec.data_classes))
    # check only own bounds: the parent's were checked when it started, and may name resources out of this agent's reach
    if spec.bounds:
        check_reach(act.tx, task, unregistered=spec.unregistered)
    check_size(purpose=task.purpose, bounds=task.bounds, intent=spec.intent, budget=spec.budget)
    if spec.is_counted:
        _check_room(act, task)
    above_it, task = task.memory, task if spec.intent is None else replace(task, memory=task.task_id)
    store.tasks.insert(act.tx, task)
    if spec.intent is not None:
        begin_memory(act, task, spec.intent, above=above_it)
    create_budget(act, task, spec.budget)
    return task


def _narrow_to_parent(act: Act, task: Task, doer: Agent, parent: str, *, is_whole: bool, by: Caller | None) -> Task:
    """Return the task narrowed to its parent, with its delegation chain. With `is_whole`, it gets all scopes that its
    agent and the parent have.
    """
    holder = registry.find_agent(act.tx, find_task(act.tx, parent).agent)
    _check_own(act.tx, by, holder)
    outer = live(act.tx, parent, now=act.now)
    if is_whole:
        task = replace(task, scopes=task.scopes & outer.scopes)
    return with_chain(act.tx, put_under(task, outer), doer, now=act.now)


def _check_room(act: Act, task: Task) -> None:
    """Check that one more live task is permitted. Raises Conflict (`too_many_tasks`) otherwise.

    A task under another one counts for that task. Any other task counts for its agent, separately for each person.
    """
    if task.parent is None:
        count = store.tasks.count_live(act.tx, task.agent, person=task.person, now=act.now)
        owner, suffix = "the agent", "" if task.person is None else " for this person"
    else:
        count, owner, suffix = store.tasks.count_under(act.tx, task.parent, now=act.now), "the parent task", ""
    if count >= MAX_LIVE:
        raise Conflict(
            f"{owner} has {MAX_LIVE} live tasks{suffix}, the maximum",
            hint="end some of these tasks first",
            code="too_many_tasks",
        )


def renew(act: Act, id: str, *, ttl_s: int = DEFAULT_TTL_S, by: Caller | None = None) -> Task:
    """Set the end of a live task to `ttl_s` seconds from now, but no later than the end of its agent and of the task
    above, and return the task. Raises as `live` does; Forbidden if the caller may not change the task; Conflict for an
    elevation, or a task with a heartbeat but without a holder; Invalid for a standing task, or if the end would be
    earlier than the present end.
    """
    task, doer = _task_of_caller(act, id, by=by)
    live(act.tx, id, now=act.now)
    if task.elevated:
        raise Conflict(
            "an elevation cannot be renewed",
            hint="request a new elevation: ostiary elevation request SCOPE --reason WORDS --as FILE",
            code="elevation",
        )
    until = _end_of_task(act.now + check_ttl(ttl_s), doer, *above(act.tx, task)[:1])
    registry.fill_entry(act, object=task.task_id, was=task.expires_at, until=until)
    if task.heartbeat is not None and not store.holders.list_live(act.tx, task.task_id, after=act.now - task.heartbeat):
        raise Conflict("the task has no holder", hint="hold the task again first", code="not_held")
    if task.expires_at is None:
        raise Invalid("a standing task has no end, so it cannot be renewed", hint="start another task")
    if until < task.expires_at:
        raise Invalid("the new end is earlier than the present end", hint="end the task instead")
    store.tasks.renew(act.tx, task.task_id, expires_at=until)
    return replace(task, expires_at=until)


def end(act: Act, id: str, outcome: TaskState = TaskState.DONE, *, by: Caller | None = None) -> Task:
    """End a task, all tasks under it, and everything issued under any of them; return the task.

    Raises NotFound for an unknown task, Forbidden if the caller may not end it, Conflict for a standing task and for a
    task that has ended.
    """
    task, _ = _task_of_caller(act, id, by=by)
    registry.fill_entry(act, object=task.task_id, outcome=outcome.value)
    if task.expires_at is None:
        raise Conflict(
            "a standing task cannot be ended alone, because it ends with its agent",
            hint="suspend the agent instead",
            code="standing_task",
        )
    state = end_state(task.state_at(act.now), outcome)
    end_task(act, task, state)
    return replace(task, state=state, ended_at=act.now)


def find_visible(reader: Reader, id: str, *, by: Caller) -> Task:
    """Return a task if the caller may see it: its agent, the agents of the tasks above, their owners, and callers that
    may read everything.

    Raises NotFound for an unknown task, Forbidden for any other caller.
    """
    task = find_task(reader, id)
    if not by.may_read:
        _check_concerned(reader, by, task)
    return task


def may_list(reader: Reader, agent: str | None, *, by: Caller) -> AgentId | None:
    """Return the id of the agent whose tasks the caller may list: `agent`, or without `agent` the caller itself. Return
    None if the caller may list the tasks of all agents and names none. Raises NotFound for an unknown agent, Forbidden
    if the caller may not see its tasks.
    """
    if agent is None and by.may_read:
        return None
    doer = registry.find_agent(reader, agent or by.id)
    if not by.may_read:
        _check_own(reader, by, doer)
    return doer.agent_id


def live(reader: Reader, id: str, *, now: int) -> Task:
    """Return a task under which its agent may act at `now` (microseconds), with its delegation chain. Its scopes are
    limited to the present scopes of its agent and of each agent above.

    Raises NotFound for an unknown task. Raises Forbidden if the task or a task above has ended, if its agent or an
    agent above is not active or is stopped, or if the person on whose behalf the task runs is not active.
    """
    task = find_task(reader, id)
    doer = registry.active_agent(reader, task.agent, now=now)
    if not task.is_live(now):
        code = ELEVATION_ENDED if task.elevated else "task_ended"
        raise Forbidden(f"the task has ended: {task.state_at(now)}", hint="start another task", code=code)
    if task.person is not None and not (person := registry.find_person(reader, task.person)).is_active:
        raise Forbidden(
            f"the person on whose behalf the task runs {person.absence}",
            hint=person.return_hint,
            code=person.absence_code,
        )
    return with_chain(reader, task, doer, now=now)


def _task_of_caller(act: Act, id: str, *, by: Caller | None) -> tuple[Task, Agent]:
    """Return the task and its agent, if the caller may change the task. Raises NotFound for an unknown task, Forbidden
    if the caller may not change it.
    """
    task = find_task(act.tx, id)
    doer = registry.find_agent(act.tx, task.agent)
    registry.fill_entry(act, object=task.task_id, owner=doer.owner, agent=doer.agent_id)
    _check_concerned(act.tx, by, task)
    return task, doer


def _check_concerned(reader: Reader, caller: Caller | None, task: Task) -> None:
    """Check that the caller has a task above this one, or may change it by `_check_own`. Raises Forbidden otherwise."""
    doer = registry.find_agent(reader, task.agent)
    if caller is not None and any(one.agent == caller.id for one in above(reader, task)):
        return
    _check_own(reader, caller, doer)


def _check_own(reader: Reader, caller: Caller | None, agent: Agent) -> None:
    """Check that the caller is the agent, its owner, an administrator, or the server (None). Raises Forbidden
    otherwise.
    """
    if caller is None or caller.is_admin or caller.id == agent.agent_id:
        return
    if not registry.answers_for(reader, caller.id, agent):
        raise Forbidden("the task belongs to another agent", hint="an agent can use only its own tasks")


def _find_person(act: Act, id_or_name: str, agent: Agent, *, by: Caller | None) -> Person:
    """Return the person on whose behalf the task runs. A caller without administrator rights may only name a person who
    is accountable for the agent.

    Raises NotFound for an unknown person, Forbidden for an inactive person, or another person.
    """
    person = registry.find_person(act.tx, id_or_name)
    if not person.is_active:
        raise Forbidden(f"`{person.name}` {person.absence}", hint=person.return_hint, code=person.absence_code)
    if by is not None and not by.is_admin and not registry.answers_for(act.tx, person.person_id, agent):
        raise Forbidden(
            f"`{person.name}` is not accountable for `{agent.name}`", hint="an administrator may declare this task"
        )
    return person


def _end_of_task(end_requested: int, *longest: Agent | Task) -> int:
    """Return the end of a task in microseconds: `end_requested`, but no later than the end of its agent and of the task
    above.
    """
    return min([end_requested, *(end for one in longest if (end := one.expires_at) is not None)])
