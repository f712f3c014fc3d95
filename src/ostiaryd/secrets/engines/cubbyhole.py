"""The private values of a token at `cubbyhole` (HashiCorp Vault, "Cubbyhole secrets engine (API)").

PATH   GET, LIST, POST, DELETE

For policies of this server, the mount is `cubbyhole`, and the owner of each path is the agent of the request.
"""

from __future__ import annotations

from functools import partial

import msgspec

from ostiary.protocol.errors import Invalid
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets.flows import cubbyhole
from ostiaryd.secrets.flows.callers import CUBBYHOLE, CallerOperation, VaultCaller
from ostiaryd.secrets.model.request import (
    Answer,
    SecretAction,
    UnsupportedOperation,
    VaultMethod,
    VaultRequest,
    check_path,
)


def find_operation(request: VaultRequest) -> CallerOperation:
    """Return the operation of a request to the cubbyhole, the private values of a token. Raises Malformed for a
    malformed path, UnsupportedOperation if the path of a value is empty or ends with a slash or for an unsupported
    method, Invalid for a write without members.
    """
    path = check_path(request.path).removeprefix(CUBBYHOLE).removeprefix("/")
    if request.method is VaultMethod.LIST:
        folder = path if not path or path.endswith("/") else f"{path}/"
        return CallerOperation(SecretAction.LIST, folder, "list", partial(_list, folder))
    if not path or path.endswith("/"):
        raise UnsupportedOperation("the path of a secret is empty or ends with a slash")
    match request.method:
        case VaultMethod.READ:
            return CallerOperation(SecretAction.READ, path, "read", partial(_read, path))
        case VaultMethod.WRITE:
            if not request.body:
                raise Invalid("missing data fields")
            run, exists = partial(_write, path, dict(request.body)), partial(_exists, path)
            return CallerOperation(SecretAction.WRITE, path, "write", run, exists)
        case VaultMethod.DELETE:
            return CallerOperation(SecretAction.DELETE, path, "delete", partial(_delete, path))
    raise UnsupportedOperation("unsupported operation")


def _exists(path: str, act: Act, caller: VaultCaller) -> bool:
    return cubbyhole.has_value(act, caller, path)


def _read(path: str, act: Act, caller: VaultCaller) -> Answer:
    return Answer(data=msgspec.Raw(cubbyhole.read_value(act, caller, path)))


def _write(path: str, value: dict[str, object], act: Act, caller: VaultCaller) -> Answer:
    cubbyhole.put_value(act, caller, path, value)
    return Answer(status=204)


def _list(folder: str, act: Act, caller: VaultCaller) -> Answer:
    return Answer(data={"keys": cubbyhole.list_names(act, caller, folder)})


def _delete(path: str, act: Act, caller: VaultCaller) -> Answer:
    cubbyhole.delete_value(act, caller, path)
    return Answer(status=204)
