"""The one writer: takes all jobs that wait, runs each in turn, commits once.

One fsync serves many acts (group commit), and no act is answered before it. A job isolates itself with
`tx.savepoint()`; a job that raises without a savepoint fails its batch, and with it every job of the batch.

On SQLite the jobs run on the event loop and only the commit in a thread: a statement takes microseconds, but gives up
the interpreter's lock, and in a thread of its own the writer would wait for a busy loop to hand it back each time. The
loop turns between slices of a batch, so that a request to stop something is read while a batch is in progress. On
PostgreSQL, where a statement waits for another process, the whole batch runs in the thread.

Jobs queue in a `Line`: acts that stop something overtake all others and cut the batch in progress short; a client with
too many requests is refused by the age of its oldest waiting job, which costs next to nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from ostiary.protocol.errors import Refused, Unavailable
from ostiaryd.ground.crypto.keyring import Keyring
from ostiaryd.ground.database import (
    Database,
    DatabaseUnavailable,
    OutcomeUnknown,
    QueryCache,
    SqliteConnection,
    Tx,
    storage_failure,
)
from ostiaryd.ground.database.line import Client, Lane, Line, Priority, priority
from ostiaryd.ground.database.pin import Head, Pin
from ostiaryd.ground.database.reserve import DiskFull, Reserve, is_disk_full
from ostiaryd.ground.process.clock import Clock

T = TypeVar("T")
Job = Callable[[Tx], Any]
LONGEST_BATCH_S = 0.05
"""Maximum time for the jobs of a batch; no job begins after it."""
SLICE_S, LONGEST_SLICE_S = 0.002, 0.008
"""Seconds for which a batch on SQLite holds the event loop. If other work has just taken longer, the batch takes as
long, up to a limit: writing gets half of the time of a round that is not too long.
"""
ANSWERED_AT_ONCE, ANSWERED_PART = 32, 4
"""Answers in one round of the event loop, about 5 ms of work: to so many refused requests, and to as many requests
whose jobs are done, or to a quarter of the latter. The answer to a stop waits for no other.
"""
SWEEP_S = 0.05
"""Seconds between searches of the line for jobs that are too old, also while a commit is in progress."""
LONGEST_WAIT = 10
"""Sweeps, so 500 ms: the age at which a job is refused. While a client has a job of that age, further jobs are refused
at once. The unit is the sweep, because a process without a processor lets no client wait. A turn of the event loop that
takes longer than a sweep counts as many sweeps as it took processor time.
"""
CROWDED = 4
"""Sweeps, so 200 ms: while the oldest job of all is of that age, a client with anything waiting is refused more."""
REFUSED_AT_ONCE = 250
"""Refusals that are answered in a sweep, so 5,000 a second: most cost little, since nothing but the client of their
request is looked at (`Endpoint.refuse`). A refusal beyond is held back: its client sends no other request on that
connection.
"""


class Busy(Unavailable):
    """The client has too many requests in the queue of the writer. The request was not processed, and nothing
    changed.
    """

    code = "busy"

    def __init__(self) -> None:
        super().__init__("too many requests of this client wait to be written", hint="try again later")


class Raised:
    """The error of a job whose changes stay in the batch (a recorded refusal); it is returned instead of raised."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def drop_frames(self) -> None:
        """Remove the frames from a refusal that is not logged: they reference the batch in a cycle, so only the
        garbage collector would free it.
        """
        if isinstance(self.error, Refused):
            self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None


class _Waiting(msgspec.Struct):
    """A job in the queue, since the sweep `at`."""

    job: Job
    future: asyncio.Future[Any]
    priority: Priority
    at: int


@dataclass(slots=True)
class _Batch:
    """Jobs of one transaction, and the outcome of each; `error` is the error that ended the batch."""

    waiting: list[_Waiting] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    topics: set[str] = field(default_factory=set)
    head: Head | None = None
    error: BaseException | None = None
    is_retried: bool = False
    """the jobs that may use the reserve run again, because a part of the reserve is free now"""
    tx: Tx | None = None
    left_s: float = LONGEST_BATCH_S
    """time that is left for its jobs"""
    ran_at: float = 0.0
    """time at which its last slice ended"""
    last: Lane = Lane.ORDINARY
    """the last lane from which jobs are taken: after a job of the lane `STOP` only that one, so that it commits soon"""


def isolated(job: Callable[[Tx], T]) -> Callable[[Tx], T | Raised]:
    """Return the job within a savepoint: a refusal undoes the job alone, and its batch continues."""

    def run(tx: Tx) -> T | Raised:
        try:
            with tx.savepoint():
                return job(tx)
        except Refused as refusal:
            return Raised(refusal)

    return run


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    """Set the result of a job for its waiter."""
    if future.done():  # the waiter was cancelled; the act stands all the same
        return
    if isinstance(result, Raised):
        future.set_exception(result.error)
    else:
        future.set_result(result)


