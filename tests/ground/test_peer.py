"""The process behind a connection: facts of /proc, and ids that another process has by now."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from harness.patience import eventually
from ostiary.protocol.errors import Forbidden
from ostiaryd.ground.process import peer as module
from ostiaryd.ground.process.clock import boot_clock
from ostiaryd.ground.process.peer import PeerGone, PeerProcess, _executable, gives_pidfd, open_peer

CONNECT = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print('up', flush=True); input()"
)
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
EXECUTABLE = Path(sys.executable).resolve()
PYTHON = Path("/usr/bin/python3")
"""An interpreter that every user may run."""
WITHOUT_PIDFD = 30_000
"""A socket option that no kernel has: the answer of a kernel before 6.5."""


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "peer.sock"))
        sock.listen()
        yield sock


@contextmanager
def connected(
    listener: socket.socket, *command: str | Path, uid: int | None = None
) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """A process that has connected, and our end of its connection."""
    process = subprocess.Popen(
        [*(command or (sys.executable, "-c", CONNECT)), listener.getsockname()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == b"up\n"
        connection, _ = listener.accept()
        with connection:
            yield connection, process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@contextmanager
def peer_of(connection: socket.socket, *, none_waited_at: int | None = None) -> Iterator[PeerProcess]:
    opened = open_peer(connection, none_waited_at=boot_clock() if none_waited_at is None else none_waited_at)
    try:
        yield opened
    finally:
        opened.close()


def cgroups_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def open_to_all(folder: Path) -> None:
    """Let every user reach the socket in a folder of pytest."""
    for place in (folder, *folder.parents):
        if str(place).startswith(f"{tempfile.gettempdir()}/"):
            place.chmod(0o755)
    for sock in folder.glob("*.sock"):
        sock.chmod(0o666)


async def test_the_facts_of_a_peer_describe_the_process_that_connected(listener: socket.socket) -> None:
    with connected(listener) as (connection, process), peer_of(connection) as peer:
        facts = await peer.read_facts(has_digest=True)
        assert (facts.pid, facts.uid, facts.gid) == (process.pid, os.getuid(), os.getgid())
        assert facts.path == str(EXECUTABLE)
        assert facts.digest == sha256(EXECUTABLE.read_bytes()).hexdigest()
        assert facts.cgroups == cgroups_of(process.pid)
        assert (await peer.read_facts()).digest == "", "it was not asked for"


@pytest.mark.skipif(os.getuid() != 0 or not PYTHON.exists(), reason="only root may become another user")
async def test_the_user_and_group_of_a_peer_are_the_effective_ids(listener: socket.socket, tmp_path: Path) -> None:
    open_to_all(tmp_path)
    with connected(listener, PYTHON, "-c", CONNECT, uid=12_345) as (connection, _), peer_of(connection) as peer:
        facts = await peer.read_facts()
        assert (facts.uid, facts.gid) == (12_345, 12_345)


CHANGES_USER = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); os.setgid(12345); os.setuid(12345)
print('up', flush=True); input()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
async def test_a_process_that_has_changed_its_user_is_refused(listener: socket.socket) -> None:
    with (
        connected(listener, sys.executable, "-c", CHANGES_USER) as (connection, _),
        peer_of(connection) as peer,
        pytest.raises(Forbidden, match="changed its user") as refused,
    ):
        await peer.read_facts()
    assert refused.value.code == "peer_changed"


async def test_a_replaced_executable_has_no_path(listener: socket.socket, tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy(EXECUTABLE, program)
    with connected(listener, program, "-E", "-c", CONNECT) as (connection, _), peer_of(connection) as peer:
        assert (await peer.read_facts()).path == str(program)
        (tmp_path / "other").write_bytes(b"another program")
        (tmp_path / "other").replace(program)
        assert (await peer.read_facts()).path == "", "the file at the path is another one"
        program.unlink()
        assert (await peer.read_facts()).path == ""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="no mount namespaces here",
)
async def test_a_path_in_another_mount_namespace_is_not_a_path_of_the_peer(
    listener: socket.socket, tmp_path: Path
) -> None:
    """A process can see its own program at the path of another: the server finds another file there."""
    place, program = tmp_path / "trusted", tmp_path / "program"
    place.write_bytes(b"the program of the operator")
    shutil.copy(EXECUTABLE, program)
    script = f'mount --bind {program} {place} && exec {place} -E -c "$0" "$1"'
    with (
        connected(listener, "unshare", "-m", "sh", "-c", script, CONNECT) as (connection, process),
        peer_of(connection) as peer,
    ):
        assert os.readlink(f"/proc/{process.pid}/exe") == str(place), "so it claims"
        assert (await peer.read_facts()).path == ""


async def test_a_process_that_has_ended_has_no_facts(listener: socket.socket) -> None:
    with connected(listener) as (connection, process), peer_of(connection) as peer:
        assert not peer.has_ended
        process.kill()
        eventually(lambda: peer.has_ended)
        with pytest.raises(PeerGone):
            await peer.read_facts()  # a zombie
        process.wait()
        with pytest.raises(PeerGone):
            await peer.read_facts()


HANDS_OVER = """
import array, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
with socket.socket(socket.AF_UNIX) as other:
    other.connect(sys.argv[2])
    other.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno()]))])
