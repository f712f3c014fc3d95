"""Expiry takes effect at its time, and the expiry loop writes the ledger entries."""

from __future__ import annotations

import pytest

from harness.clock import Clock
from harness.registry_fixtures import (
    SECOND,
    create_holding,
    feed_messages,
    get_agent,
    is_live,
    new_jwk,
    newest_entry,
    register_agent,
    run_act,
)
from ostiary.decision.feed import AgentFact
from ostiary.protocol.errors import Conflict
from ostiaryd.feed.flows.snapshot import snapshot
from ostiaryd.ground.world import World
from ostiaryd.registry import flows
from ostiaryd.registry.model import LONGEST_TOKEN, AgentState, Verb
from ostiaryd.registry.store import holdings, keys


async def test_an_expired_agent_is_suspended_and_its_tokens_end(world: World, clock: Clock) -> None:
    agent = await register_agent(world, expires_at=clock.now + 10 * SECOND)
    await create_holding(world, agent, "tok_1", seconds=60)
    clock.advance(10, us=-1)
    assert await flows.expire_due(world) == 0
    with pytest.raises(Conflict, match="has not expired"):
        await run_act(world, lambda a: flows.expire_agent(a, agent.agent_id))
    clock.advance(us=1)
    assert await flows.expire_due(world) == 1
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.object) == ("agent.expire", "ok", agent.agent_id)
    assert entry.detail == {"name": "bot", "was": "active", "why": "expired", "ended": {"token": 1}}
    assert get_agent(world, "bot").state is AgentState.SUSPENDED
    assert not is_live(world, "tok_1")
    assert feed_messages(world)[-1]["state"] == "suspended"
    assert await flows.expire_due(world) == 0


async def test_an_expired_agent_can_be_resumed_after_its_expiry_is_moved(world: World, clock: Clock) -> None:
    await register_agent(world, expires_at=clock.now + SECOND)
    clock.advance(1)
    await flows.expire_due(world)
    await run_act(world, lambda a: flows.set_end(a, "bot", a.now + SECOND))
    await run_act(world, lambda a: flows.set_agent_state(a, "bot", Verb.RESUME))
    assert get_agent(world, "bot").is_active(clock.now)


async def test_an_expired_key_is_revoked_with_the_tokens_obtained_with_the_key(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    key = await run_act(world, lambda a: flows.add_key(a, "bot", new_jwk(), not_after=a.now + 10 * SECOND))
    await create_holding(world, agent, "tok_1", seconds=60, client_jkt=key.jkt)
    with pytest.raises(Conflict, match="has not expired"):
        await run_act(world, lambda a: flows.expire_key(a, key.jkt))
    clock.advance(10)
    assert await flows.expire_due(world) == 1
    assert not is_live(world, "tok_1")
    found = keys.get_key(world.db.read(), key.jkt)
    assert found is not None
    assert found.revoked_at == clock.now
    assert keys.list_revoked_keys(world.db.read(), since=clock.now - 1) == [(key.jkt, clock.now)]
    assert await flows.expire_due(world) == 0


async def test_a_turn_of_the_expiry_loop_is_bounded_and_begins_with_the_longest_overdue(
    world: World, clock: Clock
) -> None:
    for number in range(5):
        await register_agent(world, f"bot-{number}", expires_at=clock.now + (5 - number) * SECOND)
    clock.advance(10)
    assert await flows.expire_due(world, limit=2) == 2
    assert [get_agent(world, f"bot-{n}").state for n in (2, 3, 4)] == [
        AgentState.ACTIVE,
        AgentState.SUSPENDED,
        AgentState.SUSPENDED,
    ]
    assert await flows.expire_due(world, limit=2) == 2
    assert await flows.expire_due(world, limit=2) == 1


async def test_an_agent_that_was_stopped_before_its_expiry_entry_does_not_stop_the_expiry_loop(
    world: World, clock: Clock
) -> None:
    ids = [(await register_agent(world, name, expires_at=clock.now + SECOND)).agent_id for name in ("first", "second")]
    clock.advance(1)
    await run_act(world, lambda a: flows.set_agent_state(a, "first", Verb.DECOMMISSION))
    assert await flows.act_on_each(world, "agent.expire", flows.expire_agent, ids) == 1
    assert get_agent(world, "second").state is AgentState.SUSPENDED


async def test_an_error_in_the_expiry_loop_is_raised(world: World) -> None:
    def fail(act: object, thing: str) -> None:
        raise ValueError(thing)

    with pytest.raises(ValueError, match="first"):
        await flows.act_on_each(world, "agent.expire", fail, ["first"])


async def test_a_holding_is_deleted_a_day_after_its_expiry(world: World, clock: Clock) -> None:
    agent = await register_agent(world)
    await create_holding(world, agent, "tok_1", seconds=1)
    clock.advance(1 + 86_400)
    await flows.expire_due(world)
    assert holdings.get_holding(world.db.read(), "tok_1") is not None
    clock.advance(us=1)
    await flows.expire_due(world)
    assert holdings.get_holding(world.db.read(), "tok_1") is None


async def test_a_snapshot_names_an_expired_agent_while_a_token_from_before_can_be_live(
    world: World, clock: Clock
) -> None:
    resource = await run_act(world, lambda a: flows.create_resource(a, name="files", uri="https://files.example"))
    await register_agent(world, "untouched")
    agent = await register_agent(world, expires_at=clock.now + SECOND)
    expired = clock.advance(1)
    await flows.expire_due(world)

    def named() -> list[tuple[str, str, int]]:
        facts = snapshot(world.db.read(), world.keys, resource, now=clock.now)
        return [(fact.agent, fact.state, fact.epoch) for fact in facts if isinstance(fact, AgentFact)]

    assert named() == [(agent.agent_id, "suspended", 1)]
    clock.advance(us=LONGEST_TOKEN - 1)
    assert named() == [(agent.agent_id, "suspended", 1)]
    clock.advance(us=1)
    assert (clock.now, named()) == (expired + LONGEST_TOKEN, [])
    await run_act(world, lambda a: flows.set_end(a, "bot", None))
    await run_act(world, lambda a: flows.set_agent_state(a, "bot", Verb.RESUME))
    assert named() == [(agent.agent_id, "active", 1)], "tokens from before the suspension stay refused"
