"""The list of agents: its filters, the number of its rows, and the last use of each agent."""

from __future__ import annotations

from typing import Any

from harness.clock import Clock
from harness.registry_fixtures import SECOND, call_admin_api
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act

DAY = 86_400
BOT = {"owner": "alice", "purpose": "Writes the 100% report_a of alice"}


async def register(world: World, name: str, **more: Any) -> str:
    """An agent of alice; its id."""
    status, agent = await call_admin_api(world, "POST", "/agents", BOT | {"name": name} | more)
    assert status == 201, agent
    return str(agent["agent_id"])


async def use(world: World, agent: str, action: str = "tool.call") -> None:
    """Leave an entry of the agent."""

    def record(act: Act) -> None:
        act.entry.agent = agent

    await act(world, action, record)


async def names(world: World, query: str) -> list[str]:
    status, page = await call_admin_api(world, "GET", f"/agents?{query}")
    assert status == 200, page
    return sorted(agent["name"] for agent in page["agents"])


async def test_each_filter_narrows_the_list(world: World) -> None:
    for person in ("alice", "bob"):
        await call_admin_api(world, "POST", "/persons", {"name": person})
    await register(world, "writer", kind="autonomous", risk_tier="high", segment="lab")
    await register(world, "reader", purpose="Reads")
    await register(world, "else", owner="bob", purpose="Reads")
    await call_admin_api(world, "POST", "/agents/reader/suspend", {"why": "a test"})
    assert await names(world, "owner=alice") == ["reader", "writer"]
    assert await names(world, "state=suspended") == ["reader"]
    assert await names(world, "state=pending") == ["else", "writer"]
    assert await names(world, "kind=autonomous") == ["writer"]
    assert await names(world, "risk_tier=high") == ["writer"]
    assert await names(world, "segment=lab") == ["writer"]
    assert await names(world, "text=READ") == ["else", "reader"]
    assert await names(world, "text=ritE") == ["writer"]
    await register(world, "travel", purpose="Reisen nach Ägypten")
    assert await names(world, "text=NACH+%C3%84GYPTEN") == ["travel"]
    assert await names(world, "text=%C3%96GYPTEN") == []
    assert await names(world, "owner=alice&text=read&state=suspended&segment=default") == ["reader"]


async def test_the_text_filter_has_no_wildcards(world: World) -> None:
    await call_admin_api(world, "POST", "/persons", {"name": "alice"})
    await register(world, "writer")
    cases: list[tuple[str, bool]] = [("100%25", True), ("t_a", True), ("tXa", False), ("1%25r", False), ("!", False)]
    for text, matches in cases:
        assert await names(world, f"text={text}") == (["writer"] if matches else []), text


async def test_the_total_counts_all_pages_of_the_filtered_list(world: World) -> None:
    await call_admin_api(world, "POST", "/persons", {"name": "alice"})
    for number in range(5):
        await register(world, f"bot-{number}", kind="service" if number % 2 else "assistant")
    _, page = await call_admin_api(world, "GET", "/agents?limit=1&total=true")
    assert (len(page["agents"]), page["total"]) == (1, 5)
    _, page = await call_admin_api(world, "GET", "/agents?limit=1&total=true&kind=service")
    assert page["total"] == 2
    _, page = await call_admin_api(world, "GET", "/agents?limit=1")
    assert "total" not in page


USES = ["token.issue", "token.code", "token.refresh", "token.device", "token.backchannel", "tool.call"]
USES += ["vault.login", "vault.read", "vault.use", "vault.inject"]


async def test_last_use_is_the_last_act_of_the_agent_itself(world: World, clock: Clock) -> None:
    await call_admin_api(world, "POST", "/persons", {"name": "alice"})
    writer = await register(world, "writer")
    _, shown = await call_admin_api(world, "GET", "/agents/writer")
    assert shown["last_used_at"] is None, "its registration is no use of it"
    await use(world, writer, "watch.find")
    _, page = await call_admin_api(world, "GET", "/agents?last_use=true")
    assert [agent["last_used_at"] for agent in page["agents"]] == [None]
    for action in USES:
        clock.advance(1)
        await use(world, writer, action)
        _, page = await call_admin_api(world, "GET", "/agents?last_use=true")
        assert [agent["last_used_at"] for agent in page["agents"]] == [world.now() // SECOND]
    _, page = await call_admin_api(world, "GET", "/agents")
    assert "last_used_at" not in page["agents"][0]


async def test_the_unused_filter_lists_agents_without_use_in_the_time_span(world: World, clock: Clock) -> None:
    await call_admin_api(world, "POST", "/persons", {"name": "alice"})
    writer = await register(world, "writer")
    await register(world, "idle")
    await register(world, "gone")
    await call_admin_api(world, "POST", "/agents/gone/decommission", {"why": "a test"})
    clock.advance(1)
    await use(world, writer)
    clock.advance(10)
    assert await names(world, "unused=9") == ["idle", "writer"]
    assert await names(world, "unused=10") == ["idle"], "the writer acted just then"
    assert await names(world, "unused=11") == [], "the other is not older than that"
    await use(world, writer)
    assert await names(world, "unused=9") == ["idle"]
    _, page = await call_admin_api(world, "GET", "/agents?unused=9&total=true&limit=1")
    assert page["total"] == 1


async def test_a_filter_that_is_malformed_is_refused(world: World) -> None:
    cases: list[str] = [
        "state=gone",
        "kind=robot",
        "risk_tier=none",
        "unused=-1",
        "unused=90d",
        "unused=12345678901",
        "total=yes",
        "last_use=1",
        "text=" + "x" * 201,
    ]
    for query in cases:
        status, refusal = await call_admin_api(world, "GET", f"/agents?{query}")
        assert status == 422, query
        assert refusal["message"].startswith(f"`{query.partition('=')[0]}` must"), query
