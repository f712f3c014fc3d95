"""The live events of the ledger: no entry is lost or doubled, each caller receives what it may read."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import pytest

from harness.patience import PATIENCE_S, eventually_async
from ostiary.audit.entries import FAMILIES
from ostiary.decision.access.stops import What
from ostiary.protocol.errors import Conflict
from ostiaryd.app import ROUTES, build_app
from ostiaryd.ground.database import Reader
from ostiaryd.ground.world import World
from ostiaryd.ledger import flows as ledger
from ostiaryd.ledger.flows import act
from ostiaryd.policy import flows as policy
from ostiaryd.policy.flows import live
from ostiaryd.policy.flows.live import AREAS, LiveEntries
from ostiaryd.policy.model.load import load
from ostiaryd.policy.model.safeguards import extend
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, READ, AgentSpec, Caller
from tests.support.api_fixtures import Client, register, send
from tests.support.trust_fixtures import API, proof_of

AGENT = Caller(kind="agent", id="ag_1", name="program", owner="pe_1", scopes=frozenset({READ}), token="tok")
FORBID_STREAM = """
@id("no-stream") forbid (principal, action == Ostiary::Action::"use_api", resource)
when { resource.operation == "GET /api/v1/events" };
"""
Event = tuple[str, str, Any]
"""The id, the type and the data of an event."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PAUSE_S", 0.0)
    monkeypatch.setattr(live, "BEAT_S", 0.01)


async def leave(world: World, action: str, *, count: int = 1) -> None:
    for _ in range(count):
        await act(world, action, lambda act: None)


async def person(world: World, name: str, *roles: str) -> Caller:
    def make(act: ledger.Act) -> str:
        made = registry.create_person(act, name=name)
        for role in roles:
            registry.grant_role(act, made.person_id, role)
        return made.person_id

    id = await act(world, "person.create", make)
    return Caller(kind="person", id=id, name=name, owner=None, scopes=frozenset({APPROVE}))


def follow(
    world: World,
    caller: Caller = AGENT,
    place: str | None = None,
    *,
    is_live: Callable[[Reader], bool] = lambda _: True,
) -> AsyncGenerator[bytes, None]:
    return world.get_singleton(LiveEntries).follow(caller, place, is_live)


def parse(chunk: bytes) -> list[Event]:
    """Return the events of a chunk as a browser reads them (HTML 9.2.6); an event without data has the type ""."""
    events = []
    for block in chunk.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        data = fields.get("data")
        events.append((fields.get("id", ""), fields["event"] if data else "", json.loads(data) if data else None))
    return events


async def hear(stream: AsyncGenerator[bytes, None], last: int) -> list[Event]:
    """Return the events up to the one whose id is that of the entry `last`."""
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE_S):
        async for chunk in stream:
            events += parse(chunk)
            if any(id.startswith(f"{last}-") for id, _, _ in events):
                return events
    raise AssertionError("the stream has ended")


async def hear_changes(stream: AsyncGenerator[bytes, None], families: int) -> list[Event]:
    """Return the events of a caller who may not read the ledger, up to a number of events with data."""
    events: list[Event] = []
    async with asyncio.timeout(PATIENCE_S):
        async for chunk in stream:
            events += parse(chunk)
            if sum(kind != "" for _, kind, _ in events) >= families:
                return events
    raise AssertionError("the stream has ended")


def size_of(world: World) -> int:
    return ledger.get_head(world.db.read())[0].size


async def test_a_dropped_stream_continues_without_a_lost_or_doubled_entry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "BATCH", 3)
    monkeypatch.setattr(live, "KEPT", 6)
    await leave(world, "task.start")
    start, place, heard = size_of(world), None, []
    for _ in range(4):
        async with aclosing(follow(world, place=place)) as stream:
            first = parse(await anext(stream))
            place = first[0][0] or place
            await leave(world, "task.start", count=5)
            for _ in range(2):  # the connection breaks in the middle
                for id, kind, data in parse(await anext(stream)):
                    place = id or place
                    heard += [data["index"]] if kind == "entry" else []
        await leave(world, "tool.call", count=4)
    async with aclosing(follow(world, place=place)) as stream:
        heard += [data["index"] for _, kind, data in await hear(stream, size_of(world) - 1) if kind == "entry"]
    assert heard == list(range(start, size_of(world)))


async def test_an_event_contains_the_entry_as_stored_in_the_ledger(world: World) -> None:
    await leave(world, "task.start")
    async with aclosing(follow(world)) as stream:
        await anext(stream)
        await leave(world, "tool.call")
        index = size_of(world) - 1
        [(_, kind, data)] = [one for one in await hear(stream, index) if one[1]]
    body = ledger.get_entry_body(world.db.read(), index)
    assert body is not None
    assert (kind, data) == ("entry", {"index": index, **json.loads(body)})


