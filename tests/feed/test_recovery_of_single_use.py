"""Objects of single use that the lost part of the history may have used are refused after a recovery."""

from __future__ import annotations

from hashlib import sha256

import pytest

from harness.clock import Clock, SeededRandom
from harness.registry_fixtures import create_person, register_agent, run_act
from ostiary.protocol import jose
from ostiary.protocol.errors import Refused
from ostiaryd.certs.flows import acme
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world
from ostiaryd.ledger import flows as ledger
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentSpec, AgentState
from ostiaryd.trust import flows as trust
from ostiaryd.trust.model.totp import STEP
from ostiaryd.trust.store import people
from tests.support.api_fixtures import ISSUER, SECOND, Client, oauth_app, register, sign
from tests.support.lost_history import finish, lose


@pytest.fixture
async def administrator(world: World) -> str:
    return (await register_agent(world, "root", scopes=["ostiary:admin"])).name


async def enrol(world: World, secret: str) -> None:
    """Register a new key with a join token."""
    key, now = jose.generate("ES256"), world.now() // SECOND
    claims = {"aud": ISSUER, "iat": now, "exp": now + 60, "jth": jose.b64u(sha256(secret.encode()).digest())}
    proof = sign(key, {"typ": "enrol+jwt"}, claims)
    await run_act(world, lambda a: trust.enrol(a, secret, key.public.jwk, unverified_proof=proof, issuer=ISSUER))


async def register_client(world: World, token: str) -> None:
    """Register an OAuth client with an initial access token."""
    body = {"client_name": "Example", "redirect_uris": ["http://localhost:3000/callback"]}
    await run_act(
        world,
        lambda a: trust.register_client(a, body, unverified_token=token, network="192.0.2.0", config=world.config),
    )


async def test_a_join_token_from_before_a_loss_registers_no_key(world: World, administrator: str) -> None:
    await run_act(
        world, lambda a: registry.create_agent(a, AgentSpec(name="newcomer", owner="alice", purpose="is new"))
    )
    token = await run_act(world, lambda a: trust.create_join_token(a, "newcomer"))
    await lose(world)
    await finish(world, administrator)
    with pytest.raises(Refused, match="join token"):
        await enrol(world, token.secret)
    assert registry.find_agent(world.db.read(), "newcomer").state is AgentState.PENDING
    again = await run_act(world, lambda a: trust.create_join_token(a, "newcomer"))
    await enrol(world, again.secret)
    assert registry.find_agent(world.db.read(), "newcomer").state is AgentState.ACTIVE


async def test_an_initial_access_token_from_before_a_loss_registers_no_client(world: World, administrator: str) -> None:
    made = await run_act(world, lambda a: trust.create_registration_token(a, lifetime_s=3600, uses=2))
    await register_client(world, made.token)
    await lose(world)
    await finish(world, administrator)
    with pytest.raises(Refused, match="initial access token"):
        await register_client(world, made.token)


async def test_an_unused_acme_key_from_before_a_loss_is_revoked(world: World, administrator: str) -> None:
    made = await run_act(
        world, lambda a: acme.create_key(a, agent=administrator, person=None, config=world.config), "acme.create_key"
    )
    await lose(world)
    await finish(world, administrator)
    assert acme.find_key(world.db.read(), made.key.kid).revoked_at is not None


async def test_a_totp_code_from_before_a_recovery_counts_as_used(
    world: World, administrator: str, clock: Clock
) -> None:
    person = await create_person(world, "ben")
    step = clock() // STEP
    await run_act(world, lambda a: people.set_totp(a.tx, person, b"sealed", step=step - 5))
    await lose(world)
    await finish(world, administrator)
    assert not await run_act(world, lambda a: people.use_totp(a.tx, person, step=step))
    assert await run_act(world, lambda a: people.use_totp(a.tx, person, step=step + 1))


async def test_an_assertion_from_before_a_loss_is_refused_by_every_later_server(config: Config, clock: Clock) -> None:
    async with open_world(config, now=clock, random=SeededRandom("one")) as world:
        agent, key = await register(world)
        client = Client(oauth_app(world), world, agent.agent_id, key)
        await client.token()
        spent = client.assertion()
        clock.advance(2)
        await lose(world)
        await finish(world, "admin", "reader")
        clock.advance(1)
        await check_replay(client, spent)
    async with open_world(config, now=clock, random=SeededRandom("two")) as world:
        await ledger.check_history(world)
        later = Client(oauth_app(world), world, client.id, client.key, client.nonce)
        await check_replay(later, spent)


async def check_replay(client: Client, spent: str) -> None:
    """Check that an assertion is refused, and that a new one of the same client is accepted."""
    answer = await client.ask(client_assertion=spent)
    if answer.error == "use_dpop_nonce":
        answer = await client.ask(client_assertion=spent)
    assert (answer.status, "before this server entered recovery" in answer.body.decode()) == (503, True), answer.body
    assert await client.token()
