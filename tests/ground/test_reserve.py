"""The reserve on the disk, and what the writer does when the database says that there is no room."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import resource
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harness.patience import eventually_async
from ostiary.protocol.errors import Conflict
from ostiaryd.app import build_app
from ostiaryd.certs.model.authority import AuthorityKind
from ostiaryd.certs.store import authorities
from ostiaryd.ground.database import Tx, sql
from ostiaryd.ground.database.line import Lane, Priority, overtaking, priority
from ostiaryd.ground.database.postgres import RESERVE_TABLE, RESERVE_TABLES, STEP_BYTES
from ostiaryd.ground.database.postgres_reserve import PostgresReserve
from ostiaryd.ground.database.reserve import LOW_BYTES, DiskFull, FileReserve, is_disk_full
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows.disk import examine_disk, watch_disk
from ostiaryd.ledger import store
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.notifications.model.webhooks import TITLES
from ostiaryd.trust.model import Spend
from ostiaryd.trust.store.proofs import is_spent, spend
from tests.support.api_fixtures import Answer, Client, register, send
from tests.support.trust_fixtures import API, proof_of

PUT = sql("insert into setting (name, value) values (:name, :value)")
COUNT = sql("select count(*) from setting where name like 'test%'")


def put(name: str, size: int = 10) -> Callable[[Tx], str]:
    def job(tx: Tx) -> str:
        tx.run(PUT, name=f"test {name}", value="x" * size)
        return name

    return job


def test_a_reserve_is_built_released_in_steps_and_built_again(tmp_path: Path) -> None:
    reserve = FileReserve(tmp_path)
    assert (reserve.size, reserve.release()) == (0, False)
    assert reserve.build()
    whole = reserve.size
    assert whole >= LOW_BYTES
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= whole, "the blocks are there"
    sizes = [whole]
    while reserve.release():
        sizes.append(reserve.size)
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) > 2
    assert sizes[-1] == 0
    assert reserve.build()
    assert reserve.size == whole
    assert not reserve.open_room(), "there is room on this disk"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "no space"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EIO, "input/output"), False),
        (ValueError("x"), False),
        (None, False),
    ],
)
def test_only_enospc_and_edquot_mean_a_full_disk(error: BaseException | None, expected: bool) -> None:
    assert is_disk_full(error) is expected


@pytest.fixture
def narrow(world: World) -> Callable[[int], None]:
    """Function that leaves so many pages to a SQLite database: SQLITE_FULL as a full disk gives it."""
    raw = getattr(world.writer._connection, "_raw", None)
    if not isinstance(raw, sqlite3.Connection):
        pytest.skip("PostgreSQL has no such limit: its error is mapped in the same place")

    def leave(pages: int) -> None:
        (count,) = raw.execute("pragma page_count").fetchone()
        raw.execute(f"pragma max_page_count={count + pages}")

    return leave


async def stop_in_two_runs(world: World, job: Callable[[Tx], object]) -> list[object]:
    """Run a stop whose first run needs more room than there is; check that it ran twice, and return both results."""
    results: list[object] = []

    def stop(tx: Tx) -> None:
        results.append(job(tx))
        if len(results) == 1:
            put("too big", 1 << 20)(tx)

    token = priority.set(Priority(("operator", ""), lane=Lane.STOP))
    await world.writer.submit(stop)
    priority.reset(token)
    assert len(results) == 2
    return results


@pytest.fixture
def limit_log(world: World) -> Iterator[Callable[[int], None]]:
    """Function that leaves so many bytes to the write-ahead log. SQLite then reports a failed write, as it does for
    every error but ENOSPC, among them EDQUOT: the disk has room, and this user has none.
    """
    log = world.config.folder / "ostiary.db-wal"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size + count, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("database", ["sqlite"])  # PostgreSQL reports the reason itself
async def test_a_stop_over_the_quota_of_the_user_runs_again_with_the_reserve(
    world: World, limit_log: Callable[[int], None]
) -> None:
    await world.writer.rebuild()
    limit_log(200_000)
    await stop_in_two_runs(world, put("stop"))
    with pytest.raises(DiskFull):
        await world.writer.submit(put("another"))
    limit_log(1 << 30)
    await world.writer.rebuild()
    assert await world.writer.submit(put("another")) == "another"
    assert world.db.read().one(COUNT) == (2,)


async def test_jobs_except_stops_are_refused_while_the_disk_is_full(
    world: World, narrow: Callable[[int], None]
) -> None:
    await world.writer.rebuild()
    narrow(0)
    with pytest.raises(DiskFull):
        await world.writer.submit(put("big", 1 << 20))
    assert world.writer.is_full
    with pytest.raises(DiskFull):
        await world.writer.submit(put("small"))
    token = priority.set(Priority(("operator", ""), lane=Lane.STOP))
    assert await world.writer.submit(put("stop")) == "stop"
    priority.reset(token)
    assert world.db.read().one(COUNT) == (1,)
    narrow(10_000)
    await world.writer.rebuild()
    assert await world.writer.submit(put("small")) == "small"


async def test_a_stop_on_a_full_disk_runs_again_with_the_reserve(world: World, narrow: Callable[[int], None]) -> None:
    """Its first run finds no room; the transaction is undone, a step of the reserve freed, and it runs once more."""
    await world.writer.rebuild()
    narrow(2)
    await stop_in_two_runs(world, put("stop"))
    assert world.writer.is_full
    assert world.db.read().one(COUNT) == (1,)


async def test_a_stop_that_runs_again_can_mark_its_proof_as_used_again(
    world: World, narrow: Callable[[int], None]
) -> None:
    await world.writer.rebuild()
    narrow(2)
    proof = Spend(b"digest", until=world.now() + 1, made=world.now())
    assert await stop_in_two_runs(world, lambda tx: spend(tx, proof)) == [True, True]
    assert is_spent(world.db.read(), proof.digest)


async def administrator(world: World) -> Client:
    agent, key = await register(world, name="chief", scopes=("ostiary:admin", "ostiary:read"))
    chief = Client(build_app(world), world, agent.agent_id, key)
    await chief.ask()
    return chief


async def headers_of(chief: Client, path: str) -> list[tuple[str, str]]:
    access_token = (await chief.token(resource=API))["access_token"]
    return [
        ("authorization", f"DPoP {access_token}"),
        ("dpop", proof_of(chief, access_token, path, method="POST")),
        ("content-type", "application/json"),
    ]


async def send_without_room(
    chief: Client, path: str, headers: list[tuple[str, str]], body: dict[str, str], *, job: int = 1
) -> Answer:
    """Send the request of a stop. Its job with this number needs more room in its first run than there is; check that
    this job ran twice.
    """
    ran, submitted, submit = list[object](), list[object](), type(chief.world.writer).submit

    def submit_twice(writer: Any, one: Callable[[Tx], object]) -> Any:
        def run(tx: Tx) -> object:
            ran.append(result := one(tx))
            if len(ran) == 1:
                put("too big", 1 << 20)(tx)
            return result

        submitted.append(one)
        return submit(writer, run if len(submitted) == job else one)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(chief.world.writer), "submit", submit_twice)
        answer = await send(chief.app, "POST", path, headers=headers, body=json.dumps(body).encode())
    assert len(ran) == 2
    return answer


async def test_the_request_of_a_stop_that_ran_again_cannot_be_repeated(
    world: World, narrow: Callable[[int], None]
) -> None:
    """The act marks the proof as used in both of its runs."""
    chief, path, order = await administrator(world), "/api/v1/revoke", {"kind": "agent", "id": "bot"}
    await register(world, name="bot")
    headers = await headers_of(chief, path)
    await world.writer.rebuild()
    narrow(8)
    assert (await send_without_room(chief, path, headers, order)).status == 200
    repeated = await send(chief.app, "POST", path, headers=headers, body=json.dumps(order).encode())
    assert (repeated.status, repeated.json.get("error")) == (401, "invalid_dpop_proof")


async def test_the_replacement_of_an_authority_succeeds_when_its_job_runs_again(
    world: World, narrow: Callable[[int], None]
) -> None:
    chief, path = await administrator(world), "/api/v1/authorities"
    assert (await send(chief.app, "POST", path, headers=await headers_of(chief, path), body=b"{}")).status == 201
    before = authorities.active(world.db.read(), AuthorityKind.INTERMEDIATE)
    assert before is not None
    path += f"/{before.authority_id}/revoke"
    headers = await headers_of(chief, path)
    await world.writer.rebuild()
    narrow(8)
    revoked = await send_without_room(chief, path, headers, {"reason": "keyCompromise"}, job=3)
    assert (revoked.status, revoked.json.get("state")) == (200, "revoked"), revoked.body
    after = authorities.active(world.db.read(), AuthorityKind.INTERMEDIATE)
    assert after is not None
    assert after.authority_id == revoked.json["replaced_by"]["authority_id"] != before.authority_id


async def test_a_stop_is_refused_when_the_reserve_is_used_up(world: World, narrow: Callable[[int], None]) -> None:
    narrow(0)
    token = priority.set(Priority(("operator", ""), lane=Lane.STOP))
    with pytest.raises(DiskFull, match="reads still work, stops do not"):
        await world.writer.submit(put("too big", 1 << 20))
    priority.reset(token)


def entries(world: World, action: str) -> list[Entry]:
    return [decode_entry(body) for _, body in store.search_entries(world.db.read(), {"action": action}, limit=10)]


FULL = sql("do $$ begin raise exception using errcode = '53100'; end $$")
"""Statement that fails as on a full disk of PostgreSQL."""


def stop_that_meets_a_full_disk(ran: list[int]) -> Callable[[Tx], str]:
    """Return a job that fails as on a full disk when it runs first. The job adds to `ran` at each run."""

    def stop(tx: Tx) -> str:
        ran.append(1)
        if len(ran) == 1:
            tx.run(FULL)
        return put("stop")(tx)

    return stop


def fill_disk(world: World) -> None:
    """Let PostgreSQL report a full disk to every table that is created, until `free_disk`."""
    reserve = world.writer.reserve
    assert isinstance(reserve, PostgresReserve)
    reserve._run(
        "create function fill() returns event_trigger language plpgsql as "
        "$$ begin raise exception using errcode = '53100'; end $$; "
        "create event trigger full_disk on ddl_command_end when tag in ('CREATE TABLE') execute function fill()"
    )


def free_disk(world: World) -> None:
    reserve = world.writer.reserve
    assert isinstance(reserve, PostgresReserve)
    reserve._run("drop event trigger full_disk")
    reserve._failed_at = float("-inf")  # the pause between two attempts is over


@pytest.mark.parametrize("database", ["postgres"])
async def test_the_reserve_of_postgresql_is_released_in_steps_and_built_again(world: World) -> None:
    await world.writer.rebuild()
    reserve = world.writer.reserve
    assert reserve.size >= RESERVE_TABLES * STEP_BYTES
    sizes = [reserve.size]
    while reserve.release():
        sizes.append(reserve.size)
    assert len(sizes) == RESERVE_TABLES + 1
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0
    await world.writer.rebuild()
    assert reserve.size == sizes[0]
    assert not world.writer.is_full


@pytest.mark.parametrize("database", ["postgres"])
async def test_a_stop_on_a_full_disk_of_postgresql_runs_again_with_the_reserve(world: World) -> None:
    await world.writer.rebuild()
    whole = world.writer.reserve.size
    fill_disk(world)
    ran: list[int] = []
    with overtaking():
        assert await world.writer.submit(stop_that_meets_a_full_disk(ran)) == "stop"
    assert len(ran) == 2
    assert world.writer.reserve.size == whole - STEP_BYTES
    await world.writer.rebuild()
    with pytest.raises(DiskFull):
        await world.writer.submit(put("another"))
    free_disk(world)
    await world.writer.rebuild()
    assert await world.writer.submit(put("another")) == "another"
    assert world.writer.reserve.size == whole


@pytest.mark.parametrize("database", ["postgres"])
async def test_a_stop_on_a_full_disk_ends_a_dump_that_locks_the_reserve(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The session of the dump is ended: the operator repeats the dump, and a stop cannot wait."""
    await world.writer.rebuild()
    whole = world.writer.reserve.size
    dump = psycopg.connect(world.config.database)
    for number in range(1, RESERVE_TABLES + 1):
        dump.execute(f"lock table {RESERVE_TABLE}{number} in access share mode")
    fill_disk(world)
    with overtaking(), caplog.at_level(logging.WARNING, logger="ostiary"):
        assert await world.writer.submit(stop_that_meets_a_full_disk([])) == "stop"
    assert world.writer.reserve.size == whole - STEP_BYTES
    assert "which locked disk_reserve_" in caplog.text
    with pytest.raises(psycopg.OperationalError):
        dump.execute("select 1")
    dump.close()


