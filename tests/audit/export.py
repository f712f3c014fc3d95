"""A small log with its key, and ways to damage its export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ostiary.audit import render_files, write_folder
from ostiary.protocol.checkpoint import Checkpoint, sign_checkpoint
from ostiary.protocol.merkle import Frontier, leaf_hash
from ostiary.protocol.note import NoteKey
from ostiary.protocol.tiles import parse_bundle, render_bundle

NOW = 1_710_000_000_000_000
"""Time after the newest entry, in microseconds since the epoch."""
ORIGIN = "log.example/ostiary"


@dataclass(frozen=True)
class Log:
    private: Ed25519PrivateKey
    entries: tuple[bytes, ...]

    @property
    def key(self) -> NoteKey:
        return NoteKey(ORIGIN, self.private.public_key().public_bytes_raw())

    def note(self, size: int | None = None) -> bytes:
        """The checkpoint that the log signed when it had `size` entries."""
        entries = self.entries[:size]
        frontier = Frontier()
        frontier.extend(map(leaf_hash, entries))
        return sign_checkpoint(Checkpoint(ORIGIN, len(entries), frontier.root()), key=self.key, sign=self.private.sign)

    def export(self, folder: Path, *, entries: Sequence[bytes] | None = None, note: bytes | None = None) -> Path:
        """Its export, or one with other entries (and tiles that fit them) or another checkpoint."""
        files = render_files(self.entries if entries is None else entries)
        write_folder(folder, checkpoint=note or self.note(), key=self.key.vkey, files=files)
        return folder


def make_log(size: int, *, seed: bytes = b"one", salt: str = "") -> Log:
    private = Ed25519PrivateKey.from_private_bytes(seed.ljust(32, b"."))
    return Log(
        private, tuple(f'{{"action":"test.entry{salt}","at":{NOW - 1_000_000 + i}}}'.encode() for i in range(size))
    )


def edit_bundle(folder: Path, path: str, edit: Callable[[list[bytes]], list[bytes]], *, width: int = 256) -> None:
    """Rewrite the entries of one bundle and nothing else."""
    file = folder / path
    file.write_bytes(render_bundle(edit(parse_bundle(file.read_bytes(), width))))


def write_bundles(folder: Path, entries: Sequence[bytes]) -> None:
    """Rewrite all bundles, in the files that are there, and leave the tiles: what an editor of entries would do."""
    files = sorted(path for path in (folder / "tile" / "entries").rglob("*") if path.is_file())
    for number, file in enumerate(files):
        end = None if file == files[-1] else 256 * (number + 1)
        file.write_bytes(render_bundle(entries[256 * number : end]))


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
