"""Back ends as key-value stores of version 2. Secrets are read through this server and written at the back end
itself.
"""

from __future__ import annotations

from functools import partial

from ostiaryd.ledger.flows import Act
from ostiaryd.secrets.flows.backends import find_backend
from ostiaryd.secrets.flows.engine import Operation
from ostiaryd.secrets.model.backend import BACKEND_MOUNT
from ostiaryd.secrets.model.keyvalue import parse_number
from ostiaryd.secrets.model.request import (
    Answer,
    NothingStored,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    split_path,
)
from ostiaryd.secrets.model.upstream import ListBackend, ReadBackend

TYPE = "kv"
DESCRIPTION = "secrets of an existing store"
OPTIONS: dict[str, str] | None = {"version": "2"}


def find_operation(mount: str, request: VaultRequest) -> Operation:
    """Return the operation of a request below the mount `backend`. Raises NothingStored for a path other than
    NAME/data/PATH and NAME/metadata/FOLDER; UnsupportedOperation for other methods than reading and listing, and for an
    earlier version; Invalid if `version` is not a number.
    """
    name, below = split_path(request.path)
    kind, path = split_path(below)
    if kind not in ("data", "metadata"):
        raise NothingStored("no handler for route", code="no_route")
    if kind == "metadata" and request.method is VaultMethod.LIST:
        folder = path if not path or path.endswith("/") else f"{path}/"
        run = partial(_list, name=name, folder=folder)
        return Operation(SecretAction.LIST, f"{name}/{folder}", "list", run)
    if kind != "data" or request.method is not VaultMethod.READ or not path or path.endswith("/"):
        raise UnsupportedOperation(
            "this server only reads and lists the secrets of a back end; write them at the back end"
        )
    if parse_number(request.query.get("version", "0")):
        raise UnsupportedOperation("a back end has only the present version", hint="leave out `version`")
    return Operation(SecretAction.READ, f"{name}/{path}", "read", partial(_read, name=name, path=path))


def _read(act: Act, *, name: str, path: str) -> Answer:
    find_backend(act.tx, name)
    return Answer(upstream=ReadBackend(name, path, act.entry.token or ""))


def _list(act: Act, *, name: str, folder: str) -> Answer:
    act.entry.object = f"{BACKEND_MOUNT}/{name}/{folder}"
    find_backend(act.tx, name)
    return Answer(upstream=ListBackend(name, folder, act.entry.token or ""))
