"""RFC 9470 at the authorization server: what `acr`, `amr` and `auth_time` of a token say, and asking for more."""

from __future__ import annotations

from typing import Any

import pytest

from ostiary.authorization.assurance import KEY, LEVELS, TWO_KEYS
from ostiary.protocol import jose
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from tests.support.api_fixtures import SECOND, Client, claims_of, oauth_app, register, send

UNMET = "unmet_authentication_requirements"


@pytest.fixture
async def client(world: World) -> Client:
    agent, key = await register(world)
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.ask()
    return client


async def second_key(client: Client, *, of: str = "", **more: Any) -> jose.PrivateKey:
    """Another key that an administrator registers."""
    key, jwk = jose.generate("ES256"), dict
    await act(client.world, "test.key", lambda act: registry.add_key(act, of or client.id, jwk(key.public.jwk), **more))
    return key


def proved(answer: Any) -> tuple[str, list[str], int]:
    claims = claims_of(answer.json["access_token"])
    return claims["acr"], claims["amr"], claims["auth_time"]


async def test_one_key_is_one_factor_and_two_registered_keys_are_two(client: Client) -> None:
    now = client.world.now() // SECOND
    assert proved(await client.ask()) == (KEY, ["pop", "swk"], now)
    key = await second_key(client)
    assert proved(await client.ask(proof=client.proof(key=key))) == (TWO_KEYS, ["mfa", "pop", "swk"], now)


async def test_an_unregistered_key_does_not_count_as_a_second_factor(client: Client) -> None:
    answer = await client.ask(proof=client.proof(key=jose.generate("ES256")))
    assert proved(answer)[0] == KEY
    refused = await client.ask(proof=client.proof(key=jose.generate("ES256")), acr_values=TWO_KEYS)
    assert refused.error == UNMET


async def test_the_key_of_another_agent_is_refused_as_a_second_factor(client: Client) -> None:
    other, _ = await register(client.world, name="other")
    key = await second_key(client, of=other.agent_id)
    refused = await client.ask(proof=client.proof(key=key), acr_values=TWO_KEYS)
    assert refused.error == "invalid_dpop_proof"
    assert "belongs to another client" in refused.json["error_description"]


async def test_a_second_key_counts_until_it_ends_or_is_revoked(client: Client, clock: Any) -> None:
    now = client.world.now()
    ending = await second_key(client, not_after=now + 60 * SECOND)
    revoked = await second_key(client)
    clock.advance(us=60 * SECOND - 1)
    assert proved(await client.ask(proof=client.proof(key=ending)))[0] == TWO_KEYS
    clock.advance(us=1)
    refused = await client.ask(proof=client.proof(key=ending))
    assert refused.error == "invalid_dpop_proof"
    assert "was revoked or has expired" in refused.json["error_description"]
    assert proved(await client.ask(proof=client.proof(key=revoked)))[0] == TWO_KEYS
    thumbprint = revoked.public.thumbprint
    await act(client.world, "test.revoke", lambda act: registry.revoke_key(act, thumbprint))
    assert (await client.ask(proof=client.proof(key=revoked))).error == "invalid_dpop_proof"


async def test_a_token_has_a_requested_acr_or_is_refused(client: Client) -> None:
    key = await second_key(client)
    assert proved(await client.ask(acr_values=f"{TWO_KEYS} {KEY}"))[0] == KEY
    assert (await client.ask(acr_values=TWO_KEYS)).error == UNMET
    answer = await client.ask(proof=client.proof(key=key), acr_values=TWO_KEYS, max_age="0")
    assert proved(answer)[0] == TWO_KEYS
    assert (await client.ask(acr_values="urn:mace:incommon:iap:silver")).error == UNMET


async def test_a_malformed_acr_or_max_age_request_is_refused(client: Client) -> None:
    cases: list[tuple[str, str, str]] = [
        ("acr_values", f" {KEY}", KEY),
        ("acr_values", f'{KEY} "', f"{KEY} x"),
        ("acr_values", " ".join([KEY] * 17), " ".join([KEY] * 16)),
        ("max_age", "-1", "0"),
        ("max_age", "1.5", "1"),
        ("max_age", "1000000001", "1000000000"),
        ("max_age", "\u0661", "1"),
    ]
    for name, wrong, right in cases:
        assert (await client.ask(**{name: wrong})).error == "invalid_request", wrong
        assert (await client.ask(**{name: right})).error == "", right


async def test_metadata_and_introspection_contain_acr(client: Client) -> None:
    metadata = (await send(client.app, "GET", "/.well-known/oauth-authorization-server")).json
    assert metadata["acr_values_supported"] == list(LEVELS)
    token = (await client.token())["access_token"]
    form = {"token": token, "client_assertion_type": client.form()["client_assertion_type"]}
    told = (await client.post("/introspect", form | {"client_assertion": client.assertion()})).json
    assert (told["acr"], told["auth_time"]) == (KEY, client.world.now() // SECOND)


async def test_an_exchanged_token_has_the_weaker_acr_and_the_older_auth_time(client: Client, clock: Any) -> None:
    """The second key of the exchanging agent does not raise `acr`, and an exchange does not renew `auth_time`."""
    start = client.world.now() // SECOND
    deputy, deputy_key = await register(client.world, name="deputy")
    acting = Client(client.app, client.world, deputy.agent_id, deputy_key, client.nonce)
    strong = await second_key(acting)
    agents = f"https://ostiary.example.org/agents/{deputy.name}"
    weak = await client.token(resource=agents)
    subject = weak["access_token"]
    clock.advance(60)

    def asked(**more: Any) -> dict[str, Any]:
        kind = "urn:ietf:params:oauth:token-type:access_token"
        grant = "urn:ietf:params:oauth:grant-type:token-exchange"
        scope = {"scope": "files:read"}
        return {"grant_type": grant, "subject_token": subject, "subject_token_type": kind, **scope, **more}

    await acting.ask()
    answer = await acting.ask(proof=acting.proof(key=strong), **asked())
    assert proved(answer) == (KEY, ["pop", "swk"], start)
    assert (await acting.ask(proof=acting.proof(key=strong), **asked(acr_values=TWO_KEYS))).error == UNMET
    assert (await acting.ask(**asked(max_age="60"))).error == ""
    assert (await acting.ask(**asked(max_age="59"))).error == UNMET

    own = await second_key(client)
    await client.ask()
    stepped = await client.ask(proof=client.proof(key=own), resource=agents)
    subject = stepped.json["access_token"]
    assert proved(await acting.ask(**asked()))[0] == KEY
    assert proved(await acting.ask(proof=acting.proof(key=strong), **asked()))[0] == TWO_KEYS
