"""The exemption by name: tokens that are bound to no key, for clients that an administrator allowed them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ostiary.core.errors import NotFound
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.trust import flows, store
from tests.clock import Clock
from tests.registry.stage import newest
from tests.tokens.party import ISSUER, SECOND, TOKEN, Answer, Client, claims_of, enter, oauth_app, reconfigured, send
from tests.trust.stage import API, api_app, call


@pytest.fixture
async def client(world: World) -> Client:
    """An agent of a strict server, where only the exemption makes a client compatible."""
    strict = reconfigured(world, client_assertions="strict")
    agent, key = await enter(strict)
    client = Client(oauth_app(strict), strict, agent.agent_id, key)
    await client.ask()
    return client


async def allow(client: Client, *, name: str = "reader") -> None:
    await act(client.world, "bearer.allow", lambda act: flows.allow_bearer(act, name))


async def present(client: Client, token: str, scheme: str = "Bearer") -> Answer:
    return await send(api_app(client.world), "GET", "/api/v1/whoami", headers=[("authorization", f"{scheme} {token}")])


async def bearer_token(client: Client) -> str:
    answer = await client.ask(proof=None, resource=API)
    assert answer.json["token_type"] == "Bearer"
    return str(answer.json["access_token"])


async def test_who_is_allowed_gets_and_uses_a_token_that_is_bound_to_no_key(client: Client) -> None:
    assert (await client.ask(proof=None)).error == "invalid_dpop_proof"
    await allow(client)
    token = await bearer_token(client)
    assert "cnf" not in claims_of(token)
    answer = await present(client, token)
    assert (answer.status, answer.json["id"], answer.json["jkt"]) == (200, client.id, None)
    assert (await present(client, token, "DPoP")).status == 401


async def test_who_is_allowed_and_shows_a_proof_gets_a_bound_token(client: Client) -> None:
    await allow(client)
    token = (await client.token(resource=API))["access_token"]
    assert claims_of(token)["cnf"] == {"jkt": client.key.public.thumbprint}
    assert (await present(client, token)).status == 401


async def test_the_exemption_of_one_is_none_of_another(client: Client) -> None:
    agent, key = await enter(client.world, name="other")
    await allow(client, name="other")
    other = replace(client, id=agent.agent_id, key=key)
    assert (await other.ask(proof=None, resource=API)).status == 200
    assert (await client.ask(proof=None, resource=API)).error == "invalid_dpop_proof"


async def test_what_is_forbidden_ends_at_once_and_bound_tokens_live_on(client: Client) -> None:
    await allow(client)
    unbound, bound = await bearer_token(client), (await client.token(resource=API))["access_token"]
    await act(client.world, "bearer.forbid", lambda act: flows.forbid_bearer(act, client.id))
    assert newest(client.world).detail == {"name": "reader", "ended": {"token": 1}}
    assert (await present(client, unbound)).status == 401
    assert (await call(client, bound)).status == 200
    assert (await client.ask(proof=None, resource=API)).error == "invalid_dpop_proof"
    await allow(client)
    assert (await present(client, unbound)).status == 401


async def test_the_exemption_is_asked_for_with_each_request_too(client: Client) -> None:
    await allow(client)
    token = await bearer_token(client)
    await act(client.world, "test", lambda a: store.set_bearer(a.tx, client.id, False))
    assert (await present(client, token)).status == 401


async def test_who_is_allowed_may_call_its_assertions_JWT_and_nothing_else(client: Client) -> None:
    def typed(typ: str) -> str:
        return client.assertion(header={"typ": typ})

    assert (await client.ask(client_assertion=typed("JWT"))).error == "invalid_client"
    await allow(client)
    assert (await client.ask(client_assertion=typed("JWT"))).status == 200
    assert (await client.ask(client_assertion=typed("at+jwt"))).error == "invalid_client"


async def test_who_is_allowed_may_name_endpoints_of_the_server_and_nothing_else(client: Client) -> None:
    audiences: list[tuple[object, bool]] = [
        (TOKEN, True), ([TOKEN], True), ([TOKEN, ISSUER], True), (f"{ISSUER}/introspect", True), (ISSUER, True),
        ([ISSUER], True), (TOKEN + "/", False), ([], False), ("https://else.example/token", False),
        ([TOKEN, "https://else.example/token"], False),
    ]  # fmt: skip
    for aud, _ in audiences[:4]:
        assert (await client.ask(client_assertion=client.assertion(aud=aud))).error == "invalid_client"
    await allow(client)
    for aud, is_taken in audiences:
        answer = await client.ask(client_assertion=client.assertion(aud=aud))
        assert (answer.error == "") is is_taken, aud


async def test_an_assertion_that_says_it_lives_longer_is_taken_for_five_minutes_once(
    client: Client, clock: Clock
) -> None:
    now = clock.now // SECOND
    longer = client.assertion(iat=now, exp=now + 3600)
    assert (await client.ask(client_assertion=longer)).error == "invalid_client"
    await allow(client)
    assert (await client.ask(client_assertion=longer)).status == 200
    assert (await client.ask(client_assertion=longer)).error == "invalid_client"
    unused, late = (client.assertion(iat=now, exp=now + 3600) for _ in range(2))
    clock.advance(us=300 * SECOND - 1)
    assert (await client.ask(proof=None, client_assertion=unused)).status == 200
    clock.advance(us=1)
    assert (await client.ask(proof=None, client_assertion=late)).error == "invalid_client"


async def test_an_assertion_without_a_proof_is_good_once_too(client: Client) -> None:
    await allow(client)
    assertion = client.assertion()
    asked = [await client.ask(proof=None, resource=API, client_assertion=assertion) for _ in range(2)]
    assert [answer.error for answer in asked] == ["", "invalid_client"]


async def test_administrators_switch_it_on_and_off(client: Client) -> None:
    agent, key = await enter(client.world, name="chief", scopes=("ostiary:admin", "ostiary:read"))
    chief = replace(client, id=agent.agent_id, key=key)
    token = (await chief.token())["access_token"]
    mine = (await client.token(resource=API))["access_token"]
    path = "/api/v1/agents/reader/bearer"
    assert (await call(client, mine, path, method="PUT")).status == 403
    assert (await call(client, mine, path)).status == 403
    assert (await call(chief, token, path)).json == {"bearer": False}
    assert (await call(chief, token, path, method="PUT")).status == 204
    assert store.is_bearer(client.world.db.read(), client.id)
    assert (await call(chief, token, path)).json == {"bearer": True}
    assert (await call(chief, token, path, method="DELETE")).status == 204
    assert not store.is_bearer(client.world.db.read(), client.id)
    assert newest(client.world).agent == chief.id


async def test_nobody_is_exempt_who_is_not_there(client: Client) -> None:
    with pytest.raises(NotFound):
        await allow(client, name="nobody")
    assert registry.find_agent(client.world.db.read(), "reader").agent_id == client.id
