"""The only writer of this process: takes all waiting jobs as one batch, runs them one after the other, and commits
once.

Many acts share one fsync (group commit), and no act is answered before it. A job protects the others by
`tx.savepoint()`; if a job raises outside a savepoint, all jobs of its batch fail.

On SQLite the jobs run on the event loop and only the commit in a thread: a statement takes only microseconds but
releases the interpreter's lock, and in a separate thread the writer would wait for the lock each time. A batch runs in
slices, between which the event loop does other work, so that a request to stop something is read during a batch. Before
the commit it waits for a moment for the jobs of requests that have arrived meanwhile
(docs/adr/0167-a-batch-waits-for-requests-that-have-arrived.md). On PostgreSQL, where a statement waits for another
process, the whole batch runs in the thread.

Jobs queue in a `Line`: acts that stop something run before all others and end the batch in progress early. A client
with too many requests is refused because of the age of its oldest waiting job, which needs almost no work.
"""

from __future__ import annotations

import asyncio
import logging
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
log = logging.getLogger("ostiary")
Job = Callable[[Tx], Any]
LONGEST_BATCH_S = 0.05
"""Maximum time for the jobs of a batch, in seconds; after it, no further job begins."""
SLICE_S, LONGEST_SLICE_S = 0.002, 0.008
"""Minimum and maximum time for which a batch on SQLite occupies the event loop at once, in seconds. Between the two, a
slice takes as long as the other work since the last slice.
"""
EMPTY_ROUNDS, LONGEST_WAIT_S = 2, 0.02
"""Number of consecutive rounds of the event loop without a new job for which a batch on SQLite waits before its commit:
in the first one, requests are read, and in the second one, their jobs are added. A batch that has run for longer than
`LONGEST_WAIT_S`, in seconds, does not wait.
"""
ANSWERED_AT_ONCE, ANSWERED_PART = 32, 4
"""Number of responses in one round of the event loop, about 5 ms of work. The first number limits refused requests.
Completed requests have the same limit, or a quarter of the waiting ones if that is more. The response to a stop is not
limited.
"""
ANSWERED_DURING_STOP = 4
"""Number of such responses in one round while a job of the lane `STOP` waits or runs, because it takes several rounds.
"""
SWEEP_S = 0.05
"""Time between two searches of the line for jobs that have waited too long, in seconds. The search also runs during a
commit.
"""
CROWDED_PART = 0.4
"""Age of the oldest waiting job from which the line is crowded, as a part of the longest wait (`Writer.longest_wait`).
While the line is crowded, further jobs of clients that have a waiting job are refused.
"""
REFUSED_AT_ONCE = 250
"""Maximum number of refusals that are sent in one sweep (5,000 a second). Most cost little work, because only the
client of the request is determined (`Endpoint.refuse`). Further refusals wait; meanwhile their clients cannot send
another request on the same connection.
"""


class Busy(Unavailable):
    """The client has too many jobs in the line (the queue before the database writer). The request was not processed,
    and nothing was changed.
    """

    code = "busy"

    def __init__(self) -> None:
        super().__init__("too many requests of this client are waiting for the database", hint="try again later")


class Raised:
    """The error of a job whose changes stay in the batch, for example a recorded refusal. A job returns it instead of
    raising the error.
    """

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def drop_frames(self) -> None:
        """Remove the traceback from the error if it is a refusal, because refusals are not logged. The frames of a
        traceback refer to the batch; only the garbage collector would free such a cycle.
        """
        if isinstance(self.error, Refused):
            self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None


class _Waiting(msgspec.Struct):
    """A job in the line. `at` is the number of the sweep in which it was added."""

    job: Job
    future: asyncio.Future[Any]
    priority: Priority
    at: int


