"""Receipts: proof that an entry is in a log, which can be checked without the log; C2SP tlog-proof v1
(https://c2sp.org/tlog-proof).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ostiary.protocol.checkpoint import Checkpoint, open_checkpoint, parse_count
from ostiary.protocol.errors import Malformed
from ostiary.protocol.merkle import HASH_BYTES, HashAt, inclusion_proof, leaf_hash, verify_inclusion
from ostiary.protocol.note import MAX_NOTE_BYTES, NoteKey, decode_base64, encode_base64

MAX_RECEIPT_BYTES = 2 * MAX_NOTE_BYTES
_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt whose proof is not verified yet. It claims: the entry with the number `index` is in the tree of the
    checkpoint in `note`, because the hashes in `proof` lead from the entry to the root.
    """

    index: int
    proof: tuple[bytes, ...]
    note: bytes
    """the signed note that has the checkpoint, unchanged"""
    extra: bytes | None = None
    """data of an application; no signature covers it"""

    def render(self) -> bytes:
        """Return the receipt in the C2SP tlog-proof format."""
        head = [_HEADER]
        if self.extra is not None:
            head.append(f"extra {encode_base64(self.extra)}")
        head += [f"index {self.index}", *map(encode_base64, self.proof)]
        return "\n".join(head).encode() + b"\n\n" + self.note


def make_receipt(index: int, *, size: int, note: bytes, hash_at: HashAt) -> Receipt:
    """Return the receipt of an entry. `note` is the signed checkpoint of the tree of `size` entries. Raises
    Invalid if the entry is not in the tree.
    """
    return Receipt(index, tuple(inclusion_proof(index, size, hash_at)), note)


def parse_receipt(unverified_receipt: bytes) -> Receipt:
    """Parse a receipt of an entry; nothing is verified. Raises Malformed for text that is not a receipt."""
    if len(unverified_receipt) > MAX_RECEIPT_BYTES:
        raise Malformed(f"a receipt must have at most {MAX_RECEIPT_BYTES} bytes")
    head, blank, note = unverified_receipt.partition(b"\n\n")
    if not blank or not head.isascii():
        raise Malformed("a receipt must consist of lines of ASCII, an empty line and a checkpoint")
    lines = head.decode().split("\n")
    if lines.pop(0) != _HEADER:
        raise Malformed(f"a receipt must begin with {_HEADER}")
    extra = decode_base64(lines.pop(0)[6:]) if lines and lines[0].startswith("extra ") else None
    if not lines or not lines[0].startswith("index "):
        raise Malformed("a receipt must name the index of the entry")
    index, proof = parse_count(lines[0][6:]), tuple(map(decode_base64, lines[1:]))
    if any(len(sibling) != HASH_BYTES for sibling in proof):
        raise Malformed(f"each hash of a proof must have {HASH_BYTES} bytes")
    return Receipt(index, proof, note, extra)


def verify_receipt(
    unverified_receipt: bytes, *, entry: bytes, keys: Iterable[NoteKey], origin: str
) -> tuple[int, Checkpoint]:
    """Return the index of `entry` in the log `origin`, and the checkpoint that covers it.

    Raises Malformed if the receipt has another form; Unsigned if none of `keys` signed the checkpoint, or if the
    checkpoint is of another log; ProofFailed if the checkpoint does not cover the entry.
    """
    receipt = parse_receipt(unverified_receipt)
    checkpoint = open_checkpoint(receipt.note, keys, origin=origin)
    verify_inclusion(
        leaf_hash(entry), index=receipt.index, size=checkpoint.size, proof=receipt.proof, root=checkpoint.root
    )
    return receipt.index, checkpoint
