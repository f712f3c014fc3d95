"""The response to findings: playbooks propose responses, and the act of the finding carries them out.

The configuration sets two limits, each in percent of the active agents: the number of agents against which playbooks
act within an hour, and the number of agents that playbooks halt within a day. If the second limit prevents a response,
the agent is narrowed to reading. A faulty detector or playbook therefore cannot stop all agents of a company. An
incident shows the responses that a limit prevented, and a person decides. Incidents that a person has reviewed do not
count, and neither do explicit orders: a person who stops many agents does not use up the limits of the playbooks.
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
from ostiaryd.incidents.flows.acting import Step
from ostiaryd.incidents.model.incidents import (
    ALERT_EVERY,
    DAY,
    HALTS,
    HOUR,
    ISOLATES,
    MAX_ACTS,
    MAX_SAYS,
    SECOND,
    STOPS,
    Did,
    Incident,
    IncidentId,
    IncidentState,
    Limits,
    Outcome,
    most_agents,
)
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows as policy
from ostiaryd.policy.model import Proposal
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import ADMIN, Agent, AgentState
from ostiaryd.watch import flows as watch
from ostiaryd.watch.flows.findings import MAX_CLAIMED
from ostiaryd.watch.model import Finding

UNBACKED = (
    "only one guard reports this, without a proof by the agent's key; "
    "a second guard or a person must confirm the finding"
)
"""Reason why a finding that only one guard reports, without a proof, does not restrict the agent."""
UNBUDGETED = (
    "a statistical detector may not restrict the agent now: its budget of restrictions is used up, "
    "or the score is not rare enough; a person must decide"
)
"""Reason why a finding beyond the budget of statistical detectors does not restrict the agent."""
DECOY = "canary"
"""The name of the detector of decoys and canary secrets. The act that reads a canary secret also quarantines the agent.
"""
COUNTED_EVERY = 600 * SECOND
"""Maximum age of the stored number of active agents, in microseconds; an older number is counted again."""


def responder(config: Config) -> Callable[[Act, Finding], Incident | None]:
    """Return the function that carries out the playbooks' responses to a finding, in the act that stores the
    finding.
    """
    return partial(respond, limits=Limits(config.respond_percent, config.halt_percent))


def respond(act: Act, finding: Finding, limits: Limits) -> Incident | None:
    """Carry out the responses of the playbooks to this finding; return the incident, or None if there is nothing to do.

    1. The playbooks propose responses; a proposal in watch mode is only recorded. 2. If there is another proposal, a
    playbook failed, or the agent read a canary secret and was quarantined for that, an incident is opened or continued.
    3. Each response that is not in effect yet is carried out, the strongest first, within `limits`. Without enough
    evidence, a response that restricts or stops the agent waits for a person.
    """
    if not finding.agent:  # the finding is about a guard, not about an agent
        return None
    agent = registry.find_agent(act.tx, finding.agent)
    if agent.state is AgentState.DECOMMISSIONED:
        return None
    waiting = store.find_open(act.tx, agent.agent_id)
    score, proposals, failed = _propose(act.tx, agent, finding, now=act.now)
    if would := [one.response for one in proposals if one.is_watched]:
        registry.fill_entry(act, object=finding.finding_id, would=would)
    enforced = [one for one in proposals if not one.is_watched]
    is_stopped = agent.state is AgentState.QUARANTINED and waiting is None and finding.detector == DECOY
    if waiting is None and not enforced and not failed and not is_stopped:
        return None
    incident = waiting or open_incident(act, agent, says=f"{finding.detector}: {finding.says}", risk=score)
    watch.assign_findings(act.tx, agent.agent_id, incident.incident_id, since=act.now - HOUR)
    incident = _go_on(act, incident, finding, enforced, score)
    if is_stopped:
        _note_quarantine(act, incident, agent)
    held_back: HeldBack | None = None
    if not _is_backed(act, finding):
        held_back = HeldBack(Outcome.LIMITED, UNBACKED)
    elif not finding.may_narrow:
        held_back = HeldBack(Outcome.INFORMED, UNBUDGETED)
    for name, message in failed:
        did = Did(
            number=0,
            at=act.now,
            response="alert",
            outcome=Outcome.FAILED,
            agent=agent.agent_id,
            task=None,
            policies=(name,),
            says=f"the playbook failed: {message}"[:500],
        )
        _keep(act, incident, did)
    for proposal in reversed(enforced):  # a stronger response makes milder responses useless
        step = Step(incident, agent, acting.task_of(agent, finding.task), proposal)
        pending = held_back if proposal.response in ISOLATES else None
        if carry_out(act, step, limits, pending) is Outcome.LIMITED and pending is None:
            break
        agent = registry.find_agent(act.tx, agent.agent_id)
    return incident


def open_incident(act: Act, agent: Agent, *, says: str, risk: int) -> Incident:
    """Open an incident about the agent, about which a person must decide. `says`: the cause in words; `risk`: the
    agent's risk score.
    """
    says = " ".join(says.split())[:MAX_SAYS]
    incident = Incident(
        incident_id=IncidentId(act.new_id("in")),
        agent=agent.agent_id,
        owner=agent.owner,
        state=IncidentState.OPEN,
        opened_at=act.now,
        heard_at=act.now,
        risk=risk,
        says=says,
    )
    store.insert(act.tx, incident)
    acting.act_with_entry(act, "incident.open", lambda more: note_incident(more, incident, risk=risk, says=[says]))
    return incident


def _note_quarantine(act: Act, incident: Incident, agent: Agent) -> None:
    """Add the quarantine that the read of a canary secret caused to the incident. When the incident ends, the agent is
    released.
    """
    did = Did(
        number=0,
        at=act.now,
        response="quarantine",
        outcome=Outcome.DONE,
        agent=agent.agent_id,
        task=None,
        policies=(),
        says="the agent read a canary secret, and the same act quarantined the agent",
    )
    _keep(act, incident, did)
    registry.require_person(act.tx, agent.agent_id, incident.incident_id)


def note_incident(act: Act, incident: Incident, **detail: object) -> None:
    """Write the incident, its agent and `detail` into the act's ledger entry."""
    act.entry.agent = act.entry.agent or incident.agent
    registry.fill_entry(act, object=incident.incident_id, owner=incident.owner, about=incident.agent, **detail)


