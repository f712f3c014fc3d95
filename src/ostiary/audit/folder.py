"""Reads from an untrusted folder: links, special files, and files above a size limit are refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ostiary.audit.report import Finding, Kind

LINK = "the path is a link or a special file, which is not read"


class Unreadable(Exception):
    """The error for a file that is missing, or that must not be read."""

    def __init__(self, kind: Kind, message: str, *, path: str) -> None:
        super().__init__(f"{path}: {message}")
        self.finding = Finding(kind, message, path=path)


def read(folder: Path, path: str, *, limit: int) -> bytes:
    """Return the content of the plain file `path` under `folder`, at most `limit` bytes. Raises Unreadable for a
    missing file, a symbolic link, or a file that is too long.
    """
    place = folder
    for part in path.split("/"):
        place = place / part
        try:
            status = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            raise Unreadable(Kind.MISSING, "the file is missing", path=path) from None
        if stat.S_ISLNK(status.st_mode):
            raise Unreadable(Kind.SYMLINK, LINK, path=place.relative_to(folder).as_posix())
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable(Kind.SYMLINK, LINK, path=path)
    with place.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Unreadable(Kind.OVERSIZE, f"the file has more than {limit} bytes", path=path)
    return data


def walk(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield each file under `folder`, sorted: its path, and whether it is a plain file."""
    waiting = [""]
    while waiting:
        base = waiting.pop()
        with os.scandir(folder / base) as listed:
            children = sorted(listed, key=lambda child: child.name)
        for child in children:
            path = f"{base}/{child.name}" if base else child.name
            if child.is_dir(follow_symlinks=False):
                waiting.append(path)
            else:
                yield path, child.is_file(follow_symlinks=False)
