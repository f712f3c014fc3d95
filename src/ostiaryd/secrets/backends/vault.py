"""HashiCorp Vault and OpenBao as back ends: key-value stores of version 1 and 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from ostiary.protocol.errors import Conflict
from ostiaryd.ground.outbound.fetch import Answer
from ostiaryd.secrets.backends.remote import Remote
from ostiaryd.secrets.model.backend import (
    BackendConfig,
    BackendFailed,
    BackendKind,
    BackendValue,
    check_names,
    check_value,
    parse_answer,
)
from ostiaryd.secrets.model.request import NothingStored


class VaultBackend:
    """A client of a key-value mount of another Vault server. The back end's configuration has the Vault token."""

    def __init__(self, config: BackendConfig, credentials: Mapping[str, str], remote: Remote) -> None:
        self._mount, self._remote = config.mount, remote
        self._is_versioned = config.kind is BackendKind.VAULT_V2
        self._headers = {"x-vault-token": credentials["token"], "x-vault-request": "true"}

    async def read(self, path: str) -> BackendValue:
        """Return the value at a path. Raises NothingStored if there is no such value, BackendFailed if the back end
        fails or refuses the request.
        """
        data = await self._ask("GET", "data", path)
        if not self._is_versioned:
            return check_value(data)
        metadata = data.get("metadata")
        return check_value(data.get("data"), metadata.get("version", 0) if isinstance(metadata, dict) else 0)

    async def list_names(self, folder: str) -> list[str]:
        """Return the names directly in a folder of the Vault mount; names of folders end with a slash. Raises
        BackendFailed if the back end fails or refuses the request.
        """
        try:
            data = await self._ask("GET", "metadata", folder, query="?list=true")
        except NothingStored:
            return []
        return check_names(data.get("keys"), folder)

    async def write(self, path: str, data: Mapping[str, Any], present: BackendValue | None) -> None:
        """Write a value in place of the value `present` (None: no value). Raises Conflict if a key-value store of
        version 2 has another value now; version 1 cannot detect this. Raises BackendFailed if the back end fails or
        refuses the request.
        """
        body: dict[str, Any] = dict(data)
        if self._is_versioned:
            version = await self._find_deleted(path) if present is None else present.version
            body = {"data": data, "options": {"cas": version}}
        await self._ask("POST", "data", path, body=msgspec.json.encode(body))

    async def _find_deleted(self, path: str) -> int:
        """Return the number of the deleted or destroyed version at a path, which the response 404 of version 2 states;
        0 if there is no version. Raises Conflict if the path has a value, BackendFailed if the back end fails.
        """
        answer = await self._send("GET", "data", path)
        if answer.status != 404:
            raise _changed()
        data = parse_answer(answer.body).get("data")
        metadata = data.get("metadata") if isinstance(data, dict) else None
        version = metadata.get("version") if isinstance(metadata, dict) else None
        return version if type(version) is int else 0

    async def _send(self, method: str, kind: str, path: str, *, query: str = "", body: bytes = b"") -> Answer:
        below = f"{self._mount}/{kind}/{path}" if self._is_versioned else f"{self._mount}/{path}"
        return await self._remote.send(method, f"/v1/{quote(below)}{query}", headers=self._headers, body=body)

    async def _ask(self, method: str, kind: str, path: str, *, query: str = "", body: bytes = b"") -> dict[str, Any]:
        """Send a request and return the member `data` of the response. Raises NothingStored for an unknown path,
        Conflict if the value has changed, BackendFailed for any other error or response.
        """
        answer = await self._send(method, kind, path, query=query, body=body)
        match answer.status:
            case 200:
                data = parse_answer(answer.body).get("data")
                if not isinstance(data, dict):
                    raise BackendFailed("the response of the back end has no `data`")
                return data
            case 204:
                return {}
            case 404:
                raise NothingStored("no value is stored at this path")
            case 400 if method == "POST" and b"check-and-set" in answer.body:
                raise _changed()
            case 403:
                raise BackendFailed(
                    "the back end denied the request: the configured token has no access",
                    hint="configure another token, or change the token's policy at the back end",
                )
        raise BackendFailed(f"the back end answers {answer.status}", hint="see the log of the back end")


def _changed() -> Conflict:
    return Conflict("the value at the back end has changed since it was read", hint="synchronise the secrets again")
