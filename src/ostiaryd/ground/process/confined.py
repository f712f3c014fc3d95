"""Runs a function in a confined process, with limits of time and memory, and without access to files and network.

This module contains both sides: the server and the child. The environment of the child is empty unless its user sets
one. After the import of its module, the child can open neither files nor sockets. A message is four bytes of length and
the body. A child that does not answer in time, ends, or sends a malformed answer is ended, and the next request starts
another child.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import importlib
import logging
import math
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import IO

import msgspec

from ostiary.protocol.decoding import msgpack_decoder
from ostiary.protocol.errors import Invalid, Malformed, Refused, Unavailable

log = logging.getLogger("ostiary")
MEMORY = 512 << 20
MAX_FRAME = 32 << 20
START_S = 60.0
"""Maximum time for the child to start, in seconds; on a loaded machine imports are slow."""
PARSE_CPU_S = 10
"""Maximum processor time for one upload, in seconds; it does not depend on the load of the machine."""
PARSE_S = 120.0
"""Maximum elapsed time for one upload, in seconds, so that the next upload does not wait longer."""
MAX_UPLOADS = 8
"""Maximum number of uploads that one parser has, of which it parses one. A further upload is refused."""
_OUT_OF_MEMORY = 71
"""Exit status of a child that exceeded its memory limit."""
_FATAL = 2
"""Exit status of a Go program after a fatal error of the runtime."""
_CODECS = ("utf-16-be", "latin-1", "ascii")
"""Codecs that are loaded before files become inaccessible, because Python reads the file of a codec at
its first use.
"""
_LENGTH = struct.Struct(">I")
_BEGIN = """
import sys
sys.path[:] = sys.argv[6:]
from ostiaryd.ground.process.confined import main
main(sys.argv[1], *map(int, sys.argv[2:6]))
"""
"""Program of the child, which sets the import path of its parent and not the environment."""


class Exceeded(Unavailable):
    """The function exceeded its limit of time or memory, or its process ended."""

    code = "engine_failed"


class TooCostly(Invalid):
    """Parsing an upload exceeded its limit of time or memory."""

    code = "too_costly"


class Confined:
    """A confined child process that runs one function, and that is replaced if it fails. Thread-safe. Its methods
    block, so call them in a thread.
    """

    def __init__(
        self,
        target: str,
        *,
        memory: int = MEMORY,
        nice: int = 0,
        cpu_s: int = 0,
        reserved: int = 0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Set the function and the limits of the child. `target` is MODULE:FUNCTION; the function takes and returns
        bytes. `nice` is the niceness of the process. `cpu_s` is the limit of processor time for each request in
        seconds; 0 for none. `reserved` is address space beyond `memory`, in bytes, for a runtime that reserves more
        than it uses. `environ` is the whole environment of the child.
        """
        self._target, self._memory, self._nice, self._cpu_s = target, memory, nice, cpu_s
        self._reserved, self._environ = reserved, dict(environ or {})
        self._mutex = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False

    def ask(self, body: bytes, *, within_s: float) -> bytes:
        """Return the result of the function for `body`. Raises Unavailable if no child can be started; Exceeded, with
        the reason, if the child took longer than `within_s` seconds, ended, or sent a malformed answer.
        """
        with self._mutex:
            child = self._start()
            try:
                return _exchange(child, body, until=time.monotonic() + within_s)
            except (OSError, EOFError, ValueError) as error:
                why = self._end(child, late=isinstance(error, TimeoutError), within_s=within_s)
                raise Exceeded(why) from None

    def close(self) -> None:
        """End the child, also while it starts or works on a request, which then fails. Later requests are refused."""
        self._closed = True
        if (child := self._child) is not None:
            child.kill()  # a request holds the mutex until its child ends
        with self._mutex:
            if self._child is not None:
                self._reap(self._child)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise Unavailable("the process is closed", code="engine_failed")
        if self._child is not None and self._child.poll() is None:
            return self._child
        if self._child is not None:
            self._reap(self._child)
        self._child = self._launch()
        return self._child

    def _launch(self) -> subprocess.Popen[bytes]:
        """Start a child, and return the child after its first answer. Raises Unavailable."""
        limits = [str(self._memory), str(self._reserved), str(self._nice), str(self._cpu_s)]
        command = [sys.executable, "-c", _BEGIN, self._target, *limits, *sys.path]
        child = self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environ,
            bufsize=0,
        )
        if self._closed:  # `close` may have looked before the child existed
            child.kill()
        try:
            _exchange(child, b"", until=time.monotonic() + START_S)
        except (OSError, EOFError, ValueError):
            self._reap(child)
            raise Unavailable(f"the process of {self._target} does not start", code="engine_failed") from None
        return child

    def _end(self, child: subprocess.Popen[bytes], *, late: bool, within_s: float) -> str:
        """End a child, and return the error to report. `late`: the child exceeded its time."""
        ended = child.poll()
        if not late and ended is None:
            # the child has closed its end of the pipe, and is about to end
            with contextlib.suppress(subprocess.TimeoutExpired):
                ended = child.wait(0.2)
        self._reap(child)
        if self._closed:
            return "the process is closed"
        if late:
            return f"the process took longer than {within_s:g} s"
        if ended == _OUT_OF_MEMORY:
            return f"the process needs more than {self._memory >> 20} MB of memory"
        if ended == -signal.SIGXCPU:
            return f"the process took more than {self._cpu_s} s of processor time"
        if ended == _FATAL:
            return "the runtime of the process failed: the input is nested too deeply, or memory is exhausted"
        if ended is not None and ended < 0:
            return (
                f"{signal.Signals(-ended).name} ended the process: the input is nested too deeply, or memory "
                "is exhausted"
            )
        return "no answer"

    def _reap(self, child: subprocess.Popen[bytes]) -> None:
        """Kill a child, wait for its end, and close its pipes."""
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        self._child = None


