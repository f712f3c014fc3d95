"""Acts that stop something take one commit: the proof of the caller is used up in the act itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from harness.registry_fixtures import newest_entry
from ostiary.protocol import jose
from ostiaryd.app import ROUTES, build_app
from ostiaryd.ground.database.line import Lane
from ostiaryd.ground.http.edge import PROVED
from ostiaryd.ground.world import World
from ostiaryd.ledger import store as ledger
from ostiaryd.ledger.flows import act
from ostiaryd.ledger.model import decode_entry
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import Verb
from tests.support.api_fixtures import Answer, Client, client, register, send
from tests.support.role_fixtures import person
from tests.support.trust_fixtures import API, proof_of

__all__ = ["client"]

WHY = {"why": "a test"}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/v1/revoke"): {"kind": "agent", "id": "reader"},
    ("POST", "/api/v1/agents/{name}/suspend"): WHY,
    ("POST", "/api/v1/agents/{name}/quarantine"): WHY,
    ("POST", "/api/v1/agents/{name}/decommission"): WHY,
    ("DELETE", "/api/v1/agents/{name}/keys/{kid}"): None,
    ("POST", "/api/v1/kill"): {"what": "agent", "name": "reader", **WHY},
}


@pytest.fixture
async def chief(client: Client) -> Client:
    """An administrator, beside the agent `reader`."""
    agent, key = await register(client.world, name="chief", scopes=("ostiary:admin", "ostiary:read"))
    return Client(client.app, client.world, agent.agent_id, key)


async def ask(client: Client, route: tuple[str, str], *, kid: str = "", token: str, body: Any, proof: str) -> Answer:
    method, path = route[0], route[1].format(name="reader", kid=kid, id="tk_x")
    headers = [("authorization", f"DPoP {token}"), ("dpop", proof), ("content-type", "application/json")]
    text = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return await send(build_app(client.world), method, path, headers=headers, body=text)


def counted(world: World, patch: pytest.MonkeyPatch) -> list[list[Lane]]:
    """The batches from now on, each with the lanes of its jobs."""
    batches: list[list[Lane]] = []
    end = world.writer._end

    def note(batch: Any) -> None:
        batches.append([waiting.priority.lane for waiting in batch.waiting])
        end(batch)

    patch.setattr(world.writer, "_end", note)
    return batches


@pytest.mark.parametrize("route", sorted(BODIES))
async def test_a_stop_takes_one_commit_and_its_proof_cannot_be_used_again(
    chief: Client, client: Client, route: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, kid = client.world, client.key.public.thumbprint
    token = (await chief.token(resource=API))["access_token"]
    path = route[1].format(name="reader", kid=kid)
    proof = proof_of(chief, token, path, method=route[0])
    batches, before = counted(world, monkeypatch), ledger.get_head(world.db.read())[0].size
    answer = await ask(chief, route, kid=kid, token=token, body=BODIES[route], proof=proof)
    assert answer.status in (200, 201), answer.body
    assert batches == [[Lane.STOP]]
    entry = decode_entry(ledger.list_entry_bodies(world.db.read(), before, 1)[0])
    assert (entry.agent, entry.reporter, entry.outcome) == (chief.id, None, "ok")
    again = await ask(chief, route, kid=kid, token=token, body=BODIES[route], proof=proof)
    assert (again.status, again.error) == (401, "invalid_dpop_proof")
    assert newest_entry(world).outcome == "refused"


async def test_the_proof_of_a_malformed_stop_cannot_be_used_again(chief: Client) -> None:
    token = (await chief.token(resource=API))["access_token"]
    route = ("POST", "/api/v1/revoke")
    proof = proof_of(chief, token, route[1], method="POST")
    assert (await ask(chief, route, token=token, body=b"{", proof=proof)).status == 400
    assert (newest_entry(chief.world).action, newest_entry(chief.world).agent) == ("api.call", chief.id)
    body = {"kind": "agent", "id": "reader"}
    assert (await ask(chief, route, token=token, body=body, proof=proof)).error == "invalid_dpop_proof"


async def test_a_refused_stop_runs_in_the_ordinary_lane(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    token = (await client.token(resource=API))["access_token"]
    route = ("POST", "/api/v1/kill")
    batches = counted(client.world, monkeypatch)
    forged = proof_of(client, token, route[1], method="POST", key=jose.generate("ES256"))
    for proof, status in ((forged, 401), (proof_of(client, token, route[1], method="POST"), 403)):
        answer = await ask(client, route, token=token, body=BODIES[route], proof=proof)
        assert (answer.status, newest_entry(client.world).action) == (status, "api.call")
    assert batches[0] == [Lane.ORDINARY]


async def test_an_administrator_that_is_suspended_after_the_gate_stops_nothing(
    chief: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller passes the gate, and is suspended before its act."""
    world, token = chief.world, (await chief.token(resource=API))["access_token"]
    act_as = registry.act_as

    async def suspend_first(*given: Any, **more: Any) -> Any:
        await act(world, "test", lambda act: registry.set_agent_state(act, chief.id, Verb.SUSPEND))
        return await act_as(*given, **more)

    monkeypatch.setattr("ostiaryd.registry.flows.act_as", suspend_first)
    route = ("POST", "/api/v1/kill")
    proof = proof_of(chief, token, route[1], method="POST")
    assert (await ask(chief, route, token=token, body=BODIES[route], proof=proof)).status == 401
    assert registry.list_stops(world.db.read()) == []


