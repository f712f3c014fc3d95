"""The token file of the command line: access tokens that later commands reuse.

Each token request leaves an entry in the ledger, so without the file every command that only reads would add an entry.
The file is beside the credential (mode 0600). The file contains only tokens that are bound to the key of the
credential, so a thief needs the credential too. A file that cannot be read or written is ignored, and the command
requests a new token.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ostiary.client import Client, Target, Token
from ostiary.protocol.decoding import json_decoder

MAX_BYTES = 256 << 10
SUFFIX = ".tokens"


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    client_id: str
    jkt: str
    resource: str | None
    scope: str | None
    task: str | None
    answer: dict[str, Any]
    got_at: int
    renew_at: int


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tokens: list[_Row]


class TokenFile:
    """The stored tokens of one credential at one server."""

    def __init__(self, path: Path, client: Client, *, url: str) -> None:
        self._path = path.with_name(path.name + SUFFIX)
        self._client, self._key = client, client.credential.key
        self._owner = {"url": url, "client_id": client.credential.client_id, "jkt": self._key.public.thumbprint}
        self._rows = self._read()
        self._loaded = dict[Target, str]()

    def load(self) -> None:
        """Add the stored tokens of this credential and server to the client, except tokens that are due for renewal."""
        for row in self._rows:
            token = self._token(row)
            if token is not None and self._client.is_fresh(token):
                self._client.add_token(Target(row.resource, row.scope, row.task), token)
        self._loaded = {target: token.text for target, token in self._client.tokens().items()}

    def save(self) -> None:
        """Write the client's present tokens to the file, if a token has changed. Tokens of other servers and keys stay
        in the file until they are due for renewal.
        """
        mine = [
            self._row(target, token)
            for target, token in self._client.tokens().items()
            if self._is_kept(target, token) and self._client.is_fresh(token)
        ]
        others = [row for row in self._rows if self._token(row) is None and self._client.is_current(row.renew_at)]
        rows = mine + others
        if {row.answer["access_token"] for row in rows} == {row.answer["access_token"] for row in self._rows}:
            return
        with suppress(OSError):  # the folder may be read-only: the next command gets a token of its own
            self._write(msgspec.json.encode(_File(rows)))

    def forget(self, resource: str) -> bool:
        """Remove the client's token for `resource` if the token came from the file. Return whether the client now has
        no token for `resource`; this is also the case if the client itself has removed a refused token.

        A token from the file may be older than the last change of the agent's scopes or state.
        """
        target = Target(resource)
        stored, token = self._loaded.pop(target, None), self._client.tokens().get(target)
        if stored is None or (token is not None and token.text != stored):
            return False
        self._client.forget(target)
        return True

    def _is_kept(self, target: Target, token: Token) -> bool:
        """Return whether the token may be stored: bound to the credential's key, and requested with nothing but
        resource, scope and task.
        """
        return token.key is self._key and target == Target(target.resource, target.scope, target.task)

    def _row(self, target: Target, token: Token) -> _Row:
        return _Row(
            **self._owner,
            resource=target.resource,
            scope=target.scope,
            task=target.task,
            answer=token.answer,
            got_at=token.got_at,
            renew_at=token.renew_at,
        )

    def _token(self, row: _Row) -> Token | None:
        if {"url": row.url, "client_id": row.client_id, "jkt": row.jkt} != self._owner:
            return None
        return Token(row.answer["access_token"], row.answer, row.got_at, row.renew_at, self._key)

    def _read(self) -> list[_Row]:
        """Return the rows of the file; no rows unless the file is a regular file of this user (mode 0600) in
        the right format.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return []
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
                return []
            text = os.read(descriptor, MAX_BYTES)
        finally:
            os.close(descriptor)
        try:
            rows = json_decoder(_File)(text).tokens
        except msgspec.DecodeError:
            return []
        return [row for row in rows if _is_complete(row.answer)]

    def _write(self, text: bytes) -> None:
        """Replace the file atomically; mkstemp creates it with mode 0600."""
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
            os.replace(name, self._path)
        except BaseException:  # after an interrupt too, delete the temporary file, which contains the tokens
            os.unlink(name)
            raise


def _is_complete(answer: Mapping[str, Any]) -> bool:
    return isinstance(answer.get("access_token"), str) and str(answer.get("token_type", "")).lower() == "dpop"
