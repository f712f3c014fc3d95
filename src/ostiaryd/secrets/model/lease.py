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
"""kind of a holding that is a lease"""
DEFAULT_TTL = 3600 * SECOND
LONGEST_TTL = 86_400 * SECOND
"""Maximum lifetime of a lease with all its renewals, in microseconds."""
CREATE_S = 20
"""Seconds after the creation of a lease within which the creation of its account must have started at the other
system.
"""
TAKEOVER_S = 60
"""Seconds after which the account of an unconfirmed lease is removed, and after which another process may retry
a claimed revocation.
"""
RETRY_S = (1, 2, 5, 15, 30, 60, 120, 300)
"""Seconds between attempts to revoke; the last value repeats until an attempt succeeds."""
STUCK_ATTEMPTS = 4
"""Number of failed attempts after which a revocation counts as stuck, and a ledger entry reports it once."""
MAX_ERROR = 300


class LeaseState(StrEnum):
    """States of a lease. The state determines the next act at the other system."""

    CREATING = "creating"
    LIVE = "live"
    REVOKING = "revoking"


class LeaseStatements(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The statements of a lease, copied from its role when the lease was issued. Empty: the default statements."""

    revocation: tuple[str, ...] = ()
    renewal: tuple[str, ...] = ()


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease. Times in microseconds: a renewal moves `expires_at`, up to `max_at`; `due_at` is the time of the
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
    def mount(self) -> str:
        """The mount of the engine that issued the lease, which determines the system with the account."""
        return self.lease_id.partition("/")[0]

    @property
    def config(self) -> str:
        """The path of the configuration, such as `database/config/shop`."""
        return f"{self.mount}/config/{self.database}"

    @property
    def is_stuck(self) -> bool:
        """Return whether the revocation has failed so often that a person must look at it."""
        return self.state is LeaseState.REVOKING and self.attempts >= STUCK_ATTEMPTS


def next_try(attempts: int, *, now: int) -> int:
    """Return the time of the next attempt, by the number of failed attempts."""
    return now + RETRY_S[min(attempts, len(RETRY_S)) - 1] * SECOND


def choose_end(lease: Lease, increment_us: int | None, *, default_ttl: int, now: int) -> int:
    """Return the new end of a lease that is renewed now: by the requested increment, or by the default lifetime of its
    role.

    Raises Invalid if the lease has reached its maximum lifetime.
    """
    if now >= lease.max_at:
        raise Invalid("the lease has reached its longest life", hint="request new credentials")
    return min(now + (increment_us or default_ttl), lease.max_at)
