"""Incidents: opened on an order or by playbooks, and decided by a person."""

from __future__ import annotations

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.incidents import store
from ostiaryd.incidents.flows import acting
from ostiaryd.incidents.flows.acting import Step
from ostiaryd.incidents.flows.respond import carry_out, note_incident, open_incident
from ostiaryd.incidents.model.incidents import (
    HOUR,
    MAX_NOTE,
    MAX_NOTES,
    NEXT,
    SECOND,
    Incident,
    IncidentNote,
    Verb,
    check_may_close,
    check_waits,
)
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.model import Proposal
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Caller, Owner, PersonId, TeamId, check_text
from ostiaryd.tasks import flows as tasks
from ostiaryd.watch import flows as watch
from ostiaryd.watch.flows import record_verdict
from ostiaryd.watch.model import Verdict

MAX_WHY = 500
MAX_NARROW_HOURS = 7 * 24


def find_incident(reader: Reader, id: str) -> Incident:
    """Return an incident by id. Raises NotFound if there is none."""
    if (incident := store.get(reader, id)) is None:
        raise NotFound(f"incident {id[:70]!a} not found", hint="list the incidents with `ostiary incident list`")
    return incident


def isolate(act: Act, id_or_name: str, *, says: str, source: str) -> Incident:
    """Quarantine an agent on an explicit order, regardless of the limits of automatic responses; return the agent's
    incident, about which a person must then decide.

    `source`: the author of the order, in words for a person. Raises NotFound for an unknown agent.
    """
    agent = registry.find_agent(act.tx, id_or_name)
    risk = registry.get_risk(act.tx, agent.agent_id).points(act.now)
    incident = store.find_open(act.tx, agent.agent_id) or open_incident(act, agent, says=says, risk=risk)
    watch.assign_findings(act.tx, agent.agent_id, incident.incident_id, since=act.now - HOUR)
    proposal = Proposal(response="quarantine", policies=(source,))
    carry_out(act, Step(incident, agent, acting.task_of(agent, None), proposal), None)
    # also if another act had stopped the agent before
    registry.require_person(act.tx, agent.agent_id, incident.incident_id)
    return incident


def examine(reader: Reader) -> str:
    """Return a sentence with the number of open incidents, for `ostiary doctor`. Raises Conflict if there is an
    incident that no person has taken and in which a response was not carried out, because a limit was reached or
    evidence is lacking.
    """
    waiting, limited = store.count_waiting(reader), store.count_held_back(reader)
    if limited:
        message = (
            f"{limited} open incidents have a response that was not carried out, because of a limit or for lack"
            " of evidence"
        )
        raise Conflict(
            message, hint="list the incidents: ostiary incident list; take one: ostiary incident take ID --reason .."
        )
    return f"{waiting} incidents wait for a person" if waiting else "no incident waits for a person"


def close(
    act: Act, id: str, verb: Verb, *, why: str, by: Caller, hours: int = 24, is_real: bool | None = None
) -> Incident:
    """Record the decision of a person: take the incident, release the agent, restrict the agent to reads for `hours`,
    or decommission the agent. Return the incident. A person who takes the incident works on it: it stays open, and
    only step 1 applies.

    1. Check that the state of the incident permits the decision, and that the caller may decide. 2. Undo the responses,
    or decommission the agent. 3. Unless the agent is decommissioned, set its risk score to zero. 4. Record for each
    finding that has no judgement yet whether it was real: `is_real`, or by default true unless the agent is released.

    Raises NotFound for an unknown incident, Forbidden (`own_incident`, `no_person`), Conflict (`incident_closed`,
    `incident_taken`, `incident_open`, or an agent that may not become active), Invalid for `hours` or the reason.
    """
    incident = find_incident(act.tx, id)
    note_incident(act, incident, why=why[:MAX_WHY], was=incident.state.value)
    concerned = _concerned(act.tx, incident)
    person = check_may_close(verb, by, agents=concerned[0], persons=concerned[1])
    check_waits(incident, verb)
    if incident.is_closed and (other := store.find_open(act.tx, incident.agent)) is not None:
        raise Conflict(
            f"incident {other.incident_id} about the same agent is open",
            hint="decide about that incident first",
            code="incident_open",
        )
    check_text(why, of="reason", limit=MAX_WHY)
    if not 1 <= hours <= MAX_NARROW_HOURS:
        raise Invalid(f"an agent can be narrowed to reading for 1 to {MAX_NARROW_HOURS} hours")
    decided = replace(incident, state=NEXT[verb], person=person, why=why)
    if verb is not Verb.TAKE:
        decided = replace(decided, closed_at=act.now)
        registry.release_agent(act.tx, incident.agent)
        _end(act, incident, verb, hours=hours)
        _judge(act, incident, verb is not Verb.RELEASE if is_real is None else is_real, by=person, why=why)
    store.update(act.tx, decided)
    return decided


