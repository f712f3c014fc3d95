"""A suspended person: no agent acts for the person, and the person cannot sign in until resumed."""

from __future__ import annotations

import pytest
from starlette.types import ASGIApp

from harness.clock import Clock
from harness.registry_fixtures import call_admin_api, is_live, newest_entry
from ostiary.protocol import jose
from ostiaryd.app import build_app
from ostiaryd.ground.world import World
from ostiaryd.ledger.flows import act
from ostiaryd.registry import flows as registry
from ostiaryd.tasks.flows import find_task
from ostiaryd.tokens import flows
from tests.support.api_fixtures import ISSUER, Client, claims_of
from tests.support.page_client import PASSWORD, PageClient, signed_in
from tests.tokens.code_flow import CodeFlow, begin_flow, sign_in


@pytest.fixture
def app(world: World) -> ASGIApp:
    return build_app(world)


@pytest.fixture
async def flow(world: World, app: ASGIApp) -> CodeFlow:
    return await begin_flow(world, app)


async def change(world: World, verb: str, name: str = "ann") -> tuple[int, str]:
    status, body = await call_admin_api(world, "POST", f"/persons/{name}/{verb}", {"why": "on leave"})
    return status, str(body.get("state") or body.get("error"))


async def test_a_suspension_of_a_person_ends_sessions_consents_tasks_and_tokens_in_one_act(
    world: World, app: ASGIApp, flow: CodeFlow
) -> None:
    tokens = await flow.tokens(scope="openid files:read offline_access")
    claims = claims_of(tokens["access_token"])
    assert is_live(world, claims["jti"])
    assert find_task(world.db.read(), claims["task"]).ended_at is None
    status, body = await call_admin_api(world, "POST", "/persons/ann/suspend", {"why": "on leave"})
    assert (status, body) == (200, {"person_id": flow.person, "name": "ann", "state": "suspended"})
    entry = newest_entry(world)
    assert (entry.action, entry.object, (entry.detail or {})["why"]) == ("person.suspend", flow.person, "on leave")
    assert not is_live(world, claims["jti"])
    assert find_task(world.db.read(), claims["task"]).ended_at == entry.at
    assert (await flow.refresh(tokens["refresh_token"])).error == "invalid_grant"
    assert flows.list_consents(world.db.read(), flow.person) == []
    await flow.browser.get("/account")
    assert flow.browser.path.startswith("/login")


async def test_a_suspended_person_cannot_sign_in_with_a_password_until_resumed(world: World, app: ASGIApp) -> None:
    browser = await signed_in(world, app)
    refused = PageClient(app)
    assert (await change(world, "suspend")) == (200, "suspended")
    for password in (PASSWORD, "a wrong guess"):
        answer = await refused.log_in(password=password)
        assert answer.status == 403
        assert "Name, password or code is wrong" in refused.text, "the page does not tell"
    await browser.get("/account")
    assert browser.path.startswith("/login"), "the session has ended"
    assert (await change(world, "resume")) == (200, "active")
    await browser.get("/account")
    assert browser.path.startswith("/login"), "what ended stays ended"
    again = PageClient(app)
    await again.log_in()
    assert again.path == "/account"


async def test_the_key_of_a_suspended_person_is_refused_until_the_person_is_resumed(world: World, app: ASGIApp) -> None:
    key = jose.generate("ES256")
    made = await call_admin_api(world, "POST", "/persons", {"name": "cleo", "jwk": dict(key.public.jwk)})
    cleo = Client(app, world, made[1]["person_id"], key)

    async def ask() -> int:
        form = {"resource": f"{ISSUER}/api/v1", "scope": "ostiary:approve"}
        answer = await cleo.ask(**form)
        return (await cleo.ask(**form) if answer.error == "use_dpop_nonce" else answer).status

    assert await ask() == 200
    await change(world, "suspend", "cleo")
    assert await ask() == 401
    await change(world, "resume", "cleo")
    assert await ask() == 200, "the key was kept"


async def test_a_person_is_suspended_only_once_and_resumed_only_if_suspended(world: World, flow: CodeFlow) -> None:
    assert await change(world, "resume") == (409, "wrong_state")
    assert await change(world, "suspend") == (200, "suspended")
    assert await change(world, "suspend") == (409, "person_suspended")
    assert await change(world, "return") == (409, "conflict")
    assert await change(world, "suspend", "nobody") == (404, "not_found")
    assert await change(world, "resume") == (200, "active")
    await act(world, "test.leave", lambda act: registry.revoke_owner(act, "ann"))
    assert await change(world, "suspend") == (409, "person_left")


async def test_a_consent_from_before_a_person_left_does_not_count_after_the_return(
    world: World, flow: CodeFlow, clock: Clock
) -> None:
    await flow.answer()
    await act(world, "test.leave", lambda act: registry.revoke_owner(act, "ann"))
    await act(world, "test.return", lambda act: registry.return_person(act, "ann"))
    status, agent = await call_admin_api(world, "POST", f"/agents/{flow.client.id}/resume", {})
    assert status == 200, agent
    clock.advance(1)
    await sign_in(world, flow.browser, flow.person)
    flow.browser.left_to = ""
    await flow.open()
    assert "/consent" in flow.browser.text, "the person is asked again"
    await flow.allow()
    assert "code" in flow.arrived()
    assert len(flows.list_consents(world.db.read(), flow.person)) == 1
