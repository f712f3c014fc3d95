"""The data folder of a server, and the lock that ensures that only one server uses the folder.

The lock is an flock(2) on the folder itself, so nothing but the folder can be deleted to remove it, and the kernel
releases it when the process ends. Child processes do not inherit the descriptor (PEP 446), so they do not hold the
lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ostiary.protocol.decoding import json_decoder
from ostiary.protocol.errors import Conflict, Unavailable

SPARE_BYTES = 256 << 20
HOLDER = "server.pid"
"""Name of the file in the data folder that names the process of the server. Only the lock shows whether that process
still runs.
"""


class Holder(msgspec.Struct, frozen=True):
    """The server that uses a data folder; `since` is in microseconds since the epoch."""

    pid: int
    host: str
    since: int

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since // 1_000_000, UTC)
        return f"process {self.pid} on {self.host}, since {since:%Y-%m-%dT%H:%M:%SZ}"


_decode_holder = json_decoder(Holder)


@contextmanager
def lock_folder(folder: Path, *, now: int) -> Iterator[None]:
    """Hold the lock of a data folder in the block. A missing folder is created.

    Raises Conflict if another server holds the lock, and Unavailable if the folder cannot be locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Unavailable(f"cannot open the data folder {folder}: {error.strerror}") from None
    try:
        _lock(descriptor, folder)
        holder = Holder(os.getpid(), socket.gethostname(), now)
        partial = folder / f"{HOLDER}.partial"
        partial.write_bytes(msgspec.json.encode(holder))
        os.replace(partial, folder / HOLDER)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict(
            f"another server uses the data folder {folder}: {_holder(folder)}",
            hint="stop that server, or start this one with its own --data-dir",
            code="folder_in_use",
        ) from None
    except OSError as error:
        raise Unavailable(
            f"cannot lock the data folder {folder}: {error.strerror}",
            hint="put the data folder on a local file system: some network file systems have no locks",
        ) from None


def _holder(folder: Path) -> str:
    """Return a description of the process that holds the lock, for an error message."""
    try:
        return str(_decode_holder((folder / HOLDER).read_bytes()))
    except (OSError, msgspec.DecodeError):
        return "a process that has just started"


def check_space(folder: Path, *, spare: int = SPARE_BYTES) -> str:
    """Return the free space on the disk of the data folder as text. Raises Conflict if less than `spare` bytes are
    free.
    """
    free = shutil.disk_usage(folder).free
    if free < spare:
        raise Conflict(
            f"{free >> 20} MiB are free on the disk of {folder}, less than {spare >> 20} MiB",
            hint="free some space: the server refuses an act that it cannot record",
        )
    return f"{free >> 30} GiB are free"
