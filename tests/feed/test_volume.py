"""Volumes over the feed: reservation ahead of a call, return of the rest, and the limit on returned data."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

import pytest

from harness.registry_fixtures import create_holding, get_agent, is_live, register_agent, run_act
from ostiary.authorization.budget import InvalidBudget, parse_limits
from ostiary.decision.report import CallRecord, Report, ResultRecord
from ostiary.decision.slices import Draw
from ostiaryd.feed import flows
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec

URI = "https://clinic.example/mcp"
LIMIT, MOST = 100, 10
HEALTH: dict[str, Any] = {"kind": "volume", "limit": LIMIT, "data_class": "health", "per_call": MOST}
TURNS = count(1)


@pytest.fixture
async def clinic(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="clinic", uri=URI))


async def start(world: World, *limits: dict[str, Any], parent: str | None = None) -> Task:
    budget = parse_limits(list(limits))
    return await run_act(
        world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="p", budget=budget, parent=parent))
    )


@pytest.fixture
async def task(world: World, clinic: Resource) -> Task:
    bot = await register_agent(world)
    made = await start(world, HEALTH)
    await create_holding(world, bot, "tok_1", audience=URI, task=made.task_id)
    return made


def account(world: World, task: Task) -> str:
    return tasks.in_force(world.db.read(), task)[0].id


class Guard:
    """The requests of a guard, by the letter: it draws, pays ahead, reports and gives up."""

    def __init__(self, world: World, clinic: Resource, task: Task, spool: str) -> None:
        self.world, self.clinic, self.spool = world, clinic, spool
        self.account = account(world, task)
        self.total = self.spent = self.next = 0
        self.records: list[CallRecord | ResultRecord] = []

    async def begin(self) -> int | None:
        """A call that has paid: its number; None where there is too little."""
        if self.total - self.spent < MOST:
            asked = Draw(spool=self.spool, turn=next(TURNS), token="tok_1", need={self.account: self.spent + MOST})
            drawn = await run_act(self.world, lambda a: flows.draw(a, asked, resource_id=self.clinic.resource_id))
            self.total = drawn.total[self.account]
        if self.total - self.spent < MOST:
            return None
        self.spent += MOST
        agent = get_agent(self.world, "bot").agent_id
        return self._keep(
            CallRecord(
                at=5,
                token="tok_1",
                agent=agent,
                tool="read",
                outcome="allow",
                verdict="allow",
                spent={self.account: MOST},
            )
        )

    def end(self, call: int, returned: int) -> None:
        unused = {self.account: MOST - returned} if returned < MOST else {}
        self.spent -= MOST - returned
        self._keep(ResultRecord(at=6, call=call, status="ok", records=returned, unused=unused))

    def _keep(self, record: CallRecord | ResultRecord) -> int:
        self.next += 1
        self.records.append(record)
        return self.next

    async def report(self, most: int = 1000) -> None:
        some, self.records = self.records[:most], self.records[most:]
        if some:
            first = self.next - len(self.records) - len(some) + 1
            told = Report(spool=self.spool, first=first, records=list(some))
            await run_act(self.world, lambda a: flows.take_report(a, told, resource_id=self.clinic.resource_id))

    async def settle(self) -> None:
        await self.report()
        await run_act(
            self.world,
            lambda a: flows.settle(a, self.spool, last_record=self.next, resource_id=self.clinic.resource_id),
        )


def balance(world: World, task: Task) -> tuple[int, int]:
    [one] = tasks.balances_of(world.db.read(), task, now=world.now())
    return int(one.left), int(one.spent)


@pytest.mark.parametrize("seed", range(8))
async def test_calls_never_return_more_than_the_volume_budget(
    world: World, clinic: Resource, task: Task, seed: int
) -> None:
    dice = random.Random(seed)
    guards = [Guard(world, clinic, task, f"{number:032x}") for number in range(3)]
    running: list[tuple[Guard, int]] = []
    returned = lost = 0
    for _ in range(60):
        guard = dice.choice(guards)
        match dice.choice(["begin", "begin", "end", "end", "report", "vanish"]):
            case "begin":
                if (number := await guard.begin()) is not None:
                    running.append((guard, number))
            case "end" if running:
                by, number = running.pop(dice.randrange(len(running)))
                returned += (some := dice.randrange(MOST + 1))
                by.end(number, some)
            case "report":
                await guard.report(dice.randrange(1, 5))
            case "vanish" if running:  # its outcome is never heard: it may have returned all that it took
                running.pop(dice.randrange(len(running)))
                lost += MOST
        assert returned + lost + MOST * len(running) <= LIMIT
    lost += MOST * len(running)
    for guard in guards:
        await guard.settle()
    assert balance(world, task) == (LIMIT - returned - lost, returned + lost)


async def test_unused_volume_of_a_call_returns_to_the_budget(world: World, clinic: Resource, task: Task) -> None:
    guard = Guard(world, clinic, task, "0" * 32)
    number = await guard.begin()
    assert number is not None
    await guard.report()
    assert balance(world, task) == (LIMIT - MOST, MOST)
    guard.end(number, 3)
    await guard.report()
    assert balance(world, task) == (LIMIT - MOST, 3)
    await guard.settle()
    assert balance(world, task) == (LIMIT - 3, 3)


async def test_an_outcome_after_the_settlement_of_its_spool_returns_no_volume(
    world: World, clinic: Resource, task: Task
) -> None:
    guard = Guard(world, clinic, task, "0" * 32)
    number = await guard.begin()
    assert number is not None
    await guard.settle()
    guard.end(number, 0)
    await guard.report()
    assert balance(world, task) == (LIMIT - MOST, MOST)


async def test_a_guard_cannot_return_more_volume_than_it_has_spent(world: World, clinic: Resource, task: Task) -> None:
    guard = Guard(world, clinic, task, "0" * 32)
    number = await guard.begin()
    assert number is not None
    lie = ResultRecord(at=6, call=number, status="ok", records=0, unused={guard.account: 1000, "bu_nothing": 5})
    guard._keep(lie)
    await guard.settle()
    assert balance(world, task) == (LIMIT, 0)


async def test_a_guard_cannot_return_calls_to_a_budget(world: World, clinic: Resource) -> None:
    """Only volumes can be returned: a report of unused calls is ignored."""
    bot = await register_agent(world)
    task = await start(world, {"kind": "calls", "limit": LIMIT})
    await create_holding(world, bot, "tok_1", audience=URI, task=task.task_id)
    guard = Guard(world, clinic, task, "0" * 32)
    number = await guard.begin()
    assert number is not None
    guard._keep(ResultRecord(at=6, call=number, status="ok", unused={guard.account: MOST}))
    await guard.settle()
    assert balance(world, task) == (LIMIT - MOST, MOST)


async def test_a_subtask_cannot_have_a_larger_volume_for_each_call_or_in_total(world: World, task: Task) -> None:
    assert (await start(world, HEALTH | {"limit": 20}, parent=task.task_id)).parent == task.task_id
    assert balance(world, task)[0] == LIMIT - 20
    await start(world, HEALTH | {"limit": 20, "per_call": MOST - 1}, parent=task.task_id)
    with pytest.raises(InvalidBudget, match="more than the 10 that the task above permits"):
        await start(world, HEALTH | {"limit": 20, "per_call": MOST + 1}, parent=task.task_id)
    with pytest.raises(InvalidBudget, match="has 60 left"):
        await start(world, HEALTH | {"limit": 61}, parent=task.task_id)


@pytest.mark.parametrize(("changed", "lives"), [({}, True), ({"limit": 50}, True), ({"per_call": 9}, False)])
async def test_a_smaller_volume_for_each_call_ends_the_tokens_of_the_agent(
    world: World, clinic: Resource, changed: dict[str, Any], lives: bool
) -> None:
    bot = await register_agent(world)
    await run_act(world, lambda a: tasks.set_allowance(a, "bot", parse_limits([HEALTH])))
    await create_holding(world, bot, "tok_1", audience=URI)
    await run_act(world, lambda a: tasks.set_allowance(a, "bot", parse_limits([HEALTH | changed])))
    assert is_live(world, "tok_1") is lives


@pytest.mark.parametrize(("returned", "left"), [(11, 89), (99, 1), (100, 0), (1000, 0)])
async def test_volume_returned_beyond_the_limit_is_charged_up_to_the_budget(
    world: World, clinic: Resource, task: Task, returned: int, left: int
) -> None:
    guard, other = (Guard(world, clinic, task, f"{number:032x}") for number in range(2))
    number = await guard.begin()
    assert number is not None
    guard._keep(ResultRecord(at=6, call=number, status="ok", records=returned, unused={guard.account: MOST - returned}))
    await guard.settle()
    assert balance(world, task) == (left, LIMIT - left)
    assert (await other.begin() is None) is (left < MOST)
