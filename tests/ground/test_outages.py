"""PostgreSQL lost, silent or frozen: calls fail at once with `DatabaseUnavailable`, and work again by themselves.

An acknowledged write is stored. A refused write is not stored, or its error states that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec
import psycopg
import pytest

from harness.clock import Clock, SeededRandom
from harness.patience import PATIENCE_S
from harness.registry_fixtures import agent_caller, call_admin_api, create_holding, register_agent
from harness.tcp_proxy import Proxy
from ostiary.protocol.errors import Unavailable
from ostiaryd.app import build_app
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Database, DatabaseUnavailable, OutcomeUnknown, Reader, Tx, sql
from ostiaryd.ground.database.line import overtaking
from ostiaryd.ground.database.postgres import PostgresConnection
from ostiaryd.ground.http.health import Health
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import act
from tests.support.api_fixtures import Client, register, send
from tests.support.trust_fixtures import API, proof_of

PUT = sql("insert into setting (name, value) values (:name, '1')")
NAMES = sql("select name from setting where name like 'test%' order by name")
ASK = sql("select 1")
SLOW = sql("select pg_sleep(60)")
TIMEOUT_MS = 500
LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE of a statement that gave up waiting for a lock."""


@pytest.fixture
def database() -> str:
    return "postgres"


@pytest.fixture
def proxy(config: Config) -> Iterator[Proxy]:
    proxy = Proxy(config.database_url)
    yield proxy
    proxy.close()


@pytest.fixture
def proxied(config: Config, proxy: Proxy) -> Config:
    return msgspec.structs.replace(config, database=proxy.url, database_timeout_ms=TIMEOUT_MS)


@pytest.fixture
async def world(proxied: Config, clock: Clock, dice: SeededRandom) -> AsyncIterator[World]:
    async with open_world(proxied, now=clock, random=dice) as world:
        yield world


def put(name: str) -> Callable[[Tx], str]:
    def job(tx: Tx) -> str:
        tx.run(PUT, name=name)
        return name

    return job


async def until(is_so: Callable[[], object]) -> None:
    while not is_so():  # noqa: ASYNC110 because another thread changes it
        await asyncio.sleep(0.01)


async def until_up(world: World) -> None:
    await until(lambda: world.db.is_up)


def lose(world: World, proxy: Proxy) -> None:
    """Cut every connection, and notice it."""
    world.db.read()
    proxy.cut()
    with pytest.raises(DatabaseUnavailable):
        world.db.read().one(ASK)


async def retried(world: World, name: str) -> int:
    """Write `name`, again after each refusal that says that nothing was changed; how many refusals there were."""
    refusals = 0
    while True:
        try:
            await world.writer.submit(put(name))
        except OutcomeUnknown:
            raise
        except DatabaseUnavailable:
            refusals += 1
            await asyncio.sleep(0.01)
        else:
            return refusals


def names(world: World) -> list[str]:
    return [name for (name,) in world.db.read().all(NAMES)]


@pytest.mark.parametrize("which", ["writer", "reader", "scanner", "all"])
async def test_a_terminated_connection_is_replaced(world: World, config: Config, which: str) -> None:
    async def pid(of: str) -> list[int]:
        ask = sql("select pg_backend_pid()")
        found = {
            "writer": await world.writer.submit(lambda tx: tx.one(ask)),
            "reader": world.db.read().one(ask),
            "scanner": await world.db.scan(lambda reader: reader.one(ask)),
        }
        return [row[0] for name, row in found.items() if row is not None and of in (name, "all")]

    with psycopg.connect(config.database_url, autocommit=True) as operator:
        for each in await pid(which):
            operator.execute("select pg_terminate_backend(%s, 10000)", (each,))
    assert await retried(world, "test after") <= 1_000
    with_retries = 0
    while with_retries < 1_000:
        try:
            assert names(world) == ["test after"]
            assert await world.db.scan(lambda reader: reader.all(NAMES)) == [("test after",)]
            break
        except DatabaseUnavailable:
            with_retries += 1
            await asyncio.sleep(0.01)
    assert with_retries < 1_000


async def test_a_write_whose_connection_is_lost_before_the_commit_is_not_stored(world: World, proxy: Proxy) -> None:
    def cut(tx: Tx, values: list[None]) -> None:
        proxy.on_piece = lambda is_request, piece: False

    def job(tx: Tx) -> None:
        tx.run(PUT, name="test lost")
        tx.defer(cut, None)

    waiting = asyncio.ensure_future(world.writer.submit(job))
    await until(lambda: not world.db.is_up)
    proxy.on_piece = lambda is_request, piece: True
    with pytest.raises(DatabaseUnavailable) as refused:
        await waiting
    assert not isinstance(refused.value, OutcomeUnknown)
    assert await retried(world, "test lost") >= 0
    assert names(world) == ["test lost"]


