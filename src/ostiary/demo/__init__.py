"""`ostiary demo`: the main loop, end to end, with real parts, and a commentary.

A server on a temporary SQLite file, an MCP server behind a guard, agents with keys of their own that call it through
MCP clients. An editor delegates a part of its task to a helper, and the whole is revoked; the writer is revoked in the
middle of its work; a scout with unusual behaviour is stopped at two guards until a person releases it; the ledger is
verified, then a copy of it is falsified.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
import tempfile
from pathlib import Path


def demo(*, exit: bool = False) -> None:
    """Demonstrate Ostiary on a temporary folder, with an explanation of each step.

    Args:
        exit: End after the last step, instead of leaving the server up to look around.
    """
    from ostiary.demo.story import tell

    importlib.import_module("numpy")  # of the detectors, whose findings the story waits for
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have set it to be ignored
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="ostiary-demo-") as folder:
        asyncio.run(tell(Path(folder), stay=not exit))