@dataclass(slots=True)
class _Batch:
    """The jobs of one transaction, with the result of each. `error` is the error with which the whole batch failed;
    None without one.
    """

    waiting: list[_Waiting] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    topics: set[str] = field(default_factory=set)
    head: Head | None = None
    error: BaseException | None = None
    is_retried: bool = False
    """True if the jobs that may use the reserve run a second time, because a part of the reserve was freed, or because
    another server has freed it.
    """
    tx: Tx | None = None
    empty_rounds: int = 0
    """Number of rounds of the event loop since the last job."""
    left_s: float = LONGEST_BATCH_S
    """Remaining time for further jobs, in seconds."""
    ran_at: float = 0.0
    """Time at which the last slice ended, in seconds of the monotonic clock."""
    last: Lane = Lane.ORDINARY
    """Last lane from which jobs are taken. After a job of the lane `STOP`, it is `STOP`, so that this job is committed
    soon.
    """


def isolated(job: Callable[[Tx], T]) -> Callable[[Tx], T | Raised]:
    """Return a job that runs `job` in a savepoint: if `job` is refused, only its own changes are undone, and the batch
    continues.
    """

    def run(tx: Tx) -> T | Raised:
        try:
            with tx.savepoint():
                return job(tx)
        except Refused as refusal:
            return Raised(refusal)

    return run


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    """Give the result of a job to the task that waits for it."""
    if future.done():  # the waiting task was cancelled; the act is committed nevertheless
        return
    if isinstance(result, Raised):
        future.set_exception(result.error)
    else:
        future.set_result(result)


def _check_storage(raised: Raised) -> None:
    """Raise the error of a job if it is a failure of the storage, because the whole transaction may then have ended:
    SQLite may have rolled it back, and PostgreSQL has aborted it if the failed statement began no savepoint.
    """
    if isinstance(raised.error, DatabaseUnavailable) or storage_failure(raised.error) is not None:
        raise raised.error