async def test_a_person_receives_only_events_that_the_person_may_read(world: World) -> None:
    callers = {role: await person(world, role, role) for role in ("viewer", "auditor")}
    place = f"{size_of(world) - 1}-{ledger.present_history(world.db.read())[:8]}"
    async with aclosing(follow(world, callers["viewer"], place)) as stream:
        assert parse(await anext(stream)) == [("", "reset", {})]
        for action in ("task.start", "clock.step", "task.end", "agent.create"):
            await leave(world, action)
        events = [one for one in await hear_changes(stream, 2) if one[1]]
    assert events == [("", "change", {"family": "task"}), ("", "change", {"family": "agent"})]
    async with aclosing(follow(world, callers["auditor"], place)) as stream:
        kinds = [kind for _, kind, _ in await hear(stream, size_of(world) - 1)]
    assert kinds == ["", "entry", "entry", "entry", "entry"]


async def test_a_person_without_a_role_receives_events_of_agents_that_the_person_or_team_owns(world: World) -> None:
    owner, member = [await person(world, name) for name in ("olga", "mo")]

    def make(act: ledger.Act) -> None:
        registry.create_team(act, name="crew", members=["mo"])
        for name, of in (("hers", "olga"), ("theirs", "crew")):
            registry.create_agent(act, AgentSpec(name=name, owner=of, purpose="a test"))

    await act(world, "agent.create", make)
    ids = [registry.find_agent(world.db.read(), name).agent_id for name in ("hers", "theirs")]

    def about(agent: str) -> Callable[[ledger.Act], None]:
        return lambda act: setattr(act.entry, "agent", agent)

    changes = [("approval.ask", ids[0]), ("approval.ask", ids[1]), ("incident.open", ids[1]), ("incident.open", ids[0])]
    for caller, own in ((owner, ids[0]), (member, ids[1])):
        async with aclosing(follow(world, caller)) as stream:
            await anext(stream)
            for action, agent in changes:
                await act(world, action, about(agent))
                await leave(world, "task.start")
                if agent == own:
                    [heard] = [one for one in await hear_changes(stream, 1) if one[1]]
                    assert heard == ("", "change", {"family": action.partition(".")[0]})


async def test_a_caller_who_may_not_read_the_ledger_learns_neither_its_size_nor_its_rhythm(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "BEAT_S", 0.2)
    stranger = await person(world, "sam")
    async with aclosing(follow(world, stranger)) as quiet:
        silence = [await anext(quiet) for _ in range(6)]
    async with aclosing(follow(world, stranger)) as stream:
        busy = [await anext(stream)]
        for _ in range(5):
            beat = asyncio.create_task(anext(stream))
            await leave(world, "tool.call", count=3)
            await leave(world, "incident.open")
            busy.append(await beat)
    assert busy == silence == [b"retry: 1000\nevent: reset\ndata: {}\n\n", *[b":\n\n"] * 5]


async def test_a_stream_omits_events_after_a_revoked_role_and_ends_with_the_session(world: World) -> None:
    viewer, is_live = await person(world, "vera", "viewer"), True
    stream = follow(world, viewer)
    await anext(stream)
    await leave(world, "agent.create")
    assert [one for one in await hear_changes(stream, 1) if one[1]] == [("", "change", {"family": "agent"})]
    await act(world, "role.revoke", lambda act: registry.revoke_role(act, viewer.id, "viewer"))
    await leave(world, "agent.create")
    assert [await anext(stream) for _ in range(3)] == [b":\n\n"] * 3
    await stream.aclose()
    stream = follow(world, is_live=lambda _: is_live)
    await anext(stream)
    assert await anext(stream) == b":\n\n", "a heartbeat"
    is_live = False
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert world.get_singleton(LiveEntries).count == 0


async def test_a_policy_that_forbids_the_stream_ends_it_for_a_person(world: World) -> None:
    stream = follow(world, await person(world, "sam"))
    await anext(stream)
    assert await anext(stream) == b":\n\n", "a heartbeat"
    loaded = load(extend({"own.cedar": FORBID_STREAM}, ()))
    await act(world, "policy.put", lambda act: policy.put(act, loaded, by=None))
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert world.get_singleton(LiveEntries).count == 0


@pytest.mark.parametrize("place", ["x", "1", "0-00000000", "999-{history}", "-1-{history}", "1-{history}x"])
async def test_a_stream_from_an_unknown_position_starts_with_a_reset(world: World, place: str) -> None:
    await leave(world, "task.start")
    history = ledger.present_history(world.db.read())[:8]
    async with aclosing(follow(world, place=place.format(history=history))) as stream:
        assert parse(await anext(stream)) == [(f"{size_of(world) - 1}-{history}", "reset", {})]


