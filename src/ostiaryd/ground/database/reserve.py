"""A reserve of disk space for acts that stop something. With SQLite, it is a preallocated file in the data folder; with
PostgreSQL, tables (`PostgresReserve`).

When the disk is full, the file is shortened step by step, and only such acts may use the freed space; all others are
refused (`DiskFull`). When there is space again, the file is restored. On a file system that copies on write or
compresses, preallocated blocks do not guarantee the space.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Protocol

from ostiary.protocol.errors import Unavailable

RESERVE_BYTES = 64 << 20
"""Size of the file, in bytes. If the disk is small when the file is created, a quarter of the free space instead."""
STEPS = 8
_FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
"""Codes of SQLite for a full disk (ENOSPC), for a failed write, such as over a quota (EDQUOT), and for both in the file
of the shared memory. A write that failed for another reason fails again, after the reserve is used up.
"""
LOW_BYTES = 1 << 20
"""Free space below which a server starts as if the disk were full, in bytes, because opening the database needs some
space.
"""


class DiskFull(Unavailable):
    """The disk has no space for an act, or refuses writes. The act changed nothing. Reads still work, and, with a
    reserve, acts that stop an agent.
    """

    code = "disk_full"

    def __init__(self, *, has_reserve: bool = True) -> None:
        works = "acts that stop something, and reads, still work" if has_reserve else "reads still work, stops do not"
        super().__init__(
            "the disk of the database is full, or refuses writes", hint=f"free some space, or raise the quota; {works}"
        )


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether the exception of a driver, or its cause, means that the disk is full, or refuses writes."""
    while error is not None:
        if isinstance(error, DiskFull):
            return True
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) in _FULL:
            return True
        if getattr(error, "sqlstate", None) == "53100":  # PostgreSQL: disk_full
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__context__
    return False


class Reserve(Protocol):
    """Disk space that is kept for acts that stop something."""

    @property
    def was_full(self) -> bool:
        """Return whether the disk was full when the server started."""
        ...

    @property
    def size(self) -> int:
        """Return the number of bytes that are reserved now."""
        ...

    @property
    def defect(self) -> str:
        """Return why PostgreSQL refuses to create the reserve, such as missing rights. Empty if the reserve exists or
        the disk has no space for it, and always empty with SQLite.
        """
        ...

    def build(self) -> bool:
        """Restore the full size of the reserve if the disk has space. Return false if it has no space."""
        ...

    def release(self) -> bool:
        """Free one part of the reserve. Return false if nothing is left."""
        ...

    def open_room(self) -> bool:
        """Return whether the disk is known to be full. If so, a reserve in a file first frees one part."""
        ...

    def close(self) -> None:
        """Close the open connection, if there is one."""
        ...


class FileReserve:
    """A reserve in a preallocated file of the data folder (SQLite). No method except `build` waits for the disk."""

    defect = ""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "reserve"
        self._wanted = 0
        self.was_full = self.open_room()
        """True if the disk was full when the server started."""

    @property
    def size(self) -> int:
        """Return the number of bytes that are reserved now."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def build(self) -> bool:
        """Restore the file to its full size, if the disk has space for it and a quarter more. Return whether it has the
        full size.
        """
        size = self.size
        free = self._free()
        self._wanted = self._wanted or max(LOW_BYTES, min(RESERVE_BYTES, (free + size) // 4))
        if size >= self._wanted:
            return True
        if free < self._wanted - size + max(LOW_BYTES, self._wanted // 4):
            return False
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, self._wanted)
        except OSError as error:
            if not is_disk_full(error):
                raise
            os.ftruncate(file, size)
            return False
        finally:
            os.close(file)
        return True

    def release(self) -> bool:
        """Free a part of the reserve by shortening its file by one step. Return false if the file was already empty."""
        size = self.size
        if not size:
            return False
        os.truncate(self._path, max(0, size - max(LOW_BYTES, self._wanted // STEPS, size // STEPS)))
        return True

    def open_room(self) -> bool:
        """Shorten the file by one step if the disk is full. Return whether the disk was full."""
        if is_full := self._free() < LOW_BYTES:
            self.release()
        return is_full

    def close(self) -> None:
        """Do nothing: no file is open."""

    def _free(self) -> int:
        stat = os.statvfs(self._path.parent)
        return stat.f_bavail * stat.f_frsize
