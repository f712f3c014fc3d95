"""An incident: the findings about an agent, the responses, and the person who decides.

    open --take--> taken        a person works on the incident;
    open, taken --release | narrow | decommission--> closed, by a person
    narrowed --release | decommission--> closed again, before the hours of the restriction have passed

A person who is accountable for the agent, or for whom the agent acted, may decommission the agent, and cannot release
the agent.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, NewType

import msgspec

from ostiary.decision.access.policy_kinds import RESPONSES
from ostiary.protocol.errors import Conflict, Forbidden
from ostiaryd.registry.model import Caller, PersonId

IncidentId = NewType("IncidentId", str)
SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
ISOLATES, HALTS, STOPS = (
    frozenset(RESPONSES[RESPONSES.index(mildest) :]) for mildest in ("narrow", "freeze", "quarantine")
)
"""Sets of responses, each from its mildest response on. ISOLATES: guards then deny some or all calls of the agent.
HALTS: the agent, or one of its tasks, stops until a person decides. STOPS: all access of the agent ends, so that
milder responses add nothing.
"""
ALERT_EVERY = 10 * 60 * SECOND
"""Minimum interval between two alerts about one open incident, in microseconds."""
MAX_SAYS = 400
MAX_FINDINGS = 200
"""Maximum number of findings that one incident shows."""
MAX_ACTS = 100
"""Maximum number of responses stored for one incident; only the ledger contains further responses."""
MAX_NOTES = 100
MAX_NOTE = 2000
"""Maximum number of characters of a note."""


class IncidentState(StrEnum):
    """The state of an incident. An incident that is neither `open` nor `taken` is closed."""

    OPEN = "open"
    TAKEN = "taken"
    RELEASED = "released"
    NARROWED = "narrowed"
    DECOMMISSIONED = "decommissioned"


class Verb(StrEnum):
    """A decision of a person about an incident."""

    TAKE = "take"
    RELEASE = "release"
    NARROW = "narrow"
    DECOMMISSION = "decommission"


NEXT = {
    Verb.TAKE: IncidentState.TAKEN,
    Verb.RELEASE: IncidentState.RELEASED,
    Verb.NARROW: IncidentState.NARROWED,
    Verb.DECOMMISSION: IncidentState.DECOMMISSIONED,
}
LETS_GO = frozenset({Verb.RELEASE, Verb.NARROW})
AFTER_NARROW = frozenset({Verb.RELEASE, Verb.DECOMMISSION})


class Limits(NamedTuple):
    """Limits of automatic responses, in percent of the active agents. `acted`: the agents to which playbooks may apply
    responses within an hour; `halted`: the agents that playbooks may halt within a day. Incidents that a person has
    reviewed do not count.
    """

    acted: int
    halted: int


class Outcome(StrEnum):
    """The outcome of a response that a playbook proposed or a person ordered. `failed`: an error prevented it."""

    DONE = "done"
    LIMITED = "limited"
    """the response waits for a person, because a limit on automatic responses prevented it, or evidence is lacking"""
    INFORMED = "informed"
    """the response was left out, because the statistical evidence may not restrict the agent: a person gets an alert"""
    FAILED = "failed"


class Did(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A response in an incident that was carried out, or that was not carried out for a reason.

    `says`: the details, or the reason; `task`: the frozen task; `is_ordered`: the cause is an explicit order, a signal,
    or a difference between the state and the ledger, not a playbook.
    """

    number: int
    at: int
    response: str
    outcome: Outcome
    agent: str
    task: str | None
    policies: tuple[str, ...]
    says: str
    is_ordered: bool = False


class IncidentNote(NamedTuple):
    """A note of a person about an incident. `at`: microseconds since the epoch."""

    number: int
    at: int
    person: PersonId
    says: str


class Incident(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An incident about one agent, about which a person must decide. `heard_at`: the time of the last alert; `risk`:
    the highest risk score since the opening; `person`: the person who took or closed the incident; `why`: the person's
    reason. Times are microseconds since the epoch.
    """

    incident_id: IncidentId
    agent: str
    owner: str
    state: IncidentState
    opened_at: int
    heard_at: int
    risk: int
    says: str
    person: str | None = None
    why: str | None = None
    closed_at: int | None = None

    @property
    def is_closed(self) -> bool:
        """Return whether a person has closed the incident, by releasing or decommissioning the agent, or restricting it
        to reading.
        """
        return self.closed_at is not None


def check_waits(incident: Incident, verb: Verb) -> None:
    """Check that the decision `verb` is possible in the incident's state: the incident is open, or the incident is
    narrowed and `verb` is release or decommission. An incident that a person has taken cannot be taken again. Raises
    Conflict if the decision is not possible.
    """
    if incident.is_closed and not (incident.state is IncidentState.NARROWED and verb in AFTER_NARROW):
        raise Conflict(
            f"the incident is closed: {incident.state}",
            hint=f"a closed incident cannot change; see: ostiary incident show {incident.incident_id}",
            code="incident_closed",
        )
    if verb is Verb.TAKE and incident.state is IncidentState.TAKEN:
        hint = f"find out who works on the incident: ostiary incident show {incident.incident_id}"
        raise Conflict("a person has taken the incident already", hint=hint, code="incident_taken")


def check_may_close(verb: Verb, by: Caller, *, agents: frozenset[str], persons: frozenset[str]) -> PersonId:
    """Check that the caller may decide about an incident, and return the caller's id. Raises Forbidden for an agent,
    for any other caller that is not a person, and for a concerned person who would release or narrow the agent.

    `agents`, `persons`: those concerned, such as the incident's agent and the persons who are accountable for it.
    """
    if by.id in agents:
        raise Forbidden("an agent cannot decide about an incident", hint="a person must decide", code="own_incident")
    if by.kind != "person":
        hint = "use the key of a person: ostiary person add-key NAME --generate-key FILE"
        raise Forbidden("only a person can decide about an incident", hint=hint, code="no_person")
    if verb in LETS_GO and by.id in persons:
        raise Forbidden(
            "you are accountable for this agent, or the agent acted for you: another person must release the agent",
            hint="you may take the incident, or decommission the agent",
            code="own_incident",
        )
    return PersonId(by.id)


def most_agents(fleet: int, percent: int) -> int:
    """Return `percent` percent of `fleet` active agents, rounded down, but at least 1; 0 if `percent` is 0."""
    return max(1, fleet * percent // 100) if percent else 0
