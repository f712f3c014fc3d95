"""Budgets at the server: charges and returns of an account, and the limit that the account never exceeds."""

from __future__ import annotations

from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import (
    ADMIN,
    agent_caller,
    call_admin_api,
    create_holding,
    feed_messages,
    get_agent,
    is_live,
    newest_entry,
    register_agent,
    run_act,
)
from ostiary.authorization.budget import DAY_US, BadAmount, Budget, Exhausted, InvalidBudget, parse_limits
from ostiary.protocol.errors import NotFound
from ostiaryd.ground.world import World
from ostiaryd.registry.model import Agent
from ostiaryd.tasks import flows
from ostiaryd.tasks.model import Account, Task, TaskSpec, TaskState
from ostiaryd.tasks.store import budgets as store

CALLS = {"kind": "calls", "limit": 10}
PAY = {"kind": "amount", "limit": "250.00", "tools": ["bank/pay"], "argument": "amount"}
SPOOL, OTHER = "0" * 32, "1" * 32


async def begin(world: World, *limits: dict[str, Any], agent: str = "bot", **more: Any) -> Task:
    budget = parse_limits(list(limits))
    return await run_act(
        world, lambda a: flows.start(a, TaskSpec(agent=agent, purpose="to pay", budget=budget, **more))
    )


async def allow(world: World, *limits: dict[str, Any], agent: str = "bot") -> Agent:
    return await run_act(world, lambda a: flows.set_allowance(a, agent, parse_limits(list(limits))))


async def spend(world: World, task: Task, tool: str = "bank/pay", **arguments: object) -> None:
    await run_act(world, lambda a: flows.spend(a, flows.in_force(a.tx, task), tool, arguments, classes=frozenset()))


def budgets(world: World, task: Task) -> tuple[Budget, ...]:
    return flows.in_force(world.db.read(), task)


def account(world: World, budget: Budget) -> Account | None:
    return store.account(world.db.read(), budget.account(world.now()))


def left(world: World, task: Task) -> list[str]:
    return [one.left for one in flows.balances_of(world.db.read(), task, now=world.now())]


async def draw(world: World, budget: Budget, need: int, spool: str = SPOOL) -> tuple[int, int]:
    return await run_act(world, lambda a: flows.draw(a, spool, budget, need))


async def give_back(world: World, budget: Budget, keep: int) -> None:
    await run_act(world, lambda a: flows.give_back(a, SPOOL, budget.id, keep))


async def test_an_allowed_call_is_charged_to_each_budget_and_a_call_beyond_a_budget_to_none(world: World) -> None:
    await register_agent(world)
    task = await begin(world, CALLS, PAY)
    await spend(world, task, amount="249.99")
    assert left(world, task) == ["0.01", "9"]
    with pytest.raises(Exhausted, match=r"0\.01 of 250\.00 left"):
        await spend(world, task, amount="0.02")
    assert left(world, task) == ["0.01", "9"], "a call that is refused costs nothing, on no account"
    await spend(world, task, amount="0.01")
    assert left(world, task) == ["0.00", "8"]
    await spend(world, task, "bank/read")
    for _ in range(7):
        await spend(world, task, "bank/read")
    assert left(world, task) == ["0.00", "0"]
    with pytest.raises(Exhausted, match="0 of 10 left"):
        await spend(world, task, "bank/read")


async def test_a_call_with_amount_zero_is_allowed_by_an_exhausted_budget(world: World) -> None:
    await register_agent(world)
    task = await begin(world, PAY)
    await spend(world, task, amount="250")
    await spend(world, task, amount="0")
    assert left(world, task) == ["0.00"]


async def test_a_malformed_amount_is_refused_and_charged_to_no_budget(world: World) -> None:
    await register_agent(world)
    task = await begin(world, CALLS, PAY)
    with pytest.raises(BadAmount):
        await spend(world, task, amount="1e3")
    assert left(world, task) == ["250.00", "10"]


