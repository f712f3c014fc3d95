"""Mounts at `sys/mounts`, `sys/auth` and `sys/remount` (HashiCorp Vault, "/sys/mounts", "/sys/auth", "/sys/remount").

sys/mounts, sys/auth                  GET
sys/mounts/PATH, sys/auth/PATH        GET, POST, DELETE
sys/mounts/PATH/tune                  GET, POST
sys/remount                           POST
sys/remount/status/ID                 GET

The paths in policies are `sys/mounts/PATH`, `sys/auth/PATH` and `sys/remount`. A move also needs `delete_secret` at the
old path of the mount and `write_secret` at the new path. The response to a move comes after the move.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from msgspec import Struct

from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.jose import b64u, unb64u
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets import store
from ostiaryd.secrets.engines.login_methods import refuse_members
from ostiaryd.secrets.flows import mounts
from ostiaryd.secrets.flows.callers import CUBBYHOLE, VaultCaller, may_reach
from ostiaryd.secrets.flows.engine import MOUNTS, Operation, engine_of
from ostiaryd.secrets.flows.policies import may_reach_below
from ostiaryd.secrets.model.backend import BACKEND_MOUNT
from ostiaryd.secrets.model.mount import AUTH, DEFAULT_TTL_S, MAX_TTL_S, Mount, parse_ttl, prefixes
from ostiaryd.secrets.model.request import (
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    check_path,
)

_UNSUPPORTED = {
    **dict.fromkeys(
        ("audit_non_hmac_request_keys", "audit_non_hmac_response_keys"), "the ledger records no values of secrets"
    ),
    **dict.fromkeys(("passthrough_request_headers", "allowed_response_headers"), "engines do not use headers"),
    **dict.fromkeys(
        ("external_entropy_access", "local", "seal_wrap"),
        "the server encrypts all mounts in the same way, and all servers of the database share them",
    ),
    **dict.fromkeys(
        ("allowed_managed_keys", "delegated_auth_accessors", "identity_token_key"), "leave out this member"
    ),
    **dict.fromkeys(("plugin_name", "plugin_version"), "this server has no plugins"),
    "user_lockout_config": "no login method of this server uses passwords",
}
"""Members that are refused if a request about a mount sets them (also in `config`), each with the reason."""


_CUBBYHOLE = Mount(
    path=CUBBYHOLE,
    type=CUBBYHOLE,
    description="private values of a token",
    accessor=f"{CUBBYHOLE}_ostiary",
    created_at=0,
)


class _Config(Struct, frozen=True):
    default_lease_ttl: int | str = ""
    max_lease_ttl: int | str = ""


class _NewMount(Struct):
    type: str
    description: str = ""
    config: _Config = _Config()
    options: dict[str, Any] | None = None


class _Tuning(_Config, frozen=True):
    description: str | None = None
    options: dict[str, Any] | None = None


def find_operation(request: VaultRequest) -> tuple[str, Operation]:
    """Return the mount (always `sys`) and the operation of a request below `sys/mounts`, `sys/auth` or `sys/remount`.
    Raises UnsupportedOperation for a method that the path does not support; Malformed for members of wrong types,
    Invalid for unsupported members.
    """
    path = check_path(request.path).removeprefix("sys/").removesuffix("/")
    kind, _, name = path.partition("/")
    if kind == "remount" and not name:
        if request.method is not VaultMethod.WRITE:
            raise UnsupportedOperation("unsupported operation")
        return "sys", _find_move(request)
    if kind == "remount" and name.startswith("status/") and request.method is VaultMethod.READ:
        show_move = partial(_show_move, migration_id=name.removeprefix("status/"))
        return "sys", Operation(SecretAction.READ, path, "read", show_move)
    start = AUTH if kind == "auth" else ""
    is_tuning = name.endswith("/tune")
    mount = f"{start}{name.removesuffix('/tune')}"
    match request.method, bool(name), is_tuning:
        case VaultMethod.READ, False, _:
            return "sys", Operation(SecretAction.READ, path, "list", partial(_list, is_auth=bool(start)))
        case VaultMethod.READ, True, _:
            show = _render_tuning if is_tuning else render_mount
            return "sys", Operation(SecretAction.READ, path, "read", lambda act: Answer(data=show(_find(act, mount))))
        case VaultMethod.WRITE, True, True:
            _check_members(request)
            run = partial(_tune, path=mount, body=request.read_body(_Tuning))
            return "sys", Operation(SecretAction.WRITE, path, "tune", run)
        case VaultMethod.WRITE, True, False:
            _check_members(request)
            run = partial(_enable, path=mount, body=request.read_body(_NewMount))
            return "sys", Operation(SecretAction.WRITE, path, "enable", run)
        case VaultMethod.DELETE, True, False:
            return "sys", Operation(SecretAction.DELETE, path, "disable", partial(_disable, path=mount))
    raise UnsupportedOperation("unsupported operation")


def _check_members(request: VaultRequest) -> None:
    """Check that a request about a mount sets no member that this server would ignore. Raises Invalid otherwise."""
    config = request.body.get("config")
    for members in (request.body, config if isinstance(config, dict) else {}):
        refuse_members(members, _UNSUPPORTED)
        if members.get("listing_visibility") not in (None, "", "hidden"):
            raise Invalid(
                "`listing_visibility` must be hidden: only agents that may reach a mount see it",
                hint="leave `listing_visibility` out",
            )
        if members.get("token_type") not in (None, "", "default", "default-service", "service"):
            raise Invalid("only tokens of the type service are supported", hint="set token_type=default-service")


def _enable(act: Act, *, path: str, body: _NewMount) -> Answer:
    type_, version = body.type, str((body.options or {}).get("version") or "")
    if type_ in ("kv", "generic", "kv-v2") and not path.startswith(AUTH):
        version = version or ("2" if type_ == "kv-v2" else "1")
        type_ = "kv"
    elif version:
        raise Invalid(
            f"`options` with a version is not allowed for a mount of the type {type_[:64]}", hint="leave out `options`"
        )
    default_ttl, max_ttl = _ttls(body.config)
    mount = Mount(
        path=path,
        type=type_,
        version=version,
        description=body.description,
        default_ttl=default_ttl or 0,
        max_ttl=max_ttl or 0,
        accessor=f"{'auth_' if path.startswith(AUTH) else ''}{type_[:32]}_{act.tx.random(4).hex()}",
        created_at=act.now,
    )
    mounts.enable_mount(act, mount)
    return Answer(status=204)


def _ttls(config: _Config | _Tuning) -> tuple[int | None, int | None]:
    return (
        parse_ttl(config.default_lease_ttl, field="default_lease_ttl"),
        parse_ttl(config.max_lease_ttl, field="max_lease_ttl"),
    )


def _tune(act: Act, *, path: str, body: _Tuning) -> Answer:
    default_ttl, max_ttl = _ttls(body)
    mount = _find(act, path)
    if body.options and body.options != _options_of(mount):
        raise Invalid(
            "the options of a mount cannot be changed", hint="enable another mount, and copy the values to it"
        )
    if default_ttl is max_ttl is None and body.description in (None, mount.description):
        return Answer(status=204)
    mounts.tune_mount(act, path, description=body.description, default_ttl=default_ttl, max_ttl=max_ttl)
    return Answer(status=204)


def _find_move(request: VaultRequest) -> Operation:
    """Return the operation that moves a mount. Policies also decide `delete_secret` at the old path and `write_secret`
    at the new path.
    """
    members = (request.body.get("from"), request.body.get("to"))
    source, target = (one.strip("/") if isinstance(one, str) else "" for one in members)
    also: tuple[tuple[SecretAction, str], ...] = ()
    if source and target:
        source, target = check_path(source), check_path(target)
        also = ((SecretAction.DELETE, _policy_path(source)), (SecretAction.WRITE, _policy_path(target)))
    return Operation(SecretAction.WRITE, "remount", "move", partial(_move, source, target), also=also)


def _policy_path(mount: str) -> str:
    """Return the path below `sys/` by which policies name a mount or a login method."""
    return mount if mount.startswith(AUTH) else f"mounts/{mount}"


def _move(source: str, target: str, act: Act) -> Answer:
    if not source or not target:
        raise Invalid("`from` and `to` are required")
    mounts.move_mount(act, source, target)
    return Answer(data={"migration_id": b64u(f"{source}\n{target}".encode())})


def _show_move(act: Act, *, migration_id: str) -> Answer:
    """Return that a move is done. Raises NothingStored if no mount is at the path that the id of the move states."""
    try:
        source, _, target = unb64u(migration_id).decode().partition("\n")
    except (Malformed, ValueError):
        source = target = ""
    if not target or target not in {one.path for one in store.mounts.get_all(act.tx)}:
        raise NothingStored("move not found")
    move = {"source_mount": f"{source}/", "target_mount": f"{target}/", "status": "success"}
    return Answer(data={"migration_id": migration_id, "migration_info": move})


def _disable(act: Act, *, path: str) -> Answer:
    mounts.disable_mount(act, path)
    return Answer(status=204)


def _list(act: Act, *, is_auth: bool) -> Answer:
    return Answer(data=render_mounts(list_all(act, is_auth=is_auth)))


def render_mounts(mounts: Iterable[Mount]) -> dict[str, object]:
    """Return the JSON of mounts, or of login methods, by path; each path ends with a slash."""
    return {f"{one.path.removeprefix(AUTH)}/": render_mount(one) for one in mounts}


def list_reachable(act: Act, caller: VaultCaller, *, is_auth: bool) -> list[Mount]:
    """Return the mounts, or with `is_auth` the login methods, that the caller may reach: all fixed ones, and each other
    one at which policies may permit the caller at least one action.
    """
    listed = list_all(act, is_auth=is_auth)
    return [one for one in listed if mounts.is_fixed(one.path) or _is_reachable(act, caller, one.path)]


def is_hidden(act: Act, caller: VaultCaller, path: str) -> bool:
    """Return whether a path is below an enabled (not fixed) mount at which policies permit the caller nothing, so that
    the caller must not learn that the mount exists.
    """
    mount = store.mounts.find(act.tx, prefixes(path))
    return mount is not None and not _is_reachable(act, caller, mount.path)


def _is_reachable(act: Act, caller: VaultCaller, path: str) -> bool:
    place = _policy_path(path)
    if may_reach(act, caller, "sys", place) and may_reach_below(act, caller, f"sys/{place}"):
        return True
    if path.startswith(AUTH):
        has_role = bool(store.login_roles.names(act.tx, path, caller.agent.agent_id, limit=1))
        return has_role and may_reach_below(act, caller, path)
    mount = BACKEND_MOUNT if path.startswith(f"{BACKEND_MOUNT}/") else path
    return may_reach(act, caller, mount) and may_reach_below(act, caller, path)


def list_all(act: Act, *, is_auth: bool) -> list[Mount]:
    """Return all mounts: the fixed mounts, the back ends, and the mounts that agents enabled. With `is_auth`, return
    all login methods instead: the fixed methods, and the methods that agents enabled.
    """
    enabled = [one for one in store.mounts.get_all(act.tx) if one.path.startswith(AUTH) == is_auth]
    if is_auth:
        return [_fixed_method(name) for name in (*mounts.FIXED_METHODS, "token")] + enabled
    names = [f"{BACKEND_MOUNT}/{one.name}" for one in store.backends.get_all(act.tx)]
    fixed = [fixed_mount(mount) for mount in [*(one for one in MOUNTS if one != BACKEND_MOUNT), *names]]
    return [_CUBBYHOLE, *fixed, *enabled]


def fixed_mount(path: str) -> Mount:
    """Return the record of a fixed mount such as `secret`, or of a back end's mount `backend/NAME`."""
    module = MOUNTS[path.partition("/")[0]]
    engine = engine_of(module)
    version = (engine.OPTIONS or {}).get("version", "")
    accessor = f"{path.replace('/', '_')}_ostiary"
    return Mount(
        path=path, type=engine.TYPE, version=version, description=engine.DESCRIPTION, accessor=accessor, created_at=0
    )


