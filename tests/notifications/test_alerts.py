"""Alerts by mail and in chats: grave events are described in words, and no third party can write into an alert."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from harness.clock import Clock
from harness.patience import PATIENCE_S, eventually_async
from ostiary.protocol.addresses import check_address, check_server
from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.config import load_config
from ostiaryd.ground.outbound import mail
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import Entry, reason
from ostiaryd.notifications import flows as flows
from ostiaryd.notifications import wire_webhooks
from ostiaryd.notifications.model import alerts
from ostiaryd.notifications.model.webhooks import (
    DELAYS_S,
    PAUSE_S,
    REJECTED_TRIES,
    Form,
    Webhook,
    origin,
    outcome_of_mail,
)
from tests.support.mail_server import mail_server
from tests.support.pem import certificate
from tests.support.webhook_receiver import Receiver, receiving

SECOND = 1_000_000
TO = "mailto:soc@example.org"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the addresses of this machine as addresses of another machine."""
    monkeypatch.setattr(mail, "_HERE", frozenset())


async def add(world: World, url: str, form: Form, *actions: str) -> Webhook:
    def flow(act: Act) -> tuple[Webhook, bytes]:
        return flows.add(act, url=url, actions=actions, form=form, private=world.config.private)

    made, _ = await act(world, "webhook.add", flow)
    return made


async def happen(world: World, action: str, *, object: str = "in_1", reasons: str = "", **detail: Any) -> None:
    def flow(act: Act) -> None:
        act.entry.object, act.entry.detail = object, dict(detail)
        act.entry.reasons = [reason("odd", reasons)] if reasons else []

    await act(world, action, flow)


async def tell(world: World) -> None:
    await wire_webhooks.deliver_due(world)
    await asyncio.gather(*world.get_singleton(wire_webhooks.RunningDeliveries).running.values())


def by(world: World, server: str, **more: str) -> World:
    """Return the world with a mail server in its configuration."""
    config = msgspec.structs.replace(world.config, mail_server=server, mail_from="ostiary@example.org", **more)
    object.__setattr__(world, "config", config)
    return world


def now_of(world: World, webhook: Webhook) -> Webhook:
    return flows.find(world.db.read(), webhook.webhook_id)


def words(*entries: Entry, agent: str = "writer") -> str:
    events = [(number, entry.action) for number, entry in enumerate(entries, 7)]
    told = [alerts.alert(number, entry, agent=agent, owner="ada") for number, entry in enumerate(entries, 7)]
    return alerts.text(told, events)


# ---------------------------------------------------------------------------------------- Mail


async def test_a_real_mail_server_accepts_an_alert_about_an_incident(world: World) -> None:
    async with mail_server() as server:
        made = await add(by(world, f"smtp://127.0.0.1:{server.port}"), TO, "mail")
        await happen(world, "incident.open", says=["12 denials in a minute, größer"], risk=87)
        await tell(world)
        (heard,) = server.heard
        assert server.to == [["soc@example.org"]]
        assert (heard["From"], heard["To"], heard["Auto-Submitted"]) == (
            "ostiary@example.org",
            "soc@example.org",
            "auto-generated",
        )
        assert heard["Subject"] == "[Ostiary] Incident"
        text = heard.get_content()
        for said in ("12 denials in a minute, größer", "risk      87", "see       ostiary incident show in_1"):
            assert said in text
        after = now_of(world, made)
        assert (after.delivered, after.lost, after.failed) == (1, 0, "")


