"""Bytes that arrive on connections of administrators and persons while the event loop does other work.

The event loop reads its sockets once in each round. Work that takes long asks here, about once a millisecond, whether
such a connection has something to read, and then leaves the rest to the next round
(docs/adr/0184-work-stops-for-an-administrator.md).

A new connection counts as one of an administrator until its first bytes are parsed, if an administrator or a person has
authenticated from its address before. A rate limits such connections, because other clients may have the same address
(docs/adr/0188-administrators-connect-from-known-addresses.md).

Use it only on the event loop.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections import OrderedDict

from ostiaryd.ground.http.buckets import Bucket

ASK_EVERY_S = 0.001
"""Time between two questions to the kernel, in seconds. A question takes about 1 µs."""
MAX_ADDRESSES = 1024
"""Maximum number of known addresses of administrators and persons. Above it, the address is forgotten that was used
longest ago.
"""
BURST, PER_SECOND = 20, 5
"""Number of new connections from all known addresses that count as those of administrators, at once and per second."""
SECOND = 1_000_000


class Arrivals:
    """The connections of administrators and persons, with a question to the kernel whether new bytes have arrived."""

    def __init__(self) -> None:
        # without epoll (macOS), work is not interrupted
        self._poll = select.epoll() if hasattr(select, "epoll") else None
        self._asked_at = 0.0
        self._has_new = False
        self._addresses = OrderedDict[str, None]()
        self._expected = Bucket(BURST, PER_SECOND, at=0)

    def note_address(self, address: str) -> None:
        """Record that an administrator or a person has authenticated from this address."""
        self._addresses[address] = None
        self._addresses.move_to_end(address)
        if len(self._addresses) > MAX_ADDRESSES:
            self._addresses.popitem(last=False)

    def expects(self, address: str) -> bool:
        """Return whether a new connection from this address counts as one of an administrator, and count it against the
        rate.
        """
        if address not in self._addresses:
            return False
        self._expected.fill(int(time.monotonic() * SECOND))
        if has := self._expected.has(1):
            self._expected.take(1)
        return has

    def watch(self, descriptor: int) -> None:
        """Watch a socket until it is closed."""
        if self._poll is not None:
            # edge-triggered: bytes that the event loop leaves unread are reported only once
            self._poll.register(descriptor, select.EPOLLIN | select.EPOLLET)

    def forget(self, descriptor: int) -> None:
        """Watch an open socket no longer."""
        if self._poll is not None:
            self._poll.unregister(descriptor)

    def has_new(self) -> bool:
        """Return whether bytes have arrived on a watched connection, which the event loop reads in its next round. Ask
        the kernel at most once in `ASK_EVERY_S`. Always false on a system without epoll.
        """
        if self._poll is not None and (now := time.monotonic()) >= self._asked_at + ASK_EVERY_S:
            self._asked_at = now
            if self._poll.poll(0):
                self._has_new = True
                asyncio.get_running_loop().call_soon(self._forget)  # after the sockets are read
        return self._has_new

    def _forget(self) -> None:
        self._has_new = False
