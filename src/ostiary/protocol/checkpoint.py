"""Checkpoints: signed statements of a log about its tree at one size; C2SP tlog-checkpoint v1.0.0
(https://c2sp.org/tlog-checkpoint).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ostiary.protocol.errors import Malformed
from ostiary.protocol.merkle import EMPTY_ROOT, HASH_BYTES, MAX_SIZE
from ostiary.protocol.note import NoteKey, Unsigned, decode_base64, encode_base64, open_note, sign_note

HISTORY = "history"
"""First word of the extension line with the id of the log's history: 32 random hexadecimal digits, replaced
after each recovery. A log whose database was restored from an older copy continues under another history id.
"""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A statement of the log `origin`: its tree has `size` entries, and `root` (32 bytes) is the root hash."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()
    """extension lines; a checkpoint of Ostiary has the line `history ID`, other logs may define other lines"""

    @property
    def history(self) -> str:
        """Return the id of the log's history (extension line `history ID`); empty if the checkpoint has no such line,
        because it is older than history ids, or is of another kind of log.
        """
        words = (line.split(" ") for line in self.extensions)
        return next((rest[0] for first, *rest in words if first == HISTORY and len(rest) == 1), "")

    @property
    def text(self) -> str:
        """Return the text of the checkpoint, over which the note's signatures are made."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, encode_base64(self.root), *self.extensions))


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint in `text`, the text of a note, in canonical form. Raises Malformed for any other text."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() or not all(lines):
        raise Malformed("a checkpoint must have three or more lines, none of them empty")
    origin, size, root, *extensions = lines
    checkpoint = Checkpoint(origin, parse_count(size), decode_base64(root), tuple(extensions))
    _check_tree(checkpoint.size, checkpoint.root)
    return checkpoint


def _check_tree(size: int, root: bytes) -> None:
    """Check that a tree of `size` entries can have the root hash `root`. Raises Malformed otherwise."""
    if not 0 <= size <= MAX_SIZE:
        raise Malformed(f"the number of entries of the tree must be 0 to {MAX_SIZE}")
    if len(root) != HASH_BYTES:
        raise Malformed(f"the root hash must have {HASH_BYTES} bytes")
    if size == 0 and root != EMPTY_ROOT:
        raise Malformed("the root of a checkpoint of size 0 is not that of the empty tree")


def parse_count(text: str) -> int:
    """Return a decimal number up to 2**63 - 1, without sign or leading zeros. Raises Malformed for any other text."""
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
        raise Malformed(f"{text[:32]!a} is not a decimal number without sign and leading zeros")
    if len(text) > 19 or int(text) > MAX_SIZE:
        raise Malformed(f"{text[:32]} is more than {MAX_SIZE}, the maximum number of entries")
    return int(text)


def sign_checkpoint(checkpoint: Checkpoint, *, key: NoteKey, sign: Callable[[bytes], bytes]) -> bytes:
    """Return the signed note. Raises Malformed if the origin or an extension is not one line, or if no tree has this
    size and root hash.

    The caller has checked that the log never signed a checkpoint that contradicts this one, and that `sign` is the
    private half of `key`.
    """
    lines = (checkpoint.origin, *checkpoint.extensions)
    if not all(lines) or any("\n" in line for line in lines):
        raise Malformed("the origin and each extension of a checkpoint must be one line")
    _check_tree(checkpoint.size, checkpoint.root)
    return sign_note(checkpoint.text, key=key, sign=sign)


def open_checkpoint(unverified_note: bytes, keys: Iterable[NoteKey], *, origin: str) -> Checkpoint:
    """Return the checkpoint of the log `origin`, signed by one of `keys` (whose names need not be the origin).

    Raises Malformed if the text is no checkpoint; Unsigned for a note without such a signature, and for a valid note of
    another log.
    """
    checkpoint = parse_checkpoint(open_note(unverified_note, keys).text)
    if checkpoint.origin != origin:
        raise Unsigned(f"the checkpoint is not of the log {origin}")
    return checkpoint
