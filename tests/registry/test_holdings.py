"""Holdings: all holdings that derive from a root end with the root, in one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.clock import Clock, SeededRandom
from harness.patience import PATIENCE_S
from harness.registry_fixtures import (
    SECOND,
    call_admin_api,
    create_holding,
    create_person,
    end_holdings,
    feed_messages,
    is_live,
    register_agent,
    run_act,
)
from ostiary.protocol.errors import Forbidden, Invalid, NotFound
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows
from ostiaryd.registry.model import AgentId, AgentKey, Holding, HoldingId, Root
from ostiaryd.registry.store import agents, holdings, keys

AGENTS, TASKS, KEYS = ["ag_0", "ag_1", "rs_0"], ["tk_0", "tk_1"], ["key 0", "key 1", "key 2", "key 3"]
"""The first keys are those of the agents and of the guard, in their order; the last is nobody's."""
ROOTS: dict[Root, Callable[[Holding], list[str | None]]] = {
    Root.HOLDING: lambda held: [held.id],
    Root.AGENT: lambda held: [held.agent],
    Root.TASK: lambda held: [held.task],
    Root.KEY: lambda held: [held.jkt, held.client_jkt],
}


@dataclass(frozen=True)
class Seed:
    """A holding to insert, obtained with the key of its agent or not; `parent` refers to an earlier holding."""

    agent: int
    task: int | None
    jkt: int | None
    has_client_key: bool
    parent: int | None
    is_over: bool


PARENT = Seed(agent=0, task=None, jkt=None, has_client_key=False, parent=None, is_over=False)
CHILD = replace(PARENT, agent=1, parent=0)
"""A holding, and a holding of another agent that ends only through its parent."""
BOUND = replace(PARENT, task=0, jkt=0, has_client_key=True)
"""A holding of a task that is bound to a key."""


def place(count: int) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(0, count - 1)


