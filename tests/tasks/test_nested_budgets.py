"""Budgets in a tree of tasks: the budget of a child is taken from its parent, and the unspent rest is returned."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from harness.registry_fixtures import create_holding, is_live, register_agent, run_act
from ostiary.authorization.budget import MAX_BUDGETS, MAX_LIMITS, Exhausted, InvalidBudget, parse_limits
from ostiaryd.ground.world import World
from ostiaryd.tasks import flows
from ostiaryd.tasks.model import Balance, Task, TaskSpec, TaskState
from ostiaryd.tasks.store import budgets as store

PAY = {"kind": "amount", "limit": "250.00", "tools": ["bank/pay"], "argument": "amount"}
SPOOL = "0" * 32


def calls(limit: int, *tools: str) -> dict[str, Any]:
    return {"kind": "calls", "limit": limit} | ({"tools": list(tools)} if tools else {})


async def begin(world: World, *limits: dict[str, Any], under: Task | None = None, agent: str = "bot") -> Task:
    budget = parse_limits(list(limits))
    parent = None if under is None else under.task_id
    return await run_act(
        world, lambda a: flows.start(a, TaskSpec(agent=agent, purpose="to pay", budget=budget, parent=parent))
    )


async def finish(world: World, task: Task) -> None:
    await run_act(world, lambda a: flows.end(a, task.task_id, TaskState.DONE))


async def spend(world: World, task: Task, tool: str = "bank/pay", **arguments: object) -> None:
    await run_act(world, lambda a: flows.spend(a, flows.in_force(a.tx, task), tool, arguments, classes=frozenset()))


def balances(world: World, task: Task) -> list[Balance]:
    reader = world.db.read()
    return flows.balances_of(reader, flows.find_task(reader, task.task_id), now=world.now())


def left(world: World, task: Task) -> list[str]:
    return [one.left for one in balances(world, task)]


def spent(world: World, task: Task) -> list[str]:
    return [one.spent for one in balances(world, task)]


async def test_the_budget_of_a_child_task_is_taken_from_its_parent_and_the_rest_is_returned(world: World) -> None:
    await register_agent(world)
    top = await begin(world, PAY)
    child = await begin(world, {**PAY, "limit": "100"}, under=top)
    assert (left(world, top), left(world, child)) == (["150.00"], ["100.00"])
    await spend(world, child, amount="30")
    assert (left(world, top), spent(world, top)) == (["150.00"], ["30.00"]), "spent on both, taken once"
    with pytest.raises(Exhausted, match=r"70\.00 of 100\.00"):
        await spend(world, child, amount="70.01")
    await finish(world, child)
    assert (left(world, top), spent(world, top)) == (["220.00"], ["30.00"])
    assert (left(world, child), spent(world, child)) == (["0.00"], ["30.00"])


async def test_a_child_task_with_a_budget_above_the_rest_of_its_parent_is_refused(world: World) -> None:
    await register_agent(world)
    top = await begin(world, PAY)
    await spend(world, top, amount="50.00")
    with pytest.raises(InvalidBudget, match=r"200\.00 left, less than 200\.01"):
        await begin(world, {**PAY, "limit": "200.01"}, under=top)
    assert left(world, top) == ["200.00"]
    with pytest.raises(InvalidBudget, match="decimal places"):
        await begin(world, {**PAY, "limit": "1.000"}, under=top)
    await begin(world, {**PAY, "limit": "200.00"}, under=top)
    with pytest.raises(Exhausted):
        await spend(world, top, amount="0.01")


async def test_a_child_task_without_a_budget_spends_the_budget_of_its_parent(world: World) -> None:
    await register_agent(world)
    top = await begin(world, calls(3))
    child = await begin(world, under=top)
    grandchild = await begin(world, calls(1, "bank/pay"), under=child)
    await spend(world, child, "bank/read")
    await spend(world, grandchild)
    assert left(world, top) == ["1"]
    with pytest.raises(Exhausted, match="of 1 left"):
        await spend(world, grandchild)
    await spend(world, grandchild, "bank/read")
    for one in (top, child, grandchild):
        with pytest.raises(Exhausted, match="of 3 left"):
            await spend(world, one, "bank/read")


async def test_a_child_budget_for_fewer_tools_does_not_replace_the_budget_of_the_parent(world: World) -> None:
    await register_agent(world)
    top = await begin(world, {**PAY, "tools": ["bank/pay", "bank/refund"], "limit": "10"})
    child = await begin(world, {**PAY, "limit": "1000.00"}, under=top)
    with pytest.raises(Exhausted, match="10 of 10"):
        await spend(world, child, amount=11)
    await spend(world, child, amount=10)
    with pytest.raises(Exhausted):
        await spend(world, child, amount=1)


async def test_a_call_of_a_child_task_is_charged_to_the_daily_budget_of_the_delegating_agent(world: World) -> None:
    """An agent cannot exceed its daily budget by delegation."""
    await register_agent(world)
    await register_agent(world, "sub")
    await run_act(world, lambda a: flows.set_allowance(a, "bot", parse_limits([calls(2)])))
    standing = flows.find_task(world.db.read(), "tk_" + (await begin(world)).agent[3:])
    child = await begin(world, under=standing, agent="sub")
    await spend(world, child)
    await spend(world, standing)
    for one in (child, standing):
        with pytest.raises(Exhausted, match="of 2 left today"):
            await spend(world, one)
    await spend(world, await begin(world, agent="sub"))


async def test_a_new_daily_limit_of_an_agent_revokes_the_tokens_delegated_through_the_agent(world: World) -> None:
    await register_agent(world)
    sub = await register_agent(world, "sub")
    top = await begin(world)
    child = await begin(world, under=top, agent="sub")
    await create_holding(world, sub, "tok_1", task=child.task_id)
    await run_act(world, lambda a: flows.set_allowance(a, "bot", parse_limits([calls(2)])))
    assert not is_live(world, "tok_1")
    live = flows.live(world.db.read(), child.task_id, now=world.now())
    assert [budget.daily for budget in flows.in_force(world.db.read(), live)] == [True]


async def test_an_ended_tree_of_tasks_returns_its_unspent_budget_to_the_task_above(world: World) -> None:
    await register_agent(world)
    top = await begin(world, calls(100))
    middle = await begin(world, calls(50), under=top)
    plain = await begin(world, under=middle)
    low = await begin(world, calls(20), under=plain)
    for _ in range(3):
        await spend(world, low)
    await spend(world, middle)
    assert (left(world, top), left(world, middle), left(world, low)) == (["50"], ["29"], ["17"])
    await finish(world, middle)
    assert (left(world, top), spent(world, top)) == (["96"], ["4"])
    assert (left(world, low), spent(world, low)) == (["0"], ["3"])


async def test_a_slice_that_is_returned_after_its_task_has_ended_is_credited_to_the_parent(world: World) -> None:
    await register_agent(world)
    top = await begin(world, calls(100))
    child = await begin(world, calls(50), under=top)
    [budget] = flows.in_force(world.db.read(), child)
    await run_act(world, lambda a: flows.draw(a, SPOOL, budget, 10))
    await finish(world, child)
    assert left(world, top) == ["90"], "what lies at a guard may be spent"
    await run_act(world, lambda a: flows.report_spent(a.tx, SPOOL, {budget.id: 4}))
    await run_act(world, lambda a: flows.settle(a.tx, SPOOL))
    assert (left(world, top), spent(world, top)) == (["96"], ["4"])


async def test_a_task_has_at_most_as_many_limits_as_a_token_can_name(world: World) -> None:
    await register_agent(world)
    task = None
    for depth in range(MAX_BUDGETS // MAX_LIMITS):
        limits = [calls(1, f"bank/t{depth}_{number}") for number in range(MAX_LIMITS)]
        task = await begin(world, *limits, under=task)
    with pytest.raises(InvalidBudget, match=f"more than {MAX_BUDGETS}"):
        await begin(world, calls(1, "bank/one_more"), under=task)
    await begin(world, calls(1, "bank/t0_0"), under=task)


def unspent(world: World, tasks: list[Task]) -> int:
    """Return the units that the accounts of these tasks can still give. Each account has spent at most what was drawn,
    and drawn at most its limit.
    """
    reader = world.db.read()
    accounts = [
        store.account(reader, one.budget.id) for task in tasks for one in store.allotments(reader, task.task_id)
    ]
    for account in accounts:
        assert account is not None
        assert 0 <= account.spent <= account.drawn <= account.ceiling
    return sum(account.left for account in accounts if account is not None)


@pytest.mark.parametrize("seed", range(6))
async def test_a_tree_of_tasks_spends_at_most_its_budget_under_random_operations(world: World, seed: int) -> None:
    """Compare random trees under random draws, reports, ends and settlements with a count in this test."""
    random = Random(seed)
    await register_agent(world)
    top = await begin(world, calls(300))
    live, all_tasks, used = [top], [top], 0
    drawn: dict[tuple[str, str], list[int]] = {}
    for _ in range(120):
        task = random.choice(live)
        match random.randrange(6):
            case 0 if len(all_tasks) < 20 and task.depth < 5:
                try:
                    limits = [calls(random.randrange(1, 60))] if random.random() < 0.7 else []
                    child = await begin(world, *limits, under=task)
                except InvalidBudget:
                    continue
                live.append(child)
                all_tasks.append(child)
            case 1:
                try:
                    await spend(world, task)
                except Exhausted:
                    continue
                used += 1
            case 2:
                [one] = flows.in_force(world.db.read(), task)
                spool = f"{random.randrange(4):032x}"
                held = drawn.setdefault((spool, one.id), [0, 0])
                need = held[1] + random.randrange(1, 9)
                held[0], _ = await run_act(world, lambda a, s=spool, b=one, n=need: flows.draw(a, s, b, n))  # type: ignore[misc]
            case 3 if drawn:
                (spool, id), held = random.choice(list(drawn.items()))
                units = random.randint(0, held[0] - held[1])
                held[1] += units
                used += units
                await run_act(world, lambda a, s=spool, i=id, u=units: flows.report_spent(a.tx, s, {i: u}))  # type: ignore[misc]
            case 4 if drawn:
                spool = random.choice(list(drawn))[0]
                await run_act(world, lambda a, s=spool: flows.settle(a.tx, s))  # type: ignore[misc]
                drawn = {key: held for key, held in drawn.items() if key[0] != spool}
            case 5 if task is not top and random.random() < 0.4:
                await finish(world, task)
                live = [
                    one for one in all_tasks if flows.find_task(world.db.read(), one.task_id).state is TaskState.LIVE
                ]
        assert spent(world, top) == [str(used)]
        at_guards = sum(amount - reported for amount, reported in drawn.values())
        assert used + at_guards + unspent(world, live) == 300, "each unit is spent, at a guard, or in one account"
    for spool in {key[0] for key in drawn}:
        await run_act(world, lambda a, s=spool: flows.settle(a.tx, s))  # type: ignore[misc]
    for task in [one for one in live if one.parent == top.task_id]:
        await finish(world, task)
    assert left(world, top) == [str(300 - used)], "nothing is lost, and nothing came from nowhere"
    assert used > 20