async def test_a_commit_whose_response_is_lost_is_looked_up_and_acknowledged(world: World, proxy: Proxy) -> None:
    cuts: list[bytes] = []

    def drop_the_answer(is_request: bool, piece: bytes) -> bool:
        if is_request or cuts or b"COMMIT\0" not in piece:
            return True
        cuts.append(piece)
        return False

    await world.writer.submit(put("test before"))
    proxy.on_piece = drop_the_answer
    assert await world.writer.submit(put("test unanswered")) == "test unanswered"
    assert len(cuts) == 1
    await until_up(world)
    assert names(world) == ["test before", "test unanswered"]


async def test_a_commit_that_cannot_be_looked_up_has_an_unknown_outcome(world: World, proxy: Proxy) -> None:
    def cut_for_good(is_request: bool, piece: bytes) -> bool:
        if is_request or b"COMMIT\0" not in piece:
            return True
        proxy.refuses = True
        return False

    proxy.on_piece = cut_for_good
    with pytest.raises(OutcomeUnknown):
        await world.writer.submit(put("test unknown"))
    with pytest.raises(DatabaseUnavailable):
        await world.writer.submit(put("test refused"))
    proxy.refuses, proxy.on_piece = False, lambda is_request, piece: True
    await until_up(world)
    assert names(world) == ["test unknown"]


async def test_the_cache_of_the_writer_is_dropped_with_its_connection(world: World, proxy: Proxy) -> None:
    """The database that answers after the loss can be an older replica."""
    await world.writer.submit(lambda tx: tx.get_singleton(list[str]).append("kept"))
    lose(world, proxy)
    await until_up(world)
    assert await world.writer.submit(lambda tx: list(tx.get_singleton(list[str]))) == []


async def test_reads_and_writes_are_refused_after_a_loss_until_every_check_has_passed(
    proxied: Config, proxy: Proxy, clock: Clock, dice: SeededRandom
) -> None:
    may_pass, calls = threading.Event(), list[object]()

    def check(reader: Reader) -> None:
        calls.append(reader.one(ASK))
        if len(calls) == 1:
            raise ArithmeticError("a check that fails is tried again")
        assert may_pass.wait(PATIENCE_S)

    async with open_world(proxied, now=clock, random=dice) as world:
        world.db.check_after_loss(check)
        lose(world, proxy)
        await until(lambda: len(calls) == 2)
        with pytest.raises(DatabaseUnavailable):
            world.db.read().one(ASK)
        with pytest.raises(DatabaseUnavailable):
            await world.db.scan(lambda reader: reader.one(ASK))
        with pytest.raises(DatabaseUnavailable):
            await world.writer.submit(put("test early"))
        may_pass.set()
        await until_up(world)
        assert calls[:2] == [(1,), (1,)]
        assert names(world) == []


async def test_calls_are_refused_while_the_database_is_silent_and_work_again_afterwards(
    world: World, proxy: Proxy
) -> None:
    """If the database is silent, the event loop waits for one timeout; then each call is refused without a wait."""
    health = world.get_singleton(Health)
    assert health.checks.keys() >= {"database", "writer", "keys"}
    assert not any(check() for check in health.checks.values())
    assert world.db.read().one(ASK) == (1,)
    waiting = [asyncio.ensure_future(world.writer.submit(put(f"test {n}"))) for n in range(3)]
    await asyncio.gather(*waiting)
    proxy.stalls = True
    with pytest.raises(DatabaseUnavailable):
        world.db.read().one(ASK)
    assert health.checks["database"]() != ""
    refused = 0
    for _ in range(1_000):
        with pytest.raises(Unavailable):
            world.db.read().one(ASK)
        with pytest.raises(Unavailable):
            await world.writer.submit(put("test later"))
        refused += 1
    assert refused == 1_000
    proxy.stalls = False
    await until_up(world)
    await retried(world, "test later")
    assert names(world) == ["test 0", "test 1", "test 2", "test later"]


async def test_a_waiting_scan_fails_when_the_database_becomes_silent(world: World, proxy: Proxy) -> None:
    scanning = asyncio.ensure_future(world.db.scan(lambda reader: reader.all(SLOW)))
    await asyncio.sleep(0.1)
    proxy.stalls = True
    with pytest.raises(DatabaseUnavailable):
        await scanning
    proxy.stalls = False


async def test_a_statement_that_takes_too_long_is_refused_and_the_database_stays_up(world: World) -> None:
    with pytest.raises(DatabaseUnavailable, match="57014"):
        await world.writer.submit(lambda tx: tx.one(SLOW))
    assert world.db.is_up
    assert await world.writer.submit(put("test next")) == "test next"