def add_note(act: Act, id: str, says: str, *, by: Caller) -> IncidentNote:
    """Add a note of a person to an open or closed incident; return the note.

    Raises NotFound for an unknown incident, Forbidden (`no_person`) for any other caller, Invalid for an invalid text,
    and Conflict (`too_many_notes`) at the limit of notes.
    """
    incident = find_incident(act.tx, id)
    note_incident(act, incident, why=says[:MAX_NOTE])
    if by.kind != "person":
        hint = "use the key of a person: ostiary person add-key NAME --generate-key FILE"
        raise Forbidden("only a person can write a note about an incident", hint=hint, code="no_person")
    check_text(says, of="note", limit=MAX_NOTE)
    number = len(store.list_notes(act.tx, incident.incident_id)) + 1
    if number > MAX_NOTES:
        raise Conflict(
            f"the incident has {MAX_NOTES} notes, which is the limit",
            hint="keep a longer report elsewhere",
            code="too_many_notes",
        )
    written = IncidentNote(number, act.now, PersonId(by.id), says)
    store.add_note(act.tx, incident.incident_id, written)
    return written


def _end(act: Act, incident: Incident, verb: Verb, *, hours: int) -> None:
    if verb is Verb.DECOMMISSION:
        acting.decommission(act, incident)
        acting.resume_frozen_tasks(act, incident)
        return
    done = {did.response for did in store.list_responses(act.tx, incident.incident_id)}
    acting.undo(
        act, incident, {"narrow"} if incident.is_closed else done
    )  # the other responses were undone when the agent was narrowed
    acting.reset_risks(act, {incident.agent, *watch.list_tasks_of_incident(act.tx, incident.incident_id)})
    if verb is Verb.NARROW:
        until = act.now + hours * 3600 * SECOND
        acting.act_with_entry(
            act,
            "agent.narrow",
            lambda more: registry.put_restriction(more, incident.agent, "narrow", until=until),
            incident=incident.incident_id,
        )


def _judge(act: Act, incident: Incident, is_real: bool, *, by: str, why: str) -> None:
    """Record for each finding of the incident without a judgement whether the finding was real."""
    verdict = Verdict.REAL if is_real else Verdict.FALSE_ALARM
    findings = watch.list_findings_of_incident(act.tx, incident.incident_id)
    record_verdict(act, [one.finding_id for one in findings if one.judgement is None], verdict, by=by, why=why)


def _concerned(reader: Reader, incident: Incident) -> tuple[frozenset[str], frozenset[str]]:
    """Return the ids of the agents and of the persons concerned by the incident.

    Agents: the incident's agent, and the agents in the chains of its tasks. Persons: the owners, team members and
    deputies of these agents, now or at the opening, and the persons for whom the agents acted.
    """
    agents, persons = {incident.agent}, set[str]()
    for task in watch.list_tasks_of_incident(reader, incident.incident_id):
        try:
            row = tasks.find_task(reader, task)
        except NotFound:  # a reporter may name a task that does not exist
            continue
        line = [row, *tasks.above(reader, row)]
        agents |= {one.agent for one in line}
        persons |= {one.person for one in line if one.person is not None}
    found_agents = [registry.find_agent(reader, agent) for agent in agents]
    for id in {incident.owner, *(agent.owner for agent in found_agents)}:
        persons |= {id, *registry.list_members(reader, TeamId(id)), *_deputy(registry.get_owner(reader, id))}
    return frozenset(agents), frozenset(persons).union(*map(_deputy, found_agents))


def _deputy(of: Agent | Owner | None) -> set[str]:
    return set() if of is None or of.deputy is None else {of.deputy}