class HeldBack(NamedTuple):
    """The reason why a response is not carried out and waits for a person: the outcome to record, and the reason in
    words.
    """

    outcome: Outcome
    says: str


def carry_out(act: Act, step: Step, limits: Limits | None, pending: HeldBack | None = None) -> Outcome | None:
    """Carry out one response and record it in the incident; return the outcome, or None if the response is already in
    effect.

    `pending`: the reason for which a person must decide instead; None to carry the response out. `limits`: the limits
    of automatic responses; None for an explicit order. If a response that halts the agent fails, or a limit prevents
    it, the agent is restricted to reading, if the limits allow that.
    """
    incident, agent, proposal = step.incident, step.agent, step.proposal
    if proposal.response == "alert" or acting.is_done(act.tx, step, now=act.now):
        return None
    outcome, says = Outcome.DONE, ""
    if pending is not None:
        outcome, says = pending
    elif reason := _limited(act, agent, proposal.response, limits):
        outcome, says = Outcome.LIMITED, reason
    else:
        try:
            says = acting.perform_response(act, step)
        except Refused as refusal:
            outcome, says = Outcome.FAILED, refusal.message
    did = Did(
        number=0,
        at=act.now,
        response=proposal.response,
        outcome=outcome,
        agent=agent.agent_id,
        task=step.task if proposal.response == "freeze" else None,
        policies=proposal.policies,
        says=says[:500],
        is_ordered=limits is None,
    )
    if _keep(act, incident, did):
        action = "respond.limited" if outcome is Outcome.LIMITED else "incident.act"
        detail: dict[str, object] = {
            "did": [f"{proposal.response}: {outcome}", says],
            "seq": outbox.highest_number(act.tx),
        }
        detail |= {"policies": list(proposal.policies)}  # `seq` is the number of the change in the feed
        acting.act_with_entry(act, action, lambda more: note_incident(more, incident, **detail))
    if outcome is Outcome.DONE and proposal.response in STOPS:
        registry.require_person(act.tx, agent.agent_id, incident.incident_id)
    is_prevented = outcome in (Outcome.LIMITED, Outcome.FAILED) and pending is None
    would_narrow = is_prevented and proposal.response in HALTS
    if would_narrow and not _limited(act, agent, "narrow", limits):
        return carry_out(act, step._replace(proposal=replace(proposal, response="narrow")), limits)
    return outcome


