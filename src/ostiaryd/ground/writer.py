"""The one writer: takes all jobs that wait, runs each in turn, commits once.

One fsync serves many acts (group commit), and nobody is answered before it. A job isolates itself with
`tx.savepoint()`; a job that raises without one takes its batch down, and every waiter hears it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ostiaryd.ground.database import Database, Tx
from ostiaryd.ground.keyring import Keyring

T = TypeVar("T")
Job = Callable[[Tx], Any]
BATCH = 512


class Raised:
    """What a job hands back instead of raising, when its effects on the batch shall stand (a recorded refusal)."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Writer:
    def __init__(self, db: Database, *, now: Callable[[], int], random: Callable[[int], bytes], keys: Keyring) -> None:
        self._now, self._random, self._keys = now, random, keys
        self._connection = db.connect()
        self._queue: SimpleQueue[tuple[Job, asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()
        self._closed = False
        self._topics: set[str] = set()
        self.listeners: list[Callable[[set[str]], None]] = []
        """Called on the event loop after a commit, with the outbox topics that it filled."""

    def submit(self, job: Callable[[Tx], T | Raised]) -> Awaitable[T]:
        """Queue a job; the awaitable ends when its effects are durable. Call on the event loop."""
        if self._closed:
            raise RuntimeError("the writer is closed")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.put((job, future))
        return future

    def run(self, jobs: list[Job]) -> list[Any]:
        """One batch on the calling thread: the results in order, a `Raised` where a job handed one back."""
        connection = self._connection
        connection.begin(write=True)
        try:
            tx = Tx(connection, now=self._now(), random=self._random, keys=self._keys)
            results = [job(tx) for job in jobs]
            for function, values in tx.deferred.items():
                function(tx, values)
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        self._topics = tx.topics
        return results

    def close(self) -> None:
        """Finish what is queued, then stop."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()
            self._connection.close()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            stop = False
            while len(batch) < BATCH:
                try:
                    item = self._queue.get_nowait()
                except Empty:
                    break
                if item is None:
                    stop = True
                    break
                batch.append(item)
            self._commit(batch)
            if stop:
                return

    def _commit(self, batch: list[tuple[Job, asyncio.Future[Any]]]) -> None:
        loop = batch[0][1].get_loop()
        futures = [future for _, future in batch]
        topics: set[str] = set()
        try:
            results = self.run([job for job, _ in batch])
            topics = self._topics
        except BaseException as error:  # noqa: BLE001 because every waiter must hear it, whatever it was
            results = [Raised(error)] * len(batch)
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._deliver, futures, results, topics)

    def _deliver(self, futures: list[asyncio.Future[Any]], results: list[Any], topics: set[str]) -> None:
        for future, result in zip(futures, results, strict=True):
            if future.done():  # the waiter was cancelled; the act stands all the same
                continue
            if isinstance(result, Raised):
                future.set_exception(result.error)
            else:
                future.set_result(result)
        if topics:
            for listener in self.listeners:
                listener(topics)
