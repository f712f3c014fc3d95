"""What happens when something was noticed of an agent: playbooks say what to do, and it is done in the same act.

What is taken from agents without a person is limited by the configuration, as a share of all that are active: against
how many something is done within an hour, and how many are halted within a day. Who would be halted beyond that only
reads meanwhile. A detector or a playbook that has gone wrong then stops no company; what it wanted stands in the
incidents, and a person decides. An incident that a person has looked at does not count any more, nor does what somebody
has ordered: who makes people stop many agents does not thereby make playbooks stop none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from ostiary.authorization.cedar.extensions import Datetime
from ostiary.authorization.cedar.values import Overlay, Record
from ostiary.protocol.errors import Refused
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Reader
from ostiaryd.ground.outbound import outbox
from ostiaryd.incidents import store
from ostiaryd.incidents.flows import acting
from ostiaryd.incidents.flows.acting import STOPS, Step
from ostiaryd.incidents.model.incidents import (
    ALERT_EVERY,
    DAY,
    HALTS,
    HOUR,
    MAX_ACTS,
    MAX_SAYS,
    SECOND,
    Did,
    Incident,
    IncidentId,
    Limits,
    Outcome,
    State,
    most_agents,
)
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policies
from ostiaryd.policy.model import Proposal
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, Agent
from ostiaryd.registry.model import State as Agents
from ostiaryd.watch import flows as watch
from ostiaryd.watch.flows.findings import MAX_CLAIMED
from ostiaryd.watch.model import Finding

ISOLATES = HALTS | {"narrow"}
"""What takes an agent's work away at every guard."""
UNBACKED = "one guard alone says so, without the agent's proof: it takes a second guard, or a person"
UNBUDGETED = "statistical detectors have no budget for it, or it is not rare enough here: it takes a person"
COUNTED_EVERY = 600 * SECOND
"""how old the number of active agents may be"""


def responder(config: Config) -> Callable[[Act, Finding], Incident | None]:
    """What is to be called with each finding."""
    return partial(respond, limits=Limits(config.respond_percent, config.halt_percent))


def respond(act: Act, finding: Finding, limits: Limits) -> Incident | None:
    """Do what the playbooks say about this finding; the incident, where there is one.

    1. They are asked. 2. Where they want something, or have failed, an incident is opened, or goes on. 3. Each thing is
    done that is not done yet, the strongest first, within the limit.
    """
    if not finding.agent:  # it is about a guard, and nobody's agent did it
        return None
    agent = registry.find_agent(act.tx, finding.agent)
    if agent.state is Agents.DECOMMISSIONED:
        return None
    waiting = store.waiting(act.tx, agent.agent_id)
    score, proposals, failed = _propose(act.tx, agent, finding, now=act.now)
    if would := [one.response for one in proposals if one.is_watched]:
        registry.note(act, object=finding.finding_id, would=would)
    wanted = [one for one in proposals if not one.is_watched]
    if waiting is None and not wanted and not failed:
        return None
    incident = waiting or open_incident(act, agent, says=f"{finding.detector}: {finding.says}", risk=score)
    watch.assign_findings(act.tx, agent.agent_id, incident.incident_id, since=act.now - HOUR)
    incident = _go_on(act, incident, finding, wanted, score)
    held_back: HeldBack | None = None
    if not _is_backed(act, finding):
        held_back = HeldBack(Outcome.LIMITED, UNBACKED)
    elif not finding.may_narrow:
        held_back = HeldBack(Outcome.INFORMED, UNBUDGETED)
    for policy, message in failed:
        did = Did(
            number=0, at=act.now, response="alert", outcome=Outcome.FAILED, agent=agent.agent_id, task=None,
            policies=(policy,), says=f"the playbook failed: {message}"[:500],
        )  # fmt: skip
        _keep(act, incident, did)
    for proposal in reversed(wanted):  # after something stronger has been done, the milder is of no use
        step = Step(incident, agent, acting.task_of(agent, finding.task), proposal)
        held = held_back if proposal.response in ISOLATES else None
        if carry_out(act, step, limits, held) is Outcome.LIMITED and held is None:
            break
        agent = registry.find_agent(act.tx, agent.agent_id)
    return incident


def open_incident(act: Act, agent: Agent, *, says: str, risk: int) -> Incident:
    """Something about an agent that waits for a person."""
    says = " ".join(says.split())[:MAX_SAYS]
    incident = Incident(
        incident_id=IncidentId(act.new_id("in")), agent=agent.agent_id, owner=agent.owner, state=State.OPEN,
        opened_at=act.now, heard_at=act.now, risk=risk, says=says,
    )  # fmt: skip
    store.insert(act.tx, incident)
    acting.beside(act, "incident.open", lambda more: note(more, incident, risk=risk, says=[says]))
    return incident


def note(act: Act, incident: Incident, **detail: object) -> None:
    """The entry is about that incident, and its agent."""
    act.entry.agent = act.entry.agent or incident.agent
    registry.note(act, object=incident.incident_id, owner=incident.owner, about=incident.agent, **detail)


class HeldBack(NamedTuple):
    """Why a response is not carried out before a person confirms it, and what it counts as."""

    outcome: Outcome
    says: str


