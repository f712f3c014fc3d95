"""Turns of parsing: limits the time for which each round of the event loop parses the bytes of clients.

When the time of a round is used up, further bytes and further requests wait for a later round. The client addresses
take turns. A flood therefore does not make the rounds of the event loop or the pauses of the writer longer, and other
addresses do not wait long (docs/adr/0068-short-rounds.md).

A request is refused unread if it has waited too long while many others wait: a flood cannot build a queue in which
every request is answered too late (docs/adr/0068-short-rounds.md).

While an administrator or a person stops something, no bytes of other clients are parsed, so the rounds that the stop
needs are short.

Use it only on the event loop.
"""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ostiary.protocol.network import network_of
from ostiaryd.ground.database.line import Client, FairQueue
from ostiaryd.ground.http.arrivals import Arrivals

ROUND_S, LONGEST_ROUND_S = 0.003, 0.006
"""Time for parsing in one round of the event loop, normally and at most while many connections wait, in seconds."""
LONGEST_PAUSE_S = 0.1
"""Maximum time for which a stop makes all other clients wait, in seconds. The next pause begins only after the same
time has passed.
"""
MANY = 256
"""Number of waiting connections above which connections are refused unread if they have waited longer than
`LONGEST_WAIT_S`.
"""
LONGEST_WAIT_S = 0.1
"""Maximum waiting time of a connection while many wait, in seconds of the event loop's processor time. Time in which
the process gets no processor does not count.
"""
EACH_S = 25e-6
"""Time for parsing in one round for each waiting connection, in seconds: about a third of the time that a refusal
takes.
"""
CLOSED_AT_ONCE, CLOSED_PART = 32, 16
"""Number of connections that are closed in one round because their clients have left, about 1.5 ms of work. If more
than 512 wait, a sixteenth of them is closed.
"""


def share_of(address: str) -> Client:
    """Return the share of a `FairQueue` to which an address belongs: shares take turns. All addresses of an IPv6
    network have one share, because one client has many of them.
    """
    return (network_of(address) if ":" in address else address), ""


class ParsingTurns:
    """The turns in which the connections of a server parse their requests, so that one round of the event loop stays
    short.
    """

    def __init__(self) -> None:
        self._left_s = ROUND_S
        self._over_at = 0.0
        self._waiting = FairQueue[tuple[float, Callable[[], None], Callable[[], None]]]()
        self._is_scheduled = False
        self._stops = 0
        self._paused_at = self._next_pause_at = 0.0
        self._pause: TimerHandle | None = None
        self._after_pause = list[Callable[[], None]]()
        self._left = deque[Transport]()
        """The connections whose clients have left, and that are not closed yet."""
        self.arrivals = Arrivals()

    @property
    def is_free(self) -> bool:
        """Return whether a connection may parse now: no connection waits, there is no pause, and the round has time
        left.
        """
        return self._left_s > 0 and not self._waiting.count and self._pause is None

    @property
    def is_over(self) -> bool:
        """Return whether the time of the round is used up. The connection that parses must then stop."""
        return time.perf_counter() >= self._over_at

    @property
    def is_paused(self) -> bool:
        """Return whether a pause is in force: only connections of administrators and persons may parse, and none is
        accepted.
        """
        return self._pause is not None

    @contextmanager
    def paused(self, loop: AbstractEventLoop) -> Iterator[None]:
        """Make clients other than administrators and persons wait while the block, which stops something, runs, but at
        most for `LONGEST_PAUSE_S`.

        A pause is followed by as much time without a pause, so continuous stops do not shut out other clients.
        """
        now = time.perf_counter()
        if not self._stops and now >= self._next_pause_at:
            self._paused_at = now
            self._pause = loop.call_later(LONGEST_PAUSE_S, self._go_on, loop)
        self._stops += 1
        try:
            yield
        finally:
            self._stops -= 1
            if not self._stops:
                self._go_on(loop)

    def after_pause(self, act: Callable[[], None]) -> None:
        """Call `act` once, when the present pause ends."""
        self._after_pause.append(act)

    def _go_on(self, loop: AbstractEventLoop) -> None:
        """End the present pause, if there is one."""
        if self._pause is None:
            return
        self._pause.cancel()
        self._pause = None
        now = time.perf_counter()
        self._next_pause_at = now + (now - self._paused_at)
        acts, self._after_pause = self._after_pause, []
        for act in acts:
            act()
        if self._waiting:
            self._schedule(loop)

    def run(self, parse: Callable[[], None], loop: AbstractEventLoop) -> None:
        """Call `parse`, and add its duration to the time of the round."""
        began = time.perf_counter()
        self._over_at = began + self._left_s
        try:
            parse()
        finally:
            self._left_s -= time.perf_counter() - began
            if self._left_s <= 0:
                self._schedule(loop)

    def wait(
        self,
        parse: Callable[[], None],
        loop: AbstractEventLoop,
        *,
        address: str = "",
        refuse: Callable[[], None] | None = None,
    ) -> None:
        """Call `parse` in a later round, when it is the turn of `address`. If the turn comes later than
        `LONGEST_WAIT_S` and at least `MANY` others wait, call `refuse` instead, if it is given.
        """
        self._waiting.push(share_of(address), (time.thread_time(), parse, refuse or parse))
        self._schedule(loop)

    def close_soon(self, transport: Transport, loop: AbstractEventLoop) -> None:
        """Close a connection in one of the next rounds: `CLOSED_AT_ONCE` in each, or one in `CLOSED_PART` of the
        waiting ones if that is more.
        """
        self._left.append(transport)
        if len(self._left) == 1:
            loop.call_soon(self._close_some, loop)

    def _close_some(self, loop: AbstractEventLoop) -> None:
        for _ in range(min(len(self._left), max(CLOSED_AT_ONCE, len(self._left) // CLOSED_PART))):
            self._left.popleft().close()
        if self._left:
            loop.call_soon(self._close_some, loop)

    def _schedule(self, loop: AbstractEventLoop) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._begin_round, loop)

    def _begin_round(self, loop: AbstractEventLoop) -> None:
        self._is_scheduled = False
        if self.is_paused:
            return  # the next round is scheduled by `_go_on`
        self._left_s = min(max(ROUND_S, EACH_S * len(self._waiting)), LONGEST_ROUND_S)
        latest = time.thread_time() - LONGEST_WAIT_S
        try:
            while self._left_s > 0 and (waiting := self._waiting.pop()) is not None:
                since, parse, refuse = waiting
                is_late = since < latest and len(self._waiting) >= MANY
                self.run(refuse if is_late else parse, loop)
                if self.arrivals.has_new():
                    break
        finally:  # after an error in one turn, the other connections continue in the next round
            if self._waiting:
                self._schedule(loop)
