"""Restrictions: put, made stricter, lifted and ended; and the notifications of guards."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from harness.clock import Clock
from harness.registry_fixtures import SECOND, feed_messages, get_agent, register_agent, run_act
from ostiary.decision.access import Restriction
from ostiary.decision.access.restrictions import RestrictionKind
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ground.process.clock import MARGIN
from ostiaryd.ground.world import World
from ostiaryd.registry import flows
from ostiaryd.registry.flows.restrictions import MAX_LIMIT
from ostiaryd.registry.model import Agent
from ostiaryd.registry.store import restrictions

HOUR = 3600 * SECOND


@pytest.fixture
async def bot(world: World) -> Agent:
    return await register_agent(world)


async def put(world: World, kind: RestrictionKind, *, seconds: float = 3600, limit: int = 0) -> Restriction:
    until = world.now() + round(seconds * SECOND)
    return await run_act(world, lambda a: flows.put_restriction(a, "bot", kind, until=until, limit=limit))


def in_force(world: World) -> list[tuple[str, Restriction]]:
    return restrictions.list_restrictions(world.db.read(), now=world.now())


async def test_a_restriction_is_in_force_until_its_end_and_shown_with_its_agent(
    world: World, clock: Clock, bot: Agent
) -> None:
    assert get_agent(world, "bot").restricted_until == 0
    made = await put(world, "throttle", limit=5)
    assert made == Restriction("throttle", 5, clock(), clock() + HOUR)
    assert in_force(world) == [(bot.agent_id, made)]
    assert get_agent(world, "bot").restricted_until == made.until
    clock.advance(us=HOUR - 1)
    assert restrictions.list_restrictions_of_agent(world.db.read(), bot.agent_id, now=clock()) == (made,)
    clock.advance(us=1)
    assert in_force(world) == []


async def test_each_restriction_ends_at_its_own_time(world: World, clock: Clock, bot: Agent) -> None:
    first = await put(world, "throttle", seconds=1, limit=5)
    second = await put(world, "narrow", seconds=2)
    reader = world.db.read()
    for now, expected in ((first.until - 1, {first, second}), (first.until, {second}), (second.until, set())):
        assert {*restrictions.list_restrictions_of_agent(reader, bot.agent_id, now=now)} == expected


async def test_a_second_restriction_of_a_kind_does_not_ease_the_restriction_in_force(
    world: World, clock: Clock, bot: Agent
) -> None:
    await put(world, "throttle", limit=5)
    eased = await put(world, "throttle", limit=50, seconds=60)
    assert eased == Restriction("throttle", 5, clock(), clock() + HOUR)
    assert (await put(world, "throttle", limit=1, seconds=7200)) == Restriction(
        "throttle", 1, clock(), clock() + 2 * HOUR
    )
    await put(world, "step_up", limit=1)
    clock.advance(1)
    assert (await put(world, "step_up", limit=0)).limit == 1
    assert (await put(world, "step_up", limit=2)) == Restriction("step_up", 2, clock(), clock() + HOUR)
    clock.advance(us=3 * HOUR)
    assert (await put(world, "throttle", limit=50)).limit == 50, "that one was over"


async def test_a_lifted_restriction_ends_at_once_and_other_restrictions_stay(
    world: World, clock: Clock, bot: Agent
) -> None:
    narrow = await put(world, "narrow")
    await put(world, "throttle", limit=5, seconds=7200)
    clock.advance(1)
    [lifted] = await run_act(world, lambda a: flows.lift_restrictions(a, bot.agent_id, "throttle"))
    assert lifted.kind == "throttle"
    assert in_force(world) == [(bot.agent_id, narrow)]
    assert get_agent(world, "bot").restricted_until == narrow.until
    with pytest.raises(Conflict, match="no such restriction of the agent `bot`"):
        await run_act(world, lambda a: flows.lift_restrictions(a, "bot", "throttle"))
    await run_act(world, lambda a: flows.lift_restrictions(a, "bot"))
    assert in_force(world) == []
    with pytest.raises(Conflict, match="no such restriction of the agent `bot`"):
        await run_act(world, lambda a: flows.lift_restrictions(a, "bot"))


async def test_guards_are_notified_when_a_restriction_is_put_and_when_it_is_lifted(
    world: World, clock: Clock, bot: Agent
) -> None:
    seen = len(feed_messages(world))
    made = await put(world, "step_up", limit=2)
    clock.advance(1)
    await run_act(world, lambda a: flows.lift_restrictions(a, "bot"))
    told = {"kind": "hold", "agent": bot.agent_id, "hold": "step_up", "limit": 2, "since": made.since}
    assert feed_messages(world)[seen:] == [told | {"until": made.until}, told | {"until": clock()}]


async def test_a_restriction_with_an_invalid_limit_is_refused(world: World, bot: Agent) -> None:
    cases: list[tuple[RestrictionKind, int]] = [
        ("throttle", -1),
        ("throttle", 10_001),
        ("narrow", -1),
        ("narrow", 1),
        ("step_up", -1),
        ("step_up", 3),
    ]
    for kind, limit in cases:
        with pytest.raises(Invalid, match="limit"):
            await put(world, kind, limit=limit)
        assert in_force(world) == [], kind


def test_each_kind_of_restriction_has_a_maximum_limit() -> None:
    assert {*MAX_LIMIT} == {*get_args(RestrictionKind)}


@pytest.mark.parametrize(("kind", "limit"), [("throttle", 0), ("throttle", 10_000), ("narrow", 0), ("step_up", 2)])
async def test_a_restriction_with_the_smallest_or_the_largest_limit_is_accepted(
    world: World, bot: Agent, kind: RestrictionKind, limit: int
) -> None:
    assert (await put(world, kind, limit=limit)).limit == limit


async def test_a_restriction_requires_a_future_end_and_a_known_agent(world: World, clock: Clock, bot: Agent) -> None:
    with pytest.raises(Invalid, match="future"):
        await put(world, "narrow", seconds=0)
    assert (await put(world, "narrow", seconds=1e-6)).until == clock() + 1
    with pytest.raises(NotFound):
        await run_act(world, lambda a: flows.put_restriction(a, "nobody", "narrow", until=clock() + 1))
    with pytest.raises(NotFound):
        await run_act(world, lambda a: flows.lift_restrictions(a, "nobody"))


async def test_an_ended_restriction_is_deleted_after_a_margin(world: World, clock: Clock, bot: Agent) -> None:
    until: Any = (await put(world, "narrow")).until
    clock.advance(us=HOUR + MARGIN - 1)
    assert await flows.forget_restrictions(world) == 0
    clock.advance(us=1)
    assert clock() == until + MARGIN
    assert await flows.forget_restrictions(world) == 1
