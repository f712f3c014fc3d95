"""Child tasks: never wider than their parents, delegated from agent to agent, and ended with each task above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from harness.clock import Clock
from harness.registry_fixtures import (
    SECOND,
    agent_caller,
    call_admin_api,
    create_holding,
    create_person,
    feed_messages,
    is_live,
    newest_entry,
    person_caller,
    register_agent,
    run_act,
)
from ostiary.authorization.bounds import InvalidDetails, parse_details
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import MAX_DEPTH, Agent, AgentSpec, Verb
from ostiaryd.tasks import flows
from ostiaryd.tasks.flows import tasks as starting
from ostiaryd.tasks.model import Task, TaskSpec, TaskState, standing_id
from ostiaryd.tasks.store import tasks as store

SCOPES = ["files:read", "files:write"]
READ = [{"type": "tool", "locations": ["https://files.example/"], "actions": ["read_file"]}]
WRITE = [{"type": "tool", "locations": ["https://files.example/"], "actions": ["write_file"]}]


async def start(world: World, agent: str = "top", **more: Any) -> Task:
    return await run_act(
        world, lambda a: flows.start(a, TaskSpec(**({"agent": agent, "purpose": "to sort the mail"} | more)))
    )


async def agents(world: World, *names: str, **more: Any) -> list[Agent]:
    return [await register_agent(world, name, **({"scopes": SCOPES} | more)) for name in names]


async def line(world: World, *names: str) -> list[Task]:
    """Start a task of each agent, each as a child of the task before; return the tasks."""
    tasks: list[Task] = []
    for name in names:
        tasks.append(await start(world, name, parent=tasks[-1].task_id if tasks else None))
    return tasks


def live(world: World, task: Task | str) -> Task:
    return flows.live(world.db.read(), task if isinstance(task, str) else task.task_id, now=world.now())


def states(world: World, *tasks: Task) -> list[str]:
    return [flows.find_task(world.db.read(), task.task_id).state_at(world.now()).value for task in tasks]


async def refused(world: World, flow: Callable[[Act], object]) -> str:
    with pytest.raises((Forbidden, InvalidDetails, Conflict)) as refusal:
        await run_act(world, flow)
    assert newest_entry(world).outcome == "refused"
    return refusal.value.code


async def test_a_child_task_has_the_scopes_that_its_parent_and_its_agent_share(world: World) -> None:
    top, _ = await agents(world, "top", "sub")
    await run_act(world, lambda a: registry.set_scopes(a, "sub", ["files:read", "mail:send"]))
    whole = await start(world, on_behalf_of="alice", bounds=parse_details(READ))
    part = await start(world, "sub", parent=whole.task_id)
    assert (part.parent, part.depth, part.person) == (whole.task_id, 1, top.owner)
    assert part.scopes == {"files:read"}
    assert (part.bounds, part.expires_at) == (whole.bounds, whole.expires_at)
    assert [(link.agent, link.epoch, link.task) for link in part.chain] == [(top.agent_id, 0, whole.task_id)]
    assert live(world, part) == part


async def test_a_child_task_inherits_bounds_that_its_agent_can_only_partly_reach(world: World) -> None:
    await agents(world, "top", "sub")
    for name in ("files", "mail"):
        await run_act(world, lambda a, n=name: registry.create_resource(a, name=n, uri=f"https://{n}.example/"))  # type: ignore[misc]
    await run_act(world, lambda a: registry.set_scopes(a, "top", [*SCOPES, "mail:send"]))
    both = [{"type": "tool", "locations": ["https://files.example/", "https://mail.example/"]}]
    whole = await start(world, bounds=parse_details(both))
    part = await start(world, "sub", parent=whole.task_id)
    assert (part.bounds, part.scopes) == (whole.bounds, frozenset(SCOPES))
    said: dict[str, Any] = {"agent": "sub", "purpose": "p", "parent": whole.task_id, "bounds": whole.bounds}
    assert (
        await refused(world, lambda a: flows.start(a, TaskSpec(**said))) == "widens"
    )  # who asks for them must reach them


async def test_a_child_task_cannot_widen_the_scopes_the_bounds_or_the_person_of_its_parent(world: World) -> None:
    top, sub = await agents(world, "top", "sub")
    await create_person(world, "bob")
    whole = await start(world, scopes=["files:read"], bounds=parse_details(READ))
    for wider, code in (
        ({"scopes": SCOPES}, "widens"),
        ({"scopes": ["mail:send"]}, "widens"),
        ({"bounds": parse_details(WRITE)}, "invalid_authorization_details"),
        (
            {"bounds": parse_details([{"type": "tool", "locations": ["https://files.example/"]}])},
            "invalid_authorization_details",
        ),
        ({"on_behalf_of": "alice"}, "widens"),
    ):
        for agent in ("top", "sub"):
            said: dict[str, Any] = {"agent": agent, "purpose": "p", "parent": whole.task_id} | wider
            assert await refused(world, lambda a, said=said: flows.start(a, TaskSpec(**said))) == code  # type: ignore[misc]
    for_alice = await start(world, on_behalf_of="alice")
    said = {"agent": "sub", "purpose": "p", "parent": for_alice.task_id}
    assert await refused(world, lambda a: flows.start(a, TaskSpec(**said, on_behalf_of="bob"))) == "widens"
    assert (await start(world, "sub", parent=for_alice.task_id, on_behalf_of="alice")).person == top.owner
    assert await refused(world, lambda a: flows.start(a, TaskSpec(**said, scopes=["mail:send"]))) == "widens"
    assert sub.scopes == top.scopes


async def test_a_scope_that_an_agent_loses_is_lost_to_the_tasks_below_its_task(world: World) -> None:
    await agents(world, "top", "mid", "low")
    _, _, part = await line(world, "top", "mid", "low")
    assert live(world, part).scopes == set(SCOPES)
    await run_act(world, lambda a: registry.set_scopes(a, "top", ["files:read", "mail:send"]))
    assert live(world, part).scopes == {"files:read"}
    await run_act(world, lambda a: registry.set_scopes(a, "mid", []))
    assert live(world, part).scopes == set()


async def test_no_child_task_outlives_its_parent(world: World, clock: Clock) -> None:
    await agents(world, "top", "sub")
    whole = await start(world, ttl_s=10)
    part = await start(world, "sub", parent=whole.task_id, ttl_s=60)
    brief = await start(world, "sub", parent=whole.task_id, ttl_s=5)
    assert [part.expires_at, brief.expires_at] == [whole.expires_at, clock.now + 5 * SECOND]
    assert (await run_act(world, lambda a: flows.renew(a, brief.task_id, ttl_s=60))).expires_at == whole.expires_at
    await run_act(world, lambda a: flows.renew(a, whole.task_id, ttl_s=20))
    assert (
        await run_act(world, lambda a: flows.renew(a, part.task_id, ttl_s=60))
    ).expires_at == clock.now + 20 * SECOND
    with pytest.raises(Invalid, match="earlier than the present end"):
        await run_act(world, lambda a: flows.renew(a, part.task_id, ttl_s=19))
    clock.advance(20)
    for task in (whole, part):
        with pytest.raises(Forbidden, match="expired"):
            live(world, task)


async def test_a_child_of_a_standing_task_ends_with_the_agent_that_delegated_it(world: World, clock: Clock) -> None:
    top, sub = await agents(world, "top", "sub", expires_at=clock.now + 30 * SECOND)
    await run_act(world, lambda a: registry.set_end(a, "sub", None))
    part = await start(world, "sub", parent=standing_id(top.agent_id))
    assert (part.depth, part.expires_at) == (1, top.expires_at)
    await create_holding(world, sub, "tok_part", task=part.task_id, seconds=20)
    await run_act(world, lambda a: registry.set_end(a, "top", clock.now + 20 * SECOND))
    assert live(world, part).expires_at == clock.now + 20 * SECOND
    await run_act(world, lambda a: registry.set_agent_state(a, "top", Verb.SUSPEND))
    assert not is_live(world, "tok_part")
    with pytest.raises(Forbidden) as refusal:
        live(world, part)
    assert refusal.value.code == "agent_suspended"
    await run_act(world, lambda a: registry.set_agent_state(a, "top", Verb.RESUME))
    assert live(world, part).chain[0].epoch == 1
    assert (await run_act(world, lambda a: flows.revoke(a, flows.RevokedKind.AGENT, "top")))["task"] == 1
    assert states(world, part) == ["cancelled"]


async def test_only_the_agent_of_a_task_its_owner_or_an_administrator_starts_child_tasks(world: World) -> None:
    top, sub = await agents(world, "top", "sub")
    bob = await create_person(world, "bob")
    whole = await start(world)
    for by in (agent_caller(top), person_caller(top.owner), agent_caller(sub, "ostiary:admin"), None):
        assert (await start(world, "sub", parent=whole.task_id, by=by)).agent == sub.agent_id
        assert (await start(world, "top", parent=whole.task_id, by=by)).agent == top.agent_id
    for by in (agent_caller(sub), agent_caller(sub, "ostiary:read"), person_caller(bob)):
        said: dict[str, Any] = {"agent": "sub", "purpose": "p", "parent": whole.task_id, "by": by}
        assert await refused(world, lambda a, said=said: flows.start(a, TaskSpec(**said))) == "forbidden"  # type: ignore[misc]
    for id in ("", "tk_" + "0" * 32, "ag_1"):
        with pytest.raises(NotFound):
            await start(world, "sub", parent=id)


async def test_no_child_task_starts_under_an_ended_task_or_below_a_suspended_agent(world: World, clock: Clock) -> None:
    await agents(world, "top", "mid", "low")
    ended, expired, whole = await start(world), await start(world, ttl_s=1), await start(world)
    part = await start(world, "mid", parent=whole.task_id)
    await run_act(world, lambda a: flows.end(a, ended.task_id))
    clock.advance(1)
    for parent in (ended, expired):
        said: dict[str, Any] = {"agent": "mid", "purpose": "p", "parent": parent.task_id}
        assert await refused(world, lambda a, said=said: flows.start(a, TaskSpec(**said))) == "task_ended"  # type: ignore[misc]
    for stopped in ("top", "mid"):
        await run_act(world, lambda a, name=stopped: registry.set_agent_state(a, name, Verb.SUSPEND))  # type: ignore[misc]
        said = {"agent": "low", "purpose": "p", "parent": part.task_id}
        assert await refused(world, lambda a, said=said: flows.start(a, TaskSpec(**said))) == "agent_suspended"  # type: ignore[misc]
        await run_act(world, lambda a, name=stopped: registry.set_agent_state(a, name, Verb.RESUME))  # type: ignore[misc]
    assert (await start(world, "low", parent=part.task_id)).depth == 2


async def test_a_child_task_cannot_be_delegated_to_an_agent_above_it(world: World) -> None:
    await agents(world, "top", "mid", "low")
    tasks = await line(world, "top", "mid", "low")
    for agent in ("top", "mid"):
        said = {"agent": agent, "purpose": "p", "parent": tasks[-1].task_id}
        assert await refused(world, lambda a, said=said: flows.start(a, TaskSpec(**said))) == "loop"  # type: ignore[misc]
    again = await start(world, "low", parent=tasks[-1].task_id)
    assert [link.task for link in again.chain] == [task.task_id for task in reversed(tasks)]


async def test_the_max_depth_of_an_agent_limits_the_number_of_agents_after_it(world: World) -> None:
    await agents(world, "top", "a", "b", "c", "d")
    tasks = await line(world, "top", "a", "b", "c")
    said: dict[str, Any] = {"agent": "d", "purpose": "p", "parent": tasks[-1].task_id}
    assert await refused(world, lambda a: flows.start(a, TaskSpec(**said))) == "too_deep"
    await run_act(world, lambda a: registry.set_depth(a, "top", 4))
    assert (await start(world, **said)).depth == 4
    await run_act(world, lambda a: registry.set_depth(a, "c", 0))
    assert await refused(world, lambda a: flows.start(a, TaskSpec(**said))) == "too_deep"
    assert (await start(world, "c", parent=tasks[-1].task_id)).depth == 4  # a part of its own comes after nobody
    await run_act(world, lambda a: registry.set_depth(a, "top", 2))
    with pytest.raises(Forbidden, match="allows at most 2 agents after it"):
        live(world, tasks[-1])
    assert live(world, tasks[-2])


@pytest.mark.parametrize("depth", [-1, 0, MAX_DEPTH, MAX_DEPTH + 1])
async def test_the_max_depth_of_an_agent_is_at_least_zero_and_at_most_the_maximum(world: World, depth: int) -> None:
    await agents(world, "bot")
    if 0 <= depth <= MAX_DEPTH:
        assert (await run_act(world, lambda a: registry.set_depth(a, "bot", depth))).max_depth == depth
        assert (await register_agent(world, "other", max_depth=depth)).max_depth == depth
    else:
        for flow in (
            lambda a: registry.set_depth(a, "bot", depth),
            lambda a: registry.create_agent(a, AgentSpec(name="other", owner="alice", purpose="p", max_depth=depth)),
        ):
            with pytest.raises(Invalid, match="0 to 7"):
                await run_act(world, flow)


async def test_a_task_has_at_most_seven_tasks_above_it(world: World) -> None:
    await agents(world, "top")
    tasks = await line(world, *["top"] * (MAX_DEPTH + 1))
    assert (tasks[-1].depth, len(live(world, tasks[-1]).chain)) == (MAX_DEPTH, MAX_DEPTH)
    said: dict[str, Any] = {"agent": "top", "purpose": "p", "parent": tasks[-1].task_id}
    assert await refused(world, lambda a: flows.start(a, TaskSpec(**said))) == "too_deep"


async def test_a_task_cannot_be_delegated_to_another_segment(world: World) -> None:
    await register_agent(world, "top", scopes=SCOPES)
    await register_agent(world, "far", scopes=SCOPES, segment="finance")
    whole = await start(world)
    said: dict[str, Any] = {"agent": "far", "purpose": "p", "parent": whole.task_id}
    assert await refused(world, lambda a: flows.start(a, TaskSpec(**said))) == "widens"


@pytest.mark.parametrize("how", ["end", "revoke", "expire"])
async def test_the_end_of_a_task_ends_exactly_the_tasks_below_it(world: World, clock: Clock, how: str) -> None:
    top, mid, low = await agents(world, "top", "mid", "low")
    whole, beside = await start(world, ttl_s=60), await start(world)
    part = await start(world, "mid", parent=whole.task_id, ttl_s=30)
    other = await start(world, "mid", parent=whole.task_id, ttl_s=60)
    lowest = await start(world, "low", parent=part.task_id, ttl_s=30)
    own = await start(world, "low", ttl_s=60)
    for agent, task in ((top, whole), (mid, part), (mid, other), (low, lowest), (low, own), (top, beside)):
        await create_holding(world, agent, f"tok_{task.task_id}", task=task.task_id, seconds=30)
    await create_holding(world, low, "tok_derived", parent=f"tok_{part.task_id}", task=part.task_id, seconds=30)
    before = len(feed_messages(world))
    match how:
        case "end":
            await run_act(world, lambda a: flows.end(a, part.task_id))
        case "revoke":
            ended = await run_act(world, lambda a: flows.revoke(a, flows.RevokedKind.TASK, part.task_id))
            assert ended == {"task": 2, "token": 3}
        case "expire":
            clock.advance(30)
            assert await flows.expire_due(world) == 1
            clock.advance(-1)
    dead, alive = (part, lowest), (whole, other, own, beside)
    under = {"end": ["done", "cancelled"], "revoke": ["cancelled"] * 2, "expire": ["expired"] * 2}[how]
    assert states(world, *dead) == under
    assert states(world, *alive) == ["live"] * 4
    if how != "expire":
        assert not any(is_live(world, f"tok_{task.task_id}") for task in dead)
        assert not is_live(world, "tok_derived")
        assert all(is_live(world, f"tok_{task.task_id}") for task in alive)
        assert (newest_entry(world).detail or {})["ended"] == {"task": 2, "token": 3}
    told = [fact for fact in feed_messages(world)[before:] if fact["kind"] != "agent"]
    assert [(fact["kind"], fact["task"]) for fact in told] == [("task", part.task_id)]
    assert [id for id, _ in store.list_ended_tasks(world.db.read(), since=0)] == [part.task_id]
    with pytest.raises(Forbidden):
        live(world, lowest)


async def test_the_quarantine_of_an_agent_ends_exactly_the_tokens_delegated_through_the_agent(world: World) -> None:
    top, mid, low = await agents(world, "top", "mid", "low")
    whole, part, lowest = await line(world, "top", "mid", "low")
    own = await start(world, "low")
    for agent, task in ((top, whole), (mid, part), (low, lowest), (low, own)):
        await create_holding(world, agent, f"tok_{task.task_id}", task=task.task_id)
    await run_act(world, lambda a: registry.set_agent_state(a, "mid", Verb.QUARANTINE))
    assert [is_live(world, f"tok_{task.task_id}") for task in (whole, part, lowest, own)] == [True, False, False, True]
    for task in (part, lowest):
        with pytest.raises(Forbidden):
            live(world, task)
    assert live(world, whole)
    assert live(world, own)
    ended = await run_act(world, lambda a: flows.revoke(a, flows.RevokedKind.AGENT, "mid"))
    assert ended == {"task": 2}
    assert states(world, whole, part, lowest, own) == ["live", "cancelled", "cancelled", "live"]


async def test_the_revocation_of_an_agent_is_sent_to_guards_as_one_task_and_one_agent(world: World) -> None:
    _top, low = await agents(world, "top", "low")
    whole, part = await line(world, "top", "low")
    await create_holding(world, low, "tok_low", task=part.task_id)
    before = len(feed_messages(world))
    assert await run_act(world, lambda a: flows.revoke(a, flows.RevokedKind.AGENT, "top")) == {"task": 2, "token": 1}
    assert [(fact["kind"], fact.get("task")) for fact in feed_messages(world)[before:]] == [
        ("task", whole.task_id),
        ("agent", None),
    ]
    assert not is_live(world, "tok_low")


async def test_the_revocation_of_an_owner_ends_the_tasks_delegated_by_agents_of_the_owner(world: World) -> None:
    await register_agent(world, "top", scopes=SCOPES, owner="bob")
    (low,) = await agents(world, "low")
    _, part = await line(world, "top", "low")
    await create_holding(world, low, "tok_low", task=part.task_id)
    ended = await run_act(world, lambda a: flows.revoke(a, flows.RevokedKind.OWNER, "bob"))
    assert ended == {"task": 2, "token": 1}
    assert not is_live(world, "tok_low")
    assert states(world, part) == ["cancelled"]


async def test_an_agent_above_a_task_may_renew_and_end_it_and_an_agent_below_may_not(world: World) -> None:
    top, mid, low = await agents(world, "top", "mid", "low")
    _, part, lowest = await line(world, "top", "mid", "low")
    for agent in (top, mid, low):
        assert flows.find_visible(world.db.read(), lowest.task_id, by=agent_caller(agent)).task_id == lowest.task_id
    with pytest.raises(Forbidden):
        flows.find_visible(world.db.read(), part.task_id, by=agent_caller(low))
    assert await refused(world, lambda a: flows.end(a, part.task_id, by=agent_caller(low))) == "forbidden"
    assert await run_act(world, lambda a: flows.renew(a, lowest.task_id, by=agent_caller(top)))
    assert (await run_act(world, lambda a: flows.end(a, lowest.task_id, by=agent_caller(top)))).state is TaskState.DONE


async def test_a_delegated_task_counts_against_the_task_limit_of_the_delegating_agent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "MAX_LIVE", 2)
    await agents(world, "top", "sub")
    whole = await start(world)
    first, _ = [await start(world, "sub", parent=whole.task_id) for _ in range(2)]
    said: dict[str, Any] = {"agent": "sub", "purpose": "p", "parent": whole.task_id}
    assert await refused(world, lambda a: flows.start(a, TaskSpec(**said))) == "too_many_tasks"
    assert await start(world, "sub")
    assert await start(world, "sub")
    await run_act(world, lambda a: flows.end(a, first.task_id))
    assert await start(world, **said)


async def test_a_tree_of_tasks_is_shown_to_the_agents_that_may_see_its_top(world: World, clock: Clock) -> None:
    top, mid, _ = await agents(world, "top", "mid", "low")
    whole, part, lowest = await line(world, "top", "mid", "low")
    clock.advance(1)
    other = await start(world, "low", parent=part.task_id)
    await run_act(world, lambda a: flows.end(a, lowest.task_id))
    status, found = await call_admin_api(world, "GET", f"/tasks/{whole.task_id}/tree", by=agent_caller(top))
    assert (status, found["next"]) == (200, None)
    assert [(task["task_id"], task["parent"], task["state"]) for task in found["tasks"]] == [
        (whole.task_id, None, "live"),
        (part.task_id, whole.task_id, "live"),
        (lowest.task_id, part.task_id, "done"),
        (other.task_id, part.task_id, "live"),
    ]
    assert (
        len((await call_admin_api(world, "GET", f"/tasks/{part.task_id}/tree", by=agent_caller(mid)))[1]["tasks"]) == 3
    )
    assert (await call_admin_api(world, "GET", f"/tasks/{whole.task_id}/tree", by=agent_caller(mid)))[0] == 403
    standing = standing_id(top.agent_id)
    given = await start(world, "mid", parent=standing)
    _, found = await call_admin_api(world, "GET", f"/tasks/{standing}/tree", by=agent_caller(top))
    assert [task["task_id"] for task in found["tasks"]] == [standing, given.task_id]


async def test_the_admin_api_evaluates_policies_before_a_task_is_delegated_to_another_agent(world: World) -> None:
    top, sub = await agents(world, "top", "sub")
    by_top = replace(agent_caller(top), jkt="the key of top")
    _, whole = await call_admin_api(world, "POST", "/tasks", {"purpose": "p"}, by=by_top)
    body = {"purpose": "p", "parent": whole["task_id"], "agent": "sub", "scopes": ["files:read"]}
    status, part = await call_admin_api(world, "POST", "/tasks", body, by=by_top)
    assert (status, part["agent"], part["parent"], part["depth"]) == (201, "sub", whole["task_id"], 1)
    assert newest_entry(world).policies == ["delegate-within-segment"]
    policy = """
        permit (principal, action == Action::"delegate", resource) when { context.depth < 2 };
        @reason("nobody hands writing on")
        forbid (principal, action == Action::"delegate", resource) when { context.scopes.contains("files:write") };
    """
    await put(world, policy)
    status, refusal = await call_admin_api(world, "POST", "/tasks", body | {"scopes": SCOPES}, by=by_top)
    assert (status, refusal["error"], refusal["message"]) == (403, "access_denied", "nobody hands writing on")
    assert (await call_admin_api(world, "POST", "/tasks", body, by=by_top))[0] == 201
    own = {"purpose": "p", "parent": whole["task_id"]}
    assert (await call_admin_api(world, "POST", "/tasks", own, by=by_top))[0] == 201  # nobody else gets anything
    _, nested = await call_admin_api(world, "POST", "/tasks", own, by=by_top)
    status, refusal = await call_admin_api(world, "POST", "/tasks", body | {"parent": nested["task_id"]}, by=by_top)
    assert (status, refusal["error"], refusal["message"]) == (403, "access_denied", "no policy permits the request")
    assert store.list_live_tasks(world.db.read(), sub.agent_id)[0].scopes == {"files:read"}


async def put(world: World, cedar: str) -> None:
    from ostiaryd.policy import flows as policies
    from ostiaryd.policy.model import load

    loaded = load({"a.cedar": cedar})
    await run_act(world, lambda a: policies.put(a, loaded, by=None))
