"""RFC 7662 section 2 and RFC 7009 section 2: who may know of a token, what is said of it, and its end by its client."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import feed_messages
from ostiary.authorization.claims import ACCESS_TYP
from ostiary.protocol import dpop, jose
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from tests.conformance.table import check_table, row
from tests.support.api_fixtures import (
    FILES,
    ISSUER,
    SECOND,
    Answer,
    Client,
    claims_of,
    guard,
    oauth_app,
    register,
    sign,
)

API = f"{ISSUER}/api/v1"
UNKNOWN = {"active": False}
NOBODY = "invalid_client"


@pytest.fixture
async def client(world: World) -> Client:
    agent, key = await register(world)
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.token()
    return client


async def another(client: Client, *, name: str = "other", scopes: tuple[str, ...] = ("files:read",)) -> Client:
    agent, key = await register(client.world, name=name, scopes=scopes)
    return replace(client, id=agent.agent_id, key=key)


async def about(asker: Client, token: str, /, *, at: str = "/introspect", **said: Any) -> Answer:
    """Ask about a token, or end it, as that client."""
    said = {"client_assertion": asker.assertion()} | said
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    return await asker.post(at, {"token": token, "client_assertion_type": kind} | said)


async def is_active(asker: Client, token: str) -> bool:
    answer = await about(asker, token)
    assert answer.status == 200, answer.body
    assert answer.json["active"] or answer.json == UNKNOWN
    return bool(answer.json["active"])


async def test_a_client_hears_everything_of_its_own_token(client: Client) -> None:
    got = await client.token(scope="files:read")
    answer = await about(client, got["access_token"])
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json == {"active": True, "token_type": "DPoP", **claims_of(got["access_token"])}


async def test_who_may_know_of_a_token(client: Client) -> None:
    token = (await client.token())["access_token"]
    here = (await client.token(resource=API))["access_token"]
    guard_id, guard_key = await guard(client.world)
    files = replace(client, id=guard_id, key=guard_key)
    admin = await another(client, name="chief", scopes=("ostiary:admin",))
    reader = await another(client, name="auditor", scopes=("ostiary:read",))
    other = await another(client)
    assert [await is_active(who, token) for who in (client, files, admin, reader, other)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert [await is_active(who, here) for who in (client, files, admin, reader, other)] == [
        True,
        False,
        True,
        False,
        False,
    ]


async def test_a_token_that_is_none_of_ours_is_not_active(client: Client) -> None:
    token = (await client.token())["access_token"]
    claims = claims_of(token)
    head, _, signature = token.rpartition(".")
    flipped = "B" if signature[9] == "A" else "A"
    feed_key = client.world.keys.signer("feed")
    signer = client.world.keys.signer("token", "ES256")
    assertion = client.assertion()
    unknown = jose.sign_jwt(signer, typ=ACCESS_TYP, claims=claims | {"jti": "tok_" + "0" * 32})
    other_type = jose.sign_jwt(signer, typ="JWT", claims=claims)
    other_issuer = jose.sign_jwt(signer, typ=ACCESS_TYP, claims=claims | {"iss": "https://other.example"})
    wrong = {
        "garbage": "garbage",
        "the dots alone": "..",
        "a letter of the signature": f"{head}.{signature[:9]}{flipped}{signature[10:]}",
        "no signature": head + ".",
        "by the client's key": sign(client.key, {"typ": ACCESS_TYP}, claims),
        "by the client's key under our kid": sign(client.key, {"typ": ACCESS_TYP, "kid": signer.public.kid}, claims),
        "by our key for something else": jose.sign_jwt(feed_key, typ=ACCESS_TYP, claims=claims),
        "of another type": other_type,
        "of another issuer": other_issuer,
        "that nobody holds": unknown,
        "an assertion": assertion,
        "long": "a" * 16_000,
    }
    assert {what: await is_active(client, value) for what, value in wrong.items()} == dict.fromkeys(wrong, False)
    assert await is_active(client, token)


async def test_a_token_is_active_until_it_expires(client: Client, clock: Clock) -> None:
    token = (await client.token())["access_token"]
    clock.now = claims_of(token)["exp"] * SECOND - 1
    assert await is_active(client, token)
    clock.advance(us=1)
    assert not await is_active(client, token)


async def test_who_asks_must_prove_who_it_is(client: Client) -> None:
    token = (await client.token())["access_token"]
    for path in ("/introspect", "/revoke"):

        async def ask(path: str = path, **said: Any) -> Answer:
            return await about(client, token, at=path, **said)

        used = client.assertion()
        await check_table(
            [
                row("no assertion", NOBODY, client_assertion=None),
                row("a password", NOBODY, client_assertion=None, client_secret="secret"),
                row("an assertion for another audience", NOBODY, client_assertion=client.assertion(aud=API)),
                row("no token", "invalid_request", token=None),
                row("an empty token", "invalid_request", token=""),
                row("two tokens", "invalid_request", token=[token, token]),
                row("an assertion", client_assertion=used, token_type_hint="refresh_token"),
                row("an assertion twice", NOBODY, client_assertion=used),
            ],
            ask,
        )


async def with_token(
    asker: Client, access: str, form: dict[str, str], *, at: str = "/introspect", **said: Any
) -> Answer:
    """Ask with an access token for our own API and a proof of its key."""
    nonce = dpop.make_nonce(asker.world.keys.secret("nonce"), b"rs", asker.world.now())
    proof = asker.proof(uri=ISSUER + at, access_token=access, **{"nonce": nonce} | said)
    return await asker.post(at, form, authorization=f"DPoP {access}", dpop=proof)


async def test_an_access_token_for_our_own_api_proves_who_asks_too(client: Client) -> None:
    token = (await client.token())["access_token"]
    access = (await client.token(resource=API))["access_token"]
    assert (await with_token(client, access, {"token": token})).json["active"]
    elsewhere = await with_token(client, token, {"token": token})
    assert (elsewhere.status, elsewhere.error) == (401, "invalid_token")
    assert elsewhere.headers["www-authenticate"].startswith('DPoP error="invalid_token"')
    without = await with_token(client, access, {"token": token}, nonce=None)
    assert (without.status, without.error) == (401, "use_dpop_nonce")
    assert without.headers["www-authenticate"].startswith('DPoP error="use_dpop_nonce"')
    assert len(without.headers["dpop-nonce"]) == 32
    stranger = await with_token(client, access, {"token": token}, key=jose.generate("ES256"))
    assert (stranger.status, stranger.error) == (401, "invalid_dpop_proof")
    as_bearer = await client.post("/introspect", {"token": token}, authorization=f"Bearer {access}")
    assert (as_bearer.status, as_bearer.error) == (401, "invalid_token")


async def test_an_access_token_and_an_assertion_together_are_one_too_many(client: Client) -> None:
    access = (await client.token(resource=API))["access_token"]
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    form = {"token": access, "client_assertion": client.assertion(), "client_assertion_type": kind}
    assert (await with_token(client, access, form)).error == "invalid_request"


async def test_a_client_ends_its_own_token_and_hears_the_same_of_one_that_is_none(client: Client) -> None:
    token = (await client.token())["access_token"]
    kept = (await client.token())["access_token"]
    for value in (token, token, "garbage", token + "x"):
        answer = await about(client, value, at="/revoke")
        assert (answer.status, answer.body) == (200, b"")
    assert (await is_active(client, token), await is_active(client, kept)) == (False, True)


async def test_guards_hear_of_a_token_that_its_client_ended(client: Client) -> None:
    token = (await client.token())["access_token"]
    await about(client, token, at="/revoke")
    claims = claims_of(token)
    assert feed_messages(client.world)[-1] == {"kind": "token", "jti": claims["jti"], "until": claims["exp"] * SECOND}


async def test_a_client_does_not_end_the_token_of_another(client: Client) -> None:
    token = (await client.token())["access_token"]
    other = await another(client)
    assert (await about(other, token, at="/revoke")).error == "invalid_grant"
    assert await is_active(client, token)


async def test_a_token_that_has_expired_is_ended_without_a_word(client: Client, clock: Clock) -> None:
    token = (await client.token())["access_token"]
    clock.now = claims_of(token)["exp"] * SECOND
    assert (await about(client, token, at="/revoke")).status == 200


@pytest.mark.parametrize("end", ["agent", "key", "resume", "decommission"])
async def test_a_token_ends_with_what_it_rests_on(client: Client, end: str) -> None:
    token = (await client.token())["access_token"]
    admin = await another(client, name="chief", scopes=("ostiary:admin",))
    flows = {
        "agent": lambda act: registry.revoke_agent(act, client.id),
        "key": lambda act: registry.revoke_key(act, client.key.public.thumbprint),
        "resume": lambda act: [registry.set_agent_state(act, client.id, verb) for verb in (Verb.SUSPEND, Verb.RESUME)],
        "decommission": lambda act: registry.set_agent_state(act, client.id, Verb.DECOMMISSION),
    }
    assert await is_active(admin, token)
    await act(client.world, f"test.{end}", flows[end])
    assert not await is_active(admin, token)


async def test_a_key_ends_the_tokens_that_it_got_though_they_are_bound_to_another(client: Client) -> None:
    other = jose.generate("ES256")
    token = (await client.token(proof=client.proof(key=other)))["access_token"]
    admin = await another(client, name="chief", scopes=("ostiary:admin",))
    assert (claims_of(token)["cnf"]["jkt"], await is_active(admin, token)) == (other.public.thumbprint, True)
    await act(client.world, "test.key", lambda act: registry.revoke_key(act, client.key.public.thumbprint))
    assert not await is_active(admin, token)


async def test_the_audience_of_a_guard_is_its_resource_to_the_letter(client: Client) -> None:
    guard_id, guard_key = await guard(client.world)
    files = replace(client, id=guard_id, key=guard_key)
    there = (await client.token(resource=FILES + "/x"))["access_token"]
    assert not await is_active(files, there)
