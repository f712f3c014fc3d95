"""Agents: registration, changes of state and who may make them, and the effects of a stop."""

from __future__ import annotations

from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import (
    SECOND,
    agent_caller,
    create_holding,
    create_person,
    feed_messages,
    get_agent,
    is_live,
    new_jwk,
    newest_entry,
    person_caller,
    register_agent,
    run_act,
)
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiaryd.ground.world import World
from ostiaryd.registry import flows
from ostiaryd.registry.model import AgentSpec, AgentState, Caller, Kind, RiskTier, Verb
from ostiaryd.registry.store import keys


async def move(world: World, name: str, verb: Verb, *, by: Caller | None = None) -> AgentState:
    return (await run_act(world, lambda a: flows.set_agent_state(a, name, verb, why="because", by=by))).state


async def test_an_agent_is_pending_until_its_first_key_arrives(world: World) -> None:
    agent = await register_agent(
        world, has_key=False, kind=Kind.AUTONOMOUS, provider="acme", model="m-1", scopes=["files:read"]
    )
    assert (agent.state, agent.epoch, agent.risk_tier) == (AgentState.PENDING, 0, RiskTier.MEDIUM)
    assert not agent.is_active(world.now())
    await run_act(world, lambda a: flows.add_key(a, "bot", new_jwk()))
    assert get_agent(world, "bot").is_active(world.now())
    assert feed_messages(world)[-1] == {"kind": "agent", "agent": agent.agent_id, "state": "active", "epoch": 0}


async def test_each_property_of_a_new_agent_is_stored(world: World) -> None:
    deputy = await create_person(world, "dora")
    agent = await register_agent(
        world,
        deputy="dora",
        kind=Kind.SERVICE,
        provider="acme",
        model="m-1",
        risk_tier=RiskTier.HIGH,
        segment="back",
        scopes=["files:read", "mail:send"],
        expires_at=world.now() + SECOND,
    )
    assert get_agent(world, agent.agent_id) == agent == get_agent(world, "bot")
    assert agent.deputy == deputy
    assert agent.scopes == {"files:read", "mail:send"}


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        ({"name": "Bot"}, Invalid),
        ({"purpose": ""}, Invalid),
        ({"purpose": "x" * 1001}, Invalid),
        ({"provider": "x" * 101}, Invalid),
        ({"segment": "Über"}, Invalid),
        ({"scopes": ["everything"]}, Invalid),
        ({"owner": "nobody"}, NotFound),
        ({"deputy": "nobody"}, NotFound),
        ({"deputy": "alice"}, Invalid),
        ({"expires_at": 0}, Invalid),
    ],
)
async def test_an_agent_with_an_invalid_property_is_not_registered(
    world: World, said: dict[str, Any], refusal: type[Exception]
) -> None:
    await create_person(world, "alice")
    with pytest.raises(refusal):
        await run_act(
            world,
            lambda a: flows.create_agent(a, AgentSpec(**({"name": "bot", "owner": "alice", "purpose": "p"} | said))),
        )
    assert newest_entry(world).outcome == "refused"
    with pytest.raises(NotFound):
        flows.find_agent(world.db.read(), "bot")


async def test_the_name_of_a_decommissioned_agent_cannot_be_reused(world: World) -> None:
    await register_agent(world)
    await move(world, "bot", Verb.DECOMMISSION)
    with pytest.raises(Conflict, match="taken"):
        await register_agent(world)


@pytest.mark.parametrize("verb", [Verb.SUSPEND, Verb.QUARANTINE, Verb.DECOMMISSION, Verb.REVOKE])
async def test_a_stopped_agent_loses_its_tokens_and_gets_no_new_token(world: World, verb: Verb) -> None:
    agent = await register_agent(world)
    await create_holding(world, agent, "tok_a")
    assert await move(world, "bot", verb) is not AgentState.ACTIVE
    assert get_agent(world, "bot").epoch == 1
    assert not is_live(world, "tok_a")
    assert feed_messages(world)[-1] == {
        "kind": "agent",
        "agent": agent.agent_id,
        "state": get_agent(world, "bot").state,
        "epoch": 1,
    }
    with pytest.raises(Forbidden):
        await create_holding(world, agent, "tok_b")


