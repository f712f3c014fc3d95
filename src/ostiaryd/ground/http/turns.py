"""Turns of parsing: bounds the time that each round of the event loop spends on the bytes of clients.

Bytes that arrive after the time of a round is used up wait for a later round, in order of arrival. So does the rest of
what one connection has sent, if its first part takes that time. A flood therefore makes neither the rounds of the event
loop nor the pauses of the writer longer (docs/adr/0068-short-rounds.md).

Lives on the event loop.
"""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable

ROUND_S, LONGEST_ROUND_S = 0.003, 0.006
"""Time for parsing in one round of the event loop, and at most while many connections wait."""
EACH_S = 25e-6
"""Time for parsing in one round for each connection that waits: about a third of what a refusal takes."""


class ParsingTurns:
    """The turns of all connections of one server."""

    def __init__(self) -> None:
        self._left_s = ROUND_S
        self._over_at = 0.0
        self._waiting = deque[Callable[[], None]]()
        self._is_scheduled = False

    @property
    def is_free(self) -> bool:
        """Return whether a connection may parse now: no connection waits, and the round has time left."""
        return self._left_s > 0 and not self._waiting

    @property
    def is_over(self) -> bool:
        """Return whether the time of the round is used up, and with it the turn of the connection that parses."""
        return time.perf_counter() >= self._over_at

    def run(self, parse: Callable[[], None], loop: AbstractEventLoop) -> None:
        """Call `parse`, and count its time."""
        began = time.perf_counter()
        self._over_at = began + self._left_s
        try:
            parse()
        finally:
            self._left_s -= time.perf_counter() - began
            if self._left_s <= 0:
                self._schedule(loop)

    def wait(self, parse: Callable[[], None], loop: AbstractEventLoop) -> None:
        """Call `parse` in a later round."""
        self._waiting.append(parse)
        self._schedule(loop)

    def _schedule(self, loop: AbstractEventLoop) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._begin_round, loop)

    def _begin_round(self, loop: AbstractEventLoop) -> None:
        self._is_scheduled = False
        self._left_s = min(max(ROUND_S, EACH_S * len(self._waiting)), LONGEST_ROUND_S)
        try:
            while self._waiting and self._left_s > 0:
                self.run(self._waiting.popleft(), loop)
        finally:  # an error ends one turn, and the others come in the next round
            if self._waiting:
                self._schedule(loop)
