"""Abuse of automatic response: to stop all agents, to stop none, or to release one's own agents."""

from __future__ import annotations

import pytest

from harness.clock import Clock
from harness.registry_fixtures import create_person, get_agent, register_agent, run_act
from ostiary.protocol.errors import Forbidden
from ostiaryd.ground.world import World
from ostiaryd.incidents.flows import incidents as flows
from ostiaryd.incidents.model.incidents import DAY, HOUR, Limits, Verb
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, AgentState, Caller
from ostiaryd.registry.store import restrictions
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.support.incident_fixtures import close_incident, create_approver, entries_of, report_finding, responses_of
from tests.support.policy_fixtures import put

CALL = 'permit (principal is Agent, action == Action::"call", resource is Tool);\n'
MINUTE = 60_000_000


def held(world: World, agent: str, *, now: int) -> list[tuple[str, int, int]]:
    """Return kind, limit and minutes left of the restrictions of the agent."""
    found = restrictions.list_restrictions_of_agent(world.db.read(), agent, now=now)
    return [(one.kind, one.limit, (one.until - now) // MINUTE) for one in found]


# ------------------------------------------------------------------------------------------- Letting go of one's own


@pytest.mark.parametrize("of", ["the agent", "its owner", "its owner then"])
async def test_a_deputy_of_the_owner_or_agent_cannot_close_its_incident(world: World, of: str) -> None:
    """A deputy is responsible for the agent and so may not close an incident about it."""
    dora = await create_person(world, "dora")
    await create_person(world, "alice", deputy=None if of == "the agent" else "dora")
    await create_person(world, "bob")
    bot = await register_agent(world, deputy="dora" if of == "the agent" else None)
    opened = await report_finding(world, bot)
    assert opened is not None
    if of == "its owner then":
        await run_act(world, lambda a: registry.transfer_agent(a, "bot", "bob"))
    deputy = Caller(kind="person", id=dora, name="dora", owner=None, scopes=frozenset({APPROVE}))
    for verb in (Verb.RELEASE, Verb.NARROW):
        with pytest.raises(Forbidden) as refused:
            await close_incident(world, verb, opened, deputy)
        assert refused.value.code == "own_incident"
    await close_incident(world, Verb.RELEASE, opened, await create_approver(world))


async def test_a_person_concerned_by_an_incident_cannot_close_it_after_many_findings(world: World) -> None:
    """The person of the first finding stays concerned, however many findings follow."""
    carol = await create_person(world, "carol")
    bot = await register_agent(world)
    task = await run_act(
        world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="for carol", on_behalf_of="carol"))
    )
    own = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="for nobody else")))
    opened = await report_finding(world, bot, task=task.task_id)
    assert opened is not None
    for _ in range(201):
        await report_finding(world, bot, 1, task=own.task_id)
    by = Caller(kind="person", id=carol, name="carol", owner=None, scopes=frozenset({APPROVE}))
    with pytest.raises(Forbidden) as refused:
        await close_incident(world, Verb.RELEASE, opened, by)
    assert refused.value.code == "own_incident"


# ------------------------------------------------------------------------------------------- Everybody, and nobody


async def test_isolations_ordered_by_a_source_do_not_use_the_limit_of_playbooks(world: World) -> None:
    """Many isolations, for example by a lying provider, do not use up the limit of the playbooks."""
    for number in range(5):
        await register_agent(world, f"bot{number}")
        await run_act(world, lambda a, n=number: flows.isolate(a, f"bot{n}", says="they say so", source="signal"))  # type: ignore[misc]
    bad = await register_agent(world, "bad")
    opened = await report_finding(world, bad)
    assert opened is not None
    assert responses_of(world, opened) == [("quarantine", "done")]


