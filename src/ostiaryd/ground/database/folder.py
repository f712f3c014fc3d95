"""The data folder of a server, and the lock that lets one server at a time use it.

The lock is an flock(2) on the folder itself: it cannot be deleted apart from the folder, and the kernel releases it
when the process dies, however it dies. The descriptor is not inherited (PEP 446), so no child process keeps it.
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
"""File in the data folder that names the process; only the lock shows whether the process runs."""


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
    """Hold the lock of a data folder, which is created if it is missing.

    Raises Conflict if another server holds the lock, Unavailable if the folder cannot be locked.
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
    """Return a description of the process that holds the lock, which may not have written its file yet."""
    try:
        return str(_decode_holder((folder / HOLDER).read_bytes()))
    except (OSError, msgspec.DecodeError):
        return "a process that has just started"


def check_space(folder: Path, *, spare: int = SPARE_BYTES) -> str:
    """Check the free space of the data folder, and return it in words. Raises Conflict if less than `spare`
    bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < spare:
        raise Conflict(
            f"{free >> 20} MiB are free on the disk of {folder}, less than {spare >> 20} MiB",
            hint="make room: an act that cannot be recorded is refused",
        )
    return f"{free >> 30} GiB are free"
