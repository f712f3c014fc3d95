"""The time that a test waits for a state. The time limits a test whose state never comes, and is no expectation of
speed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = float(os.environ.get("PATIENCE_S", "300"))
"""Maximum seconds to wait for a state, more than any step takes on a busy machine that is ten times slower than an
ordinary one. Tests of planted faults wait for less, because there the state may never come.
"""


def eventually(condition: Callable[[], Any], *, pause_s: float = 0.01) -> Any:
    """Return what `condition` gives as soon as it is true; fail after `PATIENCE_S`."""
    until = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < until, "the state was not reached"
        time.sleep(pause_s)
    return value


async def eventually_async(condition: Callable[[], Any], *, pause_s: float = 0.01) -> Any:
    """Return what `condition` gives as soon as it is true, while this event loop runs; fail after `PATIENCE_S`."""
    async with asyncio.timeout(PATIENCE_S):
        while not (value := condition()):  # noqa: ASYNC110 because nothing tells of the state
            await asyncio.sleep(pause_s)
        return value