def _exchange(child: subprocess.Popen[bytes], body: bytes, *, until: float) -> bytes:
    """Send a body to a child process and return the answer, before `until` (monotonic clock, seconds). Raises
    TimeoutError after that time, EOFError or OSError if the process has ended, ValueError for an answer that is too
    long.
    """
    assert child.stdin is not None
    assert child.stdout is not None
    _send(child.stdin, _LENGTH.pack(len(body)) + body, until)
    (length,) = _LENGTH.unpack(_receive(child.stdout, _LENGTH.size, until))
    if length > MAX_FRAME:
        raise ValueError("an answer that is too long")
    return _receive(child.stdout, length, until)


def _send(pipe: IO[bytes], data: bytes, until: float) -> None:
    os.set_blocking(pipe.fileno(), False)
    view = memoryview(data)
    while view:
        _wait(pipe, select.POLLOUT, until)
        view = view[os.write(pipe.fileno(), view) :]


def _receive(pipe: IO[bytes], count: int, until: float) -> bytes:
    data = bytearray()
    while len(data) < count:
        _wait(pipe, select.POLLIN, until)
        if not (chunk := os.read(pipe.fileno(), min(count - len(data), 1 << 16))):
            raise EOFError
        data += chunk
    return bytes(data)


def _wait(pipe: IO[bytes], event: int, until: float) -> None:
    """Wait until the pipe is ready for reading or writing (`event`), at most until `until` (monotonic clock, seconds).
    Raises TimeoutError after that time.
    """
    ready = select.poll()
    ready.register(pipe, event)
    if not ready.poll(max(0.0, until - time.monotonic()) * 1000):
        raise TimeoutError


# --- uploads --------------------------------------------------------------------------------------------------------

_REFUSALS: dict[str, type[Refused]] = {"malformed": Malformed, "invalid": Invalid}
_Refusal = tuple[str, str, str, str]
"""A refusal in transit: its kind, message, hint and code. An empty kind stands for a defect of the parser."""
_encode_refusal = msgspec.msgpack.Encoder().encode
_decode_refusal = msgpack_decoder(_Refusal)
_PARSED, _REFUSED = b"\0", b"\1"


def parser(function: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return a function that can be the target of a `Parser`: refusals of `function` are encoded in the result."""

    @wraps(function)
    def answer(body: bytes) -> bytes:
        try:
            return _PARSED + function(body)
        except Refused as error:
            kind = "malformed" if isinstance(error, Malformed) else "invalid"
            return _REFUSED + _encode_refusal((kind, error.message, error.hint, error.code))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 because hostile input must end in a refusal, whatever it breaks
            return _REFUSED + _encode_refusal(("", type(error).__name__, "", ""))

    return answer


class Parser:
    """Parses uploads in a confined process, one at a time, each within `PARSE_CPU_S`. An upload is refused while the
    parser has `MAX_UPLOADS` others.
    """

    def __init__(self, target: str, *, of: str) -> None:
        """Set the function `target`, which is MODULE:FUNCTION and decorated with `parser`. `of` names the upload in
        errors.
        """
        self._confined, self._of = Confined(target, nice=5, cpu_s=PARSE_CPU_S), of
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parser")
        self._waiting = 0

    async def parse(self, body: bytes) -> bytes:
        """Return the result of the function for an upload.

        Raises Malformed and Invalid if the function does, Invalid if the function fails by a defect, TooCostly if the
        function exceeds its limits, and Unavailable if too many uploads wait, or no child can be started.
        """
        if self._waiting >= MAX_UPLOADS:
            raise Unavailable(f"{MAX_UPLOADS} uploads are being parsed or wait", hint="try again later", code="busy")
        self._waiting += 1
        try:
            ask = partial(self._confined.ask, body, within_s=PARSE_S)
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, ask)
        except Exceeded as error:
            hint = "make the upload smaller, or less nested"
            raise TooCostly(f"{self._of} cannot be parsed: {error.message}", hint=hint) from None
        finally:
            self._waiting -= 1
        if answer[:1] == _PARSED:
            return answer[1:]
        kind, message, hint, code = _decode_refusal(answer[1:])
        if not kind:
            log.error("%s: the parser failed with %s", self._of, message)
            raise Invalid(f"{self._of} cannot be parsed ({message})", code="unparsable")
        raise _REFUSALS[kind](message, hint=hint, code=code)

    async def close(self) -> None:
        """End the child and the thread."""
        await asyncio.to_thread(self._confined.close)
        self._thread.shutdown(wait=False)


# --- the child ------------------------------------------------------------------------------------------------------


def main(target: str, memory: int, reserved: int, nice: int, cpu_s: int) -> None:
    """Serve one function until the parent ends. Runs in the child."""
    requests, answers = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of `print` must not become a part of the answers
    module, _, name = target.partition(":")
    function: Callable[[bytes], bytes] = getattr(importlib.import_module(module), name)
    for codec in _CODECS:
        codecs.lookup(codec)
    os.nice(nice)
    for kind, limit in (
        (resource.RLIMIT_AS, memory + reserved),
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    while len(head := requests.read(_LENGTH.size)) == _LENGTH.size:
        body = requests.read(*_LENGTH.unpack(head))
        if cpu_s:
            _, most = resource.getrlimit(resource.RLIMIT_CPU)
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + cpu_s, most))
        try:
            answer = function(body) if body else b""
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)
        answers.write(_LENGTH.pack(len(answer)) + answer)
        answers.flush()
