"""An incident: the findings about an agent, the responses, and the person who decides.

    open --take--> taken        a person works on the incident
    open, taken --release | narrow | decommission--> closed, by a person
    narrowed --release | decommission--> closed again, before the hours of the restriction have passed

A person who is accountable for the agent, or for whom it acted, may stop it further, and cannot release it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, NewType

import msgspec

from ostiary.protocol.errors import Conflict, Forbidden
from ostiaryd.registry.model import Caller, PersonId

IncidentId = NewType("IncidentId", str)
SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
HALTS = frozenset({"freeze", "quarantine", "revoke"})
"""Responses that halt work until a person decides."""
ALERT_EVERY = 10 * 60 * SECOND
"""Interval between alerts about an open incident, in microseconds."""
MAX_SAYS = 400
MAX_FINDINGS = 200
"""Findings shown per incident."""
MAX_ACTS = 100
"""Responses stored per incident; later ones are in the ledger only."""
MAX_NOTES = 100
MAX_NOTE = 2000
"""Characters of a note."""


class State(StrEnum):
    OPEN = "open"
    TAKEN = "taken"
    RELEASED = "released"
    NARROWED = "narrowed"
    DECOMMISSIONED = "decommissioned"


class Verb(StrEnum):
    """The decision of a person."""

    TAKE = "take"
    RELEASE = "release"
    NARROW = "narrow"
    DECOMMISSION = "decommission"


NEXT = {
    Verb.TAKE: State.TAKEN,
    Verb.RELEASE: State.RELEASED,
    Verb.NARROW: State.NARROWED,
    Verb.DECOMMISSION: State.DECOMMISSIONED,
}
LETS_GO = frozenset({Verb.RELEASE, Verb.NARROW})
AFTER_NARROW = frozenset({Verb.RELEASE, Verb.DECOMMISSION})


class Limits(NamedTuple):
    """Limits of automatic responses, in percent of the active agents: against how many agents playbooks act
    within an hour, and how many agents they halt within a day, without a person's decision.
    """

    acted: int
    halted: int


class Outcome(StrEnum):
    DONE = "done"
    LIMITED = "limited"
    """too many agents were stopped within the hour: a person must decide"""
    INFORMED = "informed"
    """statistical evidence beyond the budget of narrowing: a person gets an alert, and the agent goes on"""
    FAILED = "failed"


class Did(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A response that was carried out or held back.

    `says`: the details, or why it was held back; `task`: the frozen task; `is_ordered`: the response was an explicit
    order, not a playbook's.
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
    """The incident of an agent. `heard_at`: the time of the last alert; `risk`: the highest score; `person`:
    the person who took or closed it.
    """

    incident_id: IncidentId
    agent: str
    owner: str
    state: State
    opened_at: int
    heard_at: int
    risk: int
    says: str
    person: str | None = None
    why: str | None = None
    closed_at: int | None = None

    @property
    def is_closed(self) -> bool:
        """Return whether a person has closed the incident."""
        return self.closed_at is not None


def check_waits(incident: Incident, verb: Verb) -> None:
    """Check that the verb applies to the incident: it is open, and no other person has taken it. Raises Conflict."""
    if incident.is_closed and not (incident.state is State.NARROWED and verb in AFTER_NARROW):
        raise Conflict(
            f"the incident is closed: {incident.state}",
            hint="closed incidents are final; see ostiary incident show",
            code="incident_closed",
        )
    if verb is Verb.TAKE and incident.state is State.TAKEN:
        raise Conflict("the incident is taken already", hint="ostiary incident show", code="incident_taken")


def check_may_close(verb: Verb, by: Caller, *, agents: frozenset[str], persons: frozenset[str]) -> PersonId:
    """Return the person who decides. Raises Forbidden for agents, and for a release by a person who is concerned.

    `agents`, `persons`: the concerned parties: the agents in the chain, their owners, and the persons for whom they
    acted.
    """
    if by.id in agents:
        raise Forbidden("an agent cannot decide about an incident", hint="a person must", code="own_incident")
    if by.kind != "person":
        hint = "ostiary person create NAME --generate-key FILE"
        raise Forbidden("only a person can decide about an incident", hint=hint, code="no_person")
    if verb in LETS_GO and by.id in persons:
        raise Forbidden(
            "you are accountable for this agent, or it acted for you: another person must release it",
            hint="you may take the incident, or decommission the agent",
            code="own_incident",
        )
    return PersonId(by.id)


def most_agents(fleet: int, percent: int) -> int:
    """Return the limit for `percent` of `fleet` active agents: at least one, or none if `percent` is 0."""
    return max(1, fleet * percent // 100) if percent else 0
