"""The one writer: takes all jobs that wait, runs each in turn, commits once.

One fsync serves many acts (group commit), and nobody is answered before it. A job isolates itself with
`tx.savepoint()`; a job that raises without one takes its batch down, and every waiter hears it.

On SQLite the jobs run on the event loop and only the commit in a thread: a statement takes microseconds, but gives up
the interpreter's lock, and in a thread of its own the writer would wait for a busy loop to hand it back each time. On
PostgreSQL, where a statement waits for another process, the whole batch runs in the thread.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ostiary.core.errors import Refused, Unavailable
from ostiaryd.ground.database import Database, Known, SqliteConnection, Tx
from ostiaryd.ground.keyring import Keyring
from ostiaryd.ground.pin import Head, Pin

T = TypeVar("T")
Job = Callable[[Tx], Any]
LONGEST_BATCH_S = 0.05
"""No job is begun in a batch after this: a batch holds the event loop while its jobs run."""
MAX_WAITING = 10_000
"""Jobs, some seconds of work: whoever comes after them would have stopped waiting before there is an answer."""


class Busy(Unavailable):
    """More waits to be written than is done before its askers give up. Nothing was looked at, nothing changes."""

    code = "busy"


class Raised:
    """What a job hands back instead of raising, when its effects on the batch shall stand (a recorded refusal)."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


@dataclass(slots=True)
class _Batch:
    """Who waits, and for what; `error` is what took the batch down."""

    futures: list[asyncio.Future[Any]] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    topics: set[str] = field(default_factory=set)
    head: Head | None = None
    error: BaseException | None = None


def isolated(job: Callable[[Tx], T]) -> Callable[[Tx], T | Raised]:
    """The same job, undone by itself when it is refused: its batch goes on."""

    def run(tx: Tx) -> T | Raised:
        try:
            with tx.savepoint():
                return job(tx)
        except Refused as refusal:
            return Raised(refusal)

    return run


class Writer:
    def __init__(
        self,
        db: Database,
        *,
        now: Callable[[], int],
        random: Callable[[int], bytes],
        keys: Keyring,
        pin: Pin | None = None,
    ) -> None:
        self._now, self._random, self._keys, self._pin = now, random, keys, pin or Pin()
        self._connection = connection = db.connect()
        self._begin_now = connection.begin_now if isinstance(connection, SqliteConnection) else None
        """where jobs run on the event loop"""
        self._known = Known()
        self._queue: deque[tuple[Job, asyncio.Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._loop = asyncio.get_running_loop()  # kept, since asking for it is a system call (until Python 3.12)
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self.listeners: list[Callable[[set[str]], None]] = []
        """Called on the event loop after a commit, with the outbox topics that it filled."""

    def submit(self, job: Callable[[Tx], T | Raised]) -> Awaitable[T]:
        """Queue a job; the awaitable ends when its effects are durable. Call on the event loop."""
        if self._closed:
            raise RuntimeError("the writer is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.append((job, future))
        if self._idle.is_set():
            self._idle.clear()
            self._loop.call_soon(self._start)
        return future

    @property
    def waiting(self) -> int:
        """How many jobs are queued."""
        return len(self._queue)

    async def close(self) -> None:
        """Finish what is queued, then stop."""
        self._closed = True
        await self._idle.wait()
        self._thread.shutdown()
        self._connection.close()

    def _start(self) -> None:
        batch = _Batch()
        if self._begin_now is None:
            self._in_thread(self._do_all, batch, then=self._end)
            return
        try:
            has_begun = self._begin_now()
        except Exception as error:  # noqa: BLE001 because every waiter must hear it, whatever it was
            batch.error, has_begun = error, True
        if has_begun:
            self._go_on(batch)
        else:
            self._in_thread(self._begin, batch, then=self._go_on)

    def _go_on(self, batch: _Batch) -> None:
        self._run(batch)
        self._in_thread(self._commit, batch, then=self._end)

    def _in_thread(self, work: Callable[[_Batch], None], batch: _Batch, *, then: Callable[[_Batch], None]) -> None:
        """Do that in the writer's thread, then the other on the event loop."""

        def go_on(done: asyncio.Future[None]) -> None:
            batch.error = batch.error or done.exception()
            then(batch)

        self._loop.run_in_executor(self._thread, work, batch).add_done_callback(go_on)

    def _do_all(self, batch: _Batch) -> None:
        self._begin(batch)
        self._run(batch)
        self._commit(batch)

    def _begin(self, batch: _Batch) -> None:
        try:
            self._connection.begin(write=True)
        except BaseException as error:  # noqa: BLE001 as above
            batch.error = error

    def _run(self, batch: _Batch) -> None:
        """Run what waits in the transaction that has begun, and leave it open."""
        until = time.monotonic() + LONGEST_BATCH_S
        try:
            if batch.error is None:
                if not self._connection.is_alone():
                    self._known.clear()
                tx = Tx(
                    self._connection, now=self._now(), random=self._random, keys=self._keys, known=self._known,
                    pin=self._pin,
                )  # fmt: skip
                while self._queue:
                    job, future = self._queue.popleft()
                    batch.futures.append(future)
                    batch.results.append(job(tx))
                    if time.monotonic() >= until:  # asked after a job: one is done, however late we got the processor
                        break
                tx.finish()
                batch.topics, batch.head = tx.topics, tx.head
        except BaseException as error:  # noqa: BLE001 as above
            batch.error = error
        if not batch.futures:  # it did not even begin
            batch.futures = [self._queue.popleft()[1] for _ in range(len(self._queue))]

    def _commit(self, batch: _Batch) -> None:
        """End the transaction: durably, unless the batch has failed. Then pin the ledger's head, before any answer."""
        if batch.error is None:
            try:
                self._connection.commit()
                if batch.head is not None:
                    self._pin.write(batch.head)
                return
            except BaseException as error:  # noqa: BLE001 as above
                batch.error = error
        self._known.clear()
        self._connection.rollback()

    def _end(self, batch: _Batch) -> None:
        """Tell who waits; then the next batch, once the loop has sent their answers."""
        error = batch.error
        results = batch.results if error is None else [Raised(error)] * len(batch.futures)
        for future, result in zip(batch.futures, results, strict=True):
            if future.done():  # the waiter was cancelled; the act stands all the same
                continue
            if isinstance(result, Raised):
                future.set_exception(result.error)
            else:
                future.set_result(result)
        if self._queue:
            self._loop.call_soon(self._start)
        else:
            self._idle.set()
        if error is None and batch.topics:
            for listener in self.listeners:
                listener(batch.topics)
