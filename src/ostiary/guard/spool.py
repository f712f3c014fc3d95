"""The spool: numbered records of decisions that are not reported yet, in files that are written before the tool runs.

SPOOL_DIR/<id>/lock            locked by the guard that writes this spool, until its process ends; contains
                                   the boot id of the machine: records are certain to survive only until a reboot
    SPOOL_DIR/<id>/000000001.log   records as JSON lines; the name of the file is the number of the first record
    SPOOL_DIR/<id>/asked           approvals that were requested and are not recorded yet (`ostiary.guard.approvals`)

Each run of a guard has its own spool with a random id, so that two records never have the same id and number. The next
guard reports the spool of a guard that was killed. `append` returns after the record is in the kernel's buffers, so the
record survives the end of the process; a power loss may destroy the records of the last seconds. Numbers of records are
consecutive, so that the server notices gaps.

If another program deletes, renames, truncates, extends or replaces the file that is being written, the next record
begins a new file. The records of the other file are still reported, because this process has it open. Without the
folder, no record can be written, so the guard denies.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Invalid, Unavailable

log = logging.getLogger("ostiary.guard")

SEGMENT_BYTES = 1 << 20
DEFAULT_LIMIT = 256 << 20
RESERVE = 1 << 20
"""Bytes of the spool's limit that only outcomes of allowed calls may use, so that an allowed call can always be
completed.
"""
MAX_RECORD_BYTES = 128 << 10
"""Maximum size of a record in bytes. The size of arguments in a record is limited, so that no denial exceeds this
size.
"""

Mark = tuple[int, int]
"""A position in a spool: the number of the first record of a segment, and the offset in the segment."""

_LACKING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Codes of errors for a lack of descriptors or memory. The file has its records, and can be read later."""
_ID = re.compile(r"[0-9a-f]{32}")
_encode = msgspec.json.Encoder().encode
_decode = json_decoder(dict[str, object])


class SpoolFailed(Unavailable):
    """The guard cannot write a record, so the call must not run."""

    code = "spool_failed"


@dataclass(frozen=True, slots=True)
class Batch:
    """Records with the numbers `first`, `first` + 1, ..; `mark`: the position after the last record, for `confirm`. If
    `records` is empty, all lines before the mark were damaged.
    """

    first: int
    records: list[dict[str, object]]
    mark: Mark


