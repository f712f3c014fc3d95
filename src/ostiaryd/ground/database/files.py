"""Detects that files of an open SQLite database were replaced or changed by another program.

SQLite keeps its files open by descriptor: it continues to write to a file that was deleted, renamed or replaced, and
does not notice a file that was truncated or overwritten in place. A commit into such a file is lost at the next start,
so the writer checks the files before each batch, before its commit, and again before the responses. Each check costs
three stat(2) calls and reads nothing. One change is not noticed: a log that is truncated in place during the commit
itself, about a millisecond.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ostiaryd.ground.database.failures import StorageFailed


class LostDatabase(StorageFailed):
    """A file of the database was replaced, or another program changed it."""

    code = "database_lost"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint=f"copy the open files from /proc/{os.getpid()}/fd, then restore and restart")


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
        self._on_loss, self._loss = on_loss, ""
        real = os.path.realpath(path)
        self._paths = (path, f"{real}-wal", f"{real}-shm")
        self._seen: list[os.stat_result] = [os.stat(path)]
        self._is_shared, self._is_moving = is_shared, False
        self._mutex = threading.Lock()

    @contextmanager
    def moving(self) -> Iterator[bool]:
        """Permit another thread to move pages from the log to the database in this block; otherwise a change of the
        database between two commits counts as a loss. Raises LostDatabase.

        Yields false if the database has changed since the last commit: then nothing may be moved. The next batch
        determines whether another process has committed or the database is lost.
        """
        with self._mutex:
            before, now = self._seen[0], self._look()[0]
            self._is_moving = self._is_shared or _is_same(before, now)
        try:
            yield self._is_moving
        finally:
            with self._mutex:
                if self._is_moving:
                    self._is_moving = False
                    self._seen[0] = self._look()[0]

    def check_begun(self, *, is_alone: bool) -> None:
        """Check the files before a batch writes. Raises LostDatabase.

        `is_alone`: no other connection has committed since the last batch.
        """
        with self._mutex:
            states = self._look()
            if len(self._seen) == len(states):
                self._is_shared = self._is_shared or not is_alone
                self._check_unchanged(states, self._paths[:2])
            self._seen = states

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Check the files before the block, which commits, and again after the block. Raises LostDatabase.

        Before the commit only the log may have grown, by pages that did not fit into memory.
        """
        with self._mutex:
            states = self._look()
            self._check_unchanged(states, self._paths[:1])
            self._check_log(states)
            yield
            self._check_written()

    def check_rolled_back(self) -> None:
        """Check the files after a rollback: a part of the transaction may be in the log, without a commit. Raises
        LostDatabase.

        After a loss, nothing is checked.
        """
        if not self._loss:
            with self._mutex:
                self._check_written()

    def _check_written(self) -> None:
        states = self._look()
        self._check_log(states)
        self._seen = states

    def _check_unchanged(self, states: list[os.stat_result], paths: Sequence[str]) -> None:
        for path, before, now in zip(paths, self._seen, states, strict=False):
            if self._is_moving and path == self._paths[0]:
                continue
            if not self._is_shared and not _is_same(before, now):
                raise self._lost(f"another program has changed {path} while the server runs")

    def _check_log(self, states: list[os.stat_result]) -> None:
        if not self._is_shared and states[1].st_size < self._seen[1].st_size:
            raise self._lost(f"{self._paths[1]} was truncated while the server runs")

    def _look(self) -> list[os.stat_result]:
        """Return the present state of the files, after checking that the paths name the opened files and that the
        database has not become shorter. Raises LostDatabase.
        """
        if self._loss:
            raise LostDatabase(self._loss)
        states = []
        for path in self._paths:
            try:
                states.append(os.stat(path))
            except OSError as error:
                raise self._lost(f"{path} does not exist any more while the server runs: {error.strerror}") from None
        for path, before, now in zip(self._paths, self._seen, states, strict=False):
            if (before.st_dev, before.st_ino) != (now.st_dev, now.st_ino):
                raise self._lost(f"{path} was replaced while the server runs")
        if states[0].st_size < self._seen[0].st_size:
            raise self._lost(f"{self._paths[0]} was truncated while the server runs")
        return states

    def _lost(self, message: str) -> LostDatabase:
        self._loss = message
        loss = LostDatabase(message)
        self._on_loss(loss)
        return loss


def _is_same(before: os.stat_result, now: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) == (now.st_size, now.st_mtime_ns)
