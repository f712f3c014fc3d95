"""The real server in a process of its own, and the command line that sends requests to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any

from harness.cli import Commands
from harness.patience import PATIENCE_S

COMMAND = Path(os.environ.get("OSTIARY_TEST_COMMAND", Path(sys.executable).with_name("ostiary")))
"""Path of the command `ostiary`. The environments of frameworks have no server, so their tests name the command of the
main environment.
"""

PATIENT = {"OSTIARY_REGO_MS": "5000", "OSTIARY_QUEUE_WAIT_MS": "60000"}
"""Limits of servers that a machine which stalls does not reach, unless a test states its own."""


class Server:
    """A running server: its URL, and its data folder with `admin.json`, the administrator's credential."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def ostiary(self, *arguments: object) -> Any:
        """Run a command of `ostiary` on this server in this process, and return its JSON. Raises AssertionError with
        the output of the command if the command fails.
        """
        return Commands(self.folder).json(*arguments)


@contextmanager
def running(folder: Path, *options: str, command: Sequence[str | Path] = (COMMAND,), port: int = 0) -> Iterator[Server]:
    """`ostiary serve` on that port, or a free one, until the block ends; then it must end with code 0."""
    log = folder / "server.log"
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*command, "serve", "--data-dir", folder, "--listen", f"127.0.0.1:{port}", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=PATIENT | os.environ,
        )
    assert process.stdout is not None
    try:
        readable, _, _ = select([process.stdout], [], [], PATIENCE_S)
        line = process.stdout.readline() if readable else ""
        assert line.startswith(("ready http://", "ready https://")), f"the server said {line!r}: {log.read_text()}"
        yield Server(line.split()[1], folder)
    finally:
        process.terminate()
        process.stdout.close()
        code = process.wait(PATIENCE_S)
    assert code == 0, f"the server ended with {code}: {log.read_text()}"
