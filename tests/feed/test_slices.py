"""Slices over the feed: for a live token of the guard's own resource, in a spool of its own that is still open."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import create_holding, end_holdings, get_agent, newest_entry, register_agent, run_act
from ostiary.authorization.budget import DAY_US, parse_limits
from ostiary.decision.report import CallRecord, Report
from ostiary.decision.slices import Draw, Drawn, GiveBack, GivenBack
from ostiary.protocol.errors import Conflict, Forbidden
from ostiaryd.feed import flows
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource, Root, Verb
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec, TaskState

SPOOL = "0" * 32
TURNS = count(1)
URI = "https://bank.example/mcp"


@pytest.fixture
async def bank(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="bank", uri=URI))


@pytest.fixture
async def task(world: World, bank: Resource) -> Task:
    """A task of a hundred calls, and a token for the bank under it."""
    bot = await register_agent(world)
    limits = parse_limits([{"kind": "calls", "limit": 100}])
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to pay", budget=limits)))
    await create_holding(world, bot, "tok_1", audience=URI, task=task.task_id)
    return task


def budget(world: World, task: Task) -> str:
    return tasks.in_force(world.db.read(), task)[0].id


async def draw(world: World, bank: Resource, need: dict[str, int], **said: Any) -> Drawn:
    right: dict[str, Any] = {"spool": SPOOL, "turn": next(TURNS), "token": "tok_1", "need": need}
    asked = Draw(**right | said)
    return await run_act(world, lambda a: flows.draw(a, asked, resource_id=bank.resource_id), "budget.draw")


async def give_back(world: World, bank: Resource, keep: dict[str, int], **said: Any) -> GivenBack:
    right: dict[str, Any] = {"spool": SPOOL, "turn": next(TURNS), "keep": keep}
    given = GiveBack(**right | said)
    return await run_act(world, lambda a: flows.give_back(a, given, resource_id=bank.resource_id))


async def settle(world: World, bank: Resource, told: int, spool: str = SPOOL) -> None:
    await run_act(
        world, lambda a: flows.settle(a, spool, last_record=told, resource_id=bank.resource_id), "budget.settle"
    )


async def report(world: World, bank: Resource, first: int, *spent: dict[str, int]) -> None:
    records = [
        CallRecord(
            at=5,
            token="tok_1",
            agent=get_agent(world, "bot").agent_id,
            tool="pay",
            outcome="allow",
            verdict="allow",
            spent=one,
        )
        for one in spent
    ]
    told = Report(spool=SPOOL, first=first, records=list(records))
    await run_act(world, lambda a: flows.take_report(a, told, resource_id=bank.resource_id))


def left(world: World, task: Task) -> tuple[str, str]:
    [one] = tasks.balances_of(world.db.read(), task, now=world.now())
    return one.left, one.spent


async def test_a_draw_from_a_budget_is_recorded_with_its_agent_and_task(
    world: World, bank: Resource, task: Task
) -> None:
    id = budget(world, task)
    assert await draw(world, bank, {id: 1}) == Drawn({id: 6}, {id: 94})
    entry = newest_entry(world)
    assert (entry.action, entry.agent, entry.task, entry.resource) == ("budget.draw", task.agent, task.task_id, URI)
    assert entry.detail == {"spool": SPOOL, "need": {id: 1}, "total": {id: 6}}


async def test_a_guard_draws_only_for_a_live_token_of_its_own_resource(
    world: World, bank: Resource, task: Task, clock: Clock
) -> None:
    id = budget(world, task)
    other = await run_act(world, lambda a: registry.create_resource(a, name="shop", uri="https://shop.example/mcp"))
    for resource, token in ((bank, "tok_unknown"), (other, "tok_1")):
        with pytest.raises(Forbidden) as refused:
            await draw(world, resource, {id: 1}, token=token)
        assert refused.value.code == "foreign_token"
    await end_holdings(world, Root.HOLDING, "tok_1")
    with pytest.raises(Forbidden) as refused:
        await draw(world, bank, {id: 1})
    assert refused.value.code == "foreign_token"
    await create_holding(world, "ag_" + task.agent[3:], "tok_2", audience=URI, task=task.task_id, seconds=60)
    clock.advance(us=60_000_000)
    with pytest.raises(Forbidden):
        await draw(world, bank, {id: 1}, token="tok_2")
    assert left(world, task) == ("100", "0")


async def test_a_draw_is_refused_for_a_suspended_agent_or_an_ended_task(
    world: World, bank: Resource, task: Task
) -> None:
    id = budget(world, task)
    await run_act(world, lambda a: registry.set_agent_state(a, "bot", Verb.SUSPEND))
    with pytest.raises(Forbidden):
        await draw(world, bank, {id: 1})
    await run_act(world, lambda a: registry.set_agent_state(a, "bot", Verb.RESUME))
    await create_holding(world, task.agent, "tok_2", audience=URI, task=task.task_id)
    assert (await draw(world, bank, {id: 1}, token="tok_2")).total == {id: 6}
    await run_act(world, lambda a: tasks.end(a, task.task_id, TaskState.DONE))
    with pytest.raises(Forbidden):
        await draw(world, bank, {id: 7}, token="tok_2")


async def test_a_guard_draws_only_from_the_budgets_of_the_task_of_the_token(
    world: World, bank: Resource, task: Task
) -> None:
    limits = parse_limits([{"kind": "calls", "limit": 5}])
    other = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="else", budget=limits)))
    with pytest.raises(Forbidden) as refused:
        await draw(world, bank, {budget(world, other): 1})
    assert refused.value.code == "no_budget"
    assert left(world, other) == ("5", "0")


async def test_a_daily_budget_is_drawn_from_only_on_its_day(
    world: World, bank: Resource, task: Task, clock: Clock
) -> None:
    clock.advance(us=DAY_US - 1 - world.now() % DAY_US)
    await run_act(world, lambda a: tasks.set_allowance(a, "bot", parse_limits([{"kind": "calls", "limit": 7}])))
    live = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to pay")))
    await create_holding(world, task.agent, "tok_3", audience=URI, task=live.task_id)
    [daily] = tasks.in_force(world.db.read(), live)
    account = daily.account(world.now())
    assert (await draw(world, bank, {account: 7}, token="tok_3")).left == {account: 0}
    clock.advance(us=1)
    with pytest.raises(Forbidden) as refused:
        await draw(world, bank, {account: 8}, token="tok_3")
    assert refused.value.code == "no_budget"
    today = daily.account(world.now())
    assert (await draw(world, bank, {today: 7}, token="tok_3")).total == {today: 7}


async def test_a_settled_spool_returns_the_part_of_the_slice_that_was_not_spent(
    world: World, bank: Resource, task: Task
) -> None:
    id = budget(world, task)
    await draw(world, bank, {id: 10})
    await report(world, bank, 1, {id: 1}, {id: 2}, {})
    assert left(world, task) == ("90", "3")
    await report(world, bank, 1, {id: 1}, {id: 2}, {})
    assert left(world, task) == ("90", "3"), "a report that comes again changes nothing"
    with pytest.raises(Conflict):
        await settle(world, bank, told=4)
    assert left(world, task) == ("90", "3")
    await settle(world, bank, told=3)
    assert left(world, task) == ("97", "3")
    assert newest_entry(world).detail == {"spool": SPOOL, "told": 3, "back": {id: 7}}


async def test_a_settled_spool_stays_closed(world: World, bank: Resource, task: Task) -> None:
    """A draw of a guard that was killed may still be on its way."""
    id = budget(world, task)
    await settle(world, bank, told=0)
    await settle(world, bank, told=0)
    with pytest.raises(Forbidden) as refused:
        await draw(world, bank, {id: 1})
    assert refused.value.code == "spool_closed"
    with pytest.raises(Forbidden):
        await give_back(world, bank, {id: 0})
    assert left(world, task) == ("100", "0")


async def test_a_resource_cannot_use_the_spool_of_another_resource(world: World, bank: Resource, task: Task) -> None:
    id = budget(world, task)
    await draw(world, bank, {id: 10})
    other = await run_act(world, lambda a: registry.create_resource(a, name="shop", uri="https://shop.example/mcp"))
    for attempt in (
        lambda: settle(world, other, told=0),
        lambda: give_back(world, other, {id: 0}),
    ):
        with pytest.raises(Forbidden):
            await attempt()
    bot = get_agent(world, "bot")
    await create_holding(world, bot, "tok_4", audience="https://shop.example/mcp", task=task.task_id)
    with pytest.raises(Forbidden, match="another resource"):
        await draw(world, other, {id: 1}, token="tok_4")
    assert left(world, task) == ("90", "0")


async def test_a_slice_with_missing_records_counts_as_spent(world: World, bank: Resource, task: Task) -> None:
    id = budget(world, task)
    await draw(world, bank, {id: 10})
    await report(world, bank, 3, {id: 1})
    assert left(world, task) == ("90", "10")
    await settle(world, bank, told=3)
    assert left(world, task) == ("90", "10")


async def test_a_guard_returns_the_part_of_a_slice_that_it_does_not_need(
    world: World, bank: Resource, task: Task
) -> None:
    id = budget(world, task)
    await draw(world, bank, {id: 10})
    await report(world, bank, 1, {id: 4})
    await give_back(world, bank, {id: 5})
    assert left(world, task) == ("95", "4")
    await give_back(world, bank, {id: 0})
    assert left(world, task) == ("96", "4")


async def test_a_repeated_draw_is_drawn_once(world: World, bank: Resource, task: Task) -> None:
    """The answer to the first may have been lost: the second is the same, since totals are asked for."""
    id = budget(world, task)
    first = await draw(world, bank, {id: 1})
    assert await draw(world, bank, {id: 1}) == first
    assert left(world, task) == ("94", "0")


async def test_a_repeated_return_changes_nothing(world: World, bank: Resource, task: Task) -> None:
    id = budget(world, task)
    await draw(world, bank, {id: 10})
    await report(world, bank, 1, {id: 4})
    for _ in range(2):
        assert (await give_back(world, bank, {id: 4})).closed == [id]
        assert left(world, task) == ("96", "4")


async def test_a_delayed_request_has_no_effect_after_a_later_request(world: World, bank: Resource, task: Task) -> None:
    """Or a guard would spend what the server, by an older message of its own, gives to others."""
    id = budget(world, task)
    turn = next(TURNS) + 100
    await draw(world, bank, {id: 10}, turn=turn)
    for late in (turn - 1, turn):
        with pytest.raises(Conflict) as refused:
            await give_back(world, bank, {id: 0}, turn=late)
        assert refused.value.code == "out_of_turn"
        with pytest.raises(Conflict):
            await draw(world, bank, {id: 50}, turn=late)
        assert left(world, task) == ("90", "0")
    await give_back(world, bank, {id: 0}, turn=turn + 1)
    with pytest.raises(Conflict):
        await draw(world, bank, {id: 10}, turn=turn)
    assert left(world, task) == ("100", "0")
