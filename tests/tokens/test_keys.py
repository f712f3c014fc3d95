"""Signing keys: a new key signs at once, and an old key verifies until its last token has expired."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest

from harness.clock import Clock
from harness.registry_fixtures import feed_messages, newest_entry
from ostiary.cli.keys import rotate_server_key
from ostiary.protocol.errors import Invalid
from ostiaryd.ground.config import Config
from ostiaryd.ground.crypto.keyring import USES
from ostiaryd.ground.database.server_keys import load_keys
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry.model import LONGEST_TOKEN
from ostiaryd.tokens import flows
from ostiaryd.tokens.wire_admin import SigningKeyRotation
from ostiaryd.trust.flows import verify_token
from ostiaryd.trust.model import AccessRefused
from ostiaryd.trust.model.clients import ID_TOKEN_ALGS
from tests.support.api_fixtures import Client, register, send
from tests.support.trust_fixtures import call


async def rotate(world: World, *, use: str = "token", alg: str = "ES256") -> str:
    kid = await act(world, "keys.rotate", lambda act: flows.rotate_key(act, use=use, alg=alg))
    load_keys(world.keys, world.db.read())
    return kid


async def published(client: Client) -> set[str]:
    return {key["kid"] for key in (await send(client.app, "GET", "/jwks")).json["keys"]}


def test_each_list_of_key_uses_and_algorithms_is_complete() -> None:
    hints = get_type_hints(Config)
    assert get_args(hints["token_alg"]) == USES["token"]
    assert set(ID_TOKEN_ALGS) == set(USES["token"])
    asked, typed = get_type_hints(SigningKeyRotation)["use"], get_type_hints(rotate_server_key)["use"]
    assert {"ledger", *get_args(asked)} == set(USES), "the key of the ledger is its identity"
    assert get_args(typed) == get_args(asked)
    assert set(USES["token"]) <= set(re.findall(r"\w+", rotate_server_key.__doc__ or ""))


async def test_tokens_of_the_old_and_of_the_new_key_verify_after_a_rotation(client: Client) -> None:
    keys = client.world.keys
    old_kid, before = keys.signer("token", "ES256").public.kid, await client.token()
    new_kid = await rotate(client.world)
    after = await client.token()
    assert {old_kid, new_kid} <= await published(client)
    for got in (before, after):
        assert verify_token(got["access_token"], keys=keys).client_id == client.id
    assert keys.signer("token", "ES256").public.kid == new_kid != old_kid
    assert feed_messages(client.world)[-1] == {"kind": "keys"}


async def test_an_old_key_is_forgotten_after_the_longest_lifetime_of_a_token(client: Client, clock: Clock) -> None:
    token = (await client.token())["access_token"]
    old = client.world.keys.signer("token", "ES256").public.kid
    await rotate(client.world)
    last = newest_entry(client.world)
    clock.advance(us=LONGEST_TOKEN)
    assert await flows.forget_keys(client.world) == 0
    assert newest_entry(client.world) == last, "where there is nothing to forget there is no entry"
    assert verify_token(token, keys=client.world.keys).client_id == client.id
    clock.advance(us=1)
    assert await flows.forget_keys(client.world) == 1
    assert (newest_entry(client.world).action, newest_entry(client.world).detail) == ("keys.forget", {"count": 1})
    assert old not in await published(client)
    with pytest.raises(AccessRefused, match="another server issued"):
        verify_token(token, keys=client.world.keys)


async def test_a_later_old_key_is_kept_when_an_earlier_old_key_is_forgotten(client: Client, clock: Clock) -> None:
    await rotate(client.world)
    kept = client.world.keys.signer("token", "ES256").public.kid
    clock.advance(us=LONGEST_TOKEN + 1)
    await rotate(client.world)
    clock.advance(1)
    assert await flows.forget_keys(client.world) == 1
    assert kept in await published(client)


async def test_a_rotation_replaces_only_the_key_of_its_use(client: Client) -> None:
    keys = client.world.keys
    before = {use: set(keys.public(use)) for use in ("token", "ledger", "feed")}
    await rotate(client.world, use="feed", alg="EdDSA")
    after = {use: set(keys.public(use)) for use in before}
    assert [len(after[use] - before[use]) for use in before] == [0, 0, 1]


async def test_a_rotation_for_an_unknown_use_or_algorithm_is_refused(client: Client) -> None:
    cases: list[tuple[str, str]] = [("token", "HS256"), ("feed", "ES256"), ("nonce", "secret"), ("x", "ES256")]
    for use, alg in cases:
        with pytest.raises(Invalid):
            await rotate(client.world, use=use, alg=alg)


async def test_only_administrators_rotate_keys_over_the_api(client: Client) -> None:
    agent, key = await register(client.world, name="chief", scopes=("ostiary:admin",))
    chief = replace(client, id=agent.agent_id, key=key)
    token = (await chief.token())["access_token"]
    mine = (await client.token(resource=client.world.config.api))["access_token"]
    path = "/api/v1/keys/rotate"
    assert (await call(client, mine, path, method="POST", body={})).status == 403
    answer = await call(chief, token, path, method="POST", body={"alg": "RS256"})
    assert (answer.status, answer.json["use"], answer.json["alg"]) == (201, "token", "RS256")
    assert answer.json["kid"] == client.world.keys.signer("token", "RS256").public.kid
    assert (newest_entry(client.world).agent, newest_entry(client.world).key) == (chief.id, answer.json["kid"])
    refused = await call(chief, token, path, method="POST", body={"use": "ledger", "alg": "EdDSA"})
    assert refused.status == 400
