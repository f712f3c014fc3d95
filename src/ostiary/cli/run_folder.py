"""The temporary folder of a command that runs for long, such as a proxy."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def run_folder(prefix: str) -> Iterator[Path]:
    """Create a temporary folder whose name begins with `prefix`, and delete the folder at the end of the context.

    A killed process leaves its folder. Folders with this prefix that ended processes of this user have left are
    therefore deleted first. A process locks its folder before it renames the folder to a name that others look for.
    """
    _delete_left(prefix)
    unlocked = Path(tempfile.mkdtemp(prefix=f".{prefix}"))
    folder = unlocked.with_name(unlocked.name.removeprefix("."))
    descriptor = os.open(unlocked, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unlocked.rename(folder)
    try:
        yield folder
    finally:
        os.close(descriptor)
        shutil.rmtree(folder)


def _delete_left(prefix: str) -> None:
    """Delete the folders of this user that no process has locked."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:  # of another user, or deleted meanwhile
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # its process lives
            continue
        else:
            if os.fstat(descriptor).st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)  # files of another user stay
        finally:
            os.close(descriptor)