@pytest.mark.parametrize(("stop", "go"), [(Verb.SUSPEND, Verb.RESUME), (Verb.QUARANTINE, Verb.RELEASE)])
async def test_a_resumed_or_released_agent_does_not_regain_its_earlier_tokens(
    world: World, stop: Verb, go: Verb
) -> None:
    agent = await register_agent(world)
    await create_holding(world, agent, "tok_a")
    await move(world, "bot", stop)
    assert await move(world, "bot", go) is AgentState.ACTIVE
    assert get_agent(world, "bot").epoch == 1
    assert not is_live(world, "tok_a")
    assert await create_holding(world, agent, "tok_b")


async def test_a_revocation_raises_the_epoch_of_an_active_or_stopped_agent_and_leaves_it_stopped(world: World) -> None:
    agent = await register_agent(world)
    for before, after in [
        (None, AgentState.SUSPENDED),
        (None, AgentState.SUSPENDED),
        (Verb.QUARANTINE, AgentState.QUARANTINED),
        (Verb.DECOMMISSION, AgentState.DECOMMISSIONED),
    ]:
        if before is not None:
            await move(world, "bot", before)
        epoch = get_agent(world, "bot").epoch
        await run_act(world, lambda a: flows.revoke_agent(a, agent.agent_id))
        assert (get_agent(world, "bot").state, get_agent(world, "bot").epoch) == (after, epoch + 1)


async def test_a_decommissioned_agent_cannot_be_changed_or_brought_back(world: World) -> None:
    await register_agent(world)
    await move(world, "bot", Verb.DECOMMISSION)
    for verb in set(Verb) - {Verb.REVOKE}:
        with pytest.raises(Conflict):
            await move(world, "bot", verb)
    for flow in (
        lambda a: flows.add_key(a, "bot", new_jwk()),
        lambda a: flows.set_scopes(a, "bot", []),
        lambda a: flows.set_end(a, "bot", None),
        lambda a: flows.transfer_agent(a, "bot", "alice"),
    ):
        with pytest.raises(Conflict, match="decommissioned"):
            await run_act(world, flow)


async def test_an_agent_resumes_only_with_a_key_an_active_owner_and_a_future_expiry(world: World, clock: Clock) -> None:
    agent = await register_agent(world, expires_at=world.now() + 60 * SECOND)
    [key] = keys.of_agent(world.db.read(), agent.agent_id)
    await run_act(world, lambda a: flows.revoke_key(a, key.jkt))
    await move(world, "bot", Verb.SUSPEND)
    with pytest.raises(Conflict, match="has no key"):
        await move(world, "bot", Verb.RESUME)
    await run_act(world, lambda a: flows.add_key(a, "bot", new_jwk()))
    assert get_agent(world, "bot").state is AgentState.SUSPENDED
    clock.advance(60)
    with pytest.raises(Conflict, match="has expired"):
        await move(world, "bot", Verb.RESUME)
    await run_act(world, lambda a: flows.set_end(a, "bot", None))
    await run_act(world, lambda a: flows.revoke_owner(a, "alice"))
    with pytest.raises(Conflict, match="the owner of .* is not active"):
        await move(world, "bot", Verb.RESUME)
    await run_act(world, lambda a: flows.return_person(a, "alice"))
    assert await move(world, "bot", Verb.RESUME) is AgentState.ACTIVE


async def test_an_agent_expires_at_the_microsecond_of_its_expiry(world: World, clock: Clock) -> None:
    agent = await register_agent(world, expires_at=world.now() + SECOND)
    clock.advance(us=SECOND - 1)
    assert flows.active_agent(world.db.read(), "bot", now=world.now()) == agent
    clock.advance(us=1)
    with pytest.raises(Forbidden) as refused:
        flows.active_agent(world.db.read(), "bot", now=world.now())
    assert refused.value.code == "agent_expired"


@pytest.mark.parametrize("end", [0, 1, flows.MAX_LIFETIME_S * SECOND, flows.MAX_LIFETIME_S * SECOND + 1])
async def test_the_expiry_of_an_agent_is_in_the_future_and_at_most_ten_years_away(world: World, end: int) -> None:
    await register_agent(world)
    wanted = world.now() + end
    if end in (1, flows.MAX_LIFETIME_S * SECOND):
        assert (await run_act(world, lambda a: flows.set_end(a, "bot", wanted))).expires_at == wanted
    else:
        with pytest.raises(Invalid):
            await run_act(world, lambda a: flows.set_end(a, "bot", wanted))


