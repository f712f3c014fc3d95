"""A function in a process of its own, which cannot take more than it was given: time, memory, files, network.

Both sides are here. The child has an empty environment and, once
its module is imported, may open nothing any more: no file, no socket. Frames are four bytes of length and the body. A
child that does not answer in time, dies, or answers nonsense is ended, and the next request starts another one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

from ostiary.core.errors import Unavailable

MEMORY = 512 << 20
MAX_FRAME = 8 << 20
START_S = 20.0
"""for the child to be there: a loaded machine imports slowly"""
_LENGTH = struct.Struct(">I")
_BEGIN = """
import sys
sys.path[:] = sys.argv[4:]
from ostiaryd.ground.confined import main
main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""
"""The child imports what its parent would, though it knows nothing of the environment."""


class Confined:
    """One child at a time. Thread-safe; blocks, so ask it in a thread."""

    def __init__(self, target: str, *, memory: int = MEMORY, nice: int = 0) -> None:
        """`target` is MODULE:FUNCTION, the function from bytes to bytes. `nice`: how far it gives way to others."""
        self._target, self._memory, self._nice = target, memory, nice
        self._mutex = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        self.lives = 0
        """how many children there have been; who relies on what a child remembers looks here"""

    def start(self) -> int:
        """See that there is a child; which one it is. Raises Unavailable."""
        with self._mutex:
            self._start()
            return self.lives

    def ask(self, body: bytes, *, within_s: float) -> bytes:
        """What the function answers. Raises Unavailable, in words of what the child did."""
        with self._mutex:
            child = self._start()
            try:
                return _exchange(child, body, until=time.monotonic() + within_s)
            except (OSError, EOFError, ValueError) as error:
                why = self._end(child, late=isinstance(error, TimeoutError), within_s=within_s)
                raise Unavailable(why, code="engine_failed") from None

    def close(self) -> None:
        """End the child; from now on nobody is answered."""
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
        command = [sys.executable, "-c", _BEGIN, self._target, str(self._memory), str(self._nice), *sys.path]
        child = self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, bufsize=0,
        )  # fmt: skip
        try:
            _exchange(child, b"", until=time.monotonic() + START_S)
        except (OSError, EOFError, ValueError):
            self._end(child, late=False, within_s=0)
            raise Unavailable(f"the engine {self._target} does not start", code="engine_failed") from None
        return child

    def _end(self, child: subprocess.Popen[bytes], *, late: bool, within_s: float) -> str:
        """End a child; what was wrong with it."""
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
            return f"it took longer than {within_s:g} s"
        if ended is not None and ended < 0:
            return f"it was ended by {signal.Signals(-ended).name}: too deep, or more memory than it may have"
        return "it gave no answer"


def _exchange(child: subprocess.Popen[bytes], body: bytes, *, until: float) -> bytes:
    """Raises TimeoutError, OSError, EOFError, ValueError."""
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
    data = b""
    while len(data) < count:
        _wait(pipe, select.POLLIN, until)
        if not (chunk := os.read(pipe.fileno(), min(count - len(data), 1 << 16))):
            raise EOFError
        data += chunk
    return data


def _wait(pipe: IO[bytes], event: int, until: float) -> None:
    """Until the pipe is ready. Raises TimeoutError."""
    ready = select.poll()
    ready.register(pipe, event)
    if not ready.poll(max(0.0, until - time.monotonic()) * 1000):
        raise TimeoutError


# --- the child ------------------------------------------------------------------------------------------------------


def main(target: str, memory: int, nice: int) -> None:
    """Serve one function until the parent is gone."""
    requests, answers = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the function prints is no answer
    module, _, name = target.partition(":")
    function: Callable[[bytes], bytes] = getattr(importlib.import_module(module), name)
    os.nice(nice)
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    while len(head := requests.read(_LENGTH.size)) == _LENGTH.size:
        body = requests.read(*_LENGTH.unpack(head))
        answer = function(body) if body else b""
        answers.write(_LENGTH.pack(len(answer)) + answer)
        answers.flush()
