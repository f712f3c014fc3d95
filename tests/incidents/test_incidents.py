"""Something is noticed, playbooks act in the same act, and a person decides how it goes on."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from harness.clock import Clock
from harness.registry_fixtures import create_holding, create_person, get_agent, is_live, register_agent, run_act
from ostiary.decision.access.policy_kinds import RESPONSES
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiary.provenance.noticing import Noticed
from ostiaryd.ground.world import World
from ostiaryd.incidents import store as store
from ostiaryd.incidents.flows import incidents as flows
from ostiaryd.incidents.flows.blast import blast
from ostiaryd.incidents.flows.respond import respond
from ostiaryd.incidents.model.incidents import DAY, HOUR, Incident, Limits, Outcome, Verb, most_agents
from ostiaryd.incidents.model.incidents import IncidentState as Is
from ostiaryd.ledger.flows import Act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, AgentState, Caller, Kind
from ostiaryd.registry.model import Verb as AgentVerb
from ostiaryd.registry.store import restrictions, risks, stops
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from ostiaryd.watch import flows as watch
from ostiaryd.watch import store as findings
from tests.support.certificate_fixtures import issue
from tests.support.incident_fixtures import (
    LIMITS,
    close_incident,
    create_approver,
    entries,
    entries_of,
    report_finding,
    responses_of,
)
from tests.support.policy_fixtures import put


@pytest.mark.parametrize(("may_narrow", "points"), [(True, 75), (False, 75), (False, 99)])
async def test_a_finding_that_may_not_narrow_opens_an_incident_and_restricts_no_agent(
    world: World, may_narrow: bool, points: int
) -> None:
    bot = await register_agent(world)
    saw = Noticed(detector="instructed", points=points, says="it does what a text of strangers has in it")

    def run(act: Any) -> Incident | None:
        found = watch.record_finding(act, saw, agent=bot.agent_id, task=None, entries=(1, 2))
        return respond(act, replace(found, may_narrow=may_narrow), LIMITS)

    opened = await run_act(world, run, "watch.find")
    assert opened is not None, "a person is told"
    assert {outcome for _, outcome in responses_of(world, opened)} == {"done" if may_narrow else "informed"}
    assert flows.examine(world.db.read()), "nothing is held back by a limit"
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    assert bool(restrictions.list_restrictions_of_agent(world.db.read(), bot.agent_id, now=world.now())) is may_narrow


async def test_findings_open_an_incident_only_when_their_combined_risk_is_high_enough(world: World) -> None:
    bot = await register_agent(world)
    assert await report_finding(world, bot, 40) is None
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    opened = await report_finding(world, bot, 20)  # together 52
    assert opened is not None
    assert opened.risk == 52
    assert {one.points for one in findings.findings.list_findings_of_incident(world.db.read(), opened.incident_id)} == {
        20,
        40,
    }
    assert responses_of(world, opened) == [], "a person is told, and nothing else"
    assert [entry.object for entry in entries_of(world, "incident.open")] == [opened.incident_id]


async def test_an_agent_with_a_high_risk_is_quarantined_in_the_act_of_the_finding(world: World) -> None:
    bot = await register_agent(world)
    await create_holding(world, bot, "tok_1")
    opened = await report_finding(world, bot)
    assert opened is not None
    assert opened.state is Is.OPEN
    assert get_agent(world, "bot").state is AgentState.QUARANTINED
    assert not is_live(world, "tok_1")
    assert responses_of(world, opened) == [("quarantine", "done")], "the milder is of no use after that"
    found, opening, stopping, did = entries(world)[-4:]
    assert [one.action for one in (found, opening, stopping, did)] == [
        "watch.find",
        "incident.open",
        "agent.quarantine",
        "incident.act",
    ]
    assert stopping.object == bot.agent_id
    assert stopping.detail is not None
    assert stopping.detail["policies"] == ["trusted-no-more"]
    assert found.detail is not None
    assert found.detail["detector"] == "rate", "the entry of the finding is its own"


async def test_a_canary_finding_of_one_point_quarantines_the_agent(world: World) -> None:
    bot = await register_agent(world)
    await report_finding(world, bot, 1, by="canary")
    assert get_agent(world, "bot").state is AgentState.QUARANTINED


async def test_an_agent_with_a_medium_risk_is_narrowed_once(world: World, clock: Clock) -> None:
    bot = await register_agent(world)
    opened = await report_finding(world, bot, 75)
    assert opened is not None
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    assert [
        one.kind for one in restrictions.list_restrictions_of_agent(world.db.read(), bot.agent_id, now=clock())
    ] == ["narrow"]
    again = await report_finding(world, bot, 1)
    assert again is not None
    assert again.incident_id == opened.incident_id
    assert responses_of(world, opened) == [("narrow", "done")], "what is done already is not done again"


async def test_a_release_by_a_person_reactivates_the_agent_and_clears_its_risk(world: World, clock: Clock) -> None:
    bot, judith = await register_agent(world), await create_approver(world)
    opened = await report_finding(world, bot, task="tk_1")
    assert opened is not None
    closed = await close_incident(world, Verb.RELEASE, opened, judith, why="a load test")
    assert (closed.state, closed.person, closed.why, closed.closed_at) == (
        Is.RELEASED,
        judith.id,
        "a load test",
        clock(),
    )
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    for subject in (bot.agent_id, "tk_1"):
        assert risks.get_risk(world.db.read(), subject).points(clock()) == 0
    assert stops.find_awaited_incident(world.db.read(), bot.agent_id) is None
    assert [one.action for one in entries(world)][-3:] == ["incident.release", "agent.release", "watch.judge"]
    assert [entry.detail for entry in entries_of(world, "watch.judge")] == [
        {"detectors": ["rate"], "tasks": 1, "is_real": False}
    ]
    with pytest.raises(Conflict, match="closed"):
        await close_incident(world, Verb.DECOMMISSION, opened, judith)


async def test_a_person_closes_an_incident_by_narrowing_or_decommissioning_the_agent(
    world: World, clock: Clock
) -> None:
    bot, other, judith = await register_agent(world), await register_agent(world, "other"), await create_approver(world)
    first, second = (
        await report_finding(world, bot, limits=Limits(100, 100)),
        await report_finding(world, other, limits=Limits(100, 100)),
    )
    assert first is not None
    assert second is not None
    await close_incident(world, Verb.NARROW, first, judith, hours=2)
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    kept = restrictions.list_restrictions_of_agent(world.db.read(), bot.agent_id, now=clock())
    assert [(one.kind, one.until) for one in kept] == [("narrow", clock() + 2 * HOUR)]
    await close_incident(world, Verb.DECOMMISSION, second, judith)
    assert get_agent(world, "other").state is AgentState.DECOMMISSIONED


async def test_a_person_can_release_or_decommission_a_narrowed_agent_before_the_restriction_ends(
    world: World, clock: Clock
) -> None:
    bot, judith = await register_agent(world), await create_approver(world)
    first = await report_finding(world, bot, limits=Limits(100, 100))
    assert first is not None
    await close_incident(world, Verb.NARROW, first, judith)
    for verb in (Verb.TAKE, Verb.NARROW):
        with pytest.raises(Conflict, match="closed"):
            await close_incident(world, verb, first, judith)
    clock.advance(2 * 3600)
    second = await report_finding(world, bot, limits=Limits(100, 100))
    assert second is not None
    assert second.incident_id != first.incident_id
    with pytest.raises(Conflict, match=second.incident_id):
        await close_incident(world, Verb.RELEASE, first, judith)
    assert get_agent(world, "bot").state is AgentState.QUARANTINED
    await close_incident(world, Verb.NARROW, second, judith)
    closed = await close_incident(world, Verb.RELEASE, second, judith)
    assert (closed.state, closed.closed_at) == (Is.RELEASED, clock())
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    assert not restrictions.list_restrictions_of_agent(world.db.read(), bot.agent_id, now=clock())
    await close_incident(world, Verb.DECOMMISSION, first, judith)
    assert get_agent(world, "bot").state is AgentState.DECOMMISSIONED


@pytest.mark.parametrize(("hours", "is_taken"), [(0, False), (1, True), (168, True), (169, False)])
async def test_a_person_narrows_an_agent_for_one_to_168_hours(world: World, hours: int, is_taken: bool) -> None:
    bot, judith = await register_agent(world), await create_approver(world)
    opened = await report_finding(world, bot)
    assert opened is not None
    if is_taken:
        await close_incident(world, Verb.NARROW, opened, judith, hours=hours)
    else:
        with pytest.raises(Invalid, match="168"):
            await close_incident(world, Verb.NARROW, opened, judith, hours=hours)
    assert (get_agent(world, "bot").state is AgentState.ACTIVE) is is_taken


async def test_a_person_cannot_release_an_agent_that_acts_for_them(world: World) -> None:
    """Refused are the agent itself, the members of the team that owns it, and the person for whom it acted."""
    alice, carol = await create_person(world, "alice"), await create_person(world, "carol")
    team = await run_act(world, lambda a: registry.create_team(a, name="ops", members=["alice"]))
    bot = await register_agent(world, owner="ops")
    task = await run_act(
        world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="for carol", on_behalf_of="carol"))
    )
    opened = await report_finding(world, bot, task=task.task_id)
    assert opened is not None
    assert opened.owner == team.team_id
    for id in (alice, carol):
        by = Caller(kind="person", id=id, name="x", owner=None, scopes=frozenset({APPROVE}))
        for verb in (Verb.RELEASE, Verb.NARROW):
            with pytest.raises(Forbidden) as refused:
                await close_incident(world, verb, opened, by)
            assert refused.value.code == "own_incident"
    own = Caller(kind="agent", id=bot.agent_id, name="bot", owner=None, scopes=frozenset({"ostiary:admin", APPROVE}))
    with pytest.raises(Forbidden) as refused:
        await close_incident(world, Verb.DECOMMISSION, opened, own)
    assert refused.value.code == "own_incident"
    admin = Caller(kind="agent", id="ag_admin", name="admin", owner=None, scopes=frozenset({"ostiary:admin", APPROVE}))
    with pytest.raises(Forbidden) as refused:
        await close_incident(world, Verb.RELEASE, opened, admin)
    assert refused.value.code == "no_person"
    assert get_agent(world, "bot").state is AgentState.QUARANTINED
    alice_says = Caller(kind="person", id=alice, name="alice", owner=None, scopes=frozenset({APPROVE}))
    await close_incident(world, Verb.DECOMMISSION, opened, alice_says)
    assert get_agent(world, "bot").state is AgentState.DECOMMISSIONED, "stopping is allowed to whoever answers"


async def test_an_administrator_cannot_release_an_agent_while_its_incident_is_open(world: World) -> None:
    bot, judith = await register_agent(world), await create_approver(world)
    opened = await report_finding(world, bot)
    assert opened is not None
    admin = Caller(kind="agent", id="ag_admin", name="admin", owner=None, scopes=frozenset({"ostiary:admin"}))
    from ostiaryd.registry.model import Verb as Move

    for move in (Move.RELEASE, Move.RESUME):
        with pytest.raises(Conflict) as refused:
            await run_act(world, lambda a, move=move: registry.set_agent_state(a, bot.agent_id, move, by=admin))  # type: ignore[misc]
        assert refused.value.code == "awaits_person"
    await close_incident(world, Verb.RELEASE, opened, judith)
    assert get_agent(world, "bot").state is AgentState.ACTIVE


async def test_playbooks_quarantine_at_most_a_twentieth_of_the_agents_in_a_day(world: World, clock: Clock) -> None:
    """Of eleven agents, the limit is one; a person who takes an incident permits the next quarantine."""
    bots = [await register_agent(world, f"bot{number}") for number in range(10)]  # and `admin`
    first = await report_finding(world, bots[0])
    second = await report_finding(world, bots[1])
    assert first is not None
    assert second is not None
    assert get_agent(world, "bot1").state is AgentState.ACTIVE
    assert responses_of(world, second) == [("quarantine", "limited")], "said once"
    assert [entry.object for entry in entries_of(world, "respond.limited")] == [second.incident_id]
    await report_finding(world, bots[1])
    assert len(entries_of(world, "respond.limited")) == 1
    await close_incident(world, Verb.TAKE, first, await create_approver(world))
    await report_finding(world, bots[1])
    assert get_agent(world, "bot1").state is AgentState.QUARANTINED
    await report_finding(world, bots[2])
    assert get_agent(world, "bot2").state is AgentState.ACTIVE
    clock.advance(us=DAY)
    await report_finding(world, bots[2])
    assert get_agent(world, "bot2").state is AgentState.QUARANTINED


async def test_an_agent_that_is_already_narrowed_can_be_quarantined_at_the_limit(world: World) -> None:
    bot, other = await register_agent(world), await register_agent(world, "other")
    await report_finding(world, bot, 75)
    assert get_agent(world, "bot").restricted_until
    await report_finding(world, other)
    assert get_agent(world, "other").state is AgentState.ACTIVE
    await report_finding(world, bot)
    assert get_agent(world, "bot").state is AgentState.QUARANTINED


async def test_detectors_quarantine_no_agent_if_the_limit_is_zero(world: World) -> None:
    bot = await register_agent(world)
    opened = await report_finding(world, bot, limits=Limits(0, 100))
    assert opened is not None
    assert get_agent(world, "bot").state is AgentState.ACTIVE


@pytest.mark.parametrize(
    ("fleet", "percent", "most"), [(0, 10, 1), (9, 10, 1), (19, 10, 1), (20, 10, 2), (1000, 100, 1000), (1000, 0, 0)]
)
def test_the_limit_of_agents_is_a_percentage_of_the_fleet_and_at_least_one_unless_zero(
    fleet: int, percent: int, most: int
) -> None:
    assert most_agents(fleet, percent) == most


async def test_the_only_administrator_is_not_quarantined_if_no_person_could_release_it(world: World) -> None:
    admin = await register_agent(world, "root", scopes=["ostiary:admin"])
    opened = await report_finding(world, admin)
    assert opened is not None
    assert get_agent(world, "root").state is AgentState.ACTIVE
    assert responses_of(world, opened) == [("quarantine", "limited")]


PLAYBOOK = 'permit (principal is Agent, action == Action::"call", resource is Tool);\n'


async def test_a_policy_that_permits_everything_is_not_a_playbook(world: World) -> None:
    await put(world, {"a.cedar": "permit (principal, action, resource);"})
    bot = await register_agent(world)
    assert await report_finding(world, bot) is None
    assert get_agent(world, "bot").state is AgentState.ACTIVE


async def test_each_response_of_a_playbook_takes_effect_until_a_person_releases_the_agent(
    world: World, clock: Clock
) -> None:
    responses = ("step_up", "throttle", "narrow", "freeze", "revoke")
    assert set(RESPONSES) - {*responses} == {"alert", "quarantine"}, "docs/extending/detection.md: a playbook action"
    said = "".join(
        f'@id("{one}") @minutes("5") @calls("3")\npermit (principal, action == Action::"{one}", resource) '
        f'when {{ context.detector == "{one}" }};\n'
        for one in responses
    )
    await put(world, {"a.cedar": PLAYBOOK + said})
    bot = await register_agent(world)
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="work")))
    for kind in ("step_up", "throttle", "narrow"):
        await report_finding(world, bot, 1, by=kind)
        kept = {
            one.kind: one for one in restrictions.list_restrictions_of_agent(world.db.read(), bot.agent_id, now=clock())
        }
        assert kept[kind].until == clock() + 5 * 60_000_000
    assert kept["throttle"].limit == 3
    await report_finding(world, bot, 1, by="freeze", task=task.task_id)
    with pytest.raises(Forbidden) as refused:
        tasks.live(world.db.read(), task.task_id, now=clock())
    assert refused.value.code == "stopped"
    opened = await report_finding(world, bot, 1, by="revoke")
    assert opened is not None
    assert get_agent(world, "bot").state is AgentState.SUSPENDED
    await close_incident(world, Verb.RELEASE, opened, await create_approver(world))
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    assert stops.list_stops(world.db.read()) == []
    assert restrictions.list_restrictions_of_agent(world.db.read(), bot.agent_id, now=clock()) == ()


async def test_if_the_server_may_add_no_other_stop_the_agent_of_a_task_to_freeze_is_narrowed_instead(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.registry.model.stop.MAX_OURS", 0)
    freeze = 'permit (principal, action == Action::"freeze", resource) when { context.detector == "freeze" };'
    await put(world, {"a.cedar": PLAYBOOK + f'@id("freeze") {freeze}'})
    bot = await register_agent(world)
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="work")))
    opened = await report_finding(world, bot, 1, by="freeze", task=task.task_id)
    assert opened is not None
    assert stops.list_stops(world.db.read()) == []
    kept = restrictions.list_restrictions_of_agent(world.db.read(), bot.agent_id, now=clock())
    assert [one.kind for one in kept] == ["narrow"]


async def test_a_playbook_in_watch_mode_records_the_response_that_it_would_take(world: World) -> None:
    await put(
        world, {"a.cedar": PLAYBOOK + '@mode("watch")\npermit (principal, action == Action::"quarantine", resource);'}
    )
    bot = await register_agent(world)
    assert await report_finding(world, bot) is None
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    (found,) = entries_of(world, "watch.find")
    assert found.detail is not None
    assert found.detail["would"] == ["quarantine"]


async def test_a_failing_playbook_stops_no_agent_and_opens_an_incident(world: World) -> None:
    overflow = "context.points * 9223372036854775807 > 0"
    await put(
        world,
        {
            "a.cedar": PLAYBOOK
            + f'@id("broken")\npermit (principal, action == Action::"quarantine", resource) when {{ {overflow} }};'
        },
    )
    bot = await register_agent(world)
    opened = await report_finding(world, bot)
    assert opened is not None
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    (did,) = store.list_responses(world.db.read(), opened.incident_id)
    assert (did.outcome, did.policies) == (Outcome.FAILED, ("broken",))
    assert "playbook failed" in did.says


async def test_a_forbid_prevents_the_response_of_a_playbook(world: World) -> None:
    rules = """
    permit (principal, action == Action::"quarantine", resource);
    forbid (principal, action == Action::"quarantine", resource) when { context.kind == "service" };
    """
    await put(world, {"a.cedar": PLAYBOOK + rules})
    bot, machine = await register_agent(world), await register_agent(world, "machine", kind=Kind.SERVICE)
    await report_finding(world, machine)
    await report_finding(world, bot)
    assert (get_agent(world, "machine").state, get_agent(world, "bot").state) == (
        AgentState.ACTIVE,
        AgentState.QUARANTINED,
    )


async def test_an_unknown_incident_cannot_be_closed(world: World) -> None:
    judith = await create_approver(world)
    with pytest.raises(NotFound):
        await run_act(world, lambda a: flows.close(a, "in_none", Verb.RELEASE, why="x", by=judith))


async def test_an_isolation_on_request_quarantines_the_agent_without_a_limit(world: World) -> None:
    """An isolation depends neither on playbooks nor on the limit of agents."""
    for name in ("one", "two", "three"):
        await register_agent(world, name)
        isolate = partial(flows.isolate, id_or_name=name, says="the provider says so", source="idp")
        opened = await run_act(world, isolate)
        assert get_agent(world, name).state is AgentState.QUARANTINED
        assert responses_of(world, opened) == [("quarantine", "done")]


async def test_approval_requests_and_telemetry_do_not_count_as_tool_calls_of_an_incident(world: World) -> None:
    agent = await register_agent(world)

    def run(act: Act, outcome: str, tool: str) -> None:
        act.entry.agent, act.entry.resource, act.entry.tool, act.entry.outcome = agent.agent_id, "bank", tool, outcome

    for action, outcome, tool in (
        ("tool.call", "allow", "bank/pay"),
        ("tool.call", "deny", "bank/pay"),
        ("approval.ask", "ok", "bank/pay"),
        ("approval.ask", "ok", "elevate/bank:write"),
        ("telemetry.tool", "ok", "~/read_file"),
    ):
        await run_act(world, partial(run, outcome=outcome, tool=tool), action)
    incident = await report_finding(world, agent)
    assert incident is not None
    touched = blast(world.db.read(), incident, now=world.now())["touched"]
    assert [(one["tool"], one["allowed"], one["denied"]) for one in touched] == [("bank/pay", 1, 1)]


async def test_the_certificates_of_an_agent_are_listed_with_its_incident_until_they_end(world: World) -> None:
    agent = await register_agent(world)
    suspect = await register_agent(world, "suspect")
    incident = await report_finding(world, suspect)
    assert incident is not None
    incident = replace(incident, agent=agent.agent_id)  # the finding itself stopped the suspect, and its certificates
    issued = await issue(world, agent="bot")
    listed = blast(world.db.read(), incident, now=world.now())["certificates"]
    assert [one["serial"] for one in listed] == [issued.certificate.serial]
    await run_act(world, lambda act: registry.set_agent_state(act, agent.agent_id, AgentVerb.REVOKE))
    assert blast(world.db.read(), incident, now=world.now())["certificates"] == []