class Spool:
    """A spool, the folder of records that the server may not have yet, locked by this process. Any thread may call
    `append`; one thread at a time may call the other methods.
    """

    def __init__(self, folder: Path, lock: int, *, limit: int, is_whole: bool = True) -> None:
        self.id, self.is_whole = folder.name, is_whole
        """`is_whole`: true if the machine has not rebooted since the records were written, so that no record is lost"""
        self._folder, self._lock, self._limit = folder, lock, limit
        self._mutex = threading.Lock()
        files = sorted(path for path in folder.glob("*.log") if path.stem.isdecimal() and _is_file(path))
        self._sizes = {int(path.stem): path.stat().st_size for path in files}
        """size in bytes of each file of records, by the number of its first record, in order"""
        self._confirmed: Mark = (0, 0)
        self._file, self._file_path = -1, ""
        """descriptor and path of the file that is being written"""
        self._place = (0, 0)
        """device and inode of the file that is being written, by which the spool notices that another program replaced
        the file
        """
        self._set_aside = dict[int, int]()
        """descriptors of files that another program changed, by the number of their first record"""
        self._next = 1
        self._is_closed = False
        self._is_tight = False
        """True after the disk was full. The current file is then deleted as soon as the server has all its records, and
        not only when the next file begins.
        """

    @property
    def requested_approvals(self) -> Path:
        """Return the path of the file with the approvals that were requested for calls without a record."""
        return self._folder / "asked"

    @property
    def waiting(self) -> int:
        """Return the number of bytes of records that the server has not confirmed."""
        with self._mutex:
            return self._left()

    @property
    def filled(self) -> int:
        """Return the fill level of the spool in per cent. From 100 on, only outcomes of calls can be stored."""
        return 100 * self.waiting // (self._limit - RESERVE)

    def _left(self) -> int:
        return max(0, sum(self._sizes.values()) - self._confirmed[1])

    def append(
        self,
        record: msgspec.Struct | dict[str, object],
        *,
        is_outcome: bool = False,
        then: Callable[[], None] | None = None,
    ) -> int:
        """Write a record with at least one member to the spool, and return its number.

        Other threads cannot write until `then` has returned, so the file of the record still exists while `then` runs.
        Only an outcome of a call (`is_outcome`) may use the last RESERVE bytes of the spool. Raises SpoolFailed if the
        spool is full, closed or not writable, or if the record is too large.
        """
        body = _encode(record)
        if len(body) > MAX_RECORD_BYTES:
            raise SpoolFailed(
                f"a record has {len(body)} bytes", hint=f"store at most {MAX_RECORD_BYTES} bytes in a record"
            )
        with self._mutex:
            number = self._next
            line = b'{"n":%d,%s\n' % (number, body[1:])
            if self._is_closed:
                raise SpoolFailed("the guard is closed", hint="create and start another guard")
            if self._left() + len(line) > self._limit - (0 if is_outcome else RESERVE):
                raise SpoolFailed("the spool is full", hint="check that the server is running and reachable")
            try:
                self._write(line)
            except OSError as error:
                hint = f"check the free space and the permissions of {self._folder}"
                self._is_tight = True
                raise SpoolFailed(f"the spool cannot be written: {error.strerror}", hint=hint) from None
            self._next = number + 1
            if then is not None:
                then()
            return number

    def _write(self, line: bytes) -> None:
        last = next(reversed(self._sizes), 0)
        if self._file >= 0 and not self._is_unchanged(last):
            self._leave(last)
        if self._file < 0 or self._sizes[last] >= SEGMENT_BYTES:
            last = self._next
            path = str(self._path(last))
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            if self._file >= 0:
                os.close(self._file)
            self._file, self._file_path, status = file, path, os.fstat(file)
            self._place = status.st_dev, status.st_ino
            self._sizes[last] = 0
        if os.write(self._file, line) != len(line):
            os.ftruncate(self._file, self._sizes[last])
            raise OSError(0, "the disk had space for only a part of the record")
        self._sizes[last] += len(line)

    def _is_unchanged(self, last: int) -> bool:
        """Return whether the open file is at its path, as this process wrote it."""
        try:
            status = os.lstat(self._file_path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino, status.st_size) == (*self._place, self._sizes[last])

    def _leave(self, last: int) -> None:
        """Stop writing to the open file, which another program changed. Keep it open to report its records."""
        log.warning("%s was changed by another program; the next record begins a new file", self._path(last))
        if last == self._next:  # the file has no record, and the next one needs its name
            os.close(self._file)
            self._drop(last)
            del self._sizes[last]
        else:
            self._set_aside[last] = self._file
            self._sizes[last] = os.fstat(self._file).st_size
        self._file = -1

    def batch(self, *, count: int, size: int) -> Batch | None:
        """Return the oldest records that the server has not confirmed: at most `count` records of `size` bytes in all,
        but always the first record, even if it is larger. Return None if the server has confirmed all.

        A damaged line ends a batch and is skipped; the next batch begins after it, so that the server records the gap.
        If only damaged lines are left, the batch has no records.
        """
        first, records, mark = 0, list[dict[str, object]](), self._confirmed
        for line, end in self._waiting():
            number, record = _parse(line)
            size -= len(line)
            if records and (number != first + len(records) or len(records) == count or size < 0):
                break
            mark = end
            if record is not None:
                first = first or number
                records.append(record)
        return Batch(first, records, mark) if mark != self._confirmed else None

    def _waiting(self) -> Iterator[tuple[bytes, Mark]]:
        """Yield each unconfirmed line, with the position after the line. An incomplete line is skipped, because its
        call never ran.
        """
        with self._mutex:
            segments = [first for first in self._sizes if first >= self._confirmed[0]]
        for first in segments:
            offset = self._confirmed[1] if first == self._confirmed[0] else 0
            try:
                opened = self._open(first)
            except OSError as error:
                if error.errno in _LACKING:
                    raise
                log.warning("records are lost: %s cannot be read: %s", self._path(first), error.strerror)
                self.is_whole = False
                with self._mutex:
                    self._sizes.pop(first, None)
                continue
            with opened as file:
                file.seek(offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    offset += len(line)
                    yield line, (first, offset)

    def _open(self, first: int) -> BinaryIO:
        """Open a file of records to read. A file that this process has open is read even if it has no path any more."""
        with self._mutex:
            is_last = self._file >= 0 and first == next(reversed(self._sizes), 0)
            descriptor = self._file if is_last else self._set_aside.get(first)
            if descriptor is not None:
                return os.fdopen(os.dup(descriptor), "rb")
        return os.fdopen(os.open(self._path(first), os.O_RDONLY | os.O_NOFOLLOW), "rb")

    def confirm(self, mark: Mark) -> None:
        """Record that the server has confirmed all records before `mark`, and delete the files before this position."""
        with self._mutex:
            self._confirmed = mark
            if self._is_tight and self._file >= 0 and mark == next(reversed(self._sizes.items())):
                os.close(self._file)
                self._file, self._confirmed, self._is_tight = -1, (0, 0), False
                mark = mark[0] + 1, 0
            for first in [first for first in self._sizes if first < mark[0]]:
                self._drop(first)
                del self._sizes[first]

    def _drop(self, first: int) -> None:
        """Delete a file of records, or only close the file if another program changed it."""
        if (descriptor := self._set_aside.pop(first, None)) is not None:
            os.close(descriptor)
            return
        with suppress(OSError):  # another program deleted or replaced the file
            self._path(first).unlink()

    def approvals(self) -> set[str]:
        """Return the ids of the approvals that calls with a record in this spool have spent."""
        approvals = set()
        for first in self._sizes:
            for line in self._path(first).read_bytes().splitlines():
                _, record = _parse(line)
                if record is not None and record.get("outcome") == "allow" and record.get("approval"):
                    approvals.add(str(record["approval"]))
        return approvals

    @property
    def is_empty(self) -> bool:
        """Return whether the server has confirmed every record of the spool."""
        with self._mutex:
            return all((first, size) <= self._confirmed or size == 0 for first, size in self._sizes.items())

    def close(self, *, keep: bool = False) -> None:
        """Close the spool. Unconfirmed records stay for the next guard. If the server has confirmed all records, the
        spool is deleted, unless `keep` is true (the server does not know yet that the spool has ended), or a requested
        approval is not recorded.
        """
        is_empty = self.is_empty and not keep and not self.requested_approvals.exists()
        with self._mutex:
            if self._is_closed:
                return
            self._is_closed = True
            for file in (*self._set_aside.values(), *([self._file] if self._file >= 0 else [])):
                os.close(file)
            self._file, self._set_aside = -1, {}
            if is_empty:
                self._remove()
            os.close(self._lock)

    def _remove(self) -> None:
        """Remove the files of this spool, and the folder unless other files are in it."""
        for file in (*map(self._path, self._sizes), self._folder / "lock"):
            with suppress(OSError):
                file.unlink()
        with suppress(OSError):  # the folder may not be empty, because another guard examines it at this moment
            self._folder.rmdir()

    def _path(self, first: int) -> Path:
        return self._folder / f"{first:09d}.log"


def new_spool(spool_dir: Path, *, random: Callable[[int], bytes], boot: str = "", limit: int = DEFAULT_LIMIT) -> Spool:
    """Create a spool under `spool_dir`. Raises SpoolFailed if the folder cannot be written, Invalid for a limit that
    leaves no room.
    """
    if limit <= RESERVE:
        raise Invalid(f"the spool must have more than {RESERVE} bytes", hint="raise `spool_limit`")
    name = random(16).hex()
    # Other guards find the folder only after it is renamed, when this guard has the lock.
    hidden, folder = spool_dir / f".{name}", spool_dir / name
    try:
        spool_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        hidden.mkdir(mode=0o700)
        lock = _lock(hidden)
        os.write(lock, boot.encode())
        hidden.rename(folder)
    except OSError as error:
        raise SpoolFailed(f"cannot write in {spool_dir}: {error.strerror}", hint="name another spool_dir") from None
    return Spool(folder, lock, limit=limit)


def take_over_spools(spool_dir: Path, *, boot: str = "") -> list[Spool]:
    """Lock the spools of guards that have ended, and return the spools, so that their records are reported. Other files
    in `spool_dir` stay unchanged. A spool that cannot be read is logged and left out.
    """
    spools = []
    try:
        folders = sorted(path for path in spool_dir.iterdir() if _ID.fullmatch(path.name) and not path.is_symlink())
    except OSError as error:
        log.warning("spools of earlier guards cannot be found in %s: %s", spool_dir, error.strerror)
        return []
    for folder in folders:
        # The guard of this spool runs, or another guard has just finished the spool.
        with suppress(BlockingIOError, FileNotFoundError):
            try:
                lock = _lock(folder)
                is_whole = boot != "" and os.pread(lock, len(boot) + 1, 0) == boot.encode()
                spools.append(Spool(folder, lock, limit=DEFAULT_LIMIT, is_whole=is_whole))
            except (NotADirectoryError, IsADirectoryError, PermissionError) as error:
                log.warning("the spool of an earlier guard in %s cannot be read: %s", folder, error.strerror)
    return spools


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _lock(folder: Path) -> int:
    """Lock a spool for this process, and return the descriptor. Raises BlockingIOError if another guard has the
    lock.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def _parse(line: bytes) -> tuple[int, dict[str, object] | None]:
    """Return the number and the record in a line; (0, None) for a damaged line."""
    try:
        record = _decode(line)
    except msgspec.DecodeError:
        return 0, None
    number = record.pop("n", None)
    return (number, record) if type(number) is int and number > 0 else (0, None)
