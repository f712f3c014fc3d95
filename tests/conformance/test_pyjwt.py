"""PyJWT with its defaults makes client assertions: `jwt.encode` writes the type `JWT` and no key id."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import jwt
import pytest

from harness.clock import START
from ostiary.protocol import jose
from ostiaryd.ground.world import World
from tests.support.api_fixtures import ISSUER, SECOND, TOKEN, Client, oauth_app, reconfigured, register

NOW = START // SECOND


async def enter_client(world: World, alg: str) -> tuple[Client, jwt.PyJWK]:
    key = jose.generate(alg)
    agent, _ = await register(world, key=key)
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.token()
    return client, jwt.PyJWK(json.loads(json.dumps(key.jwk())))


def encode(client: Client, key: jwt.PyJWK, alg: str, **claims: Any) -> str:
    """A client assertion as OpenID Connect Core section 9 asks for one: `iat` is optional there."""
    good = {"iss": client.id, "sub": client.id, "aud": TOKEN, "exp": NOW + 60, "jti": uuid4().hex}
    return jwt.encode(good | claims, key.key, algorithm=alg)


@pytest.mark.parametrize("alg", ["ES256", "EdDSA", "RS256", "PS256"])
async def test_a_server_with_default_settings_accepts_assertions_of_pyjwt(world: World, alg: str) -> None:
    client, key = await enter_client(world, alg)
    assertion = encode(client, key, alg)
    assert jwt.get_unverified_header(assertion) == {"alg": alg, "typ": "JWT"}
    answer = await client.ask(client_assertion=assertion)
    assert (answer.status, answer.error) == (200, "")
    assert (await client.ask(client_assertion=assertion)).error == "invalid_client"
    for claims in ({"aud": ISSUER}, {"aud": [TOKEN]}, {"iat": NOW, "exp": NOW + 3600}):
        assert (await client.ask(client_assertion=encode(client, key, alg, **claims))).status == 200, claims


async def test_a_strict_server_refuses_default_assertions_of_pyjwt(world: World) -> None:
    client, key = await enter_client(reconfigured(world, client_assertions="strict"), "ES256")
    for claims in ({}, {"aud": ISSUER}, {"aud": ISSUER, "iat": NOW}):
        assert (await client.ask(client_assertion=encode(client, key, "ES256", **claims))).error == "invalid_client"
    good = {"iss": client.id, "sub": client.id, "aud": ISSUER, "iat": NOW, "exp": NOW + 60, "jti": uuid4().hex}
    typed = jwt.encode(good, key.key, algorithm="ES256", headers={"typ": "client-authentication+jwt"})
    assert (await client.ask(client_assertion=typed)).status == 200
