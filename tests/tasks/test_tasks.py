"""Tasks: declaration, limits of their agent, renewal and end, with the end of their tokens."""

from __future__ import annotations

import pytest

from harness.clock import Clock
from harness.registry_fixtures import (
    SECOND,
    agent_caller,
    create_holding,
    create_person,
    feed_messages,
    is_live,
    newest_entry,
    person_caller,
    register_agent,
    run_act,
)
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import LONGEST_TOKEN, Agent, Verb
from ostiaryd.tasks import flows
from ostiaryd.tasks.model import TaskId, TaskSpec, TaskState, standing_id
from ostiaryd.tasks.store import tasks as store
from tests.tasks.task_fixtures import live, start


async def stop(world: World, verb: Verb, name: str = "bot") -> Agent:
    return await run_act(world, lambda a: registry.set_agent_state(a, name, verb))


async def test_a_task_has_all_scopes_of_its_agent_unless_it_requests_fewer(world: World) -> None:
    agent = await register_agent(world, scopes=["files:read", "files:write"])
    whole, part = await start(world), await start(world, scopes=["files:read"])
    assert whole.scopes == agent.scopes
    assert part.scopes == {"files:read"}
    assert live(world, whole.task_id) == whole
    with pytest.raises(Forbidden) as refused:
        await start(world, scopes=["files:read", "mail:send"])
    assert (refused.value.code, "mail:send" in refused.value.message) == ("widens", True)
    assert newest_entry(world).outcome == "refused"


async def test_a_scope_that_an_agent_loses_is_removed_from_its_tasks(world: World) -> None:
    await register_agent(world, scopes=["files:read", "files:write"])
    task = await start(world)
    await run_act(world, lambda a: registry.set_scopes(a, "bot", ["files:write", "mail:send"]))
    assert live(world, task.task_id).scopes == {"files:write"}


async def test_every_agent_has_a_standing_task_without_a_database_row(world: World) -> None:
    agent = await register_agent(world, scopes=["files:read"])
    standing = live(world, standing_id(agent.agent_id))
    assert standing.task_id[3:] == agent.agent_id[3:]
    assert (standing.agent, standing.scopes, standing.expires_at) == (agent.agent_id, agent.scopes, None)
    assert store.get_task(world.db.read(), standing.task_id) is None
    for flow in (
        lambda a: flows.end(a, standing.task_id),
        lambda a: flows.revoke(a, flows.RevokedKind.TASK, standing.task_id),
    ):
        with pytest.raises(Conflict, match="ends with its agent"):
            await run_act(world, flow)
    await stop(world, Verb.SUSPEND)
    with pytest.raises(Forbidden) as refused:
        live(world, standing.task_id)
    assert refused.value.code == "agent_suspended"


async def test_an_unknown_task_id_is_not_found(world: World) -> None:
    await register_agent(world)
    cases: list[str] = ["", "tk_", "tk_" + "0" * 32, "ag_" + "0" * 32, "bot"]
    for id in cases:
        with pytest.raises(NotFound):
            live(world, id)


async def test_the_end_of_a_task_revokes_its_tokens_and_notifies_the_guards(world: World) -> None:
    agent, other = await register_agent(world), await register_agent(world, "other")
    task, spared = await start(world), await start(world)
    await create_holding(world, agent, "tok_1", task=task.task_id)
    await create_holding(world, other, "tok_child", parent="tok_1", task="tk_else")
    await create_holding(world, agent, "tok_spared", task=spared.task_id)
    before = len(feed_messages(world))
    ended = await run_act(world, lambda a: flows.end(a, task.task_id, TaskState.FAILED), "task.end")
    assert (ended.state, ended.ended_at) == (TaskState.FAILED, world.now())
    assert [is_live(world, f"tok_{id}") for id in ("1", "child", "spared")] == [False, False, True]
    assert feed_messages(world)[before:] == [
        {"kind": "task", "task": task.task_id, "until": world.now() + LONGEST_TOKEN},
        {"kind": "token", "jti": "tok_child", "until": world.now() + 60 * SECOND},
    ]
    entry = newest_entry(world)
    assert (entry.object, entry.owner) == (task.task_id, agent.owner)
    assert entry.detail == {"agent": agent.agent_id, "outcome": "failed", "ended": {"token": 2}}
    assert flows.find_task(world.db.read(), task.task_id) == ended
    with pytest.raises(Forbidden) as refused:
        live(world, task.task_id)
    assert refused.value.code == "task_ended"


