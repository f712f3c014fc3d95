"""JWT methods that agents enabled: logins by tokens of other issuers (HashiCorp Vault, "JWT/OIDC auth method (API)").

config                  GET, POST
role                    LIST
role/NAME               GET, POST, DELETE

Policies of this server see `auth/MOUNT/role/..`. The configuration and the roles belong to their agent; the name of a
role is one agent's at a mount, since a login names the role alone. A login is in `wire_jwt_logins`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict

from ostiary.protocol.decoding import convert
from ostiary.protocol.errors import Invalid
from ostiaryd.ground.outbound.fetch import check_named
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets.flows import login_roles as flows
from ostiaryd.secrets.flows.callers import CallerOperation, VaultCaller
from ostiaryd.secrets.model.jwt_login import JwtConfig, JwtRole, check_config, check_role
from ostiaryd.secrets.model.login_role import TOKEN_DEFAULTS, RoleBody
from ostiaryd.secrets.model.request import (
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    parse_texts,
)

_LEEWAYS = ("clock_skew_leeway", "expiration_leeway", "not_before_leeway")
_OIDC_CONFIG = (
    "oidc_client_id",
    "oidc_client_secret",
    "oidc_response_mode",
    "oidc_response_types",
    "provider_config",
    "jwks_pairs",
)
_OIDC_ROLE = ("groups_claim", "oidc_scopes", "max_age", "verbose_oidc_logging")
"""Members that are refused if they are set: logins in a browser, and groups of the identity engine."""


class _Config(Struct):
    oidc_discovery_url: str = ""
    oidc_discovery_ca_pem: str = ""
    jwks_url: str = ""
    jwks_ca_pem: str = ""
    jwt_validation_pubkeys: str | list[str] = []
    jwt_supported_algs: str | list[str] = []
    bound_issuer: str = ""
    default_role: str = ""


class _Role(RoleBody):
    role_type: str | UnsetType = UNSET
    user_claim: str | UnsetType = UNSET
    user_claim_json_pointer: bool | UnsetType = UNSET
    bound_audiences: str | list[str] | UnsetType = UNSET
    bound_subject: str | UnsetType = UNSET
    bound_claims: dict[str, Any] | UnsetType = UNSET
    bound_claims_type: str | UnsetType = UNSET
    claim_mappings: dict[str, str] | UnsetType = UNSET
    clock_skew_leeway: int | str | UnsetType = UNSET
    expiration_leeway: int | str | UnsetType = UNSET
    not_before_leeway: int | str | UnsetType = UNSET
    allowed_redirect_uris: str | list[str] | UnsetType = UNSET


DEFAULTS: dict[str, Any] = {
    **TOKEN_DEFAULTS,
    "allowed_redirect_uris": [],
    "bound_audiences": [],
    "bound_claims": {},
    "bound_claims_type": "string",
    "bound_subject": "",
    "claim_mappings": {},
    "clock_skew_leeway": 0,
    "expiration_leeway": 0,
    "groups_claim": "",
    "not_before_leeway": 0,
    "role_type": "jwt",
    "user_claim": "",
    "user_claim_json_pointer": False,
}


def find_operation(mount: str, rest: str, request: VaultRequest, *, private: Collection[str]) -> CallerOperation:
    """Return the operation of a request at `mount` (`auth/jwt-2`). `private` are the hosts that the operator opens.

    Raises UnsupportedOperation, NothingStored, Invalid.
    """
    path = f"{mount.removeprefix('auth/')}/{rest}"
    kind, _, name = rest.partition("/")
    if kind not in ("config", "role") or (kind == "config" and name):
        raise NothingStored("no handler for route", code="no_route")
    match kind, request.method, bool(name):
        case "config", VaultMethod.READ, _:
            return CallerOperation(SecretAction.READ, path, "read", partial(_read_config, mount))
        case "config", VaultMethod.WRITE, _:
            config = _parse_config(request, private=private)
            return CallerOperation(SecretAction.WRITE, path, "write", partial(_put_config, mount, config))
        case "role", VaultMethod.LIST, False:
            return CallerOperation(SecretAction.LIST, path, "list", partial(_list, mount))
        case "role", VaultMethod.READ, True:
            return CallerOperation(SecretAction.READ, path, "read", partial(_read, mount, name))
        case "role", VaultMethod.DELETE, True:
            return CallerOperation(SecretAction.DELETE, path, "delete", partial(_delete, mount, name))
        case "role", VaultMethod.WRITE, True:
            _refuse(request.body, _OIDC_ROLE)
            body = request.read_body(_Role, has_nulls=False)
            run = partial(_put, mount, name, body)
            return CallerOperation(SecretAction.WRITE, path, "write", run, partial(flows.has_role, mount, name))
    raise UnsupportedOperation("unsupported operation")


def _refuse(body: Mapping[str, Any], members: Collection[str]) -> None:
    for name in members:
        if body.get(name):
            raise Invalid(f"`{name}` is not supported: agents log in without a browser, and have no groups")


def _parse_config(request: VaultRequest, *, private: Collection[str]) -> JwtConfig:
    _refuse(request.body, _OIDC_CONFIG)
    members = asdict(request.read_body(_Config, has_nulls=False))
    for name in ("jwt_validation_pubkeys", "jwt_supported_algs"):
        members[name] = parse_texts(members[name])
    config = convert(members, JwtConfig)
    check_config(config)
    if config.url:
        check_named(config.url, of="the URL of the keys", private=private)
    return config


def _read_config(mount: str, act: Act, caller: VaultCaller) -> Answer:
    absent = {"oidc_client_id": "", "oidc_response_mode": "", "oidc_response_types": [], "provider_config": {}}
    return Answer(data={**absent, **flows.find_config(act, caller, mount)})


def _put_config(mount: str, config: JwtConfig, act: Act, caller: VaultCaller) -> Answer:
    flows.put_config(act, caller, mount, asdict(config))
    return Answer(status=204)


def _list(mount: str, act: Act, caller: VaultCaller) -> Answer:
    return Answer(data={"keys": flows.list_roles(act, caller, mount)})


def _read(mount: str, name: str, act: Act, caller: VaultCaller) -> Answer:
    shown = flows.render_settings(flows.find_role(act, caller, mount, name), DEFAULTS)
    del shown["policies"]
    return Answer(data=shown)


def _put(mount: str, name: str, body: _Role, act: Act, caller: VaultCaller) -> Answer:
    role = flows.put_role(act, caller, mount, name, partial(_change, caller, body), role_id=name)
    flows.renew_authority(act, caller, role)
    return Answer(status=204)


def _change(caller: VaultCaller, body: _Role, present: Mapping[str, object]) -> dict[str, object]:
    """Return the settings of a role after a change. Raises Invalid."""
    changes = body.stated()
    if changes.get("role_type", present.get("role_type")) != "jwt":
        raise Invalid("roles of the type oidc are not supported", hint="role_type=jwt")
    for name in ("allowed_redirect_uris", "bound_audiences"):
        if name in changes:
            changes[name] = parse_texts(changes[name])
    unset = {name: changes.pop(name) for name in _LEEWAYS if changes.get(name) in (-1, "-1")}
    settings = flows.change_settings(caller, changes, present, durations=_LEEWAYS)
    settings |= dict.fromkeys(unset, -1)
    check_role(convert(settings, JwtRole))
    return settings


def _delete(mount: str, name: str, act: Act, caller: VaultCaller) -> Answer:
    flows.delete_role(act, caller, mount, name)
    return Answer(status=204)
