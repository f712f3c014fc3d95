"""Key-value store, version 1: one value for each path (HashiCorp Vault, "KV secrets engine - version 1 (API)")."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets import store
from ostiaryd.secrets.flows import keyvalue
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.model.request import (
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
)

TYPE = "kv"
DESCRIPTION = "key/value secret storage"
OPTIONS: dict[str, str] | None = {"version": "1"}
LEASE_S = 2_764_800
"""Seconds after which a client should read a value again, shown as `lease_duration`. The server stores no lease for a
value.
"""


def find_operation(mount: str, request: VaultRequest) -> Operation:
    """Return the operation of a request to a key-value store of version 1. Raises UnsupportedOperation if the path of a
    secret is empty or ends with a slash or for an unsupported method, Invalid for a write without members.
    """
    path = request.path
    if request.method is VaultMethod.LIST:
        folder = path if not path or path.endswith("/") else f"{path}/"
        return Operation(SecretAction.LIST, folder, "list", partial(_list, mount=mount, folder=folder))
    if not path or path.endswith("/"):
        raise UnsupportedOperation("the path of a secret is empty or ends with a slash")
    match request.method:
        case VaultMethod.READ:
            return Operation(SecretAction.READ, path, "read", partial(_read, mount=mount, path=path))
        case VaultMethod.WRITE:
            if not request.body:
                raise Invalid("missing data fields")
            run = partial(_write, mount=mount, path=path, value=request.body)
            return Operation(SecretAction.WRITE, path, "write", run, exists=partial(_exists, mount=mount, path=path))
        case VaultMethod.DELETE:
            return Operation(SecretAction.DELETE, path, "delete", partial(_delete, mount=mount, path=path))
    raise UnsupportedOperation("unsupported operation")


def _exists(act: Act, *, mount: str, path: str) -> bool:
    return store.keyvalue.get(act.tx, mount, path) is not None


def _read(act: Act, *, mount: str, path: str) -> Answer:
    _, _, value = keyvalue.read_value(act, mount, path)
    if value is None:
        raise NothingStored("no value is stored at this path")
    return Answer(data=msgspec.Raw(value), lease_s=LEASE_S)


def _write(act: Act, *, mount: str, path: str, value: Mapping[str, Any]) -> Answer:
    _, version = keyvalue.put_value(act, mount, path, value)
    store.keyvalue.prune(act.tx, mount, path, before=version.version)
    return Answer(status=204)


def _delete(act: Act, *, mount: str, path: str) -> Answer:
    keyvalue.delete_secret(act, mount, path)
    return Answer(status=204)


def _list(act: Act, *, mount: str, folder: str) -> Answer:
    act.entry.object = f"{mount}/{folder}"
    return Answer(data={"keys": keyvalue.list_keys(act.tx, mount, folder)})
