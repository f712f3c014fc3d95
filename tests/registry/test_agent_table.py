"""The table of agents: every order and filter gives each matching agent once, few agents are examined, and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import ADMIN, SECOND, call_admin_api
from ostiary.provenance.noticing import Risk
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.registry.flows.agent_counts import COUNTS_AGE_US
from ostiaryd.registry.store import agent_table, risks
from ostiaryd.registry.wire_admin import agent_table as wire

NAMES = ["delta", "alpha", "echo", "bravo", "charlie"]


async def fill(world: World, clock: Clock) -> dict[str, str]:
    """Register the agents of `NAMES`, the first two in the segment `lab`; return their ids by name."""
    for person in ("alice", "bob"):
        await call_admin_api(world, "POST", "/persons", {"name": person})
    ids = {}
    for place, name in enumerate(NAMES):
        clock.now += SECOND
        body = {"name": name, "owner": "bob" if place == 4 else "alice", "purpose": f"=Reads part {place}"}
        status, agent = await call_admin_api(
            world, "POST", "/agents", body | {"segment": "lab" if place < 2 else "default"}
        )
        assert status == 201, agent
        ids[name] = agent["agent_id"]
    await call_admin_api(world, "POST", "/agents/echo/suspend", {"why": "a test"})
    return ids


async def csv_of(world: World, query: str) -> str:
    """Return the whole CSV."""
    call = Call(world, "GET", "/api/v1/agent-table/csv", {}, query, [], b"", "rq_1", ADMIN)
    answer = await wire.export_table(call)
    assert isinstance(answer.body, AsyncGenerator)
    return b"".join([chunk async for chunk in answer.body]).decode()


async def rows(world: World, query: str = "", *, limit: int = 2) -> list[dict[str, Any]]:
    """Return the rows of all pages."""
    found: list[dict[str, Any]] = []
    after = ""
    for _ in range(20):
        status, page = await call_admin_api(world, "GET", f"/agent-table?{query}&limit={limit}{after}")
        assert status == 200, page
        assert len(page["agents"]) <= limit
        found += page["agents"]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"
    raise AssertionError("the list has no end")


async def names(world: World, query: str = "", *, limit: int = 2) -> list[str]:
    return [row["name"] for row in await rows(world, query, limit=limit)]


@pytest.mark.parametrize("examined", [2, 3, 1000])
async def test_each_sort_order_lists_each_matching_agent_once(
    world: World, clock: Clock, examined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_table, "MAX_EXAMINED", examined)
    await fill(world, clock)
    for limit in (1, 2):
        assert await names(world, limit=limit) == sorted(NAMES)
        assert await names(world, "sort=-name", limit=limit) == sorted(NAMES, reverse=True)
        assert await names(world, "sort=created", limit=limit) == NAMES
        assert await names(world, "sort=-created", limit=limit) == NAMES[::-1]
        assert await names(world, "owner=alice", limit=limit) == ["alpha", "bravo", "delta", "echo"]
        assert await names(world, "segment=lab&sort=-name", limit=limit) == ["delta", "alpha"]
        assert await names(world, "state=suspended&segment=default", limit=limit) == ["echo"]
        assert await names(world, "text=PART 4", limit=limit) == ["charlie"]
        assert await names(world, "text=part 3&sort=-created", limit=limit) == ["bravo"]
        assert await names(world, "kind=service", limit=limit) == []


async def test_a_request_examines_a_limited_number_of_agents_and_the_next_page_continues(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_table, "MAX_EXAMINED", 3)
    await fill(world, clock)
    _, page = await call_admin_api(world, "GET", "/agent-table?text=part%200&limit=2")
    assert (page["agents"], page["next"]) == ([], "charlie"), "delta is the fourth by name"
    _, page = await call_admin_api(world, "GET", "/agent-table?text=part%200&limit=2&after=charlie")
    assert [row["name"] for row in page["agents"]] == ["delta"]
    assert page["next"] is None


async def test_a_row_has_owner_risk_and_last_use(world: World, clock: Clock) -> None:
    ids = await fill(world, clock)

    def use(act: Act) -> None:
        act.entry.agent = ids["bravo"]
        risks.put_risk(act.tx, ids["bravo"], Risk(40_000, act.now))
        risks.put_risk(act.tx, ids["alpha"], Risk(90_000, act.now))

    await act(world, "tool.call", use)
    by_name = {row["name"]: row for row in await rows(world)}
    assert (by_name["bravo"]["risk"], by_name["alpha"]["risk"], by_name["echo"]["risk"]) == (40, 90, 0)
    assert by_name["bravo"]["last_used_at"] == clock.now // SECOND
    assert by_name["alpha"]["last_used_at"] is None
    assert (by_name["charlie"]["owner"], by_name["echo"]["state"]) == ("bob", "suspended")
    for limit in (1, 2):
        assert await names(world, "sort=-risk", limit=limit) == ["alpha", "bravo"]
    chosen = ("owner=alice", "state=pending", "kind=service", "risk_tier=high", "segment=default", "text=PART 3")
    assert {query.partition("=")[0] for query in chosen} == {query.name for query in wire.FILTERS} - {"unused"}
    for query in chosen:
        assert len(await names(world, query)) < len(NAMES), f"{query} narrows the list"
        expected = [name for name in ("alpha", "bravo") if name in await names(world, query)]
        assert await names(world, f"sort=-risk&{query}") == expected, query
    assert await names(world, "sort=-risk&segment=default") == ["bravo"]


async def test_a_wrong_query_is_refused(world: World) -> None:
    cases: list[str] = [
        "sort=size",
        "sort=-risk&unused=10",
        "limit=0",
        "limit=1001",
        f"text={'a' * 201}",
        "state=asleep",
    ]
    for query in cases:
        status, body = await call_admin_api(world, "GET", f"/agent-table?{query}")
        assert (status, body["error"]) == (422, "invalid"), query


async def test_the_counts_of_agents_are_at_most_five_seconds_old(world: World, clock: Clock) -> None:
    await fill(world, clock)
    _, counts = await call_admin_api(world, "GET", "/agent-table/counts")
    assert counts["total"] == 5
    assert counts["state"] == {"pending": 4, "suspended": 1}
    assert counts["segment"] == {"default": 3, "lab": 2}
    await call_admin_api(world, "POST", "/agents/alpha/decommission", {"why": "a test"})
    clock.now += COUNTS_AGE_US - SECOND
    _, counts = await call_admin_api(world, "GET", "/agent-table/counts")
    assert counts["state"] == {"pending": 4, "suspended": 1}
    clock.now += SECOND
    _, counts = await call_admin_api(world, "GET", "/agent-table/counts")
    assert counts["state"] == {"pending": 3, "suspended": 1, "decommissioned": 1}


async def test_the_csv_has_every_matching_agent_and_no_formula(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MAX_ROWS", 2)
    await fill(world, clock)
    text = await csv_of(world, "segment=default&sort=-name")
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in table] == ["echo", "charlie", "bravo"]
    assert [row["purpose"] for row in table] == ["'=Reads part 2", "'=Reads part 4", "'=Reads part 3"]
    assert (table[0]["state"], table[0]["owner"], table[0]["last_used_at"]) == ("suspended", "alice", "")
    shown = await rows(world, "segment=default&sort=-name")
    assert [{name: wire._cell(value) for name, value in row.items()} for row in shown] == table
    status, body = await call_admin_api(world, "GET", "/agent-table/csv?sort=-risk")
    assert (status, body["error"]) == (422, "invalid")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        (' "@SUM(1)', " \"'@SUM(1)"),
        ("Reads;=cmd", "Reads;'=cmd"),
        ('Reads; "-2', "Reads; \"'-2"),
        ("Reads\r\n+1", "Reads\r\n'+1"),
        ("Reads\u2028=1", "Reads\u2028'=1"),
        ("\uff1d1", "'\uff1d1"),
        ("\t=1", "'\t'=1"),
        ("\rReads", "'\rReads"),
        ("a=b, c-d; e@f.example", "a=b, c-d; e@f.example"),
        (7, "7"),
        (None, ""),
    ],
)
def test_no_csv_cell_begins_a_formula(text: object, cell: str) -> None:
    assert wire._cell(text) == cell


async def test_pages_in_order_of_risk_list_each_agent_once_while_scores_change(world: World, clock: Clock) -> None:
    ids = await fill(world, clock)

    async def put(**scores: int) -> None:
        def run(act: Act) -> None:
            for name, points in scores.items():
                risks.put_risk(act.tx, ids[name], Risk(points * 1000, act.now))

        await act(world, "watch.find", run)

    await put(alpha=90, bravo=50, echo=50, delta=2)
    _, page = await call_admin_api(world, "GET", "/agent-table?sort=-risk&limit=2")
    assert [row["name"] for row in page["agents"]] == ["alpha", min("bravo", "echo", key=lambda name: ids[name])]
    await put(**{page["agents"][1]["name"]: 0})
    clock.now += SECOND * 1800
    seen, after = page["agents"], page["next"]
    while after is not None and len(seen) <= 4:
        status, page = await call_admin_api(world, "GET", f"/agent-table?sort=-risk&limit=1&after={after}")
        assert status == 200, page
        seen, after = seen + page["agents"], page["next"]
    assert sorted(row["name"] for row in seen) == ["alpha", "bravo", "delta", "echo"], "each one, and once"


@pytest.mark.parametrize("age_us", [-1, 0, wire.MAX_CURSOR_AGE_US, wire.MAX_CURSOR_AGE_US + 1])
async def test_a_cursor_of_the_order_by_risk_is_accepted_for_at_most_an_hour(
    world: World, clock: Clock, age_us: int
) -> None:
    status, body = await call_admin_api(world, "GET", f"/agent-table?sort=-risk&after={clock.now - age_us}.50.ag_1")
    assert status == (200 if 0 <= age_us <= wire.MAX_CURSOR_AGE_US else 422), body
    if status == 422:
        assert body["message"] == (
            "`after` is not a cursor" if age_us < 0 else "the cursor `after` is older than an hour"
        )
    status, body = await call_admin_api(world, "GET", "/agent-table?sort=-risk&after=ag_1")
    assert (status, body["message"]) == (422, "`after` is not a cursor")
