"""Settlement: the choice between two versions of each tile, which shows the damaged files.

Every hash of the tree is known twice: the tile file stores it, and it can be computed from the row below. If the two
versions of a tile differ, the version whose hash is in the tile one row up is right; for the partial tiles at the right
edge, the versions that lead to the signed root are right. The hashes of a settled tile are hashed into the row above.
The entries are then aligned with the settled row 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

from ostiary.audit.align import Alignment
from ostiary.audit.evidence import Enough, Evidence
from ostiary.audit.report import Finding, Kind
from ostiary.protocol.merkle import TILE_HEIGHT, tree_root
from ostiary.protocol.tiles import WIDTH, Tile, hashes_from, join, tile_width

MAX_DISORDER = 10_000
"""Number of misplaced entries after which the audit stops."""

Hashes = Sequence[bytes | None]
"""Neighbouring hashes of a row; None stands for a hash that is unknown because files are missing."""


class Settlement:
    """The settlement of a tree of `size` leaves: of each tile, the choice between the stored version and the version
    that is computed from the row below. Row by row from the entries upwards. `remembered`: size of an earlier tree
    whose root is computed too.
    """

    def __init__(self, evidence: Evidence, size: int, *, remembered: int = 0) -> None:
        self.evidence = evidence
        self.size = size
        self.alignment = Alignment()
        self._computed: list[list[bytes | None]] = [[] for _ in range(size.bit_length() // TILE_HEIGHT + 2)]
        self._remembered = remembered
        self._remembered_edge: dict[int, Hashes] = {}

    def settle(self, root: bytes, progress: Callable[[int, int], None]) -> None:
        """Choose the right version of each tile of the log, and record the damaged files as findings. `root` is the
        signed root; `progress` gets the number of settled entries and of all. Raises Enough at the limit of findings,
        or of misplaced entries.
        """
        for number in range(self.size >> TILE_HEIGHT):
            leaves = self.evidence.leaves(number, WIDTH)
            settled = self._settle_tile(0, number, leaves)
            self._align(leaves, settled)
            self._carry(number, settled)
            progress((number + 1) * WIDTH, self.size)
        self._settle_edge(root)
        progress(self.size, self.size)

    def remembered_root(self) -> bytes | None:
        """Return the root of the first `remembered` leaves; None if a hash of this tree is unknown."""
        return _edge_root(self._remembered, self._remembered_edge)

    def _carry(self, number: int, settled: Hashes) -> None:
        """Add the hash of the full tile `number` of row 0 to the row above. If a tile of that row becomes full, settle
        it, and add its hash to the next row in the same way.
        """
        level = 0
        while True:
            level += 1
            number >>= TILE_HEIGHT
            row = self._computed[level]
            row.append(_join(settled))
            if len(row) < WIDTH:
                return
            settled = self._settle_tile(level, number, row)
            self._computed[level] = []

    def _settle_tile(self, level: int, number: int, computed: Hashes | None) -> Hashes:
        """Return the content of a full tile: the version whose hash is in the parent tile."""
        versions = _versions(self.evidence.tile(level, number, WIDTH), computed, WIDTH)
        settled = _fallback(level, versions)
        if len(versions) > 1:
            above = number >> TILE_HEIGHT
            parent = self.evidence.tile(level + 1, above, tile_width(level + 1, above, self.size))
            expected = parent[number % WIDTH] if parent else None
            settled = next((version for version in versions if _join(version) == expected), settled)
        self._name(level, number, versions, settled)
        return settled

    def _settle_edge(self, root: bytes) -> None:
        """Settle the partial tiles together: choose the versions that have the signed root."""
        leaves: list[bytes] | None = []
        versions = []
        for level, computed in enumerate(self._computed):
            number = self.size >> TILE_HEIGHT * (level + 1)
            width = tile_width(level, number, self.size)
            if level == 0 and width:
                leaves = self.evidence.leaves(number, width)
            stored = self.evidence.tile(level, number, width) if width else []
            versions.append(_versions(stored, computed if level else leaves, width))
        fallback = {level: _fallback(level, choice) for level, choice in enumerate(versions)}
        choices = (dict(enumerate(choice)) for choice in product(*versions))
        edge = next((choice for choice in choices if _edge_root(self.size, choice) == root), fallback)
        for level, settled in edge.items():
            self._name(level, self.size >> TILE_HEIGHT * (level + 1), versions[level], settled)
        self._align(leaves, edge[0])
        if _edge_root(self.size, edge) not in (None, root):
            message = "the entries and tiles do not lead to the root in the checkpoint"
            self.evidence.report(Finding(Kind.ROOT, message, path="checkpoint"))

    def _name(self, level: int, number: int, versions: list[Hashes], settled: Hashes) -> None:
        """Store the settled hashes of a tile, and report each version that differs from them. In row 0, the alignment
        reports the differing entries instead.
        """
        if number == self._remembered >> TILE_HEIGHT * (level + 1):
            self._remembered_edge[level] = settled[: (self._remembered >> TILE_HEIGHT * level) % WIDTH]
        if len(versions) == 1:
            return
        stored, computed = versions
        differing = [i for i in range(len(settled)) if stored[i] != computed[i]]
        leaves = 1 << TILE_HEIGHT * level  # under each hash
        if settled is computed:
            path = Tile(level, number, len(settled)).path
            index = (number * WIDTH + differing[0]) * leaves
            self.evidence.report(Finding(Kind.TILE, "the tile does not have the hashes of the tree", index, path))
        elif level > 0:
            message = "some of these entries differ from the logged entries, and the tiles below have their hashes"
            for i in differing:
                self.evidence.report(Finding(Kind.ALTERED, message, (number * WIDTH + i) * leaves, count=leaves))

    def _align(self, leaves: list[bytes] | None, settled: Hashes) -> None:
        logged = _complete(settled)
        if leaves is None or logged is None:
            self.alignment.skip(len(settled))
            return
        self.alignment.feed(leaves, logged)
        if self.alignment.disorder > MAX_DISORDER:
            raise Enough


def _versions(stored: Hashes | None, computed: Hashes | None, width: int) -> list[Hashes]:
    """Return the possible contents of a tile: one version if all agree, else the stored and the computed version."""
    if computed is None or len(computed) != width:
        return [[None] * width if stored is None else stored]
    if stored is None:
        return [computed]
    computed = [below if below is not None else own for below, own in zip(computed, stored, strict=True)]
    return [stored] if computed == stored else [stored, computed]


def _fallback(level: int, versions: list[Hashes]) -> Hashes:
    """Return the version to use if no version is proved right: in row 0 the tile file before the entries, in other
    rows the version that was computed from the row below before the tile file.
    """
    return versions[0] if level == 0 else versions[-1]


def _complete(hashes: Hashes) -> list[bytes] | None:
    """Return the hashes; None if one of them is unknown."""
    complete = [hash_ for hash_ in hashes if hash_ is not None]
    return complete if len(complete) == len(hashes) else None


def _join(tile: Hashes) -> bytes | None:
    hashes = _complete(tile)
    return None if hashes is None else join(hashes)


def _edge_root(size: int, edge: Mapping[int, Hashes]) -> bytes | None:
    """Return the root of the tree whose rows end in `edge`, the partial last tiles; None if a hash is not known."""
    rows = {level: row for level, hashes in edge.items() if (row := _complete(hashes)) is not None}
    if len(rows) < len(edge):
        return None
    return tree_root(size, hashes_from(lambda level, start, count: rows[level][start % WIDTH :][:count]))
