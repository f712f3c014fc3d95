"""Pushed authorization requests (RFC 9126)."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from msgspec.structs import replace
from starlette.types import ASGIApp

from harness.clock import Clock
from ostiaryd.app import build_app
from ostiaryd.ground.database import sql
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.tokens.flows.authorization import REQUEST_S, TIME_DIGITS
from ostiaryd.trust import flows as trust
from ostiaryd.trust.store import clients
from tests.support.api_fixtures import send
from tests.tokens.code_flow import CodeFlow, begin_flow


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


@pytest.fixture
async def flow(world: World, app: ASGIApp) -> CodeFlow:
    return await begin_flow(world, app)


async def test_the_endpoint_accepts_only_post_and_answers_with_uncached_json(app: ASGIApp, flow: CodeFlow) -> None:
    assert (await send(app, "GET", "/par")).status == 405
    pushed = await flow.push()
    assert (pushed.status, pushed.headers["content-type"]) == (201, "application/json")
    assert "no-store" in pushed.headers["cache-control"]
    assert pushed.json["expires_in"] == REQUEST_S
    again = await flow.push()
    assert again.json["request_uri"] != pushed.json["request_uri"]
    reference = pushed.json["request_uri"].rpartition(":")[2]
    assert len(reference[TIME_DIGITS:]) == 43, "256 random bits behind the time"


async def test_an_unauthenticated_pushed_request_is_not_processed(world: World, flow: CodeFlow) -> None:
    for wrong in ({}, {"redirect_uri": "https://evil.example/"}, {"code_challenge": None}, {"scope": "mail:read"}):
        for assertion in (None, "e30.e30.e30", flow.client.assertion(aud="https://other.example")):
            refused = await flow.push(client_assertion=assertion, **wrong)
            assert (refused.status, refused.error) == (401, "invalid_client"), wrong
    assert world.db.read().all(sql("select count(*) from authorization_request")) == [(0,)]


async def test_a_request_uri_ends_at_its_expiry_and_after_its_use(flow: CodeFlow, clock: Clock) -> None:
    await flow.answer()

    async def follow(uri: str) -> int:
        flow.browser.left_to = ""
        query = urlencode({"client_id": flow.client.id, "request_uri": uri})
        return (await flow.browser.get(f"/authorize?{query}")).status

    early, late = (await flow.push()).json["request_uri"], (await flow.push()).json["request_uri"]
    clock.advance(REQUEST_S, us=-1)
    await follow(early)
    assert "code" in flow.arrived()
    assert await follow(early) == 400, "it was answered"
    clock.advance(us=1)
    assert await follow(late) == 400
    assert flow.browser.left_to == ""


async def test_an_invalid_request_object_or_a_request_uri_cannot_be_pushed(flow: CodeFlow) -> None:
    for changes, error in (
        ({"request": "e30.e30."}, "invalid_request_object"),
        ({"request_uri": "x"}, "invalid_request"),
    ):
        refused = await flow.push(**changes)
        assert (refused.status, refused.error) == (400, error)


async def test_a_client_that_must_push_requests_is_refused_without_a_pushed_request(
    world: World, flow: CodeFlow
) -> None:
    await flow.answer()
    client = trust.get_oauth_client(world.db.read(), flow.client.id)
    assert client is not None
    metadata = replace(client.metadata, require_pushed_authorization_requests=True)
    await act(world, "test.client", lambda act: clients.put(act.tx, replace(client, metadata=metadata)))
    flow.browser.left_to = ""
    await flow.open()
    assert flow.arrived()["error"] == "invalid_request"
    query = urlencode({"client_id": flow.client.id, "request_uri": (await flow.push()).json["request_uri"]})
    flow.browser.left_to = ""
    await flow.browser.get(f"/authorize?{query}")
    assert "code" in flow.arrived()
