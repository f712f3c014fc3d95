"""The timeline of an incident across agents, its pages and its readers, and the notes of people."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import register_agent, run_act
from ostiary.protocol.errors import Conflict, Forbidden, Invalid, NotFound
from ostiary.provenance.noticing import Noticed
from ostiaryd.ground.world import World
from ostiaryd.incidents import store
from ostiaryd.incidents.flows import incidents as flows
from ostiaryd.incidents.flows import timeline
from ostiaryd.incidents.flows.blast import blast
from ostiaryd.incidents.model.incidents import HOUR, MAX_NOTE, MAX_NOTES, Incident, Verb
from ostiaryd.ledger.flows import Act
from ostiaryd.registry.model import Agent, Caller
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import Task, TaskSpec
from ostiaryd.watch import flows as watch
from tests.support.incident_fixtures import close_incident, create_approver, entries_of, report_finding
from tests.support.role_fixtures import ask, person

SIGHT = timeline.Sight(entries=True, findings=True, own_api="https://server.example/api/v1")
BLIND = timeline.Sight(entries=False, findings=False, own_api="")


def connected(world: World, incident: Incident) -> list[timeline.ConnectedAgent]:
    return timeline.list_connected_agents(world.db.read(), incident)


def page(
    world: World, incident: Incident, *, limit: int = 200, before: int | None = None, sight: timeline.Sight = SIGHT
) -> timeline.TimelinePage:
    agents = connected(world, incident)
    return timeline.read_timeline(world.db.read(), incident, agents, sight=sight, limit=limit, before=before)


async def call_tool(world: World, agent: Agent, tool: str, **more: Any) -> None:
    def run(act: Act) -> None:
        act.entry.agent, act.entry.tool, act.entry.outcome = agent.agent_id, tool, "allow"
        for name, value in more.items():
            setattr(act.entry, name, value)

    await run_act(world, run, "tool.call")


async def team(world: World) -> tuple[list[Agent], list[Task], Incident]:
    """Register a delegation chain of three agents and other agents; open an incident of the agent in the middle."""
    chain = [await register_agent(world, name, owner=f"of-{name}") for name in ("boss", "bot", "helper")]
    await register_agent(world, "sister", owner="of-bot")
    await register_agent(world, "twin", owner="of-twin", model="m-1")
    await register_agent(world, "stranger", owner="of-stranger", model="m-2")
    line: list[Task] = []
    for agent in chain:
        spec = TaskSpec(agent=agent.name, purpose="to work", parent=line[-1].task_id if line else None)
        line.append(await run_act(world, lambda a, spec=spec: tasks.start(a, spec), "task.start"))  # type: ignore[misc]
    incident = await report_finding(world, chain[1], task=line[1].task_id)
    assert incident is not None
    return chain, line, incident


async def test_agents_of_ended_delegations_and_of_the_same_owner_are_connected(world: World) -> None:
    _, line, incident = await team(world)
    await run_act(world, lambda a: tasks.end(a, line[1].task_id), "task.end")
    relations = {one.agent.name: one.relation for one in connected(world, incident)}
    assert relations == {"bot": "incident", "boss": "acted_for", "helper": "delegated_to", "sister": "same_owner"}
    radius = blast(world.db.read(), incident, now=world.now())
    assert (radius["delegated_to"], radius["acted_for"]) == (["helper"], ["boss"])


async def test_the_timeline_lists_every_row_of_the_connected_agents_once_in_order(world: World, clock: Clock) -> None:
    chain, _, incident = await team(world)
    stranger = await register_agent(world, "other")
    for agent in (*chain, stranger):
        clock.advance(1)
        await call_tool(world, agent, "files/read", person=None)
    noticed = Noticed(detector="rate", points=1, says="loud")
    await run_act(
        world, lambda a: watch.record_finding(a, noticed, agent=chain[2].agent_id, task=None, entries=()), "watch.find"
    )
    note = await run_act(world, partial(add_note, incident=incident, by=await create_approver(world)))
    whole = page(world, incident)
    assert whole.next is None
    ats = [one.at for one in whole.events]
    assert ats == sorted(ats, reverse=True)
    calls = [one.agent for one in whole.events if one.action == "tool.call"]
    assert calls == [agent.agent_id for agent in reversed(chain)], "of the stranger nothing"
    kinds = [(one.kind, one.agent, one.says) for one in whole.events if one.kind != "entry"]
    bot, helper = chain[1].agent_id, chain[2].agent_id
    assert {("note", bot, note.says), ("finding", helper, "loud")} < set(kinds)
    assert ("finding", bot, "it does what it never did") in kinds
    assert [kind for kind, *_ in kinds].count("response") == 1
    for limit in (1, 2, 3, 7):
        pages, before = [], None
        while True:
            part = page(world, incident, limit=limit, before=before)
            assert sum(one.kind == "entry" for one in part.events) <= limit
            pages += part.events
            if (before := part.next) is None:
                break
        assert sorted(pages, key=repr) == sorted(whole.events, key=repr), "nothing is lost or doubled"
        assert [one.at for one in pages] == ats


async def test_the_timeline_ends_an_hour_after_the_incident(world: World, clock: Clock) -> None:
    chain, _, incident = await team(world)
    closed = await close_incident(world, Verb.RELEASE, incident, await create_approver(world))
    for us in (HOUR - 1, 1, 1):
        clock.advance(us / 1_000_000)
        await call_tool(world, chain[1], "files/read")
    assert closed.closed_at is not None
    noticed = Noticed(detector="rate", points=1, says="loud")

    def find(act: Act) -> None:
        for _ in range(timeline.MAX_FINDINGS):
            watch.record_finding(act, noticed, agent=chain[1].agent_id, task=None, entries=())

    await run_act(world, find)
    events = page(world, closed).events
    assert [one.at - closed.closed_at for one in events if one.action == "tool.call"] == [HOUR - 1]
    [touched] = blast(world.db.read(), closed, now=world.now())["touched"]
    assert touched["allowed"] == 1, "of later calls none"
    assert [one.says for one in events if one.kind == "finding"] == ["it does what it never did"], "of later ones none"


async def test_a_reader_without_the_ledger_gets_no_entry_and_no_cursor(world: World) -> None:
    chain, _, incident = await team(world)
    await run_act(
        world,
        lambda a: watch.record_finding(
            a, Noticed(detector="rate", points=1, says="loud"), agent=chain[2].agent_id, task=None, entries=()
        ),
        "watch.find",
    )
    shown = page(world, incident, sight=BLIND)
    assert {(one.kind, one.agent) for one in shown.events} == {
        ("finding", chain[1].agent_id),
        ("response", chain[1].agent_id),
    }
    assert shown.next is None
    with pytest.raises(Invalid, match="cursor"):
        page(world, incident, sight=BLIND, before=1)
    with pytest.raises(Invalid, match="cursor"):
        page(world, incident, before=10**9)
    with pytest.raises(NotFound, match="stranger"):
        timeline.choose_agent(connected(world, incident), "stranger")


async def test_the_route_shows_what_the_role_permits(world: World) -> None:
    _, _, incident = await team(world)
    path = f"/api/v1/incidents/{incident.incident_id}/timeline"
    plain, viewer = await person(world, "pat"), await person(world, "vic", "viewer")
    auditor = await person(world, "aud", "auditor")
    assert {row["kind"] for row in (await ask(plain, "GET", path)).json["rows"]} == {"finding", "response"}
    assert {row["kind"] for row in (await ask(viewer, "GET", path)).json["rows"]} == {"finding", "response"}
    whole = (await ask(auditor, "GET", path)).json
    assert {row["kind"] for row in whole["rows"]} == {"finding", "response", "entry"}
    assert {(one["agent"], one["relation"]) for one in whole["connected"]} > {("boss", "acted_for")}
    one = (await ask(auditor, "GET", f"{path}?agent=boss&limit=1")).json
    assert {row["agent"] for row in one["rows"]} == {"boss"}
    first = (await ask(auditor, "GET", f"{path}?agent=bot&limit=1")).json
    second = (await ask(auditor, "GET", f"{path}?agent=bot&limit=1&after={first['next']}")).json
    assert first["rows"] != second["rows"]
    assert first["rows"][-1]["at"] >= second["rows"][-1]["at"]
    assert (await ask(auditor, "GET", f"{path}?agent=stranger")).status == 404
    for cursor in ("x", "-1", "9" * 19):
        assert (await ask(auditor, "GET", f"{path}?after={cursor}")).status == 422


# --- notes


def add_note(act: Act, *, incident: Incident, by: Caller, says: str = "the owner is on the phone") -> Any:
    return flows.add_note(act, incident.incident_id, says, by=by)


async def test_notes_on_open_and_closed_incidents_are_kept_in_order_and_recorded(world: World) -> None:
    bot, judith, omar = await register_agent(world), await create_approver(world), await create_approver(world, "omar")
    incident = await report_finding(world, bot)
    assert incident is not None
    await run_act(world, partial(add_note, incident=incident, by=judith, says="x" * MAX_NOTE), "incident.note")
    await close_incident(world, Verb.RELEASE, incident, judith)
    await run_act(world, partial(add_note, incident=incident, by=omar, says="told\nthe owner"), "incident.note")
    notes = store.list_notes(world.db.read(), incident.incident_id)
    assert [(one.number, one.person, one.says[:5]) for one in notes] == [
        (1, judith.id, "xxxxx"),
        (2, omar.id, "told\n"),
    ]
    recorded = entries_of(world, "incident.note")
    assert [(one.object, one.agent) for one in recorded] == [(incident.incident_id, bot.agent_id)] * 2
    assert recorded[1].detail is not None
    assert recorded[1].detail["why"] == "told\nthe owner"


async def test_an_invalid_note_is_refused_and_recorded(world: World) -> None:
    bot, judith = await register_agent(world), await create_approver(world)
    incident = await report_finding(world, bot)
    assert incident is not None
    for says in ("", " ", "x" * (MAX_NOTE + 1), "a\u202eb"):
        with pytest.raises(Invalid):
            await run_act(world, partial(add_note, incident=incident, by=judith, says=says), "incident.note")
    machine = Caller(kind="agent", id=bot.agent_id, name="bot", owner=None, scopes=judith.scopes)
    with pytest.raises(Forbidden, match="person"):
        await run_act(world, partial(add_note, incident=incident, by=machine), "incident.note")
    assert store.list_notes(world.db.read(), incident.incident_id) == []
    assert [one.outcome for one in entries_of(world, "incident.note")] == ["refused"] * 5

    def fill(act: Act) -> None:
        for _ in range(MAX_NOTES):
            add_note(act, incident=incident, by=judith)

    await run_act(world, fill)
    with pytest.raises(Conflict, match="100 notes"):
        await run_act(world, partial(add_note, incident=incident, by=judith), "incident.note")
    assert len(store.list_notes(world.db.read(), incident.incident_id)) == MAX_NOTES
