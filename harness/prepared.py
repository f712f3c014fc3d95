"""Servers started from a process that has imported the program already.

An import of the server takes three quarters of the processor time of a start. Therefore a test whose subject is not the
process itself starts its server here. Tests of the process start the command: `harness.server.running`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

from harness.patience import PATIENCE_S, eventually
from harness.server import PATIENT, Server
from ostiary.cli import main

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "ostiaryd.serve", "ostiary.cli.session", __name__])


class PreparedServer(Server):
    """A server in a process of its own, with the environment of this process. It may be killed, and starts again at the
    same port.
    """

    def __init__(self, folder: Path, *options: str, port: int = 0, prepare: Callable[[], None] | None = None) -> None:
        """Start a server. The new process calls `prepare` first."""
        self._options, self._prepare = options, prepare
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        super().__init__("", folder)
        self._output = folder / "server.log"
        self._process: BaseProcess
        self._start(port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, port: int) -> None:
        self._output.unlink(missing_ok=True)
        words = ["--data-dir", str(self.folder), "--listen", f"127.0.0.1:{port}", *self._options]
        environment = PATIENT | os.environ
        self._process = process = FORKS.Process(target=_serve, args=(self._prepare, environment, self._output, words))
        process.start()

        def said() -> list[str]:
            is_alive = process.is_alive()
            lines = self._output.read_text().splitlines() if self._output.exists() else []
            ready = [line for line in lines if line.startswith(("ready http://", "ready https://"))]
            assert ready or is_alive, f"the server ended with {process.exitcode}: {lines}"
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
        code, output = self._process.exitcode, self._output.read_text()
        assert code == expected, f"the server ended with {code}: {output}"


def _serve(
    prepare: Callable[[], None] | None, environment: Mapping[str, str], output: Path, words: Sequence[str]
) -> None:
    """Run a server in this process. `output`: the file of everything that the server prints."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environment)
    if prepare is not None:
        prepare()
    sys.argv = ["ostiary", "serve", *words]
    main()
