"""Credentials in AWS: the server's access to AWS, and the roles for whose leases the server creates credentials
there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from ostiary.protocol import canonical
from ostiary.protocol.errors import Invalid, Malformed
from ostiaryd.secrets.model.backend import check_address
from ostiaryd.secrets.model.lease import CREATE_S, DEFAULT_TTL, LONGEST_TTL, Lease
from ostiaryd.secrets.model.request import SECOND

AWS_MOUNT = "aws"
USERS, SESSIONS = "aws:user", "aws:session"
"""The values of `database` in leases of AWS credentials: a user, which the server must delete, and a session, which AWS
ends itself.
"""
MAX_ROLES = 1000
MAX_POLICY, MAX_ARNS = 8 << 10, 10
MAX_USER_NAME, MAX_SESSION_NAME = 64, 32
"""Maximum number of characters of the name of a user and of a session at AWS."""
OLD_KEY_S = CREATE_S + 10
"""Seconds between the first use of the server's new key and the deletion of the old key, which requests in progress may
still use.
"""
SHORTEST_S, LONGEST_S = 900, 43_200
"""Minimum and maximum seconds of a session at AWS."""
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_KEY = re.compile(r"[\x21-\x7e]{16,256}")
_ARN = re.compile(r"arn:aws[a-z-]{0,20}:iam::(?:\d{12}|aws):(role|policy)/[\w+=,.@/-]{1,512}", re.ASCII)
_NAME = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)
_PATH = re.compile(r"/(?:[\w+=,.@-]{1,64}/){0,4}", re.ASCII)


class AwsCredentialType(StrEnum):
    """The kind of credentials that a role of the AWS engine creates: a user, a session of an assumed role, or a
    federation token.
    """

    USER = "iam_user"
    ROLE = "assumed_role"
    FEDERATION = "federation_token"


class RootRotation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rotation of the server's own key at AWS. `due_at`: the time of the next step, in microseconds. `old_key`:
    once the new key is in use, the id of the key that must still be deleted.
    """

    due_at: int
    old_key: str = ""
    attempts: int = 0
    error: str = ""


class AwsRoot(msgspec.Struct, frozen=True, kw_only=True):
    """The access of the server to AWS, without its secret key. `lease`, `lease_max`: the default and the maximum
    lifetime of leases whose credentials are AWS users, in microseconds.
    """

    access_key: str
    region: str = "us-east-1"
    iam_endpoint: str
    sts_endpoint: str
    lease: int = DEFAULT_TTL
    lease_max: int = LONGEST_TTL
    rotation: RootRotation | None = None


class AwsRole(msgspec.Struct, frozen=True, kw_only=True):
    """A role whose leases are credentials at AWS. `default_ttl`, `max_ttl`: the lifetimes of sessions in microseconds;
    the lifetimes of users are in `AwsRoot`.
    """

    credential_type: AwsCredentialType
    role_arns: tuple[str, ...] = ()
    policy_arns: tuple[str, ...] = ()
    policy_document: str = ""
    groups: tuple[str, ...] = ()
    user_path: str = "/"
    permissions_boundary: str = ""
    default_ttl: int = DEFAULT_TTL
    max_ttl: int = LONGEST_TTL


class AwsCredentials(NamedTuple):
    """Credentials that AWS has created. `token` and `arn` are empty for a user."""

    access_key: str
    secret_key: str
    token: str = ""
    arn: str = ""

    def __repr__(self) -> str:
        """Return a text with only the id of the key, because the other members are secret."""
        return f"AwsCredentials({self.access_key})"


class RotateAwsRoot(NamedTuple):
    """An instruction that the server carries out after the transaction: replace the server's own access key at AWS.
    `holding`: the id of the caller's token or access key, which must still be valid then.
    """

    holding: str


class CreateCredentials(NamedTuple):
    """An instruction that the server carries out after the transaction: create the credentials of a lease at AWS.
    `arn`: the ARN of the role to assume; empty if the credentials are a user or a federation token.
    """

    lease: Lease
    role: AwsRole
    arn: str


