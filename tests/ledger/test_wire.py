"""The ledger over HTTP: searches that end where they say, and the tiles of C2SP."""

from __future__ import annotations

import asyncio

import pytest

from harness.clock import START, Clock
from ostiary.protocol.tiles import WIDTH
from ostiaryd.ground.world import World
from ostiaryd.ledger import wire_admin
from tests.ledger.ledger_requests import ROUTES, ask, write


async def search(world: World, query: str) -> list[int]:
    answer = await ask(world, f"/api/v1/audit?{query}")
    assert answer.status == 200, answer.body
    return [entry["index"] for entry in answer.json["entries"]]


@pytest.fixture
async def written(world: World, clock: Clock) -> World:
    """Three entries, a second apart; the first says nothing of whom it is about."""
    await write(world, "first")
    clock.advance(1)
    await write(world, "second", agent="ag_1", person="pe_1", task="tk_1", resource="https://files.example")
    clock.advance(1)
    await write(world, "third", refuse=True, agent="ag_2", person="pe_2", task="tk_2", resource="https://other.example")
    return world


async def test_a_search_counts_all_matches(written: World) -> None:
    cases: list[tuple[str, int]] = [
        ("", 3),
        ("agent=ag_1", 1),
        ("outcome=refused", 1),
        ("action=none", 0),
        ("limit=1", 3),
        ("task=tk_1", 1),
    ]
    for query, total in cases:
        answer = await ask(written, f"/api/v1/audit?{query}&total=true".replace("?&", "?"))
        assert answer.json["total"] == total, query
        assert "total" not in (await ask(written, "/api/v1/audit")).json, query


@pytest.mark.parametrize(("most", "total"), [(2, None), (3, 3), (4, 3)])
async def test_a_search_counts_up_to_a_limit(
    written: World, monkeypatch: pytest.MonkeyPatch, most: int, total: int | None
) -> None:
    monkeypatch.setattr(wire_admin, "MAX_COUNTED", most)
    assert (await ask(written, "/api/v1/audit?total=true")).json["total"] == total


async def test_reads_are_left_out_of_a_search_only_on_request(written: World) -> None:
    own = f"{written.config.issuer}/api/v1"
    await write(written, "token.issue", agent="ag_1", resource=own)
    await write(written, "token.issue", agent="ag_1", resource="https://files.example")
    await write(written, "token.issue", agent="ag_1")
    await write(written, "token.issue", refuse=True, agent="ag_1", resource=own)
    assert await search(written, "after=2") == [3, 4, 5, 6]
    assert await search(written, "after=2&reads=yes") == [3, 4, 5, 6]
    assert await search(written, "after=2&reads=no") == [4, 5, 6], "what was refused, or is for others, is no read"
    for query, message in (
        ("reads=maybe", "`reads` must be `yes` or `no`"),
        ("total=1", "`total` must be `true` or `false`"),
        ("agent=ag_1&agent=ag_1", "the filter `agent` was sent 2 times"),
    ):
        answer = await ask(written, f"/api/v1/audit?{query}")
        assert (answer.status, answer.json["message"]) == (422, message)


MIDDLE = START + 1_000_000


async def test_each_filter_finds_exactly_the_matching_entries(written: World) -> None:
    cases: list[tuple[str, list[int]]] = [
        ("", [2, 1, 0]),
        (f"since={MIDDLE}", [2, 1]),
        (f"since={MIDDLE + 1}", [2]),
        (f"until={MIDDLE}", [0]),
        (f"until={MIDDLE + 1}", [1, 0]),
        ("before=1", [0]),
        ("after=0", [1, 2]),
        ("after=-1", [0, 1, 2]),
        ("limit=1", [2]),
        ("after=-1&limit=1", [0]),
        ("agent=ag_1", [1]),
        ("person=pe_1", [1]),
        ("task=tk_1", [1]),
        ("resource=https://files.example", [1]),
        ("action=second", [1]),
        ("outcome=refused", [2]),
        ("data_class=secret", []),
        (f"agent=ag_1&since={MIDDLE + 1}", []),
        ("agent=ag_1&person=pe_2", []),
    ]
    for query, found in cases:
        assert await search(written, query) == found, query


async def test_each_documented_filter_is_accepted_by_the_search(written: World) -> None:
    for name in [one.name for one in wire_admin.FILTERS if one.name not in ("reads", "total")]:
        answer = await ask(written, f"/api/v1/audit?{name}=1&total=true")
        assert answer.status == 200, answer.body
        assert isinstance(answer.json["total"], int), name


async def test_an_invalid_search_is_refused_and_its_limits_are_accepted(written: World) -> None:
    cases: list[tuple[str, int]] = [
        ("limit=1000", 200),
        ("limit=1001", 422),
        ("limit=1", 200),
        ("limit=0", 422),
        ("limit=", 422),
        ("agent=a", 200),
        ("agent=a&agent=a", 422),
        ("owner=a", 422),
        ("since=now", 422),
        ("since=-1", 200),
        ("since=-2", 422),
        (f"since={'9' * 18}", 200),
        (f"since={'9' * 19}", 422),
    ]
    for query, status in cases:
        assert (await ask(written, f"/api/v1/audit?{query}")).status == status, query


async def test_a_tile_beyond_the_log_is_not_found(written: World) -> None:
    for there, absent in (("tile/0/000.p/3", "tile/0/000.p/4"), ("tile/entries/000.p/3", "tile/entries/000.p/4")):
        assert (await ask(written, f"/ledger/v1/{there}")).status == 200
        assert (await ask(written, f"/ledger/v1/{absent}")).status == 404
    for absent in ("tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1", "tile/0/000.p/03", "tile/x"):
        assert (await ask(written, f"/ledger/v1/{absent}")).status == 404


async def test_a_partial_tile_is_not_cached_and_a_full_tile_is_cached_forever(written: World) -> None:
    await asyncio.gather(*(write(written, "more") for _ in range(WIDTH - 3)))
    kept = {
        path: (await ask(written, f"/ledger/v1/{path}")).headers["cache-control"]
        for path in (
            "tile/0/000.p/3",
            "tile/0/000",
            "tile/entries/000",
            "tile/1/000.p/1",
            "checkpoint",
        )
    }
    forever = "public, max-age=31536000, immutable"
    assert kept == {
        "tile/0/000.p/3": "no-store",
        "tile/0/000": forever,
        "tile/entries/000": forever,
        "tile/1/000.p/1": "no-store",
        "checkpoint": "no-store",
    }


def test_the_routes_of_hashes_require_no_scope_and_those_of_entries_require_the_read_scope() -> None:
    assert {route.path: route.scope for route in ROUTES} == {
        "/api/v1/audit": "ostiary:read",
        "/api/v1/audit/checkpoints": "ostiary:read",
        "/api/v1/audit/receipts": "ostiary:read",
        "/api/v1/audit/{index}": "ostiary:read",
        "/api/v1/audit/{index}/proof": "ostiary:read",
        "/ledger/v1/checkpoint": "",
        "/ledger/v1/key": "",
        "/ledger/v1/tile/entries/{path:path}": "ostiary:read",
        "/ledger/v1/tile/{path:path}": "",
    }
