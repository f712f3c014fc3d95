"""The authenticated caller of a route."""

from __future__ import annotations

from typing import Literal

import msgspec

ADMIN, READ, DECIDE = "ostiary:admin", "ostiary:read", "ostiary:decide"
APPROVE = "ostiary:approve"
"""Scope to approve requests. Only the token of a person with a key can have it."""
SSF_READ, SSF_MANAGE = "ostiary:ssf.read", "ostiary:ssf.manage"
"""Scopes for receivers of signals: to read and poll their streams, and to create and change their streams."""
API_SCOPES = (ADMIN, DECIDE, READ, SSF_MANAGE, SSF_READ)
"""The scopes of this server's own API."""
SELF = "self"
"""Scope of a route that every authenticated caller may use; the flow limits the caller to its own objects."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The authenticated caller of a request: a person, an agent, the guard of a resource, or a static enforcement point
    (PEP) with an API key.

    `owner` is the owner of the agent.
    """

    kind: Literal["person", "agent", "guard", "pep"]
    id: str
    name: str
    owner: str | None
    scopes: frozenset[str]
    jkt: str | None = None
    task: str | None = None
    token: str | None = None
    acr: str = ""
    """Assurance level of the browser session of a person; empty for a token."""

    @property
    def is_admin(self) -> bool:
        """Return whether the caller has the administrator scope."""
        return ADMIN in self.scopes

    @property
    def may_read(self) -> bool:
        """Return whether the caller may read every object."""
        return READ in self.scopes or self.is_admin
