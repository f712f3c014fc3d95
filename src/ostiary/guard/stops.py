"""Stops that a guard has received, stored beside its spool, so that they survive a restart of the guard and a restore
of the server's database.

    SPOOL_DIR/<resource>/<id>.stops   the signed messages of the feed that contain stops, one in each line
    SPOOL_DIR/<resource>/<id>.head    the newest signed checkpoint of the ledger that this guard has received, and
                                      its SHA-256

If the server has restored an older copy of its database, the checkpoint shows that entries are lost, and the messages
show the lost stops (`ostiary recover`). Messages that announce a new key of the feed are stored as well, because the
server may have lost the key. A snapshot of another history does not delete a stored stop until the server has received
the messages of the earlier history. Each run of a guard writes its own files, and takes over the files of guards that
have ended. When `KeptStops.store_message` returns, the data are in the kernel's buffers, so a power loss may destroy
the last writes. If the disk refuses the write, the stops stay in memory until the next message that can be written.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ostiary import ambient
from ostiary.decision.feed import (
    HEAD_BYTES,
    MAX_STOPS,
    MAX_STOPS_BYTES,
    AgentFact,
    Fact,
    KeyFact,
    Message,
    StopFact,
    TaskFact,
    TokenFact,
    announced_keys,
    stops_in,
    unverified_message,
    unverified_place,
)
from ostiary.guard.spool import SpoolFailed
from ostiary.protocol.errors import Refused

log = logging.getLogger("ostiary.guard")

KEPT_US = 30 * 86_400 * 1_000_000
"""Time in microseconds for which a stop of an agent or a key is stored after its expiry, for a server that lost the
stop.
"""
MAX_BYTES = 64 << 20
"""Maximum size of all stored messages together, in bytes; beyond that, the oldest are deleted."""
SLACK_BYTES = 1 << 20
"""Number of bytes that may be appended to the file of stops before the file is rewritten without superseded lines."""

Subject = tuple[str, str]


class _Kept(NamedTuple):
    line: bytes
    head: str
    history: str
    stops: dict[Subject, Fact]
    announced_at: int | None
    """time in microseconds of the message, if the message announced new keys of the feed; None for any other message"""

    @classmethod
    def of(cls, line: bytes, message: Message, *, history: str) -> _Kept:
        at = None if announced_keys(message) is None else message.at
        return cls(line.removesuffix(b"\n") + b"\n", message.head, history, stops_in(message), at)


class KeptStops:
    """The stops (revocations, ends of tasks, kill switches) that one guard stores in a file, so that they stay in force
    after a restart, or if the server loses them. The reporting thread uses `batches` and `settle`; the feed thread uses
    all other methods.
    """

    def __init__(
        self, folder: Path | None = None, *, now: Callable[[], int], random: Callable[[int], bytes] = ambient.random
    ) -> None:
        """Take over the stops of earlier guards in `folder`. Without a folder, all stops are stored in memory only.

        Raises SpoolFailed if the folder cannot be written.
        """
        self._now, self._folder, self._name = now, folder, random(16).hex()
        self._kept: list[_Kept] = []
        self._mutex = threading.Lock()
        self.head, self.history, self.size = "", "", 0
        """the newest signed checkpoint, the id of its history, and the number of ledger entries that it covers"""
        self._log = self._head = -1
        self._written = self._appended = 0
        self._is_behind = False
        """True if a write to the file failed, so that the file lacks stops that this guard knows. The write is repeated
        at the next message.
        """
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._take_over(folder)
            except OSError as error:
                raise SpoolFailed(
                    f"cannot write in {folder}: {error.strerror}", hint="name another spool_dir"
                ) from None

    def _take_over(self, folder: Path) -> None:
        """Read every file; delete the files of guards that have ended once their content is in this guard's own
        file.
        """
        gone: list[tuple[Path, int]] = []
        newest = -1
        head_file = folder / f"{self._name}.head"
        try:
            for path in sorted(folder.glob("*.stops")):
                with suppress(FileNotFoundError):
                    self._kept += list(_parse(path.read_bytes()))
                    head = path.with_suffix(".head")
                    if head.exists() and (at := head.stat().st_mtime_ns) > newest:
                        newest = at
                        self._note_head(_parse_head(head.read_bytes()))
                    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:  # its guard lives
                        os.close(lock)
                    else:
                        gone.append((path, lock))
            self._kept.sort(key=lambda kept: _at(kept.line))
            self._note_heads_of_messages()
            self._rewrite()
            self._head = os.open(head_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._write_head()
        except OSError:
            head_file.unlink(missing_ok=True)
            head_file.with_suffix(".stops").unlink(missing_ok=True)
            self.close()
            raise
        else:
            for path, _ in gone:
                path.unlink(missing_ok=True)
                path.with_suffix(".head").unlink(missing_ok=True)
        finally:
            for _, lock in gone:
                os.close(lock)

    def _note_heads_of_messages(self) -> None:
        """Read the newest checkpoint from the stored messages, if the file of the checkpoint is damaged or older."""
        is_lost = not self.head
        for kept in self._kept:
            history, size = unverified_place(kept.head)
            if is_lost or (history == self.history and size > self.size):
                self._note_head(kept.head)

    def _note_head(self, note: str) -> None:
        with suppress(Refused):
            place = unverified_place(note)
            if note:
                (self.history, self.size), self.head = place, note

    def store_message(self, line: bytes, message: Message) -> None:
        """Store the stops and the checkpoint of `message`, whose signed text is `line`. A failed write is logged, and
        repeated at the next message.
        """
        with self._mutex, self._tolerant():
            is_new_head = message.head not in ("", self.head)
            if is_new_head:
                self._note_head(message.head)
            kept = _Kept.of(line, message, history=self.history)
            if kept.stops or kept.announced_at is not None:
                self._kept.append(kept)
                self._append(kept.line)
            if is_new_head:
                self._write_head()

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Keep the messages in memory if the disk fails; the next write writes all of them."""
        try:
            yield
        except OSError as error:
            self._is_behind = True
            log.warning("stops cannot be kept in %s: %s", self._folder, error.strerror)

    def _append(self, line: bytes) -> None:
        if self._appended + len(line) > SLACK_BYTES + self._written or self._is_behind:
            self._rewrite()
        elif self._log >= 0:
            if os.write(self._log, line) != len(line):
                raise OSError(0, "the disk had space for only a part of the message")
            self._appended += len(line)

    def _write_head(self) -> None:
        if self._head >= 0:
            content = self.head.encode().ljust(HEAD_BYTES, b"\0")[:HEAD_BYTES]
            os.pwrite(self._head, content + sha256(content).digest(), 0)

    def _rewrite(self) -> None:
        """Delete superseded and expired stops, and write the other stops to a new file that replaces the old file."""
        self._kept = _needed(self._kept, now=self._now())
        content = b"".join(kept.line for kept in self._kept)
        self._written, self._appended = len(content), 0
        if self._folder is None:
            return
        partial, path = self._folder / f"{self._name}.partial", self._folder / f"{self._name}.stops"
        file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            _write_all(file, content)
            partial.rename(path)
        except BaseException:
            os.close(file)
            partial.unlink(missing_ok=True)
            raise
        if self._log >= 0:
            os.close(self._log)
        self._log, self._is_behind = file, False

    def facts(self, *, other_than: str) -> list[Fact]:
        """Return, for each history except `other_than`, the newest unexpired stop of each stopped subject."""
        now, newest = self._now(), dict[tuple[str, Subject], Fact]()
        for kept in list(self._kept):
            if kept.history != other_than:
                newest |= {(kept.history, subject): fact for subject, fact in kept.stops.items()}
        return [fact for fact in newest.values() if not _is_over(fact, now=now)]

    def batches(self) -> Iterable[list[str]]:
        """Yield the stored messages in order, in batches that are small enough for the server.

        Each batch begins with the messages that announce new keys of the feed.
        """
        first, most = self._announcing()
        batch, size = list(first), 0
        for kept in [kept for kept in self._kept if kept.announced_at is None]:
            if len(kept.line) > most:
                log.warning("a kept message is too long to be delivered: `ostiary recover --from` reads it")
                continue
            is_full = size + len(kept.line) > most - 4 * (len(batch) - len(first)) or len(batch) == MAX_STOPS
            if is_full and len(batch) > len(first):
                yield batch
                batch, size = list(first), 0
            batch.append(kept.line.decode("ascii").removesuffix("\n"))
            size += len(kept.line) + 3
        if batch:
            yield batch

    def _announcing(self) -> tuple[list[str], int]:
        """Return the messages with which each batch begins, and the maximum size in bytes of the others together."""
        announcing = [kept for kept in self._kept if kept.announced_at is not None]
        while sum(len(kept.line) + 4 for kept in announcing) > MAX_STOPS_BYTES // 2 or len(announcing) > MAX_STOPS // 2:
            del announcing[0]
        first = [kept.line.decode("ascii").removesuffix("\n") for kept in announcing]
        return first, MAX_STOPS_BYTES - 1024 - sum(len(line) + 5 for line in first)

    def has_others(self, history: str) -> bool:
        """Return whether a message of another history than `history` is stored."""
        return any(kept.history != history for kept in list(self._kept))

    def settle(self, history: str) -> bool:
        """Delete the messages of all histories except `history`, because the server has received them; return whether
        there were any. A history with a message that is too long for a batch stays whole, because the server lacks it.
        """
        with self._mutex, self._tolerant():
            _, most = self._announcing()
            stays = {history} | {
                kept.history for kept in self._kept if kept.announced_at is None and len(kept.line) > most
            }
            if all(kept.history in stays for kept in self._kept):
                return False
            self._kept = [kept for kept in self._kept if kept.history in stays]
            self._rewrite()
        return True

    def close(self) -> None:
        """Close the file of stops. The file stays, so that the next guard with this spool knows the stops."""
        for file in (self._log, self._head):
            if file >= 0:
                os.close(file)
        self._log = self._head = -1
        self._folder = None


