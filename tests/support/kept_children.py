"""Confined processes that outlive the world of their test, and serve the next test of the worker.

The start of such a process imports for up to a third of a second of processor time. A server of months gives all
uploads to one process, so a process that has served earlier tests is the usual state. A process that its test ended, or
that does not answer, is replaced.
"""

from __future__ import annotations

import subprocess
import time
from collections import defaultdict

from ostiaryd.ground.process import confined
from ostiaryd.ground.process.confined import Confined

Child = subprocess.Popen[bytes]

_launch = Confined._launch


class KeptChildren:
    """The idle children of a worker, by their function and limits."""

    def __init__(self) -> None:
        self._idle: dict[tuple[object, ...], list[Child]] = defaultdict(list)

    def launch(self, parent: Confined) -> Child:
        """Return an idle child that answers; without one, start another."""
        idle = self._idle[_key(parent)]
        while idle:
            child = idle.pop()
            try:
                confined._exchange(child, b"", until=time.monotonic() + confined.START_S)
            except (OSError, EOFError, ValueError):
                parent._reap(child)
            else:
                return child
        return _launch(parent)

    def take(self, parent: Confined) -> None:
        """Close `parent`, and keep its child."""
        with parent._mutex:
            parent._closed = True
            if parent._child is not None:
                self._idle[_key(parent)].append(parent._child)
                parent._child = None

    def close(self) -> None:
        """End all idle children."""
        for children in self._idle.values():
            for child in children:
                Confined("")._reap(child)


def _key(parent: Confined) -> tuple[object, ...]:
    limits = (parent._memory, parent._reserved, parent._nice, parent._cpu_s)
    return (parent._target, *limits, *parent._environ.items())
