"""Requests to another system that follow the act of an API request. The act has already recorded the intent.

The text form of each value contains no passwords.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ostiaryd.secrets.model.aws_account import AwsRoot
from ostiaryd.secrets.model.database import ConnectionBody
from ostiaryd.secrets.model.lease import Lease


class CreateAccount(NamedTuple):
    """The request to create the account of a lease."""

    lease: Lease
    password: str
    creation: tuple[str, ...]

    def __repr__(self) -> str:
        """Return only the lease."""
        return f"CreateAccount({self.lease.lease_id})"


class ExtendAccount(NamedTuple):
    """The request to extend the account of a lease to a new end, in microseconds since the epoch."""

    lease: Lease
    expires_at: int


class RevokeDue(NamedTuple):
    """The request to start the removals of accounts that are due. The API request does not wait for them."""


class RevokeRoles(NamedTuple):
    """The request to revoke all leases of these roles of a mount. `is_forced`: delete the leases even if their accounts
    may still exist.
    """

    mount: str
    roles: Sequence[str]
    is_forced: bool


class ConnectDatabase(NamedTuple):
    """The request to test a connection to a database; the connection is stored if the test succeeds and the caller with
    this holding may still act.
    """

    name: str
    body: ConnectionBody
    holding: str


class ConnectAws(NamedTuple):
    """The request to check the addresses of the server's access to AWS against the configuration, and to store the
    access, for the caller with this holding.
    """

    root: AwsRoot
    secret_key: str
    holding: str

    def __repr__(self) -> str:
        """Return the access without its secret key."""
        return f"ConnectAws({self.root.access_key})"


class RotateRoot(NamedTuple):
    """The request to change the password of a connection's user to the pending password."""

    name: str


class RotateRole(NamedTuple):
    """The request to change the password of a static role to the pending password. If the change fails for a new role,
    the role is deleted.
    """

    name: str
    is_new: bool = False


class ReadBackend(NamedTuple):
    """The request to read the secret at a path of a back end, for the caller with this holding."""

    name: str
    path: str
    holding: str


class ListBackend(NamedTuple):
    """The request to list the names in a folder of a back end, for the caller with this holding."""

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
