"""Risk scores at the decision point: calls and other actions of agents, tokens, parts of tasks, and elevation."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import register_agent, run_act
from ostiary.authorization.assurance import KEY
from ostiary.authorization.catalogue import Catalogue
from ostiary.protocol.errors import Forbidden, Refused
from ostiary.provenance.noticing import HALF_LIFE, Risk
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import Act
from ostiaryd.policy import flows
from ostiaryd.policy.flows.issuance import judge_elevation
from ostiaryd.policy.model import decode_facts, load, starter_files
from ostiaryd.policy.model.replay import Replay, Unreplayable
from ostiaryd.policy.wire_authzen import EVALUATION
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent
from ostiaryd.registry.store import risks
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.support.policy_fixtures import Ask, put

TOOLS = [{"name": "read", "effect": "read"}]
RULES = """
@id("nobody-doubted") forbid (
  principal is Agent,
  action in [Action::"call", Action::"peek", Action::"issue_token", Action::"delegate", Action::"elevate"], resource
) when { context.risk.PART > 50 };
"""
PEEKS = """
action peek appliesTo {
  principal: [Agent], resource: [Resource],
  context: { task?: String, risk: { score: Long, agent: Long, task: Long, chain: Long, call: Long } }
};
"""
PEEK = '@id("peek") permit (principal is Agent, action == Action::"peek", resource is Resource);'


def rules(part: str = "score") -> dict[str, str]:
    return starter_files().files | {"risk.cedar": RULES.replace("PART", part), "p.cedar": PEEK, "p.cedarschema": PEEKS}


@pytest.fixture
async def bot(world: World) -> Agent:
    await run_act(world, lambda a: registry.create_resource(a, name="files", uri="https://files.example/mcp"))
    catalogue = Catalogue.parse(json.dumps({"resource": "files", "tools": TOOLS}))
    await run_act(world, lambda a: registry.set_catalogue(a, "files", catalogue))
    await put(world, rules())
    return await register_agent(world, "bot", scopes=["files:read"])


@pytest.fixture
async def helper(world: World, bot: Agent) -> Agent:
    return await register_agent(world, "helper", scopes=["files:read"])


async def doubt(world: World, subject: str, points: int) -> None:
    await run_act(world, lambda a: risks.put_risk(a.tx, subject, Risk(points * 1000, a.now)))


async def asked(ask: Ask, agent: Agent, action: str = "call", **context: Any) -> bool:
    kind, id = ("tool", "files/read") if action == "call" else ("Resource", "files")
    body = {
        "subject": {"type": "agent", "id": agent.agent_id},
        "action": {"name": action},
        "resource": {"type": kind, "id": id},
        "context": context,
    }
    return bool((await ask(EVALUATION, body))[1]["decision"])


async def start(world: World, agent: str = "bot", **said: Any) -> str:
    return (
        await run_act(world, lambda a: tasks.start(a, TaskSpec(**({"agent": agent, "purpose": "p"} | said))))
    ).task_id


@pytest.mark.parametrize("action", ["call", "peek"])
async def test_an_agent_with_a_high_risk_score_is_denied_until_the_score_has_decayed(
    world: World, ask: Ask, clock: Clock, bot: Agent, helper: Agent, action: str
) -> None:
    await doubt(world, bot.agent_id, 50)
    assert await asked(ask, bot, action)
    await doubt(world, bot.agent_id, 51)
    assert not await asked(ask, bot, action)
    calm = {"risk": {"score": 0, "agent": 0, "task": 0, "chain": 0, "call": 0}}
    assert not await asked(ask, bot, action, **calm), "what is said of it by who asks counts for nothing"
    assert await asked(ask, helper, action)
    clock.advance(us=HALF_LIFE)
    assert await asked(ask, bot, action)


@pytest.mark.parametrize("action", ["call", "peek"])
async def test_policies_read_the_risk_of_an_agent_a_task_and_a_chain_separately(
    world: World, ask: Ask, bot: Agent, helper: Agent, action: str
) -> None:
    whole = await start(world)
    part, other = await start(world, "helper", parent=whole), await start(world, "helper")
    await doubt(world, whole, 60)
    for name, denied in (("score", True), ("chain", True), ("task", False), ("agent", False)):
        await put(world, rules(name))
        assert await asked(ask, helper, action, task=part) is not denied
        assert await asked(ask, helper, action, task=other)
    await put(world, rules("task"))
    assert not await asked(ask, bot, action, task=whole)
    await doubt(world, whole, 0)
    await doubt(world, bot.agent_id, 60)
    await put(world, rules("chain"))
    assert not await asked(ask, helper, action, task=part)
    assert await asked(ask, bot, action, task=whole)


def token(agent: Agent, task: str) -> Callable[[Act], object]:
    return lambda a: flows.decide_issue(
        a,
        agent,
        flows.TaskChain.of(tasks.live(a.tx, task, now=a.now)),
        resource=registry.find_resource(a.tx, "files"),
        uri="",
        scopes=frozenset({"files:read"}),
        acr=KEY,
    )


async def test_token_issue_and_delegation_are_denied_at_a_high_risk_score(
    world: World, bot: Agent, helper: Agent
) -> None:
    task = await start(world)
    part = await start(world, "helper", parent=task)

    def hand(a: Act) -> None:
        flows.check_delegation(a, bot, helper, flows.TaskChain(task), scopes=frozenset({"files:read"}), depth=1)

    for given in (token(bot, task), token(helper, part), hand):
        await doubt(world, task, 0)
        await run_act(world, given)
        await doubt(world, task, 51)
        with pytest.raises(Forbidden) as refused:
            await run_act(world, given)
        assert refused.value.code == "access_denied"


async def test_an_elevation_is_forbidden_at_a_high_risk_score(world: World, bot: Agent) -> None:
    def elevate(a: Act) -> str:
        judged, _ = judge_elevation(a, bot, task="tk_1", scopes=frozenset({"files:read"}), minutes=5, break_glass=False)
        return judged.because

    await put(world, rules() | {"e.cedar": 'permit (principal is Agent, action == Action::"elevate", resource);'})
    assert await run_act(world, elevate) == ""
    await doubt(world, bot.agent_id, 51)
    assert await run_act(world, elevate) == "forbidden_by_policy"


async def test_a_what_if_replay_has_the_risk_score_only_if_a_policy_read_it_at_the_decision(
    world: World, ask: Ask, bot: Agent
) -> None:
    task = await start(world)
    await doubt(world, bot.agent_id, 60)
    for action in ("call", "peek"):
        await asked(ask, bot, action)
    with pytest.raises(Forbidden):
        await run_act(world, token(bot, task), "token.issue")
    await put(world, rules() | {"risk.cedar": ""})
    for action in ("call", "peek"):
        assert await asked(ask, bot, action)
    await run_act(world, token(bot, task), "token.issue")
    kept = [
        decode_facts(found).posed[0]
        for _, _, found in ledger.list_entries_with_facts(world.db.read(), 0, 1 << 40)
        if found
    ]
    looked, blind = kept[:3], kept[3:]
    assert len(blind) == 3
    text = json.dumps({"resource": "files", "tools": TOOLS})
    for limit, allowed in ((59, False), (60, True)):
        loaded = load(rules() | {"risk.cedar": RULES.replace("PART", "agent").replace("50", str(limit))})
        replay = Replay(loaded.policies, loaded.ir, catalogue=lambda _: text)
        for one in looked:
            assert one is not None
            assert replay.judge(one, at=world.now()).allowed is allowed
        for one in blind:
            assert one is not None
            with pytest.raises(Unreplayable):
                replay.judge(one, at=world.now())
    plain = load(rules() | {"risk.cedar": ""})
    for one in kept:
        assert one is not None
        assert Replay(plain.policies, plain.ir, catalogue=lambda _: text).judge(one, at=world.now()).allowed


CASE = """
[[case]]
name = "doubted"
subject = { type = "agent", id = "ag_1" }
action = "ACTION"
resource = { type = "RESOURCE" }
context = { risk = { chain = 51 } }
expect = "EXPECTED"
"""


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("call", 'tool", id = "files/read'),
        ("issue_token", 'Resource", id = "files'),
        ("delegate", 'agent", id = "ag_2'),
    ],
)
def test_a_test_case_can_state_a_part_of_the_risk_and_the_other_parts_are_zero(action: str, resource: str) -> None:
    text = CASE.replace("ACTION", action).replace("RESOURCE", resource)
    for part, expected in (("chain", "deny"), ("score", "allow")):
        load(rules(part) | {"r.test.toml": text.replace("EXPECTED", expected)})
        other = {"allow": "deny", "deny": "allow"}[expected]
        with pytest.raises(Refused) as refused:
            load(rules(part) | {"r.test.toml": text.replace("EXPECTED", other)})
        assert refused.value.code == "policy_test_failed"
