"""The history at the decision point: policies about sequences, in a task, its tree, the recent past."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from harness.clock import Clock, SeededRandom
from harness.registry_fixtures import register_agent, run_act
from ostiary.authorization.catalogue import Catalogue, Effect, Tool
from ostiary.provenance.history import MAX_TOOLS, created_by
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger import store as ledger
from ostiaryd.policy import flows
from ostiaryd.policy.model import EvaluationRequest, decode_facts, load, starter_files
from ostiaryd.policy.model.replay import Replay, Unreplayable
from ostiaryd.policy.wire_authzen import EVALUATION, EVALUATIONS
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Agent
from ostiaryd.registry.store import resources
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from ostiaryd.tasks.store import histories
from tests.support.policy_fixtures import Ask, put

CRM = [
    {"name": "read_customer", "effect": "read", "data_classes": ["personal"], "open_world": False},
    {"name": "read_price", "effect": "read", "open_world": False},
    {"name": "browse", "effect": "read", "open_world": True},
    {"name": "send", "effect": "send", "kinds": {"to": "address"}},
    {"name": "pay", "effect": "pay", "scope": "write", "kinds": {"to": "account"}},
    {"name": "delete", "effect": "destroy", "kinds": {"id": "object"}, "open_world": False},
    {"name": "set_role", "effect": "administer", "scope": "write", "open_world": False},
    *({"name": f"read_{number}", "effect": "read", "open_world": False} for number in range(MAX_TOOLS)),
]
POLICIES = {name: text for name, text in starter_files().files.items() if name.endswith(".cedar")}
CREATES = Tool(name="create", effect=Effect.WRITE, creates={"id": "output.id"})
RULES = """
@id("nothing-leaves") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { ["send", "share", "pay"].contains(resource.effect) && context.history.read_classes.contains("personal") };
@id("five-recipients") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { resource.effect == "send" && context.history.recipients + context.history.new_recipients > 5 };
@id("own-only") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { resource.effect == "destroy" } unless { context.history.created.contains("id") };
@id("no-rule-from-outside") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { resource.effect == "administer" && context.history.outside };
@id("three-a-day") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { resource.effect == "administer" && context.history.recent.counts.administer >= 3 };
"""


@pytest.fixture
async def bot(world: World) -> Agent:
    await run_act(world, lambda a: registry.create_resource(a, name="crm", uri="https://crm.example/mcp"))
    catalogue = Catalogue.parse(json.dumps({"resource": "crm", "tools": CRM}))
    await run_act(world, lambda a: registry.set_catalogue(a, "crm", catalogue))
    await put(world, POLICIES | {"history.cedar": RULES})
    return await register_agent(world, "bot", scopes=["crm:read", "crm:write"])


@pytest.fixture
async def other(world: World, bot: Agent) -> Agent:
    return await register_agent(world, "other", scopes=["crm:read", "crm:write"])


def question(agent: Agent, tool: str, task: str = "", **arguments: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "agent", "id": agent.agent_id},
        "action": {"name": "call"},
        "resource": {"type": "tool", "id": f"crm/{tool}"},
        "context": {"task": task, "arguments": arguments},
    }


async def call(ask: Ask, agent: Agent, tool: str, task: str = "", **arguments: Any) -> str:
    """Return an empty string if the call is allowed, otherwise the policy or the reason code that denies."""
    answer = (await ask(EVALUATION, question(agent, tool, task, **arguments)))[1]
    if answer["decision"]:
        return ""
    return str((answer["context"].get("policies") or [answer["context"]["reasons"][0]["code"]])[0])


async def start(world: World, agent: str = "bot", **said: Any) -> str:
    return (
        await run_act(world, lambda a: tasks.start(a, TaskSpec(**({"agent": agent, "purpose": "p"} | said))))
    ).task_id


async def test_a_task_cannot_send_after_it_has_read_personal_data(world: World, ask: Ask, bot: Agent) -> None:
    one, two = await start(world), await start(world)
    assert await call(ask, bot, "send", one, to="ann") == ""
    assert await call(ask, bot, "read_price", one) == ""
    assert await call(ask, bot, "send", one, to="ann") == ""
    assert await call(ask, bot, "read_customer", one) == ""
    assert await call(ask, bot, "send", one, to="ann") == "nothing-leaves"
    assert await call(ask, bot, "send", two, to="ann") == ""


async def test_an_agent_cannot_send_after_another_agent_of_its_task_tree_read_personal_data(
    world: World, ask: Ask, bot: Agent, other: Agent
) -> None:
    """Parent, child and sibling tasks of the tree are denied; a task of another tree is not."""
    whole = await start(world)
    part, beside = await start(world, "other", parent=whole), await start(world, "bot", parent=whole)
    foreign = await start(world, "other")
    assert await call(ask, other, "read_customer", part) == ""
    for agent, task in ((bot, whole), (bot, beside), (other, part)):
        assert await call(ask, agent, "send", task, to="ann") == "nothing-leaves"
    assert await call(ask, other, "send", foreign, to="ann") == ""


@pytest.mark.parametrize(
    ("known", "to", "allowed"),
    [
        (4, ["new-1"], True),
        (4, ["new-1", "new-2"], False),
        (5, ["NAME-0@example.org"], True),
        (5, ["new-1"], False),
        (5, "name-0@example.org, new-1", False),
        (0, [f"new-{number}" for number in range(5)], True),
        (0, [f"new-{number}" for number in range(6)], False),
    ],
)
async def test_a_task_cannot_send_to_more_than_five_recipients(
    world: World, ask: Ask, bot: Agent, known: int, to: Any, allowed: bool
) -> None:
    task = await start(world)
    for number in range(known):
        assert await call(ask, bot, "send", task, to=f"name-{number}@example.org") == ""
    assert (await call(ask, bot, "send", task, to=to) == "") is allowed


async def test_the_items_of_a_batch_count_as_a_sequence(world: World, ask: Ask, bot: Agent) -> None:
    task = await start(world)
    posed = [question(bot, "send", task, to=f"name-{number}") for number in range(7)]
    answers = (await ask(EVALUATIONS, {"evaluations": posed}))[1]["evaluations"]
    assert [one["decision"] for one in answers] == [True] * 5 + [False] * 2


async def test_a_search_and_a_denied_call_are_not_recorded_in_the_history(world: World, ask: Ask, bot: Agent) -> None:
    task = await start(world)
    sought = question(bot, "read_customer", task) | {"resource": {"type": "tool"}}
    assert (await ask("/access/v1/search/resource", sought))[0] == 200
    for number in range(10):
        assert await call(ask, bot, "delete", task, id=f"{number}") == "own-only"
    assert histories.get(world.db.read(), task, 0).seq == 0
    assert await call(ask, bot, "send", task, to="ann") == ""


async def test_a_task_may_delete_only_objects_that_it_created(world: World, ask: Ask, bot: Agent) -> None:
    task = await start(world)
    assert await call(ask, bot, "delete", task, id="24") == "own-only"
    live = tasks.live(world.db.read(), task, now=world.now())

    def make(a: Any) -> None:
        key = tasks.read_history(a.tx, live, a.tx.keys, agent=live.agent, now=a.now).key
        tasks.record_created(a.tx, live, created_by(key, "crm/create", CREATES, {}, {"id": 24}))

    await run_act(world, make)
    assert await call(ask, bot, "delete", task, id="24") == ""
    assert await call(ask, bot, "delete", task, id="13") == "own-only"
    assert await call(ask, bot, "delete", await start(world), id="24") == "own-only"


async def test_a_task_cannot_administer_after_it_received_untrusted_content(world: World, ask: Ask, bot: Agent) -> None:
    task = await start(world)
    assert await call(ask, bot, "set_role", task) == ""
    assert await call(ask, bot, "browse", task) == ""
    assert await call(ask, bot, "set_role", task) == "no-rule-from-outside"


async def test_the_recent_history_of_an_agent_covers_all_its_tasks_until_the_end_of_the_next_day(
    world: World, clock: Clock, ask: Ask, bot: Agent, other: Agent
) -> None:
    for _ in range(3):
        assert await call(ask, bot, "set_role", await start(world)) == ""
    assert await call(ask, bot, "set_role", await start(world)) == "three-a-day"
    assert await call(ask, bot, "set_role") == "three-a-day"
    assert await call(ask, other, "set_role") == ""
    midnight = 86_400 - world.now() // 1_000_000 % 86_400
    clock.advance(midnight + 86_399)
    assert await call(ask, bot, "set_role") == "three-a-day"
    clock.advance(1)
    assert await call(ask, bot, "set_role") == ""


KNOWN = """
@id("stranger") forbid (principal is Agent, action == Action::"call", resource is Tool)
when { resource.effect == "send" && context.history.counterparts.unknown > 0 && context.history.outside };
@id("new-friend") forbid (principal is Agent, action == Action::"call", resource is Tool)
when {
  resource.effect == "pay" &&
  (context.history.counterparts.age_days < 2 || context.history.counterparts.uses < 3)
};
"""


async def test_the_known_counterparts_of_an_owner_are_shared_by_all_tasks_of_the_owners_agents(
    world: World, clock: Clock, ask: Ask, bot: Agent, other: Agent
) -> None:
    await put(world, POLICIES | {"history.cedar": KNOWN})
    stranger = await register_agent(world, "third", owner="zoe", scopes=["crm:read", "crm:write"])
    first, task = await start(world), await start(world, "other")
    assert await call(ask, bot, "send", first, to="Ann@example.org") == ""
    assert await call(ask, other, "browse", task) == ""
    assert await call(ask, other, "send", task, to="ann@example.org") == "", "another agent of the same owner"
    assert await call(ask, other, "send", task, to=["ann@example.org", "eve@example.org"]) == "stranger"
    assert await call(ask, other, "send", task, to="eve@example.org") == "stranger", "what was denied made nobody known"
    foreign = await start(world, "third")
    assert await call(ask, stranger, "browse", foreign) == ""
    assert await call(ask, stranger, "send", foreign, to="ann@example.org") == "stranger"

    assert await call(ask, bot, "pay", first, to="ann@example.org") == "new-friend"
    clock.advance(2 * 86_400)
    task = await start(world)
    assert await call(ask, bot, "pay", task, to="ann@example.org") == "new-friend", "it was only twice"
    assert await call(ask, bot, "send", task, to="ann@example.org") == ""
    assert await call(ask, bot, "pay", task, to="ann@example.org") == ""


async def test_the_history_of_a_standing_task_covers_today_and_yesterday(
    world: World, clock: Clock, ask: Ask, bot: Agent, other: Agent
) -> None:
    """A part of a standing task belongs to its task tree."""
    part = await start(world, "other", parent="tk_" + bot.agent_id.removeprefix("ag_"))
    assert await call(ask, other, "read_customer", part) == ""
    assert await call(ask, bot, "send", to="ann") == "nothing-leaves"
    assert await call(ask, other, "send", to="ann") == ""
    midnight = 86_400 - world.now() // 1_000_000 % 86_400
    clock.advance(midnight + 86_399)
    assert await call(ask, bot, "send", to="ann") == "nothing-leaves"
    clock.advance(1)
    assert await call(ask, bot, "send", to="ann") == ""


async def test_a_full_history_denies_only_calls_whose_policies_read_it(world: World, ask: Ask, bot: Agent) -> None:
    task = await start(world)
    for number in range(MAX_TOOLS):
        assert await call(ask, bot, f"read_{number}", task) == ""
    assert await call(ask, bot, "read_price", task) == ""
    assert await call(ask, bot, "send", task, to="ann") == "history_full"
    assert await call(ask, bot, "read_customer", task) == ""


async def test_a_history_is_deleted_with_its_task_and_a_day_history_after_the_next_day(
    world: World, clock: Clock, ask: Ask, bot: Agent
) -> None:
    task = await start(world)
    await call(ask, bot, "read_customer", task)
    assert histories.get(world.db.read(), task, 0).seq == 1
    await run_act(world, lambda a: tasks.end(a, task))
    assert histories.get(world.db.read(), task, 0).seq == 0
    day = world.now() // 86_400_000_000
    for ahead, kept in ((0, 1), (1, 1), (2, 0)):
        clock.advance(86_400 * (ahead > 0))
        await tasks.forget_histories(world)
        assert histories.get(world.db.read(), bot.agent_id, day).seq == kept, ahead


async def test_concurrent_decisions_of_two_servers_allow_at_most_five_recipients(
    world: World, config: Config, clock: Clock, bot: Agent
) -> None:
    """Both servers decide at once, each in its own transaction; the database serializes them."""
    task = await start(world)
    async with open_world(config, now=clock, random=SeededRandom("replica")) as replica:
        posed = [msgspec.convert(question(bot, "send", task, to=f"name-{n}"), EvaluationRequest) for n in range(12)]

        async def decide(where: World, one: EvaluationRequest) -> bool:
            return (await run_act(where, lambda a: flows.decide_one(a, one, digest="d", by=None))).allowed

        found = await asyncio.gather(*(decide((world, replica)[n % 2], one) for n, one in enumerate(posed)))
    assert sum(found) == 5


async def test_a_what_if_replay_has_the_history_only_if_a_policy_read_it_at_the_decision(
    world: World, ask: Ask, bot: Agent
) -> None:
    task = await start(world)
    for tool in ("read_customer", "send"):
        await call(ask, bot, tool, task, to="ann")
    kept = [
        decode_facts(found).posed[0]
        for _, _, found in ledger.list_entries_with_facts(world.db.read(), 0, 1 << 40)
        if found
    ]
    read, sent = kept
    assert read is not None
    assert sent is not None
    catalogue = resources.get_catalogue(world.db.read(), registry.find_resource(world.db.read(), "crm").resource_id)
    sames, other = load(POLICIES | {"a.cedar": RULES}), load(POLICIES)
    same = Replay(sames.policies, sames.ir, catalogue=lambda _: catalogue)
    assert same.judge(sent, at=world.now()).policies == ("nothing-leaves",)
    with pytest.raises(Unreplayable):
        same.judge(read, at=world.now())
    plain = Replay(other.policies, other.ir, catalogue=lambda _: catalogue)
    assert plain.judge(sent, at=world.now()).allowed
    assert plain.judge(read, at=world.now()).allowed
