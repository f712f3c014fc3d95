"""The process at the other end of a Unix socket: the kernel identifies it, and /proc describes it (Linux).

`SO_PEERCRED` names the process that connected, with its effective user and group at that time. A process id alone
proves nothing, since the kernel gives the id to another process after the end of the first. `PeerProcess` holds a
pidfd, which never means another process. Linux 6.5 gives the pidfd with the socket (`SO_PEERPIDFD`). On an older kernel
the pidfd is opened by the process id, which may belong to another process by then. Such a process is accepted only if
it started before the last time at which no connection waited.

Facts from /proc are used only if the process still runs after they were read, so that all of them are about this
process.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import select
import socket
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ostiary.protocol.errors import Forbidden, Unavailable

SO_PEERPIDFD = 77
"""Option of Linux 6.5, for which Python has no name."""
MAX_PROC_FILE = 64 << 10
MAX_EXECUTABLE = 512 << 20
"""Maximum size of an executable whose digest is computed, in bytes. A larger executable has no digest."""
MAX_DIGESTS = 256
_CREDENTIALS = struct.Struct("3i")
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
FileState = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last change of content and inode, of a file."""


class PeerGone(Unavailable):
    """The process that connected has ended, or another process may have its process id."""

    code = "peer_gone"

    def __init__(self, message: str = "the process that opened the connection has ended") -> None:
        super().__init__(message, hint="open a new connection")


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """Facts about a running process. A fact is empty if the server may not read it or cannot rely on it."""

    pid: int
    uid: int
    gid: int
    path: str
    """Path of the executable, if the server finds the same file at that path; empty for a path in another mount
    namespace.
    """
    digest: str
    """SHA-256 of the executable in hexadecimal digits; empty if it was not requested."""
    cgroups: str
    """The lines of /proc/PID/cgroup of the process."""


