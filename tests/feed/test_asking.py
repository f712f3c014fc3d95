"""Questions of a guard to remote policies: about a call under a live token of its own resource, now."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness.registry_fixtures import create_holding, end_holdings, newest_entry, register_agent, run_act
from ostiary.decision import asking
from ostiary.decision.access import PolicyResult
from ostiary.protocol.errors import Refused
from ostiary.protocol.jose import JwkSet
from ostiary.protocol.signed import digest, parse_answer
from ostiaryd.feed import wire_feed
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World
from ostiaryd.policy.flows.external_retry import FRESH
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, Caller, Resource, Root, Verb
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec
from tests.support.rego_fixtures import put

URI = "https://bank.example/mcp"
REGO = """package ostiary.levels
import rego.v1
default permit := false
permit if input.context.arguments.amount < 100
forbid contains "not to Eve" if input.context.arguments.to == "eve"
"""


@pytest.fixture
async def bank(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="bank", uri=URI))


@pytest.fixture
async def bot(world: World, bank: Resource) -> Agent:
    return await register_agent(world)


@pytest.fixture
async def task(world: World, bot: Agent) -> Task:
    """A task, with the token `tok_1` for the bank under it."""
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to pay")))
    await create_holding(world, bot, "tok_1", audience=URI, task=task.task_id)
    return task


@pytest.fixture
async def hash(world: World) -> str:
    return await put(world, {"a.rego": REGO})


def question(world: World, bot: Agent, task: Task, **changed: Any) -> dict[str, Any]:
    arguments = {"amount": 5, "to": "ann"} | changed.pop("arguments", {})
    right: dict[str, Any] = {
        "subject": {"type": "Agent", "id": bot.agent_id},
        "action": {"name": "call"},
        "resource": {"type": "Tool", "id": "bank/pay"},
        "context": {"task": task.task_id, "now": world.now() * 1000, "arguments": arguments},
    }
    return right | {name: right[name] | value for name, value in changed.items()}


async def ask(
    world: World, bank: Resource, hash: str, question: dict[str, Any], **changed: Any
) -> tuple[PolicyResult, ...]:
    """The answer as the guard of that resource believes it."""
    body = json.dumps({"call": "c" * 22, "token": "tok_1", "policy": hash, "question": question} | changed).encode()
    return await send(world, bank, body)


async def send(world: World, bank: Resource, body: bytes) -> tuple[PolicyResult, ...]:
    headers = [(b"content-type", b"application/json")]
    by = Caller(kind="guard", id=bank.resource_id, name="bank", owner=None, scopes=frozenset({"ostiary:feed"}))
    call = Call(world, "POST", "/feed/v1/ask", {}, "", headers, body, "rq_1", by)
    reply = await wire_feed.ask(call)
    assert isinstance(reply.body, bytes)
    keys = JwkSet(tuple(world.keys.public("feed").values()))
    return parse_answer(
        reply.body,
        asking.RemotePolicyAnswer,
        body=body,
        keys=keys,
        issuer=world.config.issuer,
        resource_id=bank.resource_id,
    ).results


async def test_each_result_of_a_remote_policy_is_returned_and_recorded(
    world: World, bank: Resource, bot: Agent, task: Task, hash: str
) -> None:
    asked = question(world, bot, task)
    assert await ask(world, bank, hash, asked) == (PolicyResult("levels", permits=True),)
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.agent, entry.task, entry.token, entry.policy, entry.tool) == (
        "policy.ask",
        "ok",
        bot.agent_id,
        task.task_id,
        "tok_1",
        hash,
        "bank/pay",
    )
    assert entry.digest == digest(json.dumps(asked).encode())
    assert (entry.detail or {})["said"] == {"levels": "permit"}
    said = await ask(world, bank, hash, question(world, bot, task, arguments={"to": "eve"}))
    assert said == (PolicyResult("levels", permits=True, forbids=("not to Eve",)),)
    assert (newest_entry(world).detail or {})["said"] == {"levels": {"forbid": ["not to Eve"]}}


FOREIGN: dict[str, dict[str, Any]] = {
    "another agent": {"subject": {"id": "ag_other"}},
    "no agent": {"subject": {"type": "user"}},
    "another action": {"action": {"name": "issue_token"}},
    "another resource": {"resource": {"id": "files/pay"}},
    "no tool": {"resource": {"type": "Resource", "id": "bank"}},
    "another task": {"context": {"task": "tk_other"}},
    "no instant": {"context": {"now": "today"}},
}


@pytest.mark.parametrize("database", ["sqlite"])  # the question decides, on either database
@pytest.mark.parametrize("case", FOREIGN)
async def test_a_request_about_another_agent_tool_or_task_is_refused(
    world: World, bank: Resource, bot: Agent, task: Task, hash: str, case: str
) -> None:
    with pytest.raises(Refused) as refused:
        await ask(world, bank, hash, question(world, bot, task, **FOREIGN[case]))
    assert refused.value.code == "foreign_question"
    assert ("the time of the question" in refused.value.message) is (case == "no instant")
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.token) == ("policy.ask", "refused", "tok_1")
    assert entry.agent is None, "nobody has shown that it was that agent's call"


@pytest.mark.parametrize("database", ["sqlite"])  # the question decides, on either database
@pytest.mark.parametrize(("off", "fresh"), [(FRESH, True), (-FRESH, True), (FRESH + 1, False), (-FRESH - 1, False)])
async def test_a_request_with_a_time_other_than_the_present_is_refused(
    world: World, bank: Resource, bot: Agent, task: Task, hash: str, off: int, fresh: bool
) -> None:
    asked = question(world, bot, task, context={"now": (world.now() + off) * 1000})
    if fresh:
        assert (await ask(world, bank, hash, asked))[0].permits
    else:
        with pytest.raises(Refused, match="time of the question"):
            await ask(world, bank, hash, asked)


async def test_a_request_needs_a_live_token_for_the_resource(
    world: World, bank: Resource, bot: Agent, task: Task, hash: str
) -> None:
    await create_holding(world, bot, "tok_elsewhere", audience="https://elsewhere.example", task=task.task_id)
    for token in ("tok_none", "tok_elsewhere"):
        with pytest.raises(Refused) as refused:
            await ask(world, bank, hash, question(world, bot, task), token=token)
        assert refused.value.code == "foreign_token"
    other = await run_act(world, lambda a: registry.create_resource(a, name="other", uri="https://other.example"))
    with pytest.raises(Refused) as refused:
        await ask(world, other, hash, question(world, bot, task))
    assert refused.value.code == "foreign_token"
    await end_holdings(world, Root.HOLDING, "tok_1")
    with pytest.raises(Refused) as refused:
        await ask(world, bank, hash, question(world, bot, task))
    assert refused.value.code == "foreign_token"


async def test_the_agent_must_be_active(world: World, bank: Resource, bot: Agent, task: Task, hash: str) -> None:
    await run_act(world, lambda a: registry.set_agent_state(a, "bot", Verb.SUSPEND))
    with pytest.raises(Refused):
        await ask(world, bank, hash, question(world, bot, task))
    assert newest_entry(world).outcome == "refused"


async def test_only_the_active_policy_set_is_evaluated(
    world: World, bank: Resource, bot: Agent, task: Task, hash: str
) -> None:
    with pytest.raises(Refused) as refused:
        await ask(world, bank, "another", question(world, bot, task))
    assert refused.value.code == "other_policies"
    after = await put(world, {"a.cedar": "permit (principal, action, resource);"})
    for named in (hash, after):
        with pytest.raises(Refused) as refused:
            await ask(world, bank, named, question(world, bot, task))
        assert refused.value.code == "other_policies"


async def test_a_request_whose_token_ends_during_the_evaluation_is_refused(
    world: World, bank: Resource, bot: Agent, task: Task
) -> None:
    slow = "numbers.range(1, 3000)"
    rego = (
        f"package ostiary.slow\nimport rego.v1\npermit if count([x | some x in {slow}; some y in {slow}; x == y]) > 0"
    )
    hash = await put(world, {"a.rego": rego})
    asking_ = asyncio.ensure_future(ask(world, bank, hash, question(world, bot, task)))
    await asyncio.sleep(0.05)
    await end_holdings(world, Root.HOLDING, "tok_1")
    with pytest.raises(Refused) as refused:
        await asking_
    assert refused.value.code == "foreign_token"


async def test_a_request_with_a_duplicate_member_is_refused(
    world: World, bank: Resource, bot: Agent, task: Task, hash: str
) -> None:
    body = json.dumps(
        {"call": "c" * 22, "token": "tok_1", "policy": hash, "question": question(world, bot, task)}
    ).replace('"amount": 5', '"amount": 500, "amount": 5')
    with pytest.raises(Refused, match="twice"):
        await send(world, bank, body.encode())


async def test_a_request_has_a_maximum_size(world: World, bank: Resource, bot: Agent, task: Task, hash: str) -> None:
    long = question(world, bot, task, arguments={"x": "y" * wire_feed.MAX_ASK})
    with pytest.raises(Refused, match="longer than"):
        await ask(world, bank, hash, long)
