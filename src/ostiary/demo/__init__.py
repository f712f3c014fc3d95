"""`ostiary demo`: a commented demonstration of Ostiary from end to end, with real servers, agents and keys.

The demo starts a server on a temporary SQLite file, and an MCP server behind a guard. Agents with their own keys call
this MCP server. An editor delegates a part of its task to a helper, and the whole task is revoked. The writer is
revoked during its work. A scout with unusual behaviour is stopped at two guards until a person releases it. The ledger
is verified, then a falsified copy of it is detected.
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
        exit: End after the last step. Otherwise the server keeps running until Ctrl-C, so that you can look around.
    """
    from ostiary.demo.story import tell

    importlib.import_module("numpy")  # of the detectors, whose findings the story waits for
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have set it to be ignored
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    with tempfile.TemporaryDirectory(prefix="ostiary-demo-") as folder:
        asyncio.run(tell(Path(folder), stay=not exit))
