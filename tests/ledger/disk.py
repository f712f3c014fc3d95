"""A disk that loses power: what was not synced is lost, in part, or out of order.

A SQLite VFS (through apsw) that writes for real and keeps beside it what a disk would hold after a power cut at this
moment: everything up to the last sync of each file, and of the writes since then any subset, the last of them torn.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from ostiaryd.ground.database import PRAGMAS, Sql

SECTOR = 512


class PowerCut(BaseException):
    """The machine is off. Not an Exception: nobody may handle it."""


@dataclass
class File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # None: truncate to the offset

    def sync(self) -> None:
        for offset, data in self.pending:
            _apply(self.durable, offset, data)
        self.pending.clear()


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(data)] = data


class Disk(apsw.VFS):
    """`operations` counts writes and syncs; at number `cut_at` the power goes, before that operation is done."""

    def __init__(self, name: str, *, cut_at: int) -> None:
        self.files: dict[str, File] = {}
        self.operations, self.cut_at, self.is_off = 0, cut_at, False
        self.name = name
        super().__init__(name, "")

    def xOpen(self, name: Any, flags: list[int]) -> DiskFile:
        return DiskFile(self, name, flags)

    def has_power(self) -> bool:
        """Count an operation. The cut raises once; what SQLite still tries after it, to tidy up, reaches no platter."""
        if self.is_off:
            return False
        self.operations += 1
        if self.operations >= self.cut_at:
            self.is_off = True
            raise PowerCut
        return True

    def after_power_cut(self, rng: random.Random) -> dict[str, bytes]:
        """The content of the disk when the power is back."""
        left = {}
        for path, file in self.files.items():
            content = bytearray(file.durable)
            for offset, data in file.pending:
                fate = rng.random()
                if fate < 0.4:
                    _apply(content, offset, data)
                elif fate < 0.6 and data:
                    _apply(content, offset, data[: rng.randrange(0, len(data) + 1, SECTOR)])
            left[path] = bytes(content)
        return left


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        existing = Path(path).read_bytes() if Path(path).exists() else b""
        self._file = disk.files.setdefault(path, File(bytearray(existing)))

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.has_power():
            super().xWrite(data, offset)
            self._file.pending.append((offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        if self._disk.has_power():
            super().xTruncate(size)
            self._file.pending.append((size, None))

    def xSync(self, flags: int) -> None:
        if self._disk.has_power():
            self._file.sync()  # the real sync is left out: this disk decides what lasts


class Cursor:
    def __init__(self, connection: apsw.Connection, raw: apsw.Cursor) -> None:
        self.rowcount, self.fetchone, self.fetchall = connection.changes(), raw.fetchone, raw.fetchall


class ShimConnection:
    """The connection of `ground.database` over that disk, with the same pragmas."""

    def __init__(self, path: str, disk: Disk, *, pragmas: Iterable[str] = PRAGMAS) -> None:
        self._raw = apsw.Connection(path, vfs=disk.name)
        for pragma in pragmas:
            self._raw.execute(pragma).fetchall()

    def execute(self, statement: Sql, params: dict[str, Any]) -> Cursor:
        return Cursor(self._raw, self._raw.execute(statement.sqlite, [params[name] for name in statement.names]))

    def many(self, statement: Sql, rows: Iterable[Sequence[Any]]) -> None:
        self._raw.executemany(statement.sqlite, [tuple(row) for row in rows])

    def queue(self, statement: Sql, params: dict[str, Any]) -> None:
        self.execute(statement, params)

    def begin(self, *, write: bool) -> None:
        self._raw.execute("begin immediate" if write else "begin")

    def commit(self) -> None:
        self._raw.execute("commit")

    def rollback(self) -> None:
        if self._raw.in_transaction:
            self._raw.execute("rollback")

    def close(self) -> None:
        self._raw.close()
