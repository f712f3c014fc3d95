"""Owners: persons, and teams of persons. A person and a team never share a name, so a name identifies exactly one
owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType

PersonId = NewType("PersonId", str)
TeamId = NewType("TeamId", str)
OwnerId = PersonId | TeamId


def is_person_id(id: str) -> bool:
    """Return whether an id has the form of a person's id."""
    return id.startswith("pe_")


class PersonState(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    """The person cannot act, but keeps teams, agents, roles, keys and logins."""
    LEFT = "left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    person_id: PersonId
    name: str
    email: str | None
    deputy: PersonId | None
    state: PersonState
    created_at: int

    @property
    def id(self) -> OwnerId:
        """Return the person's id as the id of an owner."""
        return self.person_id

    @property
    def is_active(self) -> bool:
        """Return whether the person may act: the person has neither left nor been suspended."""
        return self.state is PersonState.ACTIVE

    @property
    def absence(self) -> str:
        """Return why a person cannot act, as the end of a sentence: `has left` or `is suspended`."""
        return "is suspended" if self.state is PersonState.SUSPENDED else "has left"

    @property
    def return_hint(self) -> str:
        """Return the command that makes a person who has left or is suspended active again, as a hint."""
        if self.state is PersonState.SUSPENDED:
            return f"resume the person: ostiary person resume {self.name}"
        return f"make the person active again: ostiary person return {self.name}"

    @property
    def absence_code(self) -> str:
        """Return the reason code of a refusal because a person has left or is suspended."""
        return "person_suspended" if self.state is PersonState.SUSPENDED else "person_left"


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonKey:
    """A public key with which a person authenticates. Its id is its RFC 7638 thumbprint."""

    jkt: str
    person: PersonId
    alg: str
    jwk: dict[str, Any]
    added_at: int
    revoked_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    team_id: TeamId
    name: str
    deputy: PersonId | None
    created_at: int

    @property
    def id(self) -> OwnerId:
        """Return the team's id as the id of an owner."""
        return self.team_id


Owner = Person | Team