class PeerProcess:
    """The process that opened a connection. Use it only on the event loop."""

    def __init__(self, pid: int, uid: int, gid: int, pidfd: int) -> None:
        self.pid, self.uid, self.gid, self.pidfd = pid, uid, gid, pidfd
        self._readers = 0
        self._is_closed = False

    async def read_facts(self, *, has_digest: bool = False) -> ProcessFacts:
        """Read the facts of the process in a thread, and return them. `has_digest`: also compute the digest of its
        executable.

        Raises PeerGone if the process has ended; Forbidden if its user or group has changed since it connected;
        Unavailable if the server has no descriptor or memory for this.
        """
        if self._is_closed:
            raise PeerGone
        self._readers += 1
        try:
            return await asyncio.to_thread(_read_facts, self, has_digest)
        except OSError as error:
            raise Unavailable(f"the server cannot read facts of the process: {error.strerror}") from None
        finally:
            self._readers -= 1
            self._release()

    @property
    def has_ended(self) -> bool:
        """Return whether the process has ended."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the pidfd when no thread uses it any more."""
        self._is_closed = True
        self._release()

    def _release(self) -> None:
        if self._is_closed and not self._readers and self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def gives_pidfd() -> bool:
    """Return whether the kernel gives a pidfd with a connection (`SO_PEERPIDFD`)."""
    one, other = socket.socketpair()
    with one, other:
        try:
            os.close(one.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
        except OSError as error:
            return error.errno != errno.ENOPROTOOPT
        return True


def open_peer(connection: socket.socket, *, none_waited_at: int) -> PeerProcess:
    """Return the process that opened a connection to a Unix socket of this server. Raises PeerGone if the process has
    ended, or may be another one; Forbidden if it is in another PID namespace.

    `none_waited_at` is the last time at which no connection waited to be accepted (boot clock, microseconds). Only used
    if the kernel gives no pidfd with a connection.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(credentials)
    if pid <= 0:
        raise Forbidden(
            "the process is in another PID namespace",
            hint="run the server in a PID namespace that contains the one of the process",
            code="peer_hidden",
        )
    try:
        return PeerProcess(pid, uid, gid, connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise PeerGone from None
    return _open_by_id(pid, uid, gid, none_waited_at)


def _open_by_id(pid: int, uid: int, gid: int, none_waited_at: int) -> PeerProcess:
    """Return a process opened by its process id. Raises PeerGone if the process may have started after `none_waited_at`
    (boot clock, microseconds), the last time at which no connection waited.
    """
    try:
        peer = PeerProcess(pid, uid, gid, os.pidfd_open(pid))
    except OSError:
        raise PeerGone from None
    try:
        if _started_at(pid) >= none_waited_at or peer.has_ended:
            raise PeerGone("the process started too late: another process may have had its id")
    except BaseException:
        peer.close()
        raise
    return peer


def _started_at(pid: int) -> int:
    """Return the latest time at which the process can have started (boot clock, microseconds). Raises PeerGone if the
    process has ended.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    try:
        started = int(_read(pid, "stat").rpartition(")")[2].split()[19])  # field 22 (starttime) of proc(5)
    except (OSError, IndexError, ValueError):
        raise PeerGone from None
    return (started + 1) * 1_000_000 // ticks


def _read_facts(peer: PeerProcess, has_digest: bool) -> ProcessFacts:
    try:
        status, cgroups = _read(peer.pid, "status"), _read(peer.pid, "cgroup")
    except OSError as error:
        _check_resources(error)
        raise PeerGone from None
    uid, gid = (_effective(status, name) for name in ("Uid:", "Gid:"))
    path, digest = _executable(peer.pid, has_digest)
    if peer.has_ended or _pid_of(peer.pidfd) != peer.pid:
        raise PeerGone
    if (uid, gid) != (peer.uid, peer.gid):
        raise Forbidden(
            "the process has changed its user or group since it connected",
            hint="open a new connection",
            code="peer_changed",
        )
    return ProcessFacts(peer.pid, uid, gid, path, digest, cgroups)


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read(MAX_PROC_FILE).decode("utf-8", "replace")


def _effective(status: str, name: str) -> int:
    """Return the effective id in a line `Uid:` or `Gid:` of /proc/PID/status (real, effective, saved, file system)."""
    return next((int(line.split()[2]) for line in status.splitlines() if line.startswith(name)), -1)


def _pid_of(pidfd: int) -> int:
    """Return the process id of a pidfd; -1 if the process has ended."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text("ascii").splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    return -1


def _executable(pid: int, has_digest: bool) -> tuple[str, str]:
    """Return path and digest of the executable of a process; both are empty if the server may not read it.

    In another mount namespace any file can be at any path. The path is therefore returned only if the server finds the
    same file there.
    """
    try:
        with open(f"/proc/{pid}/exe", "rb") as file:
            stat, path = os.fstat(file.fileno()), os.readlink(f"/proc/{pid}/exe")
            state = stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
            digest = _digests.get(file.fileno(), state) if has_digest else ""
        # the file cannot be written while the process runs it
        if not os.path.samestat(os.stat(f"/proc/{pid}/exe"), stat):
            return "", ""
    except OSError as error:
        _check_resources(error)
        return "", ""
    try:
        is_there = os.path.samestat(os.stat(path), stat)
    except OSError as error:
        _check_resources(error)
        is_there = False
    return path if is_there else "", digest


def _check_resources(error: OSError) -> None:
    """Raise `error` if it says nothing about the process, because the server has no descriptor or memory."""
    if error.errno in _EXHAUSTED:
        raise error


class _Digests:
    """A cache of digests of executables, by the state of the file. A file cannot be written while a process runs it."""

    def __init__(self) -> None:
        self._known: OrderedDict[FileState, str] = OrderedDict()
        # one file at a time, because the digest of a large file takes a second of processor time
        self._lock = threading.Lock()

    def get(self, descriptor: int, state: FileState) -> str:
        """Return the digest of an open file; empty for a file larger than `MAX_EXECUTABLE`."""
        with self._lock:
            if (digest := self._known.get(state)) is not None:
                return digest
            if state[2] > MAX_EXECUTABLE:
                return ""
            hashed = hashlib.sha256()
            with open(descriptor, "rb", closefd=False) as file:
                for chunk in iter(partial(file.read, 1 << 20), b""):
                    hashed.update(chunk)
            if len(self._known) >= MAX_DIGESTS:
                self._known.popitem(last=False)
            self._known[state] = hashed.hexdigest()
            return self._known[state]


_digests = _Digests()
