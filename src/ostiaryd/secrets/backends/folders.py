"""Folders as back ends: mounted secrets of Kubernetes, and single files.

In a Kubernetes mount, the secret NAME is the folder NAME, and each file in the folder is a member of the secret. The
kubelet replaces a secret by one change of the link `..data`, and then removes the former files. A read therefore reads
the link once, and all members below the target of the link, and counts only if the link is unchanged at its end.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ostiary.protocol import canonical
from ostiary.protocol.errors import Conflict, Malformed
from ostiaryd.secrets.model.backend import BackendConfig, BackendFailed, BackendValue, check_names, check_value
from ostiaryd.secrets.model.keyvalue import MAX_VALUE
from ostiaryd.secrets.model.request import NothingStored

T = TypeVar("T")
WITHIN_S = 5.0
MAX_MEMBERS = 256
SWAPS = 5
"""Maximum number of times that a secret may be replaced during one read; after more, the read fails."""
DATA = "..data"
_THREADS = ThreadPoolExecutor(8, "ostiary-folders")
"""threads only for these reads, so that a disk that hangs does not block the other threads of the server"""


class _Folder:
    """A read-only folder of secrets. `kept` is the server's own data folder, from which nothing may be read."""

    def __init__(self, config: BackendConfig, kept: Path) -> None:
        self._address, self._kept = Path(config.address), kept

    async def write(self, path: str, data: Mapping[str, Any], present: BackendValue | None) -> None:
        """Refuse to write, because this back end is read-only. Raises Conflict always."""
        raise Conflict(
            "a folder of secrets is a read-only back end", hint="use this back end as the source, or write to a Vault"
        )

    def root(self) -> Path:
        """Return the folder's path with symbolic links resolved. Raises BackendFailed if the folder is missing, or
        contains or lies in the server's data folder.
        """
        try:
            root, kept = self._address.resolve(strict=True), self._kept.resolve()
        except OSError as error:
            raise BackendFailed(f"the folder cannot be read: {error.strerror}") from None
        if root.is_relative_to(kept) or kept.is_relative_to(root):
            raise BackendFailed("the folder of the back end contains, or lies in, the data folder of this server")
        return root


class KubernetesBackend(_Folder):
    """A read-only back end: a folder in which each subfolder is a mounted secret of Kubernetes, and each file in a
    subfolder is a member of this secret.
    """

    async def read(self, path: str) -> BackendValue:
        """Return the members of a secret. Raises NothingStored if there is no such secret; BackendFailed if a file of
        the secret may not be read, is not UTF-8 or is too long, or if Kubernetes replaces the secret during each
        attempt to read.
        """
        _check_visible(path)
        return await _in_thread(lambda: self._read(path))

    async def list_names(self, folder: str) -> list[str]:
        """Return the names of the mounted secrets; an empty list if `folder` is not empty, because a mounted secret
        lies directly in the back end's folder. Raises BackendFailed if the back end's folder is missing, or its file
        system is too slow.
        """
        return await _in_thread(lambda: self._list(folder))

    def _read(self, path: str) -> BackendValue:
        if "/" in path:
            raise NothingStored("no value is stored at this path")
        folder = _resolve(self.root(), path)
        for _ in range(SWAPS):
            link = _read_link(folder / DATA)
            try:
                present = _resolve(folder, link) if link else folder
                members = {name: _read_text(present, name) for name in _file_names(present)}
            except NothingStored:
                members = {}
            if _read_link(folder / DATA) != link:
                continue  # some of the former files may be removed already
            if not members:
                raise NothingStored("no value is stored at this path")
            return check_value(members)
        raise BackendFailed("the secret was replaced several times during the read", hint="read the secret again")

    def _list(self, folder: str) -> list[str]:
        root = self.root()
        if folder:
            return []
        return check_names([one.name for one in os.scandir(root) if one.name[0] != "." and one.is_dir()], "")


class FilesBackend(_Folder):
    """A read-only back end: a folder in which each file is a secret. If the file contains a JSON object, the secret has
    the members of the object; any other text is the member `value`.
    """

    async def read(self, path: str) -> BackendValue:
        """Return the value in a file. Raises NothingStored if there is no such file, BackendFailed if the server may
        not read the file, or the file is too long or not UTF-8.
        """
        _check_visible(path)
        return await _in_thread(lambda: _parse(_read_text(self.root(), path)))

    async def list_names(self, folder: str) -> list[str]:
        """Return the names of the files and folders directly in a folder; an empty list if the folder is missing or may
        not be read. Raises BackendFailed if the back end's own folder is missing, or its file system is too slow.
        """
        return await _in_thread(lambda: self._list(folder))

    def _list(self, folder: str) -> list[str]:
        _check_visible(folder)
        root = self.root()
        try:
            present = _resolve(root, folder) if folder else root
            names = [one.name + ("/" if one.is_dir() else "") for one in os.scandir(present) if one.name[0] != "."]
        except (NothingStored, OSError):
            return []
        return check_names(names, folder)


async def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of `_THREADS`, and return its result. Raises BackendFailed if the disk takes longer than
    `WITHIN_S` seconds.
    """
    try:
        async with asyncio.timeout(WITHIN_S):
            return await asyncio.get_running_loop().run_in_executor(_THREADS, work)
    except TimeoutError:
        raise BackendFailed(
            f"a read from the folder takes longer than {WITHIN_S:g} s", hint="check its file system"
        ) from None


def _check_visible(path: str) -> None:
    """Check that no segment of the path begins with a dot, because `..data` would be a second path to a mounted secret.
    Raises NothingStored otherwise.
    """
    if any(name.startswith(".") for name in path.split("/")):
        raise NothingStored("no value is stored at this path")


def _resolve(root: Path, path: str) -> Path:
    """Return the path below the folder `root` without links. Raises NothingStored if the path does not exist, or a link
    leads out of the folder.
    """
    try:
        resolved = (root / path).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise NothingStored("no value is stored at this path") from None
    if resolved == root or not resolved.is_relative_to(root):
        raise NothingStored("no value is stored at this path")
    return resolved


def _read_link(path: Path) -> str:
    """Return the target of a link; an empty text if there is no link."""
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _file_names(folder: Path) -> list[str]:
    try:
        names = sorted(one.name for one in os.scandir(folder) if not one.name.startswith("..") and one.is_file())
    except OSError:
        raise NothingStored("no value is stored at this path") from None
    if not names:
        raise NothingStored("no value is stored at this path")
    if len(names) > MAX_MEMBERS:
        raise BackendFailed(f"the secret has more than {MAX_MEMBERS} files")
    return names


def _read_text(root: Path, path: str) -> str:
    """Return the text of a regular file below a folder. Raises NothingStored if there is no such file, BackendFailed if
    the server may not read the file, or the file is too long or not UTF-8.
    """
    try:
        descriptor = os.open(_resolve(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NothingStored("no value is stored at this path")
            content = file.read(MAX_VALUE + 1)
    except PermissionError:
        raise BackendFailed(
            "the server may not read the file", hint="permit the user of the server to read it"
        ) from None
    except OSError:
        raise NothingStored("no value is stored at this path") from None
    if len(content) > MAX_VALUE:
        raise BackendFailed(f"the file has more than {MAX_VALUE} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BackendFailed("the file is not UTF-8", hint="store the value as text") from None


def _parse(text: str) -> BackendValue:
    try:
        value = canonical.parse(text)
    except Malformed:
        value = None
    return check_value(value if isinstance(value, dict) else {"value": text})
