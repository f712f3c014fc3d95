"""A connection of psycopg whose waits for the server have a limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")


class Silent(psycopg.OperationalError):
    """Raised if the server does not answer within the limit, or another connection found that the database is down."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose waits end after `limit_s` seconds (0: no limit), or immediately when `is_current` returns
    false because the database is down.
    """

    limit_s = 0.0
    is_current: Callable[[], bool] = staticmethod(lambda: True)

    def wait(self, gen: Generator[Any, Any, T], interval: float = 0.05, timeout: float | None = None) -> T:
        """Wait for the server as `psycopg` does. After `limit_s` seconds, or if `is_current` returns false, close the
        connection and raise Silent. If `limit_s` is 0, wait without a limit.
        """
        if not self.limit_s:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(self._bounded(gen), interval, timeout)
        except Silent:
            self.close()
            raise

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        until = time.monotonic() + self.limit_s
        try:
            state = next(gen)
            while True:
                ready = yield state
                if not ready and (time.monotonic() > until or not self.is_current()):
                    raise Silent("the database server does not answer")
                state = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result
