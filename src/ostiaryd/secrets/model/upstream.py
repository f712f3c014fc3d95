"""Acts at another system that follow the act of a request. The act of the request has recorded the intent.

The text form of each value contains no passwords.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ostiaryd.secrets.model.aws_account import AwsRoot
from ostiaryd.secrets.model.database import ConnectionBody
from ostiaryd.secrets.model.lease import Lease


class CreateAccount(NamedTuple):
    """Create the account of a lease."""

    lease: Lease
    password: str
    creation: tuple[str, ...]

    def __repr__(self) -> str:
        """Return only the lease."""
        return f"CreateAccount({self.lease.lease_id})"


class ExtendAccount(NamedTuple):
    """Extend the account of a lease to a new end, in microseconds."""

    lease: Lease
    expires_at: int


class RevokeDue(NamedTuple):
    """Start the revocations that are due, without waiting for them."""


class RevokeRoles(NamedTuple):
    """Revoke all leases of roles of a mount. `is_forced`: delete the leases although their accounts may still exist."""

    mount: str
    roles: Sequence[str]
    is_forced: bool


class ConnectDatabase(NamedTuple):
    """Store a connection after a test of the connection succeeds."""

    name: str
    body: ConnectionBody


class ConnectAws(NamedTuple):
    """Store the access to AWS, at addresses that the configuration names."""

    root: AwsRoot
    secret_key: str

    def __repr__(self) -> str:
        """Return the access without its secret key."""
        return f"ConnectAws({self.root.access_key})"


class RotateRoot(NamedTuple):
    """Change the password of the user of a connection to the pending password."""

    name: str


class RotateRole(NamedTuple):
    """Change the password of a static role to the pending password. If that fails for a new role, the role is
    deleted.
    """

    name: str
    is_new: bool = False


class ReadBackend(NamedTuple):
    """Read the secret at a path of a back end, for the holder of a holding."""

    name: str
    path: str
    holding: str


class ListBackend(NamedTuple):
    """List the names in a folder of a back end, for the holder of a holding."""

    name: str
    folder: str
    holding: str


Upstream = (
    CreateAccount
    | ExtendAccount
    | RevokeDue
    | RevokeRoles
    | ConnectAws
    | ConnectDatabase
    | RotateRoot
    | RotateRole
    | ReadBackend
    | ListBackend
)