@pytest.mark.parametrize("database", ["postgres"])
async def test_a_release_of_the_reserve_by_another_server_counts_in_the_next_batch(world: World) -> None:
    """The reserve that one server frees for a stop is not used up by the ordinary acts of the others."""
    await world.writer.rebuild()
    assert await world.writer.submit(put("before")) == "before"
    other = PostgresReserve(world.db)
    assert other.release()
    other.close()
    with pytest.raises(DiskFull, match="acts that stop something, and reads, still work"):
        await world.writer.submit(put("after"))
    with overtaking():
        assert await world.writer.submit(put("stop")) == "stop"
    await world.writer.rebuild()
    assert await world.writer.submit(put("after")) == "after"


@pytest.mark.parametrize("database", ["postgres"])
async def test_a_server_that_starts_on_a_full_disk_of_postgresql_runs_only_stops(world: World) -> None:
    fill_disk(world)
    await world.writer.rebuild()
    with pytest.raises(DiskFull):
        await world.writer.submit(put("another"))
    with overtaking():
        assert await world.writer.submit(put("stop")) == "stop"


@pytest.mark.parametrize("database", ["postgres"])
async def test_the_doctor_reports_a_reserve_that_postgresql_refuses_and_acts_continue(world: World) -> None:
    reserve = world.writer.reserve
    assert isinstance(reserve, PostgresReserve)
    reserve._run(f"create view {RESERVE_TABLE}1 as select 1")
    await world.writer.rebuild()
    assert await world.writer.submit(put("another")) == "another"
    with pytest.raises(Conflict, match="refuses to create the reserve"):
        await examine_disk(world)