@pytest.mark.usefixtures("here")
async def test_mail_to_a_remote_server_is_sent_over_tls(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, authority = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    async with mail_server(tls=tls, asks=True) as server:
        url = f"smtp://localhost:{server.port}"
        await add(by(world, url, mail_user="us", mail_password="s3cret"), TO, "mail")
        await happen(world, "incident.open")
        await tell(world)
        assert (server.was_tls, server.logins) == ([True], [(b"us", b"s3cret")])
    async with mail_server(tls=tls, is_tls_first=True) as server:
        await add(by(world, f"smtps://localhost:{server.port}"), "mailto:b@example.org", "mail")
        await happen(world, "incident.open")
        await tell(world)
        assert len(server.heard) == 1


@pytest.mark.usefixtures("here")
async def test_no_alert_is_sent_to_a_mail_server_without_tls_or_with_another_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attacker between the machines removes STARTTLS from the server's reply, or answers in its place."""
    tls, authority = certificate(tmp_path, "mail.elsewhere")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    async with mail_server() as stripped, mail_server(tls=tls) as other:
        for server, user in ((stripped, ""), (other, "us")):
            made = await add(
                by(world, f"smtp://localhost:{server.port}", mail_user=user, mail_password="s3cret" if user else ""),
                f"mailto:{server.port}@example.org",
                "mail",
            )
            await happen(world, "incident.open")
            await tell(world)
            after = now_of(world, made)
            assert (after.delivered, after.attempts) == (0, 1)
            assert after.failed.startswith("the mail server cannot be reached")
        assert stripped.heard == other.heard == []
        assert stripped.logins == other.logins == []


async def test_an_alert_is_skipped_after_a_permanent_error_and_repeated_after_a_temporary_error(
    world: World, clock: Clock
) -> None:
    async with mail_server() as server:
        made = await add(by(world, f"smtp://127.0.0.1:{server.port}"), TO, "mail")
        await happen(world, "incident.open", number=1)
        server.recipient_answers = ["450 busy", "550 no such person <x@evil.example>"] + ["550 no"] * REJECTED_TRIES
        await tell(world)
        assert now_of(world, made).failed == "the mail server answers 450"
        for _ in range(REJECTED_TRIES - 1):
            clock.advance(max(DELAYS_S))
            await tell(world)
        assert (now_of(world, made).lost, now_of(world, made).failed) == (1, "the mail server answers 550")
        server.recipient_answers = []
        await happen(world, "incident.open", number=2)
        await tell(world)
        assert "number    2" in server.heard[0].get_content()


async def test_a_mail_server_that_does_not_answer_delays_nothing_else(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_webhooks, "TRY_S", PATIENCE_S)
    async with mail_server() as server:
        server.silence.clear()
        made = await add(by(world, f"smtp://127.0.0.1:{server.port}"), TO, "mail")
        await add(world, receiver.url, "slack")
        await happen(world, "incident.open")
        delivery = asyncio.create_task(tell(world))
        await eventually_async(lambda: receiver.heard)
        assert not delivery.done(), "the mail server is silent"
        server.silence.set()
        await delivery
        assert (len(receiver.heard), len(server.heard), now_of(world, made).failed) == (1, 1, "")


async def test_the_failure_of_a_mail_server_that_never_answers_is_shown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_webhooks, "TRY_S", 0.2)
    async with mail_server() as server:
        server.silence.clear()
        made = await add(by(world, f"smtp://127.0.0.1:{server.port}"), TO, "mail")
        await happen(world, "incident.open")
        await tell(world)
        assert now_of(world, made).failed == "the mail server took longer than 0.2 s"


async def test_without_a_mail_server_an_alert_waits_and_states_the_reason(world: World) -> None:
    made = await add(world, TO, "mail")
    await happen(world, "incident.open")
    await tell(world)
    assert now_of(world, made).failed == "no mail server is configured"


@pytest.mark.parametrize(
    ("code", "taken", "rejected"),
    [
        (250, True, False),
        (299, True, False),
        (199, False, False),
        (300, False, False),
        (450, False, False),
        (499, False, False),
        (500, False, True),
        (554, False, True),
    ],
)
def test_a_4xx_reply_of_a_mail_server_is_temporary_and_a_5xx_reply_is_permanent(
    code: int, taken: bool, rejected: bool
) -> None:
    outcome = outcome_of_mail(code)
    assert (outcome.is_accepted, outcome.is_rejected) == (taken, rejected)


# ---------------------------------------------------------------------------------------- Chats


CHATS: list[Form] = [form for form in get_args(Form) if form not in ("signed", "mail")]


