"""Holdings: objects that end with their agent, such as tokens, leases, certificates, credentials and delegations."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, NewType

import msgspec

from ostiaryd.registry.model.agent import AgentId

HoldingId = NewType("HoldingId", str)
LONGEST_TOKEN = 3600 * 1_000_000
"""Microseconds: nothing that a guard accepts lives longer (the upper limit of `token_lifetime_s`)."""


class Root(StrEnum):
    """A root by which holdings end: everything under the root ends, whichever agent holds it."""

    HOLDING = "holding"
    AGENT = "agent"
    TASK = "task"
    KEY = "key"
    OWNER = "owner"


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """`jkt` is the key that it is bound to, `client_jkt` the key with which the agent proved itself to get it,
    `audience` the resource that it is for.
    """

    id: HoldingId
    kind: str
    agent: AgentId
    task: str | None = None
    parent: HoldingId | None = None
    jkt: str | None = None
    client_jkt: str | None = None
    audience: str | None = None
    ath: str | None = None
    """the digest of a token, as a DPoP proof names it"""
    expires_at: int
    ended_at: int | None = None
    ended_why: str | None = None

    def is_live(self, now: int) -> bool:
        """Return whether the holding has neither ended nor expired at `now` (microseconds)."""
        return self.ended_at is None and now < self.expires_at


class Ended(NamedTuple):
    """An ended holding, reduced to the members that guards need; an act may end thousands."""

    id: HoldingId
    kind: str
    agent: AgentId
    jkt: str | None
    expires_at: int


def names_root(holding: Ended, root: Root, value: str) -> bool:
    """Return whether the token names the root itself, so that a guard needs no delta about the token."""
    match root:
        case Root.AGENT:
            return holding.agent == value
        case Root.KEY:
            return holding.jkt == value
        case Root.HOLDING | Root.TASK | Root.OWNER:
            return False
