"""Restrictions of agents at the decision point: they apply as at guards, and the server counts the calls."""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import SECOND, register_agent, run_act
from ostiary.authorization.assurance import INSUFFICIENT, KEY, TWO_KEYS
from ostiary.authorization.catalogue import Catalogue
from ostiary.decision.access.restrictions import MINUTE, RestrictionKind
from ostiaryd.ground.world import World
from ostiaryd.policy.flows.evaluator import MAX_SEARCHED_IN_ACT
from ostiaryd.policy.wire_authzen import EVALUATION, EVALUATIONS
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.support.policy_fixtures import Ask

TOOLS = [{"name": "read", "effect": "read"}, {"name": "write", "effect": "write"}]


@pytest.fixture
async def bot(world: World) -> Agent:
    await run_act(world, lambda a: registry.create_resource(a, name="files", uri="https://files.example/mcp"))
    catalogue = Catalogue.parse(json.dumps({"resource": "files", "tools": TOOLS}))
    await run_act(world, lambda a: registry.set_catalogue(a, "files", catalogue))
    return await register_agent(world, "bot", scopes=["files:read", "files:write"])


@pytest.fixture
async def helper(world: World, bot: Agent) -> Agent:
    return await register_agent(world, "helper", scopes=["files:read", "files:write"])


def question(agent: Agent, tool: str = "read", **context: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "agent", "id": agent.agent_id},
        "action": {"name": "call"},
        "resource": {"type": "tool", "id": f"files/{tool}"},
        "context": context,
    }


async def code(ask: Ask, agent: Agent, tool: str = "read", **context: Any) -> str:
    answer = (await ask(EVALUATION, question(agent, tool, **context)))[1]
    return "" if answer["decision"] else str(answer["context"]["reasons"][0]["code"])


async def put(world: World, kind: RestrictionKind, limit: int = 0) -> None:
    await run_act(world, lambda a: registry.put_restriction(a, "bot", kind, until=a.now + 3600 * SECOND, limit=limit))


async def part_of(world: World) -> str:
    whole = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="p")))
    return (
        await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="helper", purpose="p", parent=whole.task_id)))
    ).task_id


async def test_a_narrowed_agent_and_agents_with_parts_of_its_tasks_may_only_read(
    world: World, ask: Ask, bot: Agent, helper: Agent
) -> None:
    part = await part_of(world)
    await put(world, "narrow")
    for agent, task, denied in ((bot, "", "narrowed"), (helper, part, "narrowed"), (helper, "", "")):
        assert await code(ask, agent, "write", task=task) == denied
        assert await code(ask, agent, "read", task=task) == ""
    await run_act(world, lambda a: registry.lift_restrictions(a, "bot"))
    assert await code(ask, bot, "write") == ""


async def test_a_step_up_restriction_is_met_by_the_assurance_that_the_request_states(
    world: World, ask: Ask, clock: Clock, bot: Agent
) -> None:
    clock.advance(us=SECOND - clock() % SECOND)
    await put(world, "step_up", 1)
    now = clock() // SECOND
    assert await code(ask, bot) == INSUFFICIENT
    for acr, at, denied in (
        (TWO_KEYS, now, ""),
        (TWO_KEYS, now - 1, INSUFFICIENT),
        (KEY, now, INSUFFICIENT),
        (TWO_KEYS, None, INSUFFICIENT),
    ):
        assert await code(ask, bot, acr=acr, auth_time=at) == denied


async def test_a_throttle_counts_calls_of_the_agent_and_of_parts_of_its_tasks_also_in_a_batch(
    world: World, ask: Ask, clock: Clock, bot: Agent, helper: Agent
) -> None:
    clock.advance(us=MINUTE - clock() % MINUTE)
    part = await part_of(world)
    await put(world, "throttle", 3)
    assert await code(ask, bot, "of nobody") == "unknown_tool"
    assert await code(ask, bot) == ""
    posed = [question(bot), question(helper, task=part), question(helper), question(bot)]
    answers = (await ask(EVALUATIONS, {"evaluations": posed}))[1]["evaluations"]
    assert [one["decision"] for one in answers] == [True, True, True, False]
    assert await code(ask, helper, task=part) == "throttled"
    assert await code(ask, helper) == ""
    clock.advance(us=MINUTE)
    assert await code(ask, helper, task=part) == ""


async def test_a_call_with_a_secret_that_a_proxy_used_is_denied(
    world: World, ask: Ask, bot: Agent, helper: Agent
) -> None:
    value, part = "sk-c4n4ry/+Zz=4711", await part_of(world)
    sent: dict[str, Any] = {"arguments": {"path": {"deep": [value[::-1]]}}}
    assert await code(ask, bot, **sent) == ""
    await run_act(world, lambda a: registry.know_secret(a, bot.agent_id, value))
    assert await code(ask, bot, **sent) == "secret_sent"
    assert await code(ask, helper, task=part, **sent) == "secret_sent"
    assert await code(ask, helper, **sent) == ""
    assert await code(ask, bot, arguments={"path": value[:-1]}) == ""
    posed = [question(bot, **sent), question(bot)]
    answers = (await ask(EVALUATIONS, {"evaluations": posed}))[1]["evaluations"]
    assert [one["decision"] for one in answers] == [False, True]
    half: dict[str, Any] = {"arguments": {"path": "x" * (MAX_SEARCHED_IN_ACT // 2 - len("\npath"))}}
    posed = [question(bot, **half), question(helper), question(bot, **half)]
    answers = (await ask(EVALUATIONS, {"evaluations": posed}))[1]["evaluations"]
    assert [one["decision"] for one in answers] == [True, True, True]
    posed += [question(bot, arguments={"path": "y"}), question(helper, arguments={"path": "y"})]
    answers = (await ask(EVALUATIONS, {"evaluations": posed}))[1]["evaluations"]
    assert [one["decision"] for one in answers] == [True, True, True, False, True]
