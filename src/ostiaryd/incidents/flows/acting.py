"""Responses to findings. Each response against an agent has a ledger entry of its own, and can be undone when a person
releases the agent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ostiary.provenance.noticing import CALM
from ostiaryd.ground.database import Reader
from ostiaryd.incidents.model.incidents import SECOND, STOPS, Incident
from ostiaryd.ledger.flows import Act
from ostiaryd.ledger.model import Entry
from ostiaryd.policy.model import Proposal
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, AgentState, RiskDelta, Verb
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import standing_id

T = TypeVar("T")
MINUTE = 60 * SECOND


class Step(NamedTuple):
    """A response to carry out. `proposal` names the response and its limits, `agent` is the agent to which it is
    applied, and `task` is the task of the finding.
    """

    incident: Incident
    agent: Agent
    task: str
    proposal: Proposal


def act_with_entry(act: Act, action: str, flow: Callable[[Act], T], **detail: Any) -> T:
    """Run `flow` in the same transaction as `act`, with a further ledger entry for `action`, which gets `detail`;
    return the result of `flow`.
    """
    more = Act(act.tx, Entry(at=act.now, action=action))
    result = flow(more)
    registry.fill_entry(more, object=more.entry.object or "", **detail)
    act.further_entries += [more.entry, *more.further_entries]
    return result


def task_of(agent: Agent, task: str | None) -> str:
    """Return `task`; if it is None, the standing task of the agent."""
    return task or standing_id(agent.agent_id)


def is_done(reader: Reader, step: Step, *, now: int) -> bool:
    """Return whether a response is not necessary: it is already in effect, or the agent is not active.

    A restriction counts as in effect if at least half of the new duration remains and, for a throttled agent, its limit
    is not higher than the new limit.
    """
    response = step.proposal.response
    if response in STOPS or step.agent.state is not AgentState.ACTIVE:
        return step.agent.state is not AgentState.ACTIVE
    if response == "freeze":
        return any((one.target_kind, one.value) == ("task", step.task) for one in registry.list_stops(reader))
    until = now + step.proposal.minutes * MINUTE // 2
    active = [
        one for one in registry.list_restrictions_of_agent(reader, step.agent.agent_id, now=now) if one.kind == response
    ]
    return any(one.until >= until and (response != "throttle" or one.limit <= step.proposal.calls) for one in active)


def perform_response(act: Act, step: Step) -> str:
    """Carry out a response; return a sentence that describes the response. If Refused is raised, nothing has
    changed.
    """
    do, action, says = RESPONSE_ACTS[step.proposal.response]
    earlier = len(act.further_entries)
    try:
        with act.tx.savepoint():
            act_with_entry(
                act,
                action,
                lambda more: do(more, step),
                incident=step.incident.incident_id,
                policies=list(step.proposal.policies),
            )
    except BaseException:
        del act.further_entries[earlier:]
        raise
    return says.format(task=step.task, minutes=step.proposal.minutes, calls=step.proposal.calls)


def undo(act: Act, incident: Incident, responses: set[str]) -> None:
    """Undo those of the `responses` that are still in effect: lift the agent's restrictions, resume its frozen tasks,
    and restore its state. Used when a person releases the agent. Raises Refused if the agent may not become active
    again.
    """
    agent = registry.find_agent(act.tx, incident.agent)
    active = {one.kind for one in registry.list_restrictions_of_agent(act.tx, agent.agent_id, now=act.now)} & responses
    if active:
        act_with_entry(act, "agent.let_go", lambda more: registry.lift_restrictions(more, agent.agent_id, *active))
    resume_frozen_tasks(act, incident)
    for response, (state, verb, action) in RESTARTS.items():
        if response in responses and agent.state is state:
            restart = partial(registry.set_agent_state, id_or_name=agent.agent_id, verb=verb, why=_why(incident))
            act_with_entry(act, action, restart)


def resume_frozen_tasks(act: Act, incident: Incident) -> None:
    """Resume the tasks that a response of this incident froze."""
    for stop in registry.list_stops(act.tx):
        if stop.incident == incident.incident_id:
            act_with_entry(act, "task.melt", partial(registry.lift_stop, target=stop.target_kind, value=stop.value))


def decommission(act: Act, incident: Incident) -> None:
    """Decommission the agent of the incident: end its tasks, tokens and other holdings (such as certificates and
    leases) permanently.
    """
    agent = registry.find_agent(act.tx, incident.agent)
    if agent.state is not AgentState.DECOMMISSIONED:
        act_with_entry(
            act,
            "agent.decommission",
            lambda more: tasks.decommission_agent(more, agent.agent_id, why=_why(incident)),
        )


def reset_risks(act: Act, subjects: set[str]) -> None:
    """Set the risk scores of `subjects` (agents and tasks) to zero, and tell the guards."""
    for subject in sorted(subjects):
        if registry.get_risk(act.tx, subject).points(act.now):
            registry.put_risk(act.tx, subject, CALM)
            registry.queue_for_guards(act, RiskDelta(subject, CALM.millis, CALM.at))


def _why(incident: Incident) -> str:
    return f"incident {incident.incident_id}"


def _quarantine(act: Act, step: Step) -> None:
    registry.set_agent_state(act, step.agent.agent_id, Verb.QUARANTINE, why=_why(step.incident))


def _revoke(act: Act, step: Step) -> None:
    tasks.revoke(act, tasks.RevokedKind.AGENT, step.agent.agent_id)


def _freeze(act: Act, step: Step) -> None:
    registry.stop(act, "task", step.task, why=_why(step.incident), by=None, incident=step.incident.incident_id)


def _hold(act: Act, step: Step) -> None:
    limit = step.proposal.calls if step.proposal.response == "throttle" else 0
    until = act.now + step.proposal.minutes * MINUTE
    registry.put_restriction(act, step.agent.agent_id, step.proposal.response, until=until, limit=limit)  # type: ignore[arg-type]


RESPONSE_ACTS: dict[str, tuple[Callable[[Act, Step], None], str, str]] = {
    "step_up": (_hold, "agent.step_up", "for {minutes} minutes the agent needs a new authentication (step-up)"),
    "throttle": (_hold, "agent.throttle", "for {minutes} minutes the agent may make {calls} calls per minute"),
    "narrow": (_hold, "agent.narrow", "for {minutes} minutes the agent may only read"),
    "freeze": (_freeze, "task.freeze", "task {task} is frozen, with every task delegated from it"),
    "quarantine": (
        _quarantine,
        "agent.quarantine",
        "the agent is stopped, and all its tokens have ended; its tasks wait",
    ),
    "revoke": (_revoke, "agent.revoke", "the agent is stopped, and its tasks are cancelled"),
}
"""Table of the responses: the function that carries out the response, the action of its entry, its description for
people.
"""
RESTARTS = {
    "quarantine": (AgentState.QUARANTINED, Verb.RELEASE, "agent.release"),
    "revoke": (AgentState.SUSPENDED, Verb.RESUME, "agent.resume"),
}
"""Table of the responses that change the agent's state: the new state, the verb that undoes it, the action of the
entry.
"""
