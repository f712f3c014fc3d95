"""Credentials in AWS (HashiCorp Vault, "AWS secrets engine (API)").

config/root, config/lease     GET, POST
config/rotate-root            POST: a new key of the server's own user
roles/NAME                    GET, POST, DELETE; LIST roles
creds/ROLE, sts/ROLE          GET, POST: new credentials with a lease; the path in policies is creds/ROLE
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from msgspec import Struct

from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import aws_accounts
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.model.aws_account import (
    AWS_MOUNT,
    LONGEST_S,
    MAX_ROLES,
    AwsCredentialType,
    AwsRole,
    AwsRoot,
    RotateAwsRoot,
    check_policy,
    check_role,
)
from ostiaryd.secrets.model.database import check_name, check_ttl
from ostiaryd.secrets.model.lease import DEFAULT_TTL, LONGEST_TTL
from ostiaryd.secrets.model.request import (
    SECOND,
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    parse_duration,
    render_duration,
    split_path,
)
from ostiaryd.secrets.model.upstream import ConnectAws

TYPE = "aws"
DESCRIPTION = "credentials in AWS, with leases"
OPTIONS: dict[str, str] | None = None
EMPTY = Answer(status=204)


class _RootBody(Struct):
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    iam_endpoint: str = ""
    sts_endpoint: str = ""

    def __repr__(self) -> str:
        """Return a text with only the id of the key, because the other members are secret."""
        return f"_RootBody({self.access_key[:40]})"


class _LeaseTimes(Struct):
    lease: int | str
    lease_max: int | str


class _RoleBody(Struct):
    credential_type: str
    role_arns: list[str] | str | None = None
    policy_arns: list[str] | str | None = None
    policy_document: Any = ""
    iam_groups: list[str] | str | None = None
    user_path: str = "/"
    permissions_boundary_arn: str = ""
    default_sts_ttl: int | str | None = None
    max_sts_ttl: int | str | None = None


def find_operation(mount: str, request: VaultRequest) -> Operation:
    """Return the operation of a request to the AWS secrets engine. Raises NothingStored for an unknown path,
    UnsupportedOperation for a method that the path does not support; Malformed for members of wrong types, Invalid for
    wrong names and values.
    """
    kind, name = split_path(request.path.removesuffix("/"))
    if request.method is VaultMethod.LIST and (kind, name) == ("roles", ""):
        return Operation(SecretAction.LIST, "roles/", "list", _list)
    if not name or (kind == "config" and name not in ("root", "lease", "rotate-root")):
        raise NothingStored("no handler for route", code="no_route")
    check_name(name, of="role")
    match kind, request.method:
        case (("creds" | "sts"), (VaultMethod.READ | VaultMethod.WRITE)):
            action, operation, run = SecretAction.READ, "lease", _make_lease(name, request, is_session=kind == "sts")
        case "config", VaultMethod.WRITE if name == "rotate-root":
            action, operation, run = SecretAction.WRITE, "rotate", _rotate_root
        case "config", VaultMethod.READ if name != "rotate-root":
            action, operation, run = SecretAction.READ, "read", _read_root if name == "root" else _read_times
        case "config", VaultMethod.WRITE:
            action, operation = SecretAction.WRITE, "connect" if name == "root" else "write"
            run = _make_root(request) if name == "root" else _make_times(request)
        case "roles", VaultMethod.READ:
            action, operation, run = SecretAction.READ, "read", partial(_read_role, name=name)
        case "roles", VaultMethod.WRITE:
            action, operation, run = SecretAction.WRITE, "write", _make_role(name, request)
        case "roles", VaultMethod.DELETE:
            action, operation, run = SecretAction.DELETE, "delete", partial(_delete_role, name=name)
        case (("creds" | "sts" | "config" | "roles"), _):
            raise UnsupportedOperation("unsupported operation")
        case _:
            raise NothingStored("no handler for route", code="no_route")
    return Operation(action, f"{'creds' if kind == 'sts' else kind}/{name}", operation, run)


def _make_root(request: VaultRequest) -> Callable[[Act], Answer]:
    body = request.read_body(_RootBody)
    root = AwsRoot(
        access_key=body.access_key,
        region=body.region,
        iam_endpoint=(body.iam_endpoint or "https://iam.amazonaws.com").rstrip("/"),
        sts_endpoint=(body.sts_endpoint or f"https://sts.{body.region[:40]}.amazonaws.com").rstrip("/"),
    )
    return lambda act: Answer(upstream=ConnectAws(root, body.secret_key, act.entry.token or ""))


def _rotate_root(act: Act) -> Answer:
    aws_accounts.find_root(act.tx)
    return Answer(upstream=RotateAwsRoot(act.entry.token or ""))


def _make_times(request: VaultRequest) -> Callable[[Act], Answer]:
    body = request.read_body(_LeaseTimes)
    lease, longest = parse_duration(body.lease, field="lease"), parse_duration(body.lease_max, field="lease_max")
    check_ttl(lease, longest)
    if not lease >= SECOND or longest > LONGEST_TTL:
        raise Invalid(f"`lease` and `lease_max` must be 1 to {LONGEST_TTL // SECOND} seconds")

    def write(act: Act) -> Answer:
        aws_accounts.put_lease_times(act, lease, longest)
        return EMPTY

    return write


def _make_role(name: str, request: VaultRequest) -> Callable[[Act], Answer]:
    body = request.read_body(_RoleBody)
    if body.credential_type not in set(AwsCredentialType):
        raise Invalid(f"`credential_type` must be one of: {', '.join(AwsCredentialType)}")
    longest = parse_duration(body.max_sts_ttl or 0, field="max_sts_ttl") or LONGEST_S * SECOND
    default = parse_duration(body.default_sts_ttl or 0, field="default_sts_ttl") or min(DEFAULT_TTL, longest)
    role = check_role(
        AwsRole(
            credential_type=AwsCredentialType(body.credential_type),
            role_arns=_names(body.role_arns),
            policy_arns=_names(body.policy_arns),
            policy_document=check_policy(body.policy_document),
            groups=_names(body.iam_groups),
            user_path=body.user_path or "/",
            permissions_boundary=body.permissions_boundary_arn,
            default_ttl=default,
            max_ttl=longest,
        )
    )

    def write(act: Act) -> Answer:
        aws_accounts.put_role(act, name, role)
        return EMPTY

    return write


def _names(value: list[str] | str | None) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value or []
    return tuple(stripped for name in names if (stripped := name.strip()))


def _make_lease(name: str, request: VaultRequest, *, is_session: bool) -> Callable[[Act], Answer]:
    parameters: Mapping[str, Any] = request.query if request.method is VaultMethod.READ else request.body
    if unknown := set(parameters) - {"role_arn", "ttl", "role_session_name"}:
        raise Invalid(
            f"the parameter {min(unknown)[:64]!a} is unknown", hint="the supported parameters are `role_arn` and `ttl`"
        )
    if parameters.get("role_session_name"):
        raise Invalid("`role_session_name` is not supported: the server names each session after its agent and role")
    arn = parameters.get("role_arn") or ""
    if not isinstance(arn, str):
        raise Invalid("`role_arn` must be a text")
    ttl = parse_duration(parameters["ttl"], field="ttl") if parameters.get("ttl") else None
    return lambda act: Answer(upstream=aws_accounts.begin_lease(act, name, is_session=is_session, arn=arn, ttl=ttl))


def _read_root(act: Act) -> Answer:
    registry.fill_entry(act, object=f"{AWS_MOUNT}/config/root")
    if (stored := store.aws_accounts.root(act.tx)) is None:
        raise NothingStored("nothing is stored under this name")
    config = stored.config
    return Answer(
        data={
            "access_key": config.access_key,
            "iam_endpoint": config.iam_endpoint,
            "region": config.region,
            "sts_endpoint": config.sts_endpoint,
        }
    )


def _read_times(act: Act) -> Answer:
    registry.fill_entry(act, object=f"{AWS_MOUNT}/config/lease")
    if (stored := store.aws_accounts.root(act.tx)) is None:
        raise NothingStored("nothing is stored under this name")
    config = stored.config
    return Answer(data={"lease": render_duration(config.lease), "lease_max": render_duration(config.lease_max)})


def _read_role(act: Act, name: str) -> Answer:
    registry.fill_entry(act, object=f"{AWS_MOUNT}/roles/{name}")
    if (role := store.aws_accounts.role(act.tx, name)) is None:
        raise NothingStored("nothing is stored under this name")
    return Answer(
        data={
            "credential_type": role.credential_type.value,
            "default_sts_ttl": role.default_ttl // SECOND,
            "iam_groups": list(role.groups),
            "max_sts_ttl": role.max_ttl // SECOND,
            "permissions_boundary_arn": role.permissions_boundary,
            "policy_arns": list(role.policy_arns),
            "policy_document": role.policy_document,
            "role_arns": list(role.role_arns),
            "user_path": role.user_path,
        }
    )


def _delete_role(act: Act, name: str) -> Answer:
    registry.fill_entry(act, object=f"{AWS_MOUNT}/roles/{name}")
    store.aws_accounts.delete_role(act.tx, name)
    return EMPTY


def _list(act: Act) -> Answer:
    act.entry.object = f"{AWS_MOUNT}/roles/"
    if not (names := store.aws_accounts.roles(act.tx, limit=MAX_ROLES)):
        raise NothingStored("nothing is stored")
    return Answer(data={"keys": names})
