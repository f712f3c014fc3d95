"""Attacks of agents that want to go on, to have others stopped, or to silence their detection."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace as with_

from harness.clock import Clock
from harness.registry_fixtures import ADMIN, get_agent, is_live, register_agent, run_act
from ostiary.protocol.errors import Conflict, Forbidden
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world
from ostiaryd.incidents import store
from ostiaryd.incidents.flows import incidents as flows
from ostiaryd.incidents.model.incidents import DAY, MAX_ACTS
from ostiaryd.incidents.model.incidents import Verb as Says
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows as policies
from ostiaryd.policy.model import EvaluationRequest, Thing, Verb
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentState
from ostiaryd.registry.model import Verb as Move
from ostiaryd.tasks.model import standing_id
from tests.support.api_fixtures import FILES, Client, claims_of
from tests.support.incident_fixtures import (
    LIMITS,
    close_incident,
    create_approver,
    entries_of,
    report_finding,
    responses_of,
)
from tests.support.policy_fixtures import put
from tests.support.trust_fixtures import API, call

CALL = 'permit (principal is Agent, action in [Action::"call", Action::"issue_token"], resource);\n'


@pytest.mark.parametrize("what", ["owner", "segment", "everything", "task"])
async def test_a_stopped_agent_cannot_use_or_get_tokens_until_the_stop_is_lifted(client: Client, what: str) -> None:
    """An issued token is refused and no new token is issued; after the stop is lifted, both work again."""
    world = client.world
    token = str((await client.token(resource=API))["access_token"])
    agent = registry.find_agent(world.db.read(), client.id)
    value = {"owner": agent.owner, "segment": agent.segment, "everything": "", "task": standing_id(agent.agent_id)}[
        what
    ]
    assert (await call(client, token)).status == 200
    await run_act(world, lambda a: registry.stop(a, what, value, why="a drill", by=None))  # type: ignore[arg-type]
    assert (await call(client, token)).status == 401
    refused = await client.ask(resource=FILES)
    assert (refused.status, "kill switch" in refused.json["error_description"]) in ((400, True), (401, True))
    await run_act(world, lambda a: registry.lift_stop(a, what, value))  # type: ignore[arg-type]
    assert (await call(client, token)).status == 200
    assert (await client.ask(resource=FILES)).status == 200


async def test_a_stopped_resource_is_refused_in_token_requests_and_in_decisions(client: Client) -> None:
    world = client.world
    await run_act(world, lambda a: registry.stop(a, "resource", FILES, why="a drill", by=None))
    assert (await client.ask(resource=FILES)).error == "invalid_target"
    question = EvaluationRequest(Thing("agent", client.id), Verb("call"), Thing("tool", "files/read_file"))
    evaluator = policies.Evaluator(world.db.read(), policies.active_policies(world.db.read()), now=world.now())
    assert [one.code for one in evaluator.evaluate(question).reasons] == ["stopped"]


async def test_an_agent_that_is_released_from_quarantine_needs_new_tokens(client: Client) -> None:
    world = client.world
    old = str((await client.token(resource=API))["access_token"])
    opened = await report_finding(world, registry.find_agent(world.db.read(), client.id))
    assert opened is not None
    assert not is_live(world, claims_of(old)["jti"])
    assert (await client.ask()).error == "invalid_client"
    await close_incident(world, Says.RELEASE, opened, await create_approver(world))
    assert (await call(client, old)).status == 401, "what was lost is lost"
    assert (await call(client, str((await client.token(resource=API))["access_token"]))).status == 200


async def test_a_flood_of_findings_keeps_a_limited_number_of_responses_in_an_incident(
    world: World, clock: Clock
) -> None:
    """The number of stored responses and of alerts is bounded, however often an agent causes the same finding."""
    await put(
        world,
        {
            "a.cedar": CALL + '@minutes("1") permit (principal, action in [Action::"alert"], resource);'
            '@minutes("1") permit (principal, action == Action::"throttle", resource);'
        },
    )
    bot = await register_agent(world)
    opened = None
    for _ in range(MAX_ACTS + 5):
        opened = await report_finding(world, bot, 1)
        clock.advance(61)
    assert opened is not None
    assert len(store.list_responses(world.db.read(), opened.incident_id)) == MAX_ACTS
    assert len(entries_of(world, "incident.open")) == 1
    assert len(entries_of(world, "incident.alert")) <= (MAX_ACTS + 5) * 61 // 600 + 1
    await run_act(world, lambda a: flows.isolate(a, bot.name, says="enough", source="somebody"))
    await close_incident(world, Says.RELEASE, opened, await create_approver(world))
    assert get_agent(world, "bot").state is AgentState.ACTIVE, "what stopped it is always known"


async def test_a_finding_about_a_decommissioned_agent_opens_no_incident(world: World) -> None:
    bot = await register_agent(world)
    await run_act(world, lambda a: registry.set_agent_state(a, "bot", Move.DECOMMISSION))
    assert await report_finding(world, bot) is None
    assert entries_of(world, "incident.open") == []


async def test_a_suspended_agent_that_is_isolated_by_hand_cannot_resume_before_its_release(world: World) -> None:
    bot, judith = await register_agent(world), await create_approver(world)
    await run_act(world, lambda a: registry.set_agent_state(a, "bot", Move.SUSPEND))
    opened = await run_act(world, lambda a: flows.isolate(a, "bot", says="it is on fire", source="somebody"))
    with pytest.raises(Conflict):
        await run_act(world, lambda a: registry.set_agent_state(a, "bot", Move.RESUME, by=ADMIN))
    await close_incident(world, Says.RELEASE, opened, judith)
    assert registry.find_agent(world.db.read(), bot.agent_id).state is AgentState.SUSPENDED, "as it was before"
    await run_act(world, lambda a: registry.set_agent_state(a, "bot", Move.RESUME, by=ADMIN))


async def test_the_doctor_reports_open_incidents_with_a_limited_response(world: World) -> None:
    one, two, judith = (
        await register_agent(world, "one"),
        await register_agent(world, "two"),
        await create_approver(world),
    )
    assert flows.examine(world.db.read()) == "no incident waits for a person"
    first = await report_finding(world, one)
    assert flows.examine(world.db.read()) == "1 incidents wait for a person"
    second = await report_finding(world, two)
    with pytest.raises(Conflict, match="1 open incidents have a response that was not carried out"):
        flows.examine(world.db.read())
    assert first is not None
    assert second is not None
    await close_incident(world, Says.TAKE, first, judith)
    await report_finding(world, two)
    assert flows.examine(world.db.read()) == "2 incidents wait for a person", "it was done after all"


async def test_two_servers_on_one_database_open_one_incident_and_share_one_limit(config: Config, clock: Clock) -> None:
    async with open_world(config, now=clock) as one, open_world(config, now=clock) as other:
        bots = [await register_agent(one, f"bot{number}") for number in range(6)]
        both = await asyncio.gather(report_finding(one, bots[0]), report_finding(other, bots[0]))
        assert len({incident.incident_id for incident in both if incident is not None}) == 1
        assert [len(store.list_responses(one.db.read(), both[0].incident_id))] == [1]  # type: ignore[union-attr]
        await asyncio.gather(*(report_finding(world, bot) for bot in bots[1:] for world in (one, other)))
        states = [get_agent(other, bot.name).state for bot in bots]
        assert states.count(AgentState.QUARANTINED) == 1, "a tenth of seven is one, whoever acts"


async def test_two_persons_at_once_close_an_incident_once(world: World) -> None:
    opened = await report_finding(world, await register_agent(world))
    assert opened is not None
    people = [await create_approver(world, "judith"), await create_approver(world, "bruno")]
    done = await asyncio.gather(
        close_incident(world, Says.RELEASE, opened, people[0]),
        close_incident(world, Says.DECOMMISSION, opened, people[1]),
        return_exceptions=True,
    )
    assert sum(isinstance(one, BaseException) for one in done) == 1


async def test_present_and_former_owners_of_an_agent_cannot_release_the_agent(world: World) -> None:
    """The transfer of the agent to another owner does not permit either owner to release the agent."""
    bot, judith = await register_agent(world), await create_approver(world)
    opened = await report_finding(world, bot)
    assert opened is not None
    alice = registry.find_person(world.db.read(), "alice")
    own = with_(judith, id=alice.person_id)
    with pytest.raises(Forbidden):
        await close_incident(world, Says.RELEASE, opened, own)
    await run_act(world, lambda a: registry.transfer_agent(a, "bot", "judith"))
    with pytest.raises(Forbidden):
        await close_incident(world, Says.RELEASE, opened, judith)
    with pytest.raises(Forbidden):
        await close_incident(world, Says.RELEASE, opened, own)
    assert get_agent(world, "bot").state is AgentState.QUARANTINED


async def test_the_text_of_an_incident_is_shortened_and_kept_on_one_line(world: World) -> None:
    bot = await register_agent(world)
    opened = await run_act(world, lambda a: flows.isolate(a, bot.name, says="x\n" * 1000, source="y" * 1000))
    kept = store.get(world.db.read(), opened.incident_id)
    assert kept is not None
    assert len(kept.says) <= 400
    assert "\n" not in kept.says


async def test_a_response_is_rolled_back_with_its_finding(world: World) -> None:
    """Finding and response are one act: if the finding is rolled back, no agent is stopped."""
    bot = await register_agent(world)

    def run(a: object) -> None:
        from ostiary.provenance.noticing import Noticed
        from ostiaryd.incidents.flows.respond import respond
        from ostiaryd.watch import flows as watch

        saw = Noticed(detector="rate", points=95, says="x")
        respond(a, watch.record_finding(a, saw, agent=bot.agent_id, task=None, entries=()), LIMITS)  # type: ignore[arg-type]
        raise Forbidden("no")

    with pytest.raises(Forbidden):
        await act(world, "watch.find", run)
    assert get_agent(world, "bot").state is AgentState.ACTIVE
    assert store.find_open(world.db.read(), bot.agent_id) is None
    assert entries_of(world, "incident.open") == []


async def test_a_limited_response_is_carried_out_when_the_limit_permits(world: World, clock: Clock) -> None:
    one, two = await register_agent(world, "one"), await register_agent(world, "two")
    await report_finding(world, one)
    opened = await report_finding(world, two)
    assert opened is not None
    clock.advance(us=DAY)
    await report_finding(world, two, 90)
    assert responses_of(world, opened) == [("quarantine", "limited"), ("quarantine", "done")]
