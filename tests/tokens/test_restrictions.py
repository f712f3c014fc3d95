"""Restrictions of agents at token issuance and at the API of the server, as at guards."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness.clock import Clock, SeededRandom
from harness.registry_fixtures import SECOND, run_act
from ostiary.authorization.catalogue import Catalogue
from ostiary.decision.access.restrictions import MINUTE, RestrictionKind
from ostiary.protocol import jose
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world
from ostiaryd.registry import flows as registry
from ostiaryd.registry.store import restrictions
from ostiaryd.trust.flows import live_caller, verify_token
from tests.support.api_fixtures import FILES, Client, claims_of
from tests.support.delegation_fixtures import agents, exchange, exchange_token, start, token_for
from tests.support.trust_fixtures import API, call

TOOLS = [{"name": "read", "effect": "read"}, {"name": "write", "effect": "write"}]


@pytest.fixture
async def client(world: World, client: Client) -> Client:
    """An agent that can read and write at resources with a catalogue, and calls our own API."""
    catalogue = Catalogue.parse(json.dumps({"resource": "files", "tools": TOOLS}))
    await run_act(world, lambda a: registry.set_catalogue(a, "files", catalogue))
    return client


async def put(client: Client, kind: RestrictionKind, limit: int = 0) -> None:
    await run_act(
        client.world,
        lambda a: registry.put_restriction(a, client.id, kind, until=a.now + 3600 * SECOND, limit=limit),
    )


async def error(client: Client, **said: Any) -> str:
    return (await client.ask(**{"resource": FILES, "scope": None} | said)).error


async def test_a_narrowed_agent_gets_tokens_only_for_scopes_that_read(client: Client) -> None:
    assert claims_of((await client.token(scope=None))["access_token"])["scope"] == "files:read files:write"
    await put(client, "narrow")
    assert claims_of((await client.token(scope=None))["access_token"])["scope"] == "files:read"
    assert await error(client, scope="files:write") == "access_denied"
    assert await error(client, resource="https://unregistered.example/") == "access_denied"
    await run_act(client.world, lambda a: registry.lift_restrictions(a, client.id))
    assert await error(client, scope="files:write") == ""


async def test_a_narrowed_administrator_keeps_only_the_scope_to_read(world: World, client: Client) -> None:
    await run_act(world, lambda a: registry.set_scopes(a, client.id, ["ostiary:admin", "ostiary:read"]))
    token = (await client.token(resource=API, scope=None))["access_token"]
    claims = verify_token(token, keys=world.keys)

    def scopes() -> frozenset[str]:
        return live_caller(world.db.read(), claims, now=world.now()).scopes

    assert scopes() == {"ostiary:admin", "ostiary:read"}
    await put(client, "narrow")
    assert scopes() == {"ostiary:read"}
    again = (await client.token(resource=API, scope=None))["access_token"]
    assert (await call(client, again)).status == 200


@pytest.mark.parametrize(
    ("limit", "error_with_one", "error_with_two"),
    [
        (0, "", ""),
        (1, "unmet_authentication_requirements", ""),
        (2, "unmet_authentication_requirements", "unmet_authentication_requirements"),
    ],
)
async def test_a_step_up_requires_the_stated_proof_of_possession(
    world: World, client: Client, limit: int, error_with_one: str, error_with_two: str
) -> None:
    second = jose.generate("ES256")
    await run_act(world, lambda a: registry.add_key(a, client.id, dict(second.public.jwk)))
    await put(client, "step_up", limit)
    assert await error(client) == error_with_one
    assert (await client.ask(proof=client.proof(key=second), resource=FILES)).error == error_with_two


async def test_a_token_from_before_a_step_up_is_refused_by_the_api_and_by_an_exchange(
    world: World, clock: Clock
) -> None:
    one, two = await agents(world, "one", "two")
    token, given = (await one.token(resource=API, scope=None))["access_token"], await token_for(one, "two")
    assert (await call(one, token)).status == 200
    clock.advance(1)
    await put(one, "step_up")
    assert (await call(one, token)).status == 401
    assert (await exchange(two, given)).error == "invalid_request"
    new = (await one.token(resource=API, scope=None))["access_token"]
    assert (await call(one, new)).status == 200
    assert (await exchange(two, await token_for(one, "two"))).error == ""


async def test_a_restriction_of_an_agent_applies_to_the_work_that_the_agent_delegates(
    world: World, client: Client
) -> None:
    one, two = await agents(world, "one", "two")
    given = await token_for(one, "two", scope="files:read files:write")
    whole = await start(world, agent=one.id)
    part = await start(world, agent=two.id, parent=whole.task_id)
    assert claims_of(await exchange_token(two, given, scope=None))["scope"] == "files:read files:write"
    await put(one, "narrow")
    assert claims_of(await exchange_token(two, given, scope=None))["scope"] == "files:read"
    assert await error(two, task=part.task_id, scope="files:write") == "access_denied"
    assert await error(two, scope="files:write") == "", "its own work is its own"
    await put(one, "throttle", 0)
    assert (await exchange(two, given)).error == "access_denied"
    assert await error(two, task=part.task_id, scope="files:read") == "access_denied"


async def test_an_issued_token_counts_as_a_call_of_the_current_minute(client: Client, clock: Clock) -> None:
    clock.advance(us=MINUTE - clock() % MINUTE)
    await put(client, "throttle", 2)
    assert [await error(client) for _ in range(4)] == ["", "", "access_denied", "access_denied"]
    clock.advance(us=MINUTE - 1)
    assert await error(client) == "access_denied"
    clock.advance(us=1)
    assert [await error(client) for _ in range(3)] == ["", "", "access_denied"]
    await put(client, "throttle", 1)
    assert await error(client) == "access_denied"
    await run_act(client.world, lambda a: registry.lift_restrictions(a, client.id))
    assert await error(client) == ""


async def test_two_servers_together_allow_no_more_calls_than_a_throttle_permits(
    world: World, config: Config, client: Client, clock: Clock
) -> None:
    await put(client, "throttle", 5)
    async with open_world(config, now=clock, random=SeededRandom("replica")) as replica:
        taken = await asyncio.gather(
            *(run_act((world, replica)[n % 2], lambda a: restrictions.count_call(a.tx, client.id)) for n in range(12))
        )
    assert sum(taken) == 5