async def test_a_stream_that_missed_too_many_entries_starts_with_a_reset(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_MISSED", 3)
    await leave(world, "task.start", count=5)
    history, size = ledger.present_history(world.db.read())[:8], size_of(world)
    for missed, kind in ((0, ""), (3, ""), (4, "reset")):
        async with aclosing(follow(world, place=f"{size - 1 - missed}-{history}")) as stream:
            assert parse(await anext(stream))[0][1] == kind, missed


def agents(owner: str, count: int) -> list[Caller]:
    scopes = frozenset({READ})
    return [Caller(kind="agent", id=f"ag_{owner}_{n}", name="x", owner=owner, scopes=scopes) for n in range(count)]


async def test_streams_are_bounded_per_caller_and_per_server(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_OF_CALLER", 2)
    monkeypatch.setattr(live, "MAX_STREAMS", 3)
    monkeypatch.setattr(live, "BEAT_S", 60.0)
    first, second, *_ = agents("pe_1", 2)
    opened = [follow(world, first), follow(world, first)]
    for stream in opened:
        await anext(stream)
    with pytest.raises(Conflict, match="the caller has 2 live streams"):
        follow(world, first)
    opened.append(follow(world, second))
    await anext(opened[2])
    with pytest.raises(Conflict, match="the server has 3 live streams"):
        follow(world, second)  # another agent of the owner who has all streams
    await opened[0].aclose()
    late = follow(world, first)
    await anext(late)
    for stream in (*opened[1:], late):
        await stream.aclose()
    assert world.get_singleton(LiveEntries).count == 0


async def test_an_owner_with_all_streams_loses_streams_to_other_owners(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_OF_CALLER", 2)
    monkeypatch.setattr(live, "MAX_STREAMS", 4)
    monkeypatch.setattr(live, "BEAT_S", 60.0)
    olga = await person(world, "olga")
    greedy = [follow(world, caller) for caller in agents("pe_1", 2) for _ in range(2)]
    for stream in greedy:
        await anext(stream)
    held = [asyncio.ensure_future(anext(stream, b"")) for stream in greedy]
    person_streams = [follow(world, olga), follow(world, agents("pe_2", 1)[0])]
    for stream in person_streams:
        await anext(stream)
        assert world.get_singleton(LiveEntries).count == 4
    await eventually_async(lambda: [task.done() for task in held] == [True, True, False, False])
    assert [await task for task in held[:2]] == [b"", b""], "they have ended"
    with pytest.raises(Conflict):
        follow(world, agents("pe_1", 1)[0])  # its owner has two, others one each
    with pytest.raises(Conflict):
        follow(world, agents("pe_2", 2)[1])  # its owner would have two, as the largest holder has
    third = follow(world, agents("pe_3", 1)[0])
    await anext(third)
    await eventually_async(held[2].done)
    with pytest.raises(Conflict):
        follow(world, agents("pe_4", 1)[0])  # every holder has one
    held[3].cancel()
    await asyncio.gather(*held, return_exceptions=True)
    for stream in (*greedy, *person_streams, third):
        await stream.aclose()
    assert world.get_singleton(LiveEntries).count == 0


@pytest.mark.parametrize("target", ["owner", "segment", "everything"])
async def test_a_stop_ends_the_stream_of_an_agent(world: World, target: What) -> None:
    agent, key = await register(world, scopes=(READ,), segment="night")
    reader = Client(build_app(world), world, agent.agent_id, key)
    await reader.ask()
    token = (await reader.token(resource=API))["access_token"]
    path = "/api/v1/events"
    headers = [("authorization", f"DPoP {token}"), ("dpop", proof_of(reader, token, path, method="GET"))]
    stream = asyncio.create_task(send(reader.app, "GET", path, headers=headers, stays=True))
    live_entries = world.get_singleton(LiveEntries)
    await eventually_async(lambda: live_entries.count == 1 or stream.done())
    value = {"owner": agent.owner, "segment": "night", "everything": ""}[target]
    await act(world, "kill.start", lambda act: registry.stop(act, target, value, why="a drill", by=None))
    answer = await asyncio.wait_for(stream, PATIENCE_S)
    assert (answer.status, live_entries.count) == (200, 0)


def test_each_area_of_live_events_has_a_list_route_of_the_api() -> None:
    assert AREAS.keys() <= FAMILIES.keys()
    lists = {route.path for route in ROUTES if route.method == "GET"}
    assert {f"/api/v1/{area}" for area in AREAS.values()} <= lists
    assert not {area for area in AREAS.values() if re.search("audit|ledger|events", area)}
