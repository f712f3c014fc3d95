"""Functions that write an export, and that make receipts from an export."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from ostiary.audit.folder import read
from ostiary.protocol.checkpoint import parse_checkpoint
from ostiary.protocol.merkle import HASH_BYTES, leaf_hash
from ostiary.protocol.note import MAX_NOTE_BYTES, parse_note
from ostiary.protocol.receipt import Receipt, make_receipt
from ostiary.protocol.tiles import (
    WIDTH,
    Bundle,
    Tile,
    bundles_of,
    hashes_from,
    join,
    parse_path,
    parse_tile,
    render_bundle,
    tile_width,
    tiles_of,
)


def paths_of(size: int) -> Iterator[str]:
    """Return the paths of all tiles and entry bundles that an exporter fetches for a log of `size` entries."""
    for tile in tiles_of(size):
        yield tile.path
    for bundle in bundles_of(size):
        yield bundle.path


def render_files(entries: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield (path, content) of all tiles and bundles of these entries, with at most one tile of each row in memory.

    Raises Invalid for an entry over 65535 bytes.
    """
    rows: list[list[bytes]] = [[]]
    counts = [0]
    stream = iter(entries)
    while block := list(islice(stream, WIDTH)):
        yield Bundle(counts[0], len(block)).path, render_bundle(block)
        rows[0] = [leaf_hash(entry) for entry in block]
        level = 0
        while len(rows[level]) == WIDTH:
            yield Tile(level, counts[level]).path, b"".join(rows[level])
            if level + 1 == len(rows):
                rows.append([])
                counts.append(0)
            rows[level + 1].append(join(rows[level]))
            rows[level] = []
            counts[level] += 1
            level += 1
    for level, row in enumerate(rows):
        if row:
            yield Tile(level, counts[level], len(row)).path, b"".join(row)


def write_folder(folder: Path, *, checkpoint: bytes, key: str, files: Iterable[tuple[str, bytes]]) -> None:
    """Write an export: `files` from `render_files`, or fetched from `paths_of`. The checkpoint comes last.

    Each file appears completely or not at all, and a full tile never changes; therefore an interrupted export can be
    continued. A folder that this function creates is accessible to its owner only. Raises Malformed for a path that is
    not the path of a tile or a bundle, so that nothing is written outside of `folder`.
    """
    for path, data in files:
        _write(folder, parse_path(path).path, data)
    _write(folder, "key", key.encode())
    _write(folder, "checkpoint", checkpoint)


def _write(folder: Path, path: str, data: bytes) -> None:
    place = folder / path
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{place.name}.partial")
    partial.unlink(missing_ok=True)
    with partial.open("xb") as file:  # do not follow a link that another user has put here
        file.write(data)
    os.replace(partial, place)


def prove(folder: Path, index: int) -> Receipt:
    """Return the receipt of entry `index`, made from the tiles of an export. The tiles are not verified, so the receipt
    must be verified.

    Raises Invalid if the entry is not in the log, Unreadable or Malformed for a file that cannot be used.
    """
    note = read(folder, "checkpoint", limit=MAX_NOTE_BYTES)
    size = parse_checkpoint(parse_note(note).text).size

    def rows(level: int, start: int, count: int) -> Sequence[bytes]:
        number, at = divmod(start, WIDTH)
        tile = Tile(level, number, tile_width(level, number, size))
        data = read(folder, tile.path, limit=tile.width * HASH_BYTES)
        return parse_tile(data, tile.width)[at : at + count]

    return make_receipt(index, size=size, note=note, hash_at=hashes_from(rows))
