"""Leases: accounts that the server created at another system for an agent, and that it removes there at their end.

A lease is written before its account is created. Its state says which act at the other system is owed:

    creating    the account may or may not exist; without a confirmation it is removed
    live        the account exists and belongs to the holder
    revoking    the account is to be removed, however often that must be tried
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.secrets.model.request import SECOND

KIND = "lease"
"""kind of the holding of a lease"""
DEFAULT_TTL = 3600 * SECOND
LONGEST_TTL = 86_400 * SECOND
"""The longest life of a lease, however often it is renewed, in microseconds."""
CREATE_S = 20
"""Seconds after the lease was written within which its account must be under way at the other system."""
TAKEOVER_S = 60
"""Seconds after which an unconfirmed lease is removed, and after which a claimed revocation is tried anew."""
RETRY_S = (1, 2, 5, 15, 30, 60, 120, 300)
"""Seconds between the attempts to revoke; the last one repeats without end."""
STUCK_ATTEMPTS = 4
"""Failed attempts after which a revocation counts as stuck: an entry tells of it, once."""
MAX_ERROR = 300


class LeaseState(StrEnum):
    """States of a lease, each of which says which act at the other system is owed."""

    CREATING = "creating"
    LIVE = "live"
    REVOKING = "revoking"


class LeaseStatements(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The statements of a lease as its role had them at its issue; empty: those of the engine."""

    revocation: tuple[str, ...] = ()
    renewal: tuple[str, ...] = ()


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease. Times in microseconds: `expires_at` moves with each renewal up to `max_at`, `due_at` is the time of the
    next act at the other system.
    """

    lease_id: str
    holding: str
    agent: str
    task: str
    database: str
    role: str
    username: str
    statements: LeaseStatements
    state: LeaseState
    issued_at: int
    renewed_at: int | None
    expires_at: int
    max_at: int
    due_at: int
    attempts: int = 0
    error: str = ""

    @property
    def path(self) -> str:
        """The path of the credentials below their mount, such as `creds/readonly`."""
        return f"creds/{self.role}"

    @property
    def config(self) -> str:
        """The path of the configuration, such as `database/config/shop`."""
        return f"{self.lease_id.partition('/')[0]}/config/{self.database}"

    @property
    def is_stuck(self) -> bool:
        """Return whether the revocation has failed so often that a person should look."""
        return self.state is LeaseState.REVOKING and self.attempts >= STUCK_ATTEMPTS


def next_try(attempts: int, *, now: int) -> int:
    """Return the time of the next attempt after that many failed ones."""
    return now + RETRY_S[min(attempts, len(RETRY_S)) - 1] * SECOND


def choose_end(lease: Lease, increment_us: int | None, *, default_ttl: int, now: int) -> int:
    """Return the end of a lease that is renewed now: by the increment, or by the time of its role.

    Raises Invalid for a lease that can be renewed no further.
    """
    if now >= lease.max_at:
        raise Invalid("the lease has reached its longest life", hint="request new credentials")
    return min(now + (increment_us or default_ttl), lease.max_at)
