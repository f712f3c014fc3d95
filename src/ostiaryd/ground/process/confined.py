"""A function in a process of its own, which cannot take more than it was given: time, memory, files, network.

Both sides are here. The child has an empty environment unless its owner names one and, once
its module is imported, may open nothing any more: no file, no socket. Frames are four bytes of length and the body. A
child that does not answer in time, dies, or answers nonsense is ended, and the next request starts another one.
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
START_S = 20.0
"""seconds for the child to start: a loaded machine imports slowly"""
PARSE_CPU_S = 10
"""Maximum processor time for one upload, in seconds, whatever the load of the machine."""
PARSE_S = 120.0
"""Maximum time for one upload by the clock, in seconds, which limits the wait of the next one."""
MAX_UPLOADS = 8
"""Maximum number of uploads that wait for one parser; the next one is refused."""
_OUT_OF_MEMORY = 71
"""Exit status of a child that needed more memory than its limit."""
_FATAL = 2
"""Exit status of Go's runtime after a fatal error."""
_CODECS = ("utf-16-be", "latin-1", "ascii")
"""Codecs that are loaded before the limits apply: Python opens the file of a codec at its first use."""
_LENGTH = struct.Struct(">I")
_BEGIN = """
import sys
sys.path[:] = sys.argv[6:]
from ostiaryd.ground.process.confined import main
main(sys.argv[1], *map(int, sys.argv[2:6]))
"""
"""The code that starts the child with the import path of its parent, without the environment."""


class Exceeded(Unavailable):
    """The function exceeded its limit of time or memory, or ended its process."""

    code = "engine_failed"


class TooCostly(Invalid):
    """Parsing an upload exceeded its limit of time or memory."""

    code = "too_costly"


class Confined:
    """A confined child process, replaced when it fails. Thread-safe; blocks, so ask it in a thread."""

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
        """`target` is MODULE:FUNCTION, the function from bytes to bytes. `nice`: how far it gives way to others.
        `cpu_s`: seconds of processor time for each request; 0 for no such limit. `reserved`: bytes of address space
        beyond `memory`, for a runtime that reserves more than it writes to. `environ`: all of the child's environment.
        """
        self._target, self._memory, self._nice, self._cpu_s = target, memory, nice, cpu_s
        self._reserved, self._environ = reserved, dict(environ or {})
        self._mutex = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        self.lives = 0
        """number of children so far, for callers that rely on the memory of a child"""

    def start(self) -> int:
        """Start a child unless one runs; return its number. Raises Unavailable."""
        with self._mutex:
            self._start()
            return self.lives

    def ask(self, body: bytes, *, within_s: float) -> bytes:
        """Return the answer of the function. Raises Unavailable; Exceeded if the child ended, with the reason."""
        with self._mutex:
            child = self._start()
            try:
                return _exchange(child, body, until=time.monotonic() + within_s)
            except (OSError, EOFError, ValueError) as error:
                why = self._end(child, late=isinstance(error, TimeoutError), within_s=within_s)
                raise Exceeded(why) from None

    def close(self) -> None:
        """End the child; later questions are refused."""
        with self._mutex:
            self._closed = True
            if self._child is not None:
                self._end(self._child, late=False, within_s=0)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise Unavailable("the engine is closed", code="engine_failed")
        if self._child is not None and self._child.poll() is None:
            return self._child
        if self._child is not None:
            self._end(self._child, late=False, within_s=0)
        self.lives += 1
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
        try:
            _exchange(child, b"", until=time.monotonic() + START_S)
        except (OSError, EOFError, ValueError):
            self._end(child, late=False, within_s=0)
            raise Unavailable(f"the engine {self._target} does not start", code="engine_failed") from None
        return child

    def _end(self, child: subprocess.Popen[bytes], *, late: bool, within_s: float) -> str:
        """End a child; return its error."""
        ended = child.poll()
        if not late and ended is None:
            with contextlib.suppress(subprocess.TimeoutExpired):  # it has closed its end, and is about to be gone
                ended = child.wait(0.2)
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        self._child = None
        if late:
            return f"the process took longer than {within_s:g} s"
        if ended == _OUT_OF_MEMORY:
            return f"the process needs more than {self._memory >> 20} MB of memory"
        if ended == -signal.SIGXCPU:
            return f"the process took more than {self._cpu_s} s of processor time"
        if ended == _FATAL:
            return "the runtime of the process gave up: too deep, or out of memory"
        if ended is not None and ended < 0:
            return f"{signal.Signals(-ended).name} ended the process: too deep, or out of memory"
        return "no answer"


def _exchange(child: subprocess.Popen[bytes], body: bytes, *, until: float) -> bytes:
    """Send a body to a child process and return the answer. Raises TimeoutError, OSError, EOFError, ValueError."""
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
    """Wait until the pipe is ready. Raises TimeoutError."""
    ready = select.poll()
    ready.register(pipe, event)
    if not ready.poll(max(0.0, until - time.monotonic()) * 1000):
        raise TimeoutError


# --- uploads --------------------------------------------------------------------------------------------------------

_REFUSALS: dict[str, type[Refused]] = {"malformed": Malformed, "invalid": Invalid}
_Refusal = tuple[str, str, str, str]
"""Kind, message, hint and code of a refusal; kind "" stands for a defect of the parser."""
_encode_refusal = msgspec.msgpack.Encoder().encode
_decode_refusal = msgpack_decoder(_Refusal)
_PARSED, _REFUSED = b"\0", b"\1"


def parser(function: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Make a function that raises refusals the target of a `Parser`."""

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
    """Parses uploads in a confined process: one at a time, a few waiting, each within `PARSE_CPU_S`."""

    def __init__(self, target: str, *, of: str) -> None:
        """`target` is MODULE:FUNCTION, marked with `parser`; `of` names the upload in refusals."""
        self._confined, self._of = Confined(target, nice=5, cpu_s=PARSE_CPU_S), of
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parser")
        self._waiting = 0

    async def parse(self, body: bytes) -> bytes:
        """Return the result of the function.

        Raises Malformed and Invalid as the function does, TooCostly beyond its limits, Unavailable if too many wait.
        """
        if self._waiting >= MAX_UPLOADS:
            raise Unavailable(f"{MAX_UPLOADS} uploads are being parsed", hint="try again later", code="busy")
        self._waiting += 1
        try:
            ask = partial(self._confined.ask, body, within_s=PARSE_S)
            answer = await asyncio.get_running_loop().run_in_executor(self._thread, ask)
        except Exceeded as error:
            hint = "make it smaller, or less nested"
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
    """Serve one function until the parent has ended."""
    requests, answers = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the function prints is no answer
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