@pytest.mark.parametrize("database", ["postgres"])
async def test_acts_continue_while_the_server_retries_a_refused_reserve(world: World) -> None:
    await world.writer.rebuild()
    assert await world.writer.submit(put("before")) == "before"
    reserve = world.writer.reserve
    assert isinstance(reserve, PostgresReserve)
    assert reserve.release()
    reserve._run(
        "create function refuse() returns event_trigger language plpgsql as "
        "$$ begin perform pg_advisory_xact_lock(7); raise exception using errcode = '42501'; end $$; "
        "create event trigger refused on ddl_command_start when tag in ('CREATE TABLE') execute function refuse()"
    )
    await world.writer.rebuild()
    holder = reserve._connect()
    holder.run_text("select pg_advisory_lock(7)")
    attempt = asyncio.create_task(world.writer.rebuild())

    waiting = "select 1 from pg_locks where locktype = 'advisory' and objid = 7 and not granted"
    await eventually_async(lambda: holder.run_text(waiting).fetchone())
    assert await world.writer.submit(put("meanwhile")) == "meanwhile"
    holder.close()
    await attempt
    assert not world.writer.is_full


@pytest.mark.parametrize("database", ["postgres"])
async def test_a_full_disk_is_recorded_once_and_reported_by_the_doctor(world: World) -> None:
    await watch_disk(world)
    assert "MiB are reserved for stops" in await examine_disk(world)
    fill_disk(world)
    world.writer.reserve.release()
    for _ in range(3):
        await watch_disk(world)
    with pytest.raises(Conflict, match="the disk of the database is full"):
        await examine_disk(world)
    free_disk(world)
    await watch_disk(world)
    assert [len(entries(world, f"database.{state}")) for state in ("full", "has_space")] == [1, 1]
    assert entries(world, "database.full")[0].reasons[0].code == "disk_full"
    assert "database.full" in TITLES
    assert "MiB are reserved for stops" in await examine_disk(world)
