"""Tasks that a background loop starts without waiting for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class RunningTasks:
    """Running tasks of one kind, at most one for each id. Use it only on the event loop."""

    def __init__(self, _: object) -> None:
        self.running: dict[str, asyncio.Task[None]] = {}

    def begin(self, id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the work for an id, unless work for this id is running."""
        if id not in self.running:
            task = self.running[id] = asyncio.create_task(work())
            task.add_done_callback(lambda _: self.running.pop(id))

    async def close(self) -> None:
        """Cancel all tasks, and wait for their end."""
        tasks = list(self.running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
