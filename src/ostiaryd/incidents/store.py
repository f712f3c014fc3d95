"""Tables of incidents, of the responses to each, and of notes."""

from __future__ import annotations

import msgspec

from ostiary.protocol import canonical
from ostiaryd.ground.database import Reader, Row, Tx, sql
from ostiaryd.ground.http.pages import Page
from ostiaryd.incidents.model.incidents import HALTS, Did, Incident, IncidentId, IncidentNote, IncidentState, Outcome

_COLUMNS = "incident_id, agent, owner, state, opened_at, heard_at, risk, says, person, why, closed_at"
_GET = sql(f"select {_COLUMNS} from incident where incident_id = :id")
_WAITING = sql(f"select {_COLUMNS} from incident where agent = :agent and closed_at is null")
_PAGE = sql(
    f"""select {_COLUMNS} from incident where (:before = '' or incident_id < :before)
        order by incident_id desc limit :limit"""
)
_PAGE_WAITING = sql(
    f"""select {_COLUMNS} from incident where closed_at is null and (:before = '' or incident_id < :before)
        order by incident_id desc limit :limit"""
)
_COUNT_WAITING = sql("select count(*) from incident where closed_at is null")
_HELD_BACK = sql(
    """select count(distinct incident_id) from incident join incident_act on incident = incident_id
       where closed_at is null and person is null and outcome = 'limited'
         and not exists (select 1 from incident_act as done where done.incident = incident_id
           and done.response = incident_act.response and done.outcome = 'done')"""
)
_INSERT = sql(
    """insert into incident (incident_id, agent, owner, state, opened_at, heard_at, risk, says)
       values (:id, :agent, :owner, :state, :opened_at, :heard_at, :risk, :says)"""
)
_UPDATE = sql(
    """update incident set state = :state, heard_at = :heard_at, risk = :risk, says = :says, person = :person,
         why = :why, closed_at = :closed_at where incident_id = :id"""
)
_DID = "number, at, response, outcome, agent, task, policies, says, is_ordered"
_ACTS = sql(f"select {_DID} from incident_act where incident = :incident order by number")
_ADD = sql(
    f"""insert into incident_act (incident, {_DID})
        values (:incident, :number, :at, :response, :outcome, :agent, :task, :policies, :says, :is_ordered)"""
)
_NOTES = sql("select number, at, person, says from incident_note where incident = :incident order by number")
_ADD_NOTE = sql(
    """insert into incident_note (incident, number, at, person, says)
       values (:incident, :number, :at, :person, :says)"""
)
_BY_PLAYBOOKS = """incident_act join incident on incident = incident_id
       where at > :since and outcome = 'done' and response <> 'alert' and is_ordered = 0 and person is null"""
_ACTED = sql(f"select count(distinct incident_act.agent) from {_BY_PLAYBOOKS} and incident_act.agent <> :but")
_HALTED = sql(
    f"""select count(distinct incident_act.agent) from {_BY_PLAYBOOKS} and incident_act.agent <> :but
         and response in ({", ".join(f"'{one}'" for one in sorted(HALTS))})"""
)
_HAS_ACTED = sql(f"select count(*) from {_BY_PLAYBOOKS} and incident_act.agent = :agent")
_FLEET = sql("select agents, counted_at from fleet where id = 1")
_COUNT = sql("select count(*) from agent where state = 'active'")
_COUNTED = sql(
    """insert into fleet (id, agents, counted_at) values (1, :agents, :now)
       on conflict (id) do update set agents = excluded.agents, counted_at = excluded.counted_at"""
)


def get(reader: Reader, id: str) -> Incident | None:
    """Return the incident with this id; None if there is none."""
    row = reader.one(_GET, id=id)
    return None if row is None else _incident(row)


def find_open(reader: Reader, agent: str) -> Incident | None:
    """Return the incident of this agent that no person has closed, in the state `open` or `taken`; None if there is
    none.
    """
    row = reader.one(_WAITING, agent=agent)
    return None if row is None else _incident(row)


def page(reader: Reader, *, is_waiting: bool, page: Page) -> list[Incident]:
    """Return a page of incidents, the newest first; with `is_waiting`, only incidents that no person has closed."""
    statement = _PAGE_WAITING if is_waiting else _PAGE
    return [_incident(row) for row in reader.all(statement, before=page.after, limit=page.limit)]