async def test_each_chat_gets_an_alert_in_its_own_format(world: World) -> None:
    with receiving("/a") as slack, receiving("/b") as teams, receiving("/c") as mattermost, receiving("/d") as plain:
        for receiver, form in zip((slack, teams, mattermost, plain), CHATS, strict=True):
            await add(world, receiver.url, form)
        await happen(world, "kill.start", object="everything")
        await tell(world)
        (headers, body), *none = slack.heard
        assert (none, headers["content-type"]) == ([], "application/json")
        assert "webhook-signature" not in headers
        told = json.loads(body)
        assert told["text"] == "Kill switch: everything"
        assert [block["text"]["type"] for block in told["blocks"]] == ["plain_text", "plain_text"]
        assert "ostiary audit show" in told["blocks"][1]["text"]["text"]
        card = json.loads(teams.heard[0][1])["attachments"][0]
        assert card["contentType"] == "application/vnd.microsoft.card.adaptive"
        lines = [block["inlines"][0]["text"] for block in card["content"]["body"]]
        assert lines[0] == "Kill switch: everything"
        assert json.loads(mattermost.heard[0][1])["text"].startswith("```\nKill switch: everything\n")
        assert plain.heard[0][0]["content-type"] == "text/plain; charset=utf-8"
        assert plain.heard[0][1].startswith(b"Kill switch: everything\n")


async def test_a_flood_of_events_gives_two_messages_and_hides_no_incident(
    world: World, clock: Clock, receiver: Receiver
) -> None:
    """An agent sends many approval requests to hide an incident."""
    made = await add(world, receiver.url, "plain")
    await happen(world, "approval.ask", object="ap_first")
    await tell(world)
    for number in range(40):
        await happen(world, "approval.ask", object=f"ap_{number}")
    await happen(world, "incident.open", case="in_grave")
    for number in range(40):
        await happen(world, "approval.ask", object=f"ap_{number + 40}")
    clock.advance(us=PAUSE_S * SECOND - 1)
    await tell(world)
    assert len(receiver.heard) == 1, "not before its time"
    clock.advance(us=1)
    await tell(world)
    assert len(receiver.heard) == 2
    said = receiver.heard[1][1].decode()
    assert "in_grave" in said
    assert "80 approval.ask, 1 incident.open" in said
    assert said.startswith("Incident and 80 more")
    assert now_of(world, made).delivered == 82
    clock.advance(PAUSE_S)
    await tell(world)
    assert len(receiver.heard) == 2


def test_the_most_severe_events_are_described_first() -> None:
    events = [(number, "approval.ask") for number in range(alerts.IN_WORDS + 5)] + [
        (90, "kill.start"),
        (91, "kill.end"),
    ]
    told = alerts.select_gravest(events)
    assert told == [90, 91, *range(alerts.IN_WORDS - 2)]
    assert alerts.select_gravest(events[: alerts.IN_WORDS]) == list(range(alerts.IN_WORDS))


# ---------------------------------------------------------------------------------------- Text of third parties


EVIL = "<!channel> @all **x** [click](https://evil.example/a) ``` \u202eabc\r\nBcc: x@evil.example\x00\u200b\ntitle"


def test_no_text_of_a_third_party_becomes_markup_a_mention_a_link_or_a_line() -> None:
    entry = Entry(
        at=0,
        action="incident.open",
        object="in_1",
        reasons=[reason("odd", EVIL)],
        detail={"says": [EVIL], "x.y": EVIL},
        tool="files/" + EVIL,
        arguments={"password": "hunter2"},
    )
    text = words(entry)
    assert "hunter2" not in text
    for wrong in ("https://", "@", "evil.example", "\u202e", "\x00", "\u200b", "\r"):
        assert wrong not in text
    assert not any(line.startswith(("Bcc", "title")) for line in text.split("\n"))
    assert "evil[.]example" in text
    subject = f"Incident: {EVIL}"  # were a name ever to hold it
    slack, teams, mattermost, plain = (alerts.chat(form, subject, text) for form in CHATS)
    assert "<!channel>" not in json.loads(slack[1])["text"]
    assert json.loads(mattermost[1])["text"].count("```") == 2
    assert plain[0].startswith("text/plain"), "no markup"
    card = json.loads(teams[1])["attachments"][0]["content"]
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}, "a `TextBlock` would be Markdown"