async def test_only_the_connections_of_administrators_and_persons_are_privileged(chief: Client, client: Client) -> None:
    bea = await person(client.world, "bea", "viewer")
    noted, app = list[bool](), build_app(chief.world)

    async def noting(scope: Scope, receive: Receive, give: Send) -> None:
        await app(
            {**scope, "extensions": {PROVED: lambda is_privileged, is_guard: noted.append(is_privileged)}},
            receive,
            give,
        )

    for caller, is_privileged in ((chief, True), (bea, True), (client, False)):
        token = (await caller.token(resource=API))["access_token"]
        for proof in (proof_of(caller, token, "/api/v1/tasks", method="GET"), "forged"):
            headers = [("authorization", f"DPoP {token}"), ("dpop", proof)]
            noted.clear()
            answer = await send(noting, "GET", "/api/v1/tasks", headers=headers)
            assert noted == ([is_privileged] if answer.status < 400 else [])
            assert (answer.status < 400) is (proof != "forged"), answer.body


def test_the_routes_that_stop_in_one_act_have_a_scope_and_are_the_tested_routes() -> None:
    one_act = [route for route in ROUTES if route.stops and route.proves_in_act]
    assert all(route.scope for route in one_act)
    others = {("POST", "/api/v1/tasks/{id}/end"), ("POST", "/api/v1/certificates/{serial}/revoke")}
    assert {(route.method, route.path) for route in one_act} == {*BODIES, *others}


def test_every_revoke_route_is_marked_as_a_stop_and_not_as_a_grant() -> None:
    revoking = [route for route in ROUTES if route.scope and route.path.endswith("/revoke")]
    assert len(revoking) > 5
    assert [route.path for route in revoking if route.grants or not route.stops] == []


async def test_the_proof_of_a_refused_stop_cannot_be_used_again(chief: Client, client: Client) -> None:
    """The proof does not cover the body, so a copied proof must not be accepted with another body."""
    token = (await chief.token(resource=API))["access_token"]
    route = ("POST", "/api/v1/revoke")
    proof = proof_of(chief, token, route[1], method="POST")
    unknown = {"kind": "agent", "id": "nobody"}
    assert (await ask(chief, route, token=token, body=unknown, proof=proof)).status == 404
    assert (newest_entry(chief.world).outcome, newest_entry(chief.world).agent) == ("refused", chief.id)
    answer = await ask(chief, route, token=token, body=BODIES[route], proof=proof)
    assert (answer.status, answer.error) == (401, "invalid_dpop_proof")
