"""Signals delivered by push (RFC 8935): in order, repeated until they are accepted, and only to receivers with the
right to get them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from harness.clock import Clock
from harness.patience import eventually_async
from harness.registry_fixtures import newest_entry, register_agent, run_act
from ostiaryd.ground.world import World
from ostiaryd.notifications.model.webhooks import DELAYS_S, REJECTED_TRIES, STALLED_S
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import SSF_MANAGE, Verb
from ostiaryd.signals import wire_ssf_push
from ostiaryd.signals.flows import delivery, signals, streams
from ostiaryd.signals.model.sets import PUSH
from ostiaryd.signals.model.streams import Stream
from tests.support.signal_receiver import SignalReceiver, events, read, signal_receiver
from tests.support.webhook_receiver import Receiver, receiving

OK = (202, {"content-type": "text/plain"})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving("/events?k=1") as made:
        yield made


@pytest.fixture
def world(world: World) -> World:
    """A world whose configuration permits receivers on this machine."""
    return dataclasses.replace(world, config=msgspec.structs.replace(world.config, private_hosts="127.0.0.1"))


async def pushed(siem: SignalReceiver, url: str, **more: Any) -> dict[str, Any]:
    return await siem.stream(delivery={"method": PUSH, "endpoint_url": url} | more)


async def stop(world: World, name: str) -> None:
    await run_act(world, lambda a: registry.set_agent_state(a, name, Verb.SUSPEND), "agent.suspend")


async def push(world: World) -> None:
    """Run one round of pushes, and wait until all of them have ended."""
    await signals.make_signals(world)
    await wire_ssf_push.push_due(world)
    await asyncio.gather(*world.get_singleton(wire_ssf_push.Pushers).running.values())


def now_of(world: World, stream: dict[str, Any]) -> Stream:
    return streams.find(world.db.read(), stream["stream_id"], by=None)


async def heard(world: World, siem: SignalReceiver, receiver: Receiver) -> dict[str, Any]:
    tokens = [await read(world, body.decode(), audience=siem.agent.agent_id) for _, body in receiver.heard]
    return {str(number): claims for number, claims in enumerate(tokens)}


async def test_a_signal_is_pushed_once_in_the_form_of_the_specification(world: World, receiver: Receiver) -> None:
    siem = await signal_receiver(world)
    await register_agent(world)
    stream = await pushed(siem, receiver.url, authorization_header="Bearer swordfish")
    receiver.answers = [OK]
    await stop(world, "bot")
    await push(world)
    await push(world)
    ((sent, _),) = receiver.heard
    assert (sent["content-type"], sent["accept"]) == ("application/secevent+jwt", "application/json")
    assert sent["authorization"] == "Bearer swordfish"
    assert events(await heard(world, siem, receiver)) == ["session-revoked"]
    assert (now_of(world, stream).delivered, now_of(world, stream).lost) == (1, 0)


async def test_a_stream_without_an_authorization_header_sends_none(world: World, receiver: Receiver) -> None:
    siem = await signal_receiver(world)
    await register_agent(world)
    await pushed(siem, receiver.url)
    await stop(world, "bot")
    await push(world)
    ((sent, _),) = receiver.heard
    assert "authorization" not in sent


async def test_signals_arrive_in_order_and_each_is_repeated_until_it_is_accepted(
    world: World, receiver: Receiver, clock: Clock
) -> None:
    siem = await signal_receiver(world)
    agents = [await register_agent(world, name) for name in ("one", "two")]
    stream = await pushed(siem, receiver.url)
    receiver.answers = [(503, {}), OK, OK]
    for agent in agents:
        clock.advance(1)
        await stop(world, agent.name)
    await push(world)
    assert len(receiver.heard) == 1
    assert now_of(world, stream).failed == "the remote server answers 503"
    await push(world)
    assert len(receiver.heard) == 1, "it is not due"
    clock.advance(DELAYS_S[0] * 1.1)
    await push(world)
    told = list((await heard(world, siem, receiver)).values())
    assert [one["sub_id"]["sub"] for one in told] == [agents[0].agent_id, agents[0].agent_id, agents[1].agent_id]
    assert told[0] == told[1]
    assert now_of(world, stream).delivered == 2


@pytest.mark.parametrize(("code", "tries"), [("invalid_request", REJECTED_TRIES), ("invalid_key", len(DELAYS_S) + 1)])
async def test_a_signal_that_is_never_accepted_is_skipped_with_an_entry(
    world: World, receiver: Receiver, clock: Clock, code: str, tries: int
) -> None:
    siem = await signal_receiver(world)
    for name in ("one", "two"):
        await register_agent(world, name)
    stream = await pushed(siem, receiver.url)
    body = json.dumps({"err": code, "description": "secret words"})
    receiver.answers = [(400, {"x-body": body})] * tries
    await stop(world, "one")
    for _ in range(tries - 1):
        await push(world)
        clock.advance(DELAYS_S[-1] * 1.1)
    assert now_of(world, stream).lost == 0
    clock.advance(1)
    await stop(world, "two")
    await push(world)
    assert (now_of(world, stream).lost, now_of(world, stream).delivered) == (1, 1), "and the next is told"
    assert len(receiver.heard) == tries + 1
    entry = newest_entry(world)
    assert (entry.action, entry.object) == ("stream.give_up", stream["stream_id"])
    assert entry.detail is not None
    assert entry.detail["failed"] == f"the remote server answers 400 {code}", "what else it says is not kept"


async def test_a_receiver_that_never_answers_delays_no_other_receiver(world: World, receiver: Receiver) -> None:
    siem = await signal_receiver(world)
    await register_agent(world)
    with receiving() as other:
        await pushed(siem, receiver.url)
        await pushed(siem, other.url)
        receiver.silence.clear()
        await stop(world, "bot")
        await signals.make_signals(world)
        await wire_ssf_push.push_due(world)
        running = world.get_singleton(wire_ssf_push.Pushers).running
        await asyncio.wait(running.values(), return_when=asyncio.FIRST_COMPLETED)
        assert len(other.heard) == 1
        assert [task.done() for task in running.values()].count(False) == 1
        await eventually_async(lambda: receiver.heard)
        await wire_ssf_push.push_due(world)
        assert len(receiver.heard) == 1, "and it is not called again while it is silent"
        receiver.silence.set()
        await asyncio.gather(*running.values())


async def test_two_servers_on_one_database_push_one_signal_once(world: World, receiver: Receiver) -> None:
    siem = await signal_receiver(world)
    await register_agent(world)
    stream = await pushed(siem, receiver.url)
    await stop(world, "bot")
    await signals.make_signals(world)
    before = now_of(world, stream)
    outcomes = await asyncio.gather(*(wire_ssf_push.push_next(world, before) for _ in range(2)))
    assert sorted(outcomes) == [False, True], "whichever was first"
    assert len(receiver.heard) == 1


async def test_a_receiver_without_its_right_gets_no_further_signal(world: World, receiver: Receiver) -> None:
    siem = await signal_receiver(world)
    await register_agent(world)
    stream = await pushed(siem, receiver.url)
    await run_act(world, lambda a: registry.set_scopes(a, "siem", [SSF_MANAGE]))
    await stop(world, "bot")
    await push(world)
    assert receiver.heard == []
    (trouble,) = delivery.describe_problems(world.db.read(), now=world.now())
    assert "may not get signals" in trouble
    await run_act(world, lambda a: registry.set_scopes(a, "siem", [SSF_MANAGE, "ostiary:ssf.read"]))
    await push(world)
    assert stream["stream_id"]
    assert len(receiver.heard) > 0, "it is held until then"
    receiver.heard.clear()
    await stop(world, "siem")
    await push(world)
    assert receiver.heard == [], "not even that it was stopped itself"


async def test_a_receiver_cannot_direct_pushes_to_private_addresses(world: World, receiver: Receiver) -> None:
    siem = await signal_receiver(world)
    await register_agent(world)
    stream = await pushed(siem, receiver.url.replace("http://127.0.0.1", "https://localhost"))
    await stop(world, "bot")
    await push(world)
    assert receiver.heard == []
    assert now_of(world, stream).failed == "the name localhost leads to an address that is not public"
    status, _ = await siem.ask(
        "POST", "/api/v1/ssf/streams", {"delivery": {"method": PUSH, "endpoint_url": "http://localhost:1/"}}
    )
    assert status == 400


async def test_a_stalled_stream_is_reported(world: World, receiver: Receiver, clock: Clock) -> None:
    siem = await signal_receiver(world)
    await register_agent(world)
    stream = await pushed(siem, receiver.url)
    receiver.answers = [(500, {})]
    await stop(world, "bot")
    await push(world)
    clock.advance(STALLED_S)
    assert delivery.describe_problems(world.db.read(), now=world.now()) == []
    clock.advance(1)
    (trouble,) = delivery.describe_problems(world.db.read(), now=world.now())
    assert trouble == f"{stream['stream_id']}: a signal has waited for {STALLED_S + 1} s: the remote server answers 500"
    await push(world)
    assert delivery.describe_problems(world.db.read(), now=world.now()) == []
