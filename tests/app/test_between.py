"""A caller of a route is stopped between its gate and its act: the act checks the caller again in its own transaction,
and a response is read after that check.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from harness.patience import eventually_async
from harness.registry_fixtures import newest_entry
from ostiary.protocol import jose
from ostiaryd.app import ROUTES, build_app
from ostiaryd.ground.database import sql
from ostiaryd.ground.database.line import overtaking
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import Act, act, make_job
from ostiaryd.registry import flows as registry
from ostiaryd.registry.model import SELF, SSF_MANAGE, SSF_READ, Root, Verb
from ostiaryd.signals import wire_ssf_poll
from ostiaryd.signals.flows import signals
from ostiaryd.trust.flows import access
from tests.support.api_fixtures import Answer, Client, claims_of, client, register, send
from tests.support.recorded_statements import record_statements
from tests.support.sources import calls, sources
from tests.support.trust_fixtures import API, proof_of

__all__ = ["client"]
SCOPES = ("ostiary:admin", "ostiary:read", "ostiary:decide")
GATED = [(route.method, route.path) for route in ROUTES if route.scope in (SELF, *SCOPES)]
CHANGES: dict[tuple[str, str], Any] = {
    ("POST", "/api/v1/tasks"): {"purpose": "to sort"},
    ("POST", "/api/v1/agents"): {"name": "new", "owner": "ann", "purpose": "to sort"},
    ("POST", "/api/v1/agents/reader/join-token"): {},
    ("POST", "/api/v1/resources"): {"name": "other", "uri": "https://other.example/mcp"},
    ("POST", "/api/v1/persons"): {"name": "bob"},
    ("POST", "/api/v1/peps"): {"name": "gate", "networks": ["192.0.2.0/24"]},
    ("POST", "/access/v1/search/action"): {
        "subject": {"type": "agent", "id": "reader"},
        "resource": {"type": "tool", "id": "files/read_file"},
    },
}
"""Requests of an administrator that start, grant, create or decide something."""


USED = sql("select digest from spent order by seq")
BY_THEMSELVES = {
    "ostiaryd.trust.wire_admin.enrol": "a join token, on a route without a gate",
    "ostiaryd.secrets.wire_backends._fail": "records a refusal",
    "ostiaryd.secrets.wire_leases._rotate": "records the outcome of a request to a database",
    "ostiaryd.secrets.wire_leases.follow": "records the outcome of a request to another system",
}
"""Function in a module with gated routes: why its act checks no caller of a gate."""


@pytest.fixture
async def chief(client: Client) -> Client:
    """An administrator, beside the agent `reader`."""
    agent, key = await register(client.world, name="chief", scopes=SCOPES)
    return Client(build_app(client.world), client.world, agent.agent_id, key)


def before_job(world: World, patch: pytest.MonkeyPatch, number: int, flow: Callable[[Act], object]) -> None:
    """Run `flow` as an act in the batch of the job with this number that a request adds from now on, before that job:
    job 1 of a gate marks the proof as used, and job 2 is the act.
    """
    added: list[int] = []
    submit = type(world.writer).submit

    def first(writer: Any, job: Any) -> Any:
        added.append(len(added))
        if len(added) == number:
            with overtaking():
                submit(writer, make_job("test", flow))
        return submit(writer, job)

    patch.setattr(type(world.writer), "submit", first)


async def ask(chief: Client, route: tuple[str, str], body: Any, *, access_token: str) -> Answer:
    method, path = route
    proof = proof_of(chief, access_token, path, method=method)
    headers = [("authorization", f"DPoP {access_token}"), ("dpop", proof), ("content-type", "application/json")]
    text = b"" if body is None else json.dumps(body).encode()
    return await send(chief.app, method, path, headers=headers, body=text)


def end(access_token: str) -> Callable[[Act], object]:
    """The flow that revokes a token."""
    token = claims_of(access_token)["jti"]
    return lambda act: registry.end_holdings(act, Root.HOLDING, token, why="test")


async def test_no_route_accepts_a_token_that_is_revoked_before_its_proof_is_marked_as_used(
    chief: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revocation and the mark share a batch, so no read before the mark can know of the revocation."""
    accepted = []
    for method, template in GATED:
        access_token = (await chief.token(resource=API))["access_token"]
        path = re.sub(r"{[^}]*}", "x", template)
        with monkeypatch.context() as patch:
            before_job(chief.world, patch, 1, end(access_token))
            refused = await ask(chief, (method, path), {}, access_token=access_token)
        if refused.status != 401 or 'error="invalid_token"' not in refused.headers["www-authenticate"]:
            accepted.append((method, template, refused.status))
    assert len(GATED) > 200
    assert accepted == []


