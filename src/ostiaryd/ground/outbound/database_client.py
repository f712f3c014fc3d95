"""A client of databases of the organisation. Each target has a pool with a limited number of connections, which are
used in threads.

The caller must check the address of the target.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ostiaryd.ground.outbound import mysql_driver, postgres_driver
from ostiaryd.ground.outbound.database_driver import DatabaseDown, DatabaseDriver, DatabaseKind, DatabaseTarget

T = TypeVar("T")
WAIT_S = 10.0
"""Maximum time that a job waits for a connection, in seconds."""
MAX_WAITING = 512
THREADS = 16
CHECK_AFTER_S, IDLE_S = 1.0, 60.0
"""Idle time after which a connection is checked before its use, and after which it is closed, in seconds."""
DRIVERS: Mapping[DatabaseKind, DatabaseDriver] = {"postgresql": postgres_driver, "mysql": mysql_driver}


class _Pool:
    """The connections to one target. `slots` limits the connections in use. Threads take idle connections and return
    them.
    """

    def __init__(self, target: DatabaseTarget) -> None:
        self.slots = asyncio.Semaphore(target.max_connections)
        self.waiting = self.in_use = 0
        self._idle: list[tuple[float, Any]] = []
        """Idle connections, each with the time of its last use, the oldest first."""
        self._mutex = threading.Lock()

    @property
    def is_unused(self) -> bool:
        """Return whether the pool can be deleted: no job uses it or waits for it, and no connection is open."""
        return not (self._idle or self.waiting or self.in_use)

    def take(self) -> tuple[float, Any] | None:
        """Remove and return the most recently used idle connection with the time of its last use; None if there is
        none.
        """
        with self._mutex:
            return self._idle.pop() if self._idle else None

    def give(self, raw: Any) -> None:
        """Put a connection back among the idle connections of the pool."""
        with self._mutex:
            self._idle.append((time.monotonic(), raw))

    def take_stale(self, before: float) -> list[Any]:
        """Remove and return the idle connections that were last used before `before` (monotonic clock, seconds)."""
        with self._mutex:
            stale = [raw for used_at, raw in self._idle if used_at < before]
            self._idle = self._idle[len(stale) :]
        return stale

    def release(self) -> None:
        """Free one slot, so that the next job can have a connection."""
        self.in_use -= 1
        self.slots.release()


class DatabaseClient:
    """The connection pools of this process to external databases, where the server creates accounts for agents. Call
    `run` on the event loop.
    """

    def __init__(self, _: object) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database-client")
        self._pools: dict[DatabaseTarget, _Pool] = {}

    async def run(self, target: DatabaseTarget, work: Callable[[Any], T], *, hidden: str = "") -> T:
        """Run `work` in a thread, in a transaction on a connection that no other job uses at the same time. Commit, and
        return the result.

        Errors of the driver never contain the text `hidden`. Raises DatabaseRefused if the server refuses a statement;
        DatabaseDown if the server cannot be reached, too many jobs wait for the target, or this job has waited for
        `WAIT_S`.
        """
        pool = self._pools.get(target)
        if pool is None:
            pool = self._pools[target] = _Pool(target)
        if pool.waiting >= MAX_WAITING:
            raise DatabaseDown(
                "too many requests wait for a connection to the external database", hint="try again in a moment"
            )
        pool.waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await pool.slots.acquire()
        except TimeoutError:
            raise DatabaseDown(
                f"no connection to the external database became free within {WAIT_S:g} s", hint="try again in a moment"
            ) from None
        finally:
            pool.waiting -= 1
        pool.in_use += 1
        job = asyncio.get_running_loop().run_in_executor(self._threads, _perform, pool, target, work, hidden)
        # a job continues to use its connection if its caller was cancelled
        job.add_done_callback(lambda _: pool.release())
        return await asyncio.shield(job)

    @property
    def targets(self) -> list[DatabaseTarget]:
        """Return the targets (server, database and user) for which a pool of connections exists."""
        return list(self._pools)

    async def close_idle(self, *, within_s: float = IDLE_S) -> None:
        """Close connections that were idle for `within_s` seconds. Delete pools without connections, so that their
        passwords are no longer in memory.
        """
        before = time.monotonic() - within_s
        for target, pool in list(self._pools.items()):
            for raw in pool.take_stale(before):
                await asyncio.get_running_loop().run_in_executor(self._threads, raw.close)
            if pool.is_unused and self._pools.get(target) is pool:
                del self._pools[target]

    async def close(self) -> None:
        """Wait for the jobs in progress, then close all connections."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        for pool in self._pools.values():
            for raw in pool.take_stale(math.inf):
                raw.close()


def _perform(pool: _Pool, target: DatabaseTarget, work: Callable[[Any], T], hidden: str) -> T:
    driver = DRIVERS[target.kind]
    raw = _take(pool, driver) or driver.connect(target)
    try:
        result = work(raw)
        raw.commit()
    except Exception as error:
        refusal = driver.explain(raw, error, hidden)
        if refusal is None or isinstance(refusal, DatabaseDown):
            raw.close()
        else:
            _give_back(pool, driver, raw)
        if refusal is None:
            raise
        raise refusal from None
    except BaseException:
        raw.close()
        raise
    _give_back(pool, driver, raw)
    return result


def _take(pool: _Pool, driver: DatabaseDriver) -> Any:
    """Return an idle connection that still works; None if there is none."""
    while (idle := pool.take()) is not None:
        used_at, raw = idle
        if time.monotonic() - used_at < CHECK_AFTER_S or driver.is_working(raw):
            return raw
        raw.close()
    return None


def _give_back(pool: _Pool, driver: DatabaseDriver, raw: Any) -> None:
    """Keep a connection for the next job, or close it if its transaction cannot be ended."""
    if driver.reset(raw):
        pool.give(raw)
    else:
        raw.close()
