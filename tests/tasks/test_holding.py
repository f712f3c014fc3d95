"""Holders of a task: heartbeats, overlapping holders, the last holder, and the state of a task without a holder."""

from __future__ import annotations

from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import (
    ADMIN,
    agent_caller,
    call_admin_api,
    create_holding,
    is_live,
    newest_entry,
    register_agent,
    run_act,
)
from ostiary.protocol.errors import Invalid
from ostiaryd.ground.world import World
from ostiaryd.registry.model import Caller
from ostiaryd.tasks import flows
from ostiaryd.tasks.flows.holding import MAX_HOLDERS
from ostiaryd.tasks.model import TaskId, check_heartbeat
from ostiaryd.tasks.model.task import MAX_HEARTBEAT_S
from ostiaryd.tasks.store import holders

ONE, TWO, THREE = (f"ho_{digit * 32}" for digit in "123")


async def begin(world: World, **more: Any) -> tuple[str, Caller]:
    """Start a task with a heartbeat of ten seconds; return its path and its agent."""
    bot = agent_caller(await register_agent(world))
    body = {"purpose": "to sort", "heartbeat": 10, **more}
    status, task = await call_admin_api(world, "POST", "/tasks", body, by=bot)
    assert status == 201, task
    return f"/tasks/{task['task_id']}", bot


async def say(world: World, path: str, verb: str, holder: str, by: Caller, **more: Any) -> str:
    """Send a request of a holder; return an empty text, or the error code of the refusal."""
    status, body = await call_admin_api(world, "POST", f"{path}/{verb}", {"holder": holder, **more}, by=by)
    return "" if status == 200 else str(body["error"])


async def show(world: World, path: str) -> dict[str, Any]:
    return (await call_admin_api(world, "GET", path))[1]


async def test_a_task_is_lost_when_its_only_holder_misses_the_heartbeat(world: World, clock: Clock) -> None:
    path, bot = await begin(world)
    assert await say(world, path, "hold", ONE, bot) == ""
    for _ in range(5):
        clock.advance(9)
        assert await say(world, path, "beat", ONE, bot) == ""
    clock.advance(us=9_999_999)
    assert (await show(world, path))["state"] == "live"
    assert [one["holder"] for one in (await show(world, path))["holders"]] == [ONE]
    clock.advance(us=1)
    assert (await show(world, path))["state"] == "lost"
    assert await say(world, path, "beat", ONE, bot) == "task_ended"
    assert await say(world, path, "hold", ONE, bot) == "task_ended"


async def test_a_task_with_a_heartbeat_that_is_never_held_is_lost(world: World, clock: Clock) -> None:
    path, _ = await begin(world)
    clock.advance(10)
    assert (await show(world, path))["state"] == "lost"
    assert await flows.expire_due(world) == 1
    assert await flows.expire_due(world) == 0


async def test_the_tokens_of_a_lost_task_end_and_its_ledger_entry_states_the_outcome(
    world: World, clock: Clock
) -> None:
    path, bot = await begin(world)
    await say(world, path, "hold", ONE, bot)
    await create_holding(world, bot.id, "tok_1", task=path[7:], seconds=100)
    clock.advance(10)
    assert await flows.expire_due(world) == 1
    assert not is_live(world, "tok_1")
    entry = newest_entry(world)
    assert (entry.action, entry.object) == ("task.expire", path[7:])
    assert entry.detail is not None
    assert entry.detail["outcome"] == "lost"
    assert (await show(world, path))["state"] == "lost"
    status, refusal = await call_admin_api(world, "POST", f"{path}/end", {}, by=bot)
    assert (status, refusal["error"]) == (409, "task_ended")


async def test_a_task_whose_expiry_and_missed_heartbeat_coincide_is_expired(world: World, clock: Clock) -> None:
    path, _ = await begin(world, ttl=10)
    clock.advance(10)
    assert (await show(world, path))["state"] == "expired"


async def test_a_task_that_ends_with_its_last_holder_stays_live_while_another_holder_remains(
    world: World, clock: Clock
) -> None:
    path, bot = await begin(world, end_with_last=True)
    await say(world, path, "hold", ONE, bot)
    clock.advance(1)
    await say(world, path, "hold", TWO, bot)
    assert [one["holder"] for one in (await show(world, path))["holders"]] == [ONE, TWO]
    assert await say(world, path, "leave", ONE, bot) == ""
    assert (await show(world, path))["state"] == "live"
    assert [one["holder"] for one in (await show(world, path))["holders"]] == [TWO]
    assert await say(world, path, "leave", TWO, bot, outcome="failed") == ""
    shown = await show(world, path)
    assert (shown["state"], shown["holders"]) == ("failed", [])
    assert await say(world, path, "hold", ONE, bot) == "task_ended"


async def test_a_holder_that_misses_the_heartbeat_is_not_counted(world: World, clock: Clock) -> None:
    path, bot = await begin(world, end_with_last=True)
    await say(world, path, "hold", ONE, bot)
    clock.advance(5)
    await say(world, path, "hold", TWO, bot)
    clock.advance(5)
    assert await say(world, path, "beat", ONE, bot) == "no_holder"
    assert await say(world, path, "leave", TWO, bot) == ""
    assert (await show(world, path))["state"] == "done"


