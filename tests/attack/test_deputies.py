"""Whoever holds something good for one thing tries it on another: the whole server behind its own routes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.types import ASGIApp

from ostiary.core import dpop, jose
from ostiary.core.feed import TYP as FEED_TYP
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.tasks import flows as tasks
from tests.tokens.party import FILES, ISSUER, Answer, Client, claims_of, enter, guard, send, sign
from tests.trust.stage import nonce_of

API = f"{ISSUER}/api/v1"


class House:
    """Two agents, a guard and the application."""

    def __init__(self, world: World, app: ASGIApp, agent: Client, other: Client, guard: Client) -> None:
        self.world, self.app, self.agent, self.other, self.guard = world, app, agent, other, guard


@pytest.fixture
async def house(world: World) -> House:
    app = build_app(world)
    people = []
    for name in ("reader", "writer"):
        agent, key = await enter(world, name=name)
        people.append(Client(app, world, agent.agent_id, key))
    id, key = await guard(world)
    clients = [*people, Client(app, world, id, key)]
    for client in clients:
        await client.ask()
    return House(world, app, *clients)


async def call(
    client: Client, token: str, method: str, path: str, body: Any = None, *, headers: tuple[tuple[str, str], ...] = (),
    uri: str = "",
) -> Answer:  # fmt: skip
    """A request with a token and a proof, good but for what is said."""
    proof = client.proof(
        method=method, uri=uri or ISSUER + path.partition("?")[0], access_token=token, nonce=nonce_of(client)
    )
    sent = [("authorization", f"DPoP {token}"), ("dpop", proof), ("content-type", "application/json"), *headers]
    return await send(client.app, method, path, headers=sent, body=b"" if body is None else json.dumps(body).encode())


async def api_token(client: Client, **said: Any) -> str:
    return str((await client.token(resource=API, **said))["access_token"])


OTHERS = "/api/v1/tasks/{task}"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/agents", None),
        ("POST", "/api/v1/agents", {"name": "x", "owner": "ann", "purpose": "p"}),
        ("GET", "/api/v1/audit", None),
        ("GET", "/api/v1/doctor", None),
        ("GET", "/api/v1/feeds", None),
        ("GET", "/ledger/v1/tile/entries/000.p/1", None),
        ("POST", "/api/v1/policies", {"files": {"a.cedar": "permit (principal, action, resource);"}}),
        ("POST", "/api/v1/keys/rotate", {}),
        ("POST", "/access/v1/evaluation", {}),
        ("PUT", "/api/v1/resources/files/mode", {"mode": "watch"}),
        ("POST", "/api/v1/agents/writer/suspend", {}),
        ("POST", "/api/v1/agents/writer/join-token", {}),
        ("POST", "/api/v1/revoke", {"kind": "agent", "id": "writer"}),
        ("POST", "/api/v1/revoke", {"kind": "owner", "id": "ann"}),
        ("POST", "/api/v1/tasks", {"agent": "writer", "purpose": "as another"}),
        ("GET", "/api/v1/tasks?agent=writer", None),
        ("GET", OTHERS, None),
        ("POST", OTHERS + "/renew", {}),
        ("POST", OTHERS + "/end", {}),
    ],
)
@pytest.mark.parametrize("who", ["agent", "guard"])
async def test_neither_agent_nor_guard_does_what_is_not_theirs(
    house: House, who: str, method: str, path: str, body: Any
) -> None:
    task = await act(house.world, "test", lambda a: tasks.start(a, agent="writer", purpose="its own"))
    client: Client = getattr(house, who)
    answer = await call(client, await api_token(client), method, path.format(task=task.task_id), body)
    assert answer.status == 403, answer.body


@pytest.mark.parametrize("path", ["/feed/v1/stream?stream=0123456789abcdef", "/feed/v1/report", "/feed/v1/applied"])
async def test_an_agent_is_no_guard(house: House, path: str) -> None:
    method = "GET" if "stream" in path else "POST"
    assert (await house.agent.ask(resource=API, scope="ostiary:feed")).error == "invalid_scope"
    assert (await call(house.agent, await api_token(house.agent), method, path, {})).status == 403


async def test_a_token_for_a_tool_server_is_none_for_our_own_api(house: House) -> None:
    token = str((await house.agent.token(resource=FILES))["access_token"])
    assert (await call(house.agent, token, "GET", "/api/v1/tasks")).status == 401


async def test_a_task_of_another_agent_gives_no_token(house: House) -> None:
    task = await act(house.world, "test", lambda a: tasks.start(a, agent="writer", purpose="its own"))
    for id in (task.task_id, "tk_" + house.other.id.removeprefix("ag_")):
        assert (await house.agent.ask(task=id, resource=FILES)).error == "invalid_grant"


@pytest.mark.parametrize(
    "headers",
    [
        (("host", "evil.example"),),
        (("x-forwarded-host", "evil.example"),),
        (("forwarded", "host=evil.example;proto=https"),),
        (("x-forwarded-prefix", "/evil"),),
    ],
)
async def test_no_header_moves_the_uri_that_a_proof_is_compared_with(
    house: House, headers: tuple[tuple[str, str], ...]
) -> None:
    token = await api_token(house.agent)
    path = "/api/v1/tasks"
    assert (await call(house.agent, token, "GET", path, headers=headers)).status == 200
    answer = await call(house.agent, token, "GET", path, headers=headers, uri=f"https://evil.example{path}")
    assert answer.status == 401


async def test_a_header_that_is_sent_twice_is_refused(house: House) -> None:
    token = await api_token(house.agent)
    for name in ("authorization", "dpop"):
        answer = await call(house.agent, token, "GET", "/api/v1/tasks", headers=((name, "x"),))
        assert answer.status == 400


@pytest.mark.parametrize("header", [{}, {"alg": "none"}, {"alg": "HS256"}, {"typ": "JWT"}, {"typ": None}, {"jku": "x"}])
async def test_a_token_that_the_agent_signs_itself_is_none(house: House, header: dict[str, Any]) -> None:
    token = await api_token(house.agent)
    claims = claims_of(token) | {"scope": "ostiary:admin"}
    ours = json.loads(jose.unb64u(token.split(".")[0]))
    head = ours | {"jwk": house.agent.key.public.bare_jwk} | header
    assert (await call(house.agent, sign(house.agent.key, head, claims), "GET", "/api/v1/tasks")).status == 401


async def test_what_another_key_of_ours_signed_is_no_token(house: House) -> None:
    claims = claims_of(await api_token(house.agent))
    keys = house.world.keys
    for use, alg, typ in (("feed", "EdDSA", "at+jwt"), ("ledger", "EdDSA", "at+jwt"), ("token", "ES256", FEED_TYP)):
        token = jose.sign_jwt(keys.signer(use, alg), typ=typ, claims=claims)
        assert (await call(house.agent, token, "GET", "/api/v1/tasks")).status == 401


@pytest.mark.parametrize("typ", ["enrol+jwt", "dpop+jwt", "at+jwt", "JWT", "jwt", "ostiary-feed+jwt", ""])
async def test_another_jwt_of_the_client_does_not_authenticate_it(house: House, typ: str) -> None:
    assertion = house.agent.assertion(header={"typ": typ})
    assert (await house.agent.ask(client_assertion=assertion)).error == "invalid_client"


async def test_a_client_assertion_is_no_proof_and_a_proof_for_another_server_is_none(house: House) -> None:
    assert (await house.agent.ask(proof=house.agent.assertion())).error == "invalid_dpop_proof"
    elsewhere = house.agent.proof(uri="https://evil.example/token")
    assert (await house.agent.ask(proof=elsewhere)).error == "invalid_dpop_proof"


async def test_a_nonce_of_the_token_endpoint_is_none_of_the_api(house: House) -> None:
    token = await api_token(house.agent)
    nonce = dpop.make_nonce(house.world.keys.secret("nonce"), b"as", house.world.now())
    proof = house.agent.proof(method="GET", uri=f"{API}/tasks", access_token=token, nonce=nonce)
    headers = [("authorization", f"DPoP {token}"), ("dpop", proof)]
    answer = await send(house.app, "GET", "/api/v1/tasks", headers=headers)
    assert answer.error == "use_dpop_nonce"
