"""The configuration and the roles of the login methods jwt, cert and kubernetes, which agents enable.

config                  GET, POST (jwt and kubernetes)
role, certs             LIST
role/NAME, certs/NAME   GET, POST, DELETE

The path in policies of this server is `auth/MOUNT/role/..`. A role has the authority of the token that wrote the role.
Each agent has its own configuration and roles. Two agents cannot use one name for a role at a mount, because a login
states only the name of the role. The logins are in `wire_role_logins`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import asdict

from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets.flows import login_roles
from ostiaryd.secrets.flows.callers import CallerOperation, VaultCaller
from ostiaryd.secrets.model.login_role import RoleBody
from ostiaryd.secrets.model.request import (
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    is_set,
    parse_pairs,
    parse_texts,
)


class LoginMethod(NamedTuple):
    """The functions and tables that one type of login method (such as JWT) needs for its configuration and its roles.

    `folder`: the first segment of the path of a role. `body`: the type of the members of a request that writes a role.
    `check`: raises Invalid if the settings of a role are not valid. `parse_config`: returns the checked configuration
    in a request; its second argument are the private hosts that the operator permits; None for a method without a
    configuration. `config_defaults`, `role_defaults`: the values of members that no request has set.
    """

    folder: str
    body: type[RoleBody]
    check: Callable[[Mapping[str, object]], None]
    role_defaults: Mapping[str, Any]
    parse_config: Callable[[VaultRequest, Collection[str]], Struct] | None = None
    config_defaults: Mapping[str, Any] = {}
    lists: Collection[str] = ()
    """members of a role that are lists, or texts with commas between them"""
    pairs: Collection[str] = ()
    """members of a role that are objects of texts, or texts of the form NAME=VALUE"""
    leeways: Collection[str] = ()
    """members of a role that are durations, or -1 for none"""
    unsupported: Mapping[str, str] = {}
    """members of a role that are refused if they are set, each with the reason"""


def find_operation(
    method: LoginMethod, mount: str, rest: str, request: VaultRequest, *, private: Collection[str]
) -> CallerOperation:
    """Return the operation of a request to the login method at `mount` (such as `auth/jwt-2`). `rest` is the path below
    the mount; `private` are the private hosts that the operator permits.

    Raises NothingStored for an unknown path, UnsupportedOperation for a method that the path does not support;
    Malformed for members of wrong types, Invalid for wrong values.
    """
    path = f"{mount.removeprefix('auth/')}/{rest}"
    kind, _, name = rest.partition("/")
    if kind == "config" and not name and method.parse_config is not None:
        match request.method:
            case VaultMethod.READ:
                run = partial(_read_config, method, mount)
                return CallerOperation(SecretAction.READ, path, "read", run)
            case VaultMethod.WRITE:
                config = asdict(method.parse_config(request, private))
                return CallerOperation(SecretAction.WRITE, path, "write", partial(_put_config, mount, config))
        raise UnsupportedOperation("unsupported operation")
    if kind != method.folder:
        raise NothingStored("no handler for route", code="no_route")
    match request.method, bool(name):
        case VaultMethod.LIST, False:
            return CallerOperation(SecretAction.LIST, path, "list", partial(_list, mount))
        case VaultMethod.READ, True:
            return CallerOperation(SecretAction.READ, path, "read", partial(_read, method, mount, name))
        case VaultMethod.DELETE, True:
            return CallerOperation(SecretAction.DELETE, path, "delete", partial(_delete, mount, name))
        case VaultMethod.WRITE, True:
            refuse_members(request.body, method.unsupported)
            changes = request.read_body(method.body).stated()
            put = partial(_put, method, mount, name, changes)
            return CallerOperation(SecretAction.WRITE, path, "write", put, partial(login_roles.has_role, mount, name))
    raise UnsupportedOperation("unsupported operation")


def refuse_members(body: Mapping[str, Any], unsupported: Mapping[str, str]) -> None:
    """Check that `body` sets none of the members in `unsupported`, whose values are the reasons. Raises Invalid
    otherwise.
    """
    for name, why in unsupported.items():
        if is_set(body.get(name)):
            raise Invalid(f"`{name}` is not supported: {why}")


def _read_config(method: LoginMethod, mount: str, act: Act, caller: VaultCaller) -> Answer:
    return Answer(data={**method.config_defaults, **login_roles.find_config(act, caller, mount)})


def _put_config(mount: str, config: dict[str, object], act: Act, caller: VaultCaller) -> Answer:
    login_roles.put_config(act, caller, mount, config)
    return Answer(status=204)


def _list(mount: str, act: Act, caller: VaultCaller) -> Answer:
    return Answer(data={"keys": login_roles.list_roles(act, caller, mount)})


def _read(method: LoginMethod, mount: str, name: str, act: Act, caller: VaultCaller) -> Answer:
    shown = login_roles.render_settings(login_roles.find_role(act, caller, mount, name), method.role_defaults)
    del shown["policies"]
    return Answer(data=shown)


def _put(method: LoginMethod, mount: str, name: str, changes: dict[str, Any], act: Act, caller: VaultCaller) -> Answer:
    role = login_roles.put_role(act, caller, mount, name, partial(_change, method, caller, changes), role_id=name)
    login_roles.renew_authority(act, caller, role)
    return Answer(status=204)


def _change(
    method: LoginMethod, caller: VaultCaller, changes: Mapping[str, Any], present: Mapping[str, object]
) -> dict[str, object]:
    """Return the settings of a role: `present`, with the changes of a request. Raises Invalid for a member that is not
    valid.
    """
    without = {name for name in method.leeways if changes.get(name) in (-1, "-1")}
    stated = {name: value for name, value in changes.items() if name not in without}
    for names, parse in ((method.lists, parse_texts), (method.pairs, parse_pairs)):
        stated |= {name: parse(stated[name], field=name) for name in names if name in stated}
    settings = login_roles.change_settings(caller, stated, present, durations=method.leeways) | dict.fromkeys(
        without, -1
    )
    method.check(settings)
    return settings


def _delete(mount: str, name: str, act: Act, caller: VaultCaller) -> Answer:
    login_roles.delete_role(act, caller, mount, name)
    return Answer(status=204)