async def test_a_statement_that_takes_too_long_refuses_all_acts_of_its_batch(
    world: World,
) -> None:
    """A reading statement has no savepoint of its own: its failure ends the transaction of the batch."""
    both = asyncio.gather(
        act(world, "test.other", lambda a: put("test other")(a.tx)),
        act(world, "test.slow", lambda a: a.tx.one(SLOW)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in await both] == [DatabaseUnavailable, DatabaseUnavailable]
    assert world.db.is_up
    assert names(world) == []
    await act(world, "test.other", lambda a: put("test other")(a.tx))
    assert names(world) == ["test other"]


async def test_acts_that_wait_for_a_foreign_lock_are_refused_and_a_stop_overtakes(world: World, config: Config) -> None:
    with psycopg.connect(config.database_url) as other:
        other.execute("lock table person in share mode")
        blocked = [
            asyncio.ensure_future(world.writer.submit(lambda tx: tx.run(sql("delete from person")))) for _ in range(3)
        ]
        await until(lambda: world.writer.busy_s)
        with overtaking():
            stop = world.writer.submit(put("test stop"))
        assert await stop == "test stop"
        for refused in await asyncio.gather(*blocked, return_exceptions=True):
            assert isinstance(refused, DatabaseUnavailable)
            assert LOCK_NOT_AVAILABLE in refused.message_with_detail
        assert names(world) == ["test stop"]
    assert await world.writer.submit(lambda tx: tx.run(sql("delete from person"))) >= 0


async def test_a_read_of_a_locked_table_is_refused_and_the_database_stays_up(world: World, config: Config) -> None:
    losses = world.writer._connection.losses
    with psycopg.connect(config.database_url) as other:
        other.execute("lock table person in access exclusive mode")
        with pytest.raises(DatabaseUnavailable, match=LOCK_NOT_AVAILABLE):
            world.db.read().all(sql("select * from person"))
        with pytest.raises(DatabaseUnavailable, match=LOCK_NOT_AVAILABLE):
            await world.db.scan(lambda reader: reader.all(sql("select * from person")))
        assert names(world) == []
    assert world.db.is_up
    assert world.writer._connection.losses == losses
    world.db.read().all(sql("select * from person"))


async def test_a_frozen_server_with_the_lock_delays_another_server_for_a_bounded_time(
    world: World, proxied: Config
) -> None:
    frozen = Database(proxied.database_url, timeout_s=TIMEOUT_MS / 1000)
    theirs = frozen.connect()
    theirs.begin(write=True)
    theirs.execute(PUT, {"name": "test frozen"})
    assert await world.writer.submit(put("test ours")) == "test ours"
    with pytest.raises(DatabaseUnavailable):
        theirs.commit()
    theirs.rollback()
    theirs.close()
    frozen.close()
    assert names(world) == ["test ours"]


async def test_a_world_closes_while_the_database_is_silent(
    proxied: Config, proxy: Proxy, clock: Clock, dice: SeededRandom
) -> None:
    async with open_world(proxied, now=clock, random=dice) as world:
        await world.writer.submit(put("test"))
        proxy.stalls = True
        scanning = asyncio.ensure_future(world.db.scan(lambda reader: reader.one(ASK)))
        writing = asyncio.ensure_future(world.writer.submit(put("test more")))
    assert [type(each) for each in await asyncio.gather(scanning, writing, return_exceptions=True)] == [
        DatabaseUnavailable,
        DatabaseUnavailable,
    ]
    proxy.stalls = False


async def test_a_batch_costs_two_round_trips_for_any_number_of_acts(world: World) -> None:
    """Begin, lock, the newest commit and the head of the ledger; then entries, the new head and the commit."""
    connection = world.writer._connection
    assert isinstance(connection, PostgresConnection)
    counts = []
    for acts in (1, 1, 20):
        before = connection.round_trips
        await asyncio.gather(*(act(world, "test.note", lambda act: None) for _ in range(acts)))
        counts.append(connection.round_trips - before)
    assert counts[1:] == [2, 2]


@pytest.mark.parametrize("state", ["42501", "XX001", "XX002"])
async def test_a_table_that_postgresql_refuses_to_write_causes_503_for_its_acts_alone(
    world: World, config: Config, state: str
) -> None:
    """The role of the server loses a privilege, or a page is damaged."""
    agent, key = await register(world, name="chief", scopes=("ostiary:admin", "ostiary:read"))
    chief = Client(build_app(world), world, agent.agent_id, key)
    await chief.ask()
    access_token = (await chief.token(resource=API))["access_token"]
    with psycopg.connect(config.database_url, autocommit=True) as operator:
        operator.execute(
            "create function refuse() returns trigger language plpgsql as "
            f"$$ begin raise exception using errcode = '{state}'; end $$; "
            "create trigger refused before insert on team for each row execute function refuse()"
        )
    statuses = []
    for path, name in (("/api/v1/teams", "a"), ("/api/v1/persons", "b"), ("/api/v1/teams", "c")):
        proof = proof_of(chief, access_token, path, method="POST")
        headers = [("authorization", f"DPoP {access_token}"), ("dpop", proof), ("content-type", "application/json")]
        body = json.dumps({"name": name}).encode()
        statuses.append((await send(chief.app, "POST", path, headers=headers, body=body)).status)
    assert statuses == [503, 201, 503]


@pytest.mark.parametrize("begins", [False, True], ids=["of a session", "of a transaction"])
async def test_an_idle_foreign_session_that_holds_the_lock_of_the_writer_is_ended(
    world: World, config: Config, begins: bool
) -> None:
    with psycopg.connect(config.database_url, autocommit=True) as foreign:
        if begins:
            foreign.execute("begin")
        lock = "pg_advisory_xact_lock" if begins else "pg_advisory_lock"
        foreign.execute(f"select {lock}({PostgresConnection.WRITER_LOCK})")
        with pytest.raises(DatabaseUnavailable):
            await world.writer.submit(put("test refused"))
        assert await world.writer.submit(put("test stopped")) == "test stopped"
        with pytest.raises(psycopg.OperationalError):
            foreign.execute("select 1")


async def test_a_busy_foreign_session_that_holds_the_lock_of_the_writer_is_not_ended(
    world: World, config: Config
) -> None:
    """For example the migration of another server, which takes long."""
    with psycopg.connect(config.database_url) as foreign:
        foreign.execute("select pg_advisory_xact_lock(%s)", (PostgresConnection.WRITER_LOCK,))
        work = asyncio.create_task(asyncio.to_thread(foreign.execute, "select pg_sleep(4)"))
        with pytest.raises(DatabaseUnavailable):
            await world.writer.submit(put("test refused"))
        await work
        foreign.rollback()
        assert await world.writer.submit(put("test later")) == "test later"


@pytest.mark.parametrize(("kind", "count"), [("agent", 11), ("task", 8), ("token", 6)])
async def test_a_revocation_costs_a_bounded_number_of_round_trips(world: World, kind: str, count: int) -> None:
    """Statements whose result is not needed share a message with the next statement."""
    connection = world.writer._connection
    assert isinstance(connection, PostgresConnection)
    counts = []
    for name in ("first", "second"):
        bot = agent_caller(await register_agent(world, name))
        _, task = await call_admin_api(world, "POST", "/tasks", {"purpose": "to sort"}, by=bot)
        await create_holding(world, bot.id, f"tok_{name}")
        ids = {"agent": name, "task": task["task_id"], "token": f"tok_{name}"}
        before = connection.round_trips
        status, _ = await call_admin_api(world, "POST", "/revoke", {"kind": kind, "id": ids[kind]})
        assert status == 200
        counts.append(connection.round_trips - before)
    assert counts[1] <= count


async def test_a_revocation_with_authentication_costs_a_bounded_number_of_round_trips(world: World) -> None:
    """Over HTTP, of an agent with a token and a task: reads that do not depend on each other share a message, and so do
    the updates that end holdings.
    """
    writer, loop = world.writer._connection, world.db.read()._connection
    assert isinstance(writer, PostgresConnection)
    assert isinstance(loop, PostgresConnection)
    agent, key = await register(world, name="chief", scopes=("ostiary:admin", "ostiary:read"))
    chief = Client(build_app(world), world, agent.agent_id, key)
    await chief.ask()
    access_token = (await chief.token(resource=API))["access_token"]
    counts = []
    for name in ("first", "second"):
        bot, bot_key = await register(world, name=name)
        await Client(chief.app, world, bot.agent_id, bot_key, chief.nonce).token(resource=API)
        await call_admin_api(world, "POST", "/tasks", {"purpose": "to sort"}, by=agent_caller(bot))
        proof = proof_of(chief, access_token, "/api/v1/revoke", method="POST")
        headers = [("authorization", f"DPoP {access_token}"), ("dpop", proof), ("content-type", "application/json")]
        before = writer.round_trips, loop.round_trips
        order = json.dumps({"kind": "agent", "id": name}).encode()
        answer = await send(chief.app, "POST", "/api/v1/revoke", headers=headers, body=order)
        assert answer.status == 200, answer.body
        counts.append((writer.round_trips - before[0], loop.round_trips - before[1]))
    assert counts[1][0] <= 14
    assert counts[1][1] <= 3
