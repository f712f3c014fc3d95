"""Streams of signals (SSF 1.0, RFC 8936): their receivers, their signals, and the delivery to a receiver that polls."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from harness.clock import Clock
from harness.patience import PATIENCE_S, eventually_async
from harness.registry_fixtures import ADMIN, SECOND, agent_caller, new_jwk, newest_entry, register_agent, run_act
from ostiary.protocol.errors import Refused
from ostiary.provenance.noticing import Noticed
from ostiaryd.ground.crypto.keyring import RootKey
from ostiaryd.ground.database import Tx
from ostiaryd.ground.http.edge import Call, status_of
from ostiaryd.ground.outbound import outbox
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as log
from ostiaryd.ledger.model import decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.signals import wire_ssf, wire_ssf_poll
from ostiaryd.signals.flows import delivery, signals, streams
from ostiaryd.signals.flows.streams import TooSoon
from ostiaryd.signals.model.sets import PUSH, VERIFICATION
from ostiaryd.signals.model.streams import (
    KEPT,
    MAX_OF_RECEIVER,
    MAX_REMOVED,
    MIN_VERIFICATION_S,
    MOST_AT_ONCE,
    about_stream,
)
from ostiaryd.signals.wire_admin.streams import verify_stream
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec, TaskState
from ostiaryd.watch import flows as watch
from tests.support.signal_receiver import CREDENTIAL, RISK, SESSION, SignalReceiver, events, signal_receiver

STREAMS = "/api/v1/ssf/streams"
ISSUER = "https://ostiary.example.org"


async def stop(world: World, name: str, verb: Verb = Verb.QUARANTINE) -> None:
    await run_act(world, lambda a: registry.set_agent_state(a, name, verb, why="it copied records"), f"agent.{verb}")


# -------------------------------------------------------------------------------------------------- Sent signals


async def test_a_stop_of_an_agent_is_sent_in_the_form_of_the_specification(world: World, clock: Clock) -> None:
    siem, bot = await signal_receiver(world), await register_agent(world)
    stream = await siem.stream()
    clock.advance(1)
    await stop(world, "bot")
    ((id, told),) = (await siem.poll(stream)).items()
    assert told["sub_id"] == {"format": "iss_sub", "iss": ISSUER, "sub": bot.agent_id}
    event = told["events"][SESSION]
    assert event["event_timestamp"] == told["iat"] == world.now() // SECOND
    assert (
        event["reason_admin"]["en"]
        == "all holdings of the agent have ended; the agent is quarantined (agent.quarantine)"
    )
    assert "copied" not in str(told), "what a person wrote as the reason is nobody else's"
    body = log.get_entry_body(world.db.read(), int(told["txn"]))
    assert body is not None
    assert decode_entry(body).object == bot.agent_id, "the entry of the act is named"
    assert await siem.poll(stream) == {id: told}, "it says the same until it is acknowledged"


async def test_every_kind_of_stop_is_sent_and_no_release_is(world: World, clock: Clock) -> None:
    siem = await signal_receiver(world)
    await register_agent(world)
    stream = await siem.stream()
    for verb, heard in ((Verb.SUSPEND, 1), (Verb.RESUME, 0), (Verb.QUARANTINE, 1), (Verb.RELEASE, 0), (Verb.REVOKE, 1)):
        clock.advance(1)
        await stop(world, "bot", verb)
        told = await siem.poll(stream)
        assert events(told) == ["session-revoked"] * heard, verb
        await siem.poll(stream, ack=list(told))


async def test_a_change_of_segment_that_ends_tokens_is_sent_although_the_agent_stays_active(
    world: World, clock: Clock
) -> None:
    siem = await signal_receiver(world)
    await register_agent(world)
    stream = await siem.stream()
    clock.advance(1)
    await run_act(world, lambda a: registry.set_segment(a, "bot", "lab"), "agent.change")
    (told,) = (await siem.poll(stream)).values()
    assert "the agent is active (agent.change)" in told["events"][SESSION]["reason_admin"]["en"]


async def test_a_revoked_key_is_sent_as_a_credential_change(world: World, clock: Clock) -> None:
    siem, bot = await signal_receiver(world), await register_agent(world)
    stream = await siem.stream()
    clock.advance(1)
    key = await run_act(world, lambda a: registry.add_key(a, "bot", new_jwk()))
    await run_act(world, lambda a: registry.revoke_key(a, key.jkt), "key.revoke")
    (told,) = (await siem.poll(stream)).values()
    event = told["events"][CREDENTIAL]
    assert told["sub_id"]["sub"] == bot.agent_id
    assert (event["credential_type"], event["change_type"], event["friendly_name"]) == ("jwk", "revoke", key.jkt)
    assert event["reason_admin"]["en"]


async def test_a_task_that_another_party_ends_is_sent_as_a_session_and_the_agents_own_end_is_not(
    world: World, clock: Clock
) -> None:
    siem, bot = await signal_receiver(world), await register_agent(world)
    stream = await siem.stream()
    first, second = [
        (await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to pay the rent")))).task_id
        for _ in range(2)
    ]
    clock.advance(1)

    def end_it(act: Any) -> None:
        registry.record_caller(act, agent_caller(bot))
        tasks.end(act, second, TaskState.CANCELLED, by=agent_caller(bot))

    await run_act(world, end_it, "task.end")
    clock.advance(1)
    await run_act(world, lambda a: tasks.revoke(a, tasks.RevokedKind.TASK, first), "task.revoke")
    (told,) = (await siem.poll(stream)).values()
    assert told["sub_id"] == {
        "format": "complex",
        "user": {"format": "iss_sub", "iss": ISSUER, "sub": bot.agent_id},
        "session": {"format": "opaque", "id": first},
    }


async def test_an_agent_cannot_flood_receivers_with_its_own_tasks(world: World, clock: Clock) -> None:
    siem, bot = await signal_receiver(world), await register_agent(world)
    stream = await siem.stream()
    for _ in range(signals.AT_ONCE + 5):
        clock.advance(us=1)
        task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to make noise")))
        await run_act(world, lambda a, id=task.task_id: _end_own(a, id, bot), "task.end")  # type: ignore[misc]
    assert await signals.make_signals(world) == 0
    await stop(world, "bot")
    assert events(await siem.poll(stream)) == ["session-revoked"]


def _end_own(act: Any, id: str, bot: Any) -> None:
    registry.record_caller(act, agent_caller(bot))
    tasks.end(act, id, TaskState.CANCELLED, by=agent_caller(bot))


async def test_a_risk_level_is_sent_when_it_rises_and_when_it_falls(world: World, clock: Clock) -> None:
    siem, bot = await signal_receiver(world), await register_agent(world)
    stream = await siem.stream()

    async def notice(points: int) -> None:
        clock.advance(1)
        noticed = Noticed(detector="test", points=points, says="it did what it never did")
        await run_act(
            world, lambda a: watch.record_finding(a, noticed, agent=bot.agent_id, task=None, entries=()), "watch.find"
        )
        await signals.make_signals(world)

    for points in (29, 1, 20, 60, 30):  # 29, 29.7, 43, 77, 84
        await notice(points)
    told = [one["events"][RISK] for one in (await siem.poll(stream)).values()]
    assert [(one["previous_level"], one["current_level"]) for one in told] == [("LOW", "MEDIUM"), ("MEDIUM", "HIGH")]
    assert {one["principal"] for one in told} == {"AGENT"}
    await siem.poll(stream, ack=list(await siem.poll(stream)))
    assert await signals.send_lower_levels(world) == 0
    clock.advance(1800)
    assert (await signals.send_lower_levels(world), await signals.send_lower_levels(world)) == (1, 0)
    clock.advance(3600)
    assert await signals.send_lower_levels(world) == 1
    told = [one["events"][RISK] for one in (await siem.poll(stream)).values()]
    assert [(one["previous_level"], one["current_level"]) for one in told] == [("HIGH", "MEDIUM"), ("MEDIUM", "LOW")]


async def test_a_stop_by_the_kill_switch_is_one_signal(world: World, clock: Clock) -> None:
    siem, bot = await signal_receiver(world, segment="watchers"), await register_agent(world)
    task = (await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to pay the rent")))).task_id
    stream = await siem.stream()
    for what, value in (
        ("owner", bot.owner),
        ("segment", "default"),
        ("model", "m-1"),
        ("resource", "https://x.example"),
        ("everything", ""),
        ("task", task),
        ("task", "tk_nobody"),
    ):
        clock.advance(1)
        await run_act(world, lambda a, w=what, v=value: registry.stop(a, w, v, why="drill", by=None), "kill.start")  # type: ignore[misc]
    clock.advance(1)
    await run_act(world, lambda a: registry.lift_stop(a, "everything", ""), "kill.end")
    told = [one["sub_id"] for one in (await siem.poll(stream)).values()]
    everybody = {"format": "complex", "tenant": {"format": "opaque", "id": "example.org"}}
    assert told == [
        {"format": "iss_sub", "iss": ISSUER, "sub": bot.owner},
        everybody | {"group": {"format": "opaque", "id": "segment:default"}},
        everybody | {"group": {"format": "opaque", "id": "model:m-1"}},
        everybody | {"application": {"format": "uri", "uri": "https://x.example"}},
        everybody,
        {
            "format": "complex",
            "user": {"format": "iss_sub", "iss": ISSUER, "sub": bot.agent_id},
            "session": {"format": "opaque", "id": task},
        },
    ]


async def test_a_stream_gets_its_requested_events_from_its_creation_on(world: World, clock: Clock) -> None:
    siem = await signal_receiver(world)
    bot = await register_agent(world)
    await stop(world, "bot")
    clock.advance(1)
    assert await siem.poll(await siem.stream()) == {}
    stream = await siem.stream(events_requested=[CREDENTIAL, "urn:example:unknown"])
    assert stream["events_delivered"] == [CREDENTIAL]
    assert stream["events_requested"] == [CREDENTIAL, "urn:example:unknown"]
    assert set(stream["events_delivered"]) <= set(stream["events_supported"])
    await run_act(world, lambda a: registry.revoke_agent(a, bot.agent_id), "agent.revoke")
    assert await siem.poll(stream) == {}, "neither what was before, nor what it did not ask for"


async def test_without_a_stream_no_signal_is_stored(world: World) -> None:
    await register_agent(world)
    await stop(world, "bot")
    assert await signals.make_signals(world) == 0
    assert outbox.messages_after(world.db.read(), "signal", 0) == []


async def test_two_servers_on_one_database_make_one_signal_of_one_change(world: World, clock: Clock) -> None:
    siem = await signal_receiver(world)
    await register_agent(world)
    stream = await siem.stream()
    await stop(world, "bot")
    config = world.config
    first = await world.writer.submit(lambda tx: signals.make_some_signals(tx, config))
    second = await world.writer.submit(lambda tx: signals.make_some_signals(tx, config))
    assert (first[1], second) == (1, (0, 0))
    assert len(await siem.poll(stream)) == 1


# ------------------------------------------------------------------------------------------------- Receivers of streams


async def test_only_the_receiver_of_a_stream_can_use_the_stream(world: World) -> None:
    siem, other = await signal_receiver(world), await signal_receiver(world, "other")
    stream = await siem.stream()
    id = stream["stream_id"]
    assert (await other.ask("GET", f"{STREAMS}?stream_id={id}"))[0] == 404
    assert await other.ask("GET", STREAMS) == (200, [])
    assert (await other.ask("PATCH", STREAMS, {"stream_id": id, "description": "mine"}))[0] == 404
    assert (await other.ask("PUT", STREAMS, {"stream_id": id, "description": "mine"}))[0] == 404
    assert (await other.ask("DELETE", f"{STREAMS}?stream_id={id}"))[0] == 404
    assert (await other.ask("GET", f"/api/v1/ssf/status?stream_id={id}"))[0] == 404
    assert (await other.ask("POST", "/api/v1/ssf/status", {"stream_id": id, "status": "disabled"}))[0] == 404
    assert (await other.ask("POST", "/api/v1/ssf/verify", {"stream_id": id}))[0] == 404
    subject = {"format": "email", "email": "ada@example.org"}
    for verb in ("add", "remove"):
        body = {"stream_id": id, "subject": subject}
        assert (await other.ask("POST", f"/api/v1/ssf/subjects/{verb}", body))[0] == 404
    assert (await other.ask("POST", f"/api/v1/ssf/poll/{id}", {}))[0] == 404
    assert await siem.ask("GET", STREAMS) == (200, [stream])
    assert await siem.ask("GET", f"{STREAMS}?stream_id={id}") == (200, stream)
    assert newest_entry(world).outcome == "refused", "who tried is on record"


async def test_the_number_of_streams_is_limited(world: World) -> None:
    siem = await signal_receiver(world)
    made = [await siem.stream() for _ in range(MAX_OF_RECEIVER)]
    status, said = await siem.ask("POST", STREAMS, {})
    assert (status, said["error"]) == (409, "too_many_streams")
    assert said["message"] == f"the receiver has {MAX_OF_RECEIVER} streams, which is the limit"
    assert (await siem.ask("DELETE", f"{STREAMS}?stream_id={made[0]['stream_id']}")) == (204, None)
    await siem.stream()


async def test_the_number_of_streams_of_all_receivers_is_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 2)
    one, other = await signal_receiver(world), await signal_receiver(world, "other")
    await one.stream()
    await other.stream()
    status, said = await other.ask("POST", STREAMS, {})
    assert (status, said["message"]) == (409, "the server has 2 streams to receivers, which is the limit")


async def test_a_configuration_is_updated_by_patch_and_replaced_by_put(world: World) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream(events_requested=[SESSION], description="for the siem")
    id = {"stream_id": stream["stream_id"]}
    status, changed = await siem.ask("PATCH", STREAMS, id | {"events_requested": [RISK]})
    assert (status, changed["events_delivered"], changed["description"]) == (200, [RISK], "for the siem")
    status, put = await siem.ask("PUT", STREAMS, changed | {"events_requested": [SESSION]})
    assert (status, put["events_delivered"], put["description"]) == (200, [SESSION], "for the siem"), "as it was read"
    status, put = await siem.ask("PUT", STREAMS, id)
    assert (status, put["events_delivered"]) == (200, put["events_supported"])
    assert "description" not in put
    assert "events_requested" not in put


async def test_a_wrong_configuration_is_refused_without_a_change(world: World) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream()
    cases: list[dict[str, Any]] = [
        {"iss": "https://evil.example"},
        {"aud": "somebody"},
        {"events_delivered": [RISK]},
        {"events_supported": []},
        {"min_verification_interval": 1},
        {"delivery": {"method": "urn:example:pigeon"}},
        {"delivery": {}},
        {"delivery": {"method": PUSH}},
        {"events_requested": ["x"] * 65},
        {"events_requested": [""]},
        {"delivery": {"method": PUSH, "endpoint_url": "http://receiver.example/x"}},
        {"delivery": {"method": PUSH, "endpoint_url": "https://a.example", "authorization_header": "\n"}},
        {"description": 7},
    ]
    for wrong in cases:
        for method in ("PATCH", "PUT"):
            status, _ = await siem.ask(method, STREAMS, {"stream_id": stream["stream_id"]} | wrong)
            assert status == 400, wrong
        assert (await siem.ask("PATCH", STREAMS, wrong))[0] == 400, "and which stream it is has to be said"
        assert await siem.ask("GET", STREAMS) == (200, [stream]), wrong


async def test_the_header_of_a_receiver_is_sealed_and_never_shown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    siem = await signal_receiver(world)
    secret, shown = "Bearer swordfish", {"method": PUSH, "endpoint_url": "https://r.example/x?k=1"}
    stream = await siem.stream(delivery=shown | {"authorization_header": secret})
    assert stream["delivery"] == shown
    kept = streams.find(world.db.read(), stream["stream_id"], by=None)
    assert kept.sealed is not None
    assert b"swordfish" not in kept.sealed
    monkeypatch.setattr(world.keys, "root", RootKey(b"n" * 32, source="test"))
    assert streams.open_header(kept, world.keys) == secret, "also after the root key was replaced"
    entry = newest_entry(world)
    assert "swordfish" not in str(entry)
    assert "k=1" not in str(entry)


# --------------------------------------------------------------------------------------- Status, subjects, verification


async def status(siem: SignalReceiver, stream: dict[str, Any], to: str, **more: str) -> dict[str, Any]:
    code, said = await siem.ask("POST", "/api/v1/ssf/status", {"stream_id": stream["stream_id"], "status": to} | more)
    assert code == 200
    assert await siem.ask("GET", f"/api/v1/ssf/status?stream_id={stream['stream_id']}") == (200, said)
    return dict(said)


async def test_a_paused_stream_keeps_its_signals_and_a_disabled_stream_drops_them(world: World, clock: Clock) -> None:
    siem = await signal_receiver(world)
    for name in ("one", "two", "three"):
        await register_agent(world, name)
    stream = await siem.stream()
    said = await status(siem, stream, "paused", reason="we are moving")
    assert said == {"stream_id": stream["stream_id"], "status": "paused", "reason": "we are moving"}
    await stop(world, "one")
    assert await siem.poll(stream) == {}
    await status(siem, stream, "enabled")
    held = await siem.poll(stream)
    assert len(held) == 1
    await siem.poll(stream, ack=list(held))
    await status(siem, stream, "disabled")
    clock.advance(1)
    await stop(world, "two")
    assert await siem.poll(stream) == {}
    await status(siem, stream, "enabled")
    assert await siem.poll(stream) == {}
    clock.advance(1)
    await stop(world, "three")
    assert len(await siem.poll(stream)) == 1


@pytest.mark.parametrize("is_administrator", [False, True])
async def test_signals_of_the_time_while_a_stream_was_disabled_are_dropped_if_it_is_paused_before_it_is_enabled(
    world: World, clock: Clock, is_administrator: bool
) -> None:
    siem = await signal_receiver(world)
    for name in ("one", "two"):
        await register_agent(world, name)
    stream = await siem.stream()

    async def set_status(to: Literal["enabled", "paused", "disabled"]) -> None:
        if is_administrator:
            await run_act(world, lambda a: streams.set_status(a, stream["stream_id"], to, reason="", by=None))
        else:
            await status(siem, stream, to)

    async def stopped() -> int:
        return events(await siem.poll(stream)).count("session-revoked")

    await set_status("disabled")
    await stop(world, "one")
    assert await stopped() == 0
    clock.advance(1)
    await set_status("paused")
    await stop(world, "two")
    assert await stopped() == 0
    await set_status("enabled")
    assert await stopped() == 1, "the signal of the pause"


@pytest.mark.parametrize("to", ["paused", "disabled"])
async def test_the_receiver_gets_an_event_when_an_administrator_stops_or_resumes_its_stream(
    world: World, to: Any
) -> None:
    siem = await signal_receiver(world)
    await register_agent(world)
    stream = await siem.stream()
    id = stream["stream_id"]
    await run_act(world, lambda a: streams.set_status(a, id, to, reason="it is late", by=None))
    await stop(world, "bot")
    told = await siem.poll(stream)
    ((one,),) = [list(told.values())]
    uri = "https://schemas.openid.net/secevent/ssf/event-type/stream-updated"
    assert one["events"] == {uri: {"status": to, "reason": "it is late"}}
    assert one["sub_id"] == {"format": "opaque", "id": id}
    assert await siem.poll(stream, ack=list(told)) == {}
    await run_act(world, lambda a: streams.set_status(a, id, "enabled", reason="", by=None))
    heard = events(await siem.poll(stream))
    assert heard == (["session-revoked", "stream-updated"] if to == "paused" else ["stream-updated"])


async def test_no_signal_about_a_removed_subject_is_sent_until_it_is_added_again(world: World, clock: Clock) -> None:
    siem, bot = await signal_receiver(world), await register_agent(world)
    other = await register_agent(world, "other")
    stream = await siem.stream()
    subject = {"format": "iss_sub", "iss": ISSUER, "sub": bot.agent_id}
    body = {"stream_id": stream["stream_id"], "subject": subject}
    assert await siem.ask("POST", "/api/v1/ssf/subjects/remove", body) == (204, None)
    assert (await siem.ask("POST", "/api/v1/ssf/subjects/remove", body))[0] == 204
    task = await run_act(world, lambda a: tasks.start(a, TaskSpec(agent="bot", purpose="to pay the rent")))
    clock.advance(1)
    await run_act(world, lambda a: tasks.revoke(a, tasks.RevokedKind.TASK, task.task_id), "task.revoke")
    assert await siem.poll(stream) == {}
    await stop(world, "bot")
    await stop(world, "other")
    (told,) = (await siem.poll(stream)).values()
    assert told["sub_id"]["sub"] == other.agent_id
    assert await siem.ask("POST", "/api/v1/ssf/subjects/add", body) == (200, None)
    assert len(await siem.poll(stream)) == 3, "what is not settled is looked at again"


async def test_the_number_of_removed_subjects_is_limited(world: World) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream()
    id = stream["stream_id"]

    def fill(act: Any) -> None:
        for number in range(MAX_REMOVED - 1):
            streams.remove_subject(act, id, {"format": "opaque", "id": str(number)}, by=siem.by)

    await run_act(world, fill)
    body = {"stream_id": id, "subject": {"format": "opaque", "id": "x"}}
    assert (await siem.ask("POST", "/api/v1/ssf/subjects/remove", body))[0] == 204
    body = {"stream_id": id, "subject": {"format": "opaque", "id": "y"}}
    assert (await siem.ask("POST", "/api/v1/ssf/subjects/remove", body))[0] == 409
    for wrong in ({}, {"format": "email"}, {"format": 1}, {"format": "complex"}):
        assert (await siem.ask("POST", "/api/v1/ssf/subjects/remove", {"stream_id": id, "subject": wrong}))[0] == 400
    assert (await siem.ask("POST", "/api/v1/ssf/subjects/remove", {"stream_id": id, "subject": "x"}))[0] == 400


async def test_a_verification_event_has_the_requested_state(world: World, clock: Clock) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream(events_requested=[SESSION])
    body = {"stream_id": stream["stream_id"], "state": "VGhpcyBpcyBhIHN0YXRl"}
    assert await siem.ask("POST", "/api/v1/ssf/verify", body) == (204, None)
    (told,) = (await siem.poll(stream)).values()
    uri = "https://schemas.openid.net/secevent/ssf/event-type/verification"
    assert told["events"] == {uri: {"state": "VGhpcyBpcyBhIHN0YXRl"}}
    assert told["sub_id"] == {"format": "opaque", "id": stream["stream_id"]}
    clock.advance(MIN_VERIFICATION_S, us=-1)
    assert (await siem.ask("POST", "/api/v1/ssf/verify", body))[0] == 429
    clock.advance(us=1)
    assert (await siem.ask("POST", "/api/v1/ssf/verify", {"stream_id": stream["stream_id"]}))[0] == 204
    assert [one["events"][uri] for one in (await siem.poll(stream)).values()][1] == {}
    for length, code in ((1000, 429), (1001, 400)):
        assert (await siem.ask("POST", "/api/v1/ssf/verify", body | {"state": "x" * length}))[0] == code


async def test_an_administrator_requests_a_verification_at_most_once_a_minute(world: World, clock: Clock) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream(events_requested=[SESSION])

    async def verify(id: str) -> int:
        path = "/api/v1/streams/{id}/verify"
        try:
            return (await verify_stream(Call(world, "POST", path, {"id": id}, "", [], b"", "rq_1", ADMIN))).status
        except Refused as refusal:
            return status_of(refusal)

    assert await verify(stream["stream_id"]) == 200
    assert newest_entry(world).action == "stream.verify"
    assert [list(one["events"]) for one in (await siem.poll(stream)).values()] == [[VERIFICATION]]
    clock.advance(MIN_VERIFICATION_S, us=-1)
    assert await verify(stream["stream_id"]) == 409
    clock.advance(us=1)
    assert await verify(stream["stream_id"]) == 200
    assert await verify("st_none") == 404


def test_a_verification_that_is_too_soon_is_refused_with_the_waiting_time() -> None:
    assert (b"retry-after", b"60") in wire_ssf.render(
        TooSoon("a stream can be verified at most once in 60 seconds")
    ).headers


async def test_a_verification_of_one_stream_does_not_reach_another_stream(world: World) -> None:
    siem = await signal_receiver(world)
    one, two = await siem.stream(), await siem.stream()
    await siem.ask("POST", "/api/v1/ssf/verify", {"stream_id": one["stream_id"]})
    assert (len(await siem.poll(one)), len(await siem.poll(two))) == (1, 0)


# ----------------------------------------------------------------------------------------------------- Delivery by poll


async def noise(world: World, stream: dict[str, Any], count: int) -> None:
    """Store `count` signals for this stream."""

    def send(tx: Tx) -> None:
        for number in range(count):
            signals.queue_signal(tx, about_stream(stream["stream_id"], VERIFICATION, {"state": str(number)}))

    await world.writer.submit(send)


def states(told: dict[str, Any]) -> list[str]:
    return [one["events"][VERIFICATION]["state"] for one in told.values()]


async def test_only_unacknowledged_signals_are_sent_again(world: World) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream()
    await noise(world, stream, 5)
    first = list(await siem.poll(stream, maxEvents=3))
    assert list(await siem.poll(stream, maxEvents=3)) == first
    assert states(await siem.poll(stream, ack=[first[1]])) == ["0", "2", "3", "4"], "in any order"
    kept = streams.find(world.db.read(), stream["stream_id"], by=None)
    assert len(kept.beyond) == 1
    odd = [first[0], first[0], "x.1", "1", first[0] + "0", "." + "9" * 30]
    assert states(await siem.poll(stream, ack=odd)) == ["2", "3", "4"]
    kept = streams.find(world.db.read(), stream["stream_id"], by=None)
    assert (kept.beyond, kept.delivered) == ((), 2)
    assert await siem.poll(stream, ack=list(await siem.poll(stream))) == {}
    assert streams.find(world.db.read(), stream["stream_id"], by=None).delivered == 5


async def test_an_acknowledgement_counts_only_for_sent_signals_of_the_own_stream(world: World) -> None:
    siem = await signal_receiver(world)
    one, two = await siem.stream(), await siem.stream()
    await register_agent(world)
    await stop(world, "bot")
    (both,) = await siem.poll(one)
    assert len(await siem.poll(two, ack=[both])) == 1, "the same signal, told to the other"
    for stream in (one, two):
        await siem.poll(stream, ack=list(await siem.poll(stream)))
    await noise(world, one, 1)
    (id,) = await siem.poll(one)
    await noise(world, two, 1)
    await siem.poll(two, ack=[id, id.replace(one["stream_id"][3:], two["stream_id"][3:])])
    assert (len(await siem.poll(one)), len(await siem.poll(two))) == (1, 1)
    ahead = f"{two['stream_id'][3:]}.{outbox.highest_number(world.db.read()) + 1}"
    await siem.poll(two, ack=[ahead])
    await noise(world, two, 1)
    assert len(await siem.poll(two)) == 2, "what will come is not acknowledged before"


async def test_a_poll_returns_a_limited_number_and_states_that_more_are_available(world: World) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream()
    await noise(world, stream, MOST_AT_ONCE + 1)
    path = f"/api/v1/ssf/poll/{stream['stream_id']}"
    for asked, count, more in ((None, MOST_AT_ONCE, True), (1000, MOST_AT_ONCE, True), (2, 2, True), (0, 0, True)):
        said = {"returnImmediately": True} | ({} if asked is None else {"maxEvents": asked})
        _, answer = await siem.ask("POST", path, said)
        assert (len(answer["sets"]), answer.get("moreAvailable", False)) == (count, more), asked
    first = list(await siem.poll(stream, maxEvents=1))
    _, answer = await siem.ask("POST", path, {"returnImmediately": True, "ack": first})
    assert (len(answer["sets"]), "moreAvailable" in answer) == (MOST_AT_ONCE, False)


async def test_a_receiver_that_never_acknowledges_the_oldest_gets_at_most_the_window(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "WINDOW", 20)
    siem = await signal_receiver(world)
    stream = await siem.stream()
    await noise(world, stream, 20 + 2)
    (oldest,) = await siem.poll(stream, maxEvents=1)
    seen = 0
    while told := [id for id in await siem.poll(stream) if id != oldest]:
        seen += len(told)
        await siem.poll(stream, maxEvents=0, ack=told)
    assert seen == 20 - 1
    assert len(await siem.poll(stream, ack=[oldest])) == 2


async def test_a_signal_that_a_receiver_reports_as_wrong_is_recorded_and_not_sent_again(world: World) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream()
    await noise(world, stream, 2)
    first, _ = await siem.poll(stream)
    errors = {first: {"err": "invalid_key", "description": "we do not know it"}, "other": {"err": "invalid_request"}}
    assert states(await siem.poll(stream, setErrs=errors)) == ["1"]
    entry = newest_entry(world)
    assert (entry.action, entry.agent) == ("stream.refused", siem.agent.agent_id)
    assert entry.detail is not None
    assert list(entry.detail["refused"].values()) == ["invalid_key: we do not know it"]
    kept = streams.find(world.db.read(), stream["stream_id"], by=None)
    assert (kept.lost, kept.failed) == (1, "invalid_key: we do not know it")


async def test_a_malformed_poll_is_refused(world: World) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream()
    cases: list[Any] = [
        {"maxEvents": -1},
        {"maxEvents": "1"},
        {"ack": "x"},
        {"ack": ["x"] * 1001},
        {"setErrs": {"x": "y"}},
        [],
    ]
    for wrong in cases:
        assert (await siem.ask("POST", f"/api/v1/ssf/poll/{stream['stream_id']}", wrong))[0] == 400, wrong


async def test_a_pushed_stream_is_not_polled(world: World) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream(delivery={"method": PUSH, "endpoint_url": "https://receiver.example/"})
    assert (await siem.ask("POST", f"/api/v1/ssf/poll/{stream['stream_id']}", {}))[0] == 403


async def test_a_long_poll_is_answered_when_a_signal_arrives(world: World) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream()
    waiting = asyncio.create_task(siem.poll(stream, returnImmediately=False))
    await eventually_async(lambda: world.get_singleton(wire_ssf_poll.Waiting).count == 1)
    await noise(world, stream, 1)
    assert states(await waiting) == ["0"]
    assert world.get_singleton(wire_ssf_poll.Waiting).count == 0


async def test_a_receiver_that_is_stopped_during_a_long_poll_gets_no_signal(world: World) -> None:
    siem, other = await signal_receiver(world), await register_agent(world)
    stream = await siem.stream()
    path = stream["delivery"]["endpoint_url"].removeprefix(world.config.public_url)
    held = asyncio.create_task(siem.ask("POST", path, {"returnImmediately": False}))
    await eventually_async(lambda: world.get_singleton(wire_ssf_poll.Waiting).count == 1)
    await stop(world, siem.agent.name)
    await stop(world, other.name)
    await signals.make_signals(world)
    status, answer = await held
    assert (status, answer["error"]) == (403, "agent_quarantined")


async def test_the_number_of_long_polls_is_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_ssf_poll, "WAIT_S", 1e6)
    siem = await signal_receiver(world)
    stream = await siem.stream()
    world.get_singleton(wire_ssf_poll.Waiting).count = wire_ssf_poll.MAX_WAITING
    async with asyncio.timeout(PATIENCE_S):
        assert await siem.poll(stream, returnImmediately=False) == {}, "it does not wait"
    world.get_singleton(wire_ssf_poll.Waiting).count -= 1
    waiting = asyncio.create_task(siem.poll(stream, returnImmediately=False))
    await eventually_async(lambda: world.get_singleton(wire_ssf_poll.Waiting).count == wire_ssf_poll.MAX_WAITING)
    await noise(world, stream, 1)
    assert states(await waiting) == ["0"], "it waited"


async def test_a_long_poll_of_a_deleted_stream_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_ssf_poll, "WAIT_S", 1e6)
    siem = await signal_receiver(world)
    stream = await siem.stream()
    waiting = asyncio.create_task(siem.poll(stream, returnImmediately=False))
    await eventually_async(lambda: world.get_singleton(wire_ssf_poll.Waiting).count == 1)
    await siem.ask("DELETE", f"{STREAMS}?stream_id={stream['stream_id']}")
    assert await asyncio.wait_for(waiting, PATIENCE_S) == {}


async def test_a_signal_that_is_never_fetched_is_deleted_in_the_end(world: World, clock: Clock) -> None:
    siem = await signal_receiver(world)
    stream = await siem.stream()
    await noise(world, stream, 1)
    clock.advance(us=KEPT)
    await noise(world, stream, 1)
    await signals.delete_old_signals(world)
    assert len(await siem.poll(stream)) == 2
    clock.advance(us=1)
    await signals.delete_old_signals(world)
    assert len(await siem.poll(stream)) == 1


async def test_the_search_for_signals_begins_after_signals_of_other_streams(world: World) -> None:
    siem = await signal_receiver(world)
    one, two = await siem.stream(), await siem.stream()
    await noise(world, two, delivery.PASSED)
    await siem.poll(one)
    before = streams.find(world.db.read(), one["stream_id"], by=None).settled_to
    await noise(world, two, 1)
    await siem.poll(one)
    assert streams.find(world.db.read(), one["stream_id"], by=None).settled_to > before
    await noise(world, one, 1)
    assert len(await siem.poll(one)) == 1


# ------------------------------------------------------------------------------------------------------------ Metadata


async def test_the_metadata_have_what_the_interoperability_profile_requires(world: World) -> None:
    siem = await signal_receiver(world)
    status, said = await siem.ask("GET", "/.well-known/ssf-configuration")
    assert (status, said["issuer"], said["spec_version"]) == (200, ISSUER, "1_0")
    assert said["jwks_uri"] == f"{ISSUER}/jwks"
    assert said["delivery_methods_supported"] == ["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"]
    assert {"spec_urn": "urn:ietf:rfc:6749"} in said["authorization_schemes"]
    assert [value for value in said.values() if value in ([], "", None)] == [], "what is empty is left out"
    assert (await siem.ask("GET", "/.well-known/ssf-configuration/elsewhere"))[0] == 404
    paths = {route.path for route in (*wire_ssf.ROUTES, *wire_ssf_poll.ROUTES)}
    named = {url.removeprefix(ISSUER) for name, url in said.items() if name.endswith("_endpoint")}
    assert len(named) == 5
    assert named <= paths
