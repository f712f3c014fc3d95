"""Receipts of a search, and the checkpoints that the server keeps."""

from __future__ import annotations

from typing import Any

from harness.clock import Clock
from ostiary.protocol.checkpoint import open_checkpoint
from ostiary.protocol.receipt import verify_receipt
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows, store
from ostiaryd.ledger.model import Entry
from tests.ledger.ledger_requests import ask, write

HOUR_S = 3600


async def collect(world: World, path: str, kind: str, cursor: str) -> list[list[dict[str, Any]]]:
    """Return the pages of a list."""
    pages, following = [], ""
    while True:
        answer = await ask(world, f"{path}{following}")
        assert answer.status == 200, answer.body
        pages.append(answer.json[kind])
        if answer.json["next"] is None:
            return pages
        following = f"&{cursor}={answer.json['next']}"


async def test_each_entry_of_a_search_has_a_receipt_for_the_same_checkpoint(world: World) -> None:
    for number in range(7):
        await write(world, "even" if number % 2 == 0 else "odd", agent="ag_1")
    key = store.get_log_key(world.db.read(), world.keys)
    for limit, sizes in ((1, [1, 1, 1, 1]), (3, [3, 1]), (4, [4]), (200, [4])):
        pages = await collect(world, f"/api/v1/audit/receipts?action=even&limit={limit}", "receipts", "before")
        assert [len(page) for page in pages] == sizes
        receipts = [one for page in pages for one in page]
        assert [one["index"] for one in receipts] == [6, 4, 2, 0]
        for one in receipts:
            index, checkpoint = verify_receipt(
                one["proof"].encode(), entry=one["entry"].encode(), keys=[key], origin=key.name
            )
            assert (index, checkpoint.size) == (one["index"], 7)


async def test_a_page_of_receipts_is_limited_in_number_and_in_bytes(world: World) -> None:
    def fill(act: flows.Act) -> None:
        act.further_entries += [Entry(at=act.now, action="small") for _ in range(201)]
        act.further_entries += [Entry(at=act.now, action="large", detail={"x": '"' * 25_000}) for _ in range(10)]

    await flows.act(world, "fill", fill)
    small = await collect(world, "/api/v1/audit/receipts?action=small&limit=1000", "receipts", "before")
    assert [len(page) for page in small] == [200, 1]
    large = await collect(world, "/api/v1/audit/receipts?action=large", "receipts", "before")
    assert sum(map(len, large)) == 10
    assert 1 < len(large) <= 10


async def test_an_invalid_search_for_receipts_or_checkpoints_is_refused(world: World) -> None:
    await write(world, "first")
    for query in ("after=0", "total=true", "limit=0", "limit=1001", "before=x", "before=1&before=2", "size=1"):
        assert (await ask(world, f"/api/v1/audit/receipts?{query}")).status == 422, query
    for query in ("after=x", "after=-1", f"after={'9' * 19}", "limit=0"):
        assert (await ask(world, f"/api/v1/audit/checkpoints?{query}")).status == 422, query


async def test_one_checkpoint_an_hour_is_kept_while_the_log_grows(world: World, clock: Clock) -> None:
    await flows.keep_checkpoint(world)
    assert store.checkpoints(world.db.read(), Page(10, "")) == [], "an empty log has no checkpoint"
    sizes = []
    for seconds in (0, 10, HOUR_S - 11, 1, HOUR_S, 0):
        clock.advance(seconds)
        await write(world, "act")
        await flows.keep_checkpoint(world)
        sizes.append([one.size for one in store.checkpoints(world.db.read(), Page(10, ""))])
    assert sizes == [[1], [1], [1], [4, 1], [5, 4, 1], [5, 4, 1]]
    clock.advance(HOUR_S)
    await flows.keep_checkpoint(world)
    clock.advance(HOUR_S)
    await flows.keep_checkpoint(world)
    pages = await collect(world, "/api/v1/audit/checkpoints?limit=2", "checkpoints", "after")
    assert [[one["size"] for one in page] for page in pages] == [[6, 5], [4, 1], []]
    key = store.get_log_key(world.db.read(), world.keys)
    for one in (one for page in pages for one in page):
        checkpoint = open_checkpoint(one["note"].encode(), [key], origin=key.name)
        assert (checkpoint.size, checkpoint.root) == (one["size"], store.root_at(world.db.read(), one["size"]))
