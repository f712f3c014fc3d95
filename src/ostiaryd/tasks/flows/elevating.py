"""Elevation: a task with scopes that its agent does not have, within the scopes that its operator listed as eligible.

An elevation has no task above it, and tasks under it do not get its scopes, because narrowing and delegation use the
agents' own scopes. An elevation cannot be renewed. Everything obtained under it ends with it, as for every task.
"""

from __future__ import annotations

from ostiary.protocol.errors import Conflict, Forbidden
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, check_text, parse_scopes
from ostiaryd.tasks import store
from ostiaryd.tasks.flows.ending import end_task
from ostiaryd.tasks.flows.find import find_task
from ostiaryd.tasks.model import SECOND, Elevation, Task, TaskId, TaskState, check_size

MAX_ELEVATIONS = 10


def set_eligible(act: Act, id_or_name: str, scopes: list[str]) -> tuple[Agent, frozenset[str]]:
    """Set the scopes that an agent may request temporarily; return the agent and the scopes. A live elevation ends if
    it has a scope that is no longer among them. Raises NotFound for an unknown agent, Invalid for an invalid scope.
    """
    agent = registry.find_agent(act.tx, id_or_name)
    eligible = parse_scopes(scopes)
    registry.fill_entry(act, object=agent.agent_id, owner=agent.owner, eligible=sorted(eligible))
    store.elevations.set_eligible(act.tx, agent.agent_id, eligible)
    for id in store.elevations.live_of_agent(act.tx, agent.agent_id, now=act.now):
        task = find_task(act.tx, id)
        if task.elevated - eligible:
            end_task(act, task, TaskState.CANCELLED)
    return agent, eligible


def elevate(
    act: Act,
    agent: Agent,
    *,
    scopes: frozenset[str],
    minutes: int,
    reason: str,
    break_glass: bool,
    approval: str | None,
) -> Task:
    """Begin and return the task of an elevation that policies, and people if necessary, have already permitted.

    Raises Forbidden (`not_eligible`) for scopes for which the agent is not eligible, Conflict (`too_many_elevations`)
    if the agent has `MAX_ELEVATIONS` live elevations, and Invalid for an invalid reason.
    """
    if extra := scopes - store.elevations.get_eligible_scopes(act.tx, agent.agent_id):
        raise Forbidden(
            f"`{agent.name}` is not eligible for {' '.join(sorted(extra))}",
            hint=f"make the agent eligible: ostiary elevation allow {agent.name} SCOPE",
            code="not_eligible",
        )
    if len(store.elevations.live_of_agent(act.tx, agent.agent_id, now=act.now)) >= MAX_ELEVATIONS:
        raise Conflict(
            f"the agent has {MAX_ELEVATIONS} elevations, which is the limit",
            hint="end an elevation: ostiary task end TASK",
            code="too_many_elevations",
        )
    ends = [act.now + minutes * 60 * SECOND] + ([] if agent.expires_at is None else [agent.expires_at])
    task = Task(
        task_id=TaskId(act.new_id("tk")),
        agent=agent.agent_id,
        person=None,
        purpose=check_text(reason, of="reason"),
        scopes=agent.scopes | scopes,
        bounds=(),
        state=TaskState.LIVE,
        created_at=act.now,
        expires_at=min(ends),
        elevated=scopes,
    )
    check_size(purpose=task.purpose)
    store.tasks.insert(act.tx, task)
    store.elevations.insert(act.tx, Elevation(task.task_id, break_glass, approval, act.now))
    return task