def _fixed_method(name: str) -> Mount:
    return Mount(path=f"{AUTH}{name}", type=name, accessor=f"auth_{name}_ostiary", created_at=0)


def _find(act: Act, path: str) -> Mount:
    for mount in list_all(act, is_auth=path.startswith(AUTH)):
        if mount.path == path:
            return mount
    return mounts.find_mount(act.tx, path)


def render_mount(mount: Mount) -> dict[str, object]:
    """Return the JSON of a mount in the form of the Vault API."""
    return {
        "accessor": mount.accessor,
        "config": {
            "default_lease_ttl": mount.default_ttl,
            "force_no_cache": False,
            "max_lease_ttl": mount.max_ttl,
            **_token_type_of(mount),
        },
        "description": mount.description,
        "external_entropy_access": False,
        "local": False,
        "options": _options_of(mount),
        "seal_wrap": False,
        "type": mount.type,
        "uuid": "",
    }


def _render_tuning(mount: Mount) -> dict[str, object]:
    return {
        "default_lease_ttl": mount.default_ttl or DEFAULT_TTL_S,
        "description": mount.description,
        "force_no_cache": False,
        "max_lease_ttl": mount.max_ttl or MAX_TTL_S,
        "options": _options_of(mount),
        **_token_type_of(mount),
    }


def _token_type_of(mount: Mount) -> dict[str, str]:
    return {"token_type": "default-service"} if mount.path.startswith(AUTH) else {}


def _options_of(mount: Mount) -> dict[str, str] | None:
    return {"version": mount.version} if mount.version else None
