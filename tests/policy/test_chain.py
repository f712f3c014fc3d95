"""The delegation chain in policy requests of the server: only the registry determines it, and what-if replays it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.registry_fixtures import register_agent, run_act
from ostiary.authorization.assurance import KEY
from ostiary.authorization.claims import Link
from ostiary.protocol.errors import Refused
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.policy.flows import TaskChain, decide_issue
from ostiaryd.policy.model import (
    AgentSeen,
    Posed,
    ResourceSeen,
    ToolSeen,
    decode_facts,
    encode_context,
    load,
    starter_files,
)
from ostiaryd.policy.model.replay import Replay, Unreplayable
from ostiaryd.policy.wire_authzen import EVALUATION, EVALUATIONS
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent, RiskTier
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.support.policy_fixtures import Ask, put

PEEKS = {
    "a.cedarschema": """
        action peek appliesTo {
          principal: [Agent], resource: [Resource], context: { task?: String, actors: Set<Agent>, why?: String }
        };
    """,
    "a.cedar": """
        @id("alone") permit (principal is Agent, action == Action::"peek", resource is Resource)
        when { context.actors.isEmpty() };
        @id("tier") permit (principal is Agent, action == Action::"peek", resource is Resource)
        when { principal.risk_tier == "low" };
    """,
}


@pytest.fixture
async def low(world: World) -> Agent:
    await run_act(world, lambda a: registry.create_resource(a, name="files", uri="https://files.example.org/mcp"))
    return await register_agent(world, "low", risk_tier=RiskTier.LOW)


@pytest.fixture
async def high(world: World, low: Agent) -> Agent:
    return await register_agent(world, "high", risk_tier=RiskTier.HIGH)


def peek(agent: Agent, **context: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "agent", "id": agent.agent_id},
        "action": {"name": "peek"},
        "resource": {"type": "Resource", "id": "files"},
        "context": context,
    }


async def part_of(world: World, giver: str, receiver: str) -> str:
    whole = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent=giver, purpose="p")))
    return (
        await run_act(world, lambda a: tasks.start(a, TaskSpec(agent=receiver, purpose="p", parent=whole.task_id)))
    ).task_id


async def test_a_delegation_chain_in_the_request_does_not_replace_the_chain_of_the_task(
    world: World, ask: Ask, low: Agent, high: Agent
) -> None:
    """For every action, `actors` and `chain` are those of the task; both are empty without a task."""
    await put(world, PEEKS)
    assert (await ask(EVALUATION, peek(high, actors=["nobody"], chain=[1])))[1]["context"]["policies"] == ["alone"]
    part = await part_of(world, "low", "high")
    denied = (await ask(EVALUATION, peek(high, task=part, actors=[], chain=[])))[1]
    assert denied["decision"] is False  # `alone` does not hold, `tier` holds for one of both alone
    assert (await ask(EVALUATION, peek(low, actors=["nobody"])))[1]["context"]["policies"] == ["alone", "tier"]
    answers = (await ask(EVALUATIONS, {"evaluations": [peek(high), peek(high, task=part), peek(low)]}))[1]
    assert [one["decision"] for one in answers["evaluations"]] == [True, False, True]


@pytest.mark.parametrize("task", ["tk_" + "0" * 32, "tk_", "of another", "ended"])
async def test_a_task_that_is_unknown_ended_or_of_another_agent_denies_the_request(
    world: World, ask: Ask, low: Agent, high: Agent, task: str
) -> None:
    await put(world, PEEKS)
    if task == "of another":
        task = (await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="low", purpose="p")))).task_id
    if task == "ended":
        task = (await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="high", purpose="p")))).task_id
        await run_act(world, lambda a: tasks.end(a, task))
    assert (await ask(EVALUATION, peek(high, task=task)))[1]["decision"] is False
    assert (await ask(EVALUATION, peek(high, task="a word of the caller's")))[1]["decision"] is True


async def test_a_changed_agent_is_evaluated_again_under_the_same_chain(world: World, low: Agent, high: Agent) -> None:
    """Although its chain, whose result is cached, is the same."""
    only_low = """@id("low") permit (principal is Agent, action == Action::"issue_token", resource)
        when { principal.risk_tier == "low" };"""
    await put(world, {"a.cedar": only_low})
    chain = (Link(low.agent_id, 0, "tk_1", low.owner, low.segment, "", "low"),)

    async def issue(agent: Agent) -> None:
        def flow(act: Act) -> str:
            return decide_issue(
                act, agent, TaskChain("tk_2", chain), resource=None, uri="https://a", scopes=frozenset(), acr=KEY
            )

        await run_act(world, flow)

    raised = replace(low, agent_id=high.agent_id)
    for _ in range(2):
        await issue(raised)
        with pytest.raises(Refused, match="no policy permits the request"):
            await issue(replace(raised, risk_tier=RiskTier.HIGH))


async def test_a_what_if_replay_evaluates_the_recorded_delegation_chain(
    world: World, ask: Ask, low: Agent, high: Agent
) -> None:
    await put(world, PEEKS)
    part = await part_of(world, "low", "high")
    await ask(EVALUATION, peek(high, task=part))
    (facts,) = [
        found for _, _, found in ledger.list_entries_with_facts(world.db.read(), 0, 1 << 40) if found is not None
    ]
    asked = kept(facts)
    loaded = load(PEEKS | {"a.cedar": PEEKS["a.cedar"].replace('== "low"', 'like "*"')})
    for rules, allowed in ((load(PEEKS), False), (loaded, True)):
        replay = Replay(rules.policies, rules.ir, catalogue=lambda _: None)
        assert replay.judge(asked, at=world.now()).allowed is allowed


def kept(body: bytes) -> Posed:
    (asked,) = decode_facts(body).posed
    assert asked is not None
    return asked


def test_facts_recorded_without_the_attributes_or_chain_of_an_agent_cannot_be_replayed() -> None:
    """The attributes of an agent that policies read, or the agents for which it acted, are missing."""
    where = ResourceSeen("", "https://files.example.org/mcp")
    reads = load({"a.cedar": 'permit (principal is Agent, action, resource) when { principal.risk_tier == "" };'})
    plain = load({"a.cedar": "permit (principal is Agent, action, resource);"})
    issue = Posed(
        principal=AgentSeen("ag_1", "pe_1", "s"), action="issue_token", resource=where, context=encode_context({})
    )
    assert Replay(plain.policies, plain.ir, catalogue=lambda _: None).judge(issue, at=0).allowed
    with pytest.raises(Unreplayable):
        Replay(reads.policies, reads.ir, catalogue=lambda _: None).judge(issue, at=0)
    text = '{"resource": "files", "tools": [{"name": "read", "effect": "read"}]}'
    tool = ToolSeen("files", "u", "s", "digest", "read")
    for actors, known in (([], True), ([{"__entity": {"type": "Agent", "id": "ag_2"}}], False)):
        call = Posed(
            principal=AgentSeen("ag_1", "pe_1", "s"),
            resource=tool,
            context=encode_context({"actors": actors}),
            arguments={},
        )
        replay = Replay(plain.policies, plain.ir, catalogue=lambda _: text)
        if known:
            assert replay.judge(call, at=0).allowed
        else:
            with pytest.raises(Unreplayable):
                replay.judge(call, at=0)


CASE = """
[[case]]
name = "an agent behind it"
subject = { type = "agent", id = "ag_1" }
action = "call"
resource = { type = "tool", id = "files/read" }
behind = [{ type = "agent", id = "ag_2", properties = { segment = "SEGMENT" } }]
expect = "EXPECTED"
"""


@pytest.mark.parametrize(("segment", "expected"), [("default", "allow"), ("finance", "deny")])
def test_a_test_case_of_a_set_can_state_the_agents_of_the_delegation_chain(segment: str, expected: str) -> None:
    text = CASE.replace("SEGMENT", segment)
    load(starter_files().files | {"a.test.toml": text.replace("EXPECTED", expected)})
    other = {"allow": "deny", "deny": "allow"}[expected]
    with pytest.raises(Refused) as refused:
        load(starter_files().files | {"a.test.toml": text.replace("EXPECTED", other)})
    assert refused.value.code == "policy_test_failed"


def test_the_delegation_chain_of_a_test_case_must_consist_of_agents() -> None:
    text = CASE.replace('type = "agent", id = "ag_2"', 'type = "user", id = "ag_2"').replace("EXPECTED", "deny")
    with pytest.raises(Refused) as refused:
        load(starter_files().files | {"a.test.toml": text})
    assert "`behind` names user" in refused.value.message


def test_a_test_case_of_a_response_must_be_about_an_agent() -> None:
    text = CASE.replace('type = "agent", id = "ag_1"', 'type = "user", id = "ada"').replace("EXPECTED", "deny")
    text = text.replace('action = "call"', 'action = "quarantine"')
    with pytest.raises(Refused) as refused:
        load(starter_files().files | {"a.test.toml": text})
    assert "`subject` names user::'ada', which is not an agent" in refused.value.message