def test_the_size_of_an_alert_is_limited() -> None:
    entry = Entry(
        at=0,
        action="incident.open",
        object="in_1",
        reasons=[reason("odd", "y" * 500)] * 64,
        detail={f"k{number}": ["z" * 1000] * 100 for number in range(100)},
    )
    for count in (1, 2, alerts.IN_WORDS):
        assert len(words(*[entry] * count)) <= alerts.MAX_TEXT
    alert = alerts.alert(1, Entry(at=0, action="x.y", detail={"k": "z" * 301}), agent="", owner="")
    assert ("k", "z" * 300) in alert.lines


def test_an_alert_about_the_kill_switch_names_the_stopped_object_and_the_person() -> None:
    """The ledger entry names the caller, who used the kill switch."""
    entry = Entry(at=0, action="kill.start", agent="ag_1", object="a.example", detail={"kill": "model", "why": "leaks"})
    alert = alerts.alert(7, entry, agent="admin", owner="")
    assert alert.title == "Kill switch: model a[.]example"
    assert alert.lines[:2] == (("stopped", "model a[.]example"), ("by", "admin ag_1"))
    everything = Entry(at=0, action="kill.end", object="", detail={"kill": "everything"})
    assert alerts.alert(7, everything, agent="", owner="").title == "Kill switch: lifted: everything"


def test_an_alert_leaves_out_missing_members_and_shows_an_unknown_action_by_its_name() -> None:
    alert = alerts.alert(7, Entry(at=0, action="agent.suspend", detail={"nested": {"a": 1}}), agent="", owner="")
    assert alert.title == "agent.suspend"
    assert [what for what, _ in alert.lines] == ["at", "see"]


# ---------------------------------------------------------------------------------------- Adding


@pytest.mark.parametrize(
    ("url", "form"), [("mailto:a@example.org", "slack"), ("https://a.org/", "mail"), ("mailto:a@example.org", "signed")]
)
async def test_the_format_mail_is_only_for_mail_addresses(world: World, url: str, form: Form) -> None:
    with pytest.raises(Invalid):
        await add(world, url, form)


@pytest.mark.parametrize(
    "address",
    [
        "a",
        "a@",
        "@b",
        "a b@c",
        "a@b\nc",
        "a@b,c@d",
        "a@b.",
        "<a@b>",
        'a"b@c',
        "é@b.org",
        "x" * 65 + "@b",
        "a@" + "b" * 64,
        "a@b?subject=x",
    ],
)
def test_an_invalid_mail_address_is_refused(address: str) -> None:
    with pytest.raises(Invalid):
        check_address(address, name="it")


@pytest.mark.parametrize("address", ["a@b", "ada.l+x@mail.example.org", "x" * 64 + "@b", "a@" + "b" * 63])
def test_a_valid_mail_address_is_accepted(address: str) -> None:
    assert check_address(address, name="it") == address


@pytest.mark.parametrize(
    "url",
    [
        "smtp://",
        "http://a.org",
        "smtp://a.org/",
        "smtp://u:p@a.org",
        "smtp://a:0",
        "smtp://a:x",
        "smtp://a?x=1",
        "smtp://a#b",
        "a.org:25",
    ],
)
def test_an_invalid_mail_server_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        check_server(url)


def test_a_mail_server_needs_a_sender_and_a_password_needs_a_user(tmp_path: Path) -> None:
    given: dict[str, Any] = {"data_dir": str(tmp_path), "mail_server": "smtp://mail.example.org"}
    with pytest.raises(Invalid, match="mail_from"):
        load_config(environ={}, **given)
    with pytest.raises(Invalid, match="both mail_user and mail_password"):
        load_config(environ={}, mail_from="o@example.org", mail_user="o", **given)
    made = load_config(environ={"OSTIARY_MAIL_PASSWORD": "p"}, mail_from="o@example.org", mail_user="o", **given)
    assert made.mail_password == "p"


async def test_a_mail_address_is_added_once_and_is_in_no_entry(world: World) -> None:
    assert origin(TO) == "mailto:@example.org"
    await add(world, TO, "mail")
    with pytest.raises(Conflict):
        await add(world, TO, "mail")