def count_waiting(reader: Reader) -> int:
    """Return the number of incidents that no person has closed, in the state `open` or `taken`."""
    row = reader.one(_COUNT_WAITING)
    return 0 if row is None else int(row[0])


def count_held_back(reader: Reader) -> int:
    """Return the number of open incidents that no person has taken, and in which a response was held back and not made
    later (`Outcome.LIMITED`).
    """
    row = reader.one(_HELD_BACK)
    return 0 if row is None else int(row[0])


def insert(tx: Tx, incident: Incident) -> None:
    """Insert a new incident."""
    tx.send(
        _INSERT,
        id=incident.incident_id,
        agent=incident.agent,
        owner=incident.owner,
        state=incident.state.value,
        opened_at=incident.opened_at,
        heard_at=incident.heard_at,
        risk=incident.risk,
        says=incident.says,
    )


def update(tx: Tx, incident: Incident) -> None:
    """Update an incident."""
    tx.send(
        _UPDATE,
        id=incident.incident_id,
        state=incident.state.value,
        heard_at=incident.heard_at,
        risk=incident.risk,
        says=incident.says,
        person=incident.person,
        why=incident.why,
        closed_at=incident.closed_at,
    )


def list_responses(reader: Reader, incident: IncidentId) -> list[Did]:
    """Return the responses of an incident, the oldest first."""
    return [_did(row) for row in reader.all(_ACTS, incident=incident)]


def add(tx: Tx, incident: IncidentId, did: Did) -> None:
    """Add a response to an incident."""
    tx.send(
        _ADD,
        incident=incident,
        number=did.number,
        at=did.at,
        response=did.response,
        outcome=did.outcome.value,
        agent=did.agent,
        task=did.task,
        policies=canonical.encode(list(did.policies)).decode(),
        says=did.says,
        is_ordered=int(did.is_ordered),
    )


def list_notes(reader: Reader, incident: IncidentId) -> list[IncidentNote]:
    """Return the notes of an incident, the oldest first."""
    return [IncidentNote(*row) for row in reader.all(_NOTES, incident=incident)]


def add_note(tx: Tx, incident: IncidentId, note: IncidentNote) -> None:
    """Add a note to an incident."""
    tx.send(_ADD_NOTE, incident=incident, **note._asdict())


def others_acted_against(reader: Reader, agent: str, *, since: int) -> int:
    """Return the number of other agents against which playbooks have acted since `since` (microseconds), in incidents
    that no person has taken or closed.
    """
    row = reader.one(_ACTED, since=since, but=agent)
    return 0 if row is None else int(row[0])


def others_halted(reader: Reader, agent: str, *, since: int) -> int:
    """Return the number of other agents that playbooks have halted since `since` (microseconds), wholly or in one task,
    in incidents that no person has taken or closed.
    """
    row = reader.one(_HALTED, since=since, but=agent)
    return 0 if row is None else int(row[0])


def was_acted_against(reader: Reader, agent: str, *, since: int) -> bool:
    """Return whether playbooks have acted against this agent since `since` (microseconds), in an incident that no
    person has taken or closed.
    """
    row = reader.one(_HAS_ACTED, since=since, agent=agent)
    return row is not None and int(row[0]) > 0


def count_active_agents(tx: Tx, *, older_than: int) -> int:
    """Return the number of active agents. The stored number is returned unless it was counted before `older_than`
    (microseconds).
    """
    row = tx.one(_FLEET)
    if row is not None and int(row[1]) >= older_than:
        return int(row[0])
    counted = tx.one(_COUNT)
    assert counted is not None
    tx.send(_COUNTED, agents=counted[0], now=tx.now)
    return int(counted[0])


def _incident(row: Row) -> Incident:
    id, agent, owner, state, opened_at, heard_at, risk, says, person, why, closed_at = row
    return Incident(
        incident_id=IncidentId(id),
        agent=agent,
        owner=owner,
        state=IncidentState(state),
        opened_at=opened_at,
        heard_at=heard_at,
        risk=risk,
        says=says,
        person=person,
        why=why,
        closed_at=closed_at,
    )


def _did(row: Row) -> Did:
    number, at, response, outcome, agent, task, policies, says, is_ordered = row
    return Did(
        number=number,
        at=at,
        response=response,
        outcome=Outcome(outcome),
        agent=agent,
        task=task,
        policies=tuple(msgspec.json.decode(policies)),
        says=says,
        is_ordered=bool(is_ordered),
    )
