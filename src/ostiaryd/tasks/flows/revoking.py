"""Revocation of an agent, a task, a token, a key, or an owner, together with everything derived from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import StrEnum

from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Caller, Person, PersonId, Root, Verb
from ostiaryd.tasks import store
from ostiaryd.tasks.flows.ending import end_task
from ostiaryd.tasks.flows.find import find_task
from ostiaryd.tasks.model import Task, TaskState, standing_id


class RevokedKind(StrEnum):
    AGENT = "agent"
    TASK = "task"
    TOKEN = "token"
    KEY = "key"
    OWNER = "owner"


def revoke(act: Act, kind: RevokedKind, id: str, *, by: Caller | None = None) -> Counter[str]:
    """Revoke an object (agent, task, token, key or owner) and everything derived from it; return the number of ended
    objects by kind. Raises NotFound for an unknown object, Conflict for a standing task.

    Administrators may revoke every object, and the owner of an agent may revoke the agent and its tasks, tokens and
    keys. Raises Forbidden for any other caller. `by`: the caller, None for the server itself.
    """
    ended = _BY_KIND[kind](act, id, by)
    registry.fill_entry(act, object=act.entry.object or id, ended=dict(ended))
    return ended


def _agent(act: Act, id: str, by: Caller | None) -> Counter[str]:
    agent = registry.find_agent(act.tx, id)
    registry.fill_entry(act, object=agent.agent_id, owner=agent.owner)
    registry.check_may(act, by, Verb.REVOKE, agent)
    ended = _cancel(act, _delegated_tasks(act, agent))  # first, so that guards are not notified of each of these
    return ended + registry.revoke_agent(act, id, by=by)


def _task(act: Act, id: str, by: Caller | None) -> Counter[str]:
    task = find_task(act.tx, id)
    registry.fill_entry(act, object=task.task_id, agent=task.agent)
    if task.expires_at is None:
        raise Conflict(
            "a standing task ends with its agent and cannot be revoked alone",
            hint="revoke the agent instead",
            code="standing_task",
        )
    registry.check_may(act, by, Verb.REVOKE, registry.find_agent(act.tx, task.agent))
    return _cancel(act, [task] if task.state is TaskState.LIVE else [])


def _token(act: Act, id: str, by: Caller | None) -> Counter[str]:
    holding = registry.get_holding(act.tx, id)
    if holding is None:
        raise NotFound("token not found", hint="a token is named by its `jti`")
    registry.fill_entry(act, object=holding.id, holder=holding.agent)
    if (agent := registry.get_agent(act.tx, holding.agent)) is not None:
        registry.check_may(act, by, Verb.REVOKE, agent)
    else:
        registry.check_admin(by)
    return registry.end_holdings(act, Root.HOLDING, holding.id, why="revoked")


def _key(act: Act, jkt: str, by: Caller | None) -> Counter[str]:
    if (key := registry.get_key(act.tx, jkt)) is not None:
        registry.check_may(act, by, Verb.REVOKE, registry.find_agent(act.tx, key.agent))
    return registry.revoke_key(act, jkt)


def _owner(act: Act, id: str, by: Caller | None) -> Counter[str]:
    registry.check_admin(by)
    owner = registry.find_owner(act.tx, id)
    owned = [
        agent
        for gone in registry.list_leaving(act.tx, owner)
        for agent in registry.list_agents_of_owner(act.tx, gone.id)
    ]
    tasks = [task for agent in owned for task in _delegated_tasks(act, agent)]
    if isinstance(owner, Person):
        tasks += store.tasks.live_for_person(act.tx, owner.person_id)
    ended = _cancel(act, tasks)
    return ended + registry.revoke_owner(act, owner.id)


def decommission_agent(act: Act, id_or_name: str, *, why: str = "", by: Caller | None = None) -> None:
    """Decommission an agent, and end its tasks and the tasks that it delegated.

    Raises NotFound for an unknown agent, Forbidden if the caller may not decommission it, Conflict if it is already
    decommissioned.
    """
    agent = registry.find_agent(act.tx, id_or_name)
    registry.fill_entry(act, object=agent.agent_id, owner=agent.owner)
    registry.check_may(act, by, Verb.DECOMMISSION, agent)
    ended = _cancel(act, _delegated_tasks(act, agent))
    ended += registry.decommission_agent(act, agent.agent_id, why=why, by=by)
    registry.fill_entry(act, object=agent.agent_id, ended=dict(ended))


def revoked_state(reader: Reader, kind: RevokedKind, id: str) -> tuple[str, str]:
    """Return the present state of a revoked object, and the command that undoes the revocation (empty if there is
    none).
    """
    match kind:
        case RevokedKind.AGENT:
            agent = registry.find_agent(reader, id)
            return agent.state.value, registry.undo_stop(reader, agent)
        case RevokedKind.OWNER:
            owner = registry.find_owner(reader, id)
            return (owner.state.value, f"ostiary person return {owner.name}") if isinstance(owner, Person) else ("", "")
        case RevokedKind.TASK:
            return find_task(reader, id).state.value, ""
        case _:
            return "ended", ""


def cancel_all(act: Act, agent: Agent) -> Counter[str]:
    """End all tasks of an agent, and all tasks that it delegated to other agents, while the agent itself stays active.
    Return the number of ended objects by kind.
    """
    return _cancel(act, _delegated_tasks(act, agent))


def cancel_for(act: Act, person: PersonId) -> Counter[str]:
    """End the tasks of all agents on behalf of a person; return the number of ended objects by kind."""
    return _cancel(act, store.tasks.live_for_person(act.tx, person))


def cancel(act: Act, id: str) -> Counter[str]:
    """End a task as cancelled, together with all live tasks under it and everything issued under these tasks; return
    the number of ended objects by kind, including the tasks. If the task has already ended, do nothing, and return an
    empty counter. Raises NotFound for an unknown task.
    """
    return end_task(act, find_task(act.tx, id), TaskState.CANCELLED)


def _delegated_tasks(act: Act, agent: Agent) -> list[Task]:
    """Return the agent's own tasks, and the tasks that it delegated from its standing task."""
    return store.tasks.live_and_delegated(act.tx, agent.agent_id, standing_id(agent.agent_id))


def _cancel(act: Act, tasks: list[Task]) -> Counter[str]:
    """End tasks and everything issued under them; return the number of ended objects by kind, including the tasks."""
    ended: Counter[str] = Counter()
    for task in {task.task_id: task for task in tasks}.values():
        ended += end_task(act, task, TaskState.CANCELLED)
    return ended


_BY_KIND: dict[RevokedKind, Callable[[Act, str, Caller | None], Counter[str]]] = {
    RevokedKind.AGENT: _agent,
    RevokedKind.TASK: _task,
    RevokedKind.TOKEN: _token,
    RevokedKind.KEY: _key,
    RevokedKind.OWNER: _owner,
}
