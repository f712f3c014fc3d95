"""The writer: one commit for many jobs, each isolated by its savepoint, in one order on either database."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from harness.clock import Clock, SeededRandom
from harness.patience import PATIENCE_S, eventually_async
from ostiary.protocol.errors import Conflict, Invalid, Refused
from ostiaryd.ground.database import Reader, Sql, Tx, query_cache, sql
from ostiaryd.ground.database.line import Lane, Priority, priority
from ostiaryd.ground.database.writer import (
    ANSWERED_AT_ONCE,
    ANSWERED_DURING_STOP,
    ANSWERED_PART,
    SLICE_S,
    SWEEP_S,
    Busy,
    Raised,
    Writer,
    isolated,
)
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World, open_world

if TYPE_CHECKING:
    from tests.support.world import Kind, Template

PUT = sql("insert into setting (name, value) values (:name, :value)")
BROKEN = sql("select 1 / (select count(*) from nothing_of_that_name)")
STEADY = sql("select value from setting where name = :name", steady=True)
LASTING = sql("select value from setting where name = :name", lasting=True)
UPSERT = sql(
    """insert into setting (name, value) values (:name, :value)
       on conflict (name) do update set value = excluded.value"""
)
STEADY_ALL = sql("select name, value from setting where name like 'test %'", steady=True)
CHANGE = sql("update setting set value = :value where name = :name")
GET = sql("select value from setting where name = :name")
GET_KEYED = sql("select value from setting where name = :name", keys="name")
PUT_KEYED = sql("insert into setting (name, value) values (:name, :value)", keys="name")
CHANGE_KEYED = sql("update setting set value = :value where name = :name", keys="name")
NAMES = sql("select name from setting where name like 'test%' order by name")
COUNT = sql("select count(*) from setting where name like 'test%'")


def put(name: str) -> Callable[[Tx], str]:
    def job(tx: Tx) -> str:
        tx.run(PUT, name=name, value="1")
        return name

    return job


def emit(body: bytes) -> Callable[[Tx], None]:
    return lambda tx: outbox.emit(tx, "feed", body)


async def test_an_acknowledged_write_is_stored(world: World) -> None:
    assert await world.writer.submit(put("test a")) == "test a"
    assert world.db.read().one(GET, name="test a") == ("1",)


async def test_waiting_jobs_share_transactions(world: World) -> None:
    def instant(tx: Tx) -> tuple[int, int]:
        return id(tx), tx.now

    results = await asyncio.gather(*[world.writer.submit(instant) for _ in range(200)])
    assert len(set(results)) < 200


@pytest.mark.parametrize(("longest_s", "batches"), [(-1.0, 5), (0.0, 5), (3600.0, 1)])
async def test_a_batch_runs_at_least_one_job_at_any_time_limit(
    world: World, monkeypatch: pytest.MonkeyPatch, longest_s: float, batches: int
) -> None:
    seen, begun, new_tx = list[Tx](), count(1), Writer._new_tx

    def count_tx(writer: Writer, batch: Any) -> Tx:
        assert next(begun) <= 2 * (batches + 1), "batches without a job"
        return new_tx(writer, batch)

    monkeypatch.setattr(Writer, "_new_tx", count_tx)
    monkeypatch.setattr("ostiaryd.ground.database.writer.LONGEST_BATCH_S", longest_s)
    writer = Writer(
        world.db,
        now=world.now,
        random=world.random,
        keys=world.keys,
        reserve=world.writer.reserve,
        longest_wait_s=PATIENCE_S,
    )
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*[writer.submit(seen.append) for _ in range(5)])
        assert await writer.submit(put("test a")) == "test a"
    await writer.close()
    assert len({id(tx) for tx in seen}) == batches


@pytest.mark.parametrize("database", ["sqlite"])  # on PostgreSQL the jobs run in the thread of the writer
@pytest.mark.parametrize(("longest_s", "is_shared"), [(3600.0, True), (-1.0, False)])
async def test_a_request_that_is_read_after_the_last_job_shares_its_commit(
    world: World, monkeypatch: pytest.MonkeyPatch, longest_s: float, is_shared: bool
) -> None:
    monkeypatch.setattr("ostiaryd.ground.database.writer.LONGEST_WAIT_S", longest_s)
    loop, seen, requests = asyncio.get_running_loop(), list[Tx](), list[asyncio.Task[None]]()

    async def request() -> None:
        await world.writer.submit(seen.append)

    def read_request() -> None:
        requests.append(loop.create_task(request()))

    def first(tx: Tx) -> None:
        seen.append(tx)
        loop.call_soon(read_request)

    await world.writer.submit(first)
    await asyncio.gather(*requests)
    assert (seen[0] is seen[1]) is is_shared


async def test_a_batch_ends_while_requests_keep_arriving(world: World) -> None:
    loop, answered = asyncio.get_running_loop(), asyncio.Event()
    requests = list[asyncio.Task[None]]()

    def read_request() -> None:
        assert len(requests) < 1000, "the first request is not answered"
        requests.append(loop.create_task(request()))
        time.sleep(0.001)  # longer than the job takes

    async def request() -> None:
        if not answered.is_set():
            read_request()
        await world.writer.submit(lambda tx: None)
        answered.set()

    async with asyncio.timeout(PATIENCE_S):
        await request()
        await asyncio.gather(*requests)
    assert answered.is_set()


def submit_as(world: World, mine: Priority, job: Callable[[Tx], object]) -> Awaitable[object]:
    token = priority.set(mine)
    try:
        return world.writer.submit(job)
    finally:
        priority.reset(token)


def stops() -> Priority:
    return Priority(("operator", ""), lane=Lane.STOP)


async def test_a_stop_overtakes_waiting_jobs_and_ends_the_batch(world: World) -> None:
    """A stop runs before all waiting jobs, and no waiting job runs before the commit of the stop."""
    ran: list[tuple[str, Tx]] = []

    def job(name: str) -> Callable[[Tx], None]:
        return lambda tx: ran.append((name, tx))

    def interrupting(tx: Tx) -> None:
        ran.append(("first", tx))
        loop.call_soon_threadsafe(revoke)
        time.sleep(0.01)  # longer than a slice, and on PostgreSQL the loop turns meanwhile

    def revoke() -> None:
        revoked.append(submit_as(world, stops(), job("revoke")))

    loop, revoked = asyncio.get_running_loop(), list[Awaitable[object]]()
    waiting = [world.writer.submit(interrupting), *(world.writer.submit(job("grant")) for _ in range(500))]
    await asyncio.gather(*waiting)
    await revoked[0]
    names = [name for name, _ in ran]
    assert names[:3] == ["first", "revoke", "grant"]
    assert ran[1][1] is ran[0][1] is not ran[2][1], "the stop is in the batch in progress, and ends it"


@pytest.mark.parametrize("database", ["sqlite"])  # on PostgreSQL the jobs run in the thread of the writer
async def test_a_stop_does_not_wait_for_a_slice_of_the_batch_in_progress(world: World) -> None:
    ran, begun = list[str](), asyncio.Event()

    def grant(tx: Tx) -> None:
        ran.append("grant")
        begun.set()
        time.sleep(SLICE_S)

    waiting = [world.writer.submit(grant) for _ in range(4)]
    await begun.wait()
    before = len(ran)
    stopped = submit_as(world, stops(), lambda tx: ran.append("stop"))
    assert ran[before:] == ["stop"], "in the same turn of the event loop"
    await stopped
    assert len(ran) == before + 1, "and nothing else before its commit"
    await asyncio.gather(*waiting)
    assert ran[before + 1 :] == ["grant"] * (4 - before)


@pytest.mark.parametrize("database", ["sqlite"])  # on PostgreSQL the jobs run in the thread of the writer
async def test_a_slice_ends_after_the_job_during_which_an_administrator_sent_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, loop, unread, sent = list[str](), asyncio.get_running_loop(), list[str](), list[Awaitable[object]]()

    def read() -> None:
        unread.clear()
        sent.append(submit_as(world, stops(), lambda tx: ran.append("stop")))

    def grant(tx: Tx) -> None:
        if not ran:  # the event loop reads in its next round what arrives now
            unread.append("stop")
            loop.call_soon(read)
        ran.append("grant")

    monkeypatch.setattr(world.writer, "has_arrival", lambda: bool(unread))
    monkeypatch.setattr("ostiaryd.ground.database.writer.LONGEST_SLICE_S", 3600.0)
    monkeypatch.setattr("ostiaryd.ground.database.writer.SLICE_S", 3600.0)
    await asyncio.gather(*(world.writer.submit(grant) for _ in range(8)))
    await sent[0]
    assert ran == ["grant", "stop", *["grant"] * 7]


@pytest.mark.parametrize("database", ["sqlite"])  # on PostgreSQL the jobs run in the thread of the writer
async def test_a_stop_is_answered_in_the_round_after_its_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, commit, order = asyncio.get_running_loop(), world.writer._commit, list[str]()

    def mark() -> None:
        order.append("committed")
        world.writer._thread.submit(list).result(PATIENCE_S)  # the thread has told the event loop
        loop.call_soon(order.append, "next round")

    def end(batch: Any) -> None:
        order.append("ended")
        Writer._end(world.writer, batch)

    def commit_and_mark(batch: Any) -> None:
        commit(batch)
        loop.call_soon_threadsafe(mark)

    monkeypatch.setattr(world.writer, "_commit", commit_and_mark)
    monkeypatch.setattr(world.writer, "_end", end)
    await submit_as(world, stops(), lambda tx: None)
    assert order[:2] == ["committed", "ended"], "no round of the event loop is between them"


async def test_a_stop_and_the_listeners_are_notified_before_the_other_jobs_of_a_batch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are answered some in each round of the event loop."""
    monkeypatch.setattr("ostiaryd.ground.database.writer.LONGEST_BATCH_S", 3600.0)
    told = list[str]()
    world.writer.listeners.append(lambda topics: told.append("feed"))
    count = ANSWERED_PART * ANSWERED_AT_ONCE + ANSWERED_PART
    grants = [asyncio.ensure_future(world.writer.submit(put(f"test {number}"))) for number in range(count)]

    def note(name: str) -> Callable[[object], None]:
        return lambda _: told.append(name)

    for grant in grants:
        grant.add_done_callback(note("grant"))

    def interrupt(tx: Tx) -> None:
        loop.call_soon_threadsafe(revoke)
        time.sleep(PATIENCE_S / 1000)

    def revoke() -> None:
        stopped.append(asyncio.ensure_future(submit_as(world, stops(), emit(b"revoked"))))
        stopped[0].add_done_callback(note("stop"))

    loop, stopped = asyncio.get_running_loop(), list[asyncio.Future[Any]]()
    rounds = list[int]()
    later = [world.writer.submit(interrupt), world.writer.submit(put("test of the next batch"))]
    while told.count("grant") < count:
        before = told.count("grant")
        await asyncio.sleep(0)
        if told.count("grant") > before:
            rounds.append(told.count("grant") - before)
    assert rounds[:3] == [ANSWERED_AT_ONCE + 1, ANSWERED_AT_ONCE, ANSWERED_AT_ONCE]
    assert sum(rounds) == count
    await asyncio.gather(*later)
    assert told.index("feed") < told.index("stop") < told.index("grant")


