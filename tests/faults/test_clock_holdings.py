"""Wall clocks that go forward and back, with and without a restart or a reboot, for what has an end or is used once."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.types import ASGIApp

from harness.clock import START, MachineClock, SeededRandom
from harness.registry_fixtures import agent_caller
from ostiary.protocol import jose
from ostiaryd.app import build_app
from ostiaryd.approvals import flows as approvals
from ostiaryd.certs import flows as certs
from ostiaryd.certs.flows import acme
from ostiaryd.ground.config import Config
from ostiaryd.ground.process.clock import DAY, SECOND, Boot
from ostiaryd.ground.process.clock import STEP as SEEN
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import Act, act
from ostiaryd.ledger.model import decode_entry
from ostiaryd.notifications import flows as webhooks
from ostiaryd.notifications import wire_webhooks
from ostiaryd.notifications.model.webhooks import DELAYS_S
from ostiaryd.policy import flows as policies
from ostiaryd.policy.model.load import load
from ostiaryd.policy.model.safeguards import extend
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentSpec
from ostiaryd.secrets import flows as secret_flows
from ostiaryd.secrets import wire_aws
from ostiaryd.secrets.flows import deletions
from ostiaryd.secrets.model.aws import ArnScope
from ostiaryd.secrets.store import keyvalue
from ostiaryd.tasks import flows as tasks
from ostiaryd.tokens import flows as tokens
from ostiaryd.trust import flows as trust
from ostiaryd.trust.flows.logins import slot_of
from ostiaryd.trust.flows.sessions import end_sessions
from ostiaryd.trust.model.clients import DEVICE_CODE
from ostiaryd.trust.model.sessions import SESSION_COOKIE
from ostiaryd.trust.model.throttle import ACCOUNT, LONGEST_WAIT, Failures
from ostiaryd.trust.model.totp import STEP, hotp
from ostiaryd.trust.store import people
from tests.faults.shifted import steps_back
from tests.faults.tally import Tally
from tests.secrets.vault_fixtures import VaultAgent, enter_agent
from tests.support.acme_client import AcmeClient, kind_of
from tests.support.api_fixtures import FILES, ISSUER, Client, reconfigured, register, send, sign
from tests.support.certificate_fixtures import issue, revoke
from tests.support.page_client import PageClient, add_totp, invite, recovery_codes, signed_in
from tests.support.status_client import GOOD, post, question
from tests.support.webhook_receiver import receiving
from tests.tokens.code_flow import CodeFlow, begin_flow, sign_in

BEGIN = START + 60 * SECOND
FOLLOWED_S = 300
"""Size of the largest forward step that server time follows, in seconds."""
CLEANERS = (
    registry.expire_due,
    tasks.expire_due,
    approvals.expire_due,
    approvals.forget,
    trust.prune,
    tokens.forget_requests,
    tokens.forget,
    tokens.follow_sessions,
    certs.forget,
    secret_flows.forget_tokens,
    secret_flows.forget_wrapped,
    secret_flows.forget_private_values,
    deletions.delete_due,
)
"""The loops of the server that end or delete what has expired."""


class Stage:
    """A server on a simulated machine, which a test restarts, with an application, a person and an agent."""

    def __init__(self, config: Config, machine: MachineClock) -> None:
        self._config, self.machine = config, machine
        self._open = AsyncExitStack()
        self.world: World
        self.app: ASGIApp
        self.flow: CodeFlow
        self.bot: VaultAgent
        self._count = self._opened = 0

    async def open(self) -> None:
        self._opened += 1
        machine, dice = self.machine, SeededRandom(f"{self._opened}")
        boot = Boot(lambda: machine.uptime, machine.boot_id)
        opening = open_world(self._config, now=machine.wall, boot=boot, random=dice)
        self.world = await self._open.enter_async_context(opening)
        self.app = build_app(self.world)

    async def prepare(self) -> None:
        loaded = load(extend({"all.cedar": "permit (principal, action, resource);"}, ()))
        await act(self.world, "policy.put", lambda a: policies.put(a, loaded, by=None))
        self.flow = await begin_flow(self.world, self.app)
        self.bot = await enter_agent(self.world, self.app, "bot")

    async def restart(self) -> None:
        await self.close()
        await self.open()
        self.flow.world = self.world
        self.flow.browser.app = self.app
        for client in (self.flow.client, self.bot.client):
            client.world, client.app = self.world, self.app

    def reboot(self) -> None:
        """Restart the machine, whose kernel does not know whether its wall clock is right."""
        self.machine.reboot(off=1, boot=f"boot {self._opened}")

    async def close(self) -> None:
        await self._open.aclose()

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and run the loops that notice it."""
        self.machine.advance(seconds)
        await trust.watch_clock(self.world)
        for clean in CLEANERS:
            await clean(self.world)

    async def step(self, seconds: float) -> None:
        """Set the wall clock, and let a second pass."""
        self.machine.step(seconds)
        await self.pass_time(1)

    async def confirm(self) -> None:
        """Confirm the wall clock, as an operator does."""
        record = partial(act, self.world)
        await trust.accept_clock(self.world, wall=self.machine.wall(), record=record)

    def new_name(self) -> str:
        self._count += 1
        return f"p{self._count}"


