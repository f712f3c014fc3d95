"""Leases: accounts that the server created at another system for an agent, and that it removes there at their end.

A lease is stored before its account is created. The state of the lease determines the next step at the other
system:

    creating    the account may exist or not; if its creation is not confirmed in time, the account is removed
    live        the account exists and belongs to the holder
    revoking    the account must be removed; the server tries again until it succeeds
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.secrets.model.request import SECOND

KIND = "lease"
"""Kind under which leases are stored as holdings."""
DEFAULT_TTL = 3600 * SECOND
LONGEST_TTL = 86_400 * SECOND
"""Maximum microseconds of a lease, with all its renewals."""
CREATE_S = 20
"""Seconds after the creation of a lease within which the server must begin to create the account at the other
system.
"""
TAKEOVER_S = 60
"""Seconds after which the account of an unconfirmed lease is removed, and after which another process may repeat a
claimed removal.
"""
RETRY_S = (1, 2, 5, 15, 30, 60, 120, 300)
"""Seconds between the attempts to remove an account; the last value repeats until an attempt succeeds."""
STUCK_ATTEMPTS = 4
"""Number of failed attempts after which a removal counts as stuck, and one ledger entry reports it."""
MAX_ERROR = 300


class LeaseState(StrEnum):
    """The states of a lease: its account at the database or AWS is being created (`creating`), is usable (`live`), or
    must be removed (`revoking`).
    """

    CREATING = "creating"
    LIVE = "live"
    REVOKING = "revoking"


class LeaseStatements(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The SQL statements of a database lease, copied from the role when the lease was issued. An empty list stands for
    the default statements.
    """

    revocation: tuple[str, ...] = ()
    renewal: tuple[str, ...] = ()


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease: a credential of limited lifetime that the server created for an agent, such as a database account. A
    renewal moves `expires_at`, at most to `max_at`. `due_at`: the time of the next attempt to remove the account; for a
    lease in the state `creating`, an attempt that is made only if the creation was not confirmed. Times are
    microseconds since the epoch.
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
        """Return the mount of the engine that issued the lease, which determines the system that has the account."""
        return self.lease_id.partition("/")[0]

    @property
    def config(self) -> str:
        """Return the path of the configuration of the system at which the credential was created, such as
        `database/config/shop`.
        """
        return f"{self.mount}/config/{self.database}"

    @property
    def is_stuck(self) -> bool:
        """Return whether the removal of the lease's account has failed at least `STUCK_ATTEMPTS` times, so that a
        person must find out why.
        """
        return self.state is LeaseState.REVOKING and self.attempts >= STUCK_ATTEMPTS


def next_try(attempts: int, *, now: int) -> int:
    """Return the time (microseconds) of the next attempt, after `attempts` failed attempts. `attempts` must be at least
    1.
    """
    return now + RETRY_S[min(attempts, len(RETRY_S)) - 1] * SECOND


def choose_end(lease: Lease, increment_us: int | None, *, default_ttl: int, now: int) -> int:
    """Return the new end (microseconds) of a lease that is renewed now: `now` plus the requested increment, or, if that
    is None or 0, `now` plus `default_ttl`; but at most the maximum end of the lease.

    Raises Invalid if the lease has reached its maximum lifetime.
    """
    if now >= lease.max_at:
        raise Invalid("the lease has reached its maximum lifetime", hint="request new credentials")
    return min(now + (increment_us or default_ttl), lease.max_at)