async def test_a_bounded_number_of_refusals_is_sent_in_the_rounds_of_a_stop(world: World) -> None:
    refused = [world.writer._hold_refusal() for _ in range(3 * ANSWERED_AT_ONCE)]
    stop = asyncio.ensure_future(submit_as(world, stops(), emit(b"revoked")))
    world.writer._sweep()
    assert answered(refused) == ANSWERED_DURING_STOP
    while not stop.done():
        before = answered(refused)
        await asyncio.sleep(0)
        if not stop.done():
            assert answered(refused) - before <= ANSWERED_DURING_STOP
    await asyncio.wait(refused)
    later = [world.writer._hold_refusal() for _ in range(ANSWERED_AT_ONCE)]
    world.writer._sweep()
    assert answered(later) == ANSWERED_AT_ONCE
    assert all(isinstance(one.exception(), Busy) for one in (*refused, *later))


def answered(futures: list[asyncio.Future[Any]]) -> int:
    return sum(future.done() for future in futures)


async def test_a_bounded_number_of_refusals_is_sent_in_each_round_of_the_event_loop(world: World) -> None:
    refused = [world.writer._hold_refusal() for _ in range(2 * ANSWERED_AT_ONCE + 1)]
    world.writer._sweep()
    rounds = [answered(refused)]
    while not refused[-1].done():
        await asyncio.sleep(0)
        rounds.append(answered(refused))
    assert rounds == [ANSWERED_AT_ONCE, 2 * ANSWERED_AT_ONCE, 2 * ANSWERED_AT_ONCE + 1]
    assert all(isinstance(one.exception(), Busy) for one in refused)