async def test_the_loss_of_a_scope_revokes_the_tokens_of_an_agent_and_a_new_scope_does_not(world: World) -> None:
    agent = await register_agent(world, scopes=["files:read"])
    await create_holding(world, agent, "tok_a")
    await run_act(world, lambda a: flows.set_scopes(a, "bot", ["files:read", "files:write"]))
    assert is_live(world, "tok_a")
    assert get_agent(world, "bot").epoch == 0
    await run_act(world, lambda a: flows.set_scopes(a, "bot", ["files:write"]))
    assert not is_live(world, "tok_a")
    assert (get_agent(world, "bot").epoch, get_agent(world, "bot").state) == (1, AgentState.ACTIVE)


async def test_an_agent_that_is_transferred_to_another_owner_loses_its_tokens(world: World) -> None:
    agent, bob = await register_agent(world), await create_person(world, "bob")
    await create_holding(world, agent, "tok_a")
    await run_act(world, lambda a: flows.transfer_agent(a, "bot", "bob", deputy="alice"))
    given = get_agent(world, "bot")
    assert (given.owner, given.deputy, given.epoch, given.state) == (bob, agent.owner, 1, AgentState.ACTIVE)
    assert not is_live(world, "tok_a")
    await run_act(world, lambda a: flows.create_team(a, name="empty", members=[]))
    with pytest.raises(Conflict, match="the owner of .* is not active"):
        await run_act(world, lambda a: flows.transfer_agent(a, "bot", "empty"))


@pytest.mark.parametrize("verb", list(Verb))
async def test_an_owner_may_suspend_or_revoke_an_agent_and_may_use_no_other_verb(world: World, verb: Verb) -> None:
    agent = await register_agent(world)
    owner = person_caller(agent.owner)
    if verb in (Verb.SUSPEND, Verb.REVOKE):
        assert await move(world, "bot", verb, by=owner) is AgentState.SUSPENDED
        return
    with pytest.raises(Forbidden):
        await move(world, "bot", verb, by=owner)
    assert get_agent(world, "bot") == agent


async def test_a_member_of_the_owning_team_may_stop_an_agent_and_a_stranger_may_not(world: World) -> None:
    for name in ("alice", "bob"):
        await create_person(world, name)
    await run_act(world, lambda a: flows.create_team(a, name="team", members=["alice"]))
    agent = await register_agent(world, owner="team")
    bob, alice = (flows.find_person(world.db.read(), name).person_id for name in ("bob", "alice"))
    for stranger in (
        person_caller(bob),
        agent_caller(agent),
        agent_caller(agent, "ostiary:read"),
        person_caller(agent.owner + "0"),
    ):
        with pytest.raises(Forbidden):
            await move(world, "bot", Verb.SUSPEND, by=stranger)
    assert await move(world, "bot", Verb.SUSPEND, by=person_caller(alice)) is AgentState.SUSPENDED
    assert await move(world, "bot", Verb.RESUME, by=person_caller(bob, "ostiary:admin")) is AgentState.ACTIVE


async def test_the_ledger_entry_of_a_state_change_names_the_caller_the_agent_and_the_reason(world: World) -> None:
    agent = await register_agent(world)
    by = person_caller(agent.owner)

    def suspend(a: Any) -> None:
        flows.record_caller(a, by)
        flows.set_agent_state(a, "bot", Verb.SUSPEND, why="odd", by=by)

    await run_act(world, suspend, "agent.suspend")
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.person, entry.object) == (
        "agent.suspend",
        "ok",
        agent.owner,
        agent.agent_id,
    )
    assert entry.owner == agent.owner
    assert entry.detail == {"name": "bot", "was": "active", "why": "odd"}
    with pytest.raises(Conflict):
        await run_act(world, suspend, "agent.suspend")
    entry = newest_entry(world)
    assert (entry.outcome, entry.object, entry.reasons[0].code) == ("refused", agent.agent_id, "wrong_state")
