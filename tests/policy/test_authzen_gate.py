"""Access to the decision point: the act that decides authenticates the caller, as strictly as every other route."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.types import ASGIApp

from harness.registry_fixtures import newest_entry
from ostiaryd.app import ROUTES, build_app
from ostiaryd.ground.http.edge import SMALL_BODY, Call, Reply
from ostiaryd.ground.http.routes import Route
from ostiaryd.ground.world import World
from ostiaryd.ledger import store
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from tests.policy.authzen_api import API
from tests.support.api_fixtures import ISSUER, Answer, Client, register, send
from tests.support.trust_fixtures import nonce_of

ONE, MANY = "/access/v1/evaluation", "/access/v1/evaluations"
QUESTION = {
    "subject": {"type": "user", "id": "u"},
    "action": {"name": "read"},
    "resource": {"type": "record", "id": "r"},
}

BODY = json.dumps(QUESTION).encode()


@pytest.fixture
async def client(world: World) -> Client:
    app: ASGIApp = build_app(world)
    agent, key = await register(world, scopes=("ostiary:decide", "ostiary:read"))
    client = Client(app, world, agent.agent_id, key)
    await client.ask()
    return client


async def token(client: Client, scope: str = "ostiary:decide") -> str:
    return str((await client.token(resource=API, scope=scope))["access_token"])


async def ask(client: Client, access_token: str, path: str = ONE, *, body: bytes = BODY, **said: Any) -> Answer:
    proof = said.pop("proof", None) or client.proof(
        method="POST", uri=ISSUER + path, access_token=access_token, **{"nonce": nonce_of(client)} | said
    )
    headers = [
        ("authorization", f"DPoP {access_token}"),
        ("dpop", proof),
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
    ]
    return await send(client.app, "POST", path, headers=headers, body=body)


def entry(world: World) -> tuple[str, str, list[str]]:
    last = newest_entry(world)
    return last.action, last.outcome, [reason.code for reason in last.reasons]


@pytest.mark.parametrize("path", [ONE, MANY])
async def test_a_caller_with_the_scope_is_answered_in_one_act_whose_entry_names_the_caller(
    client: Client, path: str
) -> None:
    access_token = await token(client)
    before, _ = store.get_head(client.world.db.read())
    assert (await ask(client, access_token, path)).status == 200
    after, _ = store.get_head(client.world.db.read())
    assert after.size == before.size + 1
    assert newest_entry(client.world).reporter == client.id


@pytest.mark.parametrize("path", [ONE, MANY])
async def test_a_dpop_proof_is_accepted_once_at_the_decision_point(client: Client, path: str) -> None:
    access_token = await token(client)
    proof = client.proof(method="POST", uri=ISSUER + path, access_token=access_token, nonce=nonce_of(client))
    assert (await ask(client, access_token, path, proof=proof)).status == 200
    again = await ask(client, access_token, path, proof=proof)
    assert again.status == 401
    assert 'error="invalid_dpop_proof"' in again.headers["www-authenticate"]
    assert entry(client.world) == ("decide", "refused", ["invalid_dpop_proof"])


async def test_a_nonce_challenge_leaves_no_entry(client: Client) -> None:
    access_token = await token(client)
    before = newest_entry(client.world)
    answer = await ask(client, access_token, nonce=None)
    assert answer.status == 401
    assert 'error="use_dpop_nonce"' in answer.headers["www-authenticate"]
    assert answer.headers["dpop-nonce"]
    assert newest_entry(client.world) == before


async def test_a_token_without_the_decide_scope_is_refused(client: Client) -> None:
    answer = await ask(client, await token(client, "ostiary:read"))
    assert answer.status == 403
    assert 'scope="ostiary:decide"' in answer.headers["www-authenticate"]
    assert entry(client.world) == ("decide", "refused", ["insufficient_scope"])
    assert newest_entry(client.world).reporter == client.id


async def test_a_token_is_refused_after_its_agent_was_suspended(client: Client) -> None:
    access_token = await token(client)
    await act(client.world, "test", lambda act: registry.set_agent_state(act, client.id, Verb.SUSPEND))
    assert (await ask(client, access_token)).status == 401
    assert entry(client.world) == ("decide", "refused", ["invalid_token"])


async def test_a_request_without_an_access_token_gets_no_decision(client: Client) -> None:
    cases: list[str | None] = [None, "Bearer x", "DPoP x", "Basic x"]
    for authorization in cases:
        headers = [("content-type", "application/json")] + ([("authorization", authorization)] if authorization else [])
        answer = await send(client.app, "POST", ONE, headers=headers, body=BODY)
        assert answer.status == 401, authorization
        assert answer.headers["www-authenticate"].startswith("DPoP "), authorization
        assert b"decision" not in answer.body, authorization


@pytest.mark.parametrize("body", [b"{}", b"nonsense"])
async def test_a_caller_without_the_scope_does_not_learn_that_the_request_is_malformed(
    client: Client, body: bytes
) -> None:
    allowed, other = await token(client), await token(client, "ostiary:read")
    assert (await ask(client, other, body=body)).status == 403
    assert entry(client.world) == ("api.call", "refused", ["insufficient_scope"])
    assert (await ask(client, allowed, body=body)).status == 400
    assert entry(client.world) == ("api.call", "refused", ["malformed"])
    assert (await send(client.app, "POST", ONE, body=body)).status == 401


async def test_a_route_that_does_not_authenticate_its_caller_returns_no_content(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def forgetful(call: Call) -> Reply:
        return Reply(200, b"secret")

    forgets = Route("POST", ONE, forgetful, "ostiary:decide", proves_in_act=True)
    answer = await send(build_app(world, [forgets]), "POST", ONE, body=b"")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "was not authenticated" in caplog.text


def test_each_decision_route_that_authenticates_in_its_act_requires_the_decide_scope() -> None:
    asked_often = {route.path: route.scope for route in ROUTES if route.proves_in_act and not route.stops}
    assert asked_often == dict.fromkeys((ONE, f"{ONE}s", "/api/v1/decide"), "ostiary:decide")


async def test_small_and_large_batches_are_read_with_the_same_nesting_limit(client: Client) -> None:
    nested: dict[str, Any] = {}
    for _ in range(40):  # deeper than the administration API reads
        nested = {"in": nested}
    deep = QUESTION | {"context": nested}
    access_token, sizes = await token(client), []
    for filling in (1, 1000):
        body = json.dumps({"evaluations": [deep] + [QUESTION] * (filling - 1)}).encode()
        sizes.append(len(body))
        answer = await ask(client, access_token, MANY, body=body)
        assert (answer.status, len(json.loads(answer.body)["evaluations"])) == (200, filling), answer.body
    assert sizes[0] < SMALL_BODY < sizes[1]
