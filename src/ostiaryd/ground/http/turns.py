"""Turns of parsing: bounds the time that each round of the event loop spends on the bytes of clients.

Bytes that arrive after the time of a round is used up wait for a later round. So do further requests of a connection,
if its first request takes that time. The addresses that the connections come from take turns. A flood therefore makes
neither the rounds of the event loop nor the pauses of the writer longer, and keeps no other address waiting for long
(docs/adr/0068-short-rounds.md).

A request is refused unread if it has waited too long while many others wait: a flood cannot build a queue in which
every request is answered too late (docs/adr/0068-short-rounds.md).

While an administrator or a person stops something, no bytes of other clients are parsed, so the rounds that the stop
needs are short.

Lives on the event loop.
"""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ostiary.protocol.network import network_of
from ostiaryd.ground.database.line import Client, FairQueue

ROUND_S, LONGEST_ROUND_S = 0.003, 0.006
"""Time for parsing in one round of the event loop, and at most while many connections wait."""
LONGEST_PAUSE_S = 0.05
"""Time for which a stop keeps all other clients waiting; as much time passes before the next pause."""
MANY = 256
"""Largest number of waiting connections: if more wait, connections older than `LONGEST_WAIT_S` are refused unread."""
LONGEST_WAIT_S = 0.1
"""Time for which a connection waits while many wait. It is processor time of the event loop, which never rests while
connections wait: the time for which the process has no processor is not held against them.
"""
EACH_S = 25e-6
"""Time for parsing in one round for each connection that waits: about a third of the time of a refusal."""


def share_of(address: str) -> Client:
    """Return the share of an address: of its network for IPv6, where one client has many addresses."""
    return (network_of(address) if ":" in address else address), ""


class ParsingTurns:
    """The turns of all connections of one server."""

    def __init__(self) -> None:
        self._left_s = ROUND_S
        self._over_at = 0.0
        self._waiting = FairQueue[tuple[float, Callable[[], None], Callable[[], None]]]()
        self._is_scheduled = False
        self._stops = 0
        self._paused_at = self._next_pause_at = 0.0
        self._pause: TimerHandle | None = None
        self._after_pause = list[Callable[[], None]]()

    @property
    def is_free(self) -> bool:
        """Return whether a connection may parse now: no connection waits, and the round has time left."""
        return self._left_s > 0 and not self._waiting and not self.is_paused

    @property
    def is_over(self) -> bool:
        """Return whether the time of the round is used up, which ends the turn of the connection that parses."""
        return time.perf_counter() >= self._over_at

    @property
    def is_paused(self) -> bool:
        """Return whether no connection but those of administrators and persons may parse, and none is accepted."""
        return self._pause is not None

    @contextmanager
    def paused(self, loop: AbstractEventLoop) -> Iterator[None]:
        """Make all other clients wait during the block, which stops something, for at most `LONGEST_PAUSE_S`.

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
        """Call `act` once, at the end of the present pause."""
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
        """Call `parse`, and count the time that it takes."""
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
        """Call `parse` in a later round, in the turn of its address; `refuse` instead if the turn comes too late."""
        self._waiting.push(share_of(address), (time.thread_time(), parse, refuse or parse))
        self._schedule(loop)

    def _schedule(self, loop: AbstractEventLoop) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._begin_round, loop)

    def _begin_round(self, loop: AbstractEventLoop) -> None:
        self._is_scheduled = False
        if self.is_paused:
            return  # `_go_on` schedules the next round
        self._left_s = min(max(ROUND_S, EACH_S * len(self._waiting)), LONGEST_ROUND_S)
        latest = time.thread_time() - LONGEST_WAIT_S
        try:
            while self._left_s > 0 and (waiting := self._waiting.pop()) is not None:
                since, parse, refuse = waiting
                is_late = since < latest and len(self._waiting) >= MANY
                self.run(refuse if is_late else parse, loop)
        finally:  # an error ends one turn, and the others come in the next round
            if self._waiting:
                self._schedule(loop)
