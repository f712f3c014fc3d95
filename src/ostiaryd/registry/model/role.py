"""Roles of persons: names whose meaning policies define (`policy/roles/*.cedar`, ADR 79)."""

from __future__ import annotations

from typing import NamedTuple

ADMINISTRATOR = "administrator"
BY_HAND = ""
"""Source of an assignment that an administrator made. The source of other assignments is the id of the identity
provider whose rule made them.
"""


class RoleAssignment(NamedTuple):
    """The assignment of a role to a person or team. `granted_at` is in microseconds."""

    subject: str
    role: str
    source: str
    granted_at: int
