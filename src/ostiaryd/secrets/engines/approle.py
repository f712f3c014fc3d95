"""AppRole methods that agents enabled (HashiCorp Vault, "AppRole auth method (API)").

role                                          LIST
role/NAME                                     GET, POST, DELETE
role/NAME/role-id                             GET, POST
role/NAME/secret-id, custom-secret-id         POST; secret-id   LIST
role/NAME/secret-id/lookup, destroy           POST; secret-id-accessor/lookup, destroy   POST

The path in policies of this server is `auth/MOUNT/role/..`. Logins are handled in `wire_vault`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets.flows import login_roles
from ostiaryd.secrets.flows.callers import CallerOperation, VaultCaller
from ostiaryd.secrets.model.login_role import TOKEN_DEFAULTS, RoleBody, SecretId
from ostiaryd.secrets.model.request import (
    SECOND,
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    parse_duration,
    parse_texts,
    render_time,
)

MAX_METADATA = 32
_decode_metadata = json_decoder(dict[str, str])
_DEFAULTS: dict[str, Any] = {
    **TOKEN_DEFAULTS,
    "bind_secret_id": True,
    "local_secret_ids": False,
    "secret_id_bound_cidrs": None,
    "secret_id_num_uses": 0,
    "secret_id_ttl": 0,
}


class _Role(RoleBody):
    bind_secret_id: bool | UnsetType = UNSET
    secret_id_bound_cidrs: str | list[str] | UnsetType = UNSET
    secret_id_num_uses: int | UnsetType = UNSET
    secret_id_ttl: int | str | UnsetType = UNSET


class _RoleId(Struct):
    role_id: str


class _NewSecretId(Struct):
    secret_id: str = ""
    metadata: str = ""
    cidr_list: str | list[str] = ""
    num_uses: int | None = None
    ttl: int | str | None = None


class _SecretIdName(Struct):
    secret_id: str = ""
    secret_id_accessor: str = ""


def find_operation(mount: str, rest: str, request: VaultRequest) -> CallerOperation:
    """Return the operation of a request to the AppRole method at `mount` (`auth/approle-2`); `rest` is the path below
    the mount. Raises NothingStored for a path that does not begin with `role`, UnsupportedOperation for a method that
    the path does not support; Malformed for members of wrong types, Invalid if `secret_id` is missing or not allowed.
    """
    path = f"{mount.removeprefix('auth/')}/{rest}"
    kind, _, below = rest.partition("/")
    name, _, member = below.partition("/")
    if kind != "role":
        raise NothingStored("no handler for route", code="no_route")
    match request.method, bool(name), member:
        case VaultMethod.LIST, False, "":
            return CallerOperation(SecretAction.LIST, path, "list", partial(_list, mount))
        case VaultMethod.LIST, True, "secret-id":
            return CallerOperation(SecretAction.LIST, path, "list", partial(_list_secret_ids, mount, name))
        case VaultMethod.READ, True, "":
            return CallerOperation(SecretAction.READ, path, "read", partial(_read, mount, name))
        case VaultMethod.READ, True, "role-id":
            return CallerOperation(SecretAction.READ, path, "read", partial(_read_role_id, mount, name))
        case VaultMethod.DELETE, True, "":
            return CallerOperation(SecretAction.DELETE, path, "delete", partial(_delete, mount, name))
        case VaultMethod.WRITE, True, "":
            run = partial(_put, mount, name, request.read_body(_Role))
            return CallerOperation(SecretAction.WRITE, path, "write", run, partial(login_roles.has_role, mount, name))
        case VaultMethod.WRITE, True, "role-id":
            role_id = request.read_body(_RoleId).role_id
            return CallerOperation(SecretAction.WRITE, path, "write", partial(_put_role_id, mount, name, role_id))
        case VaultMethod.WRITE, True, "secret-id" | "custom-secret-id":
            body = request.read_body(_NewSecretId)
            if (member == "custom-secret-id") != bool(body.secret_id):
                raise Invalid("`secret_id` is required for custom-secret-id, and not allowed for secret-id")
            return CallerOperation(SecretAction.WRITE, path, "generate", partial(_generate, mount, name, body))
        case VaultMethod.WRITE | VaultMethod.DELETE, True, _ if member in _ON_SECRET_ID:
            is_accessor, is_lookup = _ON_SECRET_ID[member]
            named = request.read_body(_SecretIdName)
            text = named.secret_id_accessor if is_accessor else named.secret_id
            run = partial(_use_secret_id, mount, name, text, is_accessor=is_accessor, is_lookup=is_lookup)
            action = SecretAction.READ if is_lookup else SecretAction.DELETE
            return CallerOperation(action, path, "lookup" if is_lookup else "destroy", run)
    raise UnsupportedOperation("unsupported operation")


_ON_SECRET_ID = {
    "secret-id/lookup": (False, True),
    "secret-id/destroy": (False, False),
    "secret-id-accessor/lookup": (True, True),
    "secret-id-accessor/destroy": (True, False),
}
"""Paths below a role, each with two facts: whether the request names an accessor, and whether it only looks up a secret
ID.
"""


def _list(mount: str, act: Act, caller: VaultCaller) -> Answer:
    return Answer(data={"keys": login_roles.list_roles(act, caller, mount)})


def _read(mount: str, name: str, act: Act, caller: VaultCaller) -> Answer:
    role = login_roles.find_role(act, caller, mount, name)
    shown = login_roles.render_settings(role, _DEFAULTS)
    del shown["policies"]
    return Answer(data=shown)


def _put(mount: str, name: str, body: _Role, act: Act, caller: VaultCaller) -> Answer:
    login_roles.put_role(act, caller, mount, name, partial(_change, caller, body))
    return Answer(status=204)


def _change(caller: VaultCaller, body: _Role, present: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of a role: `present`, changed by the members of `body`. Raises Invalid for a member that is
    not valid.
    """
    changes = body.stated()
    if changes.get("bind_secret_id") is False:
        raise Invalid("`bind_secret_id` must be true", hint="leave out `bind_secret_id`")
    return login_roles.change_settings(caller, changes, present, durations=("secret_id_ttl",))