def _parse_head(content: bytes) -> str:
    """Return the checkpoint in a file; empty if the file is damaged."""
    head, digest = content[:HEAD_BYTES], content[HEAD_BYTES:]
    return head.rstrip(b"\0").decode("utf-8", "replace") if sha256(head).digest() == digest else ""


def _parse(content: bytes) -> Iterable[_Kept]:
    """Return the messages of a file; a damaged line is skipped."""
    for line in content.split(b"\n"):
        with suppress(Refused):
            if line and line.isascii():
                message = unverified_message(line)
                yield _Kept.of(line, message, history=unverified_place(message.head)[0])


def _at(line: bytes) -> int:
    return unverified_message(line).at


def _needed(kept: list[_Kept], *, now: int) -> list[_Kept]:
    """Return the newest messages of each history about stops that still matter, within MAX_BYTES."""
    newest = {(one.history, subject): index for index, one in enumerate(kept) for subject in one.stops}
    needed = [
        one
        for index, one in enumerate(kept)
        if (one.announced_at is not None and one.announced_at + KEPT_US >= now)
        or any(
            newest[one.history, subject] == index and not _is_over(fact, now=now, more=KEPT_US)
            for subject, fact in one.stops.items()
        )
    ]
    size = sum(len(one.line) for one in needed)
    while size > MAX_BYTES and len(needed) > 1:
        size -= len(needed.pop(0).line)
    return needed


def _is_over(fact: Fact, *, now: int, more: int = 0) -> bool:
    """Return whether a stop no longer matters. A stop of an agent or a key no longer matters `more` microseconds after
    its expiry; a stop of the kill switch matters until it is lifted.
    """
    match fact:
        case AgentFact() | KeyFact():
            return fact.until + more < now
        case TaskFact() | TokenFact():
            return fact.until < now
        case StopFact():
            return False
        case _:
            return True


def _write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
