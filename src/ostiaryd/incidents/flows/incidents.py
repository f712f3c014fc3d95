"""Incidents: opened about an agent by hand, decided upon by a person, and shown with all that they may touch."""

from __future__ import annotations

from msgspec.structs import replace

from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.incidents import store
from ostiaryd.incidents.flows import acting
from ostiaryd.incidents.flows.acting import Step
from ostiaryd.incidents.flows.respond import carry_out, note, open_incident
from ostiaryd.incidents.model.incidents import HOUR, NEXT, SECOND, Incident, Verb, check_may_close, check_waits
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.model import Proposal
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Caller, Owner, TeamId, check_text
from ostiaryd.tasks import flows as tasks
from ostiaryd.watch import flows as watch
from ostiaryd.watch.flows import judge
from ostiaryd.watch.model import Verdict

MAX_WHY = 500
MAX_NARROW_HOURS = 7 * 24


def find_incident(reader: Reader, id: str) -> Incident:
    """Raises NotFound."""
    if (found := store.get(reader, id)) is None:
        raise NotFound(f"there is no incident {id[:70]!a}", hint="`ostiary incident list` shows all")
    return found


def isolate(act: Act, id_or_name: str, *, says: str, source: str) -> Incident:
    """Stop an agent at once because somebody says so, whatever playbooks say and with no limit; it waits for a person.

    `source`: who says so, as a person reads it. Raises NotFound.
    """
    agent = registry.find_agent(act.tx, id_or_name)
    risk = registry.get_risk(act.tx, agent.agent_id).points(act.now)
    incident = store.waiting(act.tx, agent.agent_id) or open_incident(act, agent, says=says, risk=risk)
    watch.assign_findings(act.tx, agent.agent_id, incident.incident_id, since=act.now - HOUR)
    proposal = Proposal(response="quarantine", policies=(source,))
    carry_out(act, Step(incident, agent, acting.task_of(agent, None), proposal), None)
    registry.require_person(act.tx, agent.agent_id, incident.incident_id)  # whatever stopped it before
    return incident


def examine(reader: Reader) -> str:
    """How incidents do, in words. Raises Conflict where something was held back and no person has looked at it."""
    waiting, held = store.count_waiting(reader), store.count_held_back(reader)
    if held:
        said = f"in {held} incidents nothing was done: too many agents were acted against within an hour"
        raise Conflict(said, hint="ostiary incident list")
    return f"{waiting} incidents wait for a person" if waiting else "nothing waits for a person"


def close(
    act: Act, id: str, verb: Verb, *, why: str, by: Caller, hours: int = 24, is_real: bool | None = None
) -> Incident:
    """What a person says about an incident: take it, or let the agent go, go on reading for `hours`, or end for good.

    1. It waits still, and who says so may. 2. What was done is taken back, or made final. 3. Who goes on is not doubted
    any more. 4. The detectors hear whether there was something: `is_real`; None: unless the agent is released.

    Raises NotFound, Forbidden (`own_incident`, `no_person`), Conflict (`incident_closed`, `incident_taken`,
    `incident_open`, or an agent that is not fit to act), Invalid.
    """
    incident = find_incident(act.tx, id)
    note(act, incident, why=why[:MAX_WHY], was=incident.state.value)
    concerned = _concerned(act.tx, incident)
    person = check_may_close(verb, by, agents=concerned[0], persons=concerned[1])
    check_waits(incident, verb)
    if incident.is_closed and (other := store.waiting(act.tx, incident.agent)) is not None:
        raise Conflict(
            f"{other.incident_id} is about the agent too, and waits", hint="decide that", code="incident_open"
        )
    check_text(why, of="reason", limit=MAX_WHY)
    if not 1 <= hours <= MAX_NARROW_HOURS:
        raise Invalid(f"it may be narrowed for 1 to {MAX_NARROW_HOURS} hours")
    said = replace(incident, state=NEXT[verb], person=person, why=why)
    if verb is not Verb.TAKE:
        said = replace(said, closed_at=act.now)
        registry.release_to_agent(act.tx, incident.agent)
        _end(act, incident, verb, hours=hours)
        _judge(act, incident, verb is not Verb.RELEASE if is_real is None else is_real, by=person, why=why)
    store.update(act.tx, said)
    return said


def _end(act: Act, incident: Incident, verb: Verb, *, hours: int) -> None:
    if verb is Verb.DECOMMISSION:
        acting.decommission(act, incident)
        acting.melt(act, incident)
        return
    done = {did.response for did in store.acts(act.tx, incident.incident_id)}
    acting.undo(
        act, incident, {"narrow"} if incident.is_closed else done
    )  # the rest was taken back when it was narrowed
    acting.calm(act, {incident.agent, *watch.list_tasks_of_incident(act.tx, incident.incident_id)})
    if verb is Verb.NARROW:
        until = act.now + hours * 3600 * SECOND
        acting.beside(
            act, "agent.narrow", lambda more: registry.put_hold(more, incident.agent, "narrow", until=until),
            incident=incident.incident_id,
        )  # fmt: skip


def _judge(act: Act, incident: Incident, is_real: bool, *, by: str, why: str) -> None:
    """Tell the detectors whether there was something, of what nobody has judged yet."""
    verdict = Verdict.REAL if is_real else Verdict.FALSE_ALARM
    found = watch.list_findings_of_incident(act.tx, incident.incident_id)
    judge(act, [one.finding_id for one in found if one.judgement is None], verdict, by=by, why=why)


def _concerned(reader: Reader, incident: Incident) -> tuple[frozenset[str], frozenset[str]]:
    """Whom it came through: the agent and those of the chains of its tasks; and the persons who answer for one of these
    agents (owners, their teams, deputies), or did when it was opened, or for whom they acted.
    """
    agents, persons = {incident.agent}, set[str]()
    for task in watch.list_tasks_of_incident(reader, incident.incident_id):
        try:
            found = tasks.find_task(reader, task)
        except NotFound:  # of what was found, the task is only what somebody said
            continue
        line = [found, *tasks.above(reader, found)]
        agents |= {one.agent for one in line}
        persons |= {one.person for one in line if one.person is not None}
    found_agents = [registry.find_agent(reader, agent) for agent in agents]
    for id in {incident.owner, *(agent.owner for agent in found_agents)}:
        persons |= {id, *registry.list_members(reader, TeamId(id)), *_deputy(registry.get_owner(reader, id))}
    return frozenset(agents), frozenset(persons).union(*map(_deputy, found_agents))


def _deputy(of: Agent | Owner | None) -> set[str]:
    return set() if of is None or of.deputy is None else {of.deputy}
