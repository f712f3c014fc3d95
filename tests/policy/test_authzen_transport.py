"""The requirements of the certification's text on transport: statuses, error strings, request ids, content types."""

from __future__ import annotations

import json

import pytest
from starlette.types import ASGIApp

from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.policy import wire_authzen, wire_search
from tests.policy.authzen_api import API
from tests.support.api_fixtures import ISSUER, Answer, Client, register, send
from tests.support.trust_fixtures import nonce_of

PATHS = [route.path for route in wire_authzen.ROUTES + wire_search.ROUTES if route.method == "POST"]
BODY = json.dumps(
    {
        "subject": {"type": "user", "id": "alice"},
        "action": {"name": "read"},
        "resource": {"type": "record", "id": "record-1"},
    }
).encode()


@pytest.fixture
async def client(world: World) -> Client:
    app: ASGIApp = build_app(world)
    agent, key = await register(world, scopes=("ostiary:decide", "ostiary:read"))
    client = Client(app, world, agent.agent_id, key)
    await client.ask()
    return client


async def ask(
    client: Client, path: str, body: bytes = BODY, *, kind: str = "application/json", scope: str = "ostiary:decide"
) -> Answer:
    token = str((await client.token(resource=API, scope=scope))["access_token"])
    proof = client.proof(method="POST", uri=ISSUER + path, access_token=token, nonce=nonce_of(client))
    headers = [("authorization", f"DPoP {token}"), ("dpop", proof), ("content-type", kind), ("x-request-id", "id-7")]
    return await send(client.app, "POST", path, headers=headers, body=body)


async def test_a_response_is_json_and_has_the_id_of_its_request(client: Client) -> None:
    for path in PATHS:
        answer = await ask(client, path)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json"), path
        assert answer.headers["x-request-id"] == "id-7", path
        assert isinstance(json.loads(answer.body), dict), path


async def test_a_request_may_be_as_large_as_the_configured_maximum(client: Client) -> None:
    for path in PATHS:
        assert (await ask(client, path, BODY.ljust(client.world.config.max_request_bytes))).status == 200, path


@pytest.mark.parametrize(
    "more",
    [b'"subject": {"type": "\xff", "id": "a"}', b'"unknown": "\xff"', b'"\xff": 1'],
    ids=["known", "unknown", "name"],
)
async def test_a_body_that_is_not_utf8_is_refused(client: Client, more: bytes) -> None:
    for path in PATHS:
        answer = await ask(client, path, BODY[:-1] + b", " + more + b"}")
        assert (answer.status, "not valid UTF-8" in json.loads(answer.body)) == (400, True), path


async def test_an_error_response_is_a_json_string_with_the_id_of_its_request(client: Client) -> None:
    for path in PATHS:
        unauthenticated = await send(client.app, "POST", path, headers=[("x-request-id", "id-7")], body=BODY)
        assert unauthenticated.headers["www-authenticate"].startswith("DPoP "), path
        over = BODY.ljust(client.world.config.max_request_bytes + 1)
        for answer, status in (
            (await ask(client, path, b""), 400),
            (await ask(client, path, b"{"), 400),
            (await ask(client, path, b"{}"), 400),
            (await ask(client, path, b'"x"'), 400),
            (await ask(client, path, over), 400),
            (await ask(client, path, kind="text/plain"), 400),
            (await ask(client, path, kind=""), 400),
            (await ask(client, path, scope="ostiary:read"), 403),
            (unauthenticated, 401),
        ):
            assert (answer.status, answer.headers["x-request-id"]) == (status, "id-7"), path
            assert answer.headers["content-type"] == "application/json", path
            message = json.loads(answer.body)
            assert isinstance(message, str), path
            assert message, path


async def test_a_request_without_a_request_id_gets_a_new_one(client: Client) -> None:
    for path in PATHS:
        answer = await send(client.app, "POST", path, body=BODY)
        assert answer.headers["x-request-id"].startswith("rq_"), path
