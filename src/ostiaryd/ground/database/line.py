"""The queue before the writer, called the line: two lanes, and in each lane a fair share for every client.

Jobs of the lane `STOP` run before all others. Within a lane, authenticated callers and networks of unauthenticated
callers take turns. Within a network, the clients that its requests name take turns. The jobs of one client keep their
order. A client that sends more than its share makes only its own line longer.

The jobs of a request queue by its `Priority`, which the gate of its route sets for the task that serves the request. A
job without a priority belongs to the server itself.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from itertools import chain
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")
Client = tuple[str, str]
"""A share of the lane (the id of an authenticated caller, or a network), and the client within the network that the
request names (empty for none).
"""


class Lane(IntEnum):
    """A part of the line before the database writer. The jobs in `STOP`, for requests that stop something, run before
    all jobs in `ORDINARY`.
    """

    STOP = 0
    ORDINARY = 1


class Priority(msgspec.Struct):
    """The lane and the limits of the jobs of one request.

    `lane` is the lane of the jobs now. `wants` is the lane of the route: the jobs move there when the caller has
    authenticated (`queue_proven`). `expires`: a job is refused if it has waited for `Writer.longest_wait`.
    `is_essential`: the job may use the reserve of a full disk, because the request only reads, or gets a token with
    which its caller can stop something. `reports`: the request delivers records of a guard; after the guard has
    authenticated, the jobs do not expire, within a rate (`Reports`).
    """

    client: Client = ("", "")
    lane: Lane = Lane.ORDINARY
    expires: bool = False
    wants: Lane = Lane.ORDINARY
    is_essential: bool = False
    reports: bool = False

    @property
    def uses_reserve(self) -> bool:
        """Return whether the jobs may run while the disk is full."""
        return self.is_essential or self.lane is Lane.STOP


SERVER = Priority(("server", ""))
"""Priority of the server's own jobs: all of them share one turn, and they never expire."""
priority: ContextVar[Priority] = ContextVar("priority", default=SERVER)


@contextmanager
def overtaking() -> Iterator[None]:
    """Put the jobs that the current asyncio task submits to the database writer in this block into the lane `STOP`, as
    jobs of the server.
    """
    before = priority.set(Priority(SERVER.client, lane=Lane.STOP))
    try:
        yield
    finally:
        priority.reset(before)


class FairQueue(Generic[T]):
    """A queue in which the items of one client keep their order, clients take turns within a share, and shares take
    turns.
    """

    def __init__(self) -> None:
        self._shares: OrderedDict[str, OrderedDict[str, deque[T]]] = OrderedDict()
        self.count = 0
        """Number of waiting items."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(items for names in self._shares.values() for items in names.values())

    def push(self, client: Client, item: T) -> None:
        """Add an item to the end of the queue of its client."""
        share, name = client
        if (names := self._shares.get(share)) is None:
            names = self._shares[share] = OrderedDict()
        if (items := names.get(name)) is None:
            items = names[name] = deque()
        items.append(item)
        self.count += 1

    def pop(self) -> T | None:
        """Remove and return the next item; None if the queue is empty."""
        if not self.count:
            return None
        share, names = self._shares.popitem(last=False)
        name, items = names.popitem(last=False)
        item = items.popleft()
        self.count -= 1
        if items:
            names[name] = items
        if names:
            self._shares[share] = names
        return item

    def pop_of_largest(self) -> T | None:
        """Remove and return the next item of the share with the most items; None if the queue is empty."""
        if not self.count:
            return None
        share = max(self._shares, key=lambda one: sum(map(len, self._shares[one].values())))
        self._shares.move_to_end(share, last=False)
        return self.pop()

    def first(self, client: Client) -> T | None:
        """Return the oldest item of a client; None if it has none."""
        names = self._shares.get(client[0])
        items = None if names is None else names.get(client[1])
        return items[0] if items else None

    def remove(self, matches: Callable[[T], bool]) -> list[T]:
        """Remove and return all items for which `matches` is true."""
        removed: list[T] = []
        for share, names in list(self._shares.items()):
            for name, items in list(names.items()):
                kept: deque[T] = deque()
                for item in items:  # exactly once per item: the result may depend on the time
                    (removed if matches(item) else kept).append(item)
                self.count -= len(items) - len(kept)
                if kept:
                    names[name] = kept
                else:
                    del names[name]
            if not names:
                del self._shares[share]
        return removed


class Line(Generic[T]):
    """The queue before the writer, with two lanes. Thread-safe: on PostgreSQL, the writer's thread takes jobs while the
    event loop adds jobs.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._lanes: list[FairQueue[T]] = [FairQueue() for _ in Lane]

    def __len__(self) -> int:
        return sum(queue.count for queue in self._lanes)

    def __iter__(self) -> Iterator[T]:
        with self._mutex:
            return iter([item for queue in self._lanes for item in queue])

    def push(self, lane: Lane, client: Client, item: T) -> None:
        """Queue an item of a client in a lane (the queue of stops, or of ordinary jobs)."""
        with self._mutex:
            self._lanes[lane].push(client, item)

    def pop(self, last: Lane = Lane.ORDINARY) -> T | None:
        """Remove and return the next item of the lanes up to `last` (`STOP` is the first lane); None if these lanes are
        empty.
        """
        with self._mutex:
            for queue in self._lanes[: last + 1]:
                if queue.count:
                    return queue.pop()
        return None

    def has(self, last: Lane) -> bool:
        """Return whether an item waits in one of the lanes up to `last` (`STOP` is the first lane)."""
        with self._mutex:
            return any(queue.count for queue in self._lanes[: last + 1])

    def first(self, lane: Lane, client: Client) -> T | None:
        """Return the oldest item of a client in a lane; None if it has none."""
        with self._mutex:
            return self._lanes[lane].first(client)

    def remove(self, matches: Callable[[T], bool]) -> list[T]:
        """Remove and return all items of both lanes for which `matches` is true."""
        with self._mutex:
            return [item for queue in self._lanes for item in queue.remove(matches)]
