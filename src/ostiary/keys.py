"""Credential files (mode 0600): a private JWK with its owner (`client_id`) and its issuer (`issuer`).

If the authorization server does not support keys of clients, the file contains a `client_secret`, with or without a
key.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from ostiary.protocol import canonical, jose
from ostiary.protocol.errors import Conflict, Invalid, Malformed

MAX_FILE_BYTES = 64 << 10
DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,4})")
"""Pattern of the path of an open file."""


@dataclass(frozen=True, slots=True)
class Credential:
    """The credential of an agent (`ag_..`) or a guard (the `rs_..` of its resource) at an issuer."""

    key: jose.PrivateKey
    client_id: str
    issuer: str
    secret: str | None = field(default=None, repr=False)
    """client secret, which authenticates the client in place of the key; the key then only binds tokens"""
    has_certificate: bool = False
    """true if the client authenticates by its TLS certificate in place of the key; its tokens are then bound to
    the certificate
    """


def save_key(path: Path | str, private_key: jose.PrivateKey, *, client_id: str, issuer: str) -> None:
    """Write a credential file that only its owner can read. Raises Conflict if the file exists, OSError if it cannot be
    written.
    """
    text = msgspec.json.encode({**private_key.jwk(), "client_id": client_id, "issuer": issuer})
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} exists", hint="name another file; keys are never overwritten") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        os.unlink(path)  # otherwise a full disk would leave a file without the key, which is never overwritten
        raise


def load_key(path: Path | str) -> Credential:
    """Read a credential file. Raises Invalid for a missing or malformed file, or a file that other users can read."""
    try:
        with _open(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Invalid(
            f"cannot read the credential {path}: {error.strerror}",
            hint="name the file that `--generate-key` wrote, or the `admin.json` in the data folder of the server",
        ) from None
    if mode & 0o077:
        raise Invalid(f"the credential {path} is open to other users", hint=f"chmod 600 {path}")
    return parse_credential(text, of=path)


def _open(path: Path | str) -> BinaryIO:
    """Open a file to read it. A path such as `/dev/fd/3` means the open descriptor itself, which is read directly,
    because Linux would otherwise check the permissions of the file again. Raises OSError if the file cannot be opened.
    """
    match = DESCRIPTOR.fullmatch(str(path))
    if match is None:
        return open(path, "rb")
    file = os.fdopen(os.dup(int(match[1])), "rb")
    if file.seekable():
        file.seek(0)
    return file


def parse_credential(text: bytes, *, of: Path | str) -> Credential:
    """Parse the credential in a file: a private JWK with or without `client_id`, `issuer` and `client_secret`. Raises
    Invalid for any other content.

    `of`: the path of the file, for errors. For a file with a secret and without a key, a key is generated for the
    lifetime of the process.
    """
    try:
        value = canonical.parse(text, max_bytes=MAX_FILE_BYTES)
        is_secret_alone = isinstance(value, dict) and "client_secret" in value and "kty" not in value
        key = jose.generate("ES256") if is_secret_alone else jose.parse_private_jwk(value)
    except (Malformed, Invalid) as error:
        raise Invalid(f"{of} is not a private JWK: {error.message}") from None
    assert isinstance(value, dict)
    client_id, issuer, secret = value.get("client_id", ""), value.get("issuer", ""), value.get("client_secret")
    if not isinstance(client_id, str) or not isinstance(issuer, str):
        raise Invalid(f"`client_id` and `issuer` of {of} must be strings")
    if secret is not None and (not isinstance(secret, str) or not secret):
        raise Invalid(f"`client_secret` of {of} must be a string, and not an empty one")
    return Credential(key, client_id, issuer, secret)