def carry_out(act: Act, step: Step, limits: Limits | None, held: HeldBack | None = None) -> Outcome | None:
    """Carry out one response, unless it is done already, is `held` back, or would pass the limits (None: a person
    orders it). Return the outcome. An agent that the limits keep from being halted only reads, if there is room for it.
    """
    incident, agent, proposal = step.incident, step.agent, step.proposal
    if proposal.response == "alert" or acting.is_done(act.tx, step, now=act.now):
        return None
    outcome, says = Outcome.DONE, ""
    if held is not None:
        outcome, says = held
    elif said := _limited(act, agent, proposal.response, limits):
        outcome, says = Outcome.LIMITED, said
    else:
        try:
            says = acting.take(act, step)
        except Refused as refusal:
            outcome, says = Outcome.FAILED, refusal.message
    did = Did(
        number=0, at=act.now, response=proposal.response, outcome=outcome, agent=agent.agent_id,
        task=step.task if proposal.response == "freeze" else None, policies=proposal.policies, says=says[:500],
        is_ordered=limits is None,
    )  # fmt: skip
    if _keep(act, incident, did):
        action = "respond.limited" if outcome is Outcome.LIMITED else "incident.act"
        told: dict[str, object] = {"did": [f"{proposal.response}: {outcome}", says], "seq": outbox.head(act.tx)}
        told |= {"policies": list(proposal.policies)}  # `seq`: as of `revoke`
        acting.beside(act, action, lambda more: note(more, incident, **told))
    if outcome is Outcome.DONE and proposal.response in STOPS:
        registry.require_person(act.tx, agent.agent_id, incident.incident_id)
    would_narrow = outcome is Outcome.LIMITED and held is None and proposal.response in HALTS
    if would_narrow and not _limited(act, agent, "narrow", limits):
        return carry_out(act, step._replace(proposal=replace(proposal, response="narrow")), limits)
    return outcome


def _propose(
    reader: Reader, agent: Agent, finding: Finding, *, now: int
) -> tuple[int, list[Proposal], list[tuple[str, str]]]:
    """The score of the agent, what the playbooks want, and which of them have failed."""
    of_agent = registry.get_risk(reader, agent.agent_id).points(now)
    of_task = registry.get_risk(reader, finding.task).points(now) if finding.task else 0
    score = max(of_agent, of_task)
    playbooks = policies.active_set(reader).playbooks
    if playbooks.is_empty:
        return score, [], []
    recent = watch.list_findings_of_agent(reader, agent.agent_id, since=now - HOUR)
    context: Record = {
        "risk": {"score": score, "agent": of_agent, "task": of_task, "chain": 0, "call": finding.points},
        "task": finding.task or "",
        "detector": finding.detector,
        "points": finding.points,
        "findings": len(recent),
        "detectors": frozenset[object](one.detector for one in recent),
        "kind": agent.kind.value,
        "now": Datetime(now // 1000),
    }
    principal = policies.entity_of_agent(agent)
    return score, *playbooks.propose(principal.uid, context, Overlay(playbooks.known, principal))


def _go_on(act: Act, incident: Incident, finding: Finding, wanted: Iterable[Proposal], score: int) -> Incident:
    """The incident with one more finding; who waits for it is told again after a while."""
    going = replace(incident, risk=max(incident.risk, score))
    is_alert = any(one.response == "alert" for one in wanted)
    if is_alert and act.now - incident.heard_at >= ALERT_EVERY:
        going = replace(going, heard_at=act.now)
        says = [f"{finding.detector}: {finding.says}"]
        acting.beside(act, "incident.alert", lambda more: note(more, going, risk=going.risk, says=says))
    if going != incident:
        store.update(act.tx, going)
    return going


def _is_backed(act: Act, finding: Finding) -> bool:
    """Whether more than one guard's unproved word says so: a finding with proof, or one of another guard, within the
    hour and of some weight.
    """
    if finding.is_proved:
        return True
    recent = watch.list_findings_of_agent(act.tx, finding.agent, since=act.now - HOUR)
    return any(one.points >= MAX_CLAIMED and (one.is_proved or one.resource != finding.resource) for one in recent)


def would_lock_out(reader: Reader, agent: Agent) -> bool:
    """Return whether nobody could let go again of that agent, which administers."""
    return ADMIN in agent.scopes and not registry.has_active_person_key(reader)


def _limited(act: Act, agent: Agent, response: str, limits: Limits | None) -> str:
    """Why that must not be done about this agent without a person; empty where it may."""
    if limits is None:
        return ""
    if would_lock_out(act.tx, agent):
        return "it administers this server, and no person has a key with which to let it go"
    fleet, id = store.fleet(act.tx, older_than=act.now - COUNTED_EVERY), agent.agent_id
    if response in HALTS:
        halted = store.others_halted(act.tx, id, since=act.now - DAY)
        if halted >= most_agents(fleet, limits.halted):
            return f"{halted} agents of {fleet} were halted within the day, and no person has looked at it"
    acted = store.others_acted_against(act.tx, id, since=act.now - HOUR)
    if acted < most_agents(fleet, limits.acted) or store.was_acted_against(act.tx, id, since=act.now - HOUR):
        return ""
    return f"{acted} agents of {fleet} were acted against within the hour, and no person has looked at it"


def _keep(act: Act, incident: Incident, did: Did) -> bool:
    """Write it on the incident; not what stands there already, and no more than there is room for."""
    before = store.acts(act.tx, incident.incident_id)
    same = did.response, did.outcome, did.policies
    again = any((one.response, one.outcome, one.policies) == same for one in before)
    is_full = len(before) >= MAX_ACTS and did.response not in STOPS  # which happen once, and must be known to be undone
    if is_full or (again and did.outcome is not Outcome.DONE):
        return False
    store.add(act.tx, incident.incident_id, replace(did, number=len(before)))
    return True