async def test_a_daily_budget_covers_all_tasks_of_an_agent_and_is_renewed_at_midnight(
    world: World, clock: Clock
) -> None:
    bot = await register_agent(world)
    clock.advance(us=DAY_US - world.now() % DAY_US)
    await allow(world, {"kind": "calls", "limit": 2})
    task = await begin(world, CALLS)
    await spend(world, task)
    standing = flows.find_task(world.db.read(), "tk_" + bot.agent_id.removeprefix("ag_"))
    await spend(world, standing)
    for one in (task, standing):
        with pytest.raises(Exhausted, match="0 of 2 left today"):
            await spend(world, one)
    clock.advance(us=DAY_US - 1)
    with pytest.raises(Exhausted):
        await spend(world, standing)
    clock.advance(us=1)
    await spend(world, standing)
    assert left(world, standing) == ["1"]


async def test_a_changed_daily_budget_counts_the_use_of_the_same_day(world: World) -> None:
    bot = await register_agent(world)
    await allow(world, PAY)
    standing = flows.find_task(world.db.read(), "tk_" + bot.agent_id.removeprefix("ag_"))
    await spend(world, standing, amount="200.00")
    await allow(world, {**PAY, "limit": "300"})
    assert left(world, standing) == ["100.00"]
    await allow(world, {**PAY, "limit": "100.00"})
    assert left(world, standing) == ["0.00"]
    with pytest.raises(Exhausted):
        await spend(world, standing, amount="0.01")
    with pytest.raises(InvalidBudget, match="decimal places"):
        await allow(world, {**PAY, "limit": "100.000"})
    await allow(world)
    assert budgets(world, standing) == ()
    await spend(world, standing, amount="1000.00")


async def test_a_new_daily_limit_revokes_the_tokens_that_do_not_name_the_limit(world: World) -> None:
    bot = await register_agent(world)
    await create_holding(world, bot, "tok_1")
    await allow(world)
    assert is_live(world, "tok_1")
    await allow(world, CALLS)
    assert not is_live(world, "tok_1")
    assert feed_messages(world)[-1]["epoch"] == get_agent(world, "bot").epoch == bot.epoch + 1
    await create_holding(world, bot, "tok_2")
    await allow(world, {**CALLS, "limit": 5})
    assert is_live(world, "tok_2"), "its account has the new ceiling"
    await allow(world, {**CALLS, "limit": 5}, PAY)
    assert not is_live(world, "tok_2")


async def test_a_guard_draws_slices_of_a_budget_and_never_more_than_its_rest(world: World) -> None:
    await register_agent(world)
    [budget] = budgets(world, await begin(world, {"kind": "calls", "limit": 100}))
    assert await draw(world, budget, 1) == (6, 94)
    assert await draw(world, budget, 1) == (6, 94), "asked again, nothing changes"
    assert await draw(world, budget, 7) == (11, 89)
    assert await draw(world, budget, 89, OTHER) == (89, 0)
    assert await draw(world, budget, 12) == (11, 0), "what is not there is not given, nor a part of it"
    assert await draw(world, budget, 1, "2" * 32) == (0, 0)


async def test_unspent_budget_that_a_guard_returns_is_credited_once(world: World) -> None:
    await register_agent(world)
    [budget] = budgets(world, await begin(world, {"kind": "calls", "limit": 100}))
    await draw(world, budget, 50)
    await run_act(world, lambda a: flows.report_spent(a.tx, SPOOL, {budget.id: 20}))
    for keep in (30, 30, 40):
        await give_back(world, budget, keep)
        assert account(world, budget) == Account(100, 30, 20)
    await give_back(world, budget, 0)
    assert account(world, budget) == Account(100, 20, 20), "what is spent does not come back"


async def test_a_completely_reported_spool_returns_its_unspent_budget_once(world: World) -> None:
    await register_agent(world)
    [budget] = budgets(world, await begin(world, {"kind": "calls", "limit": 100}))
    await draw(world, budget, 50)
    await draw(world, budget, 5, OTHER)
    await run_act(world, lambda a: flows.report_spent(a.tx, SPOOL, {budget.id: 20}))
    assert await run_act(world, lambda a: flows.settle(a.tx, SPOOL)) == {budget.id: 30}
    assert await run_act(world, lambda a: flows.settle(a.tx, SPOOL)) == {}
    assert account(world, budget) == Account(100, 25, 20)


async def test_a_silent_guard_keeps_the_budget_that_it_has_drawn(world: World, clock: Clock) -> None:
    """Drawn budget is not returned after a time, because a guard without contact may report its calls later."""
    await register_agent(world)
    [budget] = budgets(world, await begin(world, {"kind": "calls", "limit": 100}, ttl_s=30 * 86_400))
    await draw(world, budget, 100)
    clock.advance(us=20 * DAY_US)
    await flows.expire_due(world)
    await flows.forget_days(world)
    assert await draw(world, budget, 1, OTHER) == (0, 0)


