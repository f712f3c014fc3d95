"""Readers look at one moment and write nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from harness.patience import PATIENCE_S
from ostiaryd.ground.database import Reader, sql
from ostiaryd.ground.world import World

PUT = sql("insert into setting (name, value) values ('mark', 'x') returning name")
COUNT = sql("select count(*) from setting")


async def test_a_scan_cannot_write(world: World) -> None:
    with pytest.raises(Exception, match="read-?only"):
        await world.db.scan(lambda reader: reader.one(PUT))
    assert await world.writer.submit(lambda tx: tx.one(PUT)) == ("mark",)


async def test_a_scan_reads_one_snapshot(world: World) -> None:
    looked, written = threading.Event(), threading.Event()

    def look(reader: Reader) -> tuple[object, object]:
        before = reader.one(COUNT)
        looked.set()
        assert written.wait(PATIENCE_S)
        return before, reader.one(COUNT)

    scanning = asyncio.ensure_future(world.db.scan(look))
    assert await asyncio.to_thread(looked.wait, 10)
    await world.writer.submit(lambda tx: tx.one(PUT))
    written.set()
    before, after = await scanning
    assert before == after
    assert world.db.read().one(COUNT) != before
