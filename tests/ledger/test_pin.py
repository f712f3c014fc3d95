"""The writer pins the head of each commit before it answers; a database without that head takes no more acts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from harness.clock import Clock, SeededRandom
from ostiary.protocol.checkpoint import open_checkpoint
from ostiary.protocol.merkle import EMPTY_ROOT
from ostiaryd.ground.config import Config
from ostiaryd.ground.database import Sql, sql
from ostiaryd.ground.database.pin import Head, HistoryLost, InRecovery, read_pin
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger import store
from ostiaryd.ledger.flows import act
from tests.support.pin_fixtures import add, rewind, saved

HISTORY = sql("select id from log_history where ended_at is null")


def present(world: World) -> Head:
    """The head as the database has it."""
    reader = world.db.read()
    frontier, _ = store.get_head(reader)
    row = reader.one(HISTORY)
    assert row is not None
    return Head(store.get_log_key(reader, world.keys).public, row[0], frontier.size, frontier.root())


async def test_the_head_is_pinned_before_an_act_is_acknowledged(world: World, config: Config) -> None:
    for _ in range(3):
        await add(world)
        assert read_pin(config.folder) == present(world)
    refused = store.get_head(world.db.read())[0].size
    with pytest.raises(ZeroDivisionError):
        await act(world, "test.fails", lambda act: 1 // 0)
    pinned = read_pin(config.folder)
    assert pinned == present(world)
    assert pinned is not None
    assert pinned.size == refused + 1


async def test_the_checkpoint_contains_the_history_id(world: World) -> None:
    await add(world)
    key = store.get_log_key(world.db.read(), world.keys)
    checkpoint = open_checkpoint(store.get_head(world.db.read())[1].encode(), [key], origin=key.name)
    assert checkpoint.history == present(world).history
    assert len(checkpoint.history) == 32


async def test_a_running_server_whose_database_was_rolled_back_refuses_further_acts(
    world: World, config: Config
) -> None:
    await add(world, 3)
    older = saved(world)
    await add(world, 2)
    pinned = read_pin(config.folder)
    await rewind(world, older)
    with pytest.raises(HistoryLost):
        await add(world)
    assert saved(world)[0] == older[0] + 1  # the entry of the loss alone
    assert read_pin(config.folder) == pinned
    with pytest.raises(InRecovery):
        await add(world)
    assert saved(world)[0] == older[0] + 1


@pytest.mark.parametrize("more", [0, 1, 2, 40])
async def test_a_restored_database_is_detected_at_the_next_start_despite_later_acts(
    config: Config, clock: Clock, more: int
) -> None:
    async with open_world(config, now=clock, random=SeededRandom("one")) as world:
        await add(world, 3)
        older = saved(world)
        await add(world, 2)
        pinned = read_pin(config.folder)
        await rewind(world, older)
    (config.folder / "ledger.pin").rename(config.folder / "kept.pin")  # a server with another folder went on
    async with open_world(config, now=clock, random=SeededRandom("two")) as world:
        clock.advance(1)
        await add(world, more)
    (config.folder / "kept.pin").rename(config.folder / "ledger.pin")
    async with open_world(config, now=clock, random=SeededRandom("three")) as world:
        with pytest.raises(HistoryLost):
            await add(world)
    assert read_pin(config.folder) == pinned


async def test_a_database_ahead_of_the_pin_is_accepted(config: Config, clock: Clock) -> None:
    """`kill -9` between the commit and the pin, or another server's commits."""
    async with open_world(config, now=clock, random=SeededRandom("one")) as world:
        await add(world, 3)
        kept = (config.folder / "ledger.pin").read_bytes()
        await add(world, 7)
    (config.folder / "ledger.pin").write_bytes(kept)
    async with open_world(config, now=clock, random=SeededRandom("two")) as world:
        await add(world)
        assert read_pin(config.folder) == present(world)


async def test_two_servers_with_one_database_work_with_separate_pins(config: Config, clock: Clock) -> None:
    async with (
        open_world(config, now=clock, random=SeededRandom("one")) as one,
        open_world(config, now=clock, random=SeededRandom("two")) as other,
    ):
        for _ in range(4):
            await add(one)
            await add(other, 2)
        await add(one)
        assert read_pin(config.folder) is not None
    async with open_world(config, now=clock, random=SeededRandom("three")) as world:
        await add(world)


async def test_the_pin_adds_no_statement_to_a_batch(
    world: World, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, ran = world.writer._connection, list[str]()

    def note(run: Callable[[Sql, dict[str, object]], object], statement: Sql, params: dict[str, object]) -> object:
        ran.append(statement.sqlite.split(" ")[0] + " " + " ".join(sorted(statement.tables)))
        return run(statement, params)

    await add(world)
    monkeypatch.setattr(connection, "execute", partial(note, connection.execute))
    monkeypatch.setattr(connection, "queue", partial(note, connection.queue))
    await add(world)
    assert [line for line in ran if "log_" in line] == ["select log_head log_history loss", "insert log_head set"]


async def test_a_log_without_entries_has_the_empty_root(world: World) -> None:
    assert present(world).root == EMPTY_ROOT
    assert read_pin(world.config.folder) is None
