"""Servers under a wall clock that the test sets, started from a process that has imported the program already.

An import of the server takes about 2 seconds of the processor, and the rest of its start 0.35. An experiment that kills
its server hundreds of times would therefore spend most of its time on imports.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from harness.patience import PATIENCE_S, eventually
from harness.server import PATIENT, Server
from ostiary.cli import main
from ostiaryd.serve import serve
from tests.faults.shifted import set_clock, shift

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", serve.__module__, __name__])


class PreparedServer(Server):
    """A server in a process of its own, and the file of its wall clock. It may be killed, and starts again at the same
    port.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.clock, self._options = folder.with_suffix(".clock"), options
        folder.mkdir(mode=0o700, parents=True)
        set_clock(self.clock, 0)
        super().__init__("", folder)
        self._process: BaseProcess
        self._start(0)

    def _start(self, port: int) -> None:
        output = self.folder.with_suffix(".out")
        output.unlink(missing_ok=True)
        words = ["--data-dir", str(self.folder), "--listen", f"127.0.0.1:{port}", *self._options]
        self._process = process = FORKS.Process(target=_serve, args=(self.clock, output, words))
        process.start()

        def said() -> list[str]:
            lines = output.read_text().splitlines() if output.exists() else []
            ready = [line for line in lines if line.startswith(("ready http://", "ready https://"))]
            assert ready or process.is_alive(), f"the server ended with {process.exitcode}: {lines}"
            return ready

        self.url = eventually(said)[0].split()[1]

    def kill(self) -> None:
        """End the server with SIGKILL."""
        self._process.kill()

    def restart(self) -> None:
        """Start the server again after a kill."""
        self._end(-9)
        self._start(int(self.url.rpartition(":")[2]))

    def close(self) -> None:
        """Stop the server, which must end without an error."""
        self._process.terminate()
        self._end(0)

    def _end(self, expected: int) -> None:
        self._process.join(PATIENCE_S)
        output = self.folder.with_suffix(".out").read_text()
        assert self._process.exitcode == expected, f"the server ended with {self._process.exitcode}: {output}"


def _serve(clock: Path, output: Path, words: Sequence[str]) -> None:
    """Run a server in this process. `output`: the file of everything that the server prints."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(PATIENT | os.environ)
    shift(clock)
    sys.argv = ["ostiary", "serve", *words]
    main()