forests = st.lists(
    st.builds(
        Seed,
        agent=st.integers(0, 2),
        task=place(2),
        jkt=place(4),
        has_client_key=st.booleans(),
        parent=place(12),
        is_over=st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


def plant(example: str, seeds: list[Seed], now: int) -> list[Holding]:
    """Return holdings for the seeds; a child of an expired holding is expired."""
    planted: list[Holding] = []
    for place, seed in enumerate(seeds):
        parent = planted[seed.parent % place] if seed.parent is not None and place else None
        is_over = seed.is_over or (parent is not None and parent.expires_at <= now)
        planted.append(
            Holding(
                id=HoldingId(f"{example} {place}"),
                kind=f"kind {place % 2}",
                agent=AgentId(f"{AGENTS[seed.agent]} {example}"),
                task=None if seed.task is None else f"{example} {TASKS[seed.task]}",
                parent=None if parent is None else parent.id,
                jkt=None if seed.jkt is None else f"{example} {KEYS[seed.jkt]}",
                client_jkt=f"{example} {KEYS[seed.agent]}" if seed.has_client_key else None,
                expires_at=now if is_over else now + 1,
            )
        )
    return planted


def register(act: Act, id: str, *, key: str) -> None:
    agent = agents.get_agent(act.tx, "bot")
    assert agent is not None
    agents.insert(act.tx, replace(agent, agent_id=AgentId(id), name=id))
    keys.insert(
        act.tx, AgentKey(jkt=key, agent=AgentId(id), alg="ES256", jwk={}, added_at=0, not_after=None, revoked_at=None)
    )


def doomed(planted: list[Holding], root: Root, value: str, now: int) -> tuple[set[str], bool]:
    """Return the holdings that must end, computed one by one, and whether some of them end only through a parent."""
    found: set[str] = set()
    derived: set[str] = set()
    for held in planted:  # parents stand before their children
        if value in ROOTS[root](held):
            found.add(held.id)
        elif held.parent in found:
            found.add(held.id)
            derived.add(held.id)
    live = {held.id for held in planted if held.is_live(now)}
    return found & live, bool(derived & live)


def test_the_end_of_a_root_ends_exactly_the_holdings_derived_from_the_root(config: Config) -> None:
    clock, examples = Clock(), iter(range(10_000))
    some_derived: list[bool] = []

    async def run() -> None:
        async with open_world(config, now=clock, random=SeededRandom("holdings")) as world:
            await register_agent(world)
            loop = asyncio.get_running_loop()
            await asyncio.to_thread(check, world, loop)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @example(seeds=[PARENT, CHILD], root=Root.HOLDING, which=0)
    @example(seeds=[BOUND, CHILD], root=Root.TASK, which=0)
    @example(seeds=[BOUND, CHILD], root=Root.KEY, which=0)
    @given(seeds=forests, root=st.sampled_from(list(ROOTS)), which=st.integers(0, 23))
    def check(world: World, loop: asyncio.AbstractEventLoop, seeds: list[Seed], root: Root, which: int) -> None:
        example = f"example {next(examples)}"
        planted = plant(example, seeds, clock.now)
        values = [value for held in planted for value in ROOTS[root](held) if value is not None]
        value = values[which % len(values)] if values else "nothing's"

        def flow(act: Act) -> dict[str, int]:
            for agent, key in zip(AGENTS[:2], KEYS[:2], strict=True):
                register(act, f"{agent} {example}", key=f"{example} {key}")
            for held in planted:
                holdings.insert_holding(act.tx, held)
            announced = holdings.count_of_agent(act.tx, AgentId(value), now=act.now)
            counts = dict(flows.end_holdings(act, root, value, why="test"))
            assert root is not Root.AGENT or announced == counts
            return counts

        counts = asyncio.run_coroutine_threadsafe(run_act(world, flow), loop).result(PATIENCE_S)
        wanted, is_some_derived = doomed(planted, root, value, clock.now)
        some_derived.append(is_some_derived)
        reader = world.db.read()
        ended = {
            held.id
            for held in planted
            if (found := holdings.get_holding(reader, held.id)) and found.ended_at is not None
        }
        assert ended == wanted
        assert sum(counts.values()) == len(wanted)

    asyncio.run(run())
    assert any(some_derived), "no example had holdings that end through others"


async def test_an_end_by_owner_ends_the_holdings_of_all_agents_of_the_owner(world: World) -> None:
    first, second = await register_agent(world, "first"), await register_agent(world, "second")
    stranger = await register_agent(world, "stranger", owner="bob")
    await create_holding(world, first, "tok_1")
    await create_holding(world, second, "tok_2")
    await create_holding(world, stranger, "tok_3")
    await create_holding(world, stranger, "tok_derived", parent="tok_1")
    await create_holding(world, stranger, "tok_below", parent="tok_derived")
    announced = holdings.count_of_agent(world.db.read(), first.agent_id, now=world.now())
    assert announced == {"token": 3}, "its own, and all that derive from it"
    assert await end_holdings(world, Root.OWNER, first.owner) == {"token": 4}
    assert is_live(world, "tok_3")


async def test_an_ended_holding_keeps_the_time_and_the_reason_of_its_first_end(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    await create_holding(world, agent, "tok_1")
    assert await end_holdings(world, Root.HOLDING, "tok_1") == {"token": 1}
    ended_at = clock.now
    clock.advance(1)
    assert await end_holdings(world, Root.AGENT, agent.agent_id) == {}
    held = holdings.get_holding(world.db.read(), "tok_1")
    assert held is not None
    assert (held.ended_at, held.ended_why) == (ended_at, "test")


async def test_guards_are_notified_of_an_ended_token_unless_the_token_names_the_ended_root(world: World) -> None:
    agent, other = await register_agent(world), await register_agent(world, "other")
    for root, value in ((Root.AGENT, agent.agent_id), (Root.TASK, "tk_1"), (Root.KEY, "key"), (Root.HOLDING, "root")):
        id = "root" if root is Root.HOLDING else f"own {root}"
        await create_holding(world, agent, id, task="tk_1", jkt="key")
        await create_holding(world, other, f"derived {root}", parent=id)
        before = len(feed_messages(world))
        assert await end_holdings(world, root, value) == {"token": 2}
        told = [delta["jti"] for delta in feed_messages(world)[before:]]
        assert sorted(told) == [f"derived {root}"] + (["root"] if root is Root.HOLDING else [])


async def test_a_holding_is_live_until_the_microsecond_of_its_expiry(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    await create_holding(world, agent, "tok_1", seconds=1)
    clock.advance(us=SECOND - 1)
    assert is_live(world, "tok_1")
    clock.advance(us=1)
    assert not is_live(world, "tok_1")
    assert await end_holdings(world, Root.AGENT, agent.agent_id) == {}


async def test_a_holding_cannot_outlive_its_parent_or_derive_from_an_ended_parent(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    await create_holding(world, agent, "parent", seconds=10)
    await create_holding(world, agent, "child", seconds=10, parent="parent")
    with pytest.raises(Forbidden) as refused:
        await create_holding(world, agent, "longer", seconds=10.000001, parent="parent")
    assert refused.value.code == "outlives_parent"
    await end_holdings(world, Root.HOLDING, "parent")
    for parent in ("parent", "child", "unknown"):
        with pytest.raises(Forbidden) as refused:
            await create_holding(world, agent, "late", seconds=1, parent=parent)
        assert (refused.value.code, refused.value.message) == ("parent_ended", "the parent of this holding has ended")


async def test_a_holding_that_has_already_expired_is_refused(world: World) -> None:
    agent = await register_agent(world)
    with pytest.raises(Invalid):
        await create_holding(world, agent, "tok_1", seconds=0)
    assert await create_holding(world, agent, "tok_2", seconds=0.000001)


async def test_only_an_active_agent_gets_a_holding(world: World) -> None:
    pending = await register_agent(world, "pending", has_key=False)
    with pytest.raises(Forbidden) as refused:
        await create_holding(world, pending, "tok_1")
    assert refused.value.code == "agent_pending"
    with pytest.raises(NotFound):
        await create_holding(world, "ag_" + "0" * 32, "tok_1")


async def test_only_an_active_person_gets_a_holding(world: World) -> None:
    person = await create_person(world, "ann")
    await create_holding(world, person, "ct_0", kind="certificate")
    await run_act(world, lambda act: flows.suspend_person(act, person))
    with pytest.raises(Forbidden, match="is suspended") as refused:
        await create_holding(world, person, "ct_1", kind="certificate")
    assert refused.value.code == "person_suspended"
    await run_act(world, lambda act: flows.resume_person(act, person))
    await create_holding(world, person, "ct_2", kind="certificate")


@pytest.mark.parametrize(
    ("holder", "jkt", "client_jkt"),
    [
        ("ag_1", "key", "key"),
        ("ag_1", "key", None),
        ("ag_1", "key", "other"),
        ("ag_1", None, "key"),
        ("ag_1", "other", "key"),
        ("rs_1", "key", "key"),
    ],
)
async def test_a_token_ends_with_the_key_that_it_is_bound_to_or_was_obtained_with(
    world: World, holder: str, jkt: str | None, client_jkt: str | None
) -> None:
    await register_agent(world)

    def flow(act: Act) -> dict[str, int]:
        register(act, "ag_1", key="key")
        for id, keys_of_it in (("tok_1", (jkt, client_jkt)), ("tok_2", ("other", "other"))):
            made = Holding(
                id=HoldingId(id),
                kind="token",
                agent=AgentId(holder),
                jkt=keys_of_it[0],
                client_jkt=keys_of_it[1],
                expires_at=act.now + SECOND,
            )
            holdings.insert_holding(act.tx, made)
        return dict(flows.end_holdings(act, Root.KEY, "key", why="test"))

    assert await run_act(world, flow) == {"token": 1}
    assert (is_live(world, "tok_1"), is_live(world, "tok_2")) == (False, True)


async def test_live_holdings_are_listed_in_pages_by_descending_expiry(world: World, clock: Clock) -> None:
    bot, other = await register_agent(world, "bot"), await register_agent(world, "other")
    for id, seconds in (("tok_a", 60), ("tok_b", 90), ("tok_c", 60), ("tok_d", 1), ("tok_e", 99)):
        await create_holding(world, bot, id, seconds=seconds)
    await create_holding(world, bot, "lea_1", seconds=300, kind="lease", audience="https://db.example")
    await create_holding(world, other, "tok_f")
    await end_holdings(world, Root.HOLDING, "tok_e")
    clock.advance(1)
    for limit in (1, 2, 3, 100):
        shown, cursor = [], ""
        while True:
            _, page = await call_admin_api(world, "GET", f"/agents/bot/holdings?limit={limit}{cursor}")
            assert page["ends"] == {"token": 3, "lease": 1}
            shown += [(one["id"], one["kind"], one["audience"]) for one in page["holdings"]]
            if page["next"] is None:
                break
            cursor = f"&after={page['next']}"
        tokens = [(id, "token", None) for id in ("tok_b", "tok_c", "tok_a")]
        assert shown == [("lea_1", "lease", "https://db.example"), *tokens]
    for cursor in ("x", "-1:tok_a", f"{'9' * 19}:tok_a"):
        status, _ = await call_admin_api(world, "GET", f"/agents/bot/holdings?after={cursor}")
        assert status == 422
