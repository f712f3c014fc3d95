"""Who is asking, once the gate has checked it."""

from __future__ import annotations

from typing import Literal

import msgspec

ADMIN, READ, DECIDE = "ostiary:admin", "ostiary:read", "ostiary:decide"
APPROVE = "ostiary:approve"
"""What a person with a key has, and nothing else; of whoever else has it, no answer is taken."""
SSF_READ, SSF_MANAGE = "ostiary:ssf.read", "ostiary:ssf.manage"
"""What receivers of signals have: to look at their streams and poll them, to make and change them."""
API_SCOPES = (ADMIN, DECIDE, READ, SSF_MANAGE, SSF_READ)
"""The scopes of this server's own API."""
SELF = "self"
"""What a route asks for that anybody may call who has proved who they are; the flow says what is theirs."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The holder of a checked credential: a person, an agent, a resource's guard, or a static PEP (API key). `owner`
    answers for an agent.
    """

    kind: Literal["person", "agent", "guard", "pep"]
    id: str
    name: str
    owner: str | None
    scopes: frozenset[str]
    jkt: str | None = None
    task: str | None = None
    token: str | None = None

    @property
    def is_admin(self) -> bool:
        return ADMIN in self.scopes

    @property
    def may_read(self) -> bool:
        """Return whether it may see what is not its own."""
        return READ in self.scopes or self.is_admin
