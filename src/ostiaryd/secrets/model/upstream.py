"""Requests to another system that follow the transaction of an API request. The transaction has already recorded the
intent.

The text form of each value contains no passwords.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ostiaryd.secrets.model.aws_account import AwsRoot
from ostiaryd.secrets.model.database import ConnectionBody
from ostiaryd.secrets.model.lease import Lease


class CreateAccount(NamedTuple):
    """An instruction that the server carries out after the transaction: create the account of a lease at the
    database.
    """

    lease: Lease
    password: str
    creation: tuple[str, ...]

    def __repr__(self) -> str:
        """Return only the lease."""
        return f"CreateAccount({self.lease.lease_id})"


class ExtendAccount(NamedTuple):
    """An instruction that the server carries out after the transaction: extend the account of a lease at the database
    to a new end, in microseconds since the epoch.
    """

    lease: Lease
    expires_at: int


class RevokeDue(NamedTuple):
    """An instruction that the server carries out after the transaction: start the removals of accounts that are due.
    The API request does not wait for the removals.
    """


class RevokeRoles(NamedTuple):
    """An instruction that the server carries out after the transaction: revoke all leases of these roles of a mount.
    `is_forced`: delete the leases even if their accounts may still exist.
    """

    mount: str
    roles: Sequence[str]
    is_forced: bool


class ConnectDatabase(NamedTuple):
    """An instruction that the server carries out after the transaction: test a connection to a database, and store it
    if the test succeeds. `holding`: the id of the caller's token or access key, which must still be valid then.
    """

    name: str
    body: ConnectionBody
    holding: str


class ConnectAws(NamedTuple):
    """An instruction that the server carries out after the transaction: check the endpoints of the server's access to
    AWS against the configuration, and store the access. `holding`: the id of the caller's token or access key, which
    must still be valid then.
    """

    root: AwsRoot
    secret_key: str
    holding: str

    def __repr__(self) -> str:
        """Return the access without its secret key."""
        return f"ConnectAws({self.root.access_key})"


class RotateRoot(NamedTuple):
    """An instruction that the server carries out after the transaction: change the password of a database connection's
    user to the stored pending password.
    """

    name: str


class RotateRole(NamedTuple):
    """An instruction that the server carries out after the transaction: change the password of a static database role
    to the stored pending password. If the change fails for a new role, the role is deleted.
    """

    name: str
    is_new: bool = False


class ReadBackend(NamedTuple):
    """An instruction that the server carries out after the transaction: read the secret at a path of a back end.
    `holding`: the id of the caller's token or access key, which must still be valid then.
    """

    name: str
    path: str
    holding: str


class ListBackend(NamedTuple):
    """An instruction that the server carries out after the transaction: list the names in a folder of a back end.
    `holding`: the id of the caller's token or access key, which must still be valid then.
    """

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