class Holding(ABC):
    """A credential or a grant. A holding lives for `life_s` seconds unless it is used, and is refused for `over_s`
    seconds after it was used.
    """

    life_s: float = 1e9
    over_s: float = 1e9
    expires = True

    @abstractmethod
    async def begin(self, stage: Stage) -> Any:
        """Return a new holding."""

    @abstractmethod
    async def works(self, stage: Stage, one: Any) -> bool:
        """Use a holding, and return whether it was accepted."""

    async def end(self, stage: Stage, one: Any) -> None:
        """Use it up."""
        assert await self.works(stage, one)


class Session(Holding):
    life_s = 1500

    async def begin(self, stage: Stage) -> Any:
        name = stage.new_name()
        return name, (await signed_in(stage.world, stage.app, name)).cookies

    async def works(self, stage: Stage, one: Any) -> bool:
        browser = PageClient(stage.app, follows=False, cookies=dict(one[1]))
        return (await browser.get("/account")).status == 200

    async def end(self, stage: Stage, one: Any) -> None:
        person = registry.find_person(stage.world.db.read(), one[0]).person_id
        await act(stage.world, "test.end", lambda a: end_sessions(a, person))


class SetupLinkOfPerson(Holding):
    life_s = 3600

    async def begin(self, stage: Stage) -> Any:
        return await invite(stage.world, stage.new_name())

    async def works(self, stage: Stage, one: Any) -> bool:
        browser = PageClient(stage.app)
        await browser.get(one.removeprefix(ISSUER))
        if browser.answer.status != 200:
            return False
        await browser.set_up(one)
        return browser.path == "/account"


