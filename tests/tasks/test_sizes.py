"""A task is no larger than a token: purpose, bounds, intent and budget together, however the task begins."""

from __future__ import annotations

from typing import Any

import pytest

from harness.registry_fixtures import agent_caller, call_admin_api, newest_entry, register_agent, run_act
from ostiary.authorization.bounds import ToolDetail, parse_details, render_details
from ostiary.authorization.budget import parse_limits
from ostiary.protocol import canonical
from ostiary.provenance.intent import parse_intent
from ostiaryd.ground.http.pages import Page
from ostiaryd.ground.world import World
from ostiaryd.policy import wire_tasks
from ostiaryd.tasks import flows
from ostiaryd.tasks.model import MAX_TASK_BYTES, TaskSpec, TaskTooLarge, check_size
from ostiaryd.tasks.store import tasks as store

URI = "https://files.example/"


def bounds_of_size(size: int) -> tuple[ToolDetail, ...]:
    """Bounds whose canonical JSON has exactly `size` bytes."""
    empty = [{"type": "tool", "locations": [URI], "arguments": {"path": {"one_of": [""]}}}]
    rest = size - len(canonical.encode(render_details(parse_details(empty))))
    values = [f"{number:03}" + "x" * 997 for number in range(rest // 1003)]
    empty[0]["arguments"] = {"path": {"one_of": ["", *values]}}
    left = size - len(canonical.encode(render_details(parse_details(empty))))
    empty[0]["arguments"] = {"path": {"one_of": ["y" * left, *values]}}
    found = parse_details(empty)
    assert len(canonical.encode(render_details(found))) == size
    return found


def room(purpose: str = "p", **more: Any) -> int:
    """Bytes that are left for bounds beside the other parts of a task."""
    intent, budget = more.get("intent"), more.get("budget", ())
    parsed = [] if intent is None else [canonical.encode(intent)]
    return MAX_TASK_BYTES - len(purpose.encode()) - sum(map(len, parsed)) - len(canonical.encode(list(budget)))


INTENT = {"words": "Pay the bill in bill.txt", "own": {"mail": "ada@example.org"}}
BUDGET = [{"kind": "calls", "limit": 10}]


@pytest.mark.parametrize("more", [{}, {"purpose": "é" * 500}, {"intent": INTENT}, {"budget": BUDGET}])
@pytest.mark.parametrize(("over", "is_taken"), [(-1, True), (0, True), (1, False)])
def test_the_size_of_a_task_is_that_of_purpose_bounds_intent_and_budget_together(
    more: dict[str, Any], over: int, is_taken: bool
) -> None:
    bounds = bounds_of_size(room(**more) + over)
    intent = parse_intent(more["intent"]) if "intent" in more else None
    given = {
        "purpose": more.get("purpose", "p"),
        "bounds": bounds,
        "intent": intent,
        "budget": parse_limits(more.get("budget", [])),
    }
    if is_taken:
        check_size(**given)
    else:
        with pytest.raises(TaskTooLarge, match=f"{MAX_TASK_BYTES + 1} bytes; the limit is {MAX_TASK_BYTES}"):
            check_size(**given)


@pytest.mark.parametrize(("over", "status"), [(-1, 201), (0, 201), (1, 422)])
async def test_a_declared_task_above_the_size_limit_is_refused(world: World, over: int, status: int) -> None:
    bot = agent_caller(await register_agent(world, scopes=["files:read"]))
    body = {"purpose": "p", "bounds": render_details(bounds_of_size(room() + over))}
    answered, answer = await call_admin_api(world, "POST", "/tasks", body, by=bot)
    assert (answered, answer.get("error")) == (status, None if status == 201 else "task_too_large")
    assert newest_entry(world).outcome == ("ok" if status == 201 else "refused")


async def test_the_size_of_a_child_task_includes_its_inherited_bounds(world: World) -> None:
    await register_agent(world, scopes=["files:read"])
    whole = await run_act(
        world, lambda a: flows.start(a, TaskSpec(agent="bot", purpose="p", bounds=bounds_of_size(room()))), "task.start"
    )
    part = await run_act(world, lambda a: flows.start(a, TaskSpec(agent="bot", purpose="q", parent=whole.task_id)))
    assert part.bounds == whole.bounds
    with pytest.raises(TaskTooLarge):
        await run_act(world, lambda a: flows.start(a, TaskSpec(agent="bot", purpose="qq", parent=whole.task_id)))


async def test_the_size_of_a_task_includes_data_classes_that_lengthen_its_bounds(world: World) -> None:
    await register_agent(world, scopes=["files:read"])
    bounds = bounds_of_size(room())
    with pytest.raises(TaskTooLarge):
        await run_act(
            world,
            lambda a: flows.start(a, TaskSpec(agent="bot", purpose="p", bounds=bounds, data_classes=["internal"])),
        )
    assert store.page(world.db.read(), agent=None, page=Page(10, "")) == []


async def test_a_request_that_is_far_too_long_is_refused_before_it_is_parsed(world: World) -> None:
    bot = agent_caller(await register_agent(world, scopes=["files:read"]))
    rest = wire_tasks.MAX_BODY - len('{"purpose":""}')
    for length, error in ((rest - 1, "invalid"), (rest, "too_large")):  # `json.dumps` puts one space after the colon
        _, answer = await call_admin_api(world, "POST", "/tasks", {"purpose": "x" * length}, by=bot)
        assert answer["error"] == error
