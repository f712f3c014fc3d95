"""An incident: what was noticed of an agent, what was done about it, and the person who decides how it goes on.

    open --take--> taken        somebody works on it
    open, taken --release | narrow | decommission--> closed, by a person
    narrowed --release | decommission--> closed anew, before its hours are over

Who answers for the agent, or had it act, may stop it further, and never lets it go.
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
"""After these there is work that stands still until a person says something."""
ALERT_EVERY = 10 * 60 * SECOND
"""how often a person is told again of an incident that waits"""
MAX_SAYS = 400
MAX_FINDINGS = 200
"""that are shown"""
MAX_ACTS = 100
"""of one incident; what is done after that is in the ledger alone"""


class State(StrEnum):
    OPEN = "open"
    TAKEN = "taken"
    RELEASED = "released"
    NARROWED = "narrowed"
    DECOMMISSIONED = "decommissioned"


class Verb(StrEnum):
    """What a person says."""

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
    """Against how many of the active agents playbooks may act within an hour, and how many of them they may halt within
    a day, before a person has looked: in percent.
    """

    acted: int
    halted: int


class Outcome(StrEnum):
    DONE = "done"
    LIMITED = "limited"
    """too many agents were stopped within the hour: a person must"""
    INFORMED = "informed"
    """statistical evidence alone, outside the budget of narrowing: a person is told, and nothing is done"""
    FAILED = "failed"


class Did(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that was done about an incident, or was not. `says`: how, or why not; `task`: what was frozen;
    `is_ordered`: somebody said so, and no playbook.
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


class Incident(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`heard_at`: when a person was last told of it; `risk`: the highest points; `person`: who took or closed it."""

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
        return self.closed_at is not None


def check_waits(incident: Incident, verb: Verb) -> None:
    """Raises Conflict for what is closed, or taken already."""
    if incident.is_closed and not (incident.state is State.NARROWED and verb in AFTER_NARROW):
        raise Conflict(f"the incident is closed: {incident.state}", hint="nobody waits for it", code="incident_closed")
    if verb is Verb.TAKE and incident.state is State.TAKEN:
        raise Conflict("somebody has taken it", hint="ostiary incident show", code="incident_taken")


def check_may_close(verb: Verb, by: Caller, *, agents: frozenset[str], persons: frozenset[str]) -> PersonId:
    """Who says something about an incident is a person; nobody through whom it came, and no person who answers for one
    of these agents or had it act, lets an agent go. Raises Forbidden.
    """
    if by.id in agents:
        raise Forbidden("no agent has a say in what is done about it", hint="a person must", code="own_incident")
    if by.kind != "person":
        hint = "ostiary person create NAME --generate-key FILE"
        raise Forbidden("only a person has a say in an incident", hint=hint, code="no_person")
    if verb in LETS_GO and by.id in persons:
        raise Forbidden(
            "you answer for this agent, or it acted for you: somebody else lets it go",
            hint="you may take the incident, or decommission the agent",
            code="own_incident",
        )
    return PersonId(by.id)


def most_agents(fleet: int, percent: int) -> int:
    """How many agents may be acted against without a person, of so many: at least one, unless none."""
    return max(1, fleet * percent // 100) if percent else 0