def check_root(root: AwsRoot, secret_key: str, *, permitted: Sequence[str]) -> AwsRoot:
    """Return the access to AWS if it is valid. `permitted`: the addresses that the server's setting permits. Raises
    Invalid for a member that is not valid; Forbidden for an endpoint that is not in `permitted`.
    """
    if not _KEY.fullmatch(root.access_key) or not _KEY.fullmatch(secret_key):
        raise Invalid("`access_key` and `secret_key` must have 16 to 256 printable ASCII characters without spaces")
    if not _REGION.fullmatch(root.region):
        raise Invalid("`region` is not the name of an AWS region", hint="write a region as eu-west-1")
    for endpoint in (root.iam_endpoint, root.sts_endpoint):
        check_address(endpoint, permitted=permitted)
    return root


def check_role(role: AwsRole) -> AwsRole:
    """Return the role if its members are valid and fit together. Raises Invalid otherwise."""
    is_user, assumes = (role.credential_type is one for one in (AwsCredentialType.USER, AwsCredentialType.ROLE))
    arns = [*role.policy_arns, *([role.permissions_boundary] if role.permissions_boundary else [])]
    for kind, named in (("role", role.role_arns), ("policy", arns)):
        if len(named) > MAX_ARNS:
            raise Invalid(f"a role may have at most {MAX_ARNS} ARNs of the kind {kind}")
        for arn in named:
            if (match := _ARN.fullmatch(arn)) is None or match[1] != kind:
                raise Invalid(f"{arn[:64]!a} is not an ARN of a {kind}")
    if assumes != bool(role.role_arns):
        raise Invalid("`role_arns` is required for assumed roles, and not allowed for other types of credentials")
    if not is_user and (role.groups or role.user_path != "/" or role.permissions_boundary):
        raise Invalid("`iam_groups`, `user_path` and `permissions_boundary_arn` are only for users (`iam_user`)")
    if len(role.groups) > MAX_ARNS or not all(_NAME.fullmatch(group) for group in role.groups):
        raise Invalid(
            f"`iam_groups` may have at most {MAX_ARNS} names, each of 1 to 64 letters, digits and characters of _+=,.@-"
        )
    if not _PATH.fullmatch(role.user_path):
        raise Invalid(
            "`user_path` must begin and end with a slash, and have at most 4 segments between, of letters, digits and"
            " characters of _+=,.@-"
        )
    if not assumes and not (role.policy_arns or role.policy_document or role.groups):
        raise Invalid("the role permits nothing", hint="give `policy_document`, `policy_arns` or `iam_groups`")
    if not is_user and not SHORTEST_S * SECOND <= role.default_ttl <= role.max_ttl <= LONGEST_S * SECOND:
        raise Invalid(
            f"`default_sts_ttl` and `max_sts_ttl` must be {SHORTEST_S} to {LONGEST_S} seconds, and the first at most as"
            " long as the second"
        )
    return role


def check_policy(document: Any) -> str:
    """Return an AWS policy document as JSON text; empty if `document` is None or empty. Raises Invalid if `document` is
    not JSON with the member `Statement`, or is too long.
    """
    if document in ("", None):
        return ""
    try:
        value = canonical.parse(document.encode(), max_bytes=MAX_POLICY) if isinstance(document, str) else document
        text = canonical.encode(value).decode()
    except Malformed as error:
        raise Invalid(f"`policy_document`: {error.message}") from None
    if len(text) > MAX_POLICY:
        raise Invalid(f"`policy_document` has more than {MAX_POLICY} characters")
    if not isinstance(value, dict) or "Statement" not in value:
        raise Invalid("`policy_document` is not a JSON object with the member `Statement`")
    return text


def choose_arn(role: AwsRole, requested: str) -> str:
    """Return the ARN of the AWS role to assume: `requested`, or, if it is empty, the only ARN of `role`; an empty text
    if `role` has none, because its credentials are not sessions of an assumed role. Raises Invalid if `role` does not
    have the requested ARN, or has several and none is requested.
    """
    if requested and requested not in role.role_arns:
        raise Invalid("`role_arn` is not one of the role's `role_arns`", code="role_arn_denied")
    if not requested and len(role.role_arns) > 1:
        raise Invalid("`role_arn` is required, because the role has several `role_arns`", hint="give `role_arn`")
    return requested or next(iter(role.role_arns), "")


def seconds_of(lease: Lease) -> int:
    """Return the seconds of the session of a lease: at least `SHORTEST_S`, since AWS creates no shorter sessions."""
    return max(SHORTEST_S, -(-(lease.expires_at - lease.issued_at) // SECOND))
