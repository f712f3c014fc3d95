"""Streams: a snapshot, then every change that concerns the guard, signed for it, in time, no more than it reads."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from harness.clock import Clock, SeededRandom
from harness.patience import PATIENCE_S
from harness.registry_fixtures import create_holding, end_holdings, new_jwk, register_agent, run_act
from ostiary.authorization.cedar import ir
from ostiary.decision.feed import (
    AgentFact,
    KeyFact,
    KeysFact,
    PolicyFact,
    ResourceFact,
    StopFact,
    TaskFact,
    ThreatFact,
    TokenFact,
)
from ostiary.protocol.errors import Conflict, NotFound
from ostiaryd.feed.flows import Streams
from ostiaryd.feed.flows.streams import HALF, MAX_UNREPORTED_S, MAX_WAITING, SECOND
from ostiaryd.ground.config import Config
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World, open_world
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import LONGEST_TOKEN, Agent, Mode, Resource, Root, ThreatDelta, Verb
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec, TaskState
from ostiaryd.tokens.flows import rotate_key
from tests.support.feed_streams import NUMBER, URI, Listener, listening, resource

__all__ = ["resource"]


@pytest.fixture
async def agent(world: World) -> Agent:
    return await register_agent(world)


async def test_a_stream_begins_with_a_snapshot_of_resource_policies_and_keys(world: World, resource: Resource) -> None:
    async with listening(world, resource) as guard:
        message = await guard.hear()
        assert message.snapshot
        present = guard.feed.current()
        assert present.resource.uri == URI
        assert len(present.facts.policies.hash) == 43
        assert {key.kid for key in present.keys.keys} == set(world.keys.public("token"))


async def test_a_snapshot_has_every_stop_that_a_live_token_does_not_contain(
    world: World, resource: Resource, agent: Agent, clock: Clock
) -> None:
    others = [await register_agent(world, name) for name in ("old", "new")]
    await run_act(world, lambda a: registry.set_agent_state(a, "old", Verb.SUSPEND))
    clock.advance(us=1)
    await run_act(world, lambda a: registry.set_agent_state(a, "new", Verb.SUSPEND))
    clock.advance(us=LONGEST_TOKEN - 1)
    task = await run_act(
        world, lambda a: tasks.start(a, TaskSpec(agent=agent.agent_id, purpose="x", bounds=(), by=None))
    )
    await create_holding(world, agent, "ours", audience=URI)
    await create_holding(world, agent, "theirs", audience="https://elsewhere.example.org")
    await end_holdings(world, Root.HOLDING, "ours")
    await end_holdings(world, Root.HOLDING, "theirs")
    await run_act(world, lambda a: tasks.end(a, task.task_id, TaskState.DONE))
    [key, *_] = await run_act(world, lambda a: [registry.add_key(a, agent.agent_id, new_jwk())])
    await run_act(world, lambda a: registry.revoke_key(a, key.jkt))
    async with listening(world, resource) as guard:
        facts = (await guard.hear()).facts
    assert {fact.agent for fact in facts if isinstance(fact, AgentFact)} == {others[1].agent_id}
    assert {fact.task for fact in facts if isinstance(fact, TaskFact)} == {task.task_id}
    assert {fact.jkt for fact in facts if isinstance(fact, KeyFact)} == {key.jkt}
    assert {fact.jti for fact in facts if isinstance(fact, TokenFact)} == {"ours"}


async def test_a_change_is_sent_once_it_is_committed(world: World, resource: Resource, agent: Agent) -> None:
    async with listening(world, resource) as guard:
        await guard.hear()
        await run_act(world, lambda a: registry.set_agent_state(a, agent.agent_id, Verb.SUSPEND))
        [fact] = await guard.facts()
        assert fact == AgentFact(agent.agent_id, "suspended", 1, world.now() + LONGEST_TOKEN)
        assert guard.feed.seq == outbox.highest_number(world.db.read())


async def test_a_change_that_is_rolled_back_is_not_sent(world: World, resource: Resource, agent: Agent) -> None:
    async with listening(world, resource) as guard:
        await guard.hear()
        with pytest.raises(Conflict):
            await run_act(world, lambda a: refused(a, agent))
        await run_act(world, lambda a: registry.set_mode(a, "files", Mode.WATCH))
        [fact] = await guard.facts()
        assert isinstance(fact, ResourceFact)


def refused(act: registry.Act, agent: Agent) -> None:  # type: ignore[name-defined]
    registry.set_agent_state(act, agent.agent_id, Verb.SUSPEND)
    raise Conflict("after all not")


async def test_the_end_of_a_token_is_sent_only_to_resources_that_could_accept_it(
    world: World, resource: Resource, agent: Agent
) -> None:
    await create_holding(world, agent, "ours", audience=URI)
    await create_holding(world, agent, "theirs", audience="https://elsewhere.example.org")
    await create_holding(world, agent, "anywhere")
    async with listening(world, resource) as guard:
        await guard.hear()
        for id in ("theirs", "anywhere", "ours"):
            await end_holdings(world, Root.HOLDING, id)
        heard: list[str] = []
        while len(heard) < 2:
            heard += [fact.jti for fact in await guard.facts() if isinstance(fact, TokenFact)]
        assert heard == ["anywhere", "ours"]


async def test_a_guard_receives_changes_of_its_own_resource_and_of_no_other(world: World, resource: Resource) -> None:
    async with listening(world, resource) as guard:
        await guard.hear()
        await run_act(world, lambda a: registry.create_resource(a, name="mail", uri="https://mail.example.org"))
        await run_act(world, lambda a: registry.set_mode(a, "files", Mode.WATCH))
        [fact] = await guard.facts()
        assert isinstance(fact, ResourceFact)
        assert (fact.name, fact.mode) == ("files", "watch")


async def test_a_new_policy_set_is_sent(world: World, resource: Resource) -> None:
    from ostiaryd.policy import flows as policies
    from ostiaryd.policy.model import load

    loaded = load({"a.cedar": '@id("a") permit (principal, action, resource);'})
    async with listening(world, resource) as guard:
        await guard.hear()
        await run_act(world, lambda a: policies.put(a, loaded, by=None))
        [fact] = await guard.facts()
        assert isinstance(fact, PolicyFact)
        assert ir.parse(fact.policies.encode()).policies[0].id == "a"
        assert guard.feed.current().facts.policies.hash == loaded.hash


@pytest.mark.parametrize(("use", "alg"), [("token", "ES256"), ("feed", "EdDSA")])
async def test_a_rotated_key_is_announced_to_guards_and_signs_and_the_old_key_verifies(
    world: World, resource: Resource, use: str, alg: str
) -> None:
    async with listening(world, resource) as guard:
        await guard.hear()
        old = world.keys.signer(use, alg).public.kid
        kid = await run_act(world, lambda a: rotate_key(a, use=use, alg=alg))
        [fact] = await guard.facts()
        assert isinstance(fact, KeysFact)
        assert {old, kid} <= {key["kid"] for key in getattr(fact, use)}
        await run_act(world, lambda a: registry.set_mode(a, "files", Mode.WATCH))
        await guard.facts()
        present = guard.feed.current()
        assert use == "feed" or {old, kid} <= {key.kid for key in present.keys.keys}
        assert world.keys.signer(use, alg).public.kid == kid


async def test_a_stream_resumes_after_the_last_received_message(world: World, resource: Resource, agent: Agent) -> None:
    async with listening(world, resource) as guard:
        await run_act(world, lambda a: registry.set_mode(a, "files", Mode.WATCH))
        await guard.hear()
        feed = guard.feed
    await run_act(world, lambda a: registry.set_agent_state(a, agent.agent_id, Verb.SUSPEND))
    await run_act(world, lambda a: registry.create_resource(a, name="mail", uri="https://mail.example.org"))
    async with listening(world, resource, feed=feed, id="another-number-thrown") as guard:
        message = await guard.hear()
        assert not message.snapshot
        assert [type(fact) for fact in message.facts] == [AgentFact]


async def test_a_repeated_change_is_sent_once_to_a_guard_that_reconnects(world: World, resource: Resource) -> None:
    """A threat list, or a policy set, that changes each minute must not become a line that no guard reads."""
    async with listening(world, resource) as guard:
        await guard.hear()
    stop, lift = (
        (lambda a: registry.stop(a, "model", "m-1", why="x", by=None)),
        partial(registry.lift_stop, target="model"),
    )
    for _ in range(3):
        await run_act(world, lambda a: registry.queue_for_guards(a, ThreatDelta("tl_1")))
        await run_act(world, lambda a: registry.set_mode(a, "files", Mode.WATCH))
        await run_act(world, stop)
        await run_act(world, lambda a: lift(a, value="m-1"))
    await run_act(world, stop)
    async with listening(world, resource, feed=guard.feed, id="another-number-thrown") as again:
        facts = await again.facts()
        assert [type(fact) for fact in facts] == [ThreatFact, ResourceFact, StopFact, StopFact]
        assert [fact.is_lifted for fact in facts if isinstance(fact, StopFact)] == [True, False], "the last word counts"


@pytest.mark.parametrize("case", ["pruned", "from the future", "from the beginning"])
async def test_a_guard_that_cannot_resume_gets_a_snapshot(world: World, resource: Resource, case: str) -> None:
    async with listening(world, resource) as guard:
        await guard.hear()
        feed = guard.feed
    if case == "pruned":
        await run_act(world, lambda a: registry.set_mode(a, "files", Mode.WATCH))
        await run_act(world, lambda a: outbox.prune(a.tx, "feed", before=world.now() + 1))
        await run_act(world, lambda a: registry.set_mode(a, "files", Mode.ENFORCE))
    feed.seq = {"pruned": feed.seq, "from the future": 10_000, "from the beginning": 0}[case]
    async with listening(world, resource, feed=feed, id="another-number-thrown") as guard:
        assert (await guard.hear()).snapshot


async def test_a_server_without_changes_sends_heartbeats(config: Config, clock: Clock, dice: SeededRandom) -> None:
    import msgspec

    quick = msgspec.structs.replace(config, feed_heartbeat_ms=50)
    async with open_world(quick, now=clock, random=dice) as world:
        resource = await run_act(world, lambda a: registry.create_resource(a, name="files", uri=URI))
        async with listening(world, resource) as guard:
            await guard.hear()
            clock.advance(1)
            while (message := await guard.hear()).at < clock():  # it may have been said before the clock was wound
                assert message.facts == []
            assert (message.facts, message.at) == ([], clock())


async def test_a_change_that_another_process_commits_is_sent(
    world: World, config: Config, resource: Resource, clock: Clock, dice: SeededRandom, agent: Agent
) -> None:
    async with listening(world, resource) as guard:
        await guard.hear()
        async with open_world(config, now=clock, random=dice) as other:
            await run_act(other, lambda a: registry.set_agent_state(a, agent.agent_id, Verb.SUSPEND))
        world.get_singleton(Streams).pump()
        [fact] = await guard.facts()
        assert isinstance(fact, AgentFact)


async def test_a_stream_is_closed_when_the_key_of_its_guard_is_replaced(world: World, resource: Resource) -> None:
    guard = Listener(world, resource)
    await guard.hear()
    waiting = asyncio.ensure_future(anext(guard.lines))
    world.get_singleton(Streams).connected[0].task = waiting  # type: ignore[assignment]
    await asyncio.sleep(0)
    await run_act(world, lambda a: registry.set_resource_key(a, "files", new_jwk()))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert world.get_singleton(Streams).connected == []


@pytest.mark.parametrize(("facts", "is_cut"), [(2, False), (3, False), (4, True)])
async def test_the_stream_of_a_guard_that_does_not_read_is_closed(
    world: World, resource: Resource, monkeypatch: pytest.MonkeyPatch, facts: int, is_cut: bool
) -> None:
    monkeypatch.setattr("ostiaryd.feed.flows.streams.MAX_WAITING", 3)
    guard = Listener(world, resource)
    await guard.hear()
    reading = asyncio.ensure_future(asyncio.sleep(PATIENCE_S))
    world.get_singleton(Streams).connected[0].task = reading
    for _ in range(facts):
        await run_act(world, lambda a: registry.set_mode(a, "files", Mode.WATCH))
    await asyncio.sleep(0)
    assert reading.cancelled() is is_cut
    reading.cancel()
    await guard.lines.aclose()


async def test_the_stream_of_a_guard_that_reads_too_slowly_is_closed(
    world: World, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = Listener(world, resource)
    await guard.hear()
    reading = asyncio.ensure_future(asyncio.sleep(PATIENCE_S))
    streams = world.get_singleton(Streams)
    streams.connected[0].task = reading
    streams._beat()
    await asyncio.sleep(0)
    assert not reading.cancelled()
    monkeypatch.setattr("ostiaryd.feed.flows.streams.STUCK_S", -1)
    streams._beat()
    await asyncio.sleep(0)
    assert reading.cancelled()
    await guard.lines.aclose()


async def test_a_stream_id_is_unique_and_a_resource_has_a_limited_number_of_streams(
    world: World, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(world, resource) as guard:
        await guard.hear()
        with pytest.raises(Conflict):
            Listener(world, resource)
        monkeypatch.setattr("ostiaryd.feed.flows.streams.MAX_STREAMS", 2)
        async with listening(world, resource, id="another-number-thrown") as other:
            await other.hear()
            with pytest.raises(Conflict):
                Listener(world, resource, id="a-third-number-thrown")
    assert world.get_singleton(Streams).connected == []


async def test_a_revocation_reports_when_each_guard_has_applied_it(
    world: World, resource: Resource, agent: Agent, clock: Clock
) -> None:
    streams = world.get_singleton(Streams)
    async with listening(world, resource) as guard, listening(world, resource, id="another-number-thrown") as slow:
        for listener in (guard, slow):
            message = await listener.hear()
            listener.applied(message.seq)
        await run_act(world, lambda a: registry.set_agent_state(a, agent.agent_id, Verb.SUSPEND))
        seq = outbox.highest_number(world.db.read())
        settling = asyncio.ensure_future(streams.settled(seq, within_s=PATIENCE_S))
        await guard.facts()
        clock.advance(us=7)
        guard.applied(seq)
        await asyncio.sleep(0.01)
        assert not settling.done()
        clock.advance(us=5)
        slow.applied(seq, ago=2)
        settled = await settling
        assert [stream.applied_at(seq) for stream in settled] == [clock() - 5, clock() - 2]


async def test_the_wait_for_a_silent_guard_ends_at_its_timeout(world: World, resource: Resource) -> None:
    async with listening(world, resource) as guard:
        message = await guard.hear()
        [stream] = await world.get_singleton(Streams).settled(message.seq, within_s=0.01)
        assert stream.applied_at(message.seq) is None


async def test_a_guard_that_the_change_does_not_concern_is_not_waited_for(
    world: World, resource: Resource, agent: Agent
) -> None:
    await create_holding(world, agent, "theirs", audience="https://elsewhere.example.org")
    async with listening(world, resource) as guard:
        message = await guard.hear()
        guard.applied(message.seq)
        await end_holdings(world, Root.HOLDING, "theirs")
        seq = outbox.highest_number(world.db.read())
        [stream] = await world.get_singleton(Streams).settled(seq, within_s=PATIENCE_S)
        assert stream.applied_at(seq) is not None


async def test_only_the_guard_of_a_stream_can_confirm_messages_of_the_stream(world: World, resource: Resource) -> None:
    streams = world.get_singleton(Streams)
    async with listening(world, resource) as guard:
        await guard.hear()
        with pytest.raises(NotFound):
            streams.note_applied("rs_other", NUMBER, 1, ago=0)
        with pytest.raises(NotFound):
            streams.note_applied(resource.resource_id, "no-such-stream", 1, ago=0)
        streams.note_applied(resource.resource_id, NUMBER, 10_000, ago=0)
        assert streams.connected[0].applied[-1][0] == streams.position, "nobody is ahead of us"


@pytest.mark.parametrize(
    ("late", "filled", "trouble"),
    [
        (MAX_UNREPORTED_S * SECOND, HALF - 1, []),
        (MAX_UNREPORTED_S * SECOND + 1, 0, ["records of `files` have waited for 60 s"]),
        (0, HALF, ["50 % of the spool of `files` is full"]),
        (MAX_UNREPORTED_S * SECOND + 1, HALF, ["50 % of the spool of `files` is full"]),
    ],
)
async def test_a_guard_that_cannot_deliver_its_records_is_reported(
    world: World, resource: Resource, late: int, filled: int, trouble: list[str]
) -> None:
    streams = world.get_singleton(Streams)
    async with listening(world, resource) as guard:
        await guard.hear()
        streams.note_records(NUMBER, late=late, filled=filled)
        assert streams.troubles() == trouble


@pytest.mark.parametrize(("waiting", "is_named"), [(MAX_WAITING // 2 - 1, False), (MAX_WAITING // 2, True)])
async def test_a_guard_with_too_many_waiting_messages_is_reported(
    world: World, resource: Resource, waiting: int, is_named: bool
) -> None:
    streams = world.get_singleton(Streams)
    async with listening(world, resource) as guard:
        await guard.hear()
        [stream] = streams.connected
        for _ in range(waiting):
            stream.put(b"{}\n")
        assert streams.troubles() == ([f"{waiting} messages wait for `files`"] if is_named else [])