async def test_a_holder_that_misses_the_heartbeat_is_deleted_when_another_holder_joins(
    world: World, clock: Clock
) -> None:
    path, bot = await begin(world)
    await say(world, path, "hold", ONE, bot)
    clock.advance(5)
    await say(world, path, "hold", TWO, bot)
    clock.advance(5)
    await say(world, path, "hold", THREE, bot)
    kept = holders.list_live(world.db.read(), TaskId(path[7:]), after=0)
    assert [one.holder for one in kept] == [TWO, THREE]


async def test_a_task_that_its_last_holder_left_can_be_held_again_within_the_heartbeat(
    world: World, clock: Clock
) -> None:
    path, bot = await begin(world)
    await say(world, path, "hold", ONE, bot)
    await say(world, path, "leave", ONE, bot)
    assert (await show(world, path))["state"] == "live"
    clock.advance(9)
    assert await say(world, path, "hold", TWO, bot) == ""
    clock.advance(9)
    assert (await show(world, path))["state"] == "live"


async def test_a_task_with_a_heartbeat_is_renewed_only_while_it_has_a_holder(world: World, clock: Clock) -> None:
    path, bot = await begin(world, ttl=60)
    status, refusal = await call_admin_api(world, "POST", f"{path}/renew", {"ttl": 120}, by=bot)
    assert (status, refusal["error"]) == (409, "not_held")
    await say(world, path, "hold", ONE, bot)
    assert (await call_admin_api(world, "POST", f"{path}/renew", {"ttl": 120}, by=bot))[0] == 200
    await say(world, path, "leave", ONE, bot)
    assert (await call_admin_api(world, "POST", f"{path}/renew", {"ttl": 180}, by=bot))[1]["error"] == "not_held"


async def test_only_the_agent_of_a_task_can_hold_the_task(world: World) -> None:
    path, _ = await begin(world)
    other = agent_caller(await register_agent(world, "other", owner="bob"))
    for by in (other, ADMIN):
        for verb in ("hold", "beat", "leave"):
            assert await say(world, path, verb, ONE, by) == "forbidden"
    assert (await show(world, path))["holders"] == []


async def test_a_task_without_a_heartbeat_and_a_standing_task_cannot_be_held(world: World) -> None:
    path, bot = await begin(world, heartbeat=None)
    for verb in ("hold", "beat", "leave"):
        assert await say(world, path, verb, ONE, bot) == "no_heartbeat"
        assert await say(world, f"/tasks/tk_{bot.id[3:]}", verb, ONE, bot) == "no_heartbeat"
    assert "holders" not in await show(world, path)


async def test_a_malformed_holder_id_is_refused(world: World) -> None:
    path, bot = await begin(world)
    cases: list[str] = ["", "ho_", "ho_" + "1" * 31, "ho_" + "1" * 33, "ho_" + "G" * 32, ONE + "\n"]
    for holder in cases:
        assert await say(world, path, "hold", holder, bot) == "invalid", holder


async def test_a_task_has_at_most_the_maximum_number_of_holders(world: World, clock: Clock) -> None:
    path, bot = await begin(world)
    for number in range(MAX_HOLDERS):
        assert await say(world, path, "hold", f"ho_{number:032x}", bot) == ""
    assert await say(world, path, "hold", ONE, bot) == "too_many_holders"
    assert await say(world, path, "hold", f"ho_{0:032x}", bot) == "", "who holds it already may say so again"
    clock.advance(us=9_999_999)
    assert await say(world, path, "beat", f"ho_{1:032x}", bot) == ""
    clock.advance(us=1)
    assert await say(world, path, "hold", ONE, bot) == ""


async def test_a_heartbeat_writes_no_ledger_entry(world: World) -> None:
    path, bot = await begin(world)
    await say(world, path, "hold", ONE, bot)
    before = newest_entry(world)
    assert before.action == "task.hold"
    assert await say(world, path, "beat", ONE, bot) == ""
    assert newest_entry(world) == before


def test_the_heartbeat_interval_of_a_task_is_one_second_to_one_day() -> None:
    assert check_heartbeat(1, ends_with_last=False) == 1_000_000
    assert check_heartbeat(MAX_HEARTBEAT_S, ends_with_last=True) == MAX_HEARTBEAT_S * 1_000_000
    assert check_heartbeat(None, ends_with_last=False) is None
    for seconds in (0, -1, MAX_HEARTBEAT_S + 1):
        with pytest.raises(Invalid):
            check_heartbeat(seconds, ends_with_last=False)
    with pytest.raises(Invalid, match="the server knows the last holder"):
        check_heartbeat(None, ends_with_last=True)


async def test_the_child_tasks_of_a_lost_task_are_cancelled(world: World, clock: Clock) -> None:
    path, bot = await begin(world)
    _, child = await call_admin_api(world, "POST", "/tasks", {"purpose": "part", "parent": path[7:]}, by=bot)
    clock.advance(10)
    await flows.expire_due(world)
    assert (await show(world, f"/tasks/{child['task_id']}"))["state"] == "cancelled"
    status, refusal = await call_admin_api(world, "POST", "/tasks", {"purpose": "part", "parent": path[7:]}, by=bot)
    assert (status, refusal["error"]) == (403, "task_ended")
    assert await run_act(world, lambda a: flows.find_task(a.tx, path[7:]).state) == "lost"
