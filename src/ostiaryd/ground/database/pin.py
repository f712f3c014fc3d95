"""The pin: the head of the ledger as this server last committed it, in a file beside the keys, outside the database.

A database that is restored from an older copy, or failed over to a replica that lags, does not have the head that the
pin names; the server then enters recovery (docs/how-to/recovery.md). Each server has its own pin, also on PostgreSQL.

The file has two slots of 256 bytes. A write goes to the slot that is not the newest, so a torn write leaves the older
head. The writer writes after each commit and before any answer, without fsync: the page cache survives `kill -9`, and
after a power loss an older head is still a valid one. `sync` runs now and then, and at the end.

    slot    8 bytes magic, 8 bytes sequence number, 32 bytes public key of the log, 16 bytes history id, 8 bytes size,
            32 bytes root, 32 bytes SHA-256 of all before; numbers are big-endian
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ostiary.protocol.errors import Conflict, Unavailable

NAME = "ledger.pin"
SLOT_BYTES = 256
_MAGIC = b"OSTIPIN1"
_LAYOUT = struct.Struct(">8sQ32s16sQ32s")
_DIGEST_BYTES = 32


class InRecovery(Unavailable):
    """The database has lost a part of its history. The server grants nothing until an operator has run `ostiary
    recover`.
    """

    code = "recovery"

    def __init__(self, message: str = "the database has lost a part of its history: the server is in recovery") -> None:
        super().__init__(message, hint="an operator must run `ostiary recover` on the server's machine")


class Head(NamedTuple):
    """The state of the ledger at one size: the log (its public key, `key`), its history, the number of entries, and the
    root hash.
    """

    key: bytes
    history: str
    """32 hexadecimal digits; empty in a checkpoint from before history ids existed."""
    size: int
    root: bytes


class HistoryLost(InRecovery):
    """The database lacks a head of the ledger (a size with its root hash) that this server, a guard or a client has
    seen.
    """

    missing: Head | None = None

    @classmethod
    def of(cls, head: Head) -> HistoryLost:
        """Return the error for a head that was seen before and is missing now."""
        lost = cls(f"the database lacks the ledger's head of {head.size} entries, which was seen before")
        lost.missing = head
        return lost


class Pin:
    """The pinned head of the ledger, and whether this process has detected a loss. `write` is called in the writer's
    thread.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Open the pin of a data folder. Without a folder, keep the head only in memory."""
        self._file, content = -1, b""
        if folder is not None:
            self._file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            content = os.pread(self._file, 2 * SLOT_BYTES, 0)
            if not content:  # allocates the space now, so that a full disk does not prevent a later write
                os.pwrite(self._file, bytes(2 * SLOT_BYTES), 0)
        self._sequence, self.head = _newest(content)
        self.is_checked = self.head is None
        """True if the database was found to contain the pinned head since it was opened or reconnected."""
        self.is_lost = False
        """True if the server is in recovery. The pin then keeps the head that is missing."""
        self.lost_at = 0
        """Time of the last detection of a loss or of the last recovery, in microseconds; 0 if there was none. A proof
        or assertion that was made before this time may have been used in the lost part.
        """

    def check(self, history: str, size: int, root: bytes, has: Callable[[Head], bool]) -> None:
        """Compare the head of the database with the pin, before the batch adds entries. Raises HistoryLost if the
        pinned head is missing. Do nothing if nothing was pinned yet, or in recovery.

        Usually both heads are equal, which costs nothing. Otherwise `has` reads the tree to find the pinned head: after
        a start, after a new connection, or after the end of a history.
        """
        if self.is_lost or (head := self.head) is None:
            return
        is_same = history == head.history
        if is_same and (size < head.size or (size == head.size and root != head.root)):
            raise HistoryLost.of(head)
        if not (is_same and (self.is_checked or size == head.size)) and not has(head):
            raise HistoryLost.of(head)
        self.is_checked = True

    def require_check(self) -> None:
        """Make the next batch check the pinned head again, because a new connection may lead to another copy of the
        database.
        """
        self.is_checked = self.head is None

    def write(self, head: Head) -> None:
        """Store the head of the ledger that was just committed. In recovery, keep the head that is missing in the
        database instead.
        """
        if not self.is_lost:
            self.replace(head)

    def replace(self, head: Head) -> None:
        """Store a head of the ledger regardless of the pinned head, at the end of a recovery."""
        self._sequence += 1
        self.head = head
        if self._file >= 0:
            os.pwrite(self._file, _render(self._sequence, head), self._sequence % 2 * SLOT_BYTES)

    def sync(self) -> None:
        """Flush the file of the pin to the disk with fsync."""
        if self._file >= 0:
            os.fdatasync(self._file)

    def close(self) -> None:
        """Flush the pin to the disk, and close its file."""
        if self._file >= 0:
            self.sync()
            os.close(self._file)
            self._file = -1


def read_pin(folder: Path) -> Head | None:
    """Return the pinned head of a data folder; None if nothing was pinned yet. Raises Conflict if neither of the two
    slots of its file is complete.
    """
    try:
        return _newest((folder / NAME).read_bytes())[1]
    except FileNotFoundError:
        return None


def _render(sequence: int, head: Head) -> bytes:
    body = _LAYOUT.pack(_MAGIC, sequence, head.key, bytes.fromhex(head.history), head.size, head.root)
    return (body + sha256(body).digest()).ljust(SLOT_BYTES, b"\0")


def _newest(content: bytes) -> tuple[int, Head | None]:
    """Return the sequence number and the head of the newest complete slot; (0, None) if nothing was written yet. Raises
    Conflict for a damaged file.
    """
    if not any(content):
        return 0, None
    slots = [_parse(content[start : start + SLOT_BYTES]) for start in (0, SLOT_BYTES)]
    whole = [slot for slot in slots if slot is not None]
    if not whole:
        raise Conflict(
            f"the file {NAME} in the data folder is damaged",
            hint="restore the data folder, or remove the file if you know that the database is complete",
        )
    return max(whole)


def _parse(slot: bytes) -> tuple[int, Head] | None:
    body, digest = slot[: _LAYOUT.size], slot[_LAYOUT.size : _LAYOUT.size + _DIGEST_BYTES]
    if not body.startswith(_MAGIC) or sha256(body).digest() != digest:
        return None
    _, sequence, key, history, size, root = _LAYOUT.unpack(body)
    return sequence, Head(key, history.hex(), size, root)