def _check_storage(raised: Raised) -> None:
    """Raise the error of a job that met a failure of the storage: SQLite may have rolled back."""
    if storage_failure(raised.error) is not None:
        raise raised.error


class Writer:
    def __init__(
        self,
        db: Database,
        *,
        now: Clock,
        random: Callable[[int], bytes],
        keys: Keyring,
        pin: Pin | None = None,
        reserve: Reserve | None = None,
    ) -> None:
        self._now, self._random, self._keys, self._pin = now, random, keys, pin or Pin()
        self._db, self._connection = db, (connection := db.connect())
        self._losses = connection.losses
        self._begin_now = connection.begin_now if isinstance(connection, SqliteConnection) else None
        """function that begins a transaction on the event loop, on SQLite"""
        self._known = QueryCache()
        self._reserve = reserve
        self.is_full = reserve is not None and reserve.was_full
        """true if the disk is full: only jobs that may use the reserve run, until `rebuild` finds room"""
        self._line: Line[_Waiting] = Line()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._loop = asyncio.get_running_loop()  # kept, since asking for it is a system call (until Python 3.12)
        self._idle = asyncio.Event()
        self._idle.set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._refused: deque[asyncio.Future[Any]] = deque()
        self._refusals_left = REFUSED_AT_ONCE
        self._outcomes: deque[tuple[asyncio.Future[Any], Any]] = deque()
        """the outcomes of jobs whose requests are not answered yet"""
        self._refusals: deque[asyncio.Future[Any]] = deque()
        """the refusals that are answered next; `_refused` has the others, until a later sweep"""
        self._is_answering = False
        self._is_between = False
        """true if a batch has ended, and the next one begins after its requests are answered"""
        self._next_slice: tuple[asyncio.Handle, _Batch] | None = None
        """the batch in progress, between two slices"""
        self._swept_at = 0.0
        """processor time of this thread at the last sweep, in seconds"""
        self._sweeps = self._age = 0
        """sweeps so far; sweeps that the oldest job which may expire has waited"""
        self._closed = False
        self._started = 0.0
        """monotonic time when the batch in progress began, in seconds; 0 while there is none"""
        self.commits = True
        """False if the last batch failed as a whole"""
        self.listeners: list[Callable[[set[str]], None]] = []
        """functions that are called on the event loop after a commit, with the outbox topics that it filled"""

    def submit(self, job: Callable[[Tx], T | Raised]) -> Awaitable[T]:
        """Queue a job by the `priority` of this task; the awaitable ends when its effects are durable, and raises Busy
        if the job expires, DiskFull. Call on the event loop.
        """
        if self._closed:
            raise RuntimeError("the writer is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        waiting = _Waiting(job, future, priority.get(), self._sweeps)
        if not self._db.is_up:
            future.set_exception(DatabaseUnavailable("the database is not reachable", hint="try again in a moment"))
        elif self.is_full and not waiting.priority.uses_reserve:
            future.set_exception(DiskFull())
        else:
            self._push(waiting)
        return future

    async def rebuild(self) -> None:
        """Build the reserve if there is room for it; without room, the disk counts as full."""
        if (reserve := self._reserve) is not None:
            is_whole = await asyncio.to_thread(reserve.build)
            self.is_full = not is_whole and (self.is_full or reserve.open_room())

    async def move_log(self) -> None:
        """Move committed pages from SQLite's log to the database file, while batches go on. Raises LostDatabase,
        DatabaseUnavailable.
        """
        if isinstance(self._connection, SqliteConnection):
            await asyncio.to_thread(self._connection.move_log)

    async def admit(self, client: Client) -> None:
        """Refuse a client that `is_refused`. Raises Busy when the turn of the refusal comes."""
        if self.is_refused(client):
            await self._hold_refusal()

    def _hold_refusal(self) -> asyncio.Future[None]:
        """Return the refusal of a request when its turn comes. (A frame that kept it would be garbage in a cycle.)"""
        self._refused.append(refused := self._loop.create_future())
        return refused

    def is_refused(self, client: Client) -> bool:
        """Return whether the client has a job in the queue while the queue is crowded."""
        oldest = self._line.first(Lane.ORDINARY, client) if self.is_crowded else None
        return oldest is not None and oldest.priority.expires

    def take_refusal(self) -> bool:
        """Take one of the refusals that may be answered at once; False if none is left until the next sweep."""
        has_left = self._refusals_left > 0
        self._refusals_left -= has_left
        return has_left

    @property
    def is_crowded(self) -> bool:
        """Return whether jobs wait so long that many of them will be refused."""
        return self._age >= CROWDED

    @property
    def waiting(self) -> int:
        """Return the number of queued jobs."""
        return len(self._line)

    def _push(self, waiting: _Waiting) -> None:
        self._line.push(waiting.priority.lane, waiting.priority.client, waiting)
        if self._idle.is_set():
            self._idle.clear()
            self._loop.call_soon(self._start)
            if self._sweeping is None:
                self._swept_at = time.thread_time()
                self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)
        elif waiting.priority.lane is Lane.STOP:
            if self._is_between:
                self._begin_next()
            elif self._next_slice is not None:
                handle, batch = self._next_slice
                handle.cancel()
                self._go_on(batch)

    def _is_too_old(self, waiting: _Waiting) -> bool:
        return waiting.priority.expires and self._sweeps - waiting.at >= LONGEST_WAIT

    def _sweep(self) -> None:
        """Remove the jobs that have waited too long and answer refusals, as long as there are any."""
        now = time.thread_time()
        self._sweeps += max(1, int((now - self._swept_at) / SWEEP_S))
        self._swept_at = now
        self._age = self._find_age()
        if self._age >= LONGEST_WAIT:
            self._refused += [waiting.future for waiting in self._line.remove(self._is_too_old)]
            self._age = self._find_age()
        self._refusals_left = REFUSED_AT_ONCE
        while self._refused and self.take_refusal():
            self._refusals.append(self._refused.popleft())
        self._answer_soon()
        is_over = self._idle.is_set() and not self._refused
        self._sweeping = None if is_over else self._loop.call_later(SWEEP_S, self._sweep)

    def _find_age(self) -> int:
        """Return for how many sweeps the oldest job that may expire has waited; 0 without such a job."""
        return self._sweeps - min((one.at for one in self._line if one.priority.expires), default=self._sweeps)

    @property
    def busy_s(self) -> float:
        """Return the seconds since the batch in progress began; 0 if there is none."""
        return time.monotonic() - self._started if self._started else 0.0

    async def close(self) -> None:
        """Finish the queued jobs, then stop."""
        self._closed = True
        await self._idle.wait()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for refused in (*self._refused, *self._refusals):
            refused.cancel()
        self._thread.shutdown()
        self._connection.close()

    def _start(self) -> None:
        batch = _Batch()
        self._started = time.monotonic()
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
        """Run a slice of the batch on the event loop; commit once it is complete."""
        self._next_slice = None
        elsewhere_s = min(time.monotonic() - batch.ran_at, LONGEST_SLICE_S) if batch.ran_at else 0.0
        batch.left_s = max(batch.left_s, elsewhere_s)
        if self._run(batch, slice_s=max(SLICE_S, elsewhere_s)):
            self._next_slice = self._loop.call_soon(self._go_on, batch), batch
        else:
            self._in_thread(self._commit, batch, then=self._end)

    def _in_thread(self, work: Callable[[_Batch], None], batch: _Batch, *, then: Callable[[_Batch], None]) -> None:
        """Run `work` in the writer's thread, then `then` on the event loop."""

        def go_on(done: asyncio.Future[None]) -> None:
            batch.error = batch.error or done.exception()
            then(batch)

        self._loop.run_in_executor(self._thread, work, batch).add_done_callback(go_on)

    def _do_all(self, batch: _Batch) -> None:
        self._begin(batch)
        self._run(batch, slice_s=LONGEST_BATCH_S)
        self._commit(batch)

    def _begin(self, batch: _Batch) -> None:
        try:
            self._connection.begin(write=True)
        except BaseException as error:  # noqa: BLE001 as above
            batch.error = error

    def _run(self, batch: _Batch, *, slice_s: float) -> bool:
        """Run waiting jobs in the open transaction, for `slice_s`; return whether the batch continues."""
        try:
            if batch.error is None:
                tx = batch.tx = batch.tx or self._new_tx(batch)
                began = now = time.monotonic()
                until = began + min(slice_s, batch.left_s)
                while (waiting := self._line.pop(batch.last)) is not None:
                    batch.waiting.append(waiting)
                    if waiting.priority.lane is Lane.STOP:
                        batch.last = Lane.STOP
                    batch.results.append(result := waiting.job(tx))
                    if isinstance(result, Raised):
                        _check_storage(result)
                        result.drop_frames()
                    now = time.monotonic()  # asked after a job: one is done, however late we got the processor
                    if now >= until:
                        break
                batch.ran_at, batch.left_s = now, batch.left_s - (now - began)
                if batch.left_s > 0 and self._line.has(batch.last):
                    return True
                tx.finish()
                batch.topics, batch.head = tx.topics, tx.head
        except BaseException as error:  # noqa: BLE001 as above
            batch.error = error
        if batch.error is not None and not batch.waiting:  # it did not even begin
            batch.waiting = self._line.remove(lambda _: True)
        return False

    def _new_tx(self, batch: _Batch) -> Tx:
        if self._losses != self._connection.losses:  # another server may answer, with an older state
            self._known, self._losses = QueryCache(), self._connection.losses
            self._pin.require_check()
        if not self._connection.is_alone():
            self._known.clear()
        batch.left_s = LONGEST_BATCH_S
        return Tx(
            self._connection,
            now=self._now(),
            random=self._random,
            keys=self._keys,
            cache=self._known,
            pin=self._pin,
            is_granting=self._now.is_confirmed,
        )

    def _commit(self, batch: _Batch) -> None:
        """Commit the transaction, durably, unless the batch has failed. Then pin the ledger's head, before any
        answer.
        """
        if batch.error is None:
            try:
                self._commit_or_find_outcome()
                if batch.head is not None:
                    self._pin.write(batch.head)
                return
            except BaseException as error:  # noqa: BLE001 as above
                batch.error = error
        self._known.clear()
        self._connection.rollback()
        if is_disk_full(batch.error):
            batch.is_retried = self._reserve is not None and self._reserve.release()
            batch.error = DiskFull()
            # Objects of packages hold the proofs that this batch has spent; the second run spends them again.
            self._known = QueryCache()

    def _commit_or_find_outcome(self) -> None:
        """Commit. If the answer is lost, find out whether the commit took place. Raises if it did not, or if
        that stays unknown.
        """
        try:
            self._connection.commit()
        except OutcomeUnknown:
            self._connection.rollback()
            if not self._connection.has_committed():
                raise DatabaseUnavailable(
                    "the connection to the database was lost before the commit", hint="try again"
                ) from None

    def _end(self, batch: _Batch) -> None:
        """Wake the listeners, then answer the waiters: those of the lane `STOP` at once, the others some in each round
        of the event loop. The next batch begins after that, so that it has many jobs; at once if jobs wait too long.
        """
        error = batch.error
        self._started, self.commits = 0.0, error is None
        if isinstance(error, DiskFull):
            self._make_room(batch)
        try:
            if error is None and batch.topics:
                for listener in self.listeners:
                    listener(batch.topics)
        finally:
            results = batch.results if error is None else [Raised(error)] * len(batch.waiting)
            for waiting, result in zip(batch.waiting, results, strict=True):
                waiting.priority.expires = False  # what its request still has to write follows from what was done
                if waiting.priority.lane is Lane.STOP:
                    _answer(waiting.future, result)
                else:
                    self._outcomes.append((waiting.future, result))
            self._is_between = True
            self._answer_soon()
            if self._is_between and (self.is_crowded or self._line.has(Lane.STOP)):
                self._begin_next()

    def _begin_next(self) -> None:
        self._is_between = False
        if len(self._line):
            self._loop.call_soon(self._start)
        else:
            self._idle.set()
            self._age = 0

    def _answer_soon(self) -> None:
        """Schedule a round of answers, if none is scheduled."""
        if not self._is_answering:
            self._answer_some()

    def _answer_some(self) -> None:
        """Answer some requests whose outcome is known, and the others in later rounds of the event loop."""
        done = len(self._outcomes)
        for _ in range(min(done, max(ANSWERED_AT_ONCE, done // ANSWERED_PART))):
            _answer(*self._outcomes.popleft())
        for _ in range(min(len(self._refusals), ANSWERED_AT_ONCE)):
            _answer(self._refusals.popleft(), Raised(Busy()))
        if self._is_between and not self._outcomes:
            self._begin_next()
        self._is_answering = bool(self._outcomes or self._refusals)
        if self._is_answering:
            self._loop.call_soon(self._answer_some)

    def _make_room(self, batch: _Batch) -> None:
        """Let only jobs that may use the reserve run, after a batch for which the disk had no room."""
        if self._reserve is None:
            return
        self.is_full = True
        batch.waiting += self._line.remove(lambda waiting: not waiting.priority.uses_reserve)
        if batch.is_retried:
            for waiting in batch.waiting:
                if waiting.priority.uses_reserve:
                    self._line.push(waiting.priority.lane, waiting.priority.client, waiting)
            batch.waiting = [waiting for waiting in batch.waiting if not waiting.priority.uses_reserve]