def _propose(
    reader: Reader, agent: Agent, finding: Finding, *, now: int
) -> tuple[int, list[Proposal], list[tuple[str, str]]]:
    """Return the risk score (of the agent or of the finding's task, whichever is higher), the responses that the
    playbooks propose, and (name, error) of each playbook that failed.
    """
    of_agent = registry.get_risk(reader, agent.agent_id).points(now)
    of_task = registry.get_risk(reader, finding.task).points(now) if finding.task else 0
    score = max(of_agent, of_task)
    playbooks = policy.active_set(reader).playbooks
    if playbooks.is_empty:
        return score, [], []
    recent = watch.list_findings_of_agent(reader, agent.agent_id, since=now - HOUR)
    context: Record = {
        "risk": {"score": score, "agent": of_agent, "task": of_task, "chain": 0, "call": finding.points},
        "task": finding.task or "",
        "detector": finding.detector,
        "points": finding.points,
        "findings": len(recent),
        "detectors": frozenset(one.detector for one in recent),
        "kind": agent.kind.value,
        "now": Datetime(now // 1000),
    }
    principal = policy.entity_of_agent(agent)
    return score, *playbooks.propose(principal.uid, context, Overlay.of(playbooks.known, principal))


def _go_on(act: Act, incident: Incident, finding: Finding, proposals: Iterable[Proposal], score: int) -> Incident:
    """Store the higher of the incident's risk score and `score`, and return the incident. Repeat the alert if a
    playbook proposes an alert and the last alert is at least `ALERT_EVERY` old.
    """
    going = replace(incident, risk=max(incident.risk, score))
    is_alert = any(one.response == "alert" for one in proposals)
    if is_alert and act.now - incident.heard_at >= ALERT_EVERY:
        going = replace(going, heard_at=act.now)
        says = [f"{finding.detector}: {finding.says}"]
        acting.act_with_entry(
            act, "incident.alert", lambda more: note_incident(more, going, risk=going.risk, says=says)
        )
    if going != incident:
        store.update(act.tx, going)
    return going


def _is_backed(act: Act, finding: Finding) -> bool:
    """Return whether the finding has more evidence than the unproved report of one guard: a proof, or another finding
    within the hour, of at least `MAX_CLAIMED` points, that has a proof or comes from another guard.
    """
    if finding.is_proved:
        return True
    recent = watch.list_findings_of_agent(act.tx, finding.agent, since=act.now - HOUR)
    return any(one.points >= MAX_CLAIMED and (one.is_proved or one.resource != finding.resource) for one in recent)


def would_lock_out(reader: Reader, agent: Agent) -> bool:
    """Return whether a stop of the agent could not be undone: the agent administers the server, and no person could
    release it.
    """
    return ADMIN in agent.scopes and not registry.has_active_person_key(reader)


def _limited(act: Act, agent: Agent, response: str, limits: Limits | None) -> str:
    """Return the reason why a limit prevents the response, so that a person must decide; an empty text if no limit
    does.
    """
    if limits is None:
        return ""
    if would_lock_out(act.tx, agent):
        return "the agent administers this server, and no person has a key to release it"
    fleet, id = store.count_active_agents(act.tx, older_than=act.now - COUNTED_EVERY), agent.agent_id
    if response in HALTS:
        halted = store.others_halted(act.tx, id, since=act.now - DAY)
        if halted >= most_agents(fleet, limits.halted):
            return f"{halted} agents of {fleet} were halted within a day, and no person has reviewed the incidents"
    acted = store.others_acted_against(act.tx, id, since=act.now - HOUR)
    if acted < most_agents(fleet, limits.acted) or store.was_acted_against(act.tx, id, since=act.now - HOUR):
        return ""
    return f"{acted} agents of {fleet} got automatic responses within an hour, and no person has reviewed the incidents"


def _keep(act: Act, incident: Incident, did: Did) -> bool:
    """Add an outcome to the incident, unless the incident has the same outcome already or is full; return whether it
    was added.
    """
    before = store.list_responses(act.tx, incident.incident_id)
    same = did.response, did.outcome, did.policies
    again = any((one.response, one.outcome, one.policies) == same for one in before)
    is_full = len(before) >= MAX_ACTS and did.response not in STOPS  # a stop occurs once, and an undo needs its record
    if is_full or (again and did.outcome is not Outcome.DONE):
        return False
    store.add(act.tx, incident.incident_id, replace(did, number=len(before)))
    return True
