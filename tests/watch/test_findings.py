"""A finding is kept with its evidence, and raises the risk score of an agent and its task in every decision."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from harness.clock import Clock
from harness.registry_fixtures import ADMIN, new_jwk, register_agent, run_act
from ostiary.decision.feed import RiskFact
from ostiary.protocol.errors import Conflict, Invalid, NotFound
from ostiary.provenance.noticing import HALF_LIFE, Noticed
from ostiaryd.ground.database import Tx
from ostiaryd.ground.http.edge import Call
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.model import decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Resource
from ostiaryd.registry.store import risks
from ostiaryd.watch import flows, store, wire_admin
from ostiaryd.watch.model import JUDGE, MAX_ENTRIES, Finding, Judgement, Piece, Sighting, Verdict
from tests.support.feed_streams import URI, listening

SEEN = Noticed(detector="canary", points=60, says="it touched what nobody should")


@pytest.fixture
async def resource(world: World) -> Resource:
    return await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI, jwk=new_jwk()))


async def test_a_finding_is_kept_and_raises_the_risk_of_agent_and_task(world: World, clock: Clock) -> None:
    bot = await register_agent(world)
    made = await run_act(
        world, lambda a: flows.record_finding(a, SEEN, agent=bot.agent_id, task="tk_1", entries=tuple(range(20)))
    )
    reader = world.db.read()
    assert store.findings.get(reader, made.finding_id) == made
    assert store.findings.list_findings_of_agent(reader, bot.agent_id) == store.findings.latest(reader) == [made]
    assert store.findings.list_findings_of_agent(reader, bot.agent_id, since=made.at) == []
    assert made.entries == tuple(range(20 - MAX_ENTRIES, 20)), "the newest"
    assert made.owner == bot.owner
    for subject in (bot.agent_id, "tk_1"):
        assert risks.get_risk(reader, subject).points(clock()) == 60
    assert risks.get_risk(reader, "ag_nobody").points(clock()) == 0


async def test_a_finding_about_an_unknown_agent_is_refused(world: World) -> None:
    with pytest.raises(NotFound):
        await run_act(world, lambda a: flows.record_finding(a, SEEN, agent="ag_nobody", task=None, entries=()))
    assert store.findings.latest(world.db.read()) == []


async def test_guards_receive_the_risk_of_an_agent_at_once_and_with_their_snapshot(
    world: World, resource: Resource, clock: Clock
) -> None:
    bot = await register_agent(world)
    async with listening(world, resource) as guard:
        await guard.hear()
        await run_act(world, lambda a: flows.record_finding(a, SEEN, agent=bot.agent_id, task=None, entries=()))
        assert await guard.facts() == [RiskFact(bot.agent_id, 60_000, clock())]
    clock.advance(us=HALF_LIFE)
    async with listening(world, resource) as late:
        await late.hear()
        assert late.feed.current().facts.risks[bot.agent_id].points(clock()) == 30


async def test_risks_up_to_a_given_time_are_forgotten(world: World, clock: Clock) -> None:
    bot = await register_agent(world)
    await run_act(world, lambda a: flows.record_finding(a, SEEN, agent=bot.agent_id, task=None, entries=()))
    at = clock()
    assert await run_act(world, lambda a: risks.forget_risks(a.tx, before=at - 1)) == 0
    assert await run_act(world, lambda a: risks.forget_risks(a.tx, before=at)) == 1


def sighting(number: int, detector: str = "canary", *, agent: str, at: int, points: int = 40) -> Sighting:
    return Sighting(number, at, detector, agent, "tk_1", URI, points, 1.5, "it is odd", (number - 1, number))


async def test_a_sighting_is_recorded_once_for_each_entry_and_detector(world: World, clock: Clock) -> None:
    bot = await register_agent(world)
    heard: list[Finding] = []

    async def tell(number: int, detector: str) -> bool:
        one = sighting(number, detector, agent=bot.agent_id, at=clock())
        return (
            await run_act(world, lambda a: flows.record_sighting(a, one, lambda _, made: heard.append(made)))
            is not None
        )

    assert await tell(5, "b")
    assert not await tell(5, "a"), "in the order in which they are told"
    assert not await tell(5, "b")
    assert await tell(5, "c")
    assert not await tell(4, "z")
    assert await tell(6, "a")
    assert [one.detector for one in heard] == ["b", "c", "a"]
    first = heard[0]
    assert (first.agent, first.task, first.resource, first.score, first.entries) == (
        bot.agent_id,
        "tk_1",
        URI,
        1.5,
        (4, 5),
    )
    assert store.findings.get(world.db.read(), first.finding_id) == first


async def test_the_same_evidence_of_a_guard_raises_the_risk_once(world: World, clock: Clock) -> None:
    bot = await register_agent(world)
    await register_agent(world, "other")  # its entry and that of the first are what the server saw itself
    for detector, points, counted in (("canary", 40, 0), ("first_seen", 40, 40)):
        one = replace(sighting(1, detector, agent=bot.agent_id, at=clock(), points=points), counted=counted)
        await run_act(world, partial(flows.record_sighting, one=one, then=flows.no_response))
    assert risks.get_risk(world.db.read(), bot.agent_id).points(clock()) == 40


async def test_a_repeated_claim_of_a_guard_without_proofs_is_restored_to_the_cap(world: World, clock: Clock) -> None:
    bot = await register_agent(world)
    for number, counted in ((5, 0), (6, 30)):
        one = replace(sighting(number, agent=bot.agent_id, at=clock(), points=60), counted=counted)
        await run_act(world, partial(flows.record_sighting, one=one, then=flows.no_response))
        clock.advance(us=HALF_LIFE)
    left = risks.get_risk(world.db.read(), bot.agent_id)
    assert left.points(clock() - HALF_LIFE) == 28, "15 of the first claim are left, and 15 are granted again"


async def test_a_finding_without_an_agent_names_its_resource_and_raises_no_risk(world: World, clock: Clock) -> None:
    made = await run_act(
        world, lambda a: flows.record_sighting(a, sighting(5, agent="", at=clock()), flows.no_response)
    )
    assert made is not None
    assert (made.agent, made.owner, made.resource) == ("", None, URI)
    assert risks.get_risk(world.db.read(), "").points(clock()) == 0


@pytest.mark.parametrize(("halves", "points"), [(0, 40), (1, 20), (2, 10), (5, 1), (6, 0)])
async def test_an_old_sighting_raises_the_risk_by_its_decayed_points(
    world: World, clock: Clock, halves: int, points: int
) -> None:
    bot = await register_agent(world)
    await register_agent(world, "other")  # its entry and that of the first are what the server saw itself
    one = sighting(1, agent=bot.agent_id, at=clock() - halves * HALF_LIFE)
    await run_act(world, lambda a: flows.record_sighting(a, one, flows.no_response))
    assert risks.get_risk(world.db.read(), bot.agent_id).points(clock()) == points


async def test_a_finding_is_judged_once_and_the_judgement_is_in_the_ledger(world: World, clock: Clock) -> None:
    bot = await register_agent(world)
    made = await run_act(world, lambda a: flows.record_finding(a, SEEN, agent=bot.agent_id, task=None, entries=(1,)))
    ids = [made.finding_id]
    await run_act(world, lambda a: flows.record_verdict(a, ids, Verdict.FALSE_ALARM, by="pe_1", why="it was a drill"))
    judged = flows.find_finding(world.db.read(), made.finding_id).judgement
    assert judged == Judgement(Verdict.FALSE_ALARM, "pe_1", clock(), "it was a drill")
    body = ledger.get_entry_body(world.db.read(), ledger.get_head(world.db.read())[0].size - 1)
    assert body is not None
    entry = decode_entry(body)
    assert (entry.action, entry.agent, entry.detail) == (
        JUDGE,
        bot.agent_id,
        {"detectors": ["canary"], "is_real": False, "tasks": 1},
    )
    with pytest.raises(Conflict):
        await run_act(world, lambda a: flows.record_verdict(a, ids, Verdict.REAL, by="pe_1", why=""))
    with pytest.raises(NotFound):
        await run_act(world, lambda a: flows.record_verdict(a, ["fi_none"], Verdict.REAL, by="pe_1", why=""))


async def test_an_unfinished_snapshot_does_not_count_and_older_pieces_are_deleted(world: World) -> None:
    def write(generation: int, *pieces: tuple[str, bytes], finish: bool = True, gone: tuple[str, ...] = ()) -> Any:
        def job(tx: Tx) -> None:
            store.snapshots.put_pieces(tx, generation, [Piece(*piece) for piece in pieces])
            if finish:
                store.snapshots.finish(tx, generation, b"snapshot %d" % generation, gone)

        return world.writer.submit(job)

    def read(generation: int) -> dict[str, bytes]:
        return dict(store.snapshots.pieces(world.db.read(), generation, after="", limit=100))

    await write(1, ("ag_1", b"one"), ("ag_2", b"one"))
    await write(2, ("ag_1", b"two"), finish=False)
    assert read(1) == {"ag_1": b"one", "ag_2": b"one"}
    await world.writer.submit(lambda tx: store.snapshots.drop_unfinished(tx, 1))
    await write(2, ("ag_2", b"two"))
    await write(3, ("ag_2", b"three"), gone=("ag_1",))
    assert read(3) == {"ag_2": b"three"}
    assert read(2) == {"ag_2": b"two"}, "the one before is whole until the next one is"
    assert read(1) == {}
    assert store.snapshots.progress(world.db.read()).snapshot == b"snapshot 3"
    assert [piece.key for piece in store.snapshots.pieces(world.db.read(), 3, after="ag_1", limit=1)] == ["ag_2"]


async def test_open_findings_are_the_unjudged_findings_of_the_last_week(world: World, clock: Clock) -> None:
    bot, other = await register_agent(world, "bot"), await register_agent(world, "other")
    ids: list[str] = []
    for agent, seconds in ((bot, 7 * 86_400), (bot, 1), (other, 0), (bot, 0)):
        saw = Noticed(detector="rate", points=1, says="loud")
        find = partial(flows.record_finding, noticed=saw, agent=agent.agent_id, task=None, entries=())
        made = await run_act(world, find, "watch.find")
        ids.append(made.finding_id)
        clock.advance(seconds)
    await run_act(world, partial(flows.record_verdict, ids=[ids[3]], verdict=Verdict.REAL, by=bot.owner, why="seen"))

    async def shown(query: str) -> Any:
        call = Call(world, "GET", "/api/v1/findings", {}, query, [], b"", "rq_1", ADMIN)
        answer = await wire_admin.list_findings(call)
        assert isinstance(answer.body, bytes)
        return json.loads(answer.body)["findings"]

    assert [one["finding_id"] for one in await shown("state=open")] == [ids[2], ids[1]], "the first is a week old"
    assert [one["finding_id"] for one in await shown("state=open&agent=bot")] == [ids[1]]
    assert [one["finding_id"] for one in await shown("limit=1&state=open")] == [ids[2]]
    assert len(await shown("state=all")) == 4
    assert store.findings.count_open_findings(world.db.read(), since=clock.now - 7 * 86_400_000_000, most=9) == 2
    assert store.findings.count_open_findings(world.db.read(), since=0, most=2) == 2
    with pytest.raises(Invalid, match="`state` must be `open` or `all`"):
        await shown("state=closed")