async def test_a_refusal_is_freed_without_a_search_for_cycles(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search takes long in a flood, and delays what stops something."""
    await eventually_async(lambda: world.writer._sweeping is None)  # no sweep is left from the start of the world
    monkeypatch.setattr("ostiaryd.ground.database.writer.CROWDED_PART", 0)
    monkeypatch.setattr("ostiaryd.ground.database.writer.SWEEP_S", 2 * PATIENCE_S)  # only this test sweeps
    alive = weakref.WeakSet[BaseException]()

    def refuse(tx: Tx) -> None:
        try:
            raise Conflict("an earlier one")
        except Conflict as earlier:
            raise Invalid("no") from earlier

    async def ask(submit: Callable[[], Awaitable[object]]) -> None:
        try:
            await submit()
        except Refused as refusal:
            alive.add(refusal)

    gc.collect()
    gc.disable()
    try:
        await asyncio.gather(*[ask(lambda: world.writer.submit(isolated(refuse))) for _ in range(20)])
        busy = [asyncio.create_task(ask(lambda: world.writer.admit(("a", "")))) for _ in range(20)]
        waiting = submit_as(world, Priority(("a", ""), expires=True), lambda tx: None)
        await eventually_async(lambda: len(world.writer._refused) == 20)
        monkeypatch.undo()
        world.writer._sweep()
        await asyncio.gather(waiting, *busy)
        del busy
        assert not [type(refusal) for refusal in alive]
    finally:
        gc.enable()


async def test_a_job_does_not_wait_for_the_queue_of_another_client(world: World) -> None:
    order: list[str] = []
    greedy = [
        submit_as(world, Priority(("net", "greedy"), expires=True), lambda tx: order.append("greedy"))
        for _ in range(300)
    ]
    other = submit_as(world, Priority(("net", "other"), expires=True), lambda tx: order.append("other"))
    await asyncio.gather(*greedy, other)
    assert order.index("other") == 1


async def test_a_client_with_a_waiting_job_is_refused_while_the_line_is_crowded(world: World) -> None:
    """A client without a waiting job is admitted."""
    blocked, free = threading.Event(), threading.Event()
    commit = world.writer._connection.commit

    def hangs() -> None:
        blocked.set()
        free.wait(PATIENCE_S)
        commit()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.writer._connection, "commit", hangs, raising=False)
        patch.setattr(world.writer, "longest_wait", 10)
        held = world.writer.submit(put("test block"))
        await asyncio.to_thread(blocked.wait, PATIENCE_S)
        waiting = submit_as(world, Priority(("a", ""), expires=True), lambda tx: None)
        await world.writer.admit(("a", ""))
        try:
            await eventually_async(lambda: world.writer.is_crowded)
            with pytest.raises(Busy):
                await world.writer.admit(("a", ""))
            await world.writer.admit(("b", ""))
        finally:
            free.set()
        await asyncio.gather(held, waiting)
    assert not world.writer.is_crowded
    await world.writer.admit(("a", ""))


async def test_a_sweep_allows_a_limited_number_of_immediate_refusals(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.ground.database.writer.REFUSED_AT_ONCE", 2)
    monkeypatch.setattr("ostiaryd.ground.database.writer.CROWDED_PART", 0)
    await world.writer.submit(put("test first"))
    world.writer._sweep()
    waiting = submit_as(world, Priority(("a", ""), expires=True), lambda tx: None)
    assert world.writer.is_refused(("a", ""))
    assert not world.writer.is_refused(("b", ""))
    assert [world.writer.take_refusal() for _ in range(3)] == [True, True, False]
    world.writer._sweep()
    assert world.writer.take_refusal()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_round_of_the_event_loop_counts_sweeps_by_its_processor_time(world: World) -> None:
    submitted = submit_as(world, Priority(("a", "")), lambda tx: None)
    before = world.writer._sweeps
    until = time.thread_time() + 4.5 * SWEEP_S
    while time.thread_time() < until:
        pass
    world.writer._sweep()
    assert world.writer._sweeps - before in (4, 5)
    world.writer._sweep()
    assert world.writer._sweeps - before in (5, 6), "one at least"
    await submitted


async def test_a_job_that_waits_too_long_is_refused_and_does_not_run(world: World) -> None:
    """The refusal comes also while a commit hangs; a job without an expiry keeps waiting."""
    ran: list[str] = []
    blocked, free = threading.Event(), threading.Event()

    def block(tx: Tx) -> None:
        tx.run(PUT, name="test block", value="1")

    commit = world.writer._connection.commit

    def hangs() -> None:
        blocked.set()
        free.wait(PATIENCE_S)
        free.set()
        commit()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.writer._connection, "commit", hangs, raising=False)
        patch.setattr(world.writer, "longest_wait", 2)
        held = world.writer.submit(block)
        await asyncio.to_thread(blocked.wait, PATIENCE_S)
        old = submit_as(world, Priority(("a", ""), expires=True), lambda tx: ran.append("old"))
        patient = submit_as(world, Priority(("a", "")), lambda tx: ran.append("patient"))
        try:
            with pytest.raises(Busy):
                await old
        finally:
            free.set()
        await asyncio.gather(held, patient)
    assert ran == ["patient"]


@pytest.mark.parametrize("wait_ms", [100, 500])
async def test_the_setting_queue_wait_ms_limits_how_long_a_request_waits(
    template: Callable[[Kind], Template], tmp_path: Path, clock: Clock, dice: SeededRandom, wait_ms: int
) -> None:
    """A job is not refused a sweep before the time of the setting."""
    blocked, free = threading.Event(), threading.Event()

    with template("sqlite").copy(tmp_path / "data") as config:
        config = msgspec.structs.replace(config, queue_wait_ms=wait_ms)
        async with open_world(config, now=clock, random=dice) as world:
            writer, commit = world.writer, world.writer._connection.commit

            def hangs() -> None:
                blocked.set()
                free.wait(PATIENCE_S)
                commit()

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("ostiaryd.ground.database.writer.SWEEP_S", 2 * PATIENCE_S)  # only this test sweeps
                await eventually_async(lambda: writer._sweeping is None)
                patch.setattr(writer._connection, "commit", hangs, raising=False)
                held = writer.submit(put("test block"))
                await asyncio.to_thread(blocked.wait, PATIENCE_S)
                waiting = submit_as(world, Priority(("a", ""), expires=True), lambda tx: None)
                try:
                    for _ in range(wait_ms // 50 - 1):
                        writer._sweep()
                    assert writer.waiting == 1
                    writer._sweep()
                    assert writer.waiting == 0
                    with pytest.raises(Busy):
                        await waiting
                finally:
                    free.set()
                await held


async def test_a_refused_job_is_rolled_back_and_the_other_jobs_of_its_batch_stand(world: World) -> None:
    def refused(tx: Tx) -> Raised:
        try:
            with tx.savepoint():
                tx.run(PUT, name="test bad", value="1")
                raise Conflict("no")
        except Conflict as error:
            return Raised(error)

    results = await asyncio.gather(
        world.writer.submit(put("test 1")),
        world.writer.submit(refused),
        world.writer.submit(put("test 2")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [str, Conflict, str]
    assert world.db.read().one(COUNT) == (2,)


async def test_a_database_error_in_a_savepoint_does_not_end_the_job(world: World) -> None:
    def twice(tx: Tx) -> str:
        tx.run(PUT, name="test x", value="1")
        with pytest.raises(Exception, match="(?i)unique"), tx.savepoint():
            tx.run(PUT, name="test x", value="2")
        return "went on"

    assert await world.writer.submit(twice) == "went on"
    assert world.db.read().one(GET, name="test x") == ("1",)


async def test_a_job_that_raises_outside_of_a_savepoint_rolls_its_batch_back(world: World) -> None:
    def broken(tx: Tx) -> None:
        tx.run(PUT, name="test broken", value="1")
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        await world.writer.submit(broken)
    assert world.db.read().one(COUNT) == (0,)
    assert await world.writer.submit(put("test after")) == "test after"


async def test_deferred_work_runs_once_per_commit_with_all_values(world: World) -> None:
    seen: list[list[int]] = []

    def gather(tx: Tx, values: list[int]) -> None:
        seen.append(list(values))

    def job(number: int) -> Callable[[Tx], None]:
        return lambda tx: tx.defer(gather, number)

    await asyncio.gather(*[world.writer.submit(job(number)) for number in range(50)])
    assert sorted(number for batch in seen for number in batch) == list(range(50))
    assert len(seen) < 50


async def test_outbox_numbers_follow_the_commits_and_wake_listeners(world: World) -> None:
    heard: list[set[str]] = []
    world.writer.listeners.append(heard.append)
    for number in range(3):
        await world.writer.submit(emit(b"%d" % number))
    reader = world.db.read()
    assert [(seq, body) for seq, _, body in outbox.messages_after(reader, "feed", 0)] == [
        (1, b"0"),
        (2, b"1"),
        (3, b"2"),
    ]
    assert [seq for seq, _, _ in outbox.messages_after(reader, "feed", 2)] == [3]
    assert outbox.messages_after(reader, "feed", 3) == []
    assert heard == [{"feed"}] * 3


async def test_a_message_that_is_rolled_back_is_not_delivered(world: World) -> None:
    heard: list[set[str]] = []
    world.writer.listeners.append(heard.append)

    def refused(tx: Tx) -> Raised:
        try:
            with tx.savepoint():
                outbox.emit(tx, "feed", b"ghost")
                raise Conflict("no")
        except Conflict as error:
            return Raised(error)

    with pytest.raises(Conflict):
        await world.writer.submit(refused)
    assert heard == []
    assert outbox.highest_number(world.db.read()) == 0


async def test_pruning_keeps_the_newest_message_so_that_numbers_do_not_repeat(world: World, clock: Clock) -> None:
    for number in range(3):
        await world.writer.submit(emit(b"%d" % number))
        clock.advance(seconds=1)
    second = clock.now - 2_000_000
    assert await world.writer.submit(lambda tx: outbox.prune(tx, "feed", before=second)) == 1
    assert await world.writer.submit(lambda tx: outbox.prune(tx, "feed", before=tx.now + 1)) == 1
    await world.writer.submit(lambda tx: outbox.emit(tx, "feed", b"3"))
    assert [seq for seq, _, _ in outbox.messages_after(world.db.read(), "feed", 0)] == [3, 4]


async def test_queued_jobs_run_before_the_writer_closes(world: World) -> None:
    waiting = [world.writer.submit(put(f"test {number}")) for number in range(20)]
    await world.writer.close()
    assert await asyncio.gather(*waiting) == [f"test {number}" for number in range(20)]
    with pytest.raises(RuntimeError, match="closed"):
        world.writer.submit(put("late"))


async def test_deferred_rows_are_written_before_the_next_read(world: World) -> None:
    def job(tx: Tx) -> list[object]:
        tx.late(PUT, ("test late", "1"))
        return [tx.one(GET, name="test late"), tx.one(COUNT)]

    assert await world.writer.submit(job) == [("1",), (1,)]
    await world.writer.submit(lambda tx: tx.late(PUT, ("test later", "2")))
    assert world.db.read().one(GET, name="test later") == ("2",)


async def test_a_deferred_row_is_written_before_a_read_of_its_key_but_not_of_another_key(world: World) -> None:
    def job(tx: Tx) -> list[object]:
        tx.run(PUT, name="test kept", value="1")
        seen: list[object] = [tx.one(GET_KEYED, name="test kept")]
        tx.late(PUT_KEYED, ("test keyed", "1"))
        seen += [tx.one(GET_KEYED, name="test other"), len(tx._late.rows)]
        seen += [tx.one(GET_KEYED, name="test keyed"), len(tx._late.rows)]
        tx.late(CHANGE_KEYED, ("2", "test keyed"))
        seen += [tx.one(GET_KEYED, name="test keyed"), tx.one(GET_KEYED, name="test keyed")]
        tx.late(PUT_KEYED, ("test second", "1"))
        seen += [tx.one(COUNT), len(tx._late.rows)]  # a read that names no key
        tx.late(PUT_KEYED, ("test third", "1"))
        tx.late(PUT, ("test fourth", "1"))  # of which the key is not known
        seen += [tx.one(GET_KEYED, name="test fourth"), len(tx._late.rows)]
        tx.late(PUT_KEYED, ("test fifth", "1"))
        seen += [tx.run(PUT, name="test sixth", value="1"), len(tx._late.rows)]  # the order of writes stays
        return seen

    assert await world.writer.submit(job) == [
        *[("1",)],
        *[None, 1],
        *[("1",), 0],
        *[("2",), ("2",)],
        *[(3,), 0],
        *[("1",), 0],
        *[1, 0],
    ]


async def test_a_refused_job_loses_its_deferred_change(world: World) -> None:
    def change(name: str, *, fails: bool) -> Callable[[Tx], Raised | None]:
        def job(tx: Tx) -> None:
            assert tx.one(GET_KEYED, name=name) == ("1",)
            tx.late(CHANGE_KEYED, ("2", name))
            if fails:
                raise Conflict("no")

        return isolated(job)

    names = [f"test {number}" for number in range(4)]
    await asyncio.gather(*(world.writer.submit(put(name)) for name in names))
    changes = (world.writer.submit(change(name, fails=number % 2 == 1)) for number, name in enumerate(names))
    results = await asyncio.gather(*changes, return_exceptions=True)
    assert [isinstance(result, Conflict) for result in results] == [False, True, False, True]
    assert [world.db.read().one(GET, name=name) for name in names] == [("2",), ("1",), ("2",), ("1",)]


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("writes", [False, True])
async def test_a_refused_job_loses_only_its_own_deferred_rows(world: World, looks: bool, writes: bool) -> None:
    def late(name: str, *, fails: bool) -> Callable[[Tx], str | Raised]:
        def job(tx: Tx) -> str:
            tx.late(PUT, (name, "1"))
            if writes:
                tx.run(PUT, name=f"{name} too", value="1")
            if looks:
                assert tx.one(GET, name=name) == ("1",)
            if fails:
                raise Conflict("no")
            return name

        return isolated(job)

    results = await asyncio.gather(
        world.writer.submit(late("test 1", fails=False)),
        world.writer.submit(late("test 2", fails=True)),
        world.writer.submit(late("test 3", fails=False)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [str, Conflict, str]
    written = [(name,) for name in ("test 1", "test 1 too", "test 3", "test 3 too") if writes or "too" not in name]
    assert world.db.read().all(NAMES) == written


async def test_an_inner_savepoint_rolls_back_alone(world: World) -> None:
    def inner(tx: Tx) -> None:
        tx.late(PUT, ("test inner late", "1"))
        tx.run(PUT, name="test inner", value="1")
        raise Conflict("no")

    def outer(tx: Tx) -> None:
        tx.late(PUT, ("test outer late", "1"))
        assert isinstance(isolated(inner)(tx), Raised)
        tx.run(PUT, name="test outer", value="1")

    await world.writer.submit(isolated(outer))
    assert world.db.read().all(NAMES) == [("test outer",), ("test outer late",)]


async def test_deferred_work_of_a_refused_job_still_runs(world: World) -> None:
    def write(tx: Tx, names: list[str]) -> None:
        for name in names:
            tx.run(PUT, name=name, value="1")

    def refused(tx: Tx) -> None:
        tx.defer(write, "test spent")
        raise Conflict("no")

    with pytest.raises(Conflict):
        await world.writer.submit(isolated(refused))
    assert world.db.read().one(GET, name="test spent") == ("1",)


async def test_a_singleton_of_the_writer_survives_the_failure_of_its_batch(world: World) -> None:
    def fail(tx: Tx) -> None:
        tx.get_singleton(list[str]).append("kept")
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        await world.writer.submit(fail)
    assert await world.writer.submit(lambda tx: tx.get_singleton(list[str])) == ["kept"]


async def test_a_deferred_row_that_fails_fails_its_batch(world: World) -> None:
    await world.writer.submit(put("test twice"))
    answers = await asyncio.gather(
        world.writer.submit(isolated(lambda tx: tx.late(PUT, ("test twice", "2")))),
        world.writer.submit(put("test beside")),
        return_exceptions=True,
    )
    assert all(isinstance(answer, Exception) for answer in answers)
    assert world.db.read().one(COUNT) == (1,)


async def test_a_failed_statement_aborts_the_transaction_on_postgresql_alone(world: World, database: str) -> None:
    def swallow(tx: Tx) -> str:
        tx.run(PUT, name="test", value="1")
        with suppress(Exception):
            tx.one(BROKEN)
        return "fine"

    if database == "sqlite":  # where a transaction goes on after an error
        assert await world.writer.submit(swallow) == "fine"
    else:
        with pytest.raises(Exception, match="transaction is aborted"):
            await world.writer.submit(swallow)
    assert world.db.read().all(NAMES) == ([("test",)] if database == "sqlite" else [])


async def test_a_steady_query_is_cached_until_its_table_is_written(world: World) -> None:
    await world.writer.submit(put("test steady"))

    def job(tx: Tx) -> list[object]:
        seen: list[object] = [tx.one(STEADY, name="test steady")]
        tx._connection.execute(CHANGE, {"name": "test steady", "value": "behind its back"})
        seen.append(tx.one(STEADY, name="test steady"))
        tx.run(CHANGE, name="test steady", value="2")
        seen.append(tx.one(STEADY, name="test steady"))
        assert isinstance(isolated(change_and_refuse)(tx), Raised)
        seen.append(tx.one(STEADY, name="test steady"))
        seen.append(tx.one(STEADY, name="test soon"))
        tx.late(PUT, ("test soon", "3"))
        seen.append(tx.one(STEADY, name="test soon"))
        return seen

    def change_and_refuse(tx: Tx) -> None:
        tx.run(CHANGE, name="test steady", value="undone")
        assert tx.one(STEADY, name="test steady") == ("undone",)
        raise Conflict("no")

    assert await world.writer.submit(job) == [("1",), ("1",), ("2",), ("2",), None, ("3",)]


async def test_a_lasting_result_stays_cached_while_rows_are_only_added(world: World) -> None:
    def job(tx: Tx) -> list[object]:
        seen: list[object] = [tx.one(LASTING, name="test lasts")]
        tx.run(PUT, name="test lasts", value="1")
        seen.append(tx.one(LASTING, name="test lasts"))  # that there was none is not remembered
        tx._connection.execute(CHANGE, {"name": "test lasts", "value": "behind its back"})
        tx.late(PUT, ("test other", "1"))
        seen.append(tx.one(LASTING, name="test lasts"))
        assert len(tx._late.rows) == 1, "nobody looked at the table"
        tx.run(CHANGE, name="test other", value="2")
        seen.append(tx.one(LASTING, name="test lasts"))
        tx.run(UPSERT, name="test lasts", value="3")
        seen.append(tx.one(LASTING, name="test lasts"))
        assert isinstance(isolated(change_and_refuse)(tx), Raised)
        seen.append(tx.one(LASTING, name="test lasts"))
        return seen

    def change_and_refuse(tx: Tx) -> None:
        tx.run(CHANGE, name="test lasts", value="undone")
        assert tx.one(LASTING, name="test lasts") == ("undone",)
        raise Conflict("no")

    assert await world.writer.submit(job) == [None, ("1",), ("1",), ("behind its back",), ("3",), ("3",)]


async def test_a_lasting_result_stays_cached_while_rows_are_pruned(world: World) -> None:
    prune = sql("delete from setting where name = :name", prunes=True)

    def job(tx: Tx) -> list[object]:
        for name in ("test lasts", "test over"):
            tx.run(PUT, name=name, value="1")
        seen: list[object] = [tx.one(STEADY, name="test over"), tx.one(LASTING, name="test over")]
        tx.run(prune, name="test over")
        return [*seen, tx.one(STEADY, name="test over"), tx.one(LASTING, name="test over")]

    assert await world.writer.submit(job) == [("1",), ("1",), None, ("1",)]


def test_a_statement_is_classified_as_writing_or_adding_by_its_text() -> None:
    recursive = "with recursive a (id) as (select 1 union select id + 1 from a) "
    told = {
        text: (one := sql(text)) and (one.writes, one.adds)
        for text in (
            "select 1 from a",
            recursive + "select id from a",
            recursive + "update b set c = 1",
            "begin",
            "insert into a values (1)",
            "insert into a values (1) on conflict (b) do update set c = 1",
            "delete from a",
        )
    }
    assert list(told.values()) == [
        (False, False),
        (False, False),
        (True, False),
        (True, False),
        (True, True),
        (True, False),
        (True, False),
    ]


async def test_a_steady_result_stays_cached_across_batches(world: World) -> None:
    """Until its table is written, by an act or by another process, or a batch is undone."""
    await world.writer.submit(put("test kept"))
    reads = 0

    def look(tx: Tx) -> object:
        nonlocal reads
        before = tx._connection.execute

        def execute(statement: Sql, params: dict[str, object]) -> object:
            nonlocal reads
            reads += 1
            return before(statement, params)

        tx._connection.execute = execute  # type: ignore[method-assign]
        try:
            return tx.one(STEADY, name="test kept"), tx.all(STEADY_ALL)
        finally:
            tx._connection.execute = before  # type: ignore[method-assign]

    async def again() -> int:
        nonlocal reads
        reads = 0
        assert await world.writer.submit(look) == ((value,), [("test kept", value)])
        return reads

    def fail(tx: Tx) -> None:
        tx.run(CHANGE, name="test kept", value="of a batch that fails")
        assert tx.one(STEADY, name="test kept") == ("of a batch that fails",)
        raise ArithmeticError

    value = "1"
    assert [await again(), await again()] == [2, 0]
    await world.writer.submit(lambda tx: tx.run(CHANGE, name="test kept", value="2"))
    value = "2"
    assert [await again(), await again()] == [2, 0]
    with pytest.raises(ArithmeticError):
        await world.writer.submit(fail)
    assert [await again(), await again()] == [2, 0]
    theirs = world.db.connect()
    theirs.begin(write=True)
    theirs.execute(CHANGE, {"name": "test kept", "value": "3"})
    theirs.commit()
    value = "3"
    assert [await again(), await again()] == [2, 0]
    theirs.close()


async def test_the_number_of_cached_results_of_a_statement_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_cache, "MAX_KNOWN", 3)

    def look(tx: Tx) -> list[int]:
        sizes = []
        for number in range(5):
            assert tx.one(STEADY, name=f"test {number}") is None
            sizes.append(sum(map(len, tx._known.results.values())))
        return sizes

    await world.writer.submit(put("test forget"))
    assert await world.writer.submit(look) == [1, 2, 3, 1, 2]


async def test_the_size_of_the_cached_results_of_a_statement_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_cache, "MAX_BYTES", 33)  # an empty result counts as one byte, beside its parameters

    def look(tx: Tx, *sizes: int) -> list[int]:
        known = []
        for number, size in enumerate(sizes):
            tx.one(STEADY, name=f"{number}".ljust(size, "x"))
            known.append(sum(map(len, tx._known.results.values())))
        return known

    await world.writer.submit(put("test forget"))
    assert await world.writer.submit(lambda tx: look(tx, 10, 10, 10, 1, 30, 32, 33)) == [1, 2, 3, 1, 2, 1, 1]
    await world.writer.submit(put("y"))
    found = {"y": "1"}

    def read(tx: Tx) -> int:
        for name in ("y", "z".ljust(30, "z")):
            assert tx.one(STEADY, name=name) == ((found[name],) if name in found else None)
        return sum(map(len, tx._known.results.values()))

    assert await world.writer.submit(read) == 1, "the row of the first counts too"


async def test_a_reader_sees_each_commit_in_the_result_of_a_steady_query(world: World) -> None:
    await world.writer.submit(put("test seen"))
    reader = world.db.read()
    assert reader.one(STEADY, name="test seen") == ("1",)
    assert reader.one(STEADY, name="test unseen") is None
    await world.writer.submit(lambda tx: tx.run(CHANGE, name="test seen", value="2"))
    await world.writer.submit(put("test unseen"))
    assert reader.one(STEADY, name="test seen") == ("2",)
    assert reader.one(STEADY, name="test unseen") == ("1",)


async def test_a_steady_query_is_read_again_after_a_commit_of_another_process(world: World) -> None:
    await world.writer.submit(put("test theirs"))
    reader = world.db.read()
    assert reader.one(STEADY, name="test theirs") == ("1",)
    theirs = world.db.connect()
    theirs.begin(write=True)
    theirs.execute(CHANGE, {"name": "test theirs", "value": "2"})
    theirs.commit()
    theirs.close()
    assert reader.one(STEADY, name="test theirs") == ("2",)


async def test_a_scan_does_not_cache_results_of_its_snapshot(world: World) -> None:
    await world.writer.submit(put("test scanned"))
    begun, may_end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def scan(reader: Reader) -> tuple[object, object]:
        before = reader.one(GET, name="test scanned")
        loop.call_soon_threadsafe(begun.set)
        assert may_end.wait(PATIENCE_S)
        return before, reader.one(STEADY, name="test scanned")

    scanning = asyncio.ensure_future(world.db.scan(scan))
    await begun.wait()
    await world.writer.submit(lambda tx: tx.run(CHANGE, name="test scanned", value="2"))
    may_end.set()
    await scanning
    assert await world.db.scan(lambda reader: reader.one(STEADY, name="test scanned")) == ("2",)


async def test_a_write_of_another_process_delays_the_writer_but_not_the_event_loop(world: World) -> None:
    theirs = world.db.connect()
    theirs.begin(write=True)
    theirs.execute(COUNT, {})
    waiting = asyncio.ensure_future(world.writer.submit(put("test held up")))
    ticks = 0
    for _ in range(20):
        await asyncio.wait_for(asyncio.sleep(0.005), 1)
        ticks += 1
    assert (ticks, waiting.done()) == (20, False)
    theirs.rollback()
    theirs.close()
    assert await asyncio.wait_for(waiting, PATIENCE_S) == "test held up"
    assert world.db.read().one(GET, name="test held up") == ("1",)


async def test_a_database_that_cannot_be_written_refuses_each_waiting_job(world: World) -> None:
    world.writer._connection.close()
    answers = await asyncio.gather(*[world.writer.submit(put(f"test {n}")) for n in range(3)], return_exceptions=True)
    assert [isinstance(answer, Exception) for answer in answers] == [True] * 3
