"""The timeline of an incident: findings, responses, notes and ledger entries of the connected agents, newest first.

The connected agents are the agent of the incident, the agents to and from which it delegated, and agents of the same
owner or model. A page has a limited number of entries, the responses and notes of the same span of time, and the newest
findings of each agent in that span.
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
"""Maximum number of ledger entries on a page."""
MAX_FINDINGS = 20
"""Maximum number of findings of each agent on a page."""
MAX_SAYS = 300
"""Maximum number of characters of a row's text; the finding, the note or the entry contains the whole text."""
RowKind = Literal["entry", "finding", "response", "note"]
Relation = Literal["incident", "delegated_to", "acted_for", "same_owner", "same_model"]
OWN: Relation = "incident"
"""Relation of the agent of the incident itself to the incident."""


class ConnectedAgent(NamedTuple):
    """An agent of the timeline, and its connection with the incident (such as the same owner)."""

    agent: Agent
    relation: Relation


class Event(NamedTuple):
    """A row of the timeline. `at`: microseconds since the epoch; `entry`: the index of the ledger entry, None for a
    finding, a response or a note.
    """

    at: int
    kind: RowKind
    agent: str
    says: str
    outcome: str | None = None
    person: str | None = None
    action: str | None = None
    entry: int | None = None


class Sight(NamedTuple):
    """The rights of a reader of a timeline: to see ledger entries, and findings of other incidents. `own_api`: the URI
    of the server's API; entries about tokens for that resource are left out.
    """

    entries: bool
    findings: bool
    own_api: str


class TimelinePage(NamedTuple):
    """A page of rows, newest first. `next` is the index of the last entry on the page, from which the next page
    continues; None on the last page.
    """

    events: list[Event]
    next: int | None


def list_connected_agents(reader: Reader, incident: Incident) -> list[ConnectedAgent]:
    """Return the agents of an incident's timeline, each once, the agent of the incident first, at most `MAX_AGENTS`."""
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
    """Return a list with only the connected agent that has this name or id. Raises NotFound if no such agent is
    connected with the incident.
    """
    chosen = [one for one in connected if name in (one.agent.name, one.agent.agent_id)]
    if not chosen:
        hint = "the member `connected` of the timeline lists the agents"
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
    """Return a page of the timeline of `agents` for the span of the incident (`blast.span`).

    `before`: the index of the last entry of the previous page. Raises Invalid if the ledger has no entry with this
    index, or the reader may not see entries.
    """
    since, until = blast.span(incident)
    upper = until
    if before is not None:
        body = ledger.get_entry_body(reader, before) if sight.entries else None
        if body is None:
            raise Invalid("`after` is not a cursor", hint="send the `next` of the previous page")
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
    """Yield the findings of `agents` from `lower` to before `upper`, and the responses and notes of the incident if its
    agent is in `agents`. A reader without the right `findings` gets only the findings of this incident.
    """
    for one in agents:
        id = one.agent.agent_id
        for finding in watch.list_findings_of_agent(reader, id, since=lower - 1, until=upper, limit=MAX_FINDINGS):
            if sight.findings or finding.incident == incident.incident_id:
                yield Event(finding.at, "finding", id, finding.says, action=finding.detector)
    if any(one.relation == OWN for one in agents):
        for did in store.list_responses(reader, incident.incident_id):
            yield Event(did.at, "response", incident.agent, did.says, did.outcome, action=did.response)
        for note in store.list_notes(reader, incident.incident_id):
            yield Event(note.at, "note", incident.agent, note.says, person=note.person)


def _event(index: int, agent: str, entry: Entry) -> Event:
    reasons = "; ".join(one.message or one.code for one in entry.reasons)
    why = (entry.detail or {}).get("why")
    says = ": ".join(filter(None, (entry.tool or "", reasons or (why if isinstance(why, str) else ""))))
    return Event(entry.at, "entry", agent, says, entry.outcome, entry.person, entry.action, index)
