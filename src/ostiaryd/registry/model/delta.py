"""Messages to guards about changed objects. Each message is complete without other messages. Times are in
microseconds.
"""

from __future__ import annotations

import msgspec

from ostiary.decision.access.restrictions import RestrictionKind
from ostiaryd.registry.model.agent import AgentId, AgentState
from ostiaryd.registry.model.holding import HoldingId


class AgentDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="agent"):
    agent: AgentId
    state: AgentState
    epoch: int


class TokenDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="token"):
    jti: HoldingId
    until: int


class KeyDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="key"):
    jkt: str
    until: int


class ResourceDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="resource"):
    resource: str


class RiskDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="risk"):
    """Message to guards: the risk score of a subject (agent or task) has changed."""

    subject: str
    millis: int
    at: int


class ThreatDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="threats"):
    """Message to guards: the threat list with this id has changed or was deleted."""

    list: str


class RestrictionDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="hold"):
    """Message to guards: a restriction of an agent, in force until `until` (microseconds). If the restriction was
    lifted, `until` is the time of lifting.
    """

    agent: str
    hold: RestrictionKind
    limit: int
    since: int
    until: int


class SecretUseDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="secret_use"):
    """Message to guards: a proxy puts a secret into requests of an agent. Until `until` (microseconds), the agent's
    calls are searched for the secret.
    """

    agent: str
    until: int


class ProfileDelta(msgspec.Struct, frozen=True, tag_field="kind", tag="profile"):
    """Message to guards: the usual behaviour of an agent at a resource has changed."""

    agent: str
    resource_id: str
