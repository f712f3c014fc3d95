"""Holdings: objects of an agent that end with the agent, such as tokens, leases, certificates, credentials and
delegations.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, NewType

import msgspec

from ostiaryd.registry.model.agent import AgentId

HoldingId = NewType("HoldingId", str)
LONGEST_TOKEN = 3600 * 1_000_000
"""Maximum lifetime of a token that a guard accepts, in microseconds (the maximum of `token_lifetime_s`)."""


class Root(StrEnum):
    """The kind of an object with whose end holdings (such as tokens and leases) end, even those of other agents: an
    agent, a task, a key, an owner, or another holding.
    """

    HOLDING = "holding"
    CERTIFICATE = "certificate"
    """The root is the holding of a certificate. With it end the holdings that its holder requested with its key, other
    certificates excepted, and the tokens that are bound to the certificate.
    """
    AGENT = "agent"
    TASK = "task"
    KEY = "key"
    OWNER = "owner"


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """An object that belongs to an agent and ends with the agent, such as an access token, a certificate or a lease.
    Times are in microseconds.

    `jkt`: thumbprint of the key to which the object is bound; `client_jkt`: thumbprint of the key with which the agent
    requested it; `audience`: the resource for which it is valid.
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
    """Digest of an access token, which DPoP proofs contain as `ath`, or of a certificate (`x5t#S256`); None for other
    kinds.
    """
    expires_at: int
    ended_at: int | None = None
    ended_why: str | None = None

    def is_live(self, now: int) -> bool:
        """Return whether the holding has neither ended nor expired at `now` (microseconds)."""
        return self.ended_at is None and now < self.expires_at


class Ended(NamedTuple):
    """The members of an ended holding that guards need. A small object, because one act may end
    thousands of holdings.
    """

    id: HoldingId
    kind: str
    agent: AgentId
    jkt: str | None
    expires_at: int


def names_root(holding: Ended, root: Root, value: str) -> bool:
    """Return whether the token of an ended holding names the root (for example, its task) in its claims. Guards then
    refuse the token because of the message about the root, and need no message about the token.
    """
    match root:
        case Root.AGENT:
            return holding.agent == value
        case Root.KEY:
            return holding.jkt == value
        case Root.HOLDING | Root.CERTIFICATE | Root.TASK | Root.OWNER:
            return False
