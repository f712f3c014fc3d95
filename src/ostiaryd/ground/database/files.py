"""Detects that files of an open SQLite database were replaced or changed by another program.

SQLite keeps its files open by descriptor: it continues to write to a file that was deleted, renamed or replaced, and
does not notice a file that was truncated or overwritten in place. A commit into such a file is lost at the next start,
so the writer checks the files before each batch, before its commit, and again before the responses. Each check costs
three stat(2) calls and reads nothing. One change is not noticed: a log that is truncated in place during the commit
itself, about a millisecond.

SQLite writes to the index of the log through a memory map, which changes neither size nor time in a way that can be
compared. Linux reports a write(2) of another program to the index (inotify), and none through a map. With a damaged
index, SQLite would take pages from the log that are not there, or delete a log whose pages are not in the database yet.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ostiaryd.ground.database.failures import StorageFailed

log = logging.getLogger("ostiary")

_LIMITS = "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches"


class LostDatabase(StorageFailed):
    """A file of the database was replaced, removed or cut, or another program changed it."""

    code = "database_lost"
    problem = "a file of the database was lost or changed while the server runs"


class FileWatch:
    """A watch that notices each write(2) to a file (inotify of Linux). On other systems nothing is noticed. If the
    system permits this user no further watch, nothing is noticed either, and the server logs a warning.
    """

    _MODIFIED = 0x2

    def __init__(self, path: str) -> None:
        self._file = -1
        if sys.platform == "linux":
            libc = ctypes.CDLL(None, use_errno=True)
            self._file = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._file < 0 or libc.inotify_add_watch(self._file, os.fsencode(path), self._MODIFIED) < 0:
                reason = os.strerror(ctypes.get_errno())
                log.warning("writes of other programs to %s are not detected: %s; %s", path, reason, _LIMITS)

    def was_written(self) -> bool:
        """Return whether the file was written since the last call."""
        if self._file < 0:
            return False
        try:
            return bool(os.read(self._file, 1 << 16))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """End the watch."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class DatabaseFiles:
    """The files of one connection (database, write-ahead log, index of the log), with the state in which the connection
    has last seen them.

    If no other process writes, their size and time of modification change only by commits of the connection, and, for
    the database, while pages are moved to it (`moving`). A loss is final: even if the files come back, commits in
    between may be missing.
    """

    def __init__(self, path: str, *, is_shared: bool = False, on_loss: Callable[[LostDatabase], None]) -> None:
        """Record the state of the files. Call this immediately after the database is opened. `is_shared`: another
        process writes to the database, or has written.
        """
        self._on_loss = on_loss
        self._loss: LostDatabase | None = None
        real = os.path.realpath(path)
        self._paths = (path, f"{real}-wal", f"{real}-shm")
        self._seen: list[os.stat_result] = [os.stat(path)]
        self._is_shared, self._is_moving = is_shared, False
        self._watch: FileWatch | None = None
        self._mutex = threading.Lock()

    def close(self) -> None:
        """End the watch of the index."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    @contextmanager
    def moving(self) -> Iterator[bool]:
        """Permit another thread to move pages from the write-ahead log to the database in this block; otherwise a
        change of the database between two commits counts as a loss. Raises LostDatabase if a file was replaced, removed
        or cut.

        Yields false if the database has changed since the last commit and no other process is known to write: then
        nothing may be moved. The next batch determines whether another process has committed or the database is lost.
        """
        with self._mutex:
            was_written, states = self._was_index_written(), self._look()
            self._check_index(was_written, states)
            self._is_moving = self._is_shared or _is_same(self._seen[0], states[0])
        try:
            yield self._is_moving
        finally:
            with self._mutex:
                if self._is_moving:
                    self._is_moving = False
                    self._seen[0] = self._look()[0]

    def check_begun(self, *, is_alone: bool) -> None:
        """Check the files before a batch writes. Raises LostDatabase if the check fails.

        `is_alone`: no other connection has committed since the last batch. After a commit of another connection,
        changes of the content by other programs no longer count as a loss; a file that was replaced or removed, or a
        database file that became shorter, still does.
        """
        with self._mutex:
            was_written, states = self._was_index_written(), self._look()
            if len(self._seen) == len(states):
                self._check_index(was_written, states)  # first, because a damaged index looks like another's commit
                self._is_shared = self._is_shared or not is_alone
                self._check_unchanged(states, self._paths[:2])
            self._seen = states

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Check the files before the block, which commits, and again after the block. Raises LostDatabase if a check
        fails.

        Before the commit, only the write-ahead log may have grown: by pages that did not fit into memory.
        """
        with self._mutex:
            was_written, states = self._was_index_written(), self._look()
            self._check_unchanged(states, self._paths[:1])
            self._check_log(states)
            self._check_index(was_written, states)
            yield
            self._check_written()

    def check_rolled_back(self) -> None:
        """Check the files after a rollback: a part of the transaction may be in the write-ahead log, without a commit.
        Raises LostDatabase if the check fails.

        After a loss, nothing is checked.
        """
        if self._loss is None:
            with self._mutex:
                self._check_written()

    def _check_written(self) -> None:
        was_written, states = self._was_index_written(), self._look()
        self._check_log(states)
        self._check_index(was_written, states)
        self._seen = states

    def _was_index_written(self) -> bool:
        """Return whether a program has written to the index since the last call. Call this before `_look`, so that a
        file that SQLite has made longer is longer there too.
        """
        if self._watch is None:
            self._watch = FileWatch(self._paths[2])
        return self._watch.was_written()

    def _check_index(self, was_written: bool, states: list[os.stat_result]) -> None:
        """Check that nothing but SQLite, which writes to the index only to make it longer, has written to the index."""
        is_longer = len(self._seen) < len(states) or states[2].st_size > self._seen[2].st_size
        if was_written and not is_longer and not self._is_shared:
            remedy = "restart the server, which makes the index again from the log"
            try:
                _keep_log(self._paths[0])
            except OSError:  # such as no descriptor: then the end of the server may delete the log
                remedy = ""
            raise self._lost(f"another program has changed {self._paths[2]}", remedy=remedy)

    def _check_unchanged(self, states: list[os.stat_result], paths: Sequence[str]) -> None:
        for path, before, now in zip(paths, self._seen, states, strict=False):
            if self._is_moving and path == self._paths[0]:
                continue
            if not self._is_shared and not _is_same(before, now):
                raise self._lost(f"another program has changed {path}")

    def _check_log(self, states: list[os.stat_result]) -> None:
        if not self._is_shared and states[1].st_size < self._seen[1].st_size:
            raise self._lost(f"{self._paths[1]} was truncated")

    def _look(self) -> list[os.stat_result]:
        """Return the present state of the files, after checking that the paths name the opened files and that the
        database has not become shorter. Raises LostDatabase otherwise.
        """
        if self._loss is not None:
            raise LostDatabase(self._loss.detail)
        states = []
        for path in self._paths:
            try:
                states.append(os.stat(path))
            except OSError as error:
                raise self._lost(f"{path} does not exist any more: {error.strerror}") from None
        for path, before, now in zip(self._paths, self._seen, states, strict=False):
            if (before.st_dev, before.st_ino) != (now.st_dev, now.st_ino):
                raise self._lost(f"{path} was replaced")
        if states[0].st_size < self._seen[0].st_size:
            raise self._lost(f"{self._paths[0]} was truncated")
        return states

    def _lost(self, cause: str, *, remedy: str = "") -> LostDatabase:
        copying = f"copy the open files from /proc/{os.getpid()}/fd, then restore and restart"
        self._loss = LostDatabase(f"{cause}; {remedy or copying}")
        self._on_loss(self._loss)
        return self._loss


def _keep_log(path: str) -> None:
    """Keep the log as it is until this process ends: when the last connection is closed, SQLite would move pages by a
    damaged index, and delete the log. The next start makes the index again from the log. Raises OSError if the log
    cannot be locked.

    SQLite needs an exclusive lock for that. A lock of an open file, unlike the locks of SQLite, also excludes its own
    process, as long as the file stays open.
    """
    if sys.platform == "linux":
        lock = struct.pack("@hhqqi", fcntl.F_RDLCK, os.SEEK_SET, _SHARED_FIRST, _SHARED_SIZE, 0)
        fcntl.fcntl(os.open(path, os.O_RDONLY | os.O_CLOEXEC), fcntl.F_OFD_SETLK, lock)


_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
"""The bytes of a database file that SQLite locks for readers (sqlite.org/src/file/src/os.h)."""


def _is_same(before: os.stat_result, now: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) == (now.st_size, now.st_mtime_ns)
