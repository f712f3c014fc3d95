"""Persons and teams: how they enter, and what becomes of their agents when they leave."""

from __future__ import annotations

import pytest

from harness.registry_fixtures import (
    create_holding,
    create_person,
    feed_messages,
    get_agent,
    is_live,
    newest_entry,
    register_agent,
    run_act,
)
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiaryd.ground.world import World
from ostiaryd.registry import flows
from ostiaryd.registry.model import AgentSpec, AgentState, PersonState, Verb
from ostiaryd.registry.store import owners


async def test_persons_and_teams_share_one_namespace(world: World) -> None:
    await create_person(world, "alice", email="alice@example.org")
    await run_act(world, lambda a: flows.create_team(a, name="team", members=["alice"]))
    for name in ("alice", "team"):
        with pytest.raises(Conflict, match="taken"):
            await create_person(world, name)
        with pytest.raises(Conflict, match="taken"):
            await run_act(world, lambda a, name=name: flows.create_team(a, name=name, members=[]))  # type: ignore[misc]


async def test_a_person_with_an_invalid_property_is_not_created(world: World) -> None:
    for wrong in ({"name": "Alice"}, {"name": "alice", "email": "nowhere"}):
        with pytest.raises(Invalid):
            await run_act(world, lambda a, wrong=wrong: flows.create_person(a, **wrong))  # type: ignore[misc]
    with pytest.raises(NotFound):
        await run_act(world, lambda a: flows.create_person(a, name="alice", deputy="bob"))
    assert owners.get_owner(world.db.read(), "alice") is None


async def test_a_person_cannot_be_their_own_deputy(world: World) -> None:
    await create_person(world, "alice")
    bob = await create_person(world, "bob", deputy="alice")
    with pytest.raises(Invalid):
        await run_act(world, lambda a: flows.set_deputy(a, "bob", "bob"))
    with pytest.raises(Invalid, match="owner and deputy"):
        await register_agent(world, owner="alice", deputy="alice")
    assert (await run_act(world, lambda a: flows.set_deputy(a, "alice", "bob"))).deputy == bob
    assert (await run_act(world, lambda a: flows.set_deputy(a, "bob", None))).deputy is None


async def test_the_last_member_of_a_team_that_owns_agents_cannot_be_removed(world: World) -> None:
    for name in ("alice", "bob"):
        await create_person(world, name)
    await run_act(world, lambda a: flows.create_team(a, name="team", members=["alice"]))
    await register_agent(world, owner="team")
    with pytest.raises(Conflict, match="would be empty"):
        await run_act(world, lambda a: flows.remove_member(a, "team", "alice"))
    for _ in range(2):
        await run_act(world, lambda a: flows.add_member(a, "team", "bob"))
    await run_act(world, lambda a: flows.remove_member(a, "team", "alice"))
    with pytest.raises(Conflict, match="is not in the team"):
        await run_act(world, lambda a: flows.remove_member(a, "team", "alice"))
    team = flows.find_team(world.db.read(), "team")
    assert owners.list_members(world.db.read(), team.team_id) == [flows.find_person(world.db.read(), "bob").person_id]


async def test_a_full_team_accepts_no_further_member_but_a_present_one_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.registry.flows.owners.MAX_MEMBERS", 1)
    for name in ("alice", "bob"):
        await create_person(world, name)
    await run_act(world, lambda a: flows.create_team(a, name="team", members=["alice"]))
    with pytest.raises(Conflict, match="has 1 members, the maximum"):
        await run_act(world, lambda a: flows.add_member(a, "team", "bob"))
    assert (await run_act(world, lambda a: flows.add_member(a, "team", "alice"))).name == "team"


async def test_an_owner_with_the_maximum_of_roles_gets_no_further_role_but_a_present_one_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.registry.flows.roles.MAX_ROLES", 1)
    await create_person(world, "alice")
    await run_act(world, lambda a: flows.grant_role(a, "alice", "auditor"))
    with pytest.raises(Conflict, match="has 1 roles"):
        await run_act(world, lambda a: flows.grant_role(a, "alice", "operator"))
    assert (await run_act(world, lambda a: flows.grant_role(a, "alice", "auditor"))).name == "alice"


async def test_an_agent_without_an_active_owner_or_deputy_cannot_be_registered(world: World) -> None:
    await run_act(world, lambda a: flows.create_team(a, name="empty", members=[]))
    with pytest.raises(Conflict, match="the owner of .* is not active"):
        await run_act(world, lambda a: flows.create_agent(a, AgentSpec(name="bot", owner="empty", purpose="p")))


