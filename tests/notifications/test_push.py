"""Web Push: the vectors of RFC 8291, a receiver that decrypts as a browser does, and the limits of subscriptions."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from harness.clock import Clock
from harness.registry_fixtures import agent_caller, create_holding, newest_entry, run_act
from ostiary.protocol import jose
from ostiary.protocol.errors import Invalid, NotFound, Refused
from ostiary.protocol.jose import b64u, unb64u
from ostiary.provenance.intent import Intent
from ostiaryd.approvals import store as approvals
from ostiaryd.approvals import wire_elevation
from ostiaryd.ground.http.edge import Call, Reply
from ostiaryd.ground.http.pages import parse_page
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.notifications import flows, store, wire_links, wire_push, wire_webhooks
from ostiaryd.notifications.model import links, web_push
from ostiaryd.notifications.model.web_push import MAX_OF_PERSON, MAX_PLAIN, Subscription
from ostiaryd.notifications.wire_webhooks import RunningDeliveries
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import APPROVE, Caller
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import TaskSpec
from tests.approvals.mail_fixtures import ANN, WHOM, mail
from tests.support.api_fixtures import Client, oauth_app
from tests.support.approval_fixtures import URI, Bank, open_bank
from tests.support.webhook_receiver import Receiver, receiving

__all__ = ["mail"]

SECOND = 1_000_000
BOTH = Intent(words="Write to ann@else.example and bob@else.example", plan=())
PLAIN = b"When I grow up, I want to be a watermelon"
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
BROWSER = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
BROWSER_POINT = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl"
    "7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)
"""The values of RFC 8291 section 5."""


@pytest.fixture
async def bank(world: World) -> Bank:
    return await open_bank(world)


def decrypt(body: bytes, *, private: ec.EllipticCurvePrivateKey, auth: bytes) -> bytes:
    """Return the message as a browser reads it (RFC 8188 section 2, RFC 8291 section 3.4)."""
    salt, size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
    sender, record = body[21 : 21 + length], body[21 + length :]
    assert length == 65
    assert len(record) <= size
    own = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender))
    ikm = hmac.digest(hmac.digest(auth, shared, sha256), b"WebPush: info\0" + own + sender + b"\x01", sha256)
    prk = hmac.digest(salt, ikm, sha256)
    key = hmac.digest(prk, b"Content-Encoding: aes128gcm\0\x01", sha256)[:16]
    nonce = hmac.digest(prk, b"Content-Encoding: nonce\0\x01", sha256)[:12]
    plain, delimiter, padding = AESGCM(key).decrypt(nonce, record, b"").rpartition(b"\x02")
    assert (delimiter, padding.strip(b"\0")) == (b"\x02", b"")
    return plain


def private_key(text: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(unb64u(text), "big"), ec.SECP256R1())


def test_the_encryption_gives_the_result_of_the_example_in_the_specification() -> None:
    secret = (int.from_bytes(unb64u(SENDER), "big") - 1).to_bytes(32, "big")  # one is added, so that it is never zero
    public_key, auth = web_push.parse_browser_keys(BROWSER_POINT, AUTH)
    body = web_push.encrypt_message(PLAIN, public_key=public_key, auth=auth, secret=secret, salt=unb64u(SALT))
    assert b64u(body) == BODY
    assert decrypt(unb64u(BODY), private=private_key(BROWSER), auth=auth) == PLAIN


@pytest.mark.parametrize("size", [0, MAX_PLAIN, MAX_PLAIN + 1])
def test_a_push_message_has_at_most_4096_bytes(size: int) -> None:
    def encrypt() -> bytes:
        return web_push.encrypt_message(
            b"m" * size, public_key=unb64u(BROWSER_POINT), auth=unb64u(AUTH), secret=b"s" * 32, salt=b"x" * 16
        )

    if size > MAX_PLAIN:
        with pytest.raises(ValueError, match="at most"):
            encrypt()
    else:
        body = encrypt()
        assert len(body) <= 4096
        assert decrypt(body, private=private_key(BROWSER), auth=unb64u(AUTH)) == b"m" * size


@pytest.mark.parametrize(
    ("point", "auth"),
    [
        (BROWSER_POINT[:-1] + "8", AUTH),
        (b64u(b"\x04" + bytes(64)), AUTH),
        (b64u(b"\x03" + unb64u(BROWSER_POINT)[1:33]), AUTH),
        ("=", AUTH),
        (BROWSER_POINT, "="),
        (BROWSER_POINT, b64u(bytes(15))),
        (BROWSER_POINT, b64u(bytes(17))),
    ],
)
def test_invalid_keys_of_a_browser_are_refused(point: str, auth: str) -> None:
    with pytest.raises(Invalid, match="keys"):
        web_push.parse_browser_keys(point, auth)


class Browser:
    """A browser of a person: its keys, and the requests of its page."""

    def __init__(self, world: World, person: str, name: str) -> None:
        self.world = world
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = world.random(16)
        self.caller = Caller(kind="person", id=person, name=name, owner=None, scopes=frozenset({APPROVE}))

    async def call(self, method: str, path: str, body: Any = None, *, by: Caller | None = None) -> tuple[int, Any]:
        """Send a request behind the gate; return the status and the JSON, of a refusal its code."""
        id = path.removeprefix("/api/v1/push").strip("/")
        route = next(one for one in wire_push.ROUTES if one.method == method)
        headers = [(b"content-type", b"application/json"), (b"user-agent", b"Firefox/150 Windows")]
        sent = b"" if body is None else json.dumps(body).encode()
        try:
            answer = await route.wire(
                Call(self.world, method, path, {"id": id}, "", headers, sent, "rq_1", by or self.caller)
            )
        except Refused as refusal:
            return 0, refusal.code
        assert isinstance(answer.body, bytes)
        return answer.status, json.loads(answer.body)

    async def subscribe(self, endpoint: str) -> tuple[int, Any]:
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": b64u(point), "auth": b64u(self.auth)}
        body = {"endpoint": endpoint, "expirationTime": None, "keys": keys}
        return await self.call("POST", "/api/v1/push", body)

    def read(self, receiver: Receiver) -> list[dict[str, str]]:
        return [json.loads(decrypt(body, private=self.key, auth=self.auth)) for _, body in receiver.heard]


async def browser_of(world: World, name: str) -> Browser:
    person = registry.get_owner(world.db.read(), name)
    assert person is not None
    return Browser(world, person.id, name)


async def push(world: World) -> None:
    await wire_push.push_due(world)
    await asyncio.gather(*world.get_singleton(RunningDeliveries).running.values())


def only(world: World, browser: Browser) -> Subscription:
    [one] = store.subscriptions(world.db.read(), browser.caller.id)
    return one


async def test_a_person_who_may_answer_gets_an_encrypted_and_signed_push_message(
    world: World, bank: Bank, receiver: Receiver, clock: Clock
) -> None:
    alice = await browser_of(world, "alice")
    await bank.ask({"amount": 500, "to": "before"})
    status, made = await alice.subscribe(receiver.url)
    assert (status, made["browser"], made["service"]) == (201, "Firefox on Windows", receiver.url.partition("/hook")[0])
    bob = Browser(world, (await bank.person("bob")).id, "bob")
    await bob.subscribe(receiver.url + "&bob")
    await push(world)
    assert receiver.heard == [], "only requests from now on"

    question = await bank.ask()
    await push(world)
    await push(world)
    [message] = alice.read(receiver)
    assert message == {
        "title": f"{bank.agent.name} asks for approval",
        "body": "bank/pay",
        "page": f"approvals/{question.approval}",
    }
    [(headers, _)] = receiver.heard
    assert (headers["content-encoding"], headers["urgency"]) == ("aes128gcm", "high")
    assert 0 < int(headers["ttl"]) <= world.config.question_lifetime_s
    _, shown = await alice.call("GET", "/api/v1/push")
    scheme, _, proof = headers["authorization"].partition(" ")
    token, key = (part.partition("=")[2] for part in proof.split(", "))
    assert (scheme, key) == ("vapid", shown["key"])
    point = unb64u(key)
    jwk = {"kty": "EC", "crv": "P-256", "x": b64u(point[1:33]), "y": b64u(point[33:])}
    jws = jose.verify_jws(token, key_for=lambda _: jose.parse_public_jwk(jwk), typ=("jwt",))
    claims = jose.parse_claims(jws.payload)
    assert claims["aud"] == receiver.url.partition("/hook")[0]
    assert world.now() // SECOND < int(str(claims["exp"])) <= world.now() // SECOND + 86_400

    for number in range(3):
        await bank.ask({"amount": 600 + number, "to": "ann"})
    await push(world)
    assert len(receiver.heard) == 1, "at most one message in ten seconds"
    clock.now += web_push.PAUSE_S * SECOND
    await push(world)
    assert alice.read(receiver)[1] == {
        "title": "3 approval requests wait for an answer",
        "body": "",
        "page": "approvals",
    }


async def request_approval(mail: Bank, kind: str) -> None:
    """Make an approval request of this kind, as its route does."""
    world, agent = mail.world, mail.agent
    if kind == "call":
        await mail.ask(ANN | {"body": "again"}, **WHOM)
    elif kind == "plan":
        await mail.http("POST", f"/api/v1/tasks/{mail.task.task_id}/plan-question")
    elif kind == "elevation":
        sent = json.dumps({"scopes": ["bank:admin"], "reason": "to close the account"}).encode()
        headers = [(b"content-type", b"application/json")]
        call = Call(world, "POST", "/api/v1/elevations", {}, "", headers, sent, "rq_1", agent_caller(agent))
        await wire_elevation.request_elevation(call)
    else:
        key = jose.generate("ES256")
        await run_act(world, lambda act: registry.add_key(act, agent.agent_id, dict(key.public.jwk)))
        client = Client(oauth_app(world), world, agent.agent_id, key)
        await client.ask()
        form = client.form(login_hint="alice", scope="openid bank:write", grant_type=None)
        assert (await client.post("/bc-authorize", form)).status == 200


@pytest.mark.parametrize("kind", ["call", "plan", "elevation", "backchannel"])
async def test_each_kind_of_approval_request_is_pushed_once_and_its_alert_has_a_link(
    world: World, mail: Bank, receiver: Receiver, clock: Clock, kind: str
) -> None:
    for number in range(2):  # calls that persons approve often become lines of a plan
        task = await run_act(world, lambda act: tasks.start(act, TaskSpec(agent="bot", purpose="mail", intent=BOTH)))
        token = f"tok_plan_{number}"
        await create_holding(world, mail.agent, token, audience=URI, task=task.task_id, seconds=3600)
        for to in (ANN["to"], "bob@else.example"):
            await mail.answer((await mail.ask(ANN | {"to": to}, **WHOM | {"token": token})).approval)
    mail.task = await run_act(world, lambda act: tasks.start(act, TaskSpec(agent="bot", purpose="mail", intent=BOTH)))
    await run_act(world, lambda act: tasks.set_eligible(act, mail.agent.agent_id, ["bank:admin"]))
    alice = await browser_of(world, "alice")
    await alice.subscribe(receiver.url)
    with receiving() as stranger, receiving() as chat:
        await Browser(world, (await mail.person("bob")).id, "bob").subscribe(stranger.url)
        await act(
            world,
            "webhook.add",
            lambda act: flows.add(act, url=chat.url, actions=(), form="plain", private=world.config.private),
        )
        for _ in range(2):
            await request_approval(mail, kind)
            await push(world)
            await wire_webhooks.deliver_due(world)
            await asyncio.gather(*world.get_singleton(RunningDeliveries).running.values())
            clock.advance(web_push.PAUSE_S)
        assert stranger.heard == [], "bob may not answer"
        [told] = [body.decode() for _, body in chat.heard]
    [question] = approvals.page(world.db.read(), agent="", is_open=True, now=world.now(), page=parse_page("2", None))
    assert [message["page"] for message in alice.read(receiver)] == [f"approvals/{question.approval_id}"]
    [token] = re.findall(r"/alerts/(\S+)", told)
    secret = world.keys.derive(links.PURPOSE)
    assert links.parse_link(token, now=world.now(), secret=secret) == question.approval_id
    assert f"ostiary approvals show {question.approval_id}" in told


async def test_many_answered_approval_requests_do_not_hide_a_later_request(
    world: World, bank: Bank, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ostiaryd.notifications.flows.MAX_ASKED", 2)
    alice = await browser_of(world, "alice")
    await alice.subscribe(receiver.url)
    for number in range(4):
        await bank.answer((await bank.ask({"amount": 600 + number, "to": "ann"})).approval)
    question = await bank.ask()
    for _ in range(3):
        await push(world)
    assert [message["page"] for message in alice.read(receiver)] == [f"approvals/{question.approval}"]


async def test_a_failed_push_is_retried_a_few_times_and_an_expired_subscription_is_deleted(
    world: World, bank: Bank, receiver: Receiver, clock: Clock
) -> None:
    alice = await browser_of(world, "alice")
    await alice.subscribe(receiver.url)
    await bank.ask()
    receiver.answers = [(500, {}), (429, {"retry-after": "20"}), (413, {}), (403, {})]
    for tries, delay in enumerate((5, 30, 60), 1):
        await push(world)
        assert (len(receiver.heard), only(world, alice).attempts) == (tries, tries)
        clock.now += delay * SECOND - 1
        await push(world)
        assert len(receiver.heard) == tries, "too early"
        clock.now += 1
    await push(world)
    assert only(world, alice).attempts == 0
    assert newest_entry(world).action == "push.give_up"
    clock.now += web_push.PAUSE_S * SECOND
    await push(world)
    assert len(receiver.heard) == 4, "the message was left out"
    await bank.ask({"amount": 700, "to": "ann"})
    receiver.answers = [(410, {})]
    await push(world)
    assert store.subscriptions(world.db.read(), alice.caller.id) == []
    assert (newest_entry(world).action, newest_entry(world).person) == ("push.end", alice.caller.id)


async def test_a_person_has_at_most_ten_subscriptions_and_ends_only_their_own(world: World, bank: Bank) -> None:
    alice, carol = await browser_of(world, "alice"), Browser(world, (await bank.person("carol")).id, "carol")
    for number in range(MAX_OF_PERSON):
        assert (await alice.subscribe(f"https://push.example/{number}"))[0] == 201
    assert (await alice.subscribe("https://push.example/0"))[0] == 201, "the same browser again"
    assert await alice.subscribe("https://push.example/x") == (0, "too_many_subscriptions")
    ids = [one.subscription_id for one in store.subscriptions(world.db.read(), alice.caller.id)]
    assert len(ids) == MAX_OF_PERSON
    assert await carol.call("DELETE", f"/api/v1/push/{ids[0]}") == (0, "not_found")
    assert await alice.call("DELETE", f"/api/v1/push/{ids[0]}") == (200, {})
    assert (await carol.subscribe("https://push.example/1"))[0] == 201, "another person at the same browser"
    assert len(store.subscriptions(world.db.read(), alice.caller.id)) == MAX_OF_PERSON - 2
    agent = Caller(kind="agent", id="ag_1", name="bot", owner=None, scopes=frozenset({APPROVE}))
    assert await alice.call("GET", "/api/v1/push", by=agent) == (0, "forbidden")


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://push.example/1",
        "https://10.0.0.7/1",
        "https://push.example/" + "a" * 1000,
        "mailto:a@b.example",
        "https://[",
        "https://" + "a" * 60_000,
        "https://ann:secret@push.example/1",
    ],
)
async def test_an_invalid_or_private_push_endpoint_is_refused(world: World, bank: Bank, endpoint: str) -> None:
    alice = await browser_of(world, "alice")
    assert (await alice.subscribe(endpoint))[0] == 0
    assert store.subscriptions(world.db.read(), alice.caller.id) == []
    entry = newest_entry(world)
    assert (entry.action, entry.outcome, entry.object) == ("push.subscribe", "refused", None), "it may hold a secret"


async def test_a_person_who_has_left_gets_no_push_message(world: World, bank: Bank, receiver: Receiver) -> None:
    alice = await browser_of(world, "alice")
    await alice.subscribe(receiver.url)
    await bank.ask()
    await act(world, "person.leave", lambda act: registry.revoke_owner(act, "alice"))
    await push(world)
    assert receiver.heard == []
    assert store.subscriptions(world.db.read(), alice.caller.id) == []


APPROVAL = "ap_" + "0" * 32


@pytest.mark.parametrize("late_us", [-1, 0])
def test_a_link_in_an_alert_expires_with_its_approval_request(late_us: int) -> None:
    token = links.sign_link(APPROVAL, ends_at=50 * SECOND, secret=b"s")
    if late_us < 0:
        assert links.parse_link(token, now=50 * SECOND + late_us, secret=b"s") == APPROVAL
    else:
        with pytest.raises(NotFound, match="the approval request of the link has expired"):
            links.parse_link(token, now=50 * SECOND + late_us, secret=b"s")


async def test_a_forged_or_altered_link_in_an_alert_is_refused(world: World) -> None:
    async def open_link(token: str) -> Reply:
        return await wire_links.open_alert(Call(world, "GET", "/alerts/x", {"token": token}, "", [], b"", "rq_1"))

    ends_at = world.now() + 60 * SECOND
    token = links.sign_link(APPROVAL, ends_at=ends_at, secret=world.keys.derive(links.PURPOSE))
    answer = await open_link(token)
    assert (answer.status, dict(answer.headers)[b"location"]) == (303, f"/console/approvals/{APPROVAL}".encode())
    for changed in (
        token[:-1],
        token.replace("ap_0", "ap_1"),
        token.replace(".", ".1", 1),
        "",
        token + "A",
        "x" * 9000,
    ):
        with pytest.raises(NotFound, match="the link is incomplete, or this server did not sign it"):
            await open_link(changed)
    with pytest.raises(NotFound):
        await open_link(links.sign_link(APPROVAL, ends_at=ends_at, secret=b"other"))
