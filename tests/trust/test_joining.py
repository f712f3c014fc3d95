"""Join tokens: each enrols the first key of an agent once, with a proof of that key."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import newest_entry
from ostiary.protocol import jose
from ostiary.protocol.errors import Conflict, Invalid
from ostiaryd.ground.database import sql
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentSpec, AgentState, Verb
from ostiaryd.registry.store import keys
from ostiaryd.trust import flows
from tests.support.api_fixtures import ISSUER, SECOND, Answer, Client, oauth_app, send, sign
from tests.support.trust_fixtures import api_app

HOUR = 3600


@pytest.fixture
async def pending(world: World) -> str:
    """The name of an agent that has no key yet."""

    def make(act: Any) -> None:
        registry.create_person(act, name="ann")
        registry.create_agent(act, AgentSpec(name="newcomer", owner="ann", purpose="is new"))

    await act(world, "test.enter", make)
    return "newcomer"


async def join_token(world: World, name: str, **said: Any) -> str:
    made = await act(world, "join.create", lambda act: flows.create_join_token(act, name, **said))
    return made.secret


def proof_for(world: World, key: jose.PrivateKey, secret: str, **said: Any) -> str:
    now = world.now() // SECOND
    good = {"aud": ISSUER, "iat": now, "exp": now + 60, "jth": jose.b64u(sha256(secret.encode()).digest())}
    return sign(key, {"typ": said.pop("typ", "enrol+jwt")}, good | said)


async def enrol(
    world: World, secret: str, *, key: jose.PrivateKey | None = None, proof: str = "", **said: Any
) -> Answer:
    key = key or jose.generate("ES256")
    body = {"join_token": secret, "jwk": key.public.jwk, "proof": proof or proof_for(world, key, secret, **said)}
    headers = [("content-type", "application/json")]
    return await send(api_app(world), "POST", "/enrol", headers=headers, body=json.dumps(body).encode())


def state(world: World) -> AgentState:
    return registry.find_agent(world.db.read(), "newcomer").state


async def test_a_workload_enrols_its_key_and_gets_tokens_with_it(world: World, pending: str) -> None:
    key = jose.generate("EdDSA")
    answer = await enrol(world, await join_token(world, pending), key=key)
    assert (answer.status, answer.json["issuer"], answer.json["kid"]) == (201, ISSUER, key.public.thumbprint)
    assert (state(world), answer.headers["cache-control"]) == (AgentState.ACTIVE, "no-store")
    client = Client(oauth_app(world), world, answer.json["agent_id"], key)
    got = await client.token(resource=world.config.api)
    assert got["token_type"] == "DPoP"


async def test_a_join_token_enrols_one_key_even_in_concurrent_requests(world: World, pending: str) -> None:
    secret = await join_token(world, pending)
    answers = await asyncio.gather(*[enrol(world, secret) for _ in range(8)])
    assert sorted(answer.status for answer in answers) == [201] + [401] * 7
    assert {answer.json["error"] for answer in answers if answer.status == 401} == {"invalid_join_token"}
    agent = registry.find_agent(world.db.read(), pending)
    assert len(keys.of_agent(world.db.read(), agent.agent_id)) == 1


async def test_a_newer_join_token_invalidates_an_older_one(world: World, pending: str) -> None:
    older, newer = await join_token(world, pending), await join_token(world, pending)
    assert [(await enrol(world, secret)).status for secret in (older, newer)] == [401, 201]


async def test_a_join_token_is_valid_until_the_instant_of_its_expiry(world: World, pending: str, clock: Clock) -> None:
    secret = await join_token(world, pending)
    clock.advance(HOUR)
    assert (await enrol(world, secret)).status == 401
    secret = await join_token(world, pending)
    clock.advance(HOUR, us=-1)
    assert (await enrol(world, secret)).status == 201


@pytest.mark.parametrize(("seconds", "good"), [(0, False), (1, True), (86_400, True), (86_401, False), (-1, False)])
async def test_a_join_token_has_a_lifetime_of_one_second_to_one_day(
    world: World, pending: str, seconds: int, good: bool
) -> None:
    making = join_token(world, pending, lifetime_s=seconds)
    if good:
        assert len(await making) == 43
    else:
        with pytest.raises(Invalid, match="1 to 86400"):
            await making


@pytest.mark.parametrize("guess", ["", "x", "A" * 43, "A" * 10_000, "\u00e4"])
async def test_a_guessed_join_token_is_refused_with_the_same_error(world: World, pending: str, guess: str) -> None:
    await join_token(world, pending)
    answer = await enrol(world, guess)
    assert (answer.status, answer.json["error"]) == (401, "invalid_join_token")
    assert state(world) is AgentState.PENDING


async def test_an_enrolment_proof_must_be_current_and_for_this_server_key_and_join_token(
    world: World, pending: str
) -> None:
    secret = await join_token(world, pending)
    now, key = world.now() // SECOND, jose.generate("ES256")
    wrong: dict[str, dict[str, Any]] = {
        "of another type": {"typ": "JWT"},
        "of no type": {"typ": None},
        "for somebody else": {"aud": "https://other.example"},
        "for us and somebody else": {"aud": [ISSUER, "https://other.example"]},
        "for nobody": {"aud": None},
        "expired": {"iat": now - 60, "exp": now},
        "without an end": {"exp": None},
        "without a beginning": {"iat": None},
        "from the future": {"iat": now + 11},
        "too long": {"exp": now + 301},
        "for another join token": {"jth": jose.b64u(sha256(b"another").digest())},
        "for no join token": {"jth": None},
        "for a number": {"jth": 7},
        "by another key": {"proof": proof_for(world, jose.generate("ES256"), secret)},
        "none": {"proof": "none"},
    }
    answers = {what: (await enrol(world, secret, key=key, **said)).status for what, said in wrong.items()}
    assert answers == dict.fromkeys(wrong, 401)
    assert (await enrol(world, secret, key=key, iat=now + 10, exp=now + 310)).status == 201


async def test_a_refused_enrolment_leaves_the_join_token_valid(world: World, pending: str) -> None:
    secret = await join_token(world, pending)
    assert (await enrol(world, secret, aud="https://other.example")).status == 401
    assert newest_entry(world).outcome == "refused"
    assert (await enrol(world, secret)).status == 201


async def test_a_suspended_agent_cannot_enrol_a_key_or_get_a_join_token(world: World, pending: str) -> None:
    secret = await join_token(world, pending)
    await act(world, "agent.move", lambda act: registry.set_agent_state(act, pending, Verb.SUSPEND))
    assert (await enrol(world, secret)).status == 409
    with pytest.raises(Conflict, match="is suspended"):
        await join_token(world, pending)


async def test_an_agent_with_a_key_cannot_enrol_a_key_or_get_a_join_token(world: World, pending: str) -> None:
    secret, key = await join_token(world, pending), jose.generate("ES256")
    await act(world, "key.add", lambda act: registry.add_key(act, pending, key.public.jwk))
    answer = await enrol(world, secret)
    assert (answer.status, answer.json["message"]) == (409, "the agent `newcomer` is active, not pending")
    agent = registry.find_agent(world.db.read(), pending)
    assert [one.jkt for one in keys.of_agent(world.db.read(), agent.agent_id)] == [key.public.thumbprint]
    with pytest.raises(Conflict, match="is active, not pending"):
        await join_token(world, pending)


async def test_the_secret_of_a_join_token_is_stored_only_as_a_digest(world: World, pending: str) -> None:
    secret = await join_token(world, pending)
    kept = world.db.read().all(sql("select digest from join_token"))
    assert [bytes(digest) for (digest,) in kept] == [sha256(secret.encode()).digest()]
    assert secret not in str(newest_entry(world))
    await enrol(world, secret)
    assert secret not in str(newest_entry(world))
    assert secret not in repr(flows.JoinToken("ag_1", secret, 0))
