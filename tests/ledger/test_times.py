"""Entries are found by time without an index: their times never decrease, so that bisection finds the place."""

from __future__ import annotations

from bisect import bisect_left
from random import Random

import pytest

from ostiaryd.ground.database import Tx, sql
from ostiaryd.ground.database.migrate import render, scripts
from ostiaryd.ground.world import World
from ostiaryd.ledger import store
from ostiaryd.ledger.model import Entry, decode_entry

SET_TIME = sql("update entry set at = :at where idx = :idx")
DROP_HEAD = sql("delete from log_head")


async def put_entries(world: World, times: list[int]) -> None:
    def run(tx: Tx) -> None:
        for at in times:
            tx.defer(store.append, Entry(at=at, action="test"))

    await world.writer.submit(run)


def times_of(world: World) -> list[int]:
    reader = world.db.read()
    return [decode_entry(body).at for body in store.list_entry_bodies(reader, 0, store.get_head(reader)[0].size)]


@pytest.mark.parametrize("count", [1, 2, 3, 64, 100])
async def test_a_search_by_time_finds_the_same_entries_as_a_scan(world: World, count: int) -> None:
    random = Random(count)
    start = world.now()
    await put_entries(world, sorted(start + random.randrange(count) for _ in range(count)))
    known, reader = times_of(world), world.db.read()
    assert known == sorted(known)
    for at in sorted({0, start, *known, *(at + 1 for at in known), *(at - 1 for at in known), 2**62}):
        place = bisect_left(known, at)
        assert store.find_first_since(reader, at) == (place if place < len(known) else None), at
        since = [index for index, _ in store.search_entries(reader, {"since": at, "after": -1}, limit=1000)]
        assert since == list(range(place, len(known)))
        until = [index for index, _ in store.search_entries(reader, {"until": at, "action": "test"}, limit=1000)]
        assert until == [index for index in reversed(range(place)) if index >= len(known) - count]


async def test_a_log_without_entries_has_no_first_entry_since_a_time(world: World) -> None:
    await world.writer.submit(lambda tx: tx.run(DROP_HEAD))
    assert store.find_first_since(world.db.read(), 0) is None


async def test_entries_of_earlier_versions_whose_times_decrease_are_found(world: World) -> None:
    start = world.now()
    await put_entries(world, [start + second for second in range(8)])
    first = len(times_of(world)) - 8
    stored = [start + second for second in (0, 1, 50, 51, 20, 21, 60, 60)]  # the clock was set back once

    def set_back(tx: Tx) -> None:
        for place, at in enumerate(stored):
            tx.run(SET_TIME, idx=first + place, at=at)

    await world.writer.submit(set_back)
    text = next(text for number, _, text in scripts() if number == 171)
    connection = world.db.connect()
    connection.begin(write=True)
    connection.script(render(text, is_sqlite=world.db.is_sqlite))
    connection.commit()
    connection.close()
    reader, latest = world.db.read(), [start + second for second in (0, 1, 50, 51, 51, 51, 60, 60)]
    for at in range(start, start + 62):
        found = [
            index - first for index, _ in store.search_entries(reader, {"since": at, "action": "test"}, limit=1000)
        ]
        assert found == list(reversed(range(bisect_left(latest, at), 8)))
        assert set(found) >= {place for place, time in enumerate(stored) if time >= at}
