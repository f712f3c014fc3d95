"""The files of an export. A file that cannot be used is reported as a finding, and its content is None."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from ostiary.audit.entries import EntryCheck
from ostiary.audit.folder import Unreadable, read
from ostiary.audit.report import Finding, Kind
from ostiary.protocol.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from ostiary.protocol.errors import Malformed
from ostiary.protocol.merkle import HASH_BYTES, leaf_hash
from ostiary.protocol.note import MAX_NOTE_BYTES, NoteKey, Unsigned, parse_note, parse_vkey
from ostiary.protocol.tiles import MAX_ENTRY_BYTES, WIDTH, Bundle, Tile, parse_tile, split_bundle

MAX_FINDINGS = 100
MAX_KEY_BYTES = 1 << 14


class Enough(Exception):
    """Raised to end an audit that has reached its limit of findings."""


class Evidence:
    """The files under a folder, each read when it is needed, and the findings about them."""

    def __init__(self, folder: Path, *, now: int) -> None:
        self.folder = folder
        self.wrong_entries: list[Finding] = []
        self.wrong_count = 0
        self._entries = EntryCheck(now)
        self.findings: list[Finding] = []
        self.miscounted: list[Finding] = []  # bundles with too few or too many entries
        self._tiles: dict[int, tuple[int, list[bytes] | None]] = {}  # row -> number and content of the tile read last

    def report(self, finding: Finding) -> None:
        """Add a finding, unless an equal finding was added before. Raises Enough at the limit of findings."""
        if finding in self.findings:
            return
        if len(self.findings) == MAX_FINDINGS:
            raise Enough
        self.findings.append(finding)

    def keys(self) -> list[NoteKey]:
        """Return the public keys of the log that the export contains; an empty list if their file cannot be used."""
        data = self._read("key", limit=MAX_KEY_BYTES)
        try:
            return [] if data is None else parse_keys(data.decode())
        except (Malformed, UnicodeDecodeError):
            self.report(Finding(Kind.MALFORMED, "the file is not a list of verification keys", path="key"))
            return []

    def checkpoint(self, keys: Sequence[NoteKey]) -> Checkpoint | None:
        """Return the checkpoint of the export; None for a file that cannot be read."""
        note = self._read("checkpoint", limit=MAX_NOTE_BYTES)
        return None if note is None else self.open(note, keys, path="checkpoint")

    def open(self, unverified_note: bytes, keys: Sequence[NoteKey], *, path: str) -> Checkpoint | None:
        """Return the checkpoint in a note; None if the note is malformed. If none of `keys` has signed the note,
        report a finding and return the checkpoint nevertheless.
        """
        try:
            checkpoint = parse_checkpoint(parse_note(unverified_note).text)
        except Malformed as refusal:
            self.report(Finding(Kind.MALFORMED, refusal.message, path=path))
            return None
        try:
            return open_checkpoint(unverified_note, keys, origin=keys[0].name if keys else "")
        except Unsigned as refusal:
            self.report(Finding(Kind.SIGNATURE, refusal.message, path=path))
            return checkpoint

    def leaves(self, number: int, width: int) -> list[bytes] | None:
        """Return the leaf hashes of the entries in the bundle `number`; None if the file cannot be used. A damaged
        bundle may have more or fewer entries than `width`, the expected number.
        """
        path = Bundle(number, width).path
        data = self._read(path, limit=width * (2 + MAX_ENTRY_BYTES))
        if data is None:
            return None
        leaves: list[bytes] = []
        try:
            for entry in islice(split_bundle(data), 2 * WIDTH):
                self._check_entry(number * WIDTH + len(leaves), entry)
                leaves.append(leaf_hash(entry))
        except Malformed as refusal:
            tile = self.tile(0, number, width) or []
            good = next((i for i, (a, b) in enumerate(zip(leaves, tile, strict=False)) if a != b), len(leaves))
            self.report(Finding(Kind.MALFORMED, refusal.message, number * WIDTH + good, path))
            return None
        if len(leaves) != width:
            message = f"the bundle does not hold {width} entries"
            self.miscounted.append(Finding(Kind.MALFORMED, message, number * WIDTH, path))
        return leaves

    def _check_entry(self, index: int, entry: bytes) -> None:
        if wrong := self._entries.check(index, entry):
            self.wrong_count += 1
            if len(self.wrong_entries) < MAX_FINDINGS:
                self.wrong_entries.append(Finding(Kind.ENTRY, wrong, index))

    def tile(self, level: int, number: int, width: int) -> list[bytes] | None:
        """Return the hashes in the tile file; None if the file cannot be used. The last tile of each row is cached,
        because the tiles of a row are read in order.
        """
        last = self._tiles.get(level)
        if last is None or last[0] != number:
            last = self._tiles[level] = number, self._load_tile(Tile(level, number, width))
        return last[1]

    def _load_tile(self, tile: Tile) -> list[bytes] | None:
        data = self._read(tile.path, limit=tile.width * HASH_BYTES)
        try:
            return None if data is None else parse_tile(data, tile.width)
        except Malformed as refusal:
            self.report(Finding(Kind.MALFORMED, refusal.message, path=tile.path))
            return None

    def _read(self, path: str, *, limit: int) -> bytes | None:
        try:
            return read(self.folder, path, limit=limit)
        except Unreadable as unreadable:
            self.report(unreadable.finding)
            return None


def parse_keys(text: str) -> list[NoteKey]:
    """Return the vkeys of one log from a text with one per line. Raises Malformed for a text without keys, a
    malformed key, and keys of several logs.
    """
    keys = [parse_vkey(line) for line in text.split("\n") if line]
    if not keys:
        raise Malformed("there is no verification key", hint="write one key in each line: name+id+base64")
    if len(names := {key.name for key in keys}) > 1:
        raise Malformed(f"the verification keys are of {len(names)} logs", hint="name the keys of one log")
    return keys
