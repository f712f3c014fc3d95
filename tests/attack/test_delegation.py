"""Attacks on delegation: a stolen token, a sub-agent that seeks more access, an owner who left, two replicas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from harness.clock import Clock, SeededRandom
from harness.registry_fixtures import is_live, run_act
from ostiary.protocol.errors import Refused
from ostiaryd.app import build_app
from ostiaryd.ground.config import Config
from ostiaryd.ground.world import World, open_world
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from ostiaryd.tasks import flows as tasks
from ostiaryd.tasks.model import standing_id
from ostiaryd.trust import flows as trust
from tests.attack.api_calls import call
from tests.support.api_fixtures import FILES, ISSUER, Client, claims_of, guard, oauth_app, register, send
from tests.support.delegation_fixtures import (
    ACCESS,
    agents,
    delegate_along,
    exchange,
    exchange_token,
    start,
    token_for,
    uri,
)

API = f"{ISSUER}/api/v1"
REQUEST, TARGET = "invalid_request", "invalid_target"


# ------------------------------------------------------------------------------------------------------- a stolen token


async def test_a_token_for_an_agent_is_accepted_for_exchange_alone(world: World) -> None:
    """The API refuses the token, from its giver and from its audience, each with a proof of the own key."""
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two")
    app = build_app(world)
    for holder in (one, two):
        client = replace(holder, app=app)
        for path in ("/api/v1/tasks", "/api/v1/agents"):
            assert (await call(client, token, "GET", path)).status == 401
        answer = await client.post("/introspect", {"token": token}, authorization=f"DPoP {token}")
        assert answer.status == 401


async def test_a_resource_cannot_have_the_uri_of_an_agent_or_of_the_api(world: World) -> None:
    """A resource that has the URI of an agent would be given the tokens that are for it."""
    await agents(world, "one", "two")
    for place in (uri("two"), uri("later"), API):
        with pytest.raises(Refused):
            await run_act(world, lambda a, place=place: registry.create_resource(a, name="trap", uri=place))  # type: ignore[misc]
    await run_act(world, lambda a: registry.create_resource(a, name="trap", uri="https://trap.example/"))


async def test_other_spellings_of_an_agent_uri_get_no_token(world: World) -> None:
    one, *_ = await agents(world, "one", "two")
    for spelling in (
        uri("two") + "/",
        uri("TWO"),
        uri("two?"),
        uri("../agents/two"),
        uri(""),
        uri("%74wo"),
        uri("two#"),
        uri("two,one"),
        uri((await agents(world, "three"))[0].id),
        f"{ISSUER}//agents/two",
        ISSUER.upper() + "/agents/two",
    ):
        answer = await one.ask(resource=spelling, scope="files:read")
        assert answer.error == TARGET, spelling


async def test_the_token_of_a_guard_is_refused_as_subject_and_actor_token(world: World) -> None:
    one, two = await agents(world, "one", "two")
    id, key = await guard(world)
    files = Client(two.app, world, id, key)
    feed = (await files.token(resource=API, scope="ostiary:feed"))["access_token"]
    assert (await exchange(two, feed)).error == REQUEST
    token = await token_for(one, "two", scope="files:read")
    assert (await exchange(two, token, actor_token=feed, actor_token_type=ACCESS)).error == REQUEST
    assert (await files.ask(resource=uri("two"))).error == TARGET


async def test_an_assertion_that_was_used_for_an_exchange_cannot_be_replayed(world: World) -> None:
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read")
    assertion = two.assertion()
    assert (await exchange(two, token, client_assertion=assertion)).status == 200
    assert (await exchange(two, token, client_assertion=assertion)).error == "invalid_client"
    refused = two.assertion()
    assert (await exchange(two, token, client_assertion=refused, scope="mail:send")).error == "invalid_scope"
    assert (await exchange(two, token, client_assertion=refused)).error == "invalid_client"


# ------------------------------------------------------------------------------------------ a sub-agent that wants more


async def test_an_exemption_for_bearer_tokens_does_not_unbind_an_exchanged_token(world: World) -> None:
    """The exemption covers tokens of the agent itself; a bound token does not become a bearer token by exchange."""
    one, two = await agents(world, "one", "two")
    await guard(world)
    await run_act(world, lambda a: trust.allow_bearer(a, two.id, "files"))
    token = await token_for(one, "two", scope="files:read")
    own = (await two.token(resource=FILES, scope="files:read"))["access_token"]
    for subject in (token, own):
        assert (await exchange(two, subject, proof=None)).error == "invalid_dpop_proof"
    assert claims_of(await exchange_token(two, token))["cnf"] == {"jkt": two.key.public.thumbprint}


async def test_a_bearer_token_cannot_delegate_a_subtask_to_another_agent(world: World) -> None:
    """A thief of a bearer token could otherwise let an accomplice get bound tokens that live longer."""
    one, _ = await agents(world, "one", "two")
    await run_act(world, lambda a: trust.allow_bearer(a, one.id, "ostiary"))
    whole = await start(world, agent="one")
    token = (await one.ask(proof=None, resource=API, scope="", task=whole.task_id)).json["access_token"]
    headers = [("authorization", f"Bearer {token}"), ("content-type", "application/json")]
    for agent, status in (("two", 403), ("one", 201)):
        body = json.dumps({"purpose": "p", "parent": whole.task_id, "agent": agent}).encode()
        answer = await send(build_app(world), "POST", "/api/v1/tasks", headers=headers, body=body)
        assert (answer.status, b"bearer token" in answer.body) == (status, status == 403), answer.body
    bound = (await one.token(resource=API, task=whole.task_id))["access_token"]
    part = {"purpose": "p", "parent": whole.task_id, "agent": "two"}
    assert (await call(replace(one, app=build_app(world)), bound, "POST", "/api/v1/tasks", part)).status == 201


async def test_an_agent_cannot_use_renew_end_or_see_a_task_above_its_subtask(world: World) -> None:
    _, two = await agents(world, "one", "two")
    whole = await start(world, agent="one")
    part = await start(world, agent="two", parent=whole.task_id)
    beside = await start(world, agent="one", parent=whole.task_id)
    two = replace(two, app=build_app(world))
    for task in (whole, beside):
        assert (await two.ask(task=task.task_id, resource=FILES)).error == "invalid_grant"
    token = str((await two.token(resource=API))["access_token"])
    for id in (whole.task_id, beside.task_id, standing_id(registry.find_agent(world.db.read(), "one").agent_id)):
        for method, path, body in (
            ("GET", f"/api/v1/tasks/{id}", None),
            ("GET", f"/api/v1/tasks/{id}/tree", None),
            ("POST", f"/api/v1/tasks/{id}/renew", {}),
            ("POST", f"/api/v1/tasks/{id}/end", {}),
            ("POST", "/api/v1/tasks", {"purpose": "p", "parent": id}),
            ("POST", "/api/v1/tasks", {"purpose": "p", "parent": id, "agent": "one"}),
            ("POST", "/api/v1/revoke", {"kind": "task", "id": id}),
        ):
            assert (await call(two, token, method, path, body)).status in (403, 409), (method, path)
    assert (await call(two, token, "GET", f"/api/v1/tasks/{part.task_id}")).status == 200


async def test_a_sub_agent_cannot_extend_its_subtask_beyond_the_task(world: World, clock: Clock) -> None:
    _, two = await agents(world, "one", "two")
    whole = await start(world, agent="one", ttl_s=60)
    part = await start(world, agent="two", parent=whole.task_id, ttl_s=60)
    for _ in range(3):
        clock.advance(10)
        part = await start(world, agent="two", parent=part.task_id, ttl_s=3600)
        renewed = await run_act(world, lambda a, id=part.task_id: tasks.renew(a, id, ttl_s=3600))  # type: ignore[misc]
        assert renewed.expires_at == whole.expires_at
    token = claims_of((await two.token(task=part.task_id, resource=FILES))["access_token"])
    assert whole.expires_at is not None
    assert token["exp"] * 1_000_000 <= whole.expires_at
    clock.advance(30)
    assert (await two.ask(task=part.task_id, resource=FILES)).error == "invalid_grant"


async def test_agents_that_exchange_tokens_back_and_forth_gain_no_scopes(world: World) -> None:
    """The agents exchange tokens in every order, and no token gains scopes or another audience."""
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read")
    back = await exchange_token(two, token, resource=uri("one"))
    assert (await exchange(one, back, scope="files:write", resource=FILES)).error == REQUEST
    assert claims_of(await exchange_token(one, token, resource=None))["aud"] == uri(
        "two"
    )  # one's own stays for whom it is
    assert (await exchange(two, back, resource=FILES, scope="files:read")).error == TARGET
    narrowed = await exchange_token(two, back, scope="files:read", resource=None)
    assert claims_of(narrowed)["aud"] == uri("one")


# ---------------------------------------------------------------------------------------------------- an owner who left


@pytest.mark.parametrize("has_deputy", [False, True])
async def test_delegations_through_the_agent_of_an_owner_who_left_stay_ended(world: World, has_deputy: bool) -> None:
    """Not even where a deputy takes over and the agent goes on."""
    (one,) = await agents(world, "one")
    for name in ("dan", "bob"):
        await run_act(world, lambda a, n=name: registry.create_person(a, name=n))  # type: ignore[misc]
    mid = await enter_of(world, "mid", owner="bob")
    if has_deputy:
        await run_act(world, lambda a: registry.set_deputy(a, "bob", "dan"))
    (low,) = await agents(world, "low")
    whole = await start(world, agent="one")
    part = await start(world, agent="mid", parent=whole.task_id)
    lowest = await start(world, agent="low", parent=part.task_id)
    under = (await low.token(task=lowest.task_id, resource=FILES))["access_token"]
    handed = await delegate_along((one, "one"), (mid, "mid"), (low, "low"))
    acted = await exchange_token(low, handed)
    await run_act(world, lambda a: tasks.revoke(a, tasks.RevokedKind.OWNER, "bob"))
    if not has_deputy:
        with pytest.raises(Refused):
            await run_act(world, lambda a: registry.set_agent_state(a, "mid", Verb.RESUME))
    else:
        assert (
            registry.find_agent(world.db.read(), "mid").owner == registry.find_person(world.db.read(), "dan").person_id
        )
    for dead in (under, handed, acted):
        assert not is_live(world, claims_of(dead)["jti"])
    assert (await exchange(low, handed)).error == REQUEST
    assert (await low.ask(task=lowest.task_id, resource=FILES)).error == "invalid_grant"
    assert tasks.live(world.db.read(), whole.task_id, now=world.now())


async def enter_of(world: World, name: str, *, owner: str) -> Client:
    agent, key = await register(world, name=name, owner=owner)
    client = Client(oauth_app(world), world, agent.agent_id, key)
    await client.ask()
    return client


# --------------------------------------------------------------------------------------------------------- two replicas


@pytest.fixture
async def replica(world: World, config: Config, clock: Clock) -> AsyncIterator[World]:
    """Another server on the same database."""
    async with open_world(config, now=clock, random=SeededRandom("replica")) as other:
        yield other


def at(client: Client, world: World) -> Client:
    return replace(client, app=oauth_app(world), world=world)


@pytest.mark.parametrize("what", ["task", "token", "agent", "key"])
async def test_a_token_that_one_replica_ended_is_refused_by_other_replicas(
    world: World, replica: World, what: str
) -> None:
    """Cached data of the other replica does not matter."""
    one, two = await agents(world, "one", "two")
    task = await start(world, agent="one")
    token = await token_for(one, "two", task=task.task_id, scope="files:read")
    there = at(two, replica)
    for client in (two, there, two, there):
        await exchange_token(client, token)
    ended: dict[str, Any] = {
        "task": (tasks.RevokedKind.TASK, task.task_id),
        "token": (tasks.RevokedKind.TOKEN, claims_of(token)["jti"]),
        "agent": (tasks.RevokedKind.AGENT, "one"),
        "key": (tasks.RevokedKind.KEY, one.key.public.thumbprint),
    }
    await run_act(world, lambda a: tasks.revoke(a, *ended[what]))
    assert (await exchange(there, token)).error == REQUEST
    assert (await exchange(two, token)).error == REQUEST


async def test_an_assertion_is_accepted_by_one_of_two_replicas(world: World, replica: World) -> None:
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read")
    assertion = two.assertion()
    answers = await asyncio.gather(
        exchange(two, token, client_assertion=assertion), exchange(at(two, replica), token, client_assertion=assertion)
    )
    assert sorted(answer.error for answer in answers) == ["", "invalid_client"]


async def test_a_race_of_two_replicas_leaves_no_live_token_or_subtask(world: World, replica: World) -> None:
    """A replica ends the task while both exchange and both give parts of it away."""
    one, two = await agents(world, "one", "two")
    there = at(two, replica)
    for _ in range(3):
        task = await start(world, agent="one")
        token = await token_for(one, "two", task=task.task_id, scope="files:read")
        got: list[str] = []
        parts: list[str] = []

        async def redeem(client: Client, token: str = token, got: list[str] = got) -> None:
            if (answer := await exchange(client, token)).status == 200:
                got.append(answer.json["access_token"])

        async def give(where: World, parent: str = task.task_id, parts: list[str] = parts) -> None:
            try:
                parts.append((await start(where, agent="two", parent=parent)).task_id)
            except Refused:
                return

        async def end(id: str = task.task_id) -> None:
            await run_act(replica, lambda a: tasks.end(a, id))

        def works(count: int) -> list[Coroutine[Any, Any, None]]:
            return [work for _ in range(count) for work in (redeem(two), redeem(there), give(world), give(replica))]

        await asyncio.gather(*works(1))  # so that something exists before the end
        await asyncio.gather(*works(2), end(), *works(3))
        assert got
        assert parts
        assert not any(is_live(world, claims_of(new)["jti"]) for new in got)
        assert not any(tasks.find_task(world.db.read(), id).is_live(world.now()) for id in parts)