def _delete(mount: str, name: str, act: Act, caller: VaultCaller) -> Answer:
    login_roles.delete_role(act, caller, mount, name)
    return Answer(status=204)


def _read_role_id(mount: str, name: str, act: Act, caller: VaultCaller) -> Answer:
    return Answer(data={"role_id": login_roles.find_role(act, caller, mount, name).role_id})


def _put_role_id(mount: str, name: str, role_id: str, act: Act, caller: VaultCaller) -> Answer:
    login_roles.set_role_id(act, caller, mount, name, role_id)
    return Answer(status=204)


def _generate(mount: str, name: str, body: _NewSecretId, act: Act, caller: VaultCaller) -> Answer:
    ttl = None if body.ttl is None else parse_duration(body.ttl, field="ttl") // SECOND
    text, one = login_roles.generate_secret_id(
        act,
        caller,
        mount,
        name,
        text=body.secret_id,
        metadata=_parse_metadata(body.metadata),
        networks=parse_texts(body.cidr_list, field="cidr_list"),
        uses=body.num_uses,
        seconds=ttl,
    )
    return Answer(
        data={
            "secret_id": text,
            "secret_id_accessor": one.accessor,
            "secret_id_num_uses": one.uses,
            "secret_id_ttl": (one.expires_at - one.created_at) // SECOND,
        }
    )


def _parse_metadata(text: str) -> dict[str, str]:
    try:
        metadata = _decode_metadata(text) if text else {}
    except msgspec.MsgspecError:
        raise Invalid("`metadata` must be the text of a JSON object whose members are texts") from None
    if len(metadata) > MAX_METADATA:
        raise Invalid(f"`metadata` may have at most {MAX_METADATA} members")
    return metadata


def _list_secret_ids(mount: str, name: str, act: Act, caller: VaultCaller) -> Answer:
    return Answer(data={"keys": login_roles.list_secret_ids(act, caller, mount, name)})


def _use_secret_id(
    mount: str, name: str, text: str, act: Act, caller: VaultCaller, *, is_accessor: bool, is_lookup: bool
) -> Answer:
    one = login_roles.find_secret_id(act, caller, mount, name, text, is_accessor=is_accessor)
    if is_lookup:
        return Answer(data=_render_secret_id(one))
    login_roles.destroy_secret_id(act, one)
    return Answer(status=204)


def _render_secret_id(one: SecretId) -> dict[str, object]:
    return {
        "cidr_list": one.networks,
        "creation_time": render_time(one.created_at),
        "expiration_time": render_time(one.expires_at),
        "last_updated_time": render_time(one.created_at),
        "metadata": one.metadata,
        "secret_id_accessor": one.accessor,
        "secret_id_num_uses": max(one.uses_left, 0),
        "secret_id_ttl": (one.expires_at - one.created_at) // SECOND,
        "token_bound_cidrs": [],
    }