async def test_a_wrong_playbook_quarantines_few_agents_in_a_day_and_narrows_others(world: World, clock: Clock) -> None:
    limits = Limits(acted=30, halted=10)  # of twenty: six, and two
    bots = [await register_agent(world, f"bot{number}") for number in range(20)]
    opened = [await report_finding(world, bot, limits=limits) for bot in bots[:7]]
    states = [get_agent(world, bot.name).state for bot in bots]
    assert states[:3] == [AgentState.QUARANTINED, AgentState.QUARANTINED, AgentState.ACTIVE]
    assert states.count(AgentState.QUARANTINED) == 2
    assert [bool(held(world, bot.agent_id, now=clock())) for bot in bots[2:7]] == [True, True, True, True, False]
    assert opened[2] is not None
    assert responses_of(world, opened[2]) == [("quarantine", "limited"), ("narrow", "done")]
    assert opened[6] is not None
    assert responses_of(world, opened[6]) == [("quarantine", "limited")]
    assert len(entries_of(world, "respond.limited")) == 5
    clock.advance(us=DAY - 1)
    await report_finding(world, bots[7], limits=limits)
    assert get_agent(world, "bot7").state is AgentState.ACTIVE
    assert held(world, bots[7].agent_id, now=clock()) == [("narrow", 0, 60)]
    clock.advance(us=1)
    await report_finding(world, bots[8], limits=limits)
    assert get_agent(world, "bot8").state is AgentState.QUARANTINED
    await close_incident(world, Verb.RELEASE, opened[2], await create_approver(world))
    assert held(world, bots[2].agent_id, now=clock()) == [], "what was done instead is taken back as well"


async def test_a_limit_of_zero_quarantines_no_agent(world: World, clock: Clock) -> None:
    bot = await register_agent(world)
    await report_finding(world, bot, limits=Limits(acted=100, halted=0))
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    assert held(world, bot.agent_id, now=clock()) == [("narrow", 0, 60)]


async def test_a_frozen_task_counts_toward_the_limit_of_halted_agents(world: World) -> None:
    await put(world, {"a.cedar": CALL + 'permit (principal, action == Action::"freeze", resource);'})
    one, two = await register_agent(world, "one"), await register_agent(world, "two")
    await report_finding(world, one, limits=Limits(acted=100, halted=1))
    await report_finding(world, two, limits=Limits(acted=100, halted=1))
    assert [(stop.target_kind, stop.value) for stop in registry.list_stops(world.db.read())] == [
        ("task", one.agent_id.replace("ag_", "tk_"))
    ]


# ------------------------------------------------------------------------------------------- A small hold, to be spared


def holding(response: str, *cases: tuple[str, str]) -> str:
    """Return playbooks that put this restriction, one for each detector."""
    return "".join(
        f'@id("{detector}") {said} permit (principal, action == Action::"{response}", resource) '
        f'when {{ context.detector == "{detector}" }};\n'
        for detector, said in cases
    )


async def test_a_stricter_throttle_replaces_a_milder_one(world: World, clock: Clock) -> None:
    cases = ("mild", '@calls("1000") @minutes("60")'), ("strict", '@calls("2") @minutes("60")')
    await put(world, {"a.cedar": CALL + holding("throttle", *cases)})
    bot = await register_agent(world)
    await report_finding(world, bot, 1, by="mild")
    assert held(world, bot.agent_id, now=clock()) == [("throttle", 1000, 60)]
    await report_finding(world, bot, 1, by="strict")
    assert held(world, bot.agent_id, now=clock()) == [("throttle", 2, 60)]
    await report_finding(world, bot, 1, by="mild")
    assert held(world, bot.agent_id, now=clock()) == [("throttle", 2, 60)], "and is not eased by it"


async def test_a_restriction_past_half_of_its_duration_is_renewed(world: World, clock: Clock) -> None:
    """An agent cannot evade a renewal by the timing of its findings, and not every finding makes an entry."""
    await put(world, {"a.cedar": CALL + holding("narrow", ("rate", '@minutes("60")'))})
    bot = await register_agent(world)
    opened = await report_finding(world, bot, 1)
    clock.advance(us=HOUR // 2)
    await report_finding(world, bot, 1)
    assert held(world, bot.agent_id, now=clock()) == [("narrow", 0, 30)]
    clock.advance(us=1)
    await report_finding(world, bot, 1)
    assert held(world, bot.agent_id, now=clock()) == [("narrow", 0, 60)]
    assert opened is not None
    assert responses_of(world, opened) == [("narrow", "done")] * 2
