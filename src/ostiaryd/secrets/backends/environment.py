"""The environment of the server as a back end. The secret NAME is the environment variable PREFIX_NAME; the text of the
variable is the member `value` of the secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.config import read_environment
from ostiaryd.secrets.model.backend import BackendConfig, BackendValue, check_names, check_value
from ostiaryd.secrets.model.request import NothingStored

_NAME = re.compile(r"[A-Za-z0-9_]+")


class EnvironmentBackend:
    """A read-only back end: the environment variables whose names begin with a prefix, as they were when the server
    started.
    """

    def __init__(self, config: BackendConfig) -> None:
        variables = read_environment(config.address.removeprefix("env:"))
        self._variables = {name: value for name, value in variables.items() if _NAME.fullmatch(name)}

    async def read(self, path: str) -> BackendValue:
        """Return the value of the variable whose name is the prefix and `path`, as the member `value`. Raises
        NothingStored if the variable is not set, BackendFailed if the value is too long.
        """
        if path not in self._variables:
            raise NothingStored("no value is stored at this path")
        return check_value({"value": self._variables[path]})

    async def list_names(self, folder: str) -> list[str]:
        """Return the names of the variables without the prefix; an empty list if `folder` is not empty, because
        variables have no folders. Raises BackendFailed for too many names.
        """
        return [] if folder else check_names(list(self._variables), "")

    async def write(self, path: str, data: Mapping[str, Any], present: BackendValue | None) -> None:
        """Refuse to write, because this back end is read-only. Raises Conflict always."""
        raise Conflict(
            "the environment is a read-only back end", hint="use this back end as the source, or write to a Vault"
        )
