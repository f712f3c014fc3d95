"""Runs commands that the configuration names, each in a separate confined process.

This module contains both sides: the server, and the child, which limits itself and then executes the command. A command
gets its input over a pipe, an environment without a secret, and limits of time, memory and output. By Landlock, it
writes no file, and reads and executes only programs, certificates and the files that the configuration adds. Its
network access is not limited.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import signal
import stat
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ostiary.protocol.errors import Unavailable

MAX_OUTPUT = 4096
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
READABLE = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf"),
    *("/etc/ld.so.conf.d", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/resolv.conf"),
    *("/etc/services", "/etc/protocols", "/etc/localtime", "/etc/passwd", "/etc/group"),
    *("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"),
)
"""Files and folders that every command may read and execute. `/etc` is not included as a whole, because it may contain
secrets of the server.
"""
CANNOT_BEGIN = 126
"""Exit status of a child that could not execute the command."""
MEMORY, ADDRESSES = 512 << 20, 4 << 30
_LIMITS = (
    (resource.RLIMIT_DATA, MEMORY),
    (resource.RLIMIT_AS, ADDRESSES),
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_NOFILE, 128),
    (resource.RLIMIT_NPROC, 512),
)
_BEGIN = """
import sys
sys.path[:] = sys.argv[2:]
from ostiaryd.ground.process.commands import main
main(sys.argv[1])
"""
"""Program of the child, which sets the import path of its parent and not the environment."""
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Access rights for files that Landlock can limit, by the version of its interface from which on they exist."""
_SCOPES = 0b11
"""Scopes of Landlock from version 6 on: no signal to a process outside, and no connection to an abstract Unix socket
outside.
"""


class CommandFailed(Unavailable):
    """The command could not be started or confined, or exceeded a limit of time or output."""

    code = "command_failed"


class CommandResult(NamedTuple):
    """The result of a command: its exit status (negative for the signal that ended it), and its output."""

    status: int
    output: bytes


async def run_command(
    command: Sequence[str],
    body: bytes,
    *,
    within_s: int,
    readable: Sequence[str] = (),
    secret_folder: str,
    is_confined: bool = True,
) -> CommandResult:
    """Run a command with `body` as its input for at most `within_s` seconds, and return its result, whatever its exit
    status. All processes that it started are ended with it.

    `is_confined`: limit its access to files by Landlock. `readable` are then further files and folders that the command
    may read; none of them may be in `secret_folder` or contain it. Raises CommandFailed if no process can be started,
    the command cannot be confined so, prints more than `MAX_OUTPUT` bytes or takes too long. The status is
    `CANNOT_BEGIN` if the process could not execute the command.
    """
    if is_confined:
        _check_confinement(readable, secret_folder)
    order = {"command": command, "within_s": within_s, "readable": readable, "is_confined": is_confined}
    arguments = ["-I", "-c", _BEGIN, json.dumps({**order, "parent": os.getpid()}), *sys.path]
    try:
        transport, process = await asyncio.get_running_loop().subprocess_exec(
            _CommandProcess,
            sys.executable,
            *arguments,
            stderr=asyncio.subprocess.DEVNULL,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"no process can be started: {error.strerror}") from None
    try:
        pipe: Any = transport.get_pipe_transport(0)
        pipe.write(body)
        pipe.close()
        async with asyncio.timeout(within_s):
            await asyncio.wait([process.ended, process.flooded], return_when=asyncio.FIRST_COMPLETED)
        if process.flooded.done():
            raise CommandFailed(f"the command prints more than {MAX_OUTPUT} bytes", hint="let the command print less")
        status = transport.get_returncode()
        assert status is not None  # the process has ended
        return CommandResult(status, bytes(process.output))
    except TimeoutError:
        raise CommandFailed(f"the command took longer than {within_s} s", hint="let the command end sooner") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
        transport.close()
        await process.ended


def _check_confinement(readable: Sequence[str], secret_folder: str) -> None:
    """Check that the kernel can prevent a command from reading a folder. Raises CommandFailed otherwise."""
    if landlock_version() < 1:
        raise CommandFailed(
            "the kernel has no Landlock, which confines the command", hint="set `unconfined = true` for the command"
        )
    hidden = Path(secret_folder).resolve()
    for path in (*READABLE, *readable):
        place = Path(path).resolve()
        if hidden.is_relative_to(place) or place.is_relative_to(hidden):
            raise CommandFailed(
                f"the command may read {path}, which contains, or lies in, the data folder",
                hint="remove the path from `readable` of the command",
            )


class _CommandProcess(asyncio.SubprocessProtocol):
    """The protocol that collects the output of a command. `ended` is set when the process has ended and its output is
    closed.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.output = bytearray()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.flooded: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Store output of the command, up to the limit."""
        self.output += data[: MAX_OUTPUT + 1 - len(self.output)]
        if len(self.output) > MAX_OUTPUT and not self.flooded.done():
            self.flooded.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Record that the process has ended."""
        if not self.ended.done():
            self.ended.set_result(None)


def landlock_version() -> int:
    """Return the version of Landlock's interface in this kernel; less than 1 if there is no Landlock."""
    return _syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)


def _syscall(number: int, *arguments: object) -> int:
    result: int = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)
    return result


# --- the child ------------------------------------------------------------------------------------------------------


def main(order: str) -> None:
    """Limit this process as the order states, then execute its command. Runs in the child."""
    settings = json.loads(order)
    command, within_s = settings["command"], settings["within_s"]
    try:
        signal.alarm(within_s + 1)  # ends the command even if the server hangs
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != settings["parent"]:
            os._exit(CANNOT_BEGIN)  # the server has ended
        for kind, limit in (*_LIMITS, (resource.RLIMIT_CPU, within_s)):
            resource.setrlimit(kind, (limit, limit))
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if settings["is_confined"]:
            _restrict_files([*READABLE, *settings["readable"], command[0]])
        os.execve(command[0], command, ENVIRONMENT)
    except (OSError, ValueError):
        os._exit(CANNOT_BEGIN)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3):
        raise OSError(ctypes.get_errno(), "prctl")


def _restrict_files(readable: Sequence[str]) -> None:
    """Forbid this process and its children all file access except reading and executing these paths. Raises OSError if
    the kernel refuses a rule.
    """
    version = landlock_version()
    handled = _RIGHTS[max(number for number in _RIGHTS if number <= version)]
    attributes = struct.pack("=QQQ", handled, 0, _SCOPES if version >= 6 else 0)
    rules = _syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    for path in readable:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        mode = os.fstat(place).st_mode
        rights = _EXECUTE | _READ_FILE
        if stat.S_ISDIR(mode):
            rights |= _READ_DIR
        elif path == "/dev/null":
            rights |= _WRITE_FILE | _TRUNCATE
        if _syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights & handled, place), 0):
            raise OSError(ctypes.get_errno(), "landlock_add_rule")
        os.close(place)
    if _syscall(_RESTRICT_SELF, rules, 0):
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    os.close(rules)
