"""An agent and its life cycle.

    pending --first key--> active <--> suspended
                             |            |
                             +-> quarantined -> active          every state -> decommissioned, which is the end

An agent that leaves `active` loses all its holdings, and its epoch rises: tokens of an older epoch stay invalid.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType

from ostiary.authorization.claims import MAX_LINKS, SCOPE_ALIASES
from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.registry.model.owner import OwnerId, PersonId

AgentId = NewType("AgentId", str)
MAX_SCOPES = 100
DEFAULT_DEPTH = 3
MAX_DEPTH = MAX_LINKS
_SCOPE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}:[a-z0-9][a-z0-9._-]{0,62}")


class Kind(StrEnum):
    ASSISTANT = "assistant"
    AUTONOMOUS = "autonomous"
    WORKFLOW = "workflow"
    SERVICE = "service"


class RiskTier(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class State(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    QUARANTINED = "quarantined"
    DECOMMISSIONED = "decommissioned"


class Verb(StrEnum):
    """A verb that changes a state. `revoke` is the emergency verb: it applies in every state."""

    ACTIVATE = "activate"
    SUSPEND = "suspend"
    RESUME = "resume"
    QUARANTINE = "quarantine"
    RELEASE = "release"
    REVOKE = "revoke"
    DECOMMISSION = "decommission"


_NEXT: dict[Verb, dict[State, State]] = {
    Verb.ACTIVATE: {State.PENDING: State.ACTIVE},
    Verb.SUSPEND: {State.PENDING: State.SUSPENDED, State.ACTIVE: State.SUSPENDED},
    Verb.RESUME: {State.SUSPENDED: State.ACTIVE},
    Verb.QUARANTINE: {State.ACTIVE: State.QUARANTINED, State.SUSPENDED: State.QUARANTINED},
    Verb.RELEASE: {State.QUARANTINED: State.ACTIVE},
    Verb.REVOKE: {state: state for state in State} | {State.PENDING: State.SUSPENDED, State.ACTIVE: State.SUSPENDED},
    Verb.DECOMMISSION: {state: State.DECOMMISSIONED for state in State if state is not State.DECOMMISSIONED},
}


def next_state(state: State, verb: Verb) -> State:
    """Return the state that `verb` leads to from `state`. Raises Conflict if the verb does not apply."""
    try:
        return _NEXT[verb][state]
    except KeyError:
        hint = "decommissioning is final" if state is State.DECOMMISSIONED else ""
        raise Conflict(f"an agent that is {state} cannot {verb}", hint=hint, code="wrong_state") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """The registration of an agent."""

    name: str
    owner: str
    """name or id of a person or a team"""
    purpose: str
    agent_id: str | None = None
    """an id made in advance; None: a new one"""
    kind: Kind = Kind.ASSISTANT
    deputy: str | None = None
    """name or id of a person"""
    provider: str = ""
    model: str = ""
    risk_tier: RiskTier = RiskTier.MEDIUM
    segment: str = "default"
    scopes: Sequence[str] = ()
    expires_at: int | None = None
    """microseconds since the epoch; None: no end"""
    max_depth: int = DEFAULT_DEPTH
    is_keyless: bool = False
    """the agent is active at once, and never gets a key"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The record of an agent, projected as OAuth client, SPIFFE ID, DID and SCIM resource. Times in microseconds."""

    agent_id: AgentId
    name: str
    owner: OwnerId
    deputy: PersonId | None
    purpose: str
    kind: Kind
    provider: str
    model: str
    risk_tier: RiskTier
    segment: str
    scopes: frozenset[str]
    state: State
    epoch: int
    created_at: int
    expires_at: int | None
    max_depth: int = DEFAULT_DEPTH
    """largest number of agents in a delegation chain behind this agent"""
    is_keyless: bool = False
    """True for an unregistered client that acts for a person: it proves itself by codes and refresh tokens"""
    speaks: bool = False
    """permission to state the words of its person in a task"""
    restricted_until: int = 0
    """end of its last restriction (microseconds); 0: none (`registry.store.restrictions`)"""

    def is_active(self, now: int) -> bool:
        """Return whether the agent may act at this instant; the end of its registration counts."""
        return self.state is State.ACTIVE and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentKey:
    """A public key that an agent proves itself with; its id is its RFC 7638 thumbprint."""

    jkt: str
    agent: AgentId
    alg: str
    jwk: dict[str, Any]
    added_at: int
    not_after: int | None
    revoked_at: int | None

    def is_active(self, now: int) -> bool:
        """Return whether the key is neither revoked nor expired at `now` (microseconds)."""
        return self.revoked_at is None and (self.not_after is None or now < self.not_after)


def parse_scopes(unverified_scopes: Sequence[str]) -> frozenset[str]:
    """Parse `<resource name>:<class>` or an alias each, at most 100; raises Invalid."""
    if len(unverified_scopes) > MAX_SCOPES:
        raise Invalid(f"there are {len(unverified_scopes)} scopes, at most {MAX_SCOPES} are allowed")
    scopes = frozenset(SCOPE_ALIASES.get(scope, scope) for scope in unverified_scopes)
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            raise Invalid(
                f"the scope {scope[:130]!a} is not of the form <resource>:<class>", hint="such as `files:read`"
            )
    return scopes


def check_depth(depth: int) -> int:
    """Check the depth to which an agent may let others delegate, and return it. Raises Invalid."""
    if not 0 <= depth <= MAX_DEPTH:
        raise Invalid(f"the depth must be 0 to {MAX_DEPTH}")
    return depth


def spiffe_id(trust_domain: str, name: str) -> str:
    """Return the SPIFFE ID of the agent with that name, which never changes."""
    return f"spiffe://{trust_domain}/agent/{name}"


def agent_uri(issuer: str, name: str) -> str:
    """Return the resource identifier (RFC 8707) by which a token names the agent as its target."""
    return f"{issuer}/agents/{name}"