async def test_a_task_expires_at_its_microsecond_and_the_expiry_loop_records_the_expiry(
    world: World, clock: Clock
) -> None:
    agent = await register_agent(world)
    task = await start(world, ttl_s=1)
    await create_holding(world, agent, "tok_1", task=task.task_id)
    clock.advance(us=SECOND - 1)
    assert live(world, task.task_id) == task
    assert await flows.expire_due(world) == 0
    with pytest.raises(Conflict, match="the task has not expired"):
        await run_act(world, lambda a: flows.expire(a, task.task_id))
    clock.advance(us=1)
    with pytest.raises(Forbidden, match="expired"):
        live(world, task.task_id)
    for flow in (lambda a: flows.end(a, task.task_id), lambda a: flows.renew(a, task.task_id)):
        with pytest.raises((Conflict, Forbidden)):
            await run_act(world, flow)
    assert await flows.expire_due(world) == 1
    assert (newest_entry(world).action, newest_entry(world).object) == ("task.expire", task.task_id)
    assert flows.find_task(world.db.read(), task.task_id).state is TaskState.EXPIRED
    assert not is_live(world, "tok_1")
    assert store.list_ended_tasks(world.db.read(), since=clock.now - 1) == [(task.task_id, clock.now)]
    assert await flows.expire_due(world) == 0


async def test_a_renewal_never_moves_the_expiry_of_a_task_to_an_earlier_time(world: World, clock: Clock) -> None:
    await register_agent(world)
    task = await start(world, ttl_s=10)
    clock.advance(5)
    assert (await run_act(world, lambda a: flows.renew(a, task.task_id, ttl_s=5))).expires_at == task.expires_at
    with pytest.raises(Invalid, match="earlier than the present end"):
        await run_act(world, lambda a: flows.renew(a, task.task_id, ttl_s=4))
    renewed = await run_act(world, lambda a: flows.renew(a, task.task_id, ttl_s=10))
    assert renewed.expires_at == clock.now + 10 * SECOND
    assert live(world, task.task_id) == renewed


async def test_a_standing_task_has_no_end_that_could_be_renewed(world: World) -> None:
    agent = await register_agent(world)
    with pytest.raises(Invalid, match="a standing task has no end"):
        await run_act(world, lambda a: flows.renew(a, standing_id(agent.agent_id)))


async def test_the_ttl_of_a_task_is_one_second_to_thirty_days(world: World) -> None:
    await register_agent(world)
    cases: list[int] = [0, 1, 30 * 86_400, 30 * 86_400 + 1]
    for ttl in cases:
        if 1 <= ttl <= 30 * 86_400:
            assert (await start(world, ttl_s=ttl)).expires_at == world.now() + ttl * SECOND, ttl
        else:
            with pytest.raises(Invalid, match="ttl"):
                await start(world, ttl_s=ttl)


async def test_a_task_expires_after_an_hour_by_default_and_never_after_its_agent(world: World, clock: Clock) -> None:
    await register_agent(world)
    assert (await start(world)).expires_at == clock.now + 3600 * SECOND
    brief = await register_agent(world, "brief", expires_at=clock.now + 60 * SECOND)
    task = await start(world, "brief")
    assert task.expires_at == brief.expires_at
    assert (await run_act(world, lambda a: flows.renew(a, task.task_id))).expires_at == brief.expires_at


async def test_a_purpose_has_one_to_a_thousand_characters(world: World) -> None:
    await register_agent(world)
    cases: list[int] = [0, 1, 1000, 1001]
    for length in cases:
        if 1 <= length <= 1000:
            assert await start(world, purpose="x" * length), length
        else:
            with pytest.raises(Invalid, match="purpose"):
                await start(world, purpose="x" * length)


async def test_an_agent_has_at_most_a_thousand_live_tasks(world: World, clock: Clock) -> None:
    await register_agent(world)
    first, *_ = await run_act(
        world, lambda a: [flows.start(a, TaskSpec(agent="bot", purpose="p", ttl_s=2)) for _ in range(1000)]
    )
    with pytest.raises(Conflict) as refused:
        await start(world)
    assert refused.value.code == "too_many_tasks"
    await run_act(world, lambda a: flows.end(a, first.task_id))
    assert await start(world)
    with pytest.raises(Conflict):
        await start(world)
    clock.advance(2)
    assert await start(world)


