"""Key-value store, version 2 (HashiCorp Vault, "KV secrets engine - version 2 (API)").

config                        GET, POST
data/PATH                     GET, POST, PATCH, DELETE
delete, undelete, destroy/PATH    POST
metadata/PATH                 GET, LIST, POST, PATCH, DELETE
subkeys/PATH                  GET
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import keyvalue
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.model.aws import keep_attributes
from ostiaryd.secrets.model.keyvalue import (
    MountConfig,
    Secret,
    Version,
    check_custom,
    check_max_versions,
    merge_patch,
    names_below,
    parse_number,
)
from ostiaryd.secrets.model.request import (
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    parse_duration,
    parse_texts,
    render_duration,
    render_time,
    split_path,
)

TYPE = "kv"
DESCRIPTION = "key/value secret storage"
OPTIONS: dict[str, str] | None = {"version": "2"}
MAX_NUMBERS = 1000
EMPTY = Answer(status=204)
_DEPTH = re.compile(r"[0-9]{1,9}")


class _Options(msgspec.Struct):
    cas: int | None = None


class _Value(msgspec.Struct):
    data: dict[str, Any] | None = None
    options: _Options | None = None


class _Versions(msgspec.Struct):
    versions: list[int | str] | str


class _Metadata(msgspec.Struct):
    max_versions: int | UnsetType = UNSET
    cas_required: bool | UnsetType = UNSET
    delete_version_after: int | str | UnsetType = UNSET
    custom_metadata: dict[str, str | None] | UnsetType | None = UNSET


def find_operation(mount: str, request: VaultRequest) -> Operation:
    """Return the operation of a request to a key-value store of version 2. Raises NothingStored if the path does not
    begin with a known word such as `data`; UnsupportedOperation for a method that the path does not support, or an
    empty path of a secret; Malformed for members of wrong types, Invalid for wrong values.
    """
    kind, path = split_path(request.path)
    if kind == "config" and not path:
        return _find_config(mount, request)
    if kind not in ("data", "metadata", "delete", "undelete", "destroy", "subkeys"):
        raise NothingStored("no handler for route", code="no_route")
    if request.method is VaultMethod.LIST:
        if kind != "metadata":
            raise UnsupportedOperation("unsupported operation")
        folder = path if not path or path.endswith("/") else f"{path}/"
        return Operation(SecretAction.LIST, folder, "list", partial(_list, mount=mount, folder=folder))
    if not path or path.endswith("/"):
        raise UnsupportedOperation("the path of a secret is empty or ends with a slash")
    find = {"data": _find_data, "metadata": _find_metadata, "subkeys": _find_subkeys}.get(kind)
    return _find_change(kind, mount, path, request) if find is None else find(mount, path, request)


def _find_config(mount: str, request: VaultRequest) -> Operation:
    match request.method:
        case VaultMethod.READ:
            return Operation(SecretAction.READ, "", "config", partial(_read_config, mount=mount))
        case VaultMethod.WRITE:
            body = request.read_body(_Metadata)
            return Operation(SecretAction.WRITE, "", "config", partial(_write_config, mount=mount, body=body))
    raise UnsupportedOperation("unsupported operation")


def _find_data(mount: str, path: str, request: VaultRequest) -> Operation:
    match request.method:
        case VaultMethod.READ:
            version = request.query.get("version")
            number = parse_number(version) if version else 0
            run = partial(_read, mount=mount, path=path, number=number)
            return Operation(SecretAction.READ, path, "read", run)
        case VaultMethod.WRITE:
            value = request.read_body(_Value, has_nulls=True)
            run = partial(_write, mount=mount, path=path, value=value)
            return Operation(SecretAction.WRITE, path, "write", run, exists=partial(_exists, mount=mount, path=path))
        case VaultMethod.PATCH:
            value = request.read_body(_Value, has_nulls=True)
            return Operation(SecretAction.WRITE, path, "patch", partial(_patch, mount=mount, path=path, value=value))
        case VaultMethod.DELETE:
            return Operation(SecretAction.DELETE, path, "delete", partial(_delete, mount=mount, path=path))
    raise UnsupportedOperation("unsupported operation")


def _find_metadata(mount: str, path: str, request: VaultRequest) -> Operation:
    match request.method:
        case VaultMethod.READ:
            return Operation(SecretAction.READ, path, "metadata", partial(_read_metadata, mount=mount, path=path))
        case VaultMethod.WRITE | VaultMethod.PATCH:
            body = request.read_body(_Metadata, has_nulls=True)
            is_patch = request.method is VaultMethod.PATCH
            run = partial(_write_metadata, mount=mount, path=path, body=body, is_patch=is_patch)
            return Operation(SecretAction.WRITE, path, "metadata", run, exists=partial(_exists, mount=mount, path=path))
        case VaultMethod.DELETE:
            return Operation(SecretAction.DELETE, path, "metadata", partial(_delete_all, mount=mount, path=path))
    raise UnsupportedOperation("unsupported operation")


def _find_subkeys(mount: str, path: str, request: VaultRequest) -> Operation:
    if request.method is not VaultMethod.READ:
        raise UnsupportedOperation("unsupported operation")
    depth = request.query.get("depth", "0")
    if not _DEPTH.fullmatch(depth):
        raise Invalid("`depth` must be a number of levels (0: all levels)")
    number = parse_number(request.query.get("version") or "0")
    run = partial(_read_subkeys, mount=mount, path=path, number=number, depth=int(depth))
    return Operation(SecretAction.READ, path, "subkeys", run)


def _find_change(kind: str, mount: str, path: str, request: VaultRequest) -> Operation:
    if request.method is not VaultMethod.WRITE:
        raise UnsupportedOperation("unsupported operation")
    named = request.read_body(_Versions).versions
    versions = parse_texts(named, field="versions") if isinstance(named, str) else named
    if not 0 < len(versions) <= MAX_NUMBERS:
        raise Invalid(f"`versions` must have 1 to {MAX_NUMBERS} numbers")
    numbers = [parse_number(one) for one in versions]
    action = SecretAction.WRITE if kind == "undelete" else SecretAction.DELETE
    return Operation(action, path, kind, partial(_change, kind=kind, mount=mount, path=path, numbers=numbers))


def _exists(act: Act, *, mount: str, path: str) -> bool:
    return store.keyvalue.get(act.tx, mount, path) is not None


def _read(act: Act, *, mount: str, path: str, number: int) -> Answer:
    secret, version, value = keyvalue.read_value(act, mount, path, number)
    metadata = _render_version(secret, version)
    if value is None:
        return Answer(status=404, data={"data": None, "metadata": metadata})
    return Answer(data={"data": msgspec.Raw(value), "metadata": metadata})


def _read_subkeys(act: Act, *, mount: str, path: str, number: int, depth: int) -> Answer:
    """Return the names of the members of a value without the values, down to `depth` levels (0: all)."""
    secret, version, value = keyvalue.read_value(act, mount, path, number)
    metadata = _render_version(secret, version)
    if value is None:
        return Answer(status=404, data={"subkeys": None, "metadata": metadata})
    return Answer(data={"subkeys": names_below(msgspec.json.decode(value), depth), "metadata": metadata})


def _write(act: Act, *, mount: str, path: str, value: _Value) -> Answer:
    if value.data is None:
        raise Invalid("no data provided")
    cas = None if value.options is None else value.options.cas
    return Answer(data=_render_version(*keyvalue.put_value(act, mount, path, value.data, cas=cas)))


def _patch(act: Act, *, mount: str, path: str, value: _Value) -> Answer:
    _, _, present = keyvalue.read_value(act, mount, path)
    if present is None:
        raise NothingStored("the current version is deleted")
    if value.data is None:
        raise Invalid("no data provided")
    cas = None if value.options is None else value.options.cas
    merged = merge_patch(msgspec.json.decode(present), value.data)
    return Answer(data=_render_version(*keyvalue.put_value(act, mount, path, merged, cas=cas)))


def _delete(act: Act, *, mount: str, path: str) -> Answer:
    keyvalue.delete_versions(act, mount, path)
    return EMPTY


def _change(act: Act, *, kind: str, mount: str, path: str, numbers: list[int]) -> Answer:
    changes = {
        "delete": keyvalue.delete_versions,
        "undelete": keyvalue.restore_versions,
        "destroy": keyvalue.destroy_versions,
    }
    changes[kind](act, mount, path, numbers)
    return EMPTY


def _list(act: Act, *, mount: str, folder: str) -> Answer:
    act.entry.object = f"{mount}/{folder}"
    return Answer(data={"keys": keyvalue.list_keys(act.tx, mount, folder)})


def _delete_all(act: Act, *, mount: str, path: str) -> Answer:
    keyvalue.delete_secret(act, mount, path)
    return EMPTY


def _read_metadata(act: Act, *, mount: str, path: str) -> Answer:
    act.entry.object = f"{mount}/{path}"
    if (secret := store.keyvalue.get(act.tx, mount, path)) is None:
        raise NothingStored("no value is stored at this path")
    versions = {
        str(one.version): {
            "created_time": render_time(one.created_at),
            "deletion_time": render_time(one.deleted_at),
            "destroyed": one.is_destroyed,
        }
        for one in store.keyvalue.versions(act.tx, mount, path)
    }
    return Answer(
        data={
            "cas_required": secret.cas_required,
            "created_time": render_time(secret.created_at),
            "current_version": secret.current_version,
            "custom_metadata": secret.custom or None,
            "delete_version_after": render_duration(secret.delete_after),
            "max_versions": secret.max_versions,
            "oldest_version": secret.oldest_version,
            "updated_time": render_time(secret.updated_at),
            "versions": versions,
        }
    )


def _write_metadata(act: Act, *, mount: str, path: str, body: _Metadata, is_patch: bool) -> Answer:
    secret = store.keyvalue.get(act.tx, mount, path)
    if secret is None:
        if is_patch:
            raise NothingStored("no value is stored at this path")
        secret = Secret(created_at=act.now, updated_at=act.now)
    if body.max_versions is not UNSET:
        secret = replace(secret, max_versions=check_max_versions(body.max_versions))
    if body.cas_required is not UNSET:
        secret = replace(secret, cas_required=body.cas_required)
    if body.delete_version_after is not UNSET:
        after = parse_duration(body.delete_version_after, field="delete_version_after")
        secret = replace(secret, delete_after=after)
    if body.custom_metadata is not UNSET:
        changed = dict(body.custom_metadata or {})
        if is_patch and body.custom_metadata is not None:
            changed = {**secret.custom, **changed}
        custom = {name: value for name, value in changed.items() if value is not None}
        secret = replace(secret, custom=check_custom(keep_attributes(custom, secret.custom)))
    keyvalue.set_metadata(act, mount, path, secret)
    return EMPTY


def _read_config(act: Act, *, mount: str) -> Answer:
    act.entry.object = f"{mount}/"
    config = store.keyvalue.config(act.tx, mount)
    return Answer(
        data={
            "cas_required": config.cas_required,
            "delete_version_after": render_duration(config.delete_after),
            "max_versions": config.max_versions,
        }
    )


def _write_config(act: Act, *, mount: str, body: _Metadata) -> Answer:
    config: MountConfig = store.keyvalue.config(act.tx, mount)
    if body.max_versions is not UNSET:
        config = replace(config, max_versions=check_max_versions(body.max_versions))
    if body.cas_required is not UNSET:
        config = replace(config, cas_required=body.cas_required)
    if body.delete_version_after is not UNSET:
        after = parse_duration(body.delete_version_after, field="delete_version_after")
        config = replace(config, delete_after=after)
    keyvalue.set_config(act, mount, config)
    return EMPTY


def _render_version(secret: Secret, version: Version) -> dict[str, object]:
    return {
        "created_time": render_time(version.created_at),
        "custom_metadata": secret.custom or None,
        "deletion_time": render_time(version.deleted_at),
        "destroyed": version.is_destroyed,
        "version": version.version,
    }
