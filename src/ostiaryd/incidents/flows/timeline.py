"""The timeline of an incident across agents: findings, responses, notes and entries of the ledger, newest first.

The agents are the agent of the incident, the agents of the delegations in which it took part, and agents of the same
owner or model. A page is cut by entries. The responses and notes of the same span of time are on the page too, and the
newest findings of each agent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ostiary.protocol.errors import Invalid, NotFound
from ostiaryd.ground.database import Reader
from ostiaryd.incidents import store
from ostiaryd.incidents.flows import blast
from ostiaryd.incidents.model.incidents import Incident
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent
from ostiaryd.watch import flows as watch

MAX_AGENTS = 40
MAX_ENTRIES = 200
"""Entries of a page."""
MAX_FINDINGS = 20
"""Findings of each agent on a page."""
MAX_SAYS = 300
"""Characters of the text of a row; the finding, the note or the entry has all of it."""
Relation = Literal["incident", "delegated_to", "acted_for", "same_owner", "same_model"]
OWN: Relation = "incident"
"""Relation of the agent of the incident itself."""


class ConnectedAgent(NamedTuple):
    """An agent of the timeline, and the relation by which it belongs there."""

    agent: Agent
    relation: Relation


class Event(NamedTuple):
    """A row of the timeline. `at`: microseconds since the epoch; `entry`: index of the entry in the ledger."""

    at: int
    kind: Literal["entry", "finding", "response", "note"]
    agent: str
    says: str
    outcome: str | None = None
    person: str | None = None
    action: str | None = None
    entry: int | None = None


class Sight(NamedTuple):
    """The rights of a reader beside the incident itself. Tokens for the resource `own_api` are left out."""

    entries: bool
    findings: bool
    own_api: str


class TimelinePage(NamedTuple):
    """Rows, newest first, and the index of the entry behind which the next page begins; None if nothing follows."""

    events: list[Event]
    next: int | None


def list_connected_agents(reader: Reader, incident: Incident) -> list[ConnectedAgent]:
    """Return the agents of the timeline, each once, the agent of the incident first."""
    agent = registry.find_agent(reader, incident.agent)
    delegates, through = blast.find_delegations(reader, incident, blast.find_entries(reader, incident))
    related: list[tuple[Relation, Sequence[Agent | None]]] = [
        (OWN, [agent]),
        ("delegated_to", [registry.get_agent(reader, id) for id in sorted(delegates)[: blast.MAX_LIKE]]),
        ("acted_for", [registry.get_agent(reader, id) for id in sorted(through)[: blast.MAX_LIKE]]),
        ("same_owner", registry.list_agents_of_owner(reader, agent.owner, limit=blast.MAX_LIKE)),
        ("same_model", registry.list_agents_of_model(reader, agent.model, limit=blast.MAX_LIKE)),
    ]
    connected: dict[str, ConnectedAgent] = {}
    for relation, agents in related:
        for one in agents:
            if one is not None:
                connected.setdefault(one.agent_id, ConnectedAgent(one, relation))
    return list(connected.values())[:MAX_AGENTS]


def choose_agent(connected: Sequence[ConnectedAgent], name: str) -> list[ConnectedAgent]:
    """Return the one connected agent with this name or id. Raises NotFound."""
    chosen = [one for one in connected if name in (one.agent.name, one.agent.agent_id)]
    if not chosen:
        hint = "`connected` of the timeline names the agents"
        raise NotFound(f"no agent {name[:70]!a} is connected with the incident", hint=hint)
    return chosen


def read_timeline(
    reader: Reader,
    incident: Incident,
    agents: Sequence[ConnectedAgent],
    *,
    sight: Sight,
    limit: int,
    before: int | None,
) -> TimelinePage:
    """Return a page of the timeline of `agents`, from the day before the incident to an hour after its end.

    `before`: the index of the last entry of the page before. Raises Invalid if there is no such entry.
    """
    since, until = blast.span(incident)
    upper = until
    if before is not None:
        body = ledger.get_entry_body(reader, before) if sight.entries else None
        if body is None:
            raise Invalid("`after` is not a cursor", hint="give the `next` of the page before")
        upper = decode_entry(body).at
    bodies: dict[int, tuple[str, bytes]] = {}
    span: dict[str, str | int] = {"since": since, "until": until, "without_reads_of": sight.own_api}
    if before is not None:
        span["before"] = before
    for one in agents if sight.entries else ():
        for relation in ("agent", "about"):
            filters = span | {relation: one.agent.agent_id}
            for index, body in ledger.search_entries(reader, filters, limit=limit + 1):
                bodies.setdefault(index, (one.agent.agent_id, body))
    indexes = sorted(bodies, reverse=True)
    next = indexes[limit - 1] if len(indexes) > limit else None
    events = [_event(index, bodies[index][0], decode_entry(bodies[index][1])) for index in indexes[:limit]]
    lower = since if next is None else events[-1].at
    others = _list_others(reader, incident, agents, sight, lower, upper)
    events += [one for one in others if lower <= one.at < upper]
    cut = [one._replace(says=one.says[:MAX_SAYS]) for one in events]
    return TimelinePage(sorted(cut, key=lambda one: -one.at), next)


def _list_others(
    reader: Reader, incident: Incident, agents: Sequence[ConnectedAgent], sight: Sight, lower: int, upper: int
) -> Iterator[Event]:
    """Yield responses and notes, and the findings from `lower` to before `upper`. The findings of the incident are for
    everyone who may see the incident.
    """
    for one in agents:
        id = one.agent.agent_id
        for finding in watch.list_findings_of_agent(reader, id, since=lower - 1, until=upper, limit=MAX_FINDINGS):
            if sight.findings or finding.incident == incident.incident_id:
                yield Event(finding.at, "finding", id, finding.says, action=finding.detector)
    if any(one.relation == OWN for one in agents):
        for did in store.acts(reader, incident.incident_id):
            yield Event(did.at, "response", incident.agent, did.says, did.outcome, action=did.response)
        for note in store.notes(reader, incident.incident_id):
            yield Event(note.at, "note", incident.agent, note.says, person=note.person)


def _event(index: int, agent: str, entry: Entry) -> Event:
    reasons = "; ".join(one.message or one.code for one in entry.reasons)
    why = (entry.detail or {}).get("why")
    says = ": ".join(filter(None, (entry.tool or "", reasons or (why if isinstance(why, str) else ""))))
    return Event(entry.at, "entry", agent, says, entry.outcome, entry.person, entry.action, index)
