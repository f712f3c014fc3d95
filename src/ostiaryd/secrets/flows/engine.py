"""The contract of a secret engine, and the mounts.

An engine is a module in the folder `engines/`. `find_operation` parses a request and returns the operation. The
operation runs in a transaction after task and policies have permitted its action.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Protocol, cast

import msgspec
from msgspec.structs import replace

from ostiaryd.ground.database import Reader
from ostiaryd.ledger.flows import Act
from ostiaryd.secrets import store
from ostiaryd.secrets.model.mount import AUTH, Mount, prefixes
from ostiaryd.secrets.model.request import Answer, NothingStored, SecretAction, VaultRequest, split_path

PACKAGE = "ostiaryd.secrets.engines"


class Operation(msgspec.Struct, frozen=True):
    """An operation on a secret: the path and the action that policies see, a detailed name for the ledger, and the
    function that runs it.

    `find_scopes` returns the scopes of the access token that the operation issues, as policies see them; if it raises
    an error, policies see `requested` instead. `exists` returns whether a write replaces something, because Vault
    policies distinguish `create` from `update`. `also`: further pairs of action and path that policies must permit.
    """

    action: SecretAction
    path: str
    name: str
    run: Callable[[Act], Answer]
    find_scopes: Callable[[Act], frozenset[str]] | None = None
    requested: frozenset[str] = frozenset()
    exists: Callable[[Act], bool] | None = None
    also: tuple[tuple[SecretAction, str], ...] = ()


class SecretEngine(Protocol):
    """A module that handles the requests to the Vault API below one kind of mount."""

    TYPE: str
    DESCRIPTION: str
    OPTIONS: dict[str, str] | None
    """the member `options` of the mount in the Vault API, such as the version"""

    def find_operation(self, mount: str, request: VaultRequest) -> Operation:
        """Parse a request into its operation. The server runs the operation after the checks of task and policies.

        Raises NothingStored for an unknown path, UnsupportedOperation for a method that the path does not support;
        Malformed for members of wrong types, Invalid for wrong values.
        """


MOUNTS = {
    "aws": "aws",
    "backend": "backend",
    "database": "database",
    "kv": "kv_v1",
    "oauth": "oauth",
    "secret": "kv_v2",
    "transit": "transit",
}
"""The fixed mounts and their engines, the same on every server."""
TYPES = {("kv", "1"): "kv_v1", ("kv", "2"): "kv_v2", ("pki", ""): "pki", ("transit", ""): "transit"}
"""The engines that agents can mount at other paths, by type and version."""


@cache
def engine_of(module: str) -> SecretEngine:
    """Return a secret engine by the name of its module, such as `kv_v2`."""
    return cast(SecretEngine, import_module(f"{PACKAGE}.{module}"))


def find_operation(read: Callable[[], Reader], request: VaultRequest) -> tuple[str, Operation, Mount | None]:
    """Return the path of the mount to which a request goes, the operation of the request, and the mount's record (None
    for a fixed mount). `read` returns a reader of the database, and is called only for a mount that is not fixed.

    Raises NothingStored if no mount has the path, and the errors of the engine's own `find_operation`.
    """
    path, enabled = request.path, None
    mount, rest = split_path(path)
    module = MOUNTS.get(mount)
    if module is None:
        if (enabled := store.mounts.find(read(), prefixes(path))) is None or enabled.path.startswith(AUTH):
            raise NothingStored(f"no handler for route {request.path!a}", code="no_route")
        module = TYPES[enabled.type, enabled.version]
        mount, rest = enabled.path, path[len(enabled.path) + 1 :]
    below = replace(request, path=rest)
    return mount, engine_of(module).find_operation(mount, below), enabled
