"""An agent and its life cycle.

    pending --first key--> active <--> suspended
                             |            |
                             +-> quarantined -> active          every state -> decommissioned, which is final

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


def is_agent_id(id: str) -> bool:
    """Return whether an id begins with `ag_`, as the ids of agents and of no other clients do."""
    return id.startswith("ag_")


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


class AgentState(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    QUARANTINED = "quarantined"
    DECOMMISSIONED = "decommissioned"


class Verb(StrEnum):
    """A verb that changes the state of an agent. `revoke` is the emergency verb: it applies in every state."""

    ACTIVATE = "activate"
    SUSPEND = "suspend"
    RESUME = "resume"
    QUARANTINE = "quarantine"
    RELEASE = "release"
    REVOKE = "revoke"
    DECOMMISSION = "decommission"


_NEXT: dict[Verb, dict[AgentState, AgentState]] = {
    Verb.ACTIVATE: {AgentState.PENDING: AgentState.ACTIVE},
    Verb.SUSPEND: {AgentState.PENDING: AgentState.SUSPENDED, AgentState.ACTIVE: AgentState.SUSPENDED},
    Verb.RESUME: {AgentState.SUSPENDED: AgentState.ACTIVE},
    Verb.QUARANTINE: {AgentState.ACTIVE: AgentState.QUARANTINED, AgentState.SUSPENDED: AgentState.QUARANTINED},
    Verb.RELEASE: {AgentState.QUARANTINED: AgentState.ACTIVE},
    Verb.REVOKE: {state: state for state in AgentState}
    | {AgentState.PENDING: AgentState.SUSPENDED, AgentState.ACTIVE: AgentState.SUSPENDED},
    Verb.DECOMMISSION: {
        state: AgentState.DECOMMISSIONED for state in AgentState if state is not AgentState.DECOMMISSIONED
    },
}
UNDO_VERBS: dict[AgentState, Verb] = {
    state: verb
    for verb, states in _NEXT.items()
    for state, after in states.items()
    if after is AgentState.ACTIVE and state is not AgentState.PENDING
}
"""The verb that makes a stopped agent active again, by the state of the agent."""
STOP_VERBS = {
    AgentState.SUSPENDED: Verb.SUSPEND,
    AgentState.QUARANTINED: Verb.QUARANTINE,
    AgentState.DECOMMISSIONED: Verb.DECOMMISSION,
}
"""The verb that brings an active agent into a state in which it is stopped, by that state."""


def next_state(state: AgentState, verb: Verb) -> AgentState:
    """Return the state to which the verb `verb` leads from the state `state`. Raises Conflict if the verb does not
    apply in that state.
    """
    try:
        return _NEXT[verb][state]
    except KeyError:
        hint = f"`{verb}` is for agents that are {' or '.join(_NEXT[verb])}"
        if state is AgentState.DECOMMISSIONED:
            hint = "decommissioning is final"
        raise Conflict(f"the agent is {state}: `{verb}` is not possible", hint=hint, code="wrong_state") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """The properties with which an administrator registers an agent."""

    name: str
    owner: str
    """Name or id of a person or a team."""
    purpose: str
    agent_id: str | None = None
    """Id that was generated before; None for a new id."""
    kind: Kind = Kind.ASSISTANT
    deputy: str | None = None
    """Name or id of a person; None for no deputy."""
    provider: str = ""
    model: str = ""
    risk_tier: RiskTier = RiskTier.MEDIUM
    segment: str = "default"
    scopes: Sequence[str] = ()
    expires_at: int | None = None
    """Time at which the registration ends, in microseconds; None for no end."""
    max_depth: int = DEFAULT_DEPTH
    is_keyless: bool = False
    """True if the agent is active immediately and never has a registered key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The record of an agent, from which the OAuth client, the SPIFFE ID, the DID and the SCIM resource are derived.
    Times are in microseconds.
    """

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
    state: AgentState
    epoch: int
    created_at: int
    expires_at: int | None
    max_depth: int = DEFAULT_DEPTH
    """Maximum number of agents that may follow this agent in a delegation chain."""
    is_keyless: bool = False
    """True for an agent that represents, for one person, a client that no administrator registered. The client presents
    authorization codes and refresh tokens; the agent has no key.
    """
    speaks: bool = False
    """True if the agent may state the words of its person for a task."""
    restricted_until: int = 0
    """End of the agent's last restriction, in microseconds; 0 if it has none (`registry.store.restrictions`)."""

    def is_active(self, now: int) -> bool:
        """Return whether the agent may act at `now` (microseconds): its state is active, and its registration has not
        ended.
        """
        return self.state is AgentState.ACTIVE and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentKey:
    """A public key with which an agent authenticates. Its id is its RFC 7638 thumbprint."""

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
    """Return the scopes, each `RESOURCE:CLASS` such as `files:read`; an alias is replaced by its scope. Raises Invalid
    for other text, and for more than 100 scopes.
    """
    if len(unverified_scopes) > MAX_SCOPES:
        raise Invalid(f"there are {len(unverified_scopes)} scopes, at most {MAX_SCOPES} are allowed")
    scopes = frozenset(SCOPE_ALIASES.get(scope, scope) for scope in unverified_scopes)
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            raise Invalid(
                f"the scope {scope[:130]!a} is not of the form <resource>:<class>",
                hint="use a scope such as `files:read`",
            )
    return scopes


def check_depth(depth: int) -> int:
    """Return the maximum delegation depth of an agent after checking its range. Raises Invalid otherwise."""
    if not 0 <= depth <= MAX_DEPTH:
        raise Invalid(f"the depth must be 0 to {MAX_DEPTH}")
    return depth


def spiffe_id(trust_domain: str, name: str) -> str:
    """Return the SPIFFE ID of the agent with that name, which never changes."""
    return f"spiffe://{trust_domain}/agent/{name}"


def agent_uri(issuer: str, name: str) -> str:
    """Return the URI by which a token request names an agent as the target of the token (RFC 8707)."""
    return f"{issuer}/agents/{name}"
