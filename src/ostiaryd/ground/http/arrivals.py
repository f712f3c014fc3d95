"""Bytes that arrive on connections of administrators and persons while the event loop does other work.

The event loop reads its sockets once in each round. Work that takes long asks here, about once a millisecond, whether
such a connection has something to read, and then leaves the rest to the next round
(docs/adr/0184-work-stops-for-an-administrator.md).

Use it only on the event loop.
"""

from __future__ import annotations

import asyncio
import select
import time

ASK_EVERY_S = 0.001
"""Time between two questions to the kernel, in seconds. A question takes about 1 µs."""


class Arrivals:
    """The connections of administrators and persons, of which the kernel reports the arrival of bytes."""

    def __init__(self) -> None:
        # without epoll (macOS), work is not interrupted
        self._poll = select.epoll() if hasattr(select, "epoll") else None
        self._asked_at = 0.0
        self._has_new = False

    def watch(self, descriptor: int) -> None:
        """Watch a socket until it is closed."""
        if self._poll is not None:
            # edge-triggered: bytes that the event loop leaves unread are reported only once
            self._poll.register(descriptor, select.EPOLLIN | select.EPOLLET)

    def has_new(self) -> bool:
        """Return whether bytes have arrived that the event loop reads in its next round. Ask the kernel at most once in
        `ASK_EVERY_S`.
        """
        if self._poll is not None and (now := time.monotonic()) >= self._asked_at + ASK_EVERY_S:
            self._asked_at = now
            if self._poll.poll(0):
                self._has_new = True
                asyncio.get_running_loop().call_soon(self._forget)  # after the sockets are read
        return self._has_new

    def _forget(self) -> None:
        self._has_new = False
