"""Waits in flows, and the sharing of work between flows that run at the same time.

A flow is a generator without I/O. It yields a request and is sent the response; or it yields a `Pause` or a `Wait`,
and is sent None when the time has passed. Flows of one client may run in threads and in tasks of event loops at the
same time. They share `concurrent.futures` futures, for which both can wait. Every wait has a limit, after which a flow
does the work itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2

from ostiary.protocol.errors import Refused

T = TypeVar("T")
LIMIT_S = 30.0
"""Maximum time, in seconds, for which a flow waits for another one."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait of a stated number of seconds."""

    seconds: float

    def block(self) -> None:
        """Block the thread for the stated number of seconds."""
        time.sleep(self.seconds)

    async def suspend(self) -> None:
        """Suspend the asyncio task for the stated number of seconds."""
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait until a future is done, with or without success, but at most LIMIT_S seconds. `suspend` needs a running
    asyncio event loop.
    """

    future: concurrent.futures.Future[Any]

    def block(self) -> None:
        """Block the thread until the future is done, or LIMIT_S seconds have passed."""
        concurrent.futures.wait([self.future], LIMIT_S)

    async def suspend(self) -> None:
        """Suspend the asyncio task until the future is done, or LIMIT_S seconds have passed."""
        done = asyncio.wrap_future(self.future)
        done.add_done_callback(_retrieve)
        await asyncio.wait([done], timeout=LIMIT_S)


def _retrieve(done: asyncio.Future[Any]) -> None:
    """Read the outcome of a future, so that asyncio does not log its exception as never retrieved."""
    if not done.cancelled():
        done.exception()


Step = httpx2.Request | Pause | Wait
Flow = Generator[Step, Any, T]


class SharedFlows:
    """Flows that share work: for each key, one flow runs at a time; other callers with the same key wait for this flow,
    and get its outcome.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._running = dict[Hashable, concurrent.futures.Future[Any]]()

    def run(self, key: Hashable, flow: Callable[[], Flow[T]]) -> Flow[T]:
        """Return the result of `flow`, or raise its refusal. If another caller's flow with `key` is running, return or
        raise its outcome instead.

        A flow that was cancelled, or whose connection failed, has no outcome. Then each waiting caller runs its own
        flow, so that no caller waits for an unreachable server more than once.
        """
        own = concurrent.futures.Future[T]()
        with self._mutex:
            running = self._running.setdefault(key, own)
        if running is not own:
            yield Wait(running)
            if running.done() and not running.cancelled():
                outcome: T = running.result()
                return outcome
            return (yield from flow())
        try:
            result = yield from flow()
            own.set_result(result)
            return result
        except Refused as refusal:
            own.set_exception(refusal)
            raise
        finally:
            with self._mutex:
                del self._running[key]
            if own.cancel():
                own.set_running_or_notify_cancel()  # wakes the waiting flows


class Turns:
    """The queue of requests to one server. While flows are in the queue, requests are sent one at a time, in the order
    of arrival.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._queue = deque[concurrent.futures.Future[None]]()

    @property
    def is_contended(self) -> bool:
        """Return whether flows are waiting in the queue of this server."""
        return bool(self._queue)

    def take(self) -> Flow[concurrent.futures.Future[None]]:
        """Join the queue, and return a ticket once it is the first in the queue, or after LIMIT_S seconds. The caller
        must pass the ticket to `leave`.
        """
        ticket = concurrent.futures.Future[None]()
        with self._mutex:
            self._queue.append(ticket)
            is_first = self._queue[0] is ticket
        if not is_first:
            try:
                yield Wait(ticket)
            except BaseException:
                self.leave(ticket)
                raise
        return ticket

    def leave(self, ticket: concurrent.futures.Future[None]) -> None:
        """Remove the ticket from the queue, at any position. If it was the first, the flow with the next ticket
        continues.
        """
        with self._mutex:
            self._queue.remove(ticket)
            first = self._queue[0] if self._queue else None
            if first is not None and not first.done():
                first.set_result(None)