async def test_the_limit_of_live_tasks_of_an_agent_applies_to_each_person(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register_agent(world)
    people = [await create_person(world, name) for name in ("ida", "zoe")]
    monkeypatch.setattr("ostiaryd.tasks.flows.tasks.MAX_LIVE", 2)
    for person in (*people, None):
        for _ in range(2):
            await start(world, on_behalf_of=person)
        with pytest.raises(Conflict) as refused:
            await start(world, on_behalf_of=person)
        assert refused.value.code == "too_many_tasks"


@pytest.mark.parametrize("verb", [Verb.SUSPEND, Verb.QUARANTINE, Verb.DECOMMISSION])
async def test_a_stopped_agent_has_no_live_task_and_starts_no_task(world: World, verb: Verb) -> None:
    await register_agent(world)
    task = await start(world)
    await stop(world, verb)
    with pytest.raises(Forbidden):
        live(world, task.task_id)
    with pytest.raises(Forbidden):
        await start(world)
    with pytest.raises(Forbidden):
        await run_act(world, lambda a: flows.renew(a, task.task_id))
    assert (
        await run_act(world, lambda a: flows.end(a, task.task_id, TaskState.CANCELLED))
    ).state is TaskState.CANCELLED


async def test_a_task_cannot_be_on_behalf_of_an_unknown_person_or_a_person_who_has_left(world: World) -> None:
    agent, bob = await register_agent(world), await create_person(world, "bob")
    task = await start(world, on_behalf_of="bob")
    assert task.person == bob
    assert newest_entry(world).person == bob
    await run_act(world, lambda a: registry.revoke_owner(a, "bob"))
    with pytest.raises(Forbidden) as refused:
        live(world, task.task_id)
    assert refused.value.code == "person_left"
    with pytest.raises(Forbidden, match="has left"):
        await start(world, on_behalf_of=bob)
    with pytest.raises(NotFound):
        await start(world, on_behalf_of="nobody")
    assert live(world, standing_id(agent.agent_id)).person is None


async def test_an_agent_starts_tasks_only_on_behalf_of_a_person_accountable_for_the_agent(world: World) -> None:
    agent = await register_agent(world)
    await create_person(world, "bob")
    assert (await start(world, on_behalf_of="alice", by=agent_caller(agent))).person == agent.owner
    with pytest.raises(Forbidden, match="is not accountable"):
        await start(world, on_behalf_of="bob", by=agent_caller(agent))
    assert (await start(world, on_behalf_of="bob", by=agent_caller(agent, "ostiary:admin"))).person


async def test_only_the_agent_of_a_task_its_owner_and_administrators_can_change_the_task(world: World) -> None:
    agent, other, bob = (
        await register_agent(world),
        await register_agent(world, "other"),
        await create_person(world, "bob"),
    )
    for by in (agent_caller(agent), person_caller(agent.owner), agent_caller(other, "ostiary:admin"), None):
        task = await start(world, by=by)
        assert await run_act(world, lambda a, t=task, by=by: flows.renew(a, t.task_id, by=by))  # type: ignore[misc]
        assert await run_act(world, lambda a, t=task, by=by: flows.end(a, t.task_id, by=by))  # type: ignore[misc]
    task = await start(world)
    for by in (agent_caller(other), agent_caller(other, "ostiary:read"), person_caller(bob)):
        for flow in (
            lambda a, by=by: flows.start(a, TaskSpec(agent="bot", purpose="p", by=by)),
            lambda a, by=by: flows.renew(a, task.task_id, by=by),
            lambda a, by=by: flows.end(a, task.task_id, by=by),
        ):
            with pytest.raises(Forbidden, match="another agent"):
                await run_act(world, flow)
    assert live(world, task.task_id) == task


async def test_a_task_cannot_be_ended_with_the_outcome_live_or_expired(world: World) -> None:
    await register_agent(world)
    task = await start(world)
    for outcome in (TaskState.LIVE, TaskState.EXPIRED):
        with pytest.raises(Invalid):
            await run_act(world, lambda a, outcome=outcome: flows.end(a, task.task_id, outcome))  # type: ignore[misc]
    with pytest.raises(NotFound):
        await run_act(world, lambda a: flows.end(a, TaskId("tk_" + "0" * 32)))
