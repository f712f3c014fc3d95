"""Budgets at the decision point of the server: an allowed call spends the budget, a denied call does not."""

from __future__ import annotations

from typing import Any

import pytest

from harness.registry_fixtures import newest_entry, register_agent, run_act
from ostiary.authorization.budget import parse_limits
from ostiary.authorization.catalogue import Catalogue
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Mode
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec
from tests.support.policy_fixtures import Ask

EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
TOOLS = Catalogue.parse(
    '{"resource":"bank","tools":[{"name":"pay","effect":"pay"},{"name":"read","effect":"read"},'
    '{"name":"close","effect":"administer"}]}'
)
LIMITS = [
    {"kind": "calls", "limit": 3},
    {"kind": "amount", "limit": "10.00", "tools": ["bank/pay"], "argument": "amount"},
]


@pytest.fixture
async def task(world: World) -> Task:
    await register_agent(world, scopes=["bank:read", "bank:write"])
    await run_act(world, lambda a: registry.create_resource(a, name="bank", uri="https://bank.example/mcp"))
    await run_act(world, lambda a: registry.set_catalogue(a, "bank", TOOLS))
    return await run_act(
        world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to pay", budget=parse_limits(LIMITS)))
    )


def question(task: Task, tool: str = "pay", **arguments: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "Agent", "id": "bot"},
        "action": {"name": "call"},
        "resource": {"type": "Tool", "id": f"bank/{tool}"},
        "context": {"task": task.task_id, "arguments": arguments},
    }


def left(world: World, task: Task) -> list[str]:
    return [one.left for one in tasks.balances_of(world.db.read(), task, now=world.now())]


async def test_an_allowed_call_spends_the_budget_until_the_budget_is_exhausted(
    world: World, ask: Ask, task: Task
) -> None:
    assert (await ask(EVALUATION, question(task, amount="9.99")))[1]["decision"] is True
    assert left(world, task) == ["0.01", "2"]
    _, answer = await ask(EVALUATION, question(task, amount="0.02"))
    assert answer["decision"] is False
    [reason] = answer["context"]["reasons"]
    assert reason["code"] == "budget_exhausted"
    assert "0.01 of 10.00" in reason["message"]
    assert reason["hint"]
    assert left(world, task) == ["0.01", "2"], "what is denied costs nothing"
    entry = newest_entry(world)
    assert (entry.outcome, entry.reasons[0].code) == ("deny", "budget_exhausted")
    assert (await ask(EVALUATION, question(task, amount="0.01")))[1]["decision"] is True
    assert (await ask(EVALUATION, question(task, "read")))[1]["decision"] is True
    assert (await ask(EVALUATION, question(task, "read")))[1]["decision"] is False
    assert left(world, task) == ["0.00", "0"]


async def test_a_call_denied_for_another_reason_spends_no_budget(world: World, ask: Ask, task: Task) -> None:
    assert (await ask(EVALUATION, question(task, "close")))[1]["decision"] is False
    assert (await ask(EVALUATION, question(task, "no_such_tool")))[1]["decision"] is False
    _, answer = await ask(EVALUATION, question(task, amount="1e1"))
    assert answer["context"]["reasons"][0]["code"] == "bad_amount"
    other = {**question(task), "action": {"name": "look_at"}}
    await ask(EVALUATION, other)
    assert left(world, task) == ["10.00", "3"]


async def test_a_batch_spends_the_budget_for_each_allowed_call_in_order(world: World, ask: Ask, task: Task) -> None:
    asked = [question(task, amount=amount) for amount in ("6", "5", "4", "0.01")]
    _, answer = await ask(EVALUATIONS, {"evaluations": asked})
    assert [one["decision"] for one in answer["evaluations"]] == [True, False, True, False]
    assert left(world, task) == ["0.00", "1"]


async def test_a_resource_in_watch_mode_allows_a_call_beyond_the_budget(world: World, ask: Ask, task: Task) -> None:
    await run_act(world, lambda a: registry.set_mode(a, "bank", Mode.WATCH))
    _, answer = await ask(EVALUATION, question(task, amount="10.01"))
    assert answer["decision"] is True
    assert newest_entry(world).detail == {"asked": ["Agent", "bot", "call", "Tool", "bank/pay"], "verdict": "deny"}
    assert left(world, task) == ["10.00", "3"]
