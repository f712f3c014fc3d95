"""Files that commands read and write. A file is checked before the first request to the server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostiary.cli.usage import Usage
from ostiary.keys import save_key
from ostiary.protocol import canonical, jose
from ostiary.protocol.errors import Refused

MAX_BYTES = 4 << 20


def read_bytes(path: Path) -> bytes:
    """Return the content of a file; for `-`, the content of standard input. Raises Usage for an unreadable or too large
    file.
    """
    try:
        with open(0 if str(path) == "-" else path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}", hint="check the path and its permissions") from None
    if len(data) > MAX_BYTES:
        raise Usage(f"{path} is larger than {MAX_BYTES >> 20} MiB", hint="name a smaller file")
    return data


def read_text(path: Path) -> str:
    """Return the text of a file. Raises Usage for an unreadable file, or for content in another encoding than UTF-8."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise Usage(f"{path} is not UTF-8 text", hint="name a text file") from None


def read_json(path: Path, *, hint: str = "correct the JSON in the file") -> Any:
    """Return the JSON value in a file. Raises Usage if the file cannot be read, or has malformed JSON, such as an
    object with a repeated member. `hint`: the hint of the error for malformed JSON, unless the parser gives another.
    """
    return parse_json(read_bytes(path), of=str(path), hint=hint)


def parse_json(data: bytes | str, *, of: str, hint: str) -> Any:
    """Return the JSON value of a text of at most MAX_BYTES. Raises Usage for malformed JSON, such as an object with a
    repeated member. `of`: the source of the text, for the error; `hint` as in `read_json`.
    """
    try:
        return canonical.parse(data, max_bytes=MAX_BYTES)
    except Refused as refusal:
        raise Usage(f"{of}: {refusal.message}", hint=refusal.hint or hint) from None


def write_new(path: Path, text: str) -> None:
    """Write a new file. Raises Usage if the file exists or cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Usage(f"{path} exists", hint="name another file") from None
    except OSError as error:
        raise Usage(f"cannot write {path}: {error.strerror}", hint="name another file") from None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key pair that this command generates; the private key is written after the registration of the public key."""

    path: Path
    private: jose.PrivateKey

    @classmethod
    def generate(cls, path: Path) -> NewKey:
        """Generate a key pair, and check that `save` can write the file `path`. Raises Usage if the file exists, or if
        its folder is not writable.
        """
        if os.path.lexists(path):
            raise Usage(f"{path} exists", hint="name another file; keys are never overwritten")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise Usage(f"cannot write into {path.parent}", hint="name another file")
        return cls(path, jose.generate("ES256"))

    @property
    def public(self) -> dict[str, str]:
        """Return the public key of the pair as a JWK."""
        return dict(self.private.public.jwk)

    def save(self, client_id: str, *, issuer: str) -> None:
        """Write the credential to the file `path` (mode 0600): `client_id`, private key and `issuer`."""
        save_key(self.path, self.private, client_id=client_id, issuer=issuer)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public key of a key pair that was generated elsewhere."""

    public: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> PublicKey:
        """Read the public key from a JWK file. Raises Usage for an unreadable file, and for one without a JWK."""
        value = read_json(path)
        try:
            if isinstance(value, dict) and "d" in value:
                return cls(dict(jose.parse_private_jwk(value).public.jwk))
            return cls(dict(jose.parse_public_jwk(value).jwk))
        except Refused as refusal:
            raise Usage(f"{path}: {refusal.message}", hint=refusal.hint) from None

    def save(self, client_id: str, *, issuer: str) -> None:
        """Write no file: the private key stays where it was generated."""


def key_of(*, generate: Path | None, jwk: Path | None) -> NewKey | PublicKey:
    """Return the key for the options `--generate-key` and `--jwk`. Raises Usage unless exactly one of them is given."""
    if generate is not None and jwk is None:
        return NewKey.generate(generate)
    if jwk is not None and generate is None:
        return PublicKey.read(jwk)
    problem = "no key is named" if generate is None else "`--generate-key` and `--jwk` exclude each other"
    raise Usage(problem, hint="give one of --generate-key FILE and --jwk FILE")