class OneTimeCode(Holding):
    life_s: float = 30

    async def begin(self, stage: Stage) -> Any:
        name = stage.new_name()
        secret = await add_totp(await signed_in(stage.world, stage.app, name), stage.world.now)  # type: ignore[arg-type]
        return name, hotp(secret, stage.world.now() // STEP + 1)  # the code of this step was used

    async def works(self, stage: Stage, one: Any) -> bool:
        browser = PageClient(stage.app)
        await browser.log_in(one[0])
        await browser.submit("/login/code", code=one[1])
        return SESSION_COOKIE in browser.cookies


class PasswordAfterFailures(Holding):
    """A password, which ends when too many attempts for its account have failed, for a quarter of an hour."""

    expires, over_s = False, LONGEST_WAIT / SECOND

    async def begin(self, stage: Stage) -> Any:
        name = stage.new_name()
        await signed_in(stage.world, stage.app, name)
        return name

    async def works(self, stage: Stage, one: Any) -> bool:
        browser = PageClient(stage.app)
        await browser.log_in(one)
        return SESSION_COOKIE in browser.cookies

    async def end(self, stage: Stage, one: Any) -> None:
        slot = slot_of(stage.world.keys, ACCOUNT, one).name
        await stage.world.writer.submit(lambda tx: people.set_failures(tx, slot, Failures(20, tx.now)))


class AuthorizationCode(Holding):
    life_s = 60

    async def begin(self, stage: Stage) -> Any:
        return (await stage.flow.answer())["code"]

    async def works(self, stage: Stage, one: Any) -> bool:
        return (await stage.flow.redeem(one)).status == 200


class PushedRequest(Holding):
    life_s = 600

    async def begin(self, stage: Stage) -> Any:
        return (await stage.flow.push()).json["request_uri"]

    async def works(self, stage: Stage, one: Any) -> bool:
        flow = stage.flow
        flow.browser.left_to = ""
        query = urlencode({"client_id": flow.client.id, "request_uri": one})
        answer = await flow.browser.get(f"/authorize?{query}")
        if answer.status == 200 and "/consent" in flow.browser.text:
            await flow.allow()
        return "code=" in flow.browser.left_to


class DeviceCode(Holding):
    life_s = 600

    async def begin(self, stage: Stage) -> Any:
        flow = stage.flow
        answer = await flow.client.post("/device_authorization", flow.authenticated(scope="files:read"))
        await flow.browser.get(answer.json["verification_uri_complete"].removeprefix(ISSUER))
        await flow.browser.submit("/device")
        await flow.browser.submit("/device/consent", decision="allow")
        assert "The device is connected" in flow.browser.text
        return answer.json["device_code"]

    async def works(self, stage: Stage, one: Any) -> bool:
        return (await stage.flow.token(grant_type=DEVICE_CODE, device_code=one)).status == 200


class RefreshToken(Holding):
    async def begin(self, stage: Stage) -> Any:
        return (await stage.flow.tokens())["refresh_token"]

    async def works(self, stage: Stage, one: Any) -> bool:
        return (await stage.flow.refresh(one)).status == 200

    async def end(self, stage: Stage, one: Any) -> None:
        """Rotate it twice, so that its answer counts as received."""
        second = (await stage.flow.refresh(one)).json["refresh_token"]
        assert await self.works(stage, second)


class Assertion(Holding):
    life_s = 50

    async def begin(self, stage: Stage) -> Any:
        return stage.flow.client.assertion()

    async def works(self, stage: Stage, one: Any) -> bool:
        return (await stage.flow.token(client_assertion=one, resource=FILES)).status == 200


class DpopProof(Holding):
    life_s = 50

    async def begin(self, stage: Stage) -> Any:
        await stage.flow.client.ask(resource=FILES)
        return stage.flow.client.proof()

    async def works(self, stage: Stage, one: Any) -> bool:
        return (await stage.flow.client.ask(proof=one, resource=FILES)).status == 200


class VaultToken(Holding):
    life_s = 300

    async def begin(self, stage: Stage) -> Any:
        return (await stage.bot.login()).token

    async def works(self, stage: Stage, one: Any) -> bool:
        return await stage.bot.status("GET", "auth/token/lookup-self", token=one) == 200

    async def end(self, stage: Stage, one: Any) -> None:
        assert await stage.bot.status("POST", "auth/token/revoke-self", token=one) in (200, 204)


class WrappedAnswer(Holding):
    life_s = 300  # with the token of its maker

    async def begin(self, stage: Stage) -> Any:
        await stage.bot.login()
        brief = [("x-vault-wrap-ttl", "3600s")]
        answer = await stage.bot.ask("POST", "sys/wrapping/wrap", {"a": 1}, headers=brief)
        return answer.json["wrap_info"]["token"]

    async def works(self, stage: Stage, one: Any) -> bool:
        return await stage.bot.status("PUT", "sys/wrapping/unwrap", token=one) == 200


class AcmeNonce(Holding):
    life_s = 600

    async def begin(self, stage: Stage) -> Any:
        return await AcmeClient(stage.app).nonce()

    async def works(self, stage: Stage, one: Any) -> bool:
        client = AcmeClient(stage.app, jose.generate("ES256"), nonces=[one])
        return kind_of(await client.post("new-account", {"onlyReturnExisting": True})) != "badNonce"


class Consent(Holding):
    """A remembered consent, with which an application is answered without a page."""

    life_s = 30 * 86_400

    async def begin(self, stage: Stage) -> Any:
        flow = await begin_flow(stage.world, stage.app, name=stage.new_name())
        await flow.answer()
        return flow

    async def works(self, stage: Stage, one: Any) -> bool:
        one.browser.app, one.browser.left_to = stage.app, ""
        await sign_in(stage.world, one.browser, one.person)
        await one.open()
        return "code=" in one.browser.left_to

    async def end(self, stage: Stage, one: Any) -> None:
        [consent] = [c for c in tokens.list_consents(stage.world.db.read(), one.person) if c.agent == one.client.id]
        await act(stage.world, "consent.withdraw", lambda a: tokens.withdraw(a, consent.consent_id))


class ElevationWindow(Holding):
    """The task of an elevation, with which an agent gets tokens for further scopes."""

    life_s = 1800

    async def begin(self, stage: Stage) -> Any:
        agent, key = await register(stage.world, name=stage.new_name(), scopes=("files:read",))
        await act(stage.world, "elevation.allow", lambda a: tasks.set_eligible(a, agent.agent_id, ["files:write"]))
        asked = approvals.ElevationRequest(scopes=["files:write"], reason="to repair the report")
        caller, config = agent_caller(agent), stage.world.config
        task, _ = await act(
            stage.world, "elevation.request", lambda a: approvals.request(a, asked, by=caller, config=config)
        )
        assert task is not None
        return Client(stage.app, stage.world, agent.agent_id, key), task.task_id

    async def works(self, stage: Stage, one: Any) -> bool:
        client: Client = one[0]
        client.app, client.world = stage.app, stage.world
        await client.ask()  # for a nonce
        return (await client.ask(task=one[1], scope="files:write")).status == 200

    async def end(self, stage: Stage, one: Any) -> None:
        await act(stage.world, "task.end", lambda a: tasks.cancel(a, one[1]))


class ValidCertificate(Holding):
    """A certificate that the server says is good."""

    expires = False

    async def begin(self, stage: Stage) -> Any:
        return await issue(stage.world, agent="bot")

    async def works(self, stage: Stage, one: Any) -> bool:
        answer = await post(stage.app, question(one))
        assert answer.next_update_utc is not None
        now = stage.world.now() / SECOND
        assert answer.this_update_utc.timestamp() <= now < answer.next_update_utc.timestamp()
        return answer.certificate_status == GOOD

    async def end(self, stage: Stage, one: Any) -> None:
        await revoke(stage.world, one.certificate.serial)


class RecoveryCode(OneTimeCode):
    """A recovery code, which has no end, and signs a person in once."""

    expires, life_s = False, Holding.life_s

    async def begin(self, stage: Stage) -> Any:
        name = stage.new_name()
        browser = await signed_in(stage.world, stage.app, name)
        await add_totp(browser, stage.world.now)  # type: ignore[arg-type]
        return name, recovery_codes(browser)[0]


class JoinTokenOfAgent(Holding):
    life_s = 3600

    async def begin(self, stage: Stage) -> Any:
        name = stage.new_name()

        def make(act: Act) -> str:
            registry.create_agent(act, AgentSpec(name=name, owner="ann", purpose="is new"))
            return trust.create_join_token(act, name).secret

        return await act(stage.world, "join.create", make)

    async def works(self, stage: Stage, one: Any) -> bool:
        key, now = jose.generate("ES256"), stage.world.now() // SECOND
        claims = {"aud": ISSUER, "iat": now, "exp": now + 60, "jth": jose.b64u(sha256(one.encode()).digest())}
        proof = sign(key, {"typ": "enrol+jwt"}, claims)
        body = json.dumps({"join_token": one, "jwk": key.public.jwk, "proof": proof}).encode()
        headers = [("content-type", "application/json")]
        return (await send(stage.app, "POST", "/enrol", headers=headers, body=body)).status == 201


class AcmeKeyOfAgent(Holding):
    """A MAC key, with which a client creates one ACME account."""

    life_s = 30 * 86_400

    async def begin(self, stage: Stage) -> Any:
        def make(act: Act) -> acme.NewAcmeKey:
            return acme.create_key(act, agent="bot", person=None, config=stage.world.config)

        return await act(stage.world, "acme.create_key", make)

    async def works(self, stage: Stage, one: Any) -> bool:
        return (await AcmeClient(stage.app).register(one.key.kid, one.mac_key)).status == 201


class AcmeOrder(Holding):
    """A pending order, which waits for the proof of its names."""

    life_s = 86_400

    async def begin(self, stage: Stage) -> Any:
        made, client = await AcmeKeyOfAgent().begin(stage), AcmeClient(stage.app)
        assert (await client.register(made.key.kid, made.mac_key)).status == 201
        order = await client.order("dns:host.example")
        assert order.status == 201, order
        return client, order

    async def works(self, stage: Stage, one: Any) -> bool:
        client, order = one
        client.app, client.nonces = stage.app, []
        answer = await client.post(order.headers["location"])
        return answer.status == 200 and bool(answer.json["status"] == "pending")

    async def end(self, stage: Stage, one: Any) -> None:
        client, order = one
        [url] = order.json["authorizations"]
        assert (await client.post(url, {"status": "deactivated"})).status == 200


HOLDINGS: tuple[Holding, ...] = (
    Session(),
    SetupLinkOfPerson(),
    OneTimeCode(),
    PasswordAfterFailures(),
    AuthorizationCode(),
    PushedRequest(),
    DeviceCode(),
    RefreshToken(),
    Assertion(),
    DpopProof(),
    VaultToken(),
    WrappedAnswer(),
    AcmeNonce(),
    Consent(),
    ElevationWindow(),
    ValidCertificate(),
    RecoveryCode(),
    JoinTokenOfAgent(),
    AcmeKeyOfAgent(),
    AcmeOrder(),
)


@pytest.fixture
async def stage(config: Config) -> AsyncIterator[Stage]:
    stage = Stage(config, MachineClock(BEGIN))
    await stage.open()
    await stage.prepare()
    yield stage
    await stage.close()


async def which_work(stage: Stage, ones: list[tuple[Holding, Any]]) -> list[str]:
    return [type(holding).__name__ for holding, one in ones if await holding.works(stage, one)]


async def check_that_a_person_leaves_and_returns(stage: Stage) -> None:
    """Check that a person who leaves is signed out, and that a setup link works a millisecond after the return."""
    name, _ = one = await (session := Session()).begin(stage)
    await act(stage.world, "person.leave", lambda a: registry.revoke_owner(a, name))
    assert not await session.works(stage, one)
    await act(stage.world, "person.return", lambda a: registry.return_person(a, name))
    stage.machine.advance(0.001)
    assert await session.works(stage, (name, (await signed_in(stage.world, stage.app, name)).cookies))


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("is_confirmed", [False, True], ids=["unconfirmed", "confirmed"])
@pytest.mark.parametrize("kind", ["runs", "restarts", "reboots"])
@pytest.mark.parametrize("step", [3600, FOLLOWED_S, -FOLLOWED_S, -3600])
async def test_a_clock_step_neither_revives_expired_credentials_nor_ends_live_ones(
    stage: Stage, step: int, kind: str, is_confirmed: bool, tally: Tally
) -> None:
    expired = [(one, await one.begin(stage)) for one in HOLDINGS if one.expires]
    await stage.pass_time(400 * DAY / SECOND)
    await sign_in(stage.world, stage.flow.browser, stage.flow.person)
    live = [(one, await one.begin(stage)) for one in HOLDINGS]
    spent = [(one, await one.begin(stage)) for one in HOLDINGS]
    for holding, one in spent:
        await holding.end(stage, one)
    await stage.pass_time(31)
    passed_s = step if step == FOLLOWED_S or (is_confirmed and step > 0) else 0
    over = expired + [(holding, one) for holding, one in spent if holding.over_s > passed_s + 40]
    again, tried = list[str](), 0
    for by in (step, -step) if step > 0 else (step,):
        await stage.step(by)
        if is_confirmed and abs(stage.world.now.ahead) > SEEN:
            await stage.confirm()
        if kind == "reboots":
            stage.reboot()
        if kind != "runs":
            await stage.restart()
        again += await which_work(stage, over)
        tried += len(over)
        await check_that_a_person_leaves_and_returns(stage)
    assert again == []
    tally("nothing that has ended or was used works again after a step of the clock", broken=len(again), of=tried)
    left = [(holding, one) for holding, one in live if holding.life_s > passed_s + 40]
    missing = sorted({type(holding).__name__ for holding, _ in left} - set(await which_work(stage, left)))
    assert missing == []
    tally("nothing has ended because of a step of the clock", broken=len(missing), of=len(left))
    await stage.pass_time(2 * LONGEST_WAIT / SECOND)
    [throttled] = [(holding, one) for holding, one in spent if holding.over_s < 1e9]
    assert await which_work(stage, [throttled]), "a wait has an end"
    times = [decode_entry(body).at for body in ledger.list_entry_bodies(stage.world.db.read(), 0, 100_000)]
    tally("the times of entries never decrease", broken=steps_back(times), of=len(times))


ASK = "approval.ask"


async def tell(world: World) -> None:
    """Run one round of deliveries, and wait until all of them have ended."""
    await wire_webhooks.deliver_due(world)
    await asyncio.gather(*world.get_singleton(wire_webhooks.RunningDeliveries).running.values())


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize("step", [3600, -3600])
async def test_a_failed_delivery_is_repeated_within_twice_its_delay_despite_a_clock_step(
    stage: Stage, step: int
) -> None:
    """During an unconfirmed jump forward, and after a confirmed step back."""
    with receiving() as receiver:
        world = reconfigured(stage.world, private_hosts="127.0.0.1")
        adding = partial(webhooks.add, url=receiver.url, actions=(ASK,), private=world.config.private)
        await act(world, "webhook.add", adding)
        await act(world, ASK, lambda a: None)
        receiver.answers = [(500, {})]
        await tell(world)
        await stage.step(step)
        if step < 0:
            await stage.confirm()
        await stage.pass_time(2 * DELAYS_S[0] + 2)
        await tell(world)
        assert (len(receiver.ids), len(set(receiver.ids))) == (2, 1)


WEEK_S = 7 * 86_400
PLACE = wire_aws._Place(ArnScope("us-east-1", "0" * 12), bytes)


@pytest.mark.parametrize("database", ["sqlite"])
async def test_a_scheduled_deletion_waits_for_its_week_despite_steps_of_the_wall_clock(stage: Stage) -> None:
    body = wire_aws._Body(Name="shop", SecretString="one", ClientRequestToken="a" * 32, RecoveryWindowInDays=7)
    for flow in (wire_aws._create, wire_aws._delete):
        await act(stage.world, "vault.write", lambda a, flow=flow: flow(a, "shop", body, PLACE))  # type: ignore[misc]
    for step in (2 * WEEK_S, -4 * WEEK_S, 2 * WEEK_S):
        await stage.step(step)
        await stage.restart()
        await stage.pass_time(1)
        assert keyvalue.version_numbers(stage.world.db.read(), "secret", "shop") == [1]
    await stage.pass_time(WEEK_S)
    assert keyvalue.version_numbers(stage.world.db.read(), "secret", "shop") == []
