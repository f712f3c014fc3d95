"""Attempts to widen access by token exchange, among them those that other servers have allowed; all are refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness.clock import Clock
from harness.registry_fixtures import is_live, run_act
from ostiary.authorization.budget import parse_limits
from ostiary.authorization.claims import parse_access
from ostiary.protocol import jose
from ostiaryd.ground.world import World
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import AgentSpec, HoldingId, Verb
from ostiaryd.registry.store import holdings
from ostiaryd.tasks import flows as tasks
from ostiaryd.trust import flows as trust
from tests.support.api_fixtures import FILES, ISSUER, Answer, Client, claims_of, guard, sign
from tests.support.delegation_fixtures import (
    ACCESS,
    MAIL,
    agents,
    delegate_along,
    exchange,
    exchange_token,
    start,
    token_for,
    uri,
)

REQUEST, TARGET, SCOPE = "invalid_request", "invalid_target", "invalid_scope"
DETAILS = "invalid_authorization_details"
READ = [{"type": "tool", "locations": [FILES], "actions": ["read_file"], "arguments": {"path": {"prefix": "/srv/"}}}]

PAY = {"kind": "amount", "limit": "250.00", "tools": ["bank/pay"], "argument": "amount"}


async def test_an_exchange_for_scopes_beyond_the_subject_token_is_refused(world: World) -> None:
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read")
    for scope in ("files:write", "mail:send", "files:read mail:send", "ostiary:admin"):
        assert (await exchange(two, token, scope=scope)).error == SCOPE
    mistyped = await exchange(two, token, scope="files:raed")
    assert "did you mean `files:read`?" in mistyped.json["error_description"]
    assert claims_of(await exchange_token(two, token, scope=None))["scope"] == "files:read"


async def test_an_exchange_for_scopes_that_only_the_delegating_agent_has_is_refused(world: World) -> None:
    (one,) = await agents(world, "one")
    (two,) = await agents(world, "two", scopes=("files:read",))
    token = await token_for(one, "two")
    assert (await exchange(two, token, scope="files:write")).error == SCOPE
    assert claims_of(await exchange_token(two, token, scope=None))["scope"] == "files:read"


async def test_an_exchange_for_a_scope_that_an_agent_above_has_lost_is_refused(world: World) -> None:
    one, two, three = await agents(world, "one", "two", "three")
    token = await delegate_along((one, "one"), (two, "two"), (three, "three"), scope="files:read")
    await run_act(world, lambda a: registry.set_scopes(a, "one", ["mail:send"]))
    assert (await exchange(three, token)).error == REQUEST


async def test_an_exchange_for_another_audience_than_the_subject_token_reaches_is_refused(world: World) -> None:
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read")
    for resource in (MAIL, "https://else.example/", f"{ISSUER}/api/v1", uri("two"), uri("nobody")):
        assert (await exchange(two, token, resource=resource, scope=None)).error == TARGET, resource


async def test_an_exchange_for_wider_bounds_than_the_subject_token_has_is_refused(world: World) -> None:
    one, two, three = await agents(world, "one", "two", "three")
    token = await token_for(one, "two", scope="files:read", authorization_details=json.dumps(READ))
    for wider in (
        [{"type": "tool", "locations": [FILES]}],
        [{**READ[0], "actions": ["read_file", "write_file"]}],
        [{**READ[0], "arguments": {}}],
        [{**READ[0], "arguments": {"path": {"prefix": "/"}}}],
        [*READ, {**READ[0], "locations": [MAIL]}],
    ):
        assert (await exchange(two, token, authorization_details=json.dumps(wider))).error == DETAILS
    assert claims_of(await exchange_token(two, token))["authorization_details"] == READ
    further = await exchange_token(two, token, resource=uri("three"))
    assert claims_of(further)["authorization_details"] == READ
    assert claims_of(await exchange_token(three, further))["authorization_details"] == READ


async def test_the_cached_claims_of_an_issued_token_are_the_claims_in_the_token(world: World) -> None:
    """Only tokens that the server itself receives are cached: not a token for a resource, which a guard receives."""
    one, two, three = await agents(world, "one", "two", "three")
    task = await start(world, agent="one", budget=parse_limits([PAY]))
    said = {"scope": "files:read", "task": task.task_id, "authorization_details": json.dumps(READ)}
    first = await token_for(one, "two", **said)
    second = await exchange_token(two, first, resource=uri("three"))
    api = (await one.token(resource=world.config.api))["access_token"]
    for token in (first, second, api):
        claims = claims_of(token)
        assert token == api or (claims["budgets"] and claims["authorization_details"] == READ)
        known = world.keys.verified.get(token)
        assert known is not None
        assert known[1] == parse_access(claims)
    last = await exchange_token(three, second)
    assert claims_of(last)["authorization_details"] == READ
    assert world.keys.verified.get(last) is None


async def test_an_exchange_of_an_own_token_for_more_scopes_or_another_audience_is_refused(world: World) -> None:
    one, _ = await agents(world, "one", "two")
    token = (await one.token(resource=FILES, scope="files:read"))["access_token"]
    assert (await exchange(one, token, scope="files:read files:write")).error == SCOPE
    for resource in (MAIL, uri("two"), "https://else.example/"):
        assert (await exchange(one, token, resource=resource, scope=None)).error == TARGET
    claims = claims_of(await exchange_token(one, token))
    assert (claims["aud"], claims["sub"], claims["scope"], "act" in claims) == (FILES, one.id, "files:read", False)
    handed = await token_for(one, "two")
    assert (await exchange(one, handed, resource=FILES)).error == TARGET  # the token is for another agent


async def test_a_token_for_a_resource_cannot_be_exchanged_by_another_agent_or_its_guard(world: World) -> None:
    """The confused deputy: a party that receives or steals a token cannot exchange the token."""
    one, two = await agents(world, "one", "two")
    token = (await one.token(resource=FILES, scope="files:read"))["access_token"]
    assert (await exchange(two, token)).error == REQUEST
    key = await guard(world)
    files = Client(two.app, world, *key)
    await files.ask()
    refused = await exchange(files, token)
    assert (refused.error, refused.json["error_description"]) == (
        "unauthorized_client",
        "only agents can exchange tokens",
    )


async def test_an_exchange_cannot_combine_two_delegation_chains(world: World) -> None:
    """An actor token of another delegation would lend its chain, or hide the chain of the subject token."""
    one, two, other = await agents(world, "one", "two", "other")
    token = await token_for(one, "two", scope="files:read")
    part = await start(world, agent="two", parent=(await start(world, agent="other")).task_id)
    lent = await two.token(resource=f"{ISSUER}/api/v1", task=part.task_id)
    answer = await exchange(two, token, actor_token=lent["access_token"], actor_token_type=ACCESS)
    assert (answer.error, "cannot be combined" in answer.json["error_description"]) == (REQUEST, True)
    for_other = await token_for(one, "other", scope="files:read")
    assert (await exchange(two, for_other)).error == REQUEST
    assert (await exchange(other, token)).error == REQUEST


async def test_an_exchanged_token_does_not_outlive_its_subject_token_task_or_delegating_agent(
    world: World, clock: Clock
) -> None:
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read")
    clock.advance(100)
    new = claims_of(await exchange_token(two, token))
    assert new["exp"] == claims_of(token)["exp"]
    brief = await start(world, agent="one", ttl_s=50)
    token = await token_for(one, "two", task=brief.task_id, scope="files:read")
    assert claims_of(await exchange_token(two, token))["exp"] - clock.now // 1_000_000 == 50
    token = await token_for(one, "two", scope="files:read")
    await run_act(world, lambda a: registry.set_end(a, "one", clock.now + 20_000_000))
    assert claims_of(await exchange_token(two, token))["exp"] - clock.now // 1_000_000 == 20
    await run_act(world, lambda a: registry.set_end(a, "one", clock.now + 900_000))
    assert (await exchange(two, token)).error == REQUEST


async def test_an_exchanged_token_is_bound_to_the_key_of_the_exchanging_agent(world: World) -> None:
    """The new token is bound to the key of the exchanging agent; without a proof, no token is issued."""
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read")
    assert (await exchange(two, token, proof=None)).error == "invalid_dpop_proof"
    stolen = two.proof(key=one.key)
    assert (await exchange(two, token, proof=stolen)).error == "invalid_dpop_proof"
    assert claims_of(await exchange_token(two, token))["cnf"] == {"jkt": two.key.public.thumbprint}


async def test_a_token_that_is_not_bound_to_a_key_cannot_be_exchanged(world: World) -> None:
    one, _ = await agents(world, "one", "two")
    await guard(world)
    await run_act(world, lambda a: trust.allow_bearer(a, one.id, "files"))
    assert (await one.ask(resource=uri("two"), scope="files:read", proof=None)).error == "invalid_dpop_proof"
    token = (await one.token(resource=FILES, scope="files:read", proof=None))["access_token"]
    assert "cnf" not in claims_of(token)
    answer = await exchange(one, token)
    assert (answer.error, "not bound to a key" in answer.json["error_description"]) == (REQUEST, True)


async def test_foreign_forged_and_confused_tokens_cannot_be_exchanged(world: World) -> None:
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read")
    own = (await two.token(resource=f"{ISSUER}/api/v1"))["access_token"]
    claims, stranger = claims_of(token), jose.generate("ES256")
    head, body, signature = token.split(".")
    feed = world.keys.signer("feed")
    wrong = {
        "one's own signature": sign(two.key, {"typ": "at+jwt"}, claims),
        "a stranger's": sign(stranger, {"typ": "at+jwt"}, claims),
        "our kid, a stranger's signature": sign(
            stranger, {"typ": "at+jwt", "kid": world.keys.signer("token").public.kid}, claims
        ),
        "the key of the feed": sign(feed, {"typ": "at+jwt"}, claims),
        "our key, another type": sign(world.keys.signer("token"), {"typ": "JWT"}, claims),
        "no algorithm": ".".join([jose.b64u(b'{"alg":"none","typ":"at+jwt"}'), body, ""]),
        "another issuer": sign(world.keys.signer("token"), {"typ": "at+jwt"}, claims | {"iss": "https://else.example"}),
        "our key, never issued": sign(world.keys.signer("token"), {"typ": "at+jwt"}, claims | {"jti": "tok_never"}),
        "its body changed": f"{head}.{jose.b64u(json.dumps(claims | {'scope': 'mail:send'}).encode())}.{signature}",
        "its signature cut off": f"{head}.{body}.",
        "a client assertion": two.assertion(),
        "a proof": two.proof(),
        "an authorization header": f"DPoP {token}",
    }
    for what, unverified in wrong.items():
        assert (await exchange(two, unverified)).error == REQUEST, what
        answer = await exchange(two, token, actor_token=unverified, actor_token_type=ACCESS)
        assert answer.error == REQUEST, what
    assert (await exchange(two, token, actor_token=own, actor_token_type=ACCESS)).status == 200


async def test_expired_subject_and_actor_tokens_are_refused(world: World, clock: Clock) -> None:
    one, two = await agents(world, "one", "two")
    old = await token_for(one, "two", scope="files:read")
    own = (await two.token(resource=f"{ISSUER}/api/v1"))["access_token"]
    clock.advance(300)
    await two.ask()
    assert (await exchange(two, old)).error == REQUEST
    await one.ask()
    fresh = await token_for(one, "two", scope="files:read")
    assert (await exchange(two, fresh, actor_token=own, actor_token_type=ACCESS)).error == REQUEST
    assert (await exchange(two, fresh)).status == 200


async def test_cyclic_and_too_long_delegation_chains_are_refused(world: World) -> None:
    line = await agents(world, "one", "two", "three", "four", "five")
    one, two, three, four, five = line
    token = await delegate_along((one, "one"), (two, "two"), (three, "three"))
    back = await exchange_token(three, token, resource=uri("one"))
    assert (await exchange(one, back)).error == REQUEST  # the first agent would be in the chain twice
    token = await delegate_along((one, "one"), (two, "two"), (three, "three"), (four, "four"))
    assert (await exchange(four, token)).status == 200
    token = await exchange_token(four, token, resource=uri("five"))
    answer = await exchange(five, token)
    assert (answer.error, "allows at most 3 agents" in answer.json["error_description"]) == (REQUEST, True)
    await run_act(world, lambda a: registry.set_depth(a, "one", 4))
    assert (await exchange(five, token)).status == 200


async def test_a_token_after_a_hundred_exchanges_ends_with_the_first_token(world: World) -> None:
    one, two = await agents(world, "one", "two")
    first = token = await token_for(one, "two", scope="files:read")
    token = await exchange_token(two, token)
    for _ in range(100):
        token = await exchange_token(two, token)
    jti = claims_of(token)["jti"]
    assert is_live(world, jti)
    await run_act(world, lambda a: tasks.revoke(a, tasks.RevokedKind.TOKEN, claims_of(first)["jti"]))
    assert not is_live(world, jti)
    assert (await exchange(two, token)).error == REQUEST


@pytest.mark.parametrize("what", ["task", "parent", "token", "giver", "receiver", "key", "owner"])
async def test_an_end_of_a_task_token_agent_key_or_owner_ends_exchanged_tokens(world: World, what: str) -> None:
    one, two = await agents(world, "one", "two")
    parent = await start(world, agent="one")
    task = await start(world, agent="one", parent=parent.task_id)
    token = await token_for(one, "two", task=task.task_id, scope="files:read")
    new = claims_of(await exchange_token(two, token))["jti"]

    def end(a: Any) -> object:
        match what:
            case "task":
                return tasks.end(a, task.task_id)
            case "parent":
                return tasks.end(a, parent.task_id)
            case "token":
                return tasks.revoke(a, tasks.RevokedKind.TOKEN, claims_of(token)["jti"])
            case "giver":
                return registry.set_agent_state(a, "one", Verb.SUSPEND)
            case "receiver":
                return registry.set_agent_state(a, "two", Verb.SUSPEND)
            case "key":
                return registry.revoke_key(a, one.key.public.thumbprint)
            case _:
                return tasks.revoke(a, tasks.RevokedKind.OWNER, "ann")

    await run_act(world, end)
    assert not is_live(world, new)
    assert (await exchange(two, token)).error in (REQUEST, "invalid_client")


async def test_an_exchange_that_no_policy_permits_is_refused(world: World) -> None:
    from ostiaryd.policy import flows as policies
    from ostiaryd.policy.model import load

    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read")
    loaded = load({"a.cedar": 'permit (principal, action == Action::"issue_token", resource);'})
    await run_act(world, lambda a: policies.put(a, loaded, by=None))
    answer = await exchange(two, token)
    assert (answer.error, "no policy permits the request" in answer.json["error_description"]) == (REQUEST, True)
    own = (await one.token(resource=FILES, scope="files:read"))["access_token"]
    assert (await exchange(one, own)).status == 200  # no other agent gets access


async def test_an_exchange_across_segments_is_refused(world: World) -> None:
    one, two = await agents(world, "one", "two")
    far = jose.generate("ES256")
    agent = await run_act(
        world,
        lambda a: registry.create_agent(
            a, AgentSpec(name="far", owner="ann", purpose="p", segment="finance", scopes=["files:read"])
        ),
    )
    await run_act(world, lambda a: registry.add_key(a, "far", dict(far.public.jwk)))
    client = Client(one.app, world, agent.agent_id, far)
    await client.ask()
    token = await token_for(one, "far", scope="files:read")
    answer = await exchange(client, token)
    assert (answer.error, "another segment" in answer.json["error_description"]) == (REQUEST, True)
    assert (await exchange(two, await token_for(one, "two", scope="files:read"))).status == 200


async def test_a_race_of_revocation_and_exchange_leaves_no_live_token(world: World) -> None:
    one, two = await agents(world, "one", "two")
    for _ in range(5):
        task = await start(world, agent="one")
        token = await token_for(one, "two", task=task.task_id, scope="files:read")
        before = [asyncio.ensure_future(exchange(two, token)) for _ in range(5)]
        await asyncio.wait(before, return_when=asyncio.FIRST_COMPLETED)
        after = [exchange(two, token) for _ in range(5)]
        ending = run_act(world, lambda a, id=task.task_id: tasks.end(a, id))  # type: ignore[misc]
        answers = await asyncio.gather(*before, ending, *after)
        got = [one.json["access_token"] for one in answers if isinstance(one, Answer) and one.status == 200]
        assert got
        assert not any(is_live(world, claims_of(new)["jti"]) for new in got)


async def test_an_exchanged_token_is_recorded_under_its_subject_token(world: World) -> None:
    one, two = await agents(world, "one", "two")
    token = await token_for(one, "two", scope="files:read")
    held = holdings.get_holding(world.db.read(), claims_of(await exchange_token(two, token))["jti"])
    assert held is not None
    assert (held.parent, held.agent) == (HoldingId(claims_of(token)["jti"]), two.id)
