"""Roles of persons: names whose meaning policies define (`policy/roles/*.cedar`, ADR 79)."""

from __future__ import annotations

from typing import NamedTuple

ADMINISTRATOR = "administrator"
BY_HAND = ""
"""Source of an assignment that an administrator made; otherwise the id of the identity provider whose rule made it."""


class RoleAssignment(NamedTuple):
    """A person or team with a role. `granted_at` is in microseconds."""

    subject: str
    role: str
    source: str
    granted_at: int