@pytest.mark.parametrize("caller", ["ended", "forged"])
async def test_a_revoked_or_forged_token_does_not_mark_a_proof_as_used(chief: Client, caller: str) -> None:
    """Every route, also with the DPoP key of an honest client: no row is added, and no proof is refused after it."""
    world, token = chief.world, (await chief.token(resource=API))["access_token"]
    if caller == "ended":
        await act(world, "revoke", end(token))
    else:
        [head, claims, _] = token.split(".")
        token = f"{head}.{claims}.{jose.b64u(bytes(64))}"
    before = world.db.read().all(USED)
    for method, template in GATED:
        refused = await ask(chief, (method, re.sub(r"{[^}]*}", "x", template)), {}, access_token=token)
        assert refused.status == 401, (method, template, refused.body)
    assert world.db.read().all(USED) == before


async def test_a_proof_sent_during_a_stop_is_refused_although_the_stop_is_lifted_at_once(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the same request could be sent again."""
    client.app, world = build_app(client.world), client.world
    access_token = (await client.token(resource=API))["access_token"]
    owner = registry.find_agent(world.db.read(), client.id).owner
    await act(world, "kill.put", lambda act: registry.stop(act, "owner", owner, why="test", by="test"))
    spend = access.spend_at_once

    async def spend_and_lift(*args: Any) -> None:
        try:
            await spend(*args)
        finally:
            await act(world, "kill.lift", lambda act: registry.lift_stop(act, "owner", owner))

    monkeypatch.setattr("ostiaryd.trust.flows.spend_at_once", spend_and_lift)
    refused = await ask(client, ("POST", "/api/v1/tasks"), {"purpose": "to sort"}, access_token=access_token)
    assert (refused.status, refused.json["error"]) == (401, "invalid_token"), refused.body


@pytest.mark.parametrize("route", sorted(CHANGES))
@pytest.mark.parametrize("stop", ["revoked", "suspended", "narrowed"])
async def test_an_act_of_a_caller_that_was_stopped_after_the_gate_is_refused(
    chief: Client, route: tuple[str, str], stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = chief.world
    access_token = (await chief.token(resource=API))["access_token"]
    stops: dict[str, Callable[[Act], object]] = {
        "revoked": end(access_token),
        "suspended": lambda act: registry.set_agent_state(act, "chief", Verb.SUSPEND),
        "narrowed": lambda act: registry.put_restriction(act, "chief", "narrow", until=act.now + 60_000_000),
    }
    before_job(world, monkeypatch, 2, stops[stop])
    refused = await ask(chief, route, CHANGES[route], access_token=access_token)
    assert refused.status == (403 if stop == "narrowed" else 401), refused.body
    entry = newest_entry(world)
    assert (entry.outcome, entry.agent) == ("refused", chief.id)


async def test_a_task_of_an_agent_whose_owner_was_stopped_after_the_gate_is_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.app, world = build_app(client.world), client.world
    access_token = (await client.token(resource=API))["access_token"]
    owner = registry.find_agent(world.db.read(), client.id).owner
    before_job(world, monkeypatch, 2, lambda act: registry.stop(act, "owner", owner, why="test", by="test"))
    route = ("POST", "/api/v1/tasks")
    refused = await ask(client, route, CHANGES[route], access_token=access_token)
    assert refused.status == 401, refused.body


async def test_the_check_in_the_act_adds_no_statement_to_the_writer(
    chief: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = chief.world
    access_token = (await chief.token(resource=API))["access_token"]
    seen: list[Counter[str]] = []
    for checks in (True, True, False):
        with monkeypatch.context() as patch:
            if not checks:
                patch.setattr("ostiaryd.app._check_again", lambda *_: None)
            chief.app = build_app(world)
            statements = record_statements(world, patch, writer_only=True)
            answer = await ask(chief, ("POST", "/api/v1/tasks"), {"purpose": "to sort"}, access_token=access_token)
            assert answer.status == 201, answer.body
            seen.append(Counter(statements))
    assert seen[1] == seen[2]


SEARCHES = (
    "/api/v1/audit",
    "/api/v1/agent-table",
    "/api/v1/webhooks",
    "/api/v1/overview",
    "/api/v1/policies",
)
"""Paths whose response a thread searches."""


@pytest.mark.parametrize("path", SEARCHES)
@pytest.mark.parametrize("stop", ["revoked", "suspended"])
async def test_a_search_is_refused_if_its_caller_is_stopped_during_the_search(
    chief: Client, path: str, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, scan = chief.world, type(chief.world.db).scan
    access_token = (await chief.token(resource=API))["access_token"]
    stops: dict[str, Callable[[Act], object]] = {
        "revoked": end(access_token),
        "suspended": lambda act: registry.set_agent_state(act, "chief", Verb.SUSPEND),
    }

    async def scan_and_stop(db: Any, read: Callable[[Any], Any]) -> Any:
        found = await scan(db, read)
        if (flow := stops.pop(stop, None)) is not None:
            with overtaking():
                await world.writer.submit(make_job("test", flow))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(type(world.db), "scan", scan_and_stop)
        refused = await ask(chief, ("GET", path), None, access_token=access_token)
    assert (refused.status, refused.json["error"]) == (401, "invalid_token"), refused.body
    entry = newest_entry(world)
    assert (entry.action, entry.outcome) == ("api.call", "refused")


async def test_a_waiting_poll_for_signals_is_refused_if_its_token_is_revoked(
    client: Client,
) -> None:
    world, app = client.world, build_app(client.world)
    agent, key = await register(world, name="siem", scopes=(SSF_READ, SSF_MANAGE))
    siem = Client(app, world, agent.agent_id, key)
    access_token = (await siem.token(resource=API))["access_token"]
    stream = await ask(siem, ("POST", "/api/v1/ssf/streams"), {}, access_token=access_token)
    route = ("POST", f"/api/v1/ssf/poll/{stream.json['stream_id']}")
    refused_signal = {"setErrs": {"unknown": {"err": "invalid_key"}}}
    waiting = asyncio.create_task(ask(siem, route, refused_signal, access_token=access_token))
    await eventually_async(lambda: world.get_singleton(wire_ssf_poll.Waiting).count == 1)
    await act(world, "revoke", end(access_token))
    await act(world, "agent.suspend", lambda act: registry.set_agent_state(act, "reader", Verb.SUSPEND))
    await signals.make_signals(world)
    answer = await waiting
    assert (answer.status, answer.json.get("error")) == (401, "invalid_token"), answer.body


def test_each_act_in_a_module_with_gated_routes_checks_the_caller_except_the_listed_ones() -> None:
    """`act_as` calls `Call.prove`; a function that calls `act` itself must call it too."""
    gated = {route.wire.__module__ for route in ROUTES if route.scope}
    unchecked = {
        f"{source.module}.{node.name}"
        for source in sources("src/ostiaryd")
        if source.module in gated
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(part.arg == "request" for call in calls(node, "act") for part in call.keywords)
        and not any(isinstance(part, ast.Attribute) and part.attr == "prove" for part in ast.walk(node))
    }
    assert unchecked == set(BY_THEMSELVES)
