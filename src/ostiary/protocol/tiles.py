"""The Merkle tree as files: C2SP tlog-tiles v0.1.0 (https://c2sp.org/tlog-tiles), tiles, entry bundles and their paths.

The row of tile level L holds the hashes of all complete subtrees of 256**L leaves; row 0 is the leaf hashes. A tile is
256 neighbouring hashes of a row, or fewer at the end of the row: row L of a tree of n leaves has n // 256**L hashes.
Therefore the rows (the leaf hashes, and one hash for each complete group of 256 hashes of the row below) are
sufficient to compute every hash of the tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ostiary.protocol.errors import Invalid, Malformed
from ostiary.protocol.merkle import HASH_BYTES, MAX_SIZE, TILE_HEIGHT, HashAt, node_hash

WIDTH = 1 << TILE_HEIGHT
MAX_LEVEL = 63
MAX_ENTRY_BYTES = 0xFFFF  # the length prefix of a bundle is a uint16

Rows = Callable[[int, int, int], Sequence[bytes]]
"""A function of (tile level, start, count) that returns `count` hashes of that level from position `start` on, at most
256.
"""

_INDEX = r"(?P<index>(?:x\d{3}/){0,6}\d{3})"
_WIDTH = r"(?:\.p/(?P<width>[1-9]\d{0,2}))?"
_PATH = re.compile(rf"tile/(?:entries|(?P<level>0|[1-9]\d?))/{_INDEX}{_WIDTH}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile: `width` hashes of row `level`, from position 256 * `index` on."""

    level: int
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """The path of the tile."""
        return f"tile/{self.level}/{_index_path(self.index, self.width)}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """An entry bundle: the `width` entries from number 256 * `index` on, whose hashes are in the tile `index` of level
    0.
    """

    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """The path of the bundle."""
        return f"tile/entries/{_index_path(self.index, self.width)}"


def parse_path(path: str) -> Tile | Bundle:
    """Return the tile or bundle of `tile/<L>/<N>[.p/<W>]` or `tile/entries/<N>[.p/<W>]`, in canonical form only. Raises
    Malformed for any other path.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise Malformed("the path is not the path of a tile or of an entry bundle")
    index = int(match["index"].replace("/", "").replace("x", ""))
    width = int(match["width"] or WIDTH)
    address = Bundle(index, width) if match["level"] is None else Tile(int(match["level"]), index, width)
    if (
        index > MAX_SIZE
        or width > WIDTH
        or (isinstance(address, Tile) and address.level > MAX_LEVEL)
        or address.path != path
    ):
        raise Malformed("the path is not the path of a tile or of an entry bundle")
    return address


def _index_path(index: int, width: int) -> str:
    groups = f"{index:,}".split(",")
    path = "/".join([f"x{group:0>3}" for group in groups[:-1]] + [f"{groups[-1]:0>3}"])
    return path if width == WIDTH else f"{path}.p/{width}"


def tile_width(level: int, index: int, size: int) -> int:
    """Return the number of hashes in the tile for a tree of `size` leaves: 0 (no such tile) to 256."""
    return max(0, min(WIDTH, (size >> TILE_HEIGHT * level) - WIDTH * index))


def tiles_of(size: int) -> Iterator[Tile]:
    """Yield all tiles of a tree of `size` leaves, row by row; the last of a row may be partial."""
    level = 0
    while row := size >> TILE_HEIGHT * level:
        for index in range(-(-row // WIDTH)):
            yield Tile(level, index, tile_width(level, index, size))
        level += 1


def bundles_of(size: int) -> Iterator[Bundle]:
    """Yield all entry bundles of a tree of `size` leaves."""
    for index in range(-(-size // WIDTH)):
        yield Bundle(index, tile_width(0, index, size))


def hashes_from(rows: Rows) -> HashAt:
    """Return a function that computes the hash of any node of the tree from the stored rows: a node of level
    8 * L + k joins 2**k neighbours of row L. The function raises Invalid for a node that the tree does not have yet.
    """

    def hash_at(level: int, index: int) -> bytes:
        tile_level, steps = divmod(level, TILE_HEIGHT)
        nodes = rows(tile_level, index << steps, 1 << steps)
        if len(nodes) != 1 << steps:
            raise Invalid(f"the tree has no node {index} of level {level} yet")
        return join(nodes)

    return hash_at


def join(nodes: Sequence[bytes]) -> bytes:
    """Return the root of a complete subtree from all its nodes of one level; their number is a power of two."""
    while len(nodes) > 1:
        nodes = [node_hash(nodes[i], nodes[i + 1]) for i in range(0, len(nodes), 2)]
    return nodes[0]


def parse_tile(data: bytes, width: int) -> list[bytes]:
    """Return the hashes of a tile. Raises Malformed unless there are exactly `width`."""
    if len(data) != width * HASH_BYTES:
        raise Malformed(f"a tile of {width} hashes has {width * HASH_BYTES} bytes, not {len(data)}")
    return [data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES)]


def render_bundle(entries: Iterable[bytes]) -> bytes:
    """Return the entries, each after its length as big-endian uint16. Raises Invalid for an entry over 65535 bytes."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise Invalid(f"an entry has at most {MAX_ENTRY_BYTES} bytes, not {len(entry)}")
        parts += (len(entry).to_bytes(2, "big"), entry)
    return b"".join(parts)


def parse_bundle(data: bytes, width: int) -> list[bytes]:
    """Return the entries of a bundle. Raises Malformed unless there are exactly `width`."""
    entries = list(islice(split_bundle(data), width + 1))
    if len(entries) != width:
        raise Malformed(f"the bundle does not contain exactly {width} entries")
    return entries


def split_bundle(data: bytes) -> Iterator[bytes]:
    """Yield the entries of a bundle with any number of entries. Raises Malformed if the last entry is incomplete."""
    at = 0
    while at < len(data):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data):  # also if only one byte of the length remains
            raise Malformed("the bundle breaks off inside an entry")
        yield data[start:at]
