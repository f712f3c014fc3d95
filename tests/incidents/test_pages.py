"""Pages of the SQLite database are checked, in bounded time at start; a defect stops everything."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.clock import Clock, SeededRandom
from harness.registry_fixtures import run_act
from ostiary.protocol.errors import Conflict, Unavailable
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world
from ostiaryd.incidents.flows import pages
from ostiaryd.incidents.flows.pages import Pages, check_pages, check_pages_at_start, check_pages_deeply, find_defects
from ostiaryd.registry import flows as registry
from tests.support.world import Kind, Template

PAGE = 4096


@pytest.fixture
def database() -> Kind:
    return "sqlite"


@pytest.fixture
def config(template: Callable[[Kind], Template], tmp_path: Path) -> Iterator[Config]:
    with template("sqlite").copy(tmp_path / "data") as config:
        yield config


def damage(db: Path, table: str) -> None:
    """Overwrite the root page of a table, while no server runs."""
    with sqlite3.connect(db) as raw:
        (page,) = raw.execute("select rootpage from sqlite_schema where name = ?", [table]).fetchone()
    raw.close()
    with db.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(b"\xff" * PAGE)


async def test_an_undamaged_database_is_reported_as_undamaged(world: World) -> None:
    assert world.get_singleton(Pages).describe() == "the pages are being checked"
    await check_pages_at_start(world)
    assert world.get_singleton(Pages).describe() == "no page is damaged"
    assert await check_pages_deeply(world) == "no page is damaged"
    assert registry.list_stops(world.db.read()) == []


@pytest.mark.parametrize("table", ["finding", "agent_raised", "webhook"])
async def test_a_damaged_page_is_found_at_start_and_stops_everything(
    config: Config, clock: Clock, dice: SeededRandom, table: str
) -> None:
    damage(config.folder / "ostiary.db", table)
    async with open_world(config, now=clock, random=dice) as world:
        await check_pages_at_start(world)
        with pytest.raises(Conflict) as refused:
            world.get_singleton(Pages).describe()
        assert refused.value.hint
        assert [(one.target_kind, one.value) for one in registry.list_stops(world.db.read())] == [("everything", "")]
        await run_act(world, lambda a: registry.create_person(a, name="ada"))  # what can still be done is done


def change_index(db: Path, index: str, *, was: bytes, to: bytes) -> None:
    """Change a key in the root page of an index, while no server runs: the page is well-formed as before."""
    with sqlite3.connect(db) as raw:
        (page,) = raw.execute("select rootpage from sqlite_schema where name = ?", [index]).fetchone()
        raw.execute("pragma wal_checkpoint(truncate)")
    raw.close()
    with db.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        before = file.read(PAGE)
        assert was in before
        file.seek((page - 1) * PAGE)
        file.write(before.replace(was, to))


async def test_an_index_that_differs_from_its_table_is_found_by_the_deep_check(
    config: Config, clock: Clock, dice: SeededRandom
) -> None:
    async with open_world(config, now=clock, random=dice) as world:
        await run_act(world, lambda a: registry.create_person(a, name="ada"), action="test.flipped")
    change_index(config.folder / "ostiary.db", "entry_action", was=b"test.flipped", to=b"test.flipqed")
    async with open_world(config, now=clock, random=dice) as world:
        await check_pages_at_start(world)
        assert world.get_singleton(Pages).describe() == "no page is damaged", "the quick check does not read indexes"
        with pytest.raises(Conflict, match="entry_action"):
            await check_pages_deeply(world)
        assert [one.target_kind for one in registry.list_stops(world.db.read())] == ["everything"]


async def test_a_damaged_database_that_cannot_store_the_stop_serves_no_read(
    config: Config, clock: Clock, dice: SeededRandom
) -> None:
    damage(config.folder / "ostiary.db", "stop")
    async with open_world(config, now=clock, random=dice) as world:
        await check_pages_at_start(world)
        with pytest.raises(Unavailable, match="damaged"):
            world.db.read()


async def test_a_page_check_that_takes_too_long_continues_in_the_background(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([None, ["a defect"]])
    monkeypatch.setattr(pages, "find_defects", lambda path, *, within_s, with_indexes: next(found))
    await check_pages_at_start(world)
    assert world.get_singleton(Pages).describe() == "the pages are being checked"
    await check_pages(world)
    with pytest.raises(Conflict, match="a defect"):
        world.get_singleton(Pages).describe()


def test_a_page_check_is_interrupted_at_its_time_limit(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "large.db"
    shutil.copy(config.folder / "ostiary.db", path)
    with sqlite3.connect(path) as raw:
        raw.execute("create table large (value blob)")
        raw.execute(
            "with recursive n (i) as (select 1 union all select i + 1 from n where i < 200000)"
            " insert into large select randomblob(300) from n"
        )
    raw.close()
    assert find_defects(path, within_s=0.0) is None
    assert find_defects(path) == []


async def test_a_page_check_is_repeated_after_a_day_or_after_a_request_met_damage(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Path] = []

    def check(path: Path, *, within_s: float | None, with_indexes: bool) -> list[str]:
        ran.append(path)
        return []

    monkeypatch.setattr(pages, "find_defects", check)
    for wound, count in ((0, 1), (pages.EVERY - 1, 1), (1, 2)):
        clock.advance(us=wound)
        await check_pages(world)
        assert len(ran) == count
    world.db.is_suspect = True
    await check_pages(world)
    await check_pages(world)
    assert len(ran) == 3
