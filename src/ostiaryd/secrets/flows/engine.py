"""The contract of a secret engine, and the mounts.

An engine is a module in the folder `engines/`. `find_operation` parses a request and returns the operation. The
operation runs in an act after task and policies have permitted its action.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from ostiaryd.ledger.flows import Act
from ostiaryd.secrets.model.request import Answer, NothingStored, SecretAction, VaultRequest, check_path, split_path

PACKAGE = "ostiaryd.secrets.engines"


class Operation(NamedTuple):
    """An operation on a secret: the path and the action that policies see, a detailed name, and the flow.

    `find_scopes` returns the scopes of the access token that the operation issues; policies see the scopes too.
    """

    action: SecretAction
    path: str
    name: str
    run: Callable[[Act], Answer]
    find_scopes: Callable[[Act], frozenset[str]] | None = None


class SecretEngine(Protocol):
    """A module that handles the requests below a mount."""

    TYPE: str
    DESCRIPTION: str
    OPTIONS: dict[str, str] | None
    """the member `options` of the mount in the Vault API"""

    def find_operation(self, mount: str, request: VaultRequest) -> Operation:
        """Return the operation of a request. Raises UnsupportedOperation, NothingStored, Malformed, Invalid."""


MOUNTS = {
    "backend": "backend",
    "database": "database",
    "kv": "kv_v1",
    "oauth": "oauth",
    "secret": "kv_v2",
    "transit": "transit",
}
"""The mounts and their engines. Mounts cannot be changed, so a path has the same meaning on every server."""


@cache
def engine_of(mount: str) -> SecretEngine:
    """Return the engine of a mount."""
    return cast(SecretEngine, import_module(f"{PACKAGE}.{MOUNTS[mount]}"))


def find_operation(request: VaultRequest) -> tuple[str, Operation]:
    """Return the mount and the operation of a request whose path begins with the mount.

    Raises NothingStored for a path without a mount, UnsupportedOperation, Malformed, Invalid.
    """
    mount, rest = split_path(check_path(request.path))
    if mount not in MOUNTS:
        raise NothingStored(f"no handler for route {request.path!a}", code="no_route")
    below = VaultRequest(method=request.method, path=rest, body=request.body, query=request.query)
    return mount, engine_of(mount).find_operation(mount, below)
