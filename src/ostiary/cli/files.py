"""The files that commands read and write. Whatever is wrong with one is said before the server hears anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostiary.cli.session import Usage
from ostiary.keys import save_key
from ostiary.protocol import canonical, jose
from ostiary.protocol.errors import Refused

MAX_BYTES = 4 << 20


def read_bytes(path: Path) -> bytes:
    """The content of a file; `-` is standard input. Raises Usage."""
    try:
        with open(0 if str(path) == "-" else path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Usage(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise Usage(f"{path} is larger than {MAX_BYTES >> 20} MiB")
    return data


def read_text(path: Path) -> str:
    """Raises Usage."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise Usage(f"{path} is no text in UTF-8") from None


def read_json(path: Path) -> Any:
    """Strict JSON: no member twice. Raises Usage."""
    data = read_bytes(path)
    try:
        return canonical.parse(data, max_bytes=MAX_BYTES)
    except Refused as refusal:
        raise Usage(f"{path}: {refusal.message}") from None


def write_new(path: Path, text: str) -> None:
    """Raises Usage for a file that is there, or cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Usage(f"{path} exists", hint="name another file") from None
    except OSError as error:
        raise Usage(f"cannot write {path}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that is made here, registered, and then written where only its owner reads it."""

    path: Path
    private: jose.PrivateKey

    @classmethod
    def made(cls, path: Path) -> NewKey:
        """Raises Usage where it could not be written: a key that is registered and then lost would do harm."""
        if path.exists():
            raise Usage(f"{path} exists", hint="name another file; keys are never overwritten")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise Usage(f"cannot write into {path.parent}", hint="name another file")
        return cls(path, jose.generate("ES256"))

    @property
    def public(self) -> dict[str, str]:
        return dict(self.private.public.jwk)

    def save(self, client_id: str, *, issuer: str) -> None:
        save_key(self.path, self.private, client_id=client_id, issuer=issuer)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that somebody else made."""

    public: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> PublicKey:
        """From a JWK file; of a private one only the public members are taken. Raises Usage."""
        value = read_json(path)
        try:
            if isinstance(value, dict) and "d" in value:
                return cls(dict(jose.parse_private_jwk(value).public.jwk))
            return cls(dict(jose.parse_public_jwk(value).jwk))
        except Refused as refusal:
            raise Usage(f"{path}: {refusal.message}", hint=refusal.hint) from None

    def save(self, client_id: str, *, issuer: str) -> None:
        """Whoever made it has it."""


def key_of(*, generate: Path | None, jwk: Path | None) -> NewKey | PublicKey:
    """The key that `--generate-key` or `--jwk` names. Raises Usage."""
    if generate is not None and jwk is None:
        return NewKey.made(generate)
    if jwk is not None and generate is None:
        return PublicKey.read(jwk)
    raise Usage("which key?", hint="give one of --generate-key FILE and --jwk FILE")
