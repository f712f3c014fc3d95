"""The Merkle tree of the ledger: RFC 6962 hashing, RFC 9162 sections 2.1.1 to 2.1.3 (proofs of inclusion and
their verifier).

The address of a node is (level, index): the node is the root of the complete subtree of 2**level leaves that begins at
the leaf index << level. The hash of such a node never changes; from some stored hashes, all others can be computed
(`tiles.hashes_from`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from hashlib import sha256
from typing import NamedTuple

from ostiary.protocol.errors import Invalid, Refused

HASH_BYTES = 32
TILE_HEIGHT = 8  # levels of the tree in one tile (C2SP tlog-tiles)
MAX_SIZE = 2**63 - 1  # the largest integer of the databases
EMPTY_ROOT = sha256(b"").digest()

HashAt = Callable[[int, int], bytes]
"""A function of (level, index) that returns the hash of this node."""


class ProofFailed(Refused):
    """The proof does not lead from the entry to the root hash, so it does not show that the entry is in the tree."""

    code = "proof_failed"


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf, SHA-256(0x00 || entry); RFC 9162 section 2.1.1."""
    return sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node, SHA-256(0x01 || left || right); RFC 9162 section 2.1.1."""
    return sha256(b"\1" + left + right).digest()


class TileHash(NamedTuple):
    """The hash to store at `position` in the row of tile level `level`. It is the root of a complete subtree of
    256**level leaves.
    """

    level: int
    position: int
    hash: bytes


class Frontier:
    """The right edge of a growing tree: its size, and the roots of its complete subtrees ("peaks"), largest first.

    Sufficient to append leaves and to compute the root; at most 63 hashes, whatever the size.
    """

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Start an empty tree, or continue from another frontier. Raises Invalid unless there is one peak for
        each 1 in the binary size.
        """
        if not 0 <= size <= MAX_SIZE or len(peaks) != size.bit_count() or any(len(p) != HASH_BYTES for p in peaks):
            raise Invalid(f"{len(peaks)} peaks are not the frontier of a tree of {size} leaves")
        self.size = size
        self.peaks = list(peaks)

    @classmethod
    def read(cls, size: int, hash_at: HashAt) -> Frontier:
        """Return the frontier of a stored tree; calls `hash_at` for each 1 in the binary size."""
        return cls(size, _peaks(0, size, hash_at))

    def append(self, leaf: bytes) -> list[TileHash]:
        """Append one leaf hash. Return the hashes that this leaf completed at the tile levels 1, 2, and so on."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> list[TileHash]:
        """Append leaf hashes in order. Return the hashes that they completed at the tile levels 1, 2, .., for the
        store.
        """
        peaks, size, completed = self.peaks, self.size, []
        for peak in leaves:
            index, level = size, 0
            while index & 1:  # join with the left sibling of the same height
                peak = sha256(b"\1" + peaks.pop() + peak).digest()
                index >>= 1
                level += 1
                if level % TILE_HEIGHT == 0:
                    completed.append(TileHash(level // TILE_HEIGHT, index, peak))
            peaks.append(peak)
            size += 1
        self.size = size
        return completed

    def root(self) -> bytes:
        """Return the root hash of the tree with all leaves that were appended so far."""
        return _join(self.peaks)


def tree_root(size: int, hash_at: HashAt) -> bytes:
    """Return the root hash of the first `size` leaves of a stored tree."""
    return _subtree(0, size, hash_at)


def inclusion_proof(index: int, size: int, hash_at: HashAt) -> list[bytes]:
    """Return the siblings from leaf `index` up to the root of the tree of `size` leaves; RFC 9162 section 2.1.3.1."""
    if not 0 <= index < size <= MAX_SIZE:
        raise Invalid(f"entry {index} is not in a tree of {size} entries")
    start, end = 0, size
    proof = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_subtree(middle, end, hash_at))
            end = middle
        else:
            proof.append(_subtree(start, middle, hash_at))
            start = middle
    return proof[::-1]


def verify_inclusion(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verify the proof of a leaf hash (RFC 9162 section 2.1.3.2). Raises ProofFailed if the proof does not lead to the
    root.
    """
    if not 0 <= index < size:
        raise ProofFailed(f"entry {index} is not in a tree of {size} entries")
    position, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofFailed(f"the proof is too long for a tree of {size} entries")
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            while not position & 1 and position > 0:  # the right edge is promoted without a sibling
                position, last = position >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise ProofFailed(f"the proof is too short for a tree of {size} entries")
    if len(leaf) != HASH_BYTES or computed != root:
        raise ProofFailed(f"the proof does not lead from entry {index} to the root hash")


def _split(count: int) -> int:
    """Return the largest power of two below `count`, which is at least 2."""
    return 1 << (count - 1).bit_length() - 1


def _subtree(start: int, end: int, hash_at: HashAt) -> bytes:
    return _join(_peaks(start, end, hash_at))


def _peaks(start: int, end: int, hash_at: HashAt) -> list[bytes]:
    """Return the roots of the complete subtrees into which the leaves [start, end) divide, the largest subtree first.
    `start` must be a multiple of the size of the largest subtree.
    """
    peaks = []
    for level in range((end - start).bit_length() - 1, -1, -1):
        if (end - start) >> level & 1:
            peaks.append(hash_at(level, start >> level))
            start += 1 << level
    return peaks


def _join(peaks: Sequence[bytes]) -> bytes:
    """Return the root hash over `peaks`, which are ordered from the largest: the two smallest peaks are joined first. A
    node without a sibling is promoted to the next level, never hashed with itself.
    """
    return reduce(lambda right, left: node_hash(left, right), reversed(peaks)) if peaks else EMPTY_ROOT