async def test_agents_of_a_revoked_owner_pass_to_their_deputy_and_their_tokens_end(world: World) -> None:
    dora, bob = await create_person(world, "dora"), await create_person(world, "bob")
    await create_person(world, "alice", deputy="bob")
    first = await register_agent(world, "first", deputy="dora")
    second = await register_agent(world, "second")
    other = await register_agent(world, "other", owner="bob")
    await create_holding(world, first, "tok_1")
    await create_holding(world, second, "tok_2")
    await create_holding(world, other, "tok_derived", parent="tok_1")
    await create_holding(world, other, "tok_own")
    before = len(feed_messages(world))
    ended = await run_act(world, lambda a: flows.revoke_owner(a, "alice"))
    assert ended == {"token": 3}
    assert [is_live(world, f"tok_{id}") for id in ("1", "2", "derived", "own")] == [False, False, False, True]
    for name, heir in (("first", dora), ("second", bob)):
        agent = get_agent(world, name)
        assert (agent.owner, agent.deputy, agent.state, agent.epoch) == (heir, None, AgentState.ACTIVE, 1)
    assert get_agent(world, "other") == other
    assert flows.find_person(world.db.read(), "alice").state is PersonState.LEFT
    told = feed_messages(world)[before:]
    assert sorted(delta["kind"] for delta in told) == ["agent", "agent", "token"]
    assert [delta["jti"] for delta in told if delta["kind"] == "token"] == ["tok_derived"]
    assert newest_entry(world).detail == {
        "name": "alice",
        "why": "owner left",
        "ended": {"token": 3},
        "passed_to": {dora: 1, bob: 1},
    }


async def test_agents_of_a_revoked_owner_without_an_active_deputy_are_suspended(world: World) -> None:
    await create_person(world, "dora")
    await create_person(world, "alice", deputy="dora")
    await register_agent(world, "active", deputy="dora")
    await register_agent(world, "pending", has_key=False)
    await register_agent(world, "held")
    await run_act(world, lambda a: flows.set_agent_state(a, "held", Verb.QUARANTINE))
    await register_agent(world, "gone")
    await run_act(world, lambda a: flows.set_agent_state(a, "gone", Verb.DECOMMISSION))
    await run_act(world, lambda a: flows.revoke_owner(a, "dora"))
    await run_act(world, lambda a: flows.revoke_owner(a, "alice"))
    assert [get_agent(world, name).state for name in ("active", "pending", "held", "gone")] == [
        AgentState.SUSPENDED,
        AgentState.SUSPENDED,
        AgentState.QUARANTINED,
        AgentState.DECOMMISSIONED,
    ]
    with pytest.raises(Conflict, match="has left"):
        await run_act(world, lambda a: flows.set_deputy(a, "alice", "dora"))
    with pytest.raises(Conflict, match="the owner of .* is not active"):
        await run_act(world, lambda a: flows.create_agent(a, AgentSpec(name="new", owner="alice", purpose="p")))


async def test_the_agents_of_a_team_pass_to_its_deputy_when_its_last_member_leaves(world: World) -> None:
    for name in ("alice", "bob", "dora"):
        await create_person(world, name)
    await run_act(world, lambda a: flows.create_team(a, name="pair", members=["alice", "bob"]))
    await run_act(world, lambda a: flows.create_team(a, name="single", members=["alice"], deputy="dora"))
    await register_agent(world, "kept", owner="pair")
    await register_agent(world, "passed", owner="single")
    kept = get_agent(world, "kept")
    await create_holding(world, kept, "tok_kept")
    await create_holding(world, get_agent(world, "passed"), "tok_passed")
    await run_act(world, lambda a: flows.revoke_owner(a, "alice"))
    assert get_agent(world, "kept") == kept
    assert is_live(world, "tok_kept")
    assert not is_live(world, "tok_passed")
    assert get_agent(world, "passed").owner == flows.find_person(world.db.read(), "dora").person_id


async def test_a_second_revocation_of_an_owner_ends_nothing_more(world: World) -> None:
    bob = await create_person(world, "bob")
    await create_holding(world, await register_agent(world, deputy="bob"), "tok_1")
    assert await run_act(world, lambda a: flows.revoke_owner(a, "alice")) == {"token": 1}
    passed = get_agent(world, "bot")
    await create_holding(world, passed, "tok_2")
    before = feed_messages(world)
    assert await run_act(world, lambda a: flows.revoke_owner(a, "alice")) == {}
    assert (get_agent(world, "bot"), passed.owner) == (passed, bob)
    assert is_live(world, "tok_2")
    assert feed_messages(world) == before
    with pytest.raises(NotFound):
        await run_act(world, lambda a: flows.revoke_owner(a, "nobody"))