"""


@contextmanager
def inherited(listener: socket.socket, tmp_path: Path) -> Iterator[tuple[socket.socket, int, socket.socket]]:
    """Our end of a connection, the id of the process that opened it and has ended, and the end that it handed on."""
    with socket.socket(socket.AF_UNIX) as heir:
        heir.bind(str(tmp_path / "heir.sock"))
        heir.listen()
        process = subprocess.Popen([sys.executable, "-c", HANDS_OVER, listener.getsockname(), heir.getsockname()])
        receiving, _ = heir.accept()
        with receiving:
            _, ancillary, _, _ = receiving.recvmsg(1, socket.CMSG_SPACE(4))
        handed = array.array("i", ancillary[0][2])
        process.wait()
        connection, _ = listener.accept()
        with connection, socket.socket(fileno=handed[0]) as end:
            yield connection, process.pid, end


def take_id(pid: int) -> subprocess.Popen[bytes]:
    """A new process with that id."""
    while True:
        LAST_PID.write_text(str(pid - 1))
        process = subprocess.Popen(["sleep", "1000"])
        if process.pid == pid:
            return process
        process.kill()
        process.wait()


needs_root = pytest.mark.skipif(
    not os.access(LAST_PID, os.W_OK) or os.getuid() != 0, reason="only root sets the next id"
)


@needs_root
@pytest.mark.skipif(not gives_pidfd(), reason="Linux 6.5")
async def test_another_process_with_the_same_id_is_not_the_peer(listener: socket.socket, tmp_path: Path) -> None:
    with inherited(listener, tmp_path) as (connection, pid, _):
        other = take_id(pid)
        try:
            with pytest.raises(PeerGone), peer_of(connection) as peer:
                await peer.read_facts()
        finally:
            other.kill()
            other.wait()


@needs_root
async def test_another_process_with_the_same_id_is_not_the_peer_without_pidfds_of_the_kernel(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process began after the connection: it is younger than the time at which no connection waited."""
    monkeypatch.setattr(module, "SO_PEERPIDFD", WITHOUT_PIDFD)
    none_waited_at = boot_clock()
    with inherited(listener, tmp_path) as (connection, pid, _):
        other = take_id(pid)
        try:
            with pytest.raises(PeerGone, match="started too late"), peer_of(connection, none_waited_at=none_waited_at):
                pass
        finally:
            other.kill()
            other.wait()


async def test_a_process_older_than_its_connection_is_identified_without_pidfds(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SO_PEERPIDFD", WITHOUT_PIDFD)
    assert not gives_pidfd()
    began = boot_clock()
    with connected(listener) as (connection, process):
        with pytest.raises(PeerGone, match="started too late"), peer_of(connection, none_waited_at=began):
            pass
        await asyncio.sleep(0.02)  # two ticks of the clock by which the kernel dates processes
        with peer_of(connection, none_waited_at=boot_clock()) as peer:
            assert (await peer.read_facts()).pid == process.pid
            process.kill()
            process.wait()
            with pytest.raises(PeerGone):
                await peer.read_facts()


async def test_a_peer_is_refused_if_the_kernel_refuses_a_pidfd(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(connection: socket.socket, level: int, option: int, *more: int) -> object:
        if option == module.SO_PEERPIDFD:
            raise OSError(errno.ESRCH, "no such process")
        return getsockopt(connection, level, option, *more)

    getsockopt = socket.socket.getsockopt
    monkeypatch.setattr(socket.socket, "getsockopt", refuse)
    with connected(listener) as (connection, _), pytest.raises(PeerGone), peer_of(connection):
        pass


async def test_a_closed_peer_has_no_facts_and_no_pidfd(listener: socket.socket) -> None:
    with connected(listener) as (connection, _):
        peer = open_peer(connection, none_waited_at=boot_clock())
        reading = asyncio.ensure_future(peer.read_facts())
        await asyncio.sleep(0)
        peer.close()
        assert (await reading).pid == peer.pid, "a thread that reads keeps the descriptor"
        assert peer.pidfd == -1
        with pytest.raises(PeerGone):
            await peer.read_facts()


async def test_a_large_executable_has_no_digest(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(EXECUTABLE.read_bytes())
    monkeypatch.setattr(module, "_digests", module._Digests())
    monkeypatch.setattr(module, "MAX_EXECUTABLE", size - 1)
    with connected(listener) as (connection, _), peer_of(connection) as peer:
        assert (await peer.read_facts(has_digest=True)).digest == ""
        monkeypatch.setattr(module, "MAX_EXECUTABLE", size)
        assert len((await peer.read_facts(has_digest=True)).digest) == 64


def test_the_lack_of_descriptors_is_reported_as_too_many_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            _executable(os.getpid(), False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