async def test_the_budget_of_a_lost_report_counts_as_spent(world: World) -> None:
    await register_agent(world)
    [budget] = budgets(world, await begin(world, {"kind": "calls", "limit": 100}))
    await draw(world, budget, 50)
    await run_act(world, lambda a: flows.report_lost(a.tx, SPOOL))
    assert await run_act(world, lambda a: flows.settle(a.tx, SPOOL)) == {}
    assert account(world, budget) == Account(100, 50, 50)


async def test_a_guard_that_reports_more_than_it_has_drawn_is_charged_only_the_drawn_budget(world: World) -> None:
    await register_agent(world)
    [budget] = budgets(world, await begin(world, {"kind": "calls", "limit": 100}))
    await draw(world, budget, 10)
    await run_act(world, lambda a: flows.report_spent(a.tx, SPOOL, {budget.id: 1000, "bu_unknown": 1}))
    assert account(world, budget) == Account(100, 10, 10)
    assert await run_act(world, lambda a: flows.settle(a.tx, SPOOL)) == {}


async def test_an_ended_task_shows_the_rest_and_the_spending_of_its_budgets(world: World) -> None:
    bot = agent_caller(await register_agent(world))
    _, task = await call_admin_api(world, "POST", "/tasks", {"purpose": "p", "budget": [CALLS]}, by=bot)
    assert task["budgets"] == [{"id": task["budgets"][0]["id"], "limit": CALLS, "left": "10", "spent": "0"}]
    await spend(world, flows.find_task(world.db.read(), task["task_id"]))
    await run_act(world, lambda a: flows.end(a, task["task_id"], TaskState.DONE))
    _, over = await call_admin_api(world, "GET", f"/tasks/{task['task_id']}", by=bot)
    assert over["budgets"] == [{**task["budgets"][0], "left": "9", "spent": "1"}]


async def test_an_administrator_sets_and_reads_the_daily_budget_of_an_agent(world: World) -> None:
    await register_agent(world)
    status, said = await call_admin_api(world, "PUT", "/agents/bot/budget", {"limits": [PAY]})
    assert status == 200
    assert said["budgets"][0]["left"] == "250.00"
    assert said["budgets"][0]["daily"] is True
    assert newest_entry(world).action == "agent.budget"
    assert await call_admin_api(world, "GET", "/agents/bot/budget") == (200, said)
    status, refusal = await call_admin_api(world, "PUT", "/agents/bot/budget", {"limits": [{**PAY, "limit": "-1"}]})
    assert (status, refusal["error"]) == (422, "invalid_budget")
    status, refusal = await call_admin_api(world, "PUT", "/agents/nobody/budget", {"limits": []})
    assert (status, refusal["error"]) == (404, "not_found")
    with pytest.raises(NotFound):
        await allow(world, CALLS, agent="nobody")


async def test_a_task_with_a_malformed_budget_is_refused(world: World) -> None:
    bot = agent_caller(await register_agent(world))
    status, refusal = await call_admin_api(
        world, "POST", "/tasks", {"purpose": "p", "budget": [{"kind": "calls"}]}, by=bot
    )
    assert (status, refusal["error"]) == (422, "invalid_budget")
    assert (await call_admin_api(world, "GET", "/tasks", by=ADMIN))[1]["tasks"] == []


async def test_the_account_of_a_daily_budget_is_deleted_after_seven_days(world: World, clock: Clock) -> None:
    bot = await register_agent(world)
    await allow(world, CALLS)
    standing = flows.find_task(world.db.read(), "tk_" + bot.agent_id.removeprefix("ag_"))
    [budget] = budgets(world, standing)
    task = await begin(world, PAY, ttl_s=30 * 86_400)
    await spend(world, standing)
    old = budget.account(world.now())
    clock.advance(us=7 * DAY_US)
    assert await flows.forget_days(world) == 0
    clock.advance(us=1)
    assert await flows.forget_days(world) == 1
    assert store.account(world.db.read(), old) is None
    assert left(world, task)[0] == "250.00", "a task's budget stays"
