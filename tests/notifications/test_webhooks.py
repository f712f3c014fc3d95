"""Webhooks: signatures, repeated deliveries, and receivers that do not answer."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from standardwebhooks import Webhook as Library

from harness.clock import Clock
from ostiary.protocol.errors import Conflict, Invalid, NotFound, Refused
from ostiaryd import doctor
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as log
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import Entry, decode_entry
from ostiaryd.notifications import flows, wire_webhooks
from ostiaryd.notifications.model.webhooks import (
    DELAYS_S,
    MAX_ACTIONS,
    MAX_BODY,
    MAX_WEBHOOKS,
    REJECTED_TRIES,
    STALLED_S,
    WAITING_LIMIT,
    Outcome,
    Webhook,
    WebhookId,
    after_failed_attempt,
    check_actions,
    headers,
    message,
    message_id,
    secret,
    show_secret,
)
from tests.support.webhook_receiver import Receiver, receiving

SECOND = 1_000_000
ASK = "approval.ask"


async def add(world: World, url: str, *actions: str) -> tuple[Webhook, str]:
    private = world.config.private
    made, key = await act(world, "webhook.add", lambda act: flows.add(act, url=url, actions=actions, private=private))
    return made, show_secret(key)


async def happen(world: World, action: str = ASK, *, outcome: str = "ok", **detail: Any) -> None:
    def flow(act: Act) -> None:
        act.entry.object, act.entry.detail = "ap_1", dict(detail)
        if outcome == "refused":
            raise Refused("no")

    try:
        await act(world, action, flow)
    except Refused:
        assert outcome == "refused"


async def tell(world: World) -> None:
    """Run one round of deliveries, and wait until all of them have ended."""
    await wire_webhooks.deliver_due(world)
    await asyncio.gather(*world.get_singleton(wire_webhooks.RunningDeliveries).running.values())


def now_of(world: World, id: str) -> Webhook:
    return flows.find(world.db.read(), id)


def entries(world: World, action: str) -> list[Entry]:
    return [decode_entry(body) for _, body in log.search_entries(world.db.read(), {"action": action}, limit=100)]


# ---------------------------------------------------------------------------------------- Messages


async def test_a_third_party_library_computes_the_same_signature(world: World, receiver: Receiver) -> None:
    made, shown = await add(world, receiver.url)
    await happen(world, agent_says="hello")
    await tell(world)
    ((sent, body),) = receiver.heard
    at = datetime.fromtimestamp(int(sent["webhook-timestamp"]), UTC)
    assert sent["webhook-signature"] == Library(shown).sign(sent["webhook-id"], at, body.decode())
    assert sent["content-type"] == "application/json"
    told = json.loads(body)
    assert (told["type"], told["data"]["object"], told["data"]["detail"]) == (ASK, "ap_1", {"agent_says": "hello"})
    assert now_of(world, made.webhook_id).delivered == 1


def test_the_signature_matches_the_test_vector_of_the_reference_library() -> None:
    """The test vector of the reference library."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    said = headers(key, id="msg_p5jXN8AQM9LWM0D4loKWxJek", at=1614265330, body=body)
    assert said["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_event_that_is_too_long_is_sent_without_its_detail() -> None:
    entry = Entry(at=1_700_000_000_000_001, action=ASK, detail={"x": "y" * MAX_BODY}, arguments={"secret": 1})
    told = json.loads(message(7, entry))
    assert "detail" not in told["data"]
    assert "arguments" not in told["data"]
    assert (told["timestamp"], told["data"]["index"]) == ("2023-11-14T22:13:20.000001Z", 7)
    assert json.loads(message(7, Entry(at=0, action=ASK, detail={"x": "y"})))["data"]["detail"] == {"x": "y"}


# ---------------------------------------------------------------------------------------- Events of each webhook


async def test_each_webhook_gets_later_events_of_its_actions_once_and_in_order(
    world: World, receiver: Receiver
) -> None:
    await happen(world, "task.start")
    made, _ = await add(world, receiver.url, "task.start", "task.end")
    for action in ("task.start", ASK, "task.end", "task.start"):
        await happen(world, action)
    await tell(world)
    await tell(world)
    told = [json.loads(body) for _, body in receiver.heard]
    assert [one["type"] for one in told] == ["task.start", "task.end", "task.start"]
    indexes = [one["data"]["index"] for one in told]
    assert indexes == sorted(set(indexes))
    assert receiver.ids == [message_id(made.webhook_id, index) for index in indexes]


async def test_refused_acts_are_not_sent_to_webhooks(world: World, receiver: Receiver) -> None:
    made, _ = await add(world, receiver.url)
    for _ in range(wire_webhooks.PASSED + 2):
        await happen(world, outcome="refused")
    await tell(world)
    assert receiver.heard == []
    assert now_of(world, made.webhook_id).next_idx > wire_webhooks.PASSED, "and it is not looked through again"
    await happen(world)
    await tell(world)
    assert len(receiver.heard) == 1


async def test_every_webhook_gets_a_test_event(world: World, receiver: Receiver) -> None:
    await add(world, receiver.url, "task.end")
    await act(world, "webhook.test", flows.record_test)
    await tell(world)
    assert [json.loads(body)["type"] for _, body in receiver.heard] == ["webhook.test"]


async def test_a_removed_webhook_gets_no_further_event(world: World, receiver: Receiver) -> None:
    made, _ = await add(world, receiver.url)
    await happen(world)
    await act(world, "webhook.remove", lambda act: flows.remove(act, made.webhook_id))
    await tell(world)
    assert receiver.heard == []
    with pytest.raises(NotFound):
        await act(world, "webhook.remove", lambda act: flows.remove(act, made.webhook_id))


# ---------------------------------------------------------------------------------------- Failed deliveries


async def test_a_failed_delivery_is_repeated_with_the_same_id_and_a_new_time(
    world: World, clock: Clock, receiver: Receiver
) -> None:
    made, _ = await add(world, receiver.url)
    await happen(world)
    receiver.answers = [(500, {}), (302, {"location": receiver.url})]
    await tell(world)
    assert now_of(world, made.webhook_id).attempts == 1
    clock.advance(us=DELAYS_S[0] * SECOND - 1)
    await tell(world)
    assert len(receiver.heard) == 1, "not before its time"
    clock.advance(us=round(DELAYS_S[0] * SECOND * 0.1) + 1)
    await tell(world)
    assert len(receiver.heard) == 2, "and no redirect is followed"
    clock.advance(DELAYS_S[1] * 2)
    await tell(world)
    assert (len(receiver.heard), len(set(receiver.ids))) == (3, 1)
    times = [int(sent["webhook-timestamp"]) for sent, _ in receiver.heard]
    assert times == sorted(set(times))
    after = now_of(world, made.webhook_id)
    assert (after.delivered, after.attempts, after.lost, after.failed) == (1, 0, 0, "")


async def test_after_the_last_attempt_an_event_is_skipped_and_the_next_event_is_sent(
    world: World, clock: Clock, receiver: Receiver
) -> None:
    made, _ = await add(world, receiver.url)
    await happen(world, number=1)
    await happen(world, number=2)
    tries = len(DELAYS_S) + 1
    receiver.answers = [(503, {})] * tries
    for number in range(1, tries + 1):
        await tell(world)
        assert len(receiver.heard) == number
        clock.advance(max(DELAYS_S) * 2)
    await tell(world)
    after = now_of(world, made.webhook_id)
    assert (after.delivered, after.lost) == (1, 1)
    assert json.loads(receiver.heard[-1][1])["data"]["detail"] == {"number": 2}
    (left,) = entries(world, "webhook.give_up")
    assert left.object == made.webhook_id
    assert left.detail is not None
    assert left.detail["failed"] == "the remote server answers 503"


@pytest.mark.parametrize(("status", "tries"), [(400, REJECTED_TRIES), (422, REJECTED_TRIES), (404, 10), (429, 10)])
def test_a_rejected_event_is_skipped_after_a_few_attempts(status: int, tries: int) -> None:
    webhook = Webhook(webhook_id=WebhookId("wh_1"), url="", actions=(), created_at=0, next_idx=5)
    for number in range(1, tries):
        webhook = after_failed_attempt(webhook, Outcome(status, "no"), now=0, jitter=0)
        assert (webhook.attempts, webhook.lost, webhook.next_idx) == (number, 0, 5)
    webhook = after_failed_attempt(webhook, Outcome(status, "no"), now=0, jitter=0)
    assert (webhook.attempts, webhook.lost, webhook.next_idx) == (0, 1, 6)


def test_a_receiver_may_delay_the_next_attempt_by_up_to_an_hour() -> None:
    webhook = Webhook(webhook_id=WebhookId("wh_1"), url="", actions=(), created_at=0, next_idx=0)

    def due(asked: int, jitter: float = 0) -> float:
        return after_failed_attempt(webhook, Outcome(503, "later", asked), now=0, jitter=jitter).due_at / SECOND

    assert [due(asked) for asked in (0, 4, 6, 3600, 3601, 1 << 40)] == [5, 5, 6, 3600, 3600, 3600]
    assert due(0, jitter=1) == 5.5


async def test_a_receiver_that_answers_410_gets_no_further_event(
    world: World, clock: Clock, receiver: Receiver
) -> None:
    made, _ = await add(world, receiver.url)
    await happen(world)
    receiver.answers = [(410, {})]
    await tell(world)
    clock.advance(max(DELAYS_S))
    await happen(world)
    await tell(world)
    assert len(receiver.heard) == 1
    assert now_of(world, made.webhook_id).gone_at is not None
    assert len(entries(world, "webhook.give_up")) == 1


async def test_a_receiver_that_never_answers_delays_nothing_else(world: World, receiver: Receiver) -> None:
    receiver.silence.clear()
    running = world.get_singleton(wire_webhooks.RunningDeliveries).running
    with receiving() as other:
        silent, _ = await add(world, receiver.url)
        await add(world, other.url)
        await happen(world)
        await wire_webhooks.deliver_due(world)
        await happen(world)
        while len(other.heard) < 2:
            await wire_webhooks.deliver_due(world)
            await asyncio.sleep(0.01)
        assert not running[silent.webhook_id].done(), "it waits still"
        receiver.silence.set()
        await asyncio.gather(*running.values())
    assert len(other.heard) == 2


async def test_an_attempt_has_a_time_limit(world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_webhooks, "TRY_S", 0.2)
    receiver.silence.clear()
    made, _ = await add(world, receiver.url)
    await happen(world)
    await tell(world)
    after = now_of(world, made.webhook_id)
    assert (after.attempts, after.failed) == (1, "the remote server took longer than 0.2 s")


async def test_a_refused_connection_is_a_failed_attempt(world: World) -> None:
    with receiving() as gone:
        url = gone.url
    made, _ = await add(world, url)
    await happen(world)
    await tell(world)
    assert "ConnectError" in now_of(world, made.webhook_id).failed


async def test_two_processes_deliver_an_event_once(world: World, receiver: Receiver) -> None:
    made, _ = await add(world, receiver.url)
    await happen(world)
    webhook = now_of(world, made.webhook_id)
    results = await asyncio.gather(*(wire_webhooks.deliver_next(world, webhook) for _ in range(3)))
    assert sorted(results) == [False, False, True]
    assert len(receiver.heard) == 1


async def test_an_unfinished_attempt_is_taken_over_and_its_late_end_changes_nothing(
    world: World, clock: Clock, receiver: Receiver
) -> None:
    made, _ = await add(world, receiver.url)
    await happen(world)
    ((index, _),) = flows.next_events(world.db.read(), made)
    lost = await world.writer.submit(lambda tx: flows.claim_delivery(tx, made, index))
    assert lost is not None
    await tell(world)
    assert receiver.heard == []
    clock.advance(us=lost.busy_until - clock())
    await tell(world)
    assert len(receiver.heard) == 1
    await world.writer.submit(lambda tx: flows.postpone(tx, lost, Outcome(0, "late")))
    after = now_of(world, made.webhook_id)
    assert (after.delivered, after.attempts, after.failed) == (1, 0, "")


# ---------------------------------------------------------------------------------------- Adding, and the doctor


async def test_an_invalid_url_of_a_webhook_is_refused(world: World) -> None:
    cases: list[str] = [
        "http://example.org/hook",
        "ftp://example.org",
        "https://",
        "https://user@example.org/",
        "https://a.org/#x",
        "http://127.0.0.1.example.org/",
        "https://a.org/\n",
        "https://a.org/ b",
        "https://\u00e9.org/",
        "https://a.org/" + "x" * 1000,
        "http://169.254.169.254/latest",
        "https://169.254.169.254/latest",
        "https://10.0.0.1/",
        "https://[fd00:ec2::254]/",
        "https://2852039166/",
        "https://127.1/",
        "http://[::1]:1/",
        "hook",
    ]
    for url in cases:
        with pytest.raises(Invalid):
            await add(world, url)


async def test_a_webhook_whose_host_now_has_a_private_address_is_not_called(world: World, receiver: Receiver) -> None:
    made, _ = await add(world, receiver.url)
    await happen(world)
    closed = dataclasses.replace(world, config=msgspec.structs.replace(world.config, private_hosts=""))
    await tell(closed)
    assert receiver.heard == []
    assert "must be https" in now_of(world, made.webhook_id).failed


@pytest.mark.parametrize("url", ["https://a.org", "https://a.org:1/x?y=z", "http://127.0.0.1:1/"])
async def test_a_valid_url_of_a_webhook_is_accepted(world: World, url: str) -> None:
    assert (await add(world, url))[0].url == url


def test_the_events_of_a_webhook_are_names_of_actions() -> None:
    assert check_actions(("task.start", "task.start")) == ("task.start",)
    assert ASK in check_actions(())
    check_actions(tuple(f"a.{'b' * (n + 1)}" for n in range(MAX_ACTIONS)))
    for wrong in (("task",), ("task.*",), ("Task.start",), ("a.b;",), tuple(f"a.{'b' * (n + 1)}" for n in range(33))):
        with pytest.raises(Invalid):
            check_actions(wrong)


async def test_a_url_is_added_once_within_the_limit_and_its_secret_parts_are_in_no_entry(world: World) -> None:
    for number in range(MAX_WEBHOOKS):
        await add(world, f"https://a.org/token-{number}")
    with pytest.raises(Conflict, match="this URL"):
        await add(world, "https://a.org/token-0")
    with pytest.raises(Conflict, match="20 webhooks"):
        await add(world, "https://a.org/token-20")
    assert "token-" not in str(entries(world, "webhook.add"))
    assert "https://a.org" in str(entries(world, "webhook.add"))


def test_each_webhook_has_its_own_secret() -> None:
    one, two = secret(b"s" * 32, WebhookId("wh_1")), secret(b"s" * 32, WebhookId("wh_2"))
    assert len(one) == 32
    assert one != two
    assert show_secret(one).startswith("whsec_")


async def examined(world: World) -> str:
    try:
        return await dict(doctor.EXPERIMENTS)["webhooks"](world)
    except Refused as refusal:
        return f"{refusal.code}: {refusal.message}"


async def test_the_doctor_names_webhooks_that_are_stalled_full_lossy_or_gone(
    world: World, clock: Clock, receiver: Receiver
) -> None:
    assert "no webhook is configured" in await examined(world)
    made, _ = await add(world, receiver.url)
    assert await examined(world) == "webhooks with all events received: 1"
    await happen(world)
    receiver.answers = [(500, {})]
    await tell(world)
    clock.advance(us=STALLED_S * SECOND)
    assert "webhooks with all events received: 1" in await examined(world)
    clock.advance(us=1)
    stalled = await examined(world)
    assert "the oldest event has waited 60 s, attempt 1: the remote server answers 500" in stalled
    assert "/hook" not in stalled
    clock.advance(3600)
    await tell(world)
    assert "webhooks with all events received: 1" in await examined(world)

    await happen(world)
    receiver.answers = [(400, {})] * REJECTED_TRIES
    for _ in range(REJECTED_TRIES):
        await tell(world)
        clock.advance(3600)
    assert (await examined(world)).startswith("unprotected: http://127.0.0.1")
    assert "1 events could not be delivered and were skipped" in await examined(world)

    await happen(world)
    receiver.answers = [(410, {})]
    await tell(world)
    assert "the receiver answered 410" in await examined(world)
    assert now_of(world, made.webhook_id).gone_at is not None


async def test_a_full_queue_is_reported(world: World, receiver: Receiver) -> None:
    await add(world, receiver.url)
    for _ in range(WAITING_LIMIT - 1):
        await happen(world)
    assert "full" not in await examined(world)
    await happen(world)
    assert "the queue is full" in await examined(world)


async def test_no_url_is_logged(world: World, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Path and query of a webhook's URL are often its only secret, and libraries write URLs to the log."""
    caplog.set_level("INFO")
    made, _ = await add(world, f"{receiver.url}/hook-s3cret?token=s3cret", ASK)
    await act(world, ASK, lambda act: None)
    assert await wire_webhooks.deliver_next(world, made)
    assert "s3cret" not in caplog.text


async def test_a_url_has_one_webhook_and_only_a_known_webhook_is_removed(world: World, receiver: Receiver) -> None:
    made, _ = await add(world, receiver.url)
    with pytest.raises(Conflict, match="a webhook for this URL exists already"):
        await add(world, receiver.url)
    other, _ = await add(world, f"{receiver.url}/other")
    with pytest.raises(NotFound, match="webhook not found"):
        await act(world, "webhook.remove", lambda act: flows.remove(act, "wh_unknown"))
    for one in (made, other):
        await act(world, "webhook.remove", lambda act, id=one.webhook_id: flows.remove(act, id))  # type: ignore[misc]
    await add(world, receiver.url)