class Writer:
    """The only writer of this process to the database. It runs the waiting jobs in batches, each in one transaction."""

    def __init__(
        self,
        db: Database,
        *,
        now: Clock,
        random: Callable[[int], bytes],
        keys: Keyring,
        reserve: Reserve,
        longest_wait_s: float,
        pin: Pin | None = None,
    ) -> None:
        self._now, self._random, self._keys, self._pin = now, random, keys, pin or Pin()
        self._db, self._connection = db, (connection := db.connect())
        self.reserve = reserve
        self._losses = connection.losses
        self._begin_now = connection.begin_now if isinstance(connection, SqliteConnection) else None
        """Function that begins a transaction on the event loop; None on PostgreSQL."""
        self._known = QueryCache()
        self.is_full = reserve.was_full
        """True if the disk is full: only jobs that may use the reserve run, until `rebuild` finds space."""
        self._line: Line[_Waiting] = Line()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        # stored, because `get_running_loop` makes a system call before Python 3.12
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._refused: deque[asyncio.Future[Any]] = deque()
        self._refusals_left = REFUSED_AT_ONCE
        self._outcomes: deque[tuple[asyncio.Future[Any], Any]] = deque()
        """Results of jobs whose requests are not answered yet, each with the future that waits."""
        self._refusals: deque[asyncio.Future[Any]] = deque()
        """Refusals that are sent in the next rounds. The refusals in `_refused` wait for a later sweep."""
        self._is_answering = False
        self._is_stopping = False
        """True while a job of the lane `STOP` waits or runs."""
        self._is_between = False
        """True if a batch has ended, and the next batch begins when its requests are answered."""
        self._next_slice: tuple[asyncio.Handle, _Batch] | None = None
        """The batch in progress between two slices, with the handle of its next slice; None otherwise."""
        self.longest_wait = longest_wait_s / SWEEP_S
        """Age at which a waiting job is refused, in sweeps. While a client has a job of that age, its further jobs are
        refused immediately. The unit is the sweep, and not a time, so that time without a processor does not count. If
        one round of the event loop takes longer than a sweep, its processor time counts, in sweeps.
        """
        self._swept_at = 0.0
        """Processor time of this thread at the last sweep, in seconds."""
        self._sweeps = self._age = 0
        """Number of sweeps so far, and age in sweeps of the oldest waiting job that can expire."""
        self._closed = False
        self._started = 0.0
        """Monotonic time at which the batch in progress began, in seconds; 0 if there is none."""
        self.commits = True
        """False if the last batch failed as a whole."""
        self.has_arrival: Callable[[], bool] = lambda: False
        """Function that returns whether a slice of a batch must end, because an administrator or a person has sent
        something (`Arrivals.has_new`).
        """
        self.listeners: list[Callable[[set[str]], None]] = []
        """Functions that are called on the event loop after a commit, with the topics of the outbox that have new
        messages.
        """

    def submit(self, job: Callable[[Tx], T | Raised]) -> Awaitable[T]:
        """Add a job to the line, the queue before this writer, with the `Priority` of the current asyncio task. The
        awaitable returns the result of the job when its changes are durable. Call it on the event loop.

        The awaitable raises the error of the job; Busy if the job expires; DiskFull if the disk is full and the job may
        not use the reserve; DatabaseUnavailable.
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
        """Restore the reserve if the disk has space for it; the disk then no longer counts as full. Without that space,
        the disk counts as full if it did before, or if nearly no space is free.
        """
        is_whole = await asyncio.to_thread(self.reserve.build)
        self.is_full = not is_whole and (self.is_full or self.reserve.open_room())

    async def move_log(self) -> None:
        """Move committed pages from SQLite's log to the database file, while batches continue. Do nothing on
        PostgreSQL. Raises LostDatabase if a file was replaced, removed or cut, DatabaseUnavailable if SQLite fails.
        """
        if isinstance(self._connection, SqliteConnection):
            await asyncio.to_thread(self._connection.move_log)

    async def admit(self, client: Client) -> None:
        """Return if the client may add a job (`is_refused`); otherwise wait until the refusal can be sent, and raise
        Busy.
        """
        if self.is_refused(client):
            await self._hold_refusal()

    def _hold_refusal(self) -> asyncio.Future[None]:
        """Return a future that ends when this refusal may be sent. It is a separate function, because a frame that
        holds the future would be part of a reference cycle.
        """
        self._refused.append(refused := self._loop.create_future())
        return refused

    def is_refused(self, client: Client) -> bool:
        """Return whether a further job of the client is refused: the line is crowded, and the oldest waiting job of the
        client in the ordinary lane can expire.
        """
        oldest = self._line.first(Lane.ORDINARY, client) if self.is_crowded else None
        return oldest is not None and oldest.priority.expires

    def take_refusal(self) -> bool:
        """Use up one of the refusals that may still be sent before the next search of the line (`SWEEP_S`). Return
        false if there is none left.
        """
        has_left = self._refusals_left > 0
        self._refusals_left -= has_left
        return has_left

    @property
    def is_crowded(self) -> bool:
        """Return whether jobs have waited so long that many of them will be refused."""
        return self._age >= CROWDED_PART * self.longest_wait

    @property
    def waiting(self) -> int:
        """Return the number of jobs that wait in the line of the writer."""
        return len(self._line)

    def _push(self, waiting: _Waiting) -> None:
        self._line.push(waiting.priority.lane, waiting.priority.client, waiting)
        self._is_stopping |= waiting.priority.lane is Lane.STOP
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
        return waiting.priority.expires and self._sweeps - waiting.at >= self.longest_wait

    def _sweep(self) -> None:
        """Refuse the jobs that have waited too long, and send waiting refusals. Repeat after `SWEEP_S` while there is
        work.
        """
        now = time.thread_time()
        self._sweeps += max(1, int((now - self._swept_at) / SWEEP_S))
        self._swept_at = now
        self._age = self._find_age()
        if self._age >= self.longest_wait:
            self._refused += [waiting.future for waiting in self._line.remove(self._is_too_old)]
            self._age = self._find_age()
        self._refusals_left = REFUSED_AT_ONCE
        while self._refused and self.take_refusal():
            self._refusals.append(self._refused.popleft())
        self._answer_soon()
        is_over = self._idle.is_set() and not self._refused
        self._sweeping = None if is_over else self._loop.call_later(SWEEP_S, self._sweep)

    def _find_age(self) -> int:
        """Return the age of the oldest waiting job that can expire, in sweeps (one each `SWEEP_S` seconds); 0 if there
        is none.
        """
        return self._sweeps - min((one.at for one in self._line if one.priority.expires), default=self._sweeps)

    @property
    def busy_s(self) -> float:
        """Return for how many seconds the batch in progress has run; 0 if there is none."""
        return time.monotonic() - self._started if self._started else 0.0

    async def close(self) -> None:
        """Refuse new jobs, finish the jobs in the line, and stop the writer."""
        self._closed = True
        await self._idle.wait()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for refused in (*self._refused, *self._refusals):
            refused.cancel()
        self._thread.shutdown()
        self._connection.close()
        self.reserve.close()

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
        """Run one slice of the batch on the event loop. When the batch is complete, commit it."""
        self._next_slice = None
        elsewhere_s = min(time.monotonic() - batch.ran_at, LONGEST_SLICE_S) if batch.ran_at else 0.0
        batch.left_s = max(batch.left_s, elsewhere_s)
        if self._run(batch, slice_s=max(SLICE_S, elsewhere_s), is_cut=self.has_arrival):
            self._next_slice = self._loop.call_soon(self._go_on, batch), batch
        else:
            self._in_thread(self._commit, batch, then=self._end)

    def _in_thread(self, work: Callable[[_Batch], None], batch: _Batch, *, then: Callable[[_Batch], None]) -> None:
        """Run `work` with the batch in the writer's thread, then `then` with the batch in the next round of the event
        loop. A future of the event loop would take two rounds.
        """

        def run() -> None:
            try:
                work(batch)
            except BaseException as error:  # noqa: BLE001 as above
                batch.error = batch.error or error
            self._loop.call_soon_threadsafe(then, batch)

        self._thread.submit(run)

    def _do_all(self, batch: _Batch) -> None:
        self._begin(batch)
        self._run(batch, slice_s=LONGEST_BATCH_S)
        self._commit(batch)

    def _begin(self, batch: _Batch) -> None:
        try:
            self._connection.begin(write=True)
        except BaseException as error:  # noqa: BLE001 as above
            batch.error = error

    def _run(self, batch: _Batch, *, slice_s: float, is_cut: Callable[[], bool] = lambda: False) -> bool:
        """Run waiting jobs in the open transaction for at most `slice_s` seconds, or until `is_cut` returns true.
        Return whether the batch needs another slice.
        """
        try:
            if batch.error is None:
                tx = batch.tx = batch.tx or self._new_tx(batch)
                began = now = time.monotonic()
                until = began + min(slice_s, batch.left_s)
                while (waiting := self._line.pop(batch.last)) is not None:
                    batch.waiting.append(waiting)
                    batch.empty_rounds = 0
                    if waiting.priority.lane is Lane.STOP:
                        batch.last = Lane.STOP
                    batch.results.append(result := waiting.job(tx))
                    if isinstance(result, Raised):
                        _check_storage(result)
                        result.drop_frames()
                    # after the job, so that each slice runs at least one job, however late this thread got the
                    # processor
                    now = time.monotonic()
                    if now >= until or is_cut():
                        break
                batch.ran_at, batch.left_s = now, batch.left_s - (now - began)
                if batch.left_s > 0 and (self._line.has(batch.last) or self._waits_for_jobs(batch, now)):
                    return True
                tx.finish()
                batch.topics, batch.head = tx.topics, tx.head
        except BaseException as error:  # noqa: BLE001 as above
            batch.error = error
        if batch.tx is not None:
            batch.tx.opened.clear()
        if batch.error is not None and not batch.waiting:  # the transaction did not begin
            batch.waiting = self._line.remove(lambda _: True)
        return False

    def _waits_for_jobs(self, batch: _Batch, now: float) -> bool:
        """Return whether a batch without further jobs waits for another round of the event loop: requests that arrive
        meanwhile share its commit.
        """
        if self._begin_now is None or batch.last is Lane.STOP or now - self._started > LONGEST_WAIT_S:
            return False
        batch.empty_rounds += 1
        return batch.empty_rounds <= EMPTY_ROUNDS

    def _new_tx(self, batch: _Batch) -> Tx:
        if self._losses != self._connection.losses:  # the new connection may lead to another server with an older state
            self._known, self._losses = QueryCache(), self._connection.losses
            self._pin.require_check()
        if not self._connection.is_alone():
            self._known.clear()
        if not self.is_full and self._connection.lacks_reserve() and not self.reserve.defect:
            batch.is_retried = True
            raise DiskFull
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
        """Commit the transaction durably, unless the batch has failed, and then pin the ledger's head, before any
        response.
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
        for undo in batch.tx.undone if batch.tx is not None else ():
            undo()
        if is_disk_full(batch.error):
            batch.is_retried = batch.is_retried or self._release_reserve()
            batch.error = DiskFull(has_reserve=batch.is_retried)
            # Objects of packages contain the proofs that this batch has used; the second run uses the proofs again.
            self._known = QueryCache()

    def _release_reserve(self) -> bool:
        """Free a part of the reserve. Return whether there was one."""
        try:
            return self.reserve.release()
        except Refused as refusal:
            log.warning("the reserve of the disk cannot be used: %s", refusal)
            return False

    def _commit_or_find_outcome(self) -> None:
        """Commit. If the answer of the database is lost, determine whether the commit took place. Raises if it did not,
        or if that is unknown.
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
        """Call the listeners, then answer the requests of the batch: those of the lane `STOP` immediately, the others
        over several rounds of the event loop. The next batch begins after that, so that it has many jobs, or
        immediately if jobs have waited too long.
        """
        error = batch.error
        self._started, self.commits = 0.0, error is None
        if isinstance(error, DiskFull):
            self._make_room(batch)
        self._is_stopping = self._line.has(Lane.STOP)
        try:
            if error is None and batch.topics:
                for listener in self.listeners:
                    listener(batch.topics)
        finally:
            results = batch.results if error is None else [Raised(error)] * len(batch.waiting)
            for waiting, result in zip(batch.waiting, results, strict=True):
                # further writes of this request depend on the committed act, and must not be refused
                waiting.priority.expires = False
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
        refused, answered = ANSWERED_AT_ONCE, max(ANSWERED_AT_ONCE, done // ANSWERED_PART)
        if self._is_stopping:
            refused = answered = ANSWERED_DURING_STOP
        for _ in range(min(done, answered)):
            _answer(*self._outcomes.popleft())
        for _ in range(min(len(self._refusals), refused)):
            _answer(self._refusals.popleft(), Raised(Busy()))
        if self._is_between and not self._outcomes:
            self._begin_next()
        self._is_answering = bool(self._outcomes or self._refusals)
        if self._is_answering:
            self._loop.call_soon(self._answer_some)

    def _make_room(self, batch: _Batch) -> None:
        """After a batch that failed because the disk is full, let only jobs run that may use the reserve."""
        self.is_full = True
        batch.waiting += self._line.remove(lambda waiting: not waiting.priority.uses_reserve)
        if batch.is_retried:
            for waiting in batch.waiting:
                if waiting.priority.uses_reserve:
                    self._line.push(waiting.priority.lane, waiting.priority.client, waiting)
            batch.waiting = [waiting for waiting in batch.waiting if not waiting.priority.uses_reserve]
