"""Commands that are killed at a step of their own: before the N-th call that changes a file or the database.

A step is a call of a C function with one of the names in `STEPS`. The place of a kill therefore depends on no clock,
and is the same on a slow machine.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from harness.patience import PATIENCE_S
from harness.prepared import FORKS
from harness.server import PATIENT
from ostiary.cli import main

STEPS = frozenset(
    {
        *("execute", "executemany", "commit"),
        *("send_query", "send_query_params", "send_query_prepared", "pipeline_sync"),  # statements to PostgreSQL
        *("fsync", "write", "rename", "replace", "unlink", "open", "mkdir"),
    }
)


def start_until(folder: Path, step: int, *options: str) -> int:
    """Start `ostiary serve` with a fresh process, and kill it with SIGKILL before its step `step`. If the server is
    ready before, end it with SIGTERM. Return the exit code: -9 for a killed server.
    """
    return run_until(folder.with_suffix(".out"), step, "serve", "--data-dir", str(folder), *options)


def run_until(output: Path, step: int, *words: str) -> int:
    """Run the command `ostiary` with these words in a fresh process, and kill it before its step `step`. Return the
    exit code. `output`: the file of everything that the command prints, and of the number of its steps at the end.
    """
    output.unlink(missing_ok=True)
    process = FORKS.Process(target=_run, args=(step, output, words))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode is not None, "the command neither ended nor was killed"
    return process.exitcode


def count_steps(folder: Path, *options: str) -> int:
    """Return the number of steps of a start until the server is ready."""
    assert start_until(folder, sys.maxsize, *options) == 0
    return count_of(folder.with_suffix(".out"))


def count_of(output: Path) -> int:
    """Return the number of steps that a command wrote to its output: of a server when it was ready, of another command
    at its end.
    """
    return int(output.read_text().partition("steps ")[2].split()[0])


def _run(step: int, output: Path, words: Sequence[str]) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(PATIENT | os.environ)
    passed = 0

    def count(frame: FrameType, event: str, function: Any) -> None:
        nonlocal passed
        if event == "c_call" and function.__name__ in STEPS:
            passed += 1
            if passed == step:
                os.kill(os.getpid(), signal.SIGKILL)

    def end_when_ready() -> None:
        while "ready http" not in output.read_text():
            threading.Event().wait(0.02)
        os.write(1, f"steps {passed}\n".encode())
        os.kill(os.getpid(), signal.SIGTERM)

    if words[0] == "serve":
        threading.Thread(target=end_when_ready, daemon=True).start()
    threading.setprofile(count)
    sys.setprofile(count)
    sys.argv = ["ostiary", *words]
    try:
        main()
    finally:
        os.write(1, f"steps {passed}\n".encode())
